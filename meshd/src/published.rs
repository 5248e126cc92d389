//! What the hub hands to everybody.

use std::sync::Arc;

use meshd_core::rollout::ChangeId;
use meshd_core::snapshot::Snapshot;

/// A snapshot that everybody may use.
#[derive(Clone, Debug)]
pub(crate) struct Published {
    /// The snapshot.
    pub(crate) snapshot: Arc<Snapshot>,
    /// The newest change that is in it.
    pub(crate) through: ChangeId,
}
