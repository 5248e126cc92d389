//! A proxy's place in the queue.

use std::time::Instant;

use meshd_core::rollout::ChangeId;
use meshd_core::translate::Wanted;

/// A proxy's place.
#[derive(Debug, Default)]
pub(super) struct Slot {
    pub(super) pending: Option<Pending>,
    pub(super) running: bool,
}

/// What a proxy waits for.
#[derive(Clone, Debug)]
pub(crate) struct Pending {
    /// Types to be translated.
    pub(crate) wanted: Wanted,
    /// Ids of the changes that concern it, ascending.
    pub(crate) changes: Vec<ChangeId>,
    /// When it began to wait.
    pub(crate) since: Instant,
}

impl Slot {
    /// Whether the proxy waits, or is being translated for.
    pub(super) fn is_busy(&self) -> bool {
        self.running || self.pending.is_some()
    }
}
