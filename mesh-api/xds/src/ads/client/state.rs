//! What the client knows of one type.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Instant;

use mesh_api::text::Str;

use super::Received;
use crate::ads::Rejection;
use crate::ads::sub::Subscription;
use crate::type_url::TypeUrl;

#[derive(Debug, Default)]
pub(super) struct TypeState {
    pub(super) subscription: Subscription,
    /// Accepted versions by name.
    pub(super) held: BTreeMap<Str, Str>,
    /// Demanded name to resource name, where they differ.
    pub(super) aliases: BTreeMap<Str, Str>,
    /// Names on demand, with the time until which an answer is awaited.
    pub(super) demands: BTreeMap<Str, Option<Instant>>,
    /// Responses that the shell has not answered, oldest first.
    pub(super) unanswered: VecDeque<Unanswered>,
    /// A request of this type was sent on this stream.
    pub(super) started: bool,
    /// State-of-the-world: nonce of the last response on this stream.
    pub(super) last_nonce: String,
    /// State-of-the-world: version of exactly what is held; empty when that is no version that the server knows.
    pub(super) version_info: String,
}

#[derive(Debug)]
pub(super) struct Unanswered {
    pub(super) nonce: String,
    pub(super) version_info: String,
    pub(super) upserts: Vec<(Str, Str, Vec<Str>)>,
    pub(super) removals: Vec<Str>,
}

impl TypeState {
    /// The names of a request: none at all is the old way to ask for everything, which all servers understand.
    pub(super) fn wire_names(&self, type_url: TypeUrl) -> Vec<String> {
        if self.subscription.wildcard && self.subscription.names.is_empty() && type_url.empty_means_all() {
            return Vec::new();
        }
        self.subscription.wire_names()
    }

    /// A response was accepted, but for the rejected resources.
    pub(super) fn accept(&mut self, response: &Unanswered, rejected: &[Rejection]) {
        // A part of a response is no version that the server knows.
        self.version_info = if rejected.is_empty() { response.version_info.clone() } else { String::new() };
        for (name, version, aliases) in &response.upserts {
            if rejected.iter().any(|rejection| rejection.name == *name) {
                continue;
            }
            self.held.insert(name.clone(), version.clone());
            for alias in aliases {
                self.aliases.insert(alias.clone(), name.clone());
            }
        }
        for name in &response.removals {
            self.held.remove(name);
            self.aliases.retain(|_, target| target != name);
        }
    }

    /// Removed names as names of resources: a demanded name goes with its resource when no other demand leads there.
    pub(super) fn resolve_removals(&self, removed: Vec<Str>, upserts: &[Received]) -> Vec<Str> {
        let moved =
            upserts.iter().flat_map(|received| received.aliases.iter().map(move |alias| (alias, &received.name)));
        let moved: BTreeMap<_, _> = moved.collect();
        let mut gone = BTreeSet::new();
        let mut orphans = BTreeSet::new();
        let removed: BTreeSet<_> = removed.into_iter().collect();
        for name in &removed {
            match self.aliases.get(name) {
                Some(target) => orphans.insert(target.clone()),
                None => gone.insert(name.clone()),
            };
        }
        for (alias, target) in &self.aliases {
            if moved.get(alias).is_some_and(|now| *now != target) {
                orphans.insert(target.clone());
            }
        }
        let sent: BTreeSet<_> = upserts.iter().map(|received| &received.name).collect();
        orphans.retain(|target| {
            let wanted = self.subscription.covers(target) || sent.contains(target);
            let led_to = |(alias, now): (&Str, &Str)| {
                now == target
                    && self.subscription.names.contains(alias)
                    && !moved.contains_key(alias)
                    && !removed.contains(alias)
            };
            !wanted && !self.aliases.iter().any(led_to)
        });
        gone.extend(orphans);
        gone.into_iter().collect()
    }

    /// A name is no longer wanted.
    pub(super) fn release(&mut self, name: &str) {
        self.demands.remove(name);
        let target = self.aliases.remove(name).unwrap_or_else(|| Str::from(name));
        let led_to = self.aliases.values().any(|other| *other == target);
        if !self.subscription.covers(&target) && !led_to {
            self.version_info.clear();
            self.held.remove(&target);
        }
    }
}
