//! Durations as text: what Go's `time.ParseDuration` and proto JSON accept.
//!
//! Only lengths of time exist here. Negative text is an error, because no field of the API gives it a meaning.

use std::{borrow::Cow, fmt, ops::Deref, str::FromStr, time::Duration};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A duration field of an API object: `5s`, `1h30m`, `0.25s`, `100ms`.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DurationText(pub Duration);

/// Why a text is not a duration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DurationError {
    /// Nothing there.
    #[error("is empty")]
    Empty,
    /// Starts with `-`.
    #[error("is negative")]
    Negative,
    /// Neither digits nor a dot where a number must be.
    #[error("has no number before a unit")]
    Number,
    /// No unit, or another than h, m, s, ms, us (µs) and ns.
    #[error("has no unit or an unknown one; units are h, m, s, ms, us and ns")]
    Unit,
    /// More than [`MAX`].
    #[error("is longer than 10,000 years")]
    TooLong,
}

/// The longest duration a proto `Duration` may carry: 315,576,000,000 s (google/protobuf/duration.proto).
pub const MAX: Duration = Duration::from_secs(315_576_000_000);

/// Reads a duration such as `1h30m`, `1.5s` or `0`.
///
/// # Errors
/// Says what is wrong with the text.
pub fn parse(text: &str) -> Result<Duration, DurationError> {
    let text = text.strip_prefix('+').unwrap_or(text);
    if text.is_empty() {
        return Err(DurationError::Empty);
    }
    if text.starts_with('-') {
        return Err(DurationError::Negative);
    }
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let mut rest = text;
    let mut nanos: u128 = 0;
    while !rest.is_empty() {
        let (add, tail) = parse_term(rest)?;
        nanos = nanos.checked_add(add).filter(|n| *n <= MAX.as_nanos()).ok_or(DurationError::TooLong)?;
        rest = tail;
    }
    let second = 1_000_000_000;
    // Both fit: the whole is at most MAX, and the remainder is below one second.
    let seconds = u64::try_from(nanos / second).map_err(|_| DurationError::TooLong)?;
    let fraction = u32::try_from(nanos % second).map_err(|_| DurationError::TooLong)?;
    Ok(Duration::new(seconds, fraction))
}

/// One `<number><unit>`: nanoseconds and what follows.
fn parse_term(text: &str) -> Result<(u128, &str), DurationError> {
    let (whole, rest) = digits(text);
    let (fraction, rest) = match rest.strip_prefix('.') {
        Some(after) => digits(after),
        None => ("", rest),
    };
    if whole.is_empty() && fraction.is_empty() {
        return Err(DurationError::Number);
    }
    let end = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
    let (unit, tail) = rest.split_at(end);
    let scale: u128 = match unit {
        "h" => 3_600_000_000_000,
        "m" => 60_000_000_000,
        "s" => 1_000_000_000,
        "ms" => 1_000_000,
        "us" | "µs" | "μs" => 1_000,
        "ns" => 1,
        _ => return Err(DurationError::Unit),
    };
    let whole: u128 = if whole.is_empty() { 0 } else { whole.parse().map_err(|_| DurationError::TooLong)? };
    let mut nanos = whole.checked_mul(scale).ok_or(DurationError::TooLong)?;
    let mut digit_scale = scale;
    for digit in fraction.bytes() {
        digit_scale /= 10;
        nanos = nanos.saturating_add(u128::from(digit - b'0') * digit_scale);
    }
    Ok((nanos, tail))
}

fn digits(text: &str) -> (&str, &str) {
    text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()))
}

/// Writes a duration as proto JSON does: seconds with as many decimals as needed, `1.5s`.
#[must_use]
pub fn format(duration: Duration) -> String {
    if duration.subsec_nanos() == 0 {
        return format!("{}s", duration.as_secs());
    }
    let text = format!("{}.{:09}", duration.as_secs(), duration.subsec_nanos());
    format!("{}s", text.trim_end_matches('0'))
}

impl Deref for DurationText {
    type Target = Duration;

