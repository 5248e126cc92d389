//! Objects to look at: from files, with the line that each field stands at, or from a cluster.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures::stream::{self, StreamExt as _};
use kube::api::DynamicObject;
use kube::core::ApiResource;
use mesh_api::finding::Finding;
use mesh_api::ids::ObjectKey;
use mesh_api::kinds::Kind;
use mesh_api::parse;
use mesh_api::validate::validate;
use meshd_core::analyze::{Sort, Subject};
use serde_json::{Value, json};

use crate::error::CliError;
use crate::files;
use crate::kube::client::Kube;

/// Kinds listed at the same time.
const LISTS_AT_ONCE: usize = 6;

/// Settings of an installation in the form of an object.
pub const OPERATOR: &str = "IstioOperator";

/// Where an object stood.
#[derive(Clone, Debug)]
pub struct Place {
    file: Arc<str>,
    /// The line that its document begins at, from 1.
    line: usize,
    document: Arc<str>,
    /// What comes before its fields: `items[2].` of a list.
    prefix: String,
}

impl Place {
    /// `file:line` of a field, or of its nearest parent that is there.
    #[must_use]
    pub fn of(&self, path: &str) -> String {
        let path = format!("{}{path}", self.prefix);
        let line = mesh_api::typed::line_of(&self.document, path.trim_end_matches('.')).unwrap_or(1);
        format!("{}:{}", self.file, self.line + line.saturating_sub(1))
    }
}

/// An object, and where it stood if that was in a file.
#[derive(Clone, Debug)]
pub struct Found {
    /// The object.
    pub subject: Subject,
    /// Where it stood.
    pub place: Option<Place>,
}

/// What was read.
#[derive(Debug, Default)]
pub struct Reading {
    /// The objects.
    pub found: Vec<Found>,
    /// What is no object, with its `file:line`.
    pub broken: Vec<Finding>,
    /// Kinds that the cluster does not show, with the reason.
    pub hidden: BTreeMap<Sort, String>,
}

/// Reads files and folders; `namespace` is that of objects that name none.
///
/// # Errors
/// When a file cannot be read.
pub fn from_files(paths: &[PathBuf], namespace: &str) -> Result<Reading, CliError> {
    let mut reading = Reading::default();
    let files = files::expand(paths)?;
    if files.is_empty() {
        return Err(CliError::user("no YAML or JSON file there")
            .hint("file names must end with .yaml, .yml or .json; - reads the standard input"));
    }
    for file in &files {
        reading.text(file, &files::read(file)?, namespace);
    }
    Ok(reading)
}

impl Reading {
    fn text(&mut self, file: &Path, text: &str, namespace: &str) {
        let file: Arc<str> =
            if file.as_os_str() == "-" { "standard input".into() } else { file.display().to_string().into() };
        for (line, document) in documents(text) {
            let value = match parse::parse_value(document, &file) {
                Ok(Value::Null) => continue,
                Ok(value) => value,
                Err(error) => {
                    let place = format!("{file}:{}", line + error.line.saturating_sub(1));
                    self.broken.push(error.to_finding().at(place));
                    continue;
                }
            };
            let findings = Findings::of(document, namespace);
            let place = |prefix| Place { file: Arc::clone(&file), line, document: document.into(), prefix };
            let items = value.get("items").and_then(Value::as_array);
            match items.filter(|_| value.get("kind").and_then(Value::as_str).is_some_and(|kind| kind.ends_with("List")))
            {
                Some(items) => {
                    for (index, item) in items.iter().enumerate() {
                        self.add(item.clone(), namespace, &findings, place(format!("items[{index}].")));
                    }
                }
                None => self.add(value, namespace, &findings, place(String::new())),
            }
        }
    }

    fn add(&mut self, value: Value, namespace: &str, findings: &Findings, place: Place) {
        let mut subject = Subject::new(value, namespace, Vec::new());
        if subject.kind == OPERATOR {
            // Settings of an installation, which need no name and are not applied to a cluster.
            self.found.push(Found { subject, place: Some(place) });
            return;
        }
        if subject.kind.is_empty() || subject.name.is_empty() {
            let code = mesh_api::codes::Code::NotAnObject;
            self.broken.push(Finding::new(code, "", "has no apiVersion, kind or metadata.name").at(place.of("")));
            return;
        }
        subject.findings = findings.about(&subject);
        self.found.push(Found { subject, place: Some(place) });
    }
}

/// What the rules say about the objects of a document, by object.
struct Findings {
    by_key: BTreeMap<ObjectKey, Vec<Finding>>,
    /// About kinds that this release does not read.
    rest: Vec<Finding>,
}

impl Findings {
    fn of(document: &str, namespace: &str) -> Self {
        let parsed = parse::parse(document, namespace);
        let mut by_key: BTreeMap<ObjectKey, Vec<Finding>> = BTreeMap::new();
        for object in parsed.objects {
            match object {
                Ok(item) => {
                    let found = item.findings.into_iter().chain(validate(&item.object));
                    by_key.entry(item.object.key()).or_default().extend(found);
                }
                Err(error) => {
                    if let Some(key) = error.key.clone() {
                        by_key.entry(key).or_default().push(error.to_finding());
                    }
                }
            }
        }
        Self { by_key, rest: parsed.findings }
    }

    fn about(&self, subject: &Subject) -> Vec<Finding> {
        let api = subject.value.get("apiVersion").and_then(Value::as_str).unwrap_or_default();
        match Kind::from_api(api, &subject.kind) {
            Some(kind) => {
                let is = |key: &&ObjectKey| {
                    key.kind == kind && key.name.as_str() == subject.name && key.namespace.as_str() == subject.namespace
                };
                let key = self.by_key.keys().find(is);
                key.and_then(|key| self.by_key.get(key)).cloned().unwrap_or_default()
            }
            // Only the mesh's own: that Deployments are not read is nobody's concern.
            None if api.split('/').next().is_some_and(|group| group.ends_with("istio.io")) => self.rest.clone(),
            None => Vec::new(),
        }
    }
}

