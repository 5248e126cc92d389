//! Untyped value to typed object, with the path of the first field that does not fit; the fields that a type has.

mod path;
mod shape;

use std::{fmt, mem};

use serde::{
    Deserialize,
    de::{
        self, Deserializer, IntoDeserializer, MapAccess, SeqAccess, Unexpected, Visitor,
        value::{BorrowedStrDeserializer, StrDeserializer},
    },
    forward_to_deserialize_any,
};
use serde_json::Value;

use self::path::Path;
pub(crate) use self::shape::object_shape;
#[cfg(test)]
pub(crate) use self::shape::schema_of;
pub use self::{path::line_of, shape::Shape};

/// A field that does not fit its type.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {message}")]
pub struct TypedError {
    /// The field, e.g. `spec.http[0].timeout`; empty for the value as a whole.
    pub path: String,
    /// What is wrong with it.
    pub message: String,
}

impl de::Error for TypedError {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self { path: String::new(), message: message.to_string() }
    }
}

/// Reads a `T` from an untyped value, e.g. one that came from JSON or YAML.
///
/// # Errors
/// Names the first field of a wrong type.
pub fn from_value<'de, T: Deserialize<'de>>(value: &'de Value) -> Result<T, TypedError> {
    T::deserialize(Tracked { value, path: &Path::Root })
}

#[derive(Clone, Copy)]
struct Tracked<'de, 'p> {
    value: &'de Value,
    path: &'p Path<'p>,
}

impl<'de> Tracked<'de, '_> {
    /// The innermost deserializer sees an error first and gives it its path.
    fn located<T>(self, result: Result<T, TypedError>) -> Result<T, TypedError> {
        result.map_err(|mut error| {
            if error.path.is_empty() {
                error.path = self.path.to_string();
            }
            error
        })
    }

    fn visit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, TypedError> {
        match self.value {
            Value::Null => visitor.visit_unit(),
            Value::Bool(value) => visitor.visit_bool(*value),
            Value::String(text) => visitor.visit_borrowed_str(text),
            Value::Number(number) => match (number.as_u64(), number.as_i64(), number.as_f64()) {
                (Some(value), _, _) => visitor.visit_u64(value),
                (_, Some(value), _) => visitor.visit_i64(value),
                (_, _, value) => visitor.visit_f64(value.unwrap_or(f64::NAN)),
            },
            Value::Array(items) => visitor.visit_seq(Items { items: items.iter(), path: self.path, index: 0 }),
            Value::Object(map) => visitor.visit_map(Entries { entries: map.iter(), path: self.path, entry: None }),
        }
    }
}

