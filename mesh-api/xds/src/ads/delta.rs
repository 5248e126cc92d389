//! What a proxy was offered, and what it must still be sent (incremental variant, server side).

use std::collections::BTreeMap;
use std::sync::Arc;

use mesh_api::text::Str;

use super::sub::Subscription;
use crate::discovery::{Any, DeltaDiscoveryResponse, Resource};
use crate::encoded::{Encoded, TypeSet, Version};
use crate::type_url::TypeUrl;

/// What the client has for one type: a shared base, cut to its subscription, and the exceptions from it.
///
/// There is no map of names per proxy: exceptions live only from a request that makes them until the next response.
#[derive(Debug, Default)]
pub(super) struct Offer {
    base: Arc<TypeSet>,
    exceptions: BTreeMap<Str, Held>,
}

/// What the client has under one name, where that differs from the base.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Held {
    /// Nothing, and it waits for an answer: the resource, or that there is none.
    Nothing,
    /// This version.
    Version(Version),
    /// Something that we did not send in this form.
    Other,
}

/// What must be sent.
#[derive(Debug, Default)]
pub(super) struct Diff {
    /// New and changed resources with the aliases under which they were asked for, by name.
    pub(super) upserts: BTreeMap<Str, (Arc<Encoded>, Vec<Str>)>,
    /// Names that are gone or do not exist.
    pub(super) removed: Vec<Str>,
    /// Names that are gone, which the client is not told yet, with what it has under them.
    pub(super) withheld: Vec<(Str, Held)>,
}

impl Diff {
    pub(super) fn is_empty(&self) -> bool {
        self.upserts.is_empty() && self.removed.is_empty()
    }

    /// Adds a resource that answers a request for `name`.
    fn upsert(&mut self, name: &Str, item: &Arc<Encoded>) {
        let (_, aliases) = self.upserts.entry(item.name.clone()).or_insert_with(|| (Arc::clone(item), Vec::new()));
        if *name != item.name {
            aliases.push(name.clone());
        }
    }

    /// The message that carries this.
    pub(super) fn into_response(
        self,
        type_url: TypeUrl,
        nonce: String,
        system_version: String,
    ) -> DeltaDiscoveryResponse {
        let resource = |(item, aliases): (Arc<Encoded>, Vec<Str>)| Resource {
            version: item.version.to_string(),
            resource: Some(Any { type_url: type_url.as_str().to_owned(), value: item.bytes.clone() }),
            name: item.name.to_string(),
            aliases: aliases.iter().map(ToString::to_string).collect(),
        };
        DeltaDiscoveryResponse {
            system_version_info: system_version,
            resources: self.upserts.into_values().map(resource).collect(),
            type_url: type_url.as_str().to_owned(),
            nonce,
            removed_resources: self.removed.iter().map(ToString::to_string).collect(),
        }
    }
}

impl Offer {
    /// Records what the client reports to hold under a name.
    pub(super) fn hold(&mut self, name: Str, version: &str) {
        let held = Version::parse(version).map_or(Held::Other, Held::Version);
        self.exceptions.insert(name, held);
    }

    /// What the client reported to hold under a name.
    pub(super) fn reported(&self, name: &str) -> Option<Held> {
        self.exceptions.get(name).copied()
    }

    /// The name must be answered, whatever was sent before.
    pub(super) fn forget(&mut self, name: Str) {
        self.exceptions.insert(name, Held::Nothing);
    }

    /// Copies what is known of one name to another that leads to the same resource.
    pub(super) fn hold_as(&mut self, name: Str, held: Held) {
        self.exceptions.insert(name, held);
    }

    /// The subscription grows from names to everything: only what the names brought is held.
    pub(super) fn widen(&mut self, names: impl IntoIterator<Item = Str>) {
        for name in names {
            if let Some(item) = self.base.get(&name) {
                self.exceptions.entry(name).or_insert(Held::Version(item.version));
            }
        }
        self.base = Arc::default();
    }

    /// The version last offered under exactly this name.
    pub(super) fn version_of(&self, name: &str) -> Option<Version> {
        self.base.get(name).map(|item| item.version)
    }

