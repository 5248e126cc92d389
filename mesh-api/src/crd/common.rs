//! Pieces that several kinds share.

use std::{borrow::Cow, fmt};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::{api, api_enum};
use crate::{labels::Selector, text::Str};

/// How a text is compared. Regular expressions are RE2 and must match the whole text.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "StringMatchWire", into = "StringMatchWire")]
pub enum StringMatch {
    /// `{}`: the thing is there, whatever it holds.
    #[default]
    Present,
    /// Equal.
    Exact(Str),
    /// Begins with.
    Prefix(Str),
    /// The whole text matches.
    Regex(Str),
}

impl JsonSchema for StringMatch {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        Cow::Borrowed("StringMatch")
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        StringMatchWire::json_schema(generator)
    }
}

api! {
    /// How a text is compared: at most one of exact, prefix and regex.
    #[serde(rename = "StringMatch")]
    pub struct StringMatchWire {
        /// Equal to this text.
        pub exact: Option<Str>,
        /// Begins with this text.
        pub prefix: Option<Str>,
        /// The whole text matches this RE2 expression.
        pub regex: Option<Str>,
    }

    /// A port by its number.
    pub struct PortSelector {
        /// 1 to 65535.
        pub number: u32,
    }

    /// A share in percent.
    pub struct Percent {
        /// 0.0 to 100.0.
        pub value: f64,
    }

    /// Workloads by labels, as security kinds and DestinationRule write it.
    pub struct WorkloadSelector {
        /// Labels that a workload must have; none selects all.
        pub match_labels: Selector,
    }

    /// Workloads by labels, as ServiceEntry and Sidecar write it.
    pub struct WorkloadLabels {
        /// Labels that a workload must have.
        pub labels: Selector,
    }

    /// An object that a policy is attached to.
    pub struct PolicyTargetReference {
        /// API group of the target; empty for the core group.
        pub group: Str,
        /// Kind of the target.
        pub kind: Str,
        /// Name of the target.
        pub name: Str,
        /// Namespace of the target; only the policy's own is valid.
        pub namespace: Str,
    }

    /// The status that all mesh kinds share.
    pub struct IstioStatus {
        /// What was observed.
        pub conditions: Vec<Condition>,
    }

    /// One observation.
    pub struct Condition {
        /// What is observed, e.g. `Healthy`.
        #[serde(rename = "type")]
        pub kind: Str,
        /// `True`, `False` or `Unknown`.
        pub status: Str,
        /// Why, as one word.
        pub reason: Str,
        /// Why, for people.
        pub message: Str,
    }
}

api_enum! {
    /// TLS protocol versions.
    pub enum TlsProtocol {
        /// The default of the place.
        TlsAuto,
        /// TLS 1.0.
        #[serde(rename = "TLSV1_0")]
        TlsV10,
        /// TLS 1.1.
        #[serde(rename = "TLSV1_1")]
        TlsV11,
        /// TLS 1.2.
        #[serde(rename = "TLSV1_2")]
        TlsV12,
        /// TLS 1.3.
        #[serde(rename = "TLSV1_3")]
        TlsV13,
    }
}

/// More than one member of a oneof is set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("more than one of exact, prefix and regex is set")]
pub struct TwoMatches;

impl TryFrom<StringMatchWire> for StringMatch {
    type Error = TwoMatches;

    fn try_from(wire: StringMatchWire) -> Result<Self, TwoMatches> {
        match (wire.exact, wire.prefix, wire.regex) {
            (None, None, None) => Ok(Self::Present),
            (Some(text), None, None) => Ok(Self::Exact(text)),
            (None, Some(text), None) => Ok(Self::Prefix(text)),
            (None, None, Some(text)) => Ok(Self::Regex(text)),
            _ => Err(TwoMatches),
        }
    }
}

impl From<StringMatch> for StringMatchWire {
    fn from(value: StringMatch) -> Self {
        let mut wire = Self::default();
        match value {
            StringMatch::Present => {}
            StringMatch::Exact(text) => wire.exact = Some(text),
            StringMatch::Prefix(text) => wire.prefix = Some(text),
            StringMatch::Regex(text) => wire.regex = Some(text),
        }
        wire
    }
}

/// A number or a name, as Kubernetes' `targetPort`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum IntOrText {
    /// A number.
    Int(u32),
    /// A name.
    Text(Str),
}

impl Serialize for IntOrText {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Int(number) => serializer.serialize_u32(*number),
            Self::Text(text) => serializer.serialize_str(text),
        }
    }
}

impl<'de> Deserialize<'de> for IntOrText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(IntOrTextVisitor)
    }
}

struct IntOrTextVisitor;

impl de::Visitor<'_> for IntOrTextVisitor {
    type Value = IntOrText;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a port number or a port name")
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<IntOrText, E> {
        u32::try_from(number).map(IntOrText::Int).map_err(|_| E::invalid_value(de::Unexpected::Unsigned(number), &self))
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<IntOrText, E> {
        u32::try_from(number).map(IntOrText::Int).map_err(|_| E::invalid_value(de::Unexpected::Signed(number), &self))
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<IntOrText, E> {
        Ok(text.parse().map_or_else(|_| IntOrText::Text(text.into()), IntOrText::Int))
    }
}

impl JsonSchema for IntOrText {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        Cow::Borrowed("IntOrText")
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "x-kubernetes-int-or-string": true })
    }
}

#[cfg(test)]
mod tests {
    use super::{IntOrText, StringMatch};

    #[test]
    fn string_match_is_a_oneof() {
        #[track_caller]
        fn check(json: &str, expect: Option<StringMatch>) {
            let read = serde_json::from_str::<StringMatch>(json).ok();
            assert_eq!(read, expect);
            if let Some(value) = read {
                assert_eq!(serde_json::to_string(&value).unwrap(), json);
            }
        }
        check("{}", Some(StringMatch::Present));
        check(r#"{"exact":"a"}"#, Some(StringMatch::Exact("a".into())));
        check(r#"{"prefix":""}"#, Some(StringMatch::Prefix("".into())));
        check(r#"{"regex":".*"}"#, Some(StringMatch::Regex(".*".into())));
        check(r#"{"exact":"a","prefix":"b"}"#, None);
    }

    #[test]
    fn target_ports_are_numbers_or_names() {
        let read = |json| serde_json::from_str::<IntOrText>(json).ok();
        assert_eq!(read("80"), Some(IntOrText::Int(80)));
        assert_eq!(read("\"80\""), Some(IntOrText::Int(80)));
        assert_eq!(read("\"http\""), Some(IntOrText::Text("http".into())));
        assert_eq!(read("-1"), None);
        assert_eq!(read("99999999999"), None);
    }
}
