//! Layers of settings: `--set path=value`, and one document on top of another.

use serde_json::{Map, Value};

use crate::error::CliError;

/// Longest list that an index may make.
const MAX_INDEX: usize = 1000;
/// Most parts of a path.
const MAX_PARTS: usize = 64;

/// A part of a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// `.name`
    Key(String),
    /// `[3]`
    Index(usize),
}

/// Reads `a.b[0].c=value`. A dot in a key is `\.`.
///
/// # Errors
/// When it is no such text.
pub fn parse(text: &str) -> Result<(Vec<Part>, Value), CliError> {
    let wrong = |why: &str| {
        CliError::user(format!("--set {text}: {why}")).hint("--set values.global.hub=registry.example/mesh")
    };
    let (path, value) = text.split_once('=').ok_or_else(|| wrong("there is no `=`"))?;
    let mut parts = Vec::new();
    let mut key = String::new();
    let mut chars = path.chars();
    let mut after_index = false;
    while let Some(c) = chars.next() {
        match c {
            '\\' => key.extend(chars.next()),
            '.' if after_index && key.is_empty() => after_index = false,
            '.' | '[' => {
                if !key.is_empty() {
                    parts.push(Part::Key(std::mem::take(&mut key)));
                } else if !after_index {
                    return Err(wrong("a name is missing"));
                }
                after_index = false;
                if c == '[' {
                    let digits: String = chars.by_ref().take_while(|c| *c != ']').collect();
                    let index = digits.parse().ok().filter(|index| *index < MAX_INDEX);
                    parts.push(Part::Index(index.ok_or_else(|| wrong("an index is no number below 1000"))?));
                    after_index = true;
                }
            }
            _ => {
                key.push(c);
                after_index = false;
            }
        }
    }
    if !key.is_empty() {
        parts.push(Part::Key(key));
    } else if !after_index {
        return Err(wrong("a name is missing"));
    }
    if parts.len() > MAX_PARTS {
        return Err(wrong("the path has too many parts"));
    }
    Ok((parts, scalar(value)))
}

/// A value as Helm reads it: truth, null, whole numbers and `{a,b}` are what they look like, all else is text.
fn scalar(text: &str) -> Value {
    if let Some(inner) = text.strip_prefix('{').and_then(|text| text.strip_suffix('}')) {
        let items = inner.split(',').filter(|_| !inner.is_empty());
        return Value::Array(items.map(|item| scalar(item.trim())).collect());
    }
    match text {
        "true" => Value::Bool(true),
        "false" => Value::Bool(false),
        "null" => Value::Null,
        // A leading zero makes a name of a number: a tag or an id.
        _ if text.starts_with('0') && text != "0" => text.into(),
        _ => text.parse::<i64>().map_or_else(|_| text.into(), Value::from),
    }
}

/// Puts a value at a path, making what lacks on the way.
pub fn put(target: &mut Value, path: &[Part], value: Value) {
    let Some((first, rest)) = path.split_first() else {
        *target = value;
        return;
    };
    match first {
        Part::Key(key) => {
            if !target.is_object() {
                *target = Value::Object(Map::new());
            }
            if let Some(map) = target.as_object_mut() {
                put(map.entry(key.clone()).or_insert(Value::Null), rest, value);
            }
        }
        Part::Index(index) => {
            if !target.is_array() {
                *target = Value::Array(Vec::new());
            }
            if let Some(items) = target.as_array_mut() {
                while items.len() <= *index && items.len() < MAX_INDEX {
                    items.push(Value::Null);
                }
                if let Some(item) = items.get_mut(*index) {
                    put(item, rest, value);
                }
            }
        }
    }
}