/// The documents of a text, each with the line that it begins at.
fn documents(text: &str) -> Vec<(usize, &str)> {
    let mut all = Vec::new();
    let (mut start, mut line, mut offset) = (0, 1, 0);
    for (number, content) in (1..).zip(text.split_inclusive('\n')) {
        if content.starts_with("---") {
            all.push((line, text.get(start..offset).unwrap_or_default()));
            (start, line) = (offset + content.len(), number + 1);
        }
        offset += content.len();
    }
    all.push((line, text.get(start..).unwrap_or_default()));
    all.retain(|(_, document)| !document.trim().is_empty());
    all
}

/// Reads all objects of some kinds in a cluster. Kinds that it denies are told in `hidden`.
///
/// # Errors
/// When the cluster does not answer.
pub async fn from_cluster(kube: &Kube, sorts: &[Sort]) -> Result<Reading, CliError> {
    let mut lists = stream::iter(sorts.iter().copied())
        .map(|sort| async move { (sort, list(kube, sort).await) })
        .buffered(LISTS_AT_ONCE);
    let mut reading = Reading::default();
    while let Some((sort, list)) = lists.next().await {
        match list? {
            Ok(objects) => reading
                .found
                .extend(objects.into_iter().map(|object| Found { subject: received(sort, object), place: None })),
            Err(reason) => drop(reading.hidden.insert(sort, reason)),
        }
    }
    Ok(reading)
}

/// All objects of a kind, or why the cluster does not show them.
async fn list(kube: &Kube, sort: Sort) -> Result<Result<Vec<DynamicObject>, String>, CliError> {
    let resource = ApiResource {
        group: sort.group.to_owned(),
        version: sort.version.to_owned(),
        api_version: api_version(sort),
        kind: sort.kind.to_owned(),
        plural: sort.plural.to_owned(),
    };
    match kube.list(&resource, None, None).await {
        Ok(objects) => Ok(Ok(objects)),
        Err(error) if error.exit == crate::exit::Exit::User => Ok(Err(error.message)),
        Err(error) => Err(error),
    }
}

fn api_version(sort: Sort) -> String {
    if sort.group.is_empty() { sort.version.to_owned() } else { format!("{}/{}", sort.group, sort.version) }
}

fn received(sort: Sort, object: DynamicObject) -> Subject {
    let mut value = serde_json::to_value(&object).unwrap_or_default();
    if let Some(fields) = value.as_object_mut() {
        // Items of a list do not say what they are.
        fields.insert("apiVersion".to_owned(), json!(api_version(sort)));
        fields.insert("kind".to_owned(), json!(sort.kind));
    }
    if let Some(metadata) = value.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.remove("managedFields");
        if let Some(annotations) = metadata.get_mut("annotations").and_then(Value::as_object_mut) {
            annotations.remove("kubectl.kubernetes.io/last-applied-configuration");
        }
    }
    let findings = match Kind::from_api(&api_version(sort), sort.kind) {
        Some(kind) if kind.is_mesh() => match mesh_api::received::received(kind, &value.to_string()) {
            Ok(received) => received.findings,
            Err(refused) => vec![refused.finding],
        },
        Some(_) => Vec::new(),
        None if sort.group.ends_with("istio.io") => {
            // The table of kinds that do not act is asked by the object's head alone.
            let meta = json!({ "name": object.metadata.name, "namespace": object.metadata.namespace });
            let head = json!({ "apiVersion": api_version(sort), "kind": sort.kind, "metadata": meta });
            parse::parse(&head.to_string(), "").findings
        }
        None => Vec::new(),
    };
    Subject::new(value, "", findings)
}

/// Kinds of which there is nothing among some objects.
#[must_use]
pub fn absent(found: &[Found]) -> BTreeSet<Sort> {
    let known: BTreeSet<Sort> = found.iter().filter_map(|found| found.subject.sort).collect();
    Sort::ALL.iter().copied().filter(|sort| !known.contains(sort)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# shop\n---\napiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: web}\nspec:\n  \
        hosts: [web]\n  htp: []\n---\napiVersion: v1\nkind: List\nitems:\n- apiVersion: v1\n  kind: Service\n  metadata:\n    \
        name: web\n---\napiVersion: networking.istio.io/v1alpha3\nkind: EnvoyFilter\nmetadata: {name: lua}\n---\na: [\n";

    #[test]
    fn objects_of_files_have_lines_and_findings() {
        let mut reading = Reading::default();
        reading.text(Path::new("a.yaml"), TEXT, "shop");
        let names: Vec<String> =
            reading.found.iter().map(|found| format!("{} {}", found.subject.kind, found.subject.full_name())).collect();
        assert_eq!(names, ["VirtualService shop/web", "Service shop/web", "EnvoyFilter shop/lua"]);
        let service = &reading.found[0];
        assert!(service.subject.findings.iter().any(|finding| finding.path == *"spec.htp"), "{:?}", service.subject);
        let place = |index: usize, path: &str| reading.found[index].place.as_ref().unwrap().of(path);
        assert_eq!(place(0, "spec.hosts"), "a.yaml:7");
        assert_eq!(place(1, "metadata.name"), "a.yaml:16");
        assert_eq!(reading.found[2].subject.findings[0].code.to_string(), "MESH4002");
        assert_eq!(reading.broken.len(), 1);
        assert!(reading.broken[0].origin.starts_with("a.yaml:2"), "{}", reading.broken[0]);
    }
}