    fn deref(&self) -> &Duration {
        &self.0
    }
}

impl From<Duration> for DurationText {
    fn from(duration: Duration) -> Self {
        Self(duration)
    }
}

impl From<DurationText> for Duration {
    fn from(text: DurationText) -> Self {
        text.0
    }
}

impl FromStr for DurationText {
    type Err = DurationError;

    fn from_str(text: &str) -> Result<Self, DurationError> {
        parse(text).map(Self)
    }
}

impl fmt::Display for DurationText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format(self.0))
    }
}

impl fmt::Debug for DurationText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&format(self.0))
    }
}

impl Serialize for DurationText {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&format(self.0))
    }
}

impl<'de> Deserialize<'de> for DurationText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // A visitor, so that the error arises where the deserializer still knows the field.
        deserializer.deserialize_str(DurationVisitor)
    }
}

struct DurationVisitor;

impl de::Visitor<'_> for DurationVisitor {
    type Value = DurationText;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a duration such as 5s")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<DurationText, E> {
        parse(text).map(DurationText).map_err(|error| E::custom(format_args!("the duration {text:?} {error}")))
    }
}

impl JsonSchema for DurationText {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        Cow::Borrowed("Duration")
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string" })
    }
}

#[cfg(test)]
mod tests {
    use super::{DurationError, DurationText, MAX, format, parse};
    use proptest::prelude::*;
    use std::time::Duration;

    #[test]
    fn reads_go_and_proto_text() {
        for (text, nanos) in [
            ("0", 0),
            ("0s", 0),
            ("5s", 5_000_000_000),
            ("+5s", 5_000_000_000),
            ("1.5s", 1_500_000_000),
            (".5s", 500_000_000),
            ("1.s", 1_000_000_000),
            ("100ms", 100_000_000),
            ("1h30m", 5_400_000_000_000),
            ("1m0.5s", 60_500_000_000),
            ("10us", 10_000),
            ("10µs", 10_000),
            ("7ns", 7),
            ("0.0000000019s", 1),
        ] {
            assert_eq!(parse(text), Ok(Duration::from_nanos(nanos)), "{text}");
        }
    }

    #[test]
    fn names_what_is_wrong() {
        for (text, error) in [
            ("", DurationError::Empty),
            ("+", DurationError::Empty),
            ("-1s", DurationError::Negative),
            ("s", DurationError::Number),
            (".s", DurationError::Number),
            ("5", DurationError::Unit),
            ("5 s", DurationError::Unit),
            ("5d", DurationError::Unit),
            ("1h5", DurationError::Unit),
            ("315576000001s", DurationError::TooLong),
            ("99999999999999999999999999999999999999999h", DurationError::TooLong),
        ] {
            assert_eq!(parse(text), Err(error), "{text}");
        }
        assert_eq!(parse("315576000000s"), Ok(MAX));
    }

    #[test]
    fn a_bad_field_says_the_text() {
        let error = serde_json::from_str::<DurationText>("\"5 sec\"").unwrap_err().to_string();
        assert!(error.contains("\"5 sec\" has no unit"), "{error}");
    }

    proptest! {
        #[test]
        fn format_then_parse_is_the_same(seconds in 0..315_576_000_000u64, nanos in 0..1_000_000_000u32) {
            let duration = Duration::new(seconds, nanos);
            prop_assert_eq!(parse(&format(duration)), Ok(duration));
        }

        /// The oracle sums terms in integers of the smallest unit.
        #[test]
        fn terms_add_up(h in 0..500u64, m in 0..500u64, s in 0..500u64, ms in 0..5000u64) {
            let text = format!("{h}h{m}m{s}s{ms}ms");
            let expect = Duration::from_millis(ms + 1000 * (s + 60 * (m + 60 * h)));
            prop_assert_eq!(parse(&text), Ok(expect));
        }

        #[test]
        fn never_panics(text in "[-+0-9.hmsunµ ]{0,24}|\\PC{0,12}") {
            let _ = parse(&text);
        }
    }
}
