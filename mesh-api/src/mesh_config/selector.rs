//! What a selector selects.

use super::{LabelSelector, LabelSelectorRequirement};
use crate::labels::Labels;

impl LabelSelector {
    /// Whether every requirement is one that Kubernetes knows.
    #[must_use]
    pub fn is_valid(&self) -> bool {
        self.match_expressions.iter().all(|requirement| match requirement.operator.as_str() {
            "In" | "NotIn" => !requirement.values.is_empty(),
            "Exists" | "DoesNotExist" => requirement.values.is_empty(),
            _ => false,
        })
    }

    /// Whether labels meet every requirement. One that Kubernetes does not know is met by nothing.
    #[must_use]
    pub fn matches(&self, labels: &Labels) -> bool {
        self.match_labels.matches(labels)
            && self.match_expressions.iter().all(|requirement| requirement.matches(labels))
    }
}

impl LabelSelectorRequirement {
    fn matches(&self, labels: &Labels) -> bool {
        let value = labels.get(&self.key);
        match self.operator.as_str() {
            "In" => value.is_some_and(|value| self.values.contains(value)),
            "NotIn" => value.is_none_or(|value| !self.values.contains(value)),
            "Exists" => value.is_some(),
            "DoesNotExist" => value.is_none(),
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requirements_are_kubernetes_own() {
        #[track_caller]
        fn check(selector: &str, labels: &[(&str, &str)], expect: bool) {
            let selector: LabelSelector = serde_json::from_str(selector).unwrap();
            assert!(selector.is_valid());
            assert_eq!(selector.matches(&labels.iter().copied().collect()), expect, "{selector:?} {labels:?}");
        }
        check("{}", &[], true);
        check(r#"{"matchLabels":{"a":"1"}}"#, &[("a", "1"), ("b", "2")], true);
        check(r#"{"matchLabels":{"a":"1"}}"#, &[("a", "2")], false);
        let within = r#"{"matchExpressions":[{"key":"a","operator":"In","values":["1","2"]}]}"#;
        check(within, &[("a", "2")], true);
        check(within, &[("a", "3")], false);
        check(within, &[], false);
        let without = r#"{"matchExpressions":[{"key":"a","operator":"NotIn","values":["1"]}]}"#;
        check(without, &[("a", "1")], false);
        check(without, &[], true);
        check(r#"{"matchExpressions":[{"key":"a","operator":"Exists"}]}"#, &[("a", "")], true);
        check(r#"{"matchExpressions":[{"key":"a","operator":"DoesNotExist"}]}"#, &[("a", "")], false);
        let both = r#"{"matchLabels":{"b":"2"},"matchExpressions":[{"key":"a","operator":"Exists"}]}"#;
        check(both, &[("a", "")], false);
    }

    #[test]
    fn an_unknown_operator_selects_nothing() {
        for wrong in [r#"{"key":"a","operator":"Like","values":["1"]}"#, r#"{"key":"a","operator":"In"}"#] {
            let selector: LabelSelector =
                serde_json::from_str(&format!(r#"{{"matchExpressions":[{wrong}]}}"#)).unwrap();
            assert!(!selector.is_valid() && !selector.matches(&Labels::from([("a", "1")])), "{wrong}");
        }
    }
}
