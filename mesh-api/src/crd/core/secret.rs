//! Secret: keys and certificates. Their bytes never appear in `Debug` and are wiped when the last owner goes.

use std::{borrow::Cow, collections::BTreeMap, fmt, ops::Deref, sync::Arc};

use base64::{Engine, engine::general_purpose::STANDARD};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use zeroize::Zeroizing;

use crate::{crd::api, text::Str};

api! {
    /// Named byte strings.
    pub struct Secret {
        /// What it is, e.g. `kubernetes.io/tls`.
        #[serde(rename = "type")]
        pub kind: Str,
        /// The contents, base64 on the wire.
        pub data: BTreeMap<Str, SecretBytes>,
        /// Contents as plain text; they win over `data`.
        pub string_data: BTreeMap<Str, SecretText>,
    }
}

impl Secret {
    /// The content of `key`, from `stringData` or else from `data`.
    #[must_use]
    pub fn content(&self, key: &str) -> Option<&[u8]> {
        match self.string_data.get(key) {
            Some(text) => Some(&text.0),
            None => self.data.get(key).map(|bytes| &**bytes),
        }
    }
}

/// Bytes that must not be shown.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct SecretBytes(Arc<Zeroizing<Vec<u8>>>);

/// Text that must not be shown.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct SecretText(SecretBytes);

impl From<Vec<u8>> for SecretBytes {
    fn from(bytes: Vec<u8>) -> Self {
        Self(Arc::new(Zeroizing::new(bytes)))
    }
}

impl From<&str> for SecretText {
    fn from(text: &str) -> Self {
        Self(text.as_bytes().to_vec().into())
    }
}

impl Deref for SecretBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for SecretBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<{} secret bytes>", self.len())
    }
}

impl fmt::Debug for SecretText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl Serialize for SecretBytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&Zeroizing::new(STANDARD.encode(&**self)))
    }
}

impl Serialize for SecretText {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&String::from_utf8_lossy(&self.0))
    }
}

impl<'de> Deserialize<'de> for SecretBytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Zeroizing::new(String::deserialize(deserializer)?);
        // The decoder's error names a byte of the content, which is not ours to show.
        STANDARD.decode(text.trim_ascii()).map(Self::from).map_err(|_| de::Error::custom("is not base64"))
    }
}

impl<'de> Deserialize<'de> for SecretText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self(SecretBytes::from(String::deserialize(deserializer)?.into_bytes())))
    }
}

impl JsonSchema for SecretBytes {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        Cow::Borrowed("Bytes")
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "format": "byte" })
    }
}

impl JsonSchema for SecretText {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        Cow::Borrowed("Text")
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string" })
    }
}

#[cfg(test)]
mod tests {
    use super::Secret;

    #[test]
    fn contents_are_decoded_and_never_shown() {
        let secret: Secret =
            serde_json::from_str(r#"{"type":"t","data":{"a":"c2VjcmV0","b":"eA=="},"stringData":{"b":"plain"}}"#)
                .unwrap();
        assert_eq!(secret.content("a"), Some(&b"secret"[..]));
        assert_eq!(secret.content("b"), Some(&b"plain"[..]));
        assert_eq!(secret.content("c"), None);
        let shown = format!("{secret:?}");
        assert!(!shown.contains("secret\"") && !shown.contains("plain") && !shown.contains("115"), "{shown}");
    }

    #[test]
    fn an_error_does_not_show_the_content() {
        let error = serde_json::from_str::<Secret>(r#"{"data":{"a":"hush!"}}"#).unwrap_err().to_string();
        assert!(!error.contains("hush"), "{error}");
    }
}
