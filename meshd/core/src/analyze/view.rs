//! Looking into untyped objects. What is not there, or is of another type than it should be, reads as nothing.

use std::collections::BTreeMap;

use serde_json::Value;

/// A field below, names separated by dots.
pub(super) fn at<'a>(value: &'a Value, path: &str) -> Option<&'a Value> {
    path.split('.').try_fold(value, |value, name| value.get(name)).filter(|found| !found.is_null())
}

/// Text below.
pub(super) fn text<'a>(value: &'a Value, path: &str) -> &'a str {
    at(value, path).and_then(Value::as_str).unwrap_or_default()
}

/// A number below.
pub(super) fn number(value: &Value, path: &str) -> Option<u64> {
    at(value, path).and_then(Value::as_u64)
}

/// A list below.
pub(super) fn list<'a>(value: &'a Value, path: &str) -> &'a [Value] {
    at(value, path).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// A list of texts below.
pub(super) fn texts<'a>(value: &'a Value, path: &str) -> Vec<&'a str> {
    list(value, path).iter().filter_map(Value::as_str).collect()
}

/// A map of texts below.
pub(super) fn pairs<'a>(value: &'a Value, path: &str) -> BTreeMap<&'a str, &'a str> {
    let fields = at(value, path).and_then(Value::as_object);
    fields.into_iter().flatten().filter_map(|(key, value)| Some((key.as_str(), value.as_str()?))).collect()
}

/// Whether a selector takes something with these labels. One without a term takes everything.
pub(super) fn selects(selector: &BTreeMap<&str, &str>, labels: &BTreeMap<&str, &str>) -> bool {
    selector.iter().all(|(key, value)| labels.get(key) == Some(value))
}

/// A selector as Kubernetes writes it: `a=b,c=d`.
pub(super) fn written(selector: &BTreeMap<&str, &str>) -> String {
    let terms: Vec<String> = selector.iter().map(|(key, value)| format!("{key}={value}")).collect();
    terms.join(",")
}

/// Whether a label selector takes something with these labels; none takes everything.
pub(super) fn fits(selector: Option<&Value>, labels: &BTreeMap<&str, &str>) -> bool {
    let Some(selector) = selector else { return true };
    let terms = list(selector, "matchExpressions");
    selects(&pairs(selector, "matchLabels"), labels)
        && terms.iter().all(|term| {
            let (value, values) = (labels.get(text(term, "key")), texts(term, "values"));
            match text(term, "operator") {
                "In" => value.is_some_and(|value| values.contains(value)),
                "NotIn" => value.is_none_or(|value| !values.contains(value)),
                "Exists" => value.is_some(),
                "DoesNotExist" => value.is_none(),
                _ => false,
            }
        })
}
