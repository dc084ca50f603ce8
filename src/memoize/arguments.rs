//! Arguments as a text that only they have: what serde sees of them, written so that it could be read back. JSON wouldn't do, in which `Some(None)` and `None` are the same, and a
//! number that isn't finite is nothing at all.

use std::fmt::{self, Display, Write};

use serde::Serialize;
use serde::ser::{
    self, SerializeMap, SerializeSeq, SerializeStruct, SerializeStructVariant, SerializeTuple, SerializeTupleStruct,
    SerializeTupleVariant, Serializer,
};

/// The text; `None` for what has none: a number that isn't finite, or what can't be serialised.
pub(super) fn text(arguments: &impl Serialize) -> Option<String> {
    let mut writer = Writer { text: String::new() };
    arguments.serialize(&mut writer).ok()?;
    Some(writer.text)
}

struct Writer {
    text: String,
}

/// There is no text.
#[derive(Debug)]
struct NoKey;

impl Display for NoKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("these arguments have no key")
    }
}

impl std::error::Error for NoKey {}

impl ser::Error for NoKey {
    fn custom<T: Display>(_: T) -> Self {
        Self
    }
}

impl Writer {
    fn write(&mut self, text: impl Display) -> Result<(), NoKey> {
        write!(self.text, "{text}").map_err(|_| NoKey)
    }

    fn number(&mut self, number: f64, text: impl Display) -> Result<(), NoKey> {
        if number.is_finite() { self.write(text) } else { Err(NoKey) }
    }

    /// Between quotes, with those in it, and what escapes them, escaped.
    fn quote(&mut self, text: &str) -> Result<(), NoKey> {
        self.text.push('"');
        for character in text.chars() {
            if matches!(character, '"' | '\\') {
                self.text.push('\\');
            }
            self.text.push(character);
        }
        self.text.push('"');
        Ok(())
    }

    fn named(&mut self, name: &str, open: char, close: char) -> Result<List<'_>, NoKey> {
        self.quote(name)?;
        self.open(open, close)
    }

    fn open(&mut self, open: char, close: char) -> Result<List<'_>, NoKey> {
        self.text.push(open);
        Ok(List { writer: self, close })
    }
}

/// What has several parts. Each ends with a comma, so that one that is empty isn't none.
struct List<'a> {
    writer: &'a mut Writer,
    close: char,
}

impl List<'_> {
    fn part<T: Serialize + ?Sized>(&mut self, part: &T) -> Result<(), NoKey> {
        part.serialize(&mut *self.writer)?;
        self.writer.text.push(',');
        Ok(())
    }

    fn field<T: Serialize + ?Sized>(&mut self, name: &str, value: &T) -> Result<(), NoKey> {
        self.writer.quote(name)?;
        self.writer.text.push(':');
        self.part(value)
    }

    fn close(self) -> Result<(), NoKey> {
        self.writer.text.push(self.close);
        Ok(())
    }
}

macro_rules! as_it_is_shown {
    ($($method:ident $type:ty),+) => {
        $(fn $method(self, value: $type) -> Result<(), NoKey> {
            self.write(value)
        })+
    };
}

impl<'a> Serializer for &'a mut Writer {
    type Ok = ();
    type Error = NoKey;
    type SerializeSeq = List<'a>;
    type SerializeTuple = List<'a>;
    type SerializeTupleStruct = List<'a>;
    type SerializeTupleVariant = List<'a>;
    type SerializeMap = List<'a>;
    type SerializeStruct = List<'a>;
    type SerializeStructVariant = List<'a>;

    as_it_is_shown!(
        serialize_bool bool, serialize_i8 i8, serialize_i16 i16, serialize_i32 i32, serialize_i64 i64, serialize_i128 i128,
        serialize_u8 u8, serialize_u16 u16, serialize_u32 u32, serialize_u64 u64, serialize_u128 u128
    );

    fn serialize_f32(self, value: f32) -> Result<(), NoKey> {
        // As a float, so that it isn't taken for a whole number.
        self.number(value.into(), format_args!("{value:?}"))
    }

