//! `k8s.overlays` of an IstioOperator: patches of single objects, after everything else.
//!
//! A path is `spec.template.spec.containers.[name:discovery].args.[-1]`: keys, `[n]`, `[name:value]` for the item of a list
//! that has it, `[:value]` for the item that is it, and `[-1]` for one more.

use serde_json::Value;

use super::object::Object;
use crate::error::CliError;

/// Most patches of a component.
const MAX_PATCHES: usize = 1000;

/// A patch.
#[derive(Clone, Debug, PartialEq)]
pub struct Patch {
    kind: String,
    name: String,
    steps: Vec<Step>,
    /// What to put there; null removes it.
    value: Value,
    /// As it was written, for messages.
    path: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    Key(String),
    Index(usize),
    More,
    Item(String, String),
    Is(String),
}

/// Reads the patches of a `k8s`.
///
/// # Errors
/// When one is incomplete or its path cannot be read.
pub fn read(k8s: &Value, at: &str) -> Result<Vec<Patch>, CliError> {
    let mut found = Vec::new();
    let list = |value: &Value, name: &str| value.get(name).and_then(Value::as_array).cloned().unwrap_or_default();
    for (number, overlay) in list(k8s, "overlays").iter().enumerate() {
        let text = |name: &str| {
            let missing = || CliError::user(format!("{at}.overlays[{number}] has no {name}"));
            overlay.get(name).and_then(Value::as_str).map(str::to_owned).ok_or_else(missing)
        };
        for patch in list(overlay, "patches") {
            let path = patch.get("path").and_then(Value::as_str).unwrap_or_default();
            let steps = steps(path)
                .ok_or_else(|| CliError::user(format!("{at}.overlays[{number}]: {path:?} is no path of a field")))?;
            let value = patch.get("value").cloned().unwrap_or_default();
            found.push(Patch { kind: text("kind")?, name: text("name")?, steps, value, path: path.to_owned() });
            if found.len() > MAX_PATCHES {
                return Err(CliError::user(format!("{at}.overlays has more than {MAX_PATCHES} patches")));
            }
        }
    }
    Ok(found)
}

fn steps(path: &str) -> Option<Vec<Step>> {
    let mut steps = Vec::new();
    let mut rest = path;
    while !rest.is_empty() {
        rest = rest.strip_prefix('.').unwrap_or(rest);
        if let Some(inner) = rest.strip_prefix('[') {
            let (inner, after) = inner.split_once(']')?;
            steps.push(match inner.split_once(':') {
                Some(("", value)) => Step::Is(value.to_owned()),
                Some((key, value)) => Step::Item(key.to_owned(), value.to_owned()),
                None if inner == "-1" => Step::More,
                None => Step::Index(inner.parse().ok()?),
            });
            rest = after;
            continue;
        }
        let mut key = String::new();
        let mut chars = rest.char_indices();
        let mut end = rest.len();
        while let Some((at, c)) = chars.next() {
            match c {
                '\\' => key.extend(chars.next().map(|(_, c)| c)),
                '.' | '[' => {
                    end = at;
                    break;
                }
                _ => key.push(c),
            }
        }
        if key.is_empty() {
            return None;
        }
        steps.push(Step::Key(key));
        rest = rest.get(end..).unwrap_or_default();
    }
    (!steps.is_empty()).then_some(steps)
}

impl Patch {
    /// Changes the object that it names.
    ///
    /// # Errors
    /// When there is no such object, or the path leads nowhere.
    pub fn apply(&self, objects: &mut [Object]) -> Result<(), CliError> {
        let found = objects.iter_mut().find(|object| object.kind() == self.kind && object.name() == self.name);
        let Some(object) = found else {
            return Err(CliError::user(format!(
                "an overlay names {} {}, which is not installed",
                self.kind, self.name
            ))
            .hint("meshctl manifest generate shows what is"));
        };
        let nowhere = || CliError::user(format!("the path {} leads nowhere in {} {}", self.path, self.kind, self.name));
        change(object.value_mut(), &self.steps, &self.value).ok_or_else(nowhere)
    }
}

fn change(target: &mut Value, steps: &[Step], value: &Value) -> Option<()> {
    let (step, rest) = steps.split_first()?;
    if let Step::Key(key) = step {
        if target.is_null() {
            *target = Value::Object(serde_json::Map::new());
        }
        let map = target.as_object_mut()?;
        if rest.is_empty() && value.is_null() {
            map.remove(key);
            return Some(());
        }
        let inner = map.entry(key.clone()).or_insert(Value::Null);
        return put(inner, rest, value);
    }
    if target.is_null() && *step == Step::More {
        *target = Value::Array(Vec::new());
    }
    let items = target.as_array_mut()?;
    let at = match step {
        Step::More => {
            items.push(Value::Null);
            items.len() - 1
        }
        Step::Index(at) => *at,
        Step::Item(key, wanted) => {
            items.iter().position(|item| item.get(key).is_some_and(|found| says(found, wanted)))?
        }
        Step::Is(wanted) => items.iter().position(|item| says(item, wanted))?,
        Step::Key(_) => return None,
    };
    if rest.is_empty() && value.is_null() {
        return (at < items.len()).then(|| drop(items.remove(at)));
    }
    let item = items.get_mut(at)?;
    put(item, rest, value)
}

fn put(target: &mut Value, rest: &[Step], value: &Value) -> Option<()> {
    if rest.is_empty() {
        target.clone_from(value);
        return Some(());
    }
    change(target, rest, value)
}

fn says(value: &Value, text: &str) -> bool {
    match value {
        Value::String(value) => value == text,
        other => format!("{other}") == text,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn patched(patches: Value) -> Result<Value, CliError> {
        let object = json!({ "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "name": "a" },
            "spec": { "c": [{ "name": "x", "args": ["one", "two"] }], "n": 1 } });
        let mut objects = [Object::new(object).unwrap()];
        let k8s = json!({ "overlays": [{ "kind": "Deployment", "name": "a", "patches": patches }] });
        for patch in read(&k8s, "k8s")? {
            patch.apply(&mut objects)?;
        }
        Ok(objects[0].value()["spec"].clone())
    }

    #[test]
    fn paths_lead_to_fields_and_items() {
        let got = patched(json!([
            { "path": "spec.c.[name:x].args.[:two]", "value": "2" },
            { "path": "spec.c.[name:x].args.[-1]", "value": "3" },
            { "path": "spec.c[0].args[0]" },
            { "path": "spec.n" },
            { "path": "spec.new.a\\.b", "value": { "k": 1 } },
        ]));
        assert_eq!(got, Ok(json!({ "c": [{ "name": "x", "args": ["2", "3"] }], "new": { "a.b": { "k": 1 } } })));
    }

    #[test]
    fn what_leads_nowhere_is_an_error() {
        for path in ["spec.c.[name:y].args", "spec.n.x", "spec.c[9].name", "", "spec.c.[x"] {
            assert!(patched(json!([{ "path": path, "value": 1 }])).is_err(), "{path}");
        }
    }
}