    /// Keeps back the removal of what the client has. That a name does not exist is told at once.
    pub(super) fn withhold_removals(&self, diff: &mut Diff) {
        for name in std::mem::take(&mut diff.removed) {
            let base = || self.base.get(&name).map(|item| Held::Version(item.version));
            match self.exceptions.get(&name).copied().or_else(base) {
                None | Some(Held::Nothing) => diff.removed.push(name),
                Some(held) => diff.withheld.push((name, held)),
            }
        }
    }

    /// All that `target` holds was offered.
    pub(super) fn settle(&mut self, target: &Arc<TypeSet>) {
        self.base = Arc::clone(target);
        self.exceptions = BTreeMap::new();
    }

    /// Whether `target` was offered, without looking at names.
    pub(super) fn is_settled(&self, target: &Arc<TypeSet>) -> bool {
        self.exceptions.is_empty() && Arc::ptr_eq(&self.base, target)
    }

    /// What the client must be sent to hold `target`, as far as it is subscribed to it.
    pub(super) fn diff(&self, type_url: TypeUrl, subscription: &Subscription, target: &Arc<TypeSet>) -> Diff {
        if self.is_settled(target) {
            return Diff::default();
        }
        if type_url == TypeUrl::VirtualHost && !subscription.wildcard {
            return self.diff_by_name(subscription, target);
        }
        let mut diff = Diff::default();
        for (name, old, new) in merge(self.base.items(), target.items()) {
            let unchanged = matches!((old, new), (Some(old), Some(new)) if same(old, new));
            if unchanged || self.exceptions.contains_key(name) || !subscription.covers(name) {
                continue;
            }
            match new {
                Some(new) => diff.upsert(name, new),
                None => diff.removed.push(name.clone()),
            }
        }
        for (name, held) in self.exceptions.iter().filter(|(name, _)| subscription.covers(name)) {
            match if type_url == TypeUrl::VirtualHost { target.find(name) } else { target.get(name) } {
                Some(new) if *held == Held::Version(new.version) => {}
                Some(new) => diff.upsert(name, new),
                None => diff.removed.push(name.clone()),
            }
        }
        diff
    }

    /// As [`Self::diff`] for on-demand types, where a name may lead to a resource of another name.
    fn diff_by_name(&self, subscription: &Subscription, target: &TypeSet) -> Diff {
        let mut diff = Diff::default();
        for name in &subscription.names {
            let old = self.base.find(name);
            let new = target.find(name);
            let unchanged = match (self.exceptions.get(name), new) {
                (Some(Held::Version(held)), Some(new)) => *held == new.version,
                (Some(_), _) => false,
                (None, new) => match (old, new) {
                    (Some(old), Some(new)) => old.name == new.name && same(old, new),
                    (None, None) => true,
                    (Some(_), None) | (None, Some(_)) => false,
                },
            };
            match new {
                _ if unchanged => {}
                Some(new) => diff.upsert(name, new),
                None => diff.removed.push(name.clone()),
            }
        }
        diff
    }
}

/// Whether two resources of one name are the same; the pointer first, because successive sets share most of them.
fn same(a: &Arc<Encoded>, b: &Arc<Encoded>) -> bool {
    Arc::ptr_eq(a, b) || a.version == b.version
}

/// Both lists side by side, in the order of names.
fn merge<'a>(
    old: &'a [Arc<Encoded>],
    new: &'a [Arc<Encoded>],
) -> impl Iterator<Item = (&'a Str, Option<&'a Arc<Encoded>>, Option<&'a Arc<Encoded>>)> {
    let (mut old, mut new) = (old.iter().peekable(), new.iter().peekable());
    std::iter::from_fn(move || {
        let order = match (old.peek(), new.peek()) {
            (Some(a), Some(b)) => a.name.cmp(&b.name),
            (Some(_), None) => std::cmp::Ordering::Less,
            (None, Some(_)) => std::cmp::Ordering::Greater,
            (None, None) => return None,
        };
        let a = if order.is_le() { old.next() } else { None };
        let b = if order.is_ge() { new.next() } else { None };
        let name = &a.or(b)?.name;
        Some((name, a, b))
    })
}
