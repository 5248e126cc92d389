//! What the cluster has, and which part of it this control plane sees. Pure: what watches tell goes in, changes come out.
//!
//! Objects are kept although the world has them too (they are shared, not copied): a namespace that is selected later brings
//! its objects along, and a list after a gap says what is gone only by what it no longer has.

use std::collections::{BTreeMap, BTreeSet};

use mesh_api::finding::Finding;
use mesh_api::ids::{ClusterId, Name, Namespace, ObjectKey, Revision};
use mesh_api::kinds::Kind;
use mesh_api::labels::Labels;
use mesh_api::mesh_config::{LabelSelector, MeshConfig};
use mesh_api::meta::Meta;
use mesh_api::names::{MESH_CONFIG_KEY, REVISION_LABEL};
use mesh_api::object::AnyObject;
use mesh_api::received::{Received, Refused};
use mesh_api::text::Str;
use meshd_core::world::{Change, MeshConfigPlace};

use super::door;
use crate::source::stand_in::stand_in;

/// What a watch has seen.
#[derive(Debug)]
pub(super) enum Seen {
    /// An object is there.
    There(Box<Received>),
    /// An object is there and cannot be read.
    Refused(Box<Refused>),
    /// An object is gone.
    Gone(Namespace, Name),
}

/// Who sees.
#[derive(Clone, Debug)]
pub(crate) struct Viewer {
    /// The cluster.
    pub(crate) cluster: ClusterId,
    /// The revision of this control plane.
    pub(crate) revision: Revision,
    /// Where the mesh configuration is.
    pub(crate) config: MeshConfigPlace,
}

/// All objects of a cluster.
pub(super) struct Store {
    viewer: Viewer,
    kinds: BTreeMap<Kind, BTreeMap<(Namespace, Name), Entry>>,
    /// Which namespaces are looked at; none is all.
    selectors: Vec<LabelSelector>,
    /// Further names of the revision.
    tags: BTreeSet<Str>,
    /// Counts lists.
    listing: u64,
}

struct Entry {
    /// `None` when it is of no use.
    object: Option<AnyObject>,
    findings: Vec<Finding>,
    /// Whether the world was told of the object.
    shown: bool,
    /// Whether it was told of findings.
    blamed: bool,
    /// The list that had it last.
    listing: u64,
}

impl Store {
    /// An empty cluster.
    pub(super) fn new(viewer: Viewer) -> Self {
        Self { viewer, kinds: BTreeMap::new(), selectors: Vec::new(), tags: BTreeSet::new(), listing: 0 }
    }

    /// How many objects of a kind there are.
    pub(super) fn count(&self, kind: Kind) -> usize {
        self.kinds.get(&kind).map_or(0, BTreeMap::len)
    }

    /// A new list of a kind begins: what comes of that kind from now on is in it.
    pub(super) const fn begin(&mut self) -> u64 {
        self.listing += 1;
        self.listing
    }

    /// The revision has these further names now.
    pub(super) fn set_tags(&mut self, tags: BTreeSet<Str>, changes: &mut Vec<Change>) {
        if tags != self.tags {
            self.tags = tags;
            self.show_again(None, changes);
        }
    }

    /// Takes in what a watch saw. `listing` is the list that the kind's objects are in now.
    pub(super) fn take(&mut self, kind: Kind, listing: u64, seen: Seen, changes: &mut Vec<Change>) {
        let (id, object, findings) = match seen {
            Seen::There(received) => {
                let Received { mut object, findings } = *received;
                let meta = object.meta();
                let id = (meta.namespace.clone(), meta.name.clone());
                let object = door::admit(&mut object).then_some(object);
                (id, object, findings)
            }
            Seen::Refused(refused) => {
                let id = (refused.meta.namespace.clone(), refused.meta.name.clone());
                let (mut object, finding) = stand_in(kind, &refused);
                if let Some(object) = &mut object {
                    door::admit(object);
                }
                (id, object, vec![finding])
            }
            Seen::Gone(namespace, name) => return self.remove(kind, (namespace, name), changes),
        };
        if object.is_none() && findings.is_empty() {
            return self.remove(kind, id, changes);
        }
        let findings = self.located(kind, &id, findings);
        let entries = self.kinds.entry(kind).or_default();
        let fresh = || Entry { object: None, findings: vec![], shown: false, blamed: false, listing };
        let entry = entries.entry(id.clone()).or_insert_with(fresh);
        entry.object = object;
        entry.findings = findings;
        entry.listing = listing;
        self.show(kind, &id, true, changes);
        self.scope_may_change(kind, &id, changes);
    }

    /// A list is complete: what is not in it is gone.
    pub(super) fn end(&mut self, kind: Kind, listing: u64, changes: &mut Vec<Change>) {
        let entries = self.kinds.get(&kind).into_iter().flatten();
        let gone: Vec<_> = entries.filter(|(_, entry)| entry.listing < listing).map(|(id, _)| id.clone()).collect();
        for id in gone {
            self.remove(kind, id, changes);
        }
    }

    fn remove(&mut self, kind: Kind, id: (Namespace, Name), changes: &mut Vec<Change>) {
        let Some(entry) = self.kinds.get_mut(&kind).and_then(|entries| entries.remove(&id)) else { return };
        let key = self.key(kind, &id);
        if entry.blamed {
            changes.push(Change::Findings { origin: origin(&key), findings: vec![] });
        }
        if entry.shown {
            changes.push(Change::Delete(key));
        }
        self.scope_may_change(kind, &id, changes);
    }

