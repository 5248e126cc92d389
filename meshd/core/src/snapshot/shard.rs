//! Objects of one kind in compiled form, by namespace.
//!
//! An object is compiled when it changes and at no other time; what compiles to an equal value keeps its address, so that a
//! change that nobody reads is seen by nobody.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use mesh_api::finding::Finding;
use mesh_api::ids::{ClusterId, Name, Namespace};
use mesh_api::object::{Object, Spec};

use crate::world::Table;

/// What an object compiles to.
#[derive(Clone, Debug)]
pub(crate) struct Compiled<T> {
    /// The values; more than one for an object with several hosts, none when nothing of it can be used.
    pub(crate) values: Vec<T>,
    /// What is wrong with it.
    pub(crate) findings: Vec<Finding>,
}

/// Which namespaces must be looked at again.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Dirty<'a> {
    /// These.
    Only(&'a BTreeSet<Namespace>),
    /// All, and every object is compiled again: something that all of them depend on has changed.
    All,
}

/// All objects of a kind, compiled.
pub(crate) struct Part<S: Spec, T> {
    shards: BTreeMap<Namespace, Arc<Shard<S, T>>>,
}

struct Shard<S: Spec, T> {
    items: BTreeMap<(Name, ClusterId), Item<S, T>>,
}

struct Item<S: Spec, T> {
    source: Arc<Object<S>>,
    values: Vec<Arc<T>>,
    findings: Arc<[Finding]>,
}

impl<S: Spec, T> Clone for Part<S, T> {
    fn clone(&self) -> Self {
        Self { shards: self.shards.clone() }
    }
}

impl<S: Spec, T> Default for Part<S, T> {
    fn default() -> Self {
        Self { shards: BTreeMap::new() }
    }
}

impl<S: Spec, T> fmt::Debug for Part<S, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Part({}, {} namespaces)", S::KIND, self.shards.len())
    }
}

impl<S: Spec, T: PartialEq> Part<S, T> {
    /// The part after a change; `None` when every value is what it was.
    pub(crate) fn next(
        &self,
        table: &Table<S>,
        dirty: Dirty<'_>,
        compile: &dyn Fn(&Object<S>, &ClusterId) -> Compiled<T>,
    ) -> Option<Self> {
        let namespaces: BTreeSet<Namespace> = match dirty {
            Dirty::Only(namespaces) => namespaces.clone(),
            Dirty::All => table.namespaces().chain(self.shards.keys()).cloned().collect(),
        };
        let mut next = self.clone();
        let mut changed = false;
        for namespace in namespaces {
            let prev = self.shards.get(&namespace);
            let shard = Shard::next(prev, table, &namespace, dirty, compile);
            if prev.is_some_and(|prev| prev.same(&shard)) || (prev.is_none() && shard.items.is_empty()) {
                continue;
            }
            changed = true;
            if shard.items.is_empty() {
                next.shards.remove(&namespace);
            } else {
                next.shards.insert(namespace, Arc::new(shard));
            }
        }
        changed.then_some(next)
    }

    /// All values, ordered by namespace, then name.
    pub(crate) fn values(&self) -> impl Iterator<Item = &Arc<T>> {
        self.shards.values().flat_map(|shard| shard.items.values()).flat_map(|item| item.values.iter())
    }

    /// The values of a namespace, ordered by name.
    pub(crate) fn in_namespace(&self, namespace: &str) -> impl Iterator<Item = &Arc<T>> {
        self.shards
            .get(namespace)
            .into_iter()
            .flat_map(|shard| shard.items.values())
            .flat_map(|item| item.values.iter())
    }

    /// All findings, ordered by namespace, then name.
    pub(crate) fn findings(&self) -> impl Iterator<Item = &Finding> {
        self.shards.values().flat_map(|shard| shard.items.values()).flat_map(|item| item.findings.iter())
    }
}

impl<S: Spec, T: PartialEq> Shard<S, T> {
    fn next(
        prev: Option<&Arc<Self>>,
        table: &Table<S>,
        namespace: &Namespace,
        dirty: Dirty<'_>,
        compile: &dyn Fn(&Object<S>, &ClusterId) -> Compiled<T>,
    ) -> Self {
        let objects = table.in_namespace(namespace).into_iter().flatten();
        let items = objects.map(|(key, source)| {
            let old = prev.and_then(|prev| prev.items.get(key));
            let item = match old {
                Some(old) if Arc::ptr_eq(&old.source, source) && matches!(dirty, Dirty::Only(_)) => old.clone(),
                old => Item::new(source, &key.1, old, compile),
            };
            (key.clone(), item)
        });
        Self { items: items.collect() }
    }

    /// Whether all values and findings are the very same.
    fn same(&self, other: &Self) -> bool {
        self.items.len() == other.items.len()
            && self.items.iter().zip(&other.items).all(|((key_a, a), (key_b, b))| {
                key_a == key_b
                    && a.findings == b.findings
                    && a.values.len() == b.values.len()
                    && a.values.iter().zip(&b.values).all(|(x, y)| Arc::ptr_eq(x, y))
            })
    }
}

impl<S: Spec, T> Clone for Item<S, T> {
    fn clone(&self) -> Self {
        Self { source: self.source.clone(), values: self.values.clone(), findings: self.findings.clone() }
    }
}

impl<S: Spec, T: PartialEq> Item<S, T> {
    fn new(
        source: &Arc<Object<S>>,
        cluster: &ClusterId,
        old: Option<&Self>,
        compile: &dyn Fn(&Object<S>, &ClusterId) -> Compiled<T>,
    ) -> Self {
        let compiled = compile(source, cluster);
        let key = source.key().in_cluster(cluster.clone());
        let findings = compiled.findings.into_iter().map(|finding| finding.on(key.clone())).collect();
        let old = old.map_or(&[][..], |old| &old.values);
        let values = compiled.values.into_iter().map(|value| reuse(old, value)).collect();
        Self { source: source.clone(), values, findings }
    }
}

/// The old value that equals the new one, else the new one.
pub(crate) fn reuse<T: PartialEq>(old: &[Arc<T>], value: T) -> Arc<T> {
    old.iter().find(|known| ***known == value).cloned().unwrap_or_else(|| Arc::new(value))
}
