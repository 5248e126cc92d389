//! All objects of an analysis, found by kind and name.

use std::collections::{BTreeMap, HashMap};

use mesh_api::finding::Finding;
use serde_json::Value;

use super::sorts::Sort;
use super::view;

/// An object.
#[derive(Clone, Debug)]
pub struct Subject {
    /// Its place among the input's.
    pub(super) index: usize,
    /// What it is; `None` for kinds that no check looks at.
    pub sort: Option<Sort>,
    /// The kind, as it says.
    pub kind: String,
    /// Its namespace; empty for objects of the cluster.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// All of it.
    pub value: Value,
    /// What the rules of its kind say about it.
    pub findings: Vec<Finding>,
}

impl Subject {
    /// An object by what it says of itself; `namespace` for one that names none.
    #[must_use]
    pub fn new(value: Value, namespace: &str, findings: Vec<Finding>) -> Self {
        let kind = view::text(&value, "kind").to_owned();
        let sort = Sort::of(view::text(&value, "apiVersion"), &kind);
        let in_cluster =
            matches!(sort, Some(Sort::NAMESPACE | Sort::NODE | Sort::MUTATING_WEBHOOK | Sort::VALIDATING_WEBHOOK));
        let own = view::text(&value, "metadata.namespace");
        let namespace = match (in_cluster, own) {
            (true, _) => String::new(),
            (false, "") => namespace.to_owned(),
            (false, own) => own.to_owned(),
        };
        let name = view::text(&value, "metadata.name").to_owned();
        Self { index: 0, sort, kind, namespace, name, value, findings }
    }

    /// `namespace/name`, or the bare name of an object of the cluster.
    #[must_use]
    pub fn full_name(&self) -> String {
        if self.namespace.is_empty() { self.name.clone() } else { format!("{}/{}", self.namespace, self.name) }
    }

    /// The value of an annotation.
    #[must_use]
    pub fn annotation(&self, name: &str) -> Option<&str> {
        self.value.get("metadata")?.get("annotations")?.get(name)?.as_str()
    }

    /// The value of a label.
    pub(super) fn label(&self, name: &str) -> Option<&str> {
        self.value.get("metadata")?.get("labels")?.get(name)?.as_str()
    }

    /// All labels.
    pub(super) fn labels(&self) -> BTreeMap<&str, &str> {
        view::pairs(&self.value, "metadata.labels")
    }

    /// Text below.
    pub(super) fn text(&self, path: &str) -> &str {
        view::text(&self.value, path)
    }

    /// A list below.
    pub(super) fn list(&self, path: &str) -> &[Value] {
        view::list(&self.value, path)
    }

    /// A list of texts below.
    pub(super) fn texts(&self, path: &str) -> Vec<&str> {
        view::texts(&self.value, path)
    }

    /// A map of texts below.
    pub(super) fn pairs(&self, path: &str) -> BTreeMap<&str, &str> {
        view::pairs(&self.value, path)
    }
}

/// All objects.
#[derive(Debug)]
pub struct Objects {
    all: Vec<Subject>,
    by_sort: HashMap<Sort, Vec<usize>>,
    by_name: HashMap<(Sort, String, String), usize>,
    /// The namespace of mesh-wide policies.
    pub(super) root_namespace: String,
}

impl Objects {
    pub(super) fn new(mut all: Vec<Subject>, root_namespace: String) -> Self {
        let mut by_sort: HashMap<Sort, Vec<usize>> = HashMap::new();
        let mut by_name = HashMap::new();
        for (index, subject) in all.iter_mut().enumerate() {
            subject.index = index;
            let Some(sort) = subject.sort else { continue };
            // Of two that say to be the same, the later counts, as with `kubectl apply`.
            if let Some(earlier) = by_name.insert((sort, subject.namespace.clone(), subject.name.clone()), index)
                && let Some(known) = by_sort.get_mut(&sort)
            {
                known.retain(|index| *index != earlier);
            }
            by_sort.entry(sort).or_default().push(index);
        }
        Self { all, by_sort, by_name, root_namespace }
    }

    /// All of a kind.
    pub(super) fn of(&self, sort: Sort) -> impl Iterator<Item = &Subject> {
        self.by_sort.get(&sort).into_iter().flatten().filter_map(|index| self.all.get(*index))
    }

    /// One by its name.
    pub(super) fn find(&self, sort: Sort, namespace: &str, name: &str) -> Option<&Subject> {
        let index = self.by_name.get(&(sort, namespace.to_owned(), name.to_owned()))?;
        self.all.get(*index)
    }

    /// Every object, of whatever kind.
    pub(super) fn all(&self) -> impl Iterator<Item = &Subject> {
        self.all.iter()
    }

    /// One by its place.
    #[must_use]
    pub fn get(&self, index: usize) -> Option<&Subject> {
        self.all.get(index)
    }
}