/// Lays a document on top of another: dictionaries are merged, all else is replaced. Lists of things with names are
/// merged by their names, as IstioOperator's gateways are.
pub fn overlay(base: &mut Value, over: Value) {
    match (base, over) {
        (Value::Object(base), Value::Object(over)) => {
            for (key, value) in over {
                overlay(base.entry(key).or_insert(Value::Null), value);
            }
        }
        (Value::Array(base), Value::Array(over)) if named(base) && over.iter().all(is_component) => {
            for (at, item) in over.into_iter().enumerate() {
                // `--set components.ingressGateways[0].…` names none: it means the place.
                let place = match item.get("name") {
                    Some(name) => base.iter().position(|known| known.get("name") == Some(name)),
                    None => Some(at),
                };
                match place.and_then(|place| base.get_mut(place)) {
                    Some(_) if item.is_null() => {}
                    Some(known) => overlay(known, item),
                    None => base.push(item),
                }
            }
        }
        (base, over) => *base = over,
    }
}

/// Whether these are components, which go by their names. Ports have names too, but are replaced as a whole.
fn named(items: &[Value]) -> bool {
    !items.is_empty() && items.iter().all(|item| item.get("name").is_some_and(Value::is_string) && is_component(item))
}

fn is_component(item: &Value) -> bool {
    item.is_null() || (item.is_object() && item.get("port").is_none())
}

/// Chart values with those of a user on top, as Helm merges them: null takes a default away.
#[must_use]
pub fn with_defaults(defaults: &Value, user: &Value) -> Value {
    match (defaults, user) {
        (Value::Object(defaults), Value::Object(user)) => {
            let mut merged = defaults.clone();
            for (key, value) in user {
                match (defaults.get(key), value) {
                    (_, Value::Null) => {
                        merged.remove(key);
                    }
                    (Some(default), value) => {
                        merged.insert(key.clone(), with_defaults(default, value));
                    }
                    (None, value) => {
                        merged.insert(key.clone(), value.clone());
                    }
                }
            }
            Value::Object(merged)
        }
        (_, user) => user.clone(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn set(base: Value, texts: &[&str]) -> Value {
        let mut value = base;
        for text in texts {
            let (path, new) = parse(text).unwrap();
            put(&mut value, &path, new);
        }
        value
    }

    #[test]
    fn paths_and_values_are_read_as_helm_does() {
        let texts =
            ["a.b=1", "a.c=true", "l[1].x=y", "k.istio\\.io/rev=z", "e={a,2}", "t=007", "n=null", "u=a=b", "v="];
        assert_eq!(
            set(json!({}), &texts),
            json!({ "a": { "b": 1, "c": true }, "l": [null, { "x": "y" }], "k": { "istio.io/rev": "z" },
                "e": ["a", 2], "t": "007", "n": null, "u": "a=b", "v": "" })
        );
        assert_eq!(
            set(json!({ "l": [{ "a": 1 }] }), &["l[0].b=2", "m[0][1]=3"]),
            json!({ "l": [{ "a": 1, "b": 2 }], "m": [[null, 3]] })
        );
        for wrong in ["a", "=1", "a..b=1", "a[x]=1", "a[99999]=1", "a.=1"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn components_are_merged_by_name_and_ports_replaced() {
        let mut base =
            json!({ "g": [{ "name": "a", "on": true }, { "name": "b" }], "p": [{ "name": "x", "port": 1 }] });
        overlay(&mut base, json!({ "g": [{ "name": "b", "on": false }], "p": [{ "name": "y", "port": 2 }], "q": 1 }));
        assert_eq!(
            base,
            json!({ "g": [{ "name": "a", "on": true }, { "name": "b", "on": false }],
            "p": [{ "name": "y", "port": 2 }], "q": 1 })
        );
        overlay(&mut base, json!({ "g": [null, { "k": 1 }] }));
        assert_eq!(base["g"], json!([{ "name": "a", "on": true }, { "name": "b", "on": false, "k": 1 }]));
    }

    #[test]
    fn null_takes_a_default_away() {
        let merged =
            with_defaults(&json!({ "a": { "b": 1, "c": 2 }, "d": 3 }), &json!({ "a": { "b": null }, "d": { "e": 4 } }));
        assert_eq!(merged, json!({ "a": { "c": 2 }, "d": { "e": 4 } }));
    }
}
