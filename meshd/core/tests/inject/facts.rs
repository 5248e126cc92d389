//! A pod as a list of facts, so that differences read well: `spec.containers[app].args[0] = "x"`.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::Value;

/// Every leaf of a pod by its path. Items of lists go by their names where they have some, and have an order.
pub(crate) fn of(pod: &Value) -> BTreeMap<String, String> {
    let mut facts = BTreeMap::new();
    walk("", pod, &mut facts);
    facts
}

fn walk(path: &str, value: &Value, facts: &mut BTreeMap<String, String>) {
    match value {
        Value::Object(map) if !map.is_empty() => {
            for (key, value) in map {
                let dot = if path.is_empty() { "" } else { "." };
                walk(&format!("{path}{dot}{key}"), value, facts);
            }
        }
        // Arguments and commands are read as a line.
        Value::Array(items) if items.iter().all(|item| !item.is_object()) => {
            drop(facts.insert(path.to_owned(), value.to_string()));
        }
        Value::Array(items) => {
            let key = ["name", "mountPath"].into_iter().find(|key| items.iter().all(|item| item.get(key).is_some()));
            let names: Vec<String> = items
                .iter()
                .enumerate()
                .map(|(index, item)| {
                    key.and_then(|key| item[key].as_str()).map_or_else(|| index.to_string(), str::to_owned)
                })
                .collect();
            for (item, name) in items.iter().zip(&names) {
                walk(&format!("{path}[{name}]"), item, facts);
            }
            // The order of variables and mounts says nothing, that of containers does.
            if path.ends_with("ontainers") {
                facts.insert(format!("{path} order"), names.join(", "));
            }
        }
        Value::String(text) if text.starts_with('{') => {
            // JSON in a text has no order of members.
            let json: Value = serde_json::from_str(text).unwrap_or_else(|_| value.clone());
            facts.insert(path.to_owned(), json.to_string());
        }
        leaf => drop(facts.insert(path.to_owned(), leaf.to_string())),
    }
}

/// Facts that are gone (`-`), and new ones (`+`).
pub(crate) fn difference(before: &BTreeMap<String, String>, after: &BTreeMap<String, String>) -> String {
    let mut text = String::new();
    let mut paths: Vec<&String> = before.keys().chain(after.keys()).collect();
    paths.sort();
    paths.dedup();
    for path in paths {
        let (old, new) = (before.get(path), after.get(path));
        if old != new {
            for (sign, value) in [('-', old), ('+', new)] {
                if let Some(value) = value {
                    let _ = writeln!(text, "{sign} {path} = {value}");
                }
            }
        }
    }
    text
}
