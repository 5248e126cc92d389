//! What makes resources of a snapshot for one proxy.

use mesh_api_xds::encoded::Encoded;
use meshd_core::proxy::ProxyView;
use meshd_core::snapshot::Snapshot;
use meshd_core::translate::affects::Impact;
use meshd_core::translate::{Translation, Translator, Wanted};
use meshd_core::world::ChangeSet;

/// The seam between pushing and deciding what to push. The product has one implementation, below; tests have another, to
/// let a translation fail.
pub(crate) trait Translate: Send + Sync + 'static {
    /// The wanted types for a proxy.
    fn translate(&self, snapshot: &Snapshot, proxy: &ProxyView, wanted: Wanted) -> Translation<Encoded>;

    /// In which types a step to the next snapshot can make a difference, for each of these proxies.
    fn affected(&self, step: &Step<'_>, proxies: &[&ProxyView]) -> Vec<Wanted>;
}

/// A step from one snapshot to the next.
#[derive(Debug)]
pub(crate) struct Step<'a> {
    /// The objects that differ.
    pub(crate) changes: &'a ChangeSet,
    /// The snapshot before.
    pub(crate) before: &'a Snapshot,
    /// The snapshot after.
    pub(crate) after: &'a Snapshot,
}

impl Translate for Translator<Encoded> {
    fn translate(&self, snapshot: &Snapshot, proxy: &ProxyView, wanted: Wanted) -> Translation<Encoded> {
        Self::translate(self, snapshot, proxy, wanted)
    }

    fn affected(&self, step: &Step<'_>, proxies: &[&ProxyView]) -> Vec<Wanted> {
        let impact = Impact::between(step.before, step.after, step.changes);
        proxies.iter().map(|proxy| impact.wanted(proxy, self)).collect()
    }
}
