//! What a client is subscribed to, for one type.

use std::collections::BTreeSet;

use mesh_api::text::Str;

/// The name that stands for all resources of a type.
pub const WILDCARD: &str = "*";

/// A set of names, or all of them, or both.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Subscription {
    /// All resources of the type.
    pub(super) wildcard: bool,
    /// Names asked for one by one. Kept besides the wildcard, because they outlive it.
    pub(super) names: BTreeSet<Str>,
}

impl Subscription {
    /// Whether a resource of this name is subscribed to.
    pub(super) fn covers(&self, name: &str) -> bool {
        self.wildcard || self.names.contains(name)
    }

    /// Whether nothing is subscribed to.
    pub(super) fn is_empty(&self) -> bool {
        !self.wildcard && self.names.is_empty()
    }

    /// The names as they are written in a request: `*` first.
    pub(super) fn wire_names(&self) -> Vec<String> {
        let star = self.wildcard.then(|| WILDCARD.to_owned());
        star.into_iter().chain(self.names.iter().map(ToString::to_string)).collect()
    }
}
