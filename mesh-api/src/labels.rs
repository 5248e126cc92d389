//! Labels of an object and the selectors that match them.

use std::{borrow::Cow, fmt, sync::Arc};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de, ser::SerializeMap};

use crate::text::Str;

/// An ordered, immutable map of text to text: labels, annotations, and other small string maps.
///
/// Kept as one shared sorted slice, because pods by the thousand carry the same handful of labels and every endpoint
/// hands them on. A key appears once; of two equal keys the later wins.
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Labels(Arc<[(Str, Str)]>);

impl Labels {
    /// The value of `key`.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&Str> {
        let at = self.0.binary_search_by(|(k, _)| k.as_str().cmp(key)).ok()?;
        self.0.get(at).map(|(_, value)| value)
    }

    /// Whether `key` is there, with any value.
    #[must_use]
    pub fn contains_key(&self, key: &str) -> bool {
        self.get(key).is_some()
    }

    /// All pairs in the order of their keys.
    pub fn iter(&self) -> std::slice::Iter<'_, (Str, Str)> {
        self.0.iter()
    }

    /// How many labels there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// A copy with one more pair; an equal key is replaced.
    #[must_use]
    pub fn with(&self, key: impl Into<Str>, value: impl Into<Str>) -> Self {
        self.iter().cloned().chain([(key.into(), value.into())]).collect()
    }

    /// A copy with the pairs of `over` on top; theirs win.
    #[must_use]
    pub fn merged(&self, over: &Self) -> Self {
        self.iter().chain(over.iter()).cloned().collect()
    }
}

impl<K: Into<Str>, V: Into<Str>> FromIterator<(K, V)> for Labels {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(pairs: I) -> Self {
        let mut pairs: Vec<(Str, Str)> = pairs.into_iter().map(|(k, v)| (k.into(), v.into())).collect();
        // Stable sort, then keep the last of each run of equal keys.
        pairs.sort_by(|a, b| a.0.cmp(&b.0));
        pairs.reverse();
        pairs.dedup_by(|later, kept| later.0 == kept.0);
        pairs.reverse();
        Self(pairs.into())
    }
}

impl<K: Into<Str>, V: Into<Str>, const N: usize> From<[(K, V); N]> for Labels {
    fn from(pairs: [(K, V); N]) -> Self {
        pairs.into_iter().collect()
    }
}

impl<'a> IntoIterator for &'a Labels {
    type Item = &'a (Str, Str);
    type IntoIter = std::slice::Iter<'a, (Str, Str)>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl fmt::Debug for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter().map(|(k, v)| (k, v))).finish()
    }
}

impl Serialize for Labels {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.len()))?;
        for (key, value) in self {
            map.serialize_entry(key, value)?;
        }
        map.end()
    }
}

impl<'de> Deserialize<'de> for Labels {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(LabelsVisitor)
    }
}

impl JsonSchema for Labels {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        Cow::Borrowed("Labels")
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "object", "additionalProperties": { "type": "string" } })
    }
}

struct LabelsVisitor;

impl<'de> de::Visitor<'de> for LabelsVisitor {
    type Value = Labels;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a map of strings")
    }

    fn visit_unit<E: de::Error>(self) -> Result<Labels, E> {
        Ok(Labels::default())
    }

    fn visit_map<A: de::MapAccess<'de>>(self, mut map: A) -> Result<Labels, A::Error> {
        // The hint comes from the sender: it is not a promise, so it only pre-allocates within reason.
        let mut pairs = Vec::with_capacity(map.size_hint().unwrap_or(0).min(64));
        while let Some((key, value)) = map.next_entry::<Str, Option<Str>>()? {
            pairs.push((key, value.unwrap_or_default()));
        }
        Ok(pairs.into_iter().collect())
    }
}

/// Equality on a set of labels; without any requirement it selects everything.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
#[schemars(transparent)]
pub struct Selector(pub Labels);

impl Selector {
    /// Whether every required label is there with the same value (the selector is a subset of `labels`).
    #[must_use]
    pub fn matches(&self, labels: &Labels) -> bool {
        self.0.iter().all(|(key, value)| labels.get(key) == Some(value))
    }

    /// Whether it asks for nothing and so selects everything. A Kubernetes Service without selector, which selects
    /// nothing, is told apart by its own `Option`.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl From<Labels> for Selector {
    fn from(labels: Labels) -> Self {
        Self(labels)
    }
}

impl<K: Into<Str>, V: Into<Str>, const N: usize> From<[(K, V); N]> for Selector {
    fn from(pairs: [(K, V); N]) -> Self {
        Self(pairs.into())
    }
}

#[cfg(test)]
mod tests {
    use super::{Labels, Selector};
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    #[test]
    fn selector_is_a_subset_test() {
        let labels = Labels::from([("app", "web"), ("version", "v1")]);
        let check = |selector: Selector, expect: bool| assert_eq!(selector.matches(&labels), expect, "{selector:?}");
        check(Selector::default(), true);
        check([("app", "web")].into(), true);
        check([("app", "web"), ("version", "v1")].into(), true);
        check([("app", "web"), ("version", "v2")].into(), false);
        check([("tier", "web")].into(), false);
        check([("app", "")].into(), false);
    }

    #[test]
    fn merged_lets_the_second_win() {
        let low = Labels::from([("a", "1"), ("b", "1")]);
        let high = Labels::from([("b", "2"), ("c", "2")]);
        assert_eq!(low.merged(&high), Labels::from([("a", "1"), ("b", "2"), ("c", "2")]));
    }

    proptest! {
        #[test]
        fn labels_are_a_map(pairs in proptest::collection::vec(("[a-d]{0,2}", "[xy]{0,2}"), 0..12)) {
            let oracle: BTreeMap<String, String> = pairs.iter().cloned().collect();
            let labels: Labels = pairs.into_iter().collect();
            prop_assert_eq!(labels.len(), oracle.len());
            let text = serde_json::to_string(&labels).unwrap();
            prop_assert_eq!(&text, &serde_json::to_string(&oracle).unwrap());
            prop_assert_eq!(&serde_json::from_str::<Labels>(&text).unwrap(), &labels);
            for (key, value) in &oracle {
                prop_assert_eq!(labels.get(key).map(|v| v.as_str()), Some(value.as_str()));
            }
            prop_assert_eq!(labels.get("zz"), None);
        }
    }
}
