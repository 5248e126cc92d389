//! The text type of the house: immutable, shared, cheap to clone.
//!
//! Names, hosts and label values are cloned into many tables; a clone of a [`Str`] is one reference count. It is not a
//! string builder: build a `String`, then convert.

use std::{borrow::Borrow, borrow::Cow, fmt, ops::Deref, sync::Arc};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Immutable text of 16 bytes (pointer and length), cheap to clone.
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Str(Arc<str>);

impl Str {
    /// Empty text; does not allocate.
    #[must_use]
    pub fn empty() -> Self {
        Self::default()
    }

    /// The text as a plain slice.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Deref for Str {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for Str {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl AsRef<str> for Str {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Str {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for Str {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

impl From<&str> for Str {
    fn from(text: &str) -> Self {
        if text.is_empty() { Self::default() } else { Self(Arc::from(text)) }
    }
}

impl From<String> for Str {
    fn from(text: String) -> Self {
        Self::from(text.as_str())
    }
}

impl From<&String> for Str {
    fn from(text: &String) -> Self {
        Self::from(text.as_str())
    }
}

impl From<Cow<'_, str>> for Str {
    fn from(text: Cow<'_, str>) -> Self {
        Self::from(&*text)
    }
}

impl From<&Self> for Str {
    fn from(text: &Self) -> Self {
        text.clone()
    }
}

impl From<Str> for String {
    fn from(text: Str) -> Self {
        Self::from(&*text.0)
    }
}

impl PartialEq<str> for Str {
    fn eq(&self, other: &str) -> bool {
        &*self.0 == other
    }
}

impl PartialEq<&str> for Str {
    fn eq(&self, other: &&str) -> bool {
        &*self.0 == *other
    }
}

impl PartialEq<String> for Str {
    fn eq(&self, other: &String) -> bool {
        *self.0 == **other
    }
}

impl PartialEq<Str> for str {
    fn eq(&self, other: &Str) -> bool {
        self == &*other.0
    }
}

impl PartialEq<Str> for &str {
    fn eq(&self, other: &Str) -> bool {
        *self == &*other.0
    }
}

impl Serialize for Str {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Str {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(StrVisitor)
    }
}

impl JsonSchema for Str {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        Cow::Borrowed("string")
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string" })
    }
}

struct StrVisitor;

impl de::Visitor<'_> for StrVisitor {
    type Value = Str;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Str, E> {
        Ok(Str::from(text))
    }

    fn visit_string<E: de::Error>(self, text: String) -> Result<Str, E> {
        Ok(Str::from(text))
    }
}

#[cfg(test)]
mod tests {
    use super::Str;
    use std::collections::BTreeMap;

    #[test]
    fn a_map_is_searched_by_plain_text() {
        let map: BTreeMap<Str, u8> = [(Str::from("a"), 1)].into();
        assert_eq!(map.get("a"), Some(&1));
    }

    #[test]
    fn debug_is_quoted_and_display_is_not() {
        let text = Str::from("x\"y");
        assert_eq!(format!("{text:?} {text}"), "\"x\\\"y\" x\"y");
    }

    #[test]
    fn clones_share_the_text() {
        let text = Str::from("shared");
        assert!(std::ptr::eq(text.as_str(), text.clone().as_str()));
    }

    #[test]
    fn a_number_is_not_text() {
        assert!(serde_json::from_str::<Str>("1").is_err());
        assert_eq!(serde_json::from_str::<Str>("\"1\"").unwrap(), "1");
    }
}
