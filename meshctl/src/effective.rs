//! What two revisions of the control plane compute for the same proxies, and how it differs.
//!
//! Both are asked (`/debug/computed`): neither this tool's idea of translation nor that of one of them stands for the other's.
//! A proxy need not be connected to the one that is asked: it is described by the one that it is connected to.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use futures::stream::{self, StreamExt as _};
use http::{Method, StatusCode};
use serde_json::{Value, json};

use crate::error::CliError;
use crate::kube::client::Kube;
use crate::kube::control::{self, Replica};
use crate::table::Table;

/// The most workloads that are compared; of others it is told how many they are. Each costs two translations.
pub const MAX_WORKLOADS: usize = 200;
/// Workloads compared at the same time.
const AT_ONCE: usize = 4;
/// Differing fields named of one resource; more are told as their number.
const MAX_FIELDS: usize = 5;

/// What becomes of a resource.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Change {
    /// `added`, `removed` or `changed`.
    pub what: &'static str,
    /// `CDS`, `LDS`, …
    pub kind: String,
    /// The name of the resource.
    pub name: String,
    /// Which fields differ, of one that is in both.
    pub fields: Vec<String>,
}

/// A workload that is served otherwise, by `namespace/workload`.
pub type Differences = BTreeMap<String, Vec<Change>>;

/// What was found.
#[derive(Clone, Debug, Default)]
pub struct Comparison {
    /// Workloads that were compared.
    pub compared: usize,
    /// Those that differ, with what.
    pub differences: Differences,
    /// What was not compared, and why.
    pub notes: Vec<String>,
}

/// Asks two revisions what they compute for each workload that is connected to either, in some namespaces or in all.
///
/// # Errors
/// When a revision has no replica that answers, or is not one of ours.
pub async fn compare(
    kube: &Kube,
    from: &str,
    to: &str,
    namespaces: Option<&BTreeSet<String>>,
) -> Result<Comparison, CliError> {
    let mut comparison = Comparison::default();
    let mut nodes = BTreeMap::new();
    let mut asked = Vec::new();
    for revision in [from, to] {
        let (answers, silent) = control::answers(control::pages(kube, Some(revision), "/debug/nodez").await?)
            .map_err(|error| error.hint(format!("is the revision {revision} Istio's, or older than this release?")))?;
        comparison.notes.extend(silent);
        for (replica, page) in &answers {
            let page = parsed(replica, page)?;
            for node in page.get("nodes").and_then(Value::as_array).into_iter().flatten() {
                // Proxies of one workload are served the same but for their own addresses: one stands for all.
                nodes.entry(workload(node)).or_insert_with(|| node.clone());
            }
        }
        asked.extend(answers.into_iter().next().map(|(replica, _)| replica));
    }
    let [from, to] = asked.as_slice() else {
        return Err(CliError::internal("a revision did not answer"));
    };
    nodes.retain(|(namespace, ..), _| namespaces.is_none_or(|wanted| wanted.contains(namespace)));
    if nodes.len() > MAX_WORKLOADS {
        comparison.notes.push(format!(
            "{} of {} workloads are not compared; -n NAMESPACE compares those of one namespace",
            nodes.len() - MAX_WORKLOADS,
            nodes.len()
        ));
    }
    let mut pairs = stream::iter(nodes.into_iter().take(MAX_WORKLOADS))
        .map(|((namespace, name, _), node)| async move {
            let body = Bytes::from(node.to_string());
            let (before, after) =
                futures::future::join(computed(kube, from, body.clone()), computed(kube, to, body.clone())).await;
            Ok::<_, CliError>((format!("{namespace}/{name}"), changes(&before?, &after?)))
        })
        .buffer_unordered(AT_ONCE);
    while let Some(pair) = pairs.next().await {
        let (workload, changes) = pair?;
        comparison.compared += 1;
        if !changes.is_empty() {
            comparison.differences.entry(workload).or_default().extend(changes);
        }
    }
    Ok(comparison)
}

/// Namespace, workload and type of a described proxy.
fn workload(node: &Value) -> (String, String, String) {
    let text = |pointer: &str| node.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
    let name = Some(text("/metadata/WORKLOAD_NAME")).filter(|name| !name.is_empty()).unwrap_or_else(|| text("/name"));
    (text("/namespace"), name, text("/type"))
}

