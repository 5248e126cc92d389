//! Objects of one kind, by namespace.

use std::collections::BTreeMap;
use std::sync::Arc;

use mesh_api::ids::{ClusterId, Name, Namespace, ObjectKey};
use mesh_api::object::{Object, Spec};

/// Objects of one namespace, by name, then cluster.
pub type InNamespace<S> = BTreeMap<(Name, ClusterId), Arc<Object<S>>>;

/// All objects of one kind.
#[derive(Clone, Debug)]
pub struct Table<S: Spec> {
    namespaces: BTreeMap<Namespace, InNamespace<S>>,
}

impl<S: Spec> Default for Table<S> {
    fn default() -> Self {
        Self { namespaces: BTreeMap::new() }
    }
}

impl<S: Spec> Table<S> {
    /// Puts an object in; whether anything that somebody reads became different.
    pub(crate) fn upsert(&mut self, cluster: &ClusterId, object: Arc<Object<S>>) -> bool {
        let in_namespace = self.namespaces.entry(object.meta.namespace.clone()).or_default();
        let key = (object.meta.name.clone(), cluster.clone());
        let differs = in_namespace.get(&key).is_none_or(|old| differs(old, &object));
        // An object that reads the same keeps its place in memory, so that nothing is compiled again.
        if differs {
            in_namespace.insert(key, object);
        }
        differs
    }

    /// Takes an object out; whether it was there.
    pub(super) fn delete(&mut self, key: &ObjectKey) -> bool {
        let Some(in_namespace) = self.namespaces.get_mut(&key.namespace) else { return false };
        let removed = in_namespace.remove(&(key.name.clone(), key.cluster.clone())).is_some();
        if in_namespace.is_empty() {
            self.namespaces.remove(&key.namespace);
        }
        removed
    }

    /// Keys of all objects of a cluster.
    pub(super) fn keys_of(&self, cluster: &ClusterId) -> Vec<ObjectKey> {
        let all = self.namespaces.values().flatten();
        all.filter(|((_, from), _)| from == cluster)
            .map(|((_, from), object)| object.key().in_cluster(from.clone()))
            .collect()
    }

    /// The objects of a namespace, ordered by name.
    #[must_use]
    pub fn in_namespace(&self, namespace: &str) -> Option<&InNamespace<S>> {
        self.namespaces.get(namespace)
    }

    /// All namespaces that have any, ordered.
    pub fn namespaces(&self) -> impl Iterator<Item = &Namespace> {
        self.namespaces.keys()
    }

    /// All objects, ordered by namespace, then name.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Object<S>>> {
        self.namespaces.values().flat_map(BTreeMap::values)
    }

    /// The object of a cluster, namespace and name.
    #[must_use]
    pub fn of(&self, cluster: &ClusterId, namespace: &str, name: &str) -> Option<&Arc<Object<S>>> {
        self.namespaces.get(namespace)?.get(&(Name::from(name), cluster.clone()))
    }

    /// The object of a namespace and name, of the first cluster that has it.
    #[must_use]
    pub fn get(&self, namespace: &str, name: &str) -> Option<&Arc<Object<S>>> {
        let from = (Name::from(name), ClusterId::default());
        let (key, object) = self.namespaces.get(namespace)?.range(from..).next()?;
        (key.0 == *name).then_some(object)
    }
}

/// Whether two versions of an object differ in anything but their bookkeeping.
fn differs<S: Spec>(old: &Object<S>, new: &Object<S>) -> bool {
    old.spec != new.spec
        || old.status != new.status
        || old.meta.labels != new.meta.labels
        || old.meta.annotations != new.meta.annotations
        || old.meta.creation_timestamp != new.meta.creation_timestamp
        || old.meta.uid != new.meta.uid
}
