//! Durations and sizes as people write them.

use std::time::Duration;

/// How a duration may be written, for messages.
pub(super) const DURATIONS: &str = r#""60s", "5m", "1h30m", "250ms" or "7d""#;

/// How a size may be written, for messages.
pub(super) const SIZES: &str = r#""64MiB", "512KiB", "1GiB", "10MB", or a number of bytes"#;

/// The units of time in milliseconds, the largest first: a duration names them in this order, each at most once.
const TIMES: [(&str, u64); 5] = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)];

const BYTES: [(&str, u64); 7] = [
    ("b", 1),
    ("kib", 1 << 10),
    ("mib", 1 << 20),
    ("gib", 1 << 30),
    ("kb", 1000),
    ("mb", 1_000_000),
    ("gb", 1_000_000_000),
];

/// `1h30m`; `None` for anything that is no duration, or too long to count.
pub(super) fn duration(text: &str) -> Option<Duration> {
    let (mut rest, mut units, mut sum) = (text.trim(), &TIMES[..], 0_u64);
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let (number, unit, behind) = number_and_unit(rest)?;
        let place = units.iter().position(|(name, _)| *name == unit)?;
        sum = number.checked_mul(units.get(place)?.1).and_then(|product| sum.checked_add(product))?;
        units = units.get(place + 1..)?;
        rest = behind;
    }
    Some(Duration::from_millis(sum))
}

/// `64MiB`, in any case; `None` for anything that is no size.
pub(super) fn size(text: &str) -> Option<u64> {
    let (number, unit, rest) = number_and_unit(text.trim())?;
    let (_, bytes) = BYTES.iter().find(|(name, _)| unit.eq_ignore_ascii_case(name)).filter(|_| rest.is_empty())?;
    number.checked_mul(*bytes)
}

/// The number at the start, the unit behind it, and what follows.
fn number_and_unit(text: &str) -> Option<(u64, &str, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, rest) = text.split_at(end);
    let rest = rest.trim_start();
    let end = rest.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(rest.len());
    let (unit, rest) = rest.split_at(end);
    Some((number.parse().ok()?, unit, rest.trim_start()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        let rows = [
            ("60s", Some(60_000)),
            ("0s", Some(0)),
            ("1h30m", Some(5_400_000)),
            (" 1 d 2h 3m 4s 5ms ", Some(93_784_005)),
            ("250ms", Some(250)),
            ("", None),
            ("5", None),
            ("s", None),
            ("-5s", None),
            ("1.5s", None),
            ("5 minutes", None),
            ("5M", None),
            ("1m1h", None),
            ("1m1m", None),
            ("1h 30", None),
            ("1s,", None),
            ("99999999999999999999s", None),
            ("999999999999999999d", None),
            ("１s", None),
        ];
        for (text, expected) in rows {
            assert_eq!(duration(text).map(|d| d.as_millis()), expected, "{text:?}");
        }
    }

    #[test]
    fn sizes() {
        let rows = [
            ("64MiB", Some(64 << 20)),
            ("1 gib", Some(1 << 30)),
            ("10MB", Some(10_000_000)),
            ("5B", Some(5)),
            ("5", None),
            ("", None),
            ("64M", None),
            ("64MiB1", None),
            ("1.5GiB", None),
            ("99999999999GiB", None),
        ];
        for (text, expected) in rows {
            assert_eq!(size(text), expected, "{text:?}");
        }
    }
}
