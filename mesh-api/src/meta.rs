//! The light object: what every kind has in common, and no more of Kubernetes' metadata than somebody reads.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use crate::{
    ids::{Name, Namespace, ObjectKey},
    kinds::Kind,
    labels::Labels,
    text::Str,
};

/// The metadata that somebody reads. Everything else of `metadata` (managed fields above all) is dropped at the door.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Meta {
    /// The name, unique in its kind and namespace.
    pub name: Name,
    /// The namespace; empty for a kind without one.
    #[serde(skip_serializing_if = "str_is_empty")]
    pub namespace: Namespace,
    /// Kubernetes' id of this incarnation of the object; empty outside Kubernetes.
    #[serde(skip_serializing_if = "str_is_empty")]
    pub uid: Str,
    /// Labels.
    #[serde(skip_serializing_if = "Labels::is_empty")]
    pub labels: Labels,
    /// Annotations.
    #[serde(skip_serializing_if = "Labels::is_empty")]
    pub annotations: Labels,
    /// Counts changes of the spec.
    #[serde(skip_serializing_if = "is_zero")]
    pub generation: i64,
    /// Opaque version of the whole object.
    #[serde(skip_serializing_if = "str_is_empty")]
    pub resource_version: Str,
    /// When it was made; "oldest wins" is decided by it, then by name, then by namespace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub creation_timestamp: Option<Timestamp>,
}

impl Meta {
    /// Metadata with nothing but a name and a namespace.
    pub fn new(namespace: impl Into<Namespace>, name: impl Into<Name>) -> Self {
        Self { namespace: namespace.into(), name: name.into(), ..Self::default() }
    }

    /// The key of an object of `kind` with this metadata.
    #[must_use]
    pub fn key(&self, kind: Kind) -> ObjectKey {
        ObjectKey::new(kind, self.namespace.clone(), self.name.clone())
    }

    /// Istio's order of precedence: older first, then by name, then by namespace. Objects without a time come first,
    /// because a folder gives none and they must still have one order among themselves.
    #[must_use]
    pub fn by_age(a: &Self, b: &Self) -> std::cmp::Ordering {
        (a.creation_timestamp, &a.name, &a.namespace).cmp(&(b.creation_timestamp, &b.name, &b.namespace))
    }
}

fn str_is_empty(text: &str) -> bool {
    text.is_empty()
}

fn is_zero(number: &i64) -> bool {
    *number == 0
}

/// A moment in whole seconds since 1970, written as RFC 3339 in UTC as Kubernetes does.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(pub i64);

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = OffsetDateTime::from_unix_timestamp(self.0).ok().and_then(|t| t.format(&Rfc3339).ok());
        f.pad(text.as_deref().unwrap_or("out of range"))
    }
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Timestamp {
    type Err = time::error::Parse;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        OffsetDateTime::parse(text, &Rfc3339).map(|t| Self(t.unix_timestamp()))
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Str::deserialize(deserializer)?;
        text.parse().map_err(|_| de::Error::custom(format_args!("{text:?} is not a time such as 2026-01-31T12:00:00Z")))
    }
}

#[cfg(test)]
mod tests {
    use super::{Meta, Timestamp};

    #[test]
    fn reads_what_kubernetes_writes_and_drops_the_rest() {
        let meta: Meta = serde_json::from_str(
            r#"{"name":"web","namespace":"shop","uid":"u","generation":3,"resourceVersion":"9",
                "creationTimestamp":"2026-01-31T12:00:00Z","labels":{"app":"web"},
                "managedFields":[{"manager":"kubectl"}],"ownerReferences":[]}"#,
        )
        .unwrap();
        assert_eq!(meta.key(crate::kinds::Kind::Service).to_string(), "Service/shop/web");
        assert_eq!(meta.creation_timestamp, Some(Timestamp(1_769_860_800)));
        assert_eq!(meta.generation, 3);
        let json = serde_json::to_string(&meta).unwrap();
        assert!(json.contains("\"2026-01-31T12:00:00Z\"") && !json.contains("managedFields"), "{json}");
        assert_eq!(serde_json::from_str::<Meta>(&json).unwrap(), meta);
    }

    #[test]
    fn older_comes_first_then_name_then_namespace() {
        let at = |seconds, namespace, name| Meta {
            creation_timestamp: Some(Timestamp(seconds)),
            ..Meta::new(namespace, name)
        };
        let mut all = [at(2, "a", "a"), at(1, "b", "z"), at(1, "b", "y"), at(1, "a", "z")];
        all.sort_by(Meta::by_age);
        assert_eq!(all, [at(1, "b", "y"), at(1, "a", "z"), at(1, "b", "z"), at(2, "a", "a")]);
    }
}
