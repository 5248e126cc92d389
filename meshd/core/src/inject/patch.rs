//! JSON patches (RFC 6902): the difference between two values, and its application.

use serde_json::{Value, json};

/// The operations that make `to` of `from`: `add`, `remove` and `replace` only.
#[must_use]
pub fn diff(from: &Value, to: &Value) -> Value {
    let mut operations = Vec::new();
    walk("", from, to, &mut operations);
    Value::Array(operations)
}

fn walk(path: &str, from: &Value, to: &Value, out: &mut Vec<Value>) {
    if from == to {
        return;
    }
    match (from, to) {
        (Value::Object(from), Value::Object(to)) => {
            for key in from.keys().filter(|key| !to.contains_key(*key)) {
                out.push(json!({ "op": "remove", "path": child(path, key) }));
            }
            for (key, value) in to {
                match from.get(key) {
                    Some(old) => walk(&child(path, key), old, value, out),
                    None => out.push(json!({ "op": "add", "path": child(path, key), "value": value })),
                }
            }
        }
        (Value::Array(from), Value::Array(to)) => walk_list(path, from, to, out),
        _ => out.push(json!({ "op": "replace", "path": path, "value": to })),
    }
}

/// Lists: what is equal at both ends stays, the rest is changed in place, then added or removed.
fn walk_list(path: &str, from: &[Value], to: &[Value], out: &mut Vec<Value>) {
    let head = from.iter().zip(to).take_while(|(old, new)| old == new).count();
    let (from_rest, to_rest) = (from.get(head..).unwrap_or_default(), to.get(head..).unwrap_or_default());
    let tail = from_rest.iter().rev().zip(to_rest.iter().rev()).take_while(|(old, new)| old == new).count();
    let old = from_rest.get(..from_rest.len() - tail).unwrap_or_default();
    let new = to_rest.get(..to_rest.len() - tail).unwrap_or_default();
    for (index, (old, new)) in old.iter().zip(new).enumerate() {
        walk(&format!("{path}/{}", head + index), old, new, out);
    }
    for (index, value) in new.iter().enumerate().skip(old.len()) {
        out.push(json!({ "op": "add", "path": format!("{path}/{}", head + index), "value": value }));
    }
    // From the end, so that the indexes of those before stay true.
    for index in (new.len()..old.len()).rev() {
        out.push(json!({ "op": "remove", "path": format!("{path}/{}", head + index) }));
    }
}

/// The path of a member, its name escaped (RFC 6901).
fn child(path: &str, key: &str) -> String {
    format!("{path}/{}", key.replace('~', "~0").replace('/', "~1"))
}

/// Applies a patch of `add`, `remove` and `replace`.
///
/// # Errors
/// Names the first operation that does not fit.
pub fn apply(target: &Value, patch: &Value) -> Result<Value, String> {
    let mut target = target.clone();
    for operation in patch.as_array().into_iter().flatten() {
        apply_one(&mut target, operation).ok_or_else(|| format!("operation does not fit: {operation}"))?;
    }
    Ok(target)
}

fn apply_one(target: &mut Value, operation: &Value) -> Option<()> {
    let path = operation.get("path")?.as_str()?;
    let (op, value) = (operation.get("op")?.as_str()?, operation.get("value"));
    if path.is_empty() {
        *target = value?.clone();
        return Some(());
    }
    let (parent, last) = path.rsplit_once('/')?;
    let key = last.replace("~1", "/").replace("~0", "~");
    match (target.pointer_mut(parent)?, op) {
        (Value::Object(map), "add") => drop(map.insert(key, value?.clone())),
        (Value::Object(map), "replace") => *map.get_mut(&key)? = value?.clone(),
        (Value::Object(map), "remove") => drop(map.remove(&key)?),
        (Value::Array(items), "add") => {
            let index = if key == "-" { items.len() } else { key.parse().ok()? };
            if index > items.len() {
                return None;
            }
            items.insert(index, value?.clone());
        }
        (Value::Array(items), "replace") => *items.get_mut(key.parse::<usize>().ok()?)? = value?.clone(),
        (Value::Array(items), "remove") => {
            let index = key.parse().ok().filter(|index: &usize| *index < items.len())?;
            items.remove(index);
        }
        _ => return None,
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn values() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            (0..4).prop_map(Value::from),
            "[a~/]{0,2}".prop_map(Value::from)
        ];
        leaf.prop_recursive(4, 32, 5, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
                prop::collection::vec(("[a-c~/]{1,2}", inner), 0..5).prop_map(|pairs| pairs.into_iter().collect()),
            ]
        })
    }

    proptest! {
        #[test]
        fn a_difference_applied_gives_the_other_value(from in values(), to in values()) {
            prop_assert_eq!(apply(&from, &diff(&from, &to)), Ok(to));
        }

        #[test]
        fn equal_values_have_no_difference(value in values()) {
            prop_assert_eq!(diff(&value, &value), json!([]));
        }
    }

    #[test]
    fn a_list_that_grows_is_only_added_to() {
        let patch = diff(&json!({"l": [1, 9]}), &json!({"l": [1, 2, 9]}));
        assert_eq!(patch, json!([{"op": "add", "path": "/l/1", "value": 2}]));
    }
}