    /// Tells the world of an object, if it may see it. `fresh` when the object itself is new or different.
    fn show(&mut self, kind: Kind, id: &(Namespace, Name), fresh: bool, changes: &mut Vec<Change>) {
        let key = self.key(kind, id);
        let Some(entry) = self.kinds.get(&kind).and_then(|entries| entries.get(id)) else { return };
        let meta = entry.object.as_ref().map(AnyObject::meta);
        // The configuration that says which namespaces are looked at counts whatever it says of its own.
        let seen =
            (kind == Kind::ConfigMap || self.sees_namespace(&id.0)) && meta.is_none_or(|meta| self.sees(kind, meta));
        let Some(entry) = self.kinds.get_mut(&kind).and_then(|entries| entries.get_mut(id)) else { return };
        match &entry.object {
            Some(object) if seen => {
                if fresh || !entry.shown {
                    let cluster = self.viewer.cluster.clone();
                    changes.push(Change::Upsert { cluster, object: object.clone() });
                }
                entry.shown = true;
            }
            _ => {
                if std::mem::take(&mut entry.shown) {
                    changes.push(Change::Delete(key.clone()));
                }
            }
        }
        let findings = if seen { entry.findings.clone() } else { Vec::new() };
        if entry.blamed || !findings.is_empty() {
            entry.blamed = !findings.is_empty();
            changes.push(Change::Findings { origin: origin(&key), findings });
        }
    }

    /// Which namespaces are looked at may have changed with an object.
    fn scope_may_change(&mut self, kind: Kind, id: &(Namespace, Name), changes: &mut Vec<Change>) {
        if kind == Kind::Namespace && !self.selectors.is_empty() {
            let namespace = Namespace::from(id.1.as_str());
            self.show_again(Some(&namespace), changes);
        }
        if kind == Kind::ConfigMap && *id == self.config_id() {
            let Some(selectors) = self.configured_selectors() else { return };
            if selectors != self.selectors {
                self.selectors = selectors;
                self.show_again(None, changes);
            }
        }
    }

    fn show_again(&mut self, namespace: Option<&Namespace>, changes: &mut Vec<Change>) {
        let all = self.kinds.iter().flat_map(|(kind, entries)| entries.keys().map(move |id| (*kind, id)));
        let wanted = all.filter(|(_, id)| namespace.is_none_or(|namespace| id.0 == *namespace));
        let wanted: Vec<_> = wanted.map(|(kind, id)| (kind, id.clone())).collect();
        for (kind, id) in wanted {
            self.show(kind, &id, false, changes);
        }
    }

    /// The selectors of the mesh configuration. `None` when it cannot be read or is wrong: then those before stay, as the
    /// rest of the configuration does.
    fn configured_selectors(&self) -> Option<Vec<LabelSelector>> {
        let entry = self.kinds.get(&Kind::ConfigMap).and_then(|entries| entries.get(&self.config_id()));
        let Some(AnyObject::ConfigMap(map)) = entry.and_then(|entry| entry.object.as_ref()) else {
            return Some(Vec::new());
        };
        let text = map.spec.data.get(MESH_CONFIG_KEY).map(Str::as_str).unwrap_or_default();
        let (config, _) = MeshConfig::parse(text).ok()?;
        config.discovery_selectors.iter().all(LabelSelector::is_valid).then_some(config.discovery_selectors)
    }

    fn sees_namespace(&self, namespace: &Namespace) -> bool {
        if namespace.is_empty() || self.selectors.is_empty() {
            return true;
        }
        let id = (Namespace::default(), Name::from(namespace.as_str()));
        let entry = self.kinds.get(&Kind::Namespace).and_then(|entries| entries.get(&id));
        let Some(object) = entry.and_then(|entry| entry.object.as_ref()) else { return false };
        let labels: &Labels = &object.meta().labels;
        self.selectors.iter().any(|selector| selector.matches(labels))
    }

    /// Objects of the mesh may name the revision that they are for.
    fn sees(&self, kind: Kind, meta: &Meta) -> bool {
        if !kind.is_mesh() {
            return true;
        }
        let wanted = meta.labels.get(REVISION_LABEL).map(Str::as_str).unwrap_or_default();
        wanted.is_empty() || wanted == self.viewer.revision.as_str() || self.tags.contains(wanted)
    }

    fn config_id(&self) -> (Namespace, Name) {
        let MeshConfigPlace { namespace, name } = &self.viewer.config;
        (namespace.clone(), name.clone())
    }

    fn key(&self, kind: Kind, id: &(Namespace, Name)) -> ObjectKey {
        ObjectKey::new(kind, id.0.clone(), id.1.clone()).in_cluster(self.viewer.cluster.clone())
    }

    fn located(&self, kind: Kind, id: &(Namespace, Name), findings: Vec<Finding>) -> Vec<Finding> {
        findings.into_iter().map(|finding| finding.on(self.key(kind, id))).collect()
    }
}

fn origin(key: &ObjectKey) -> Str {
    Str::from(format!("{key} in {}", key.cluster))
}

#[cfg(test)]
mod tests;