fn parsed(replica: &Replica, page: &[u8]) -> Result<Value, CliError> {
    serde_json::from_slice(page).map_err(|error| CliError::internal(format!("{replica} sent no JSON")).because(&error))
}

async fn computed(kube: &Kube, replica: &Replica, node: Bytes) -> Result<Value, CliError> {
    let answer = replica.monitoring().ask(kube, Method::POST, "/debug/computed", node).await?;
    if answer.status != StatusCode::OK {
        let said = String::from_utf8_lossy(&answer.body);
        let what = format!("{replica} does not say what it would serve: {} {}", answer.status, said.trim());
        return Err(CliError::internal(what));
    }
    parsed(replica, &answer.body)
}

/// What differs between two pages of `/debug/computed`.
#[must_use]
pub fn changes(before: &Value, after: &Value) -> Vec<Change> {
    let (before, after) = (resources(before), resources(after));
    let keys: BTreeSet<&(String, String)> = before.keys().chain(after.keys()).collect();
    let mut found = Vec::new();
    for key in keys {
        let (what, fields) = match (before.get(key), after.get(key)) {
            (Some(one), Some(other)) => {
                let fields = fields(one, other);
                if fields.is_empty() {
                    continue;
                }
                ("changed", fields)
            }
            (None, _) => ("added", Vec::new()),
            (Some(_), None) => ("removed", Vec::new()),
        };
        found.push(Change { what, kind: key.0.clone(), name: key.1.clone(), fields });
    }
    found
}

/// The content of resources by type and name. Of what is not shown, the version, which is that of its content.
fn resources(page: &Value) -> BTreeMap<(String, String), Value> {
    let types = page.get("resources").and_then(Value::as_object).into_iter().flatten();
    let items = types.flat_map(|(kind, items)| items.as_array().into_iter().flatten().map(move |item| (kind, item)));
    items
        .map(|(kind, item)| {
            let name = item.get("name").and_then(Value::as_str).unwrap_or_default();
            let content = item.get("content").filter(|content| !content.is_string());
            let content = content.or_else(|| item.get("version")).cloned().unwrap_or_default();
            ((kind.clone(), name.to_owned()), content)
        })
        .collect()
}

/// Which fields differ, by their paths.
fn fields(before: &Value, after: &Value) -> Vec<String> {
    let mut all = Vec::new();
    differing(before, after, String::new(), &mut all);
    if all.len() > MAX_FIELDS {
        let more = all.len() - MAX_FIELDS;
        all.truncate(MAX_FIELDS);
        all.push(format!("{more} more"));
    }
    all
}

fn differing(before: &Value, after: &Value, path: String, all: &mut Vec<String>) {
    match (before, after) {
        (Value::Object(one), Value::Object(other)) => {
            let keys: BTreeSet<&String> = one.keys().chain(other.keys()).collect();
            for key in keys {
                let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                let of = |fields: &serde_json::Map<String, Value>| fields.get(key).cloned().unwrap_or_default();
                differing(&of(one), &of(other), path, all);
            }
        }
        (Value::Array(one), Value::Array(other)) if one.len() == other.len() => {
            for (index, (one, other)) in one.iter().zip(other).enumerate() {
                differing(one, other, format!("{path}[{index}]"), all);
            }
        }
        (one, other) if one == other => {}
        _ => all.push(if path.is_empty() { "all of it".to_owned() } else { path }),
    }
}

impl Comparison {
    /// One row for each change, with the workloads that it concerns.
    #[must_use]
    pub fn table(&self) -> Table {
        let mut concerned: BTreeMap<&Change, Vec<&str>> = BTreeMap::new();
        for (workload, changes) in &self.differences {
            for change in changes {
                concerned.entry(change).or_default().push(workload);
            }
        }
        let mut table = Table { padding: 3, ..Table::new(&["CHANGE", "TYPE", "RESOURCE", "FIELDS", "WORKLOADS"]) };
        for (change, workloads) in concerned {
            let shown = match workloads.as_slice() {
                few @ ([_] | [_, _] | [_, _, _]) => few.join(", "),
                many => format!("{} and {} more", many.first().copied().unwrap_or_default(), many.len() - 1),
            };
            let fields = change.fields.join(", ");
            table.row([change.what.to_owned(), change.kind.clone(), change.name.clone(), fields, shown]);
        }
        table
    }