impl<'de> Deserializer<'de> for Tracked<'de, '_> {
    type Error = TypedError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, TypedError> {
        self.located(self.visit(visitor))
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, TypedError> {
        if self.value.is_null() { visitor.visit_none() } else { self.located(visitor.visit_some(self)) }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, TypedError> {
        self.located(visitor.visit_newtype_struct(self))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, TypedError> {
        // A derived struct would take a list for its fields in their order, which nobody means.
        self.located(match self.value {
            Value::Array(_) => Err(de::Error::invalid_type(Unexpected::Seq, &visitor)),
            _ => self.visit(visitor),
        })
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, TypedError> {
        // The enumerations of the API are names only.
        self.located(match self.value {
            Value::String(text) => {
                let name: StrDeserializer<'_, TypedError> = text.as_str().into_deserializer();
                visitor.visit_enum(name)
            }
            other => Err(de::Error::invalid_type(unexpected(other), &"a name")),
        })
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct
        seq tuple tuple_struct map identifier ignored_any
    }
}

fn unexpected(value: &Value) -> Unexpected<'_> {
    match value {
        Value::Null => Unexpected::Unit,
        Value::Bool(value) => Unexpected::Bool(*value),
        Value::Number(number) => Unexpected::Float(number.as_f64().unwrap_or(f64::NAN)),
        Value::String(text) => Unexpected::Str(text),
        Value::Array(_) => Unexpected::Seq,
        Value::Object(_) => Unexpected::Map,
    }
}

struct Items<'de, 'p> {
    items: std::slice::Iter<'de, Value>,
    path: &'p Path<'p>,
    index: usize,
}

impl<'de> SeqAccess<'de> for Items<'de, '_> {
    type Error = TypedError;

    fn next_element_seed<T: de::DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, TypedError> {
        let Some(value) = self.items.next() else { return Ok(None) };
        let path = Path::Index(self.path, self.index);
        self.index += 1;
        let tracked = Tracked { value, path: &path };
        tracked.located(seed.deserialize(tracked)).map(Some)
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.items.len())
    }
}

struct Entries<'de, 'p> {
    entries: serde_json::map::Iter<'de>,
    path: &'p Path<'p>,
    entry: Option<(&'de String, &'de Value)>,
}

impl<'de> MapAccess<'de> for Entries<'de, '_> {
    type Error = TypedError;

    fn next_key_seed<K: de::DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, TypedError> {
        self.entry = self.entries.next();
        let Some((key, _)) = self.entry else { return Ok(None) };
        let path = Path::Field(self.path, key);
        seed.deserialize(Key { text: key, path: &path }).map(Some)
    }

    fn next_value_seed<V: de::DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, TypedError> {
        let (key, value) = mem::take(&mut self.entry).ok_or_else(|| de::Error::custom("a value without a key"))?;
        let path = Path::Field(self.path, key);
        let tracked = Tracked { value, path: &path };
        tracked.located(seed.deserialize(tracked))
    }
}

/// A key of a map: text, or a number where the type wants one.
struct Key<'de, 'p> {
    text: &'de str,
    path: &'p Path<'p>,
}

impl<'de> Deserializer<'de> for Key<'de, '_> {
    type Error = TypedError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, TypedError> {
        let text = BorrowedStrDeserializer::<TypedError>::new(self.text);
        text.deserialize_any(visitor)
    }

    fn deserialize_u32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, TypedError> {
        match self.text.parse() {
            Ok(number) => visitor.visit_u32(number),
            Err(_) => Err(TypedError { path: self.path.to_string(), message: "the key is not a number".to_owned() }),
        }
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct
        newtype_struct seq tuple tuple_struct map struct enum identifier ignored_any
    }
}

#[cfg(test)]
mod tests {
    use super::from_value;
    use crate::crd::{networking::virtual_service::VirtualService, security::peer_authentication::PeerAuthentication};
    use serde::de::DeserializeOwned;
    use serde_json::{Value, json};

    #[track_caller]
    fn check<T: DeserializeOwned + std::fmt::Debug>(value: Value, path: &str, message: &str) {
        let error = from_value::<T>(&value).unwrap_err();
        assert_eq!((error.path.as_str(), error.message.as_str()), (path, message));
    }

    #[test]
    fn an_error_names_its_field() {
        type Vs = VirtualService;
        check::<Vs>(json!({"hosts": 1}), "hosts", "invalid type: integer `1`, expected a sequence");
        check::<Vs>(
            json!({"http": [{"redirect": ["/"]}]}),
            "http[0].redirect",
            "invalid type: sequence, expected struct HttpRedirect",
        );
        check::<Vs>(json!({"hosts": ["a", 1]}), "hosts[1]", "invalid type: integer `1`, expected a string");
        check::<Vs>(
            json!({"http": [{"match": [{"headers": {"x.y": {"exact": "a", "regex": "b"}}}]}]}),
            "http[0].match[0].headers.x.y",
            "more than one of exact, prefix and regex is set",
        );
        check::<Vs>(
            json!({"http": [{"timeout": "1"}]}),
            "http[0].timeout",
            "the duration \"1\" has no unit or an unknown one; units are h, m, s, ms, us and ns",
        );
        check::<PeerAuthentication>(
            json!({"mtls": {"mode": "STRCT"}}),
            "mtls.mode",
            "unknown variant `STRCT`, expected one of `UNSET`, `DISABLE`, `PERMISSIVE`, `STRICT`",
        );
        check::<PeerAuthentication>(
            json!({"mtls": {"mode": 3}}),
            "mtls.mode",
            "invalid type: floating point `3.0`, expected a name",
        );
        check::<PeerAuthentication>(
            json!({"portLevelMtls": {"http": {}}}),
            "portLevelMtls.http",
            "the key is not a number",
        );
    }

    #[test]
    fn numbers_may_be_keys() {
        let policy: PeerAuthentication = from_value(&json!({"portLevelMtls": {"8080": {"mode": "STRICT"}}})).unwrap();
        assert!(policy.port_level_mtls.contains_key(&8080));
    }
}