    fn serialize_f64(self, value: f64) -> Result<(), NoKey> {
        self.number(value, format_args!("{value:?}"))
    }

    fn serialize_char(self, value: char) -> Result<(), NoKey> {
        self.quote(value.encode_utf8(&mut [0; 4]))
    }

    fn serialize_str(self, value: &str) -> Result<(), NoKey> {
        self.quote(value)
    }

    fn serialize_bytes(self, value: &[u8]) -> Result<(), NoKey> {
        let mut list = self.open('<', '>')?;
        value.iter().try_for_each(|byte| list.part(byte))?;
        list.close()
    }

    fn serialize_none(self) -> Result<(), NoKey> {
        self.write("none")
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<(), NoKey> {
        let mut list = self.open('?', ';')?;
        list.part(value)?;
        list.close()
    }

    fn serialize_unit(self) -> Result<(), NoKey> {
        self.write("()")
    }

    fn serialize_unit_struct(self, _: &'static str) -> Result<(), NoKey> {
        self.serialize_unit()
    }

    fn serialize_unit_variant(self, _: &'static str, _: u32, name: &'static str) -> Result<(), NoKey> {
        self.named(name, '!', ';')?.close()
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(self, _: &'static str, value: &T) -> Result<(), NoKey> {
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        name: &'static str,
        value: &T,
    ) -> Result<(), NoKey> {
        let mut list = self.named(name, '=', ';')?;
        list.part(value)?;
        list.close()
    }

    fn serialize_seq(self, _: Option<usize>) -> Result<List<'a>, NoKey> {
        self.open('[', ']')
    }

    fn serialize_tuple(self, _: usize) -> Result<List<'a>, NoKey> {
        self.open('(', ')')
    }

    fn serialize_tuple_struct(self, _: &'static str, _: usize) -> Result<List<'a>, NoKey> {
        self.open('(', ')')
    }

    fn serialize_tuple_variant(self, _: &'static str, _: u32, name: &'static str, _: usize) -> Result<List<'a>, NoKey> {
        self.named(name, '(', ')')
    }

    fn serialize_map(self, _: Option<usize>) -> Result<List<'a>, NoKey> {
        self.open('{', '}')
    }

    fn serialize_struct(self, _: &'static str, _: usize) -> Result<List<'a>, NoKey> {
        self.open('{', '}')
    }

    fn serialize_struct_variant(
        self,
        _: &'static str,
        _: u32,
        name: &'static str,
        _: usize,
    ) -> Result<List<'a>, NoKey> {
        self.named(name, '{', '}')
    }
}

macro_rules! lists {
    ($($list:ident $method:ident),+) => {
        $(impl $list for List<'_> {
            type Ok = ();
            type Error = NoKey;

            fn $method<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), NoKey> {
                self.part(value)
            }

            fn end(self) -> Result<(), NoKey> {
                self.close()
            }
        })+
    };
}

lists!(
    SerializeSeq serialize_element, SerializeTuple serialize_element, SerializeTupleStruct serialize_field,
    SerializeTupleVariant serialize_field
);

macro_rules! structs {
    ($($list:ident),+) => {
        $(impl $list for List<'_> {
            type Ok = ();
            type Error = NoKey;

            fn serialize_field<T: Serialize + ?Sized>(&mut self, name: &'static str, value: &T) -> Result<(), NoKey> {
                self.field(name, value)
            }

            fn end(self) -> Result<(), NoKey> {
                self.close()
            }
        })+
    };
}

structs!(SerializeStruct, SerializeStructVariant);

impl SerializeMap for List<'_> {
    type Ok = ();
    type Error = NoKey;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), NoKey> {
        key.serialize(&mut *self.writer)?;
        self.writer.text.push(':');
        Ok(())
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), NoKey> {
        self.part(value)
    }

    fn end(self) -> Result<(), NoKey> {
        self.close()
    }
}