    /// What was found, in a sentence.
    #[must_use]
    pub fn summary(&self, from: &str, to: &str) -> String {
        let changes: usize = self.differences.values().map(Vec::len).sum();
        match self.differences.len() {
            0 => format!("{from} and {to} compute the same for all {} workloads compared", self.compared),
            differing => format!(
                "{to} computes otherwise than {from} for {differing} of {} workloads: {changes} resources differ",
                self.compared
            ),
        }
    }

    /// For programs.
    #[must_use]
    pub fn to_json(&self, from: &str, to: &str) -> Value {
        let change = |change: &Change| json!({ "change": change.what, "type": change.kind, "name": change.name, "fields": change.fields });
        let workloads: Vec<Value> = self
            .differences
            .iter()
            .map(|(workload, changes)| {
                json!({ "workload": workload, "changes": changes.iter().map(change).collect::<Vec<_>>() })
            })
            .collect();
        json!({ "from": from, "to": to, "compared": self.compared, "workloads": workloads, "notes": self.notes })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(name: &str, version: &str, content: Value) -> Value {
        json!({ "name": name, "version": version, "bytes": 1, "content": content })
    }

    #[test]
    fn resources_that_come_go_and_differ_are_told() {
        let before = json!({ "generation": 1, "resources": {
            "CDS": [item("a", "1", json!({ "timeout": 1, "same": [1, 2] })), item("gone", "1", json!({}))],
            "LDS": [item("same", "1", json!({ "x": 1 }))],
            "SDS": [item("key", "1", json!("not shown"))],
        } });
        let after = json!({ "generation": 2, "resources": {
            "CDS": [item("a", "2", json!({ "timeout": 2, "same": [1, 3], "new": true })), item("come", "1", json!({}))],
            // Another release may hash otherwise; what is the same is the same.
            "LDS": [item("same", "9", json!({ "x": 1 }))],
            "SDS": [item("key", "2", json!("not shown"))],
        } });
        let told: Vec<String> = changes(&before, &after)
            .iter()
            .map(|change| format!("{} {} {} {}", change.what, change.kind, change.name, change.fields.join(",")))
            .collect();
        let expect =
            ["changed CDS a new,same[1],timeout", "added CDS come ", "removed CDS gone ", "changed SDS key all of it"];
        assert_eq!(told, expect);
        assert!(changes(&before, &before).is_empty());
    }

    #[test]
    fn many_fields_are_counted() {
        let of = |value: u32| Value::Object((0..9).map(|index| (format!("f{index}"), json!(value))).collect());
        assert_eq!(fields(&of(1), &of(2)), ["f0", "f1", "f2", "f3", "f4", "4 more"]);
    }

    #[test]
    fn one_change_of_many_workloads_is_one_row() {
        let change = Change { what: "added", kind: "CDS".into(), name: "a".into(), fields: Vec::new() };
        let of = |names: &[&str]| names.iter().map(|name| ((*name).to_owned(), vec![change.clone()])).collect();
        let few = Comparison { compared: 4, differences: of(&["s/a", "s/b"]), notes: Vec::new() };
        assert_eq!(few.table().rows, [["added", "CDS", "a", "", "s/a, s/b"]]);
        assert_eq!(few.summary("x", "y"), "y computes otherwise than x for 2 of 4 workloads: 2 resources differ");
        let many = Comparison { compared: 4, differences: of(&["s/a", "s/b", "s/c", "s/d"]), notes: Vec::new() };
        assert_eq!(many.table().rows, [["added", "CDS", "a", "", "s/a and 3 more"]]);
        assert!(Comparison::default().summary("x", "y").starts_with("x and y compute the same"));
    }

    #[test]
    fn proxies_of_one_workload_are_one() {
        let node =
            json!({ "type": "sidecar", "name": "web-1", "namespace": "shop", "metadata": { "WORKLOAD_NAME": "web" } });
        assert_eq!(workload(&node), ("shop".to_owned(), "web".to_owned(), "sidecar".to_owned()));
        let bare = json!({ "type": "router", "name": "gate-1", "namespace": "edge" });
        assert_eq!(workload(&bare).1, "gate-1");
    }
}
