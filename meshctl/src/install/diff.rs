//! How two sets of objects differ, field by field.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::object::Object;

/// Longest value that is shown (letters).
const MAX_SHOWN: usize = 60;
/// Most fields told of one object.
const MAX_FIELDS: usize = 200;

/// An object that differs.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    /// `Kind namespace/name`
    pub object: String,
    /// What differs.
    pub what: What,
}

/// How it differs.
#[derive(Clone, Debug, PartialEq)]
pub enum What {
    /// Only the second has it.
    Added,
    /// Only the first has it.
    Removed,
    /// Both have it, and these fields differ.
    Changed(Vec<Field>),
}

/// A field that differs.
#[derive(Clone, Debug, PartialEq)]
pub struct Field {
    /// Where it is.
    pub path: String,
    /// What it was; null when it was not there.
    pub before: Value,
    /// What it is; null when it is not there.
    pub after: Value,
}

/// Compares two sets in the order of installation.
#[must_use]
pub fn objects(before: &[Object], after: &[Object]) -> Vec<Change> {
    let same = |a: &Object, b: &Object| a.order(b).is_eq();
    let mut all: Vec<&Object> = before.iter().collect();
    all.extend(after.iter().filter(|object| !before.iter().any(|known| same(known, object))));
    all.sort_by(|a, b| a.order(b));
    let mut found = Vec::new();
    for object in all {
        let (old, new) = (before.iter().find(|b| same(b, object)), after.iter().find(|a| same(a, object)));
        let what = match (old, new) {
            (Some(old), Some(new)) => match fields(old.value(), new.value()) {
                fields if fields.is_empty() => continue,
                fields => What::Changed(fields),
            },
            (None, _) => What::Added,
            (_, None) => What::Removed,
        };
        found.push(Change { object: object.to_string(), what });
    }
    found
}

/// The fields in which two values differ.
#[must_use]
pub fn fields(before: &Value, after: &Value) -> Vec<Field> {
    let mut found = Vec::new();
    visit(before, after, &mut String::new(), &mut found);
    found
}

fn visit(before: &Value, after: &Value, path: &mut String, found: &mut Vec<Field>) {
    if before == after || found.len() >= MAX_FIELDS {
        return;
    }
    let mut inner = |name: &str, before: Option<&Value>, after: Option<&Value>| {
        let length = path.len();
        path.push_str(name);
        visit(before.unwrap_or(&Value::Null), after.unwrap_or(&Value::Null), path, found);
        path.truncate(length);
    };
    match (before, after) {
        (Value::Object(old), Value::Object(new)) => {
            let keys: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
            for key in keys {
                let dot = if key.contains('.') { format!("[{key}]") } else { format!(".{key}") };
                inner(&dot, old.get(key), new.get(key));
            }
        }
        (Value::Array(old), Value::Array(new)) => {
            for at in 0..old.len().max(new.len()) {
                inner(&format!("[{at}]"), old.get(at), new.get(at));
            }
        }
        _ => found.push(Field {
            path: path.trim_start_matches('.').to_owned(),
            before: before.clone(),
            after: after.clone(),
        }),
    }
}

/// A value on one line.
#[must_use]
pub fn short(value: &Value) -> String {
    let text = match value {
        Value::Null => return "-".to_owned(),
        Value::String(text) => text.replace('\n', "\\n"),
        other => other.to_string(),
    };
    if text.chars().count() <= MAX_SHOWN {
        return text;
    }
    text.chars().take(MAX_SHOWN - 1).chain(['…']).collect()
}

impl Change {
    /// Rows of a table.
    #[must_use]
    pub fn rows(&self) -> Vec<[String; 5]> {
        let row = |what: &str| [self.object.clone(), what.to_owned(), String::new(), String::new(), String::new()];
        match &self.what {
            What::Added => vec![row("added")],
            What::Removed => vec![row("removed")],
            What::Changed(fields) => fields
                .iter()
                .map(|field| {
                    let values = [short(&field.before), short(&field.after)];
                    let [before, after] = values;
                    [self.object.clone(), "changed".to_owned(), field.path.clone(), before, after]
                })
                .collect(),
        }
    }

    /// For programs.
    #[must_use]
    pub fn to_json(&self) -> Value {
        match &self.what {
            What::Added => json!({ "object": self.object, "change": "added" }),
            What::Removed => json!({ "object": self.object, "change": "removed" }),
            What::Changed(fields) => {
                let field = |field: &Field| json!({ "path": field.path, "before": field.before, "after": field.after });
                json!({ "object": self.object, "change": "changed", "fields": fields.iter().map(field).collect::<Vec<_>>() })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mk_object(name: &str, spec: Value) -> Object {
        Object::new(json!({ "kind": "Service", "metadata": { "name": name, "namespace": "n" }, "spec": spec })).unwrap()
    }

    #[test]
    fn differences_name_object_field_and_values() {
        let before = [mk_object("a", json!({ "p": [1, 2], "x.y": 1 })), mk_object("b", json!({}))];
        let after = [mk_object("a", json!({ "p": [1, 3, 4], "x.y": 2 })), mk_object("c", json!({}))];
        let rows: Vec<String> =
            objects(&before, &after).iter().flat_map(Change::rows).map(|row| row.join("|")).collect();
        let expected = [
            "Service n/a|changed|spec.p[1]|2|3",
            "Service n/a|changed|spec.p[2]|-|4",
            "Service n/a|changed|spec[x.y]|1|2",
            "Service n/b|removed|||",
            "Service n/c|added|||",
        ];
        assert_eq!(rows, expected);
        assert!(objects(&before, &before).is_empty());
    }
}
