//! Answers of the server, taken apart. What has another form than the question asks for is an error, whatever it is.

use redis::Value;

use super::failure::Failure;

/// A list of exactly so many.
pub(super) fn list<const N: usize>(answer: Value) -> Result<[Value; N], Failure> {
    values(answer)?.try_into().map_err(|_| Failure::nonsense("a list of another length"))
}

/// A list of any length.
pub(super) fn values(answer: Value) -> Result<Vec<Value>, Failure> {
    match answer {
        Value::Array(values) => Ok(values),
        _ => Err(Failure::nonsense("no list")),
    }
}

/// A number of the type that is expected.
pub(super) fn number<N: TryFrom<i64> + TryFrom<u64>>(answer: &Value) -> Result<N, Failure> {
    let number = match answer {
        Value::Int(number) => N::try_from(*number).ok(),
        Value::BulkString(digits) => {
            let digits = std::str::from_utf8(digits).ok().and_then(|digits| digits.parse::<u64>().ok());
            digits.and_then(|number| N::try_from(number).ok())
        }
        _ => None,
    };
    number.ok_or_else(|| Failure::nonsense("no number, or too large a one"))
}

/// Bytes that are there.
pub(super) fn bytes(answer: Value) -> Result<Vec<u8>, Failure> {
    optional_bytes(answer)?.ok_or_else(|| Failure::nonsense("nothing"))
}

/// Bytes, or nothing.
pub(super) fn optional_bytes(answer: Value) -> Result<Option<Vec<u8>>, Failure> {
    match answer {
        Value::Nil => Ok(None),
        Value::BulkString(bytes) => Ok(Some(bytes)),
        Value::SimpleString(text) => Ok(Some(text.into_bytes())),
        _ => Err(Failure::nonsense("no bytes")),
    }
}
