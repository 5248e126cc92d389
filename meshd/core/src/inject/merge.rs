//! Kubernetes' strategic merge of pods: lists that have a key are merged item by item, all others replaced, and null takes
//! a field away. kubernetes/apimachinery: pkg/util/strategicpatch/patch.go.

use serde_json::{Map, Value};

/// Which member tells the items of a list apart, by the list's field: the `patchMergeKey`s of the types a pod is made of.
/// No field name here is a list of another kind elsewhere in a pod.
const MERGE_KEYS: &[(&str, &str)] = &[
    ("containers", "name"),
    ("initContainers", "name"),
    ("ephemeralContainers", "name"),
    ("volumes", "name"),
    ("imagePullSecrets", "name"),
    ("env", "name"),
    ("ports", "containerPort"),
    ("volumeMounts", "mountPath"),
    ("volumeDevices", "devicePath"),
    ("hostAliases", "ip"),
    ("topologySpreadConstraints", "topologyKey"),
    ("ownerReferences", "uid"),
    ("resourceClaims", "name"),
    ("schedulingGates", "name"),
];

/// The member of a patch that says how it is merged.
const DIRECTIVE: &str = "$patch";

/// `base` with `patch` on top.
pub(super) fn merge(base: &Value, patch: &Value) -> Value {
    match (base, patch) {
        (Value::Object(base), Value::Object(patch)) => Value::Object(merge_objects(base, patch)),
        _ => cleaned(patch),
    }
}

fn merge_objects(base: &Map<String, Value>, patch: &Map<String, Value>) -> Map<String, Value> {
    let none = Map::new();
    let base = if directive(patch).is_some() { &none } else { base };
    let mut merged = base.clone();
    for (field, over) in patch.iter().filter(|(field, _)| *field != DIRECTIVE) {
        let value = match (base.get(field), over) {
            (_, Value::Null) => None,
            (Some(Value::Array(items)), Value::Array(over)) => Some(match key_of(field) {
                Some(key) => Value::Array(merge_lists(items, over, key)),
                None => cleaned(&Value::Array(over.clone())),
            }),
            (Some(under), over) => Some(merge(under, over)),
            (None, over) => Some(cleaned(over)),
        };
        match value {
            Some(value) => drop(merged.insert(field.clone(), value)),
            None => drop(merged.remove(field)),
        }
    }
    merged
}

/// What a patch says about how it is merged: `replace` or `delete`.
fn directive(patch: &Map<String, Value>) -> Option<&str> {
    patch.get(DIRECTIVE)?.as_str()
}

/// Whether an item of a patch takes the item of its key away.
fn deletes(item: &Value) -> bool {
    item.as_object().and_then(directive) == Some("delete")
}

fn key_of(field: &str) -> Option<&'static str> {
    MERGE_KEYS.iter().find(|(list, _)| *list == field).map(|(_, key)| *key)
}

/// Merges lists by key, then puts them in order: items of the patch in the patch's order, all others in that of the base,
/// and between the two the base's order where it knows both.
fn merge_lists(base: &[Value], patch: &[Value], key: &str) -> Vec<Value> {
    let place = |list: &[Value], item: &Value| list.iter().position(|other| other.get(key) == item.get(key));
    // An item of a directive alone is about the list as a whole.
    if patch.iter().any(|item| item.get(key).is_none() && item.as_object().and_then(directive) == Some("replace")) {
        return patch.iter().filter(|item| item.get(key).is_some()).map(cleaned).collect();
    }
    let of_patch: Vec<Value> = patch
        .iter()
        .filter(|over| !deletes(over))
        .map(|over| {
            place(base, over).and_then(|at| base.get(at)).map_or_else(|| cleaned(over), |item| merge(item, over))
        })
        .collect();
    let mut rest = base.iter().filter(|item| place(patch, item).is_none()).peekable();
    let mut merged = Vec::with_capacity(base.len() + patch.len());
    for item in of_patch {
        let at = place(base, &item);
        while let Some(next) = rest.peek()
            && at.is_some_and(|at| place(base, next).is_some_and(|before| before < at))
        {
            merged.push((*next).clone());
            rest.next();
        }
        merged.push(item);
    }
    merged.extend(rest.cloned());
    merged
}

/// A piece of a patch that nothing stands below: without its nulls.
fn cleaned(value: &Value) -> Value {
    match value {
        Value::Object(map) => {
            let kept = map.iter().filter(|(key, value)| !value.is_null() && *key != DIRECTIVE);
            kept.map(|(key, value)| (key.clone(), cleaned(value))).collect()
        }
        Value::Array(items) => items.iter().map(cleaned).collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => value.clone(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[track_caller]
    fn check(base: &Value, patch: &Value, expected: &Value) {
        assert_eq!(merge(base, patch), *expected);
    }

    #[test]
    fn lists_with_a_key_are_merged_item_by_item() {
        check(
            &json!({"containers": [{"name": "app", "image": "a"}, {"name": "istio-proxy", "image": "auto", "args": [1, 2]}]}),
            &json!({"containers": [{"name": "istio-proxy", "image": "b", "args": [3]}]}),
            &json!({"containers": [{"name": "app", "image": "a"}, {"name": "istio-proxy", "image": "b", "args": [3]}]}),
        );
    }

    #[test]
    fn new_items_come_first_and_known_ones_keep_their_place() {
        let names = |list: &[&str]| json!({"env": list.iter().map(|name| json!({"name": name})).collect::<Vec<_>>()});
        check(&names(&["x", "y"]), &names(&["a", "b"]), &names(&["a", "b", "x", "y"]));
        check(&names(&["x", "a", "y"]), &names(&["a", "b"]), &names(&["x", "a", "b", "y"]));
    }

    #[test]
    fn null_takes_away_and_leaves_no_trace() {
        check(
            &json!({"a": {"b": 1, "c": 2}}),
            &json!({"a": {"b": null}, "d": {"e": null}}),
            &json!({"a": {"c": 2}, "d": {}}),
        );
    }

    #[test]
    fn directives_replace_and_delete() {
        check(&json!({"a": {"b": 1}}), &json!({"a": {"$patch": "replace", "c": 2}}), &json!({"a": {"c": 2}}));
        let base = json!({"env": [{"name": "x"}, {"name": "y"}]});
        check(&base, &json!({"env": [{"name": "x", "$patch": "delete"}]}), &json!({"env": [{"name": "y"}]}));
        check(&base, &json!({"env": [{"$patch": "replace"}, {"name": "z"}]}), &json!({"env": [{"name": "z"}]}));
    }

    #[test]
    fn other_lists_are_replaced() {
        check(&json!({"args": ["a", "b"]}), &json!({"args": ["c"]}), &json!({"args": ["c"]}));
    }
}
