//! From a snapshot to each proxy that it concerns: who is connected, who waits, who translates.

pub(crate) mod queue;
pub(crate) mod registry;
pub(crate) mod slot;
pub(crate) mod translate;
pub(crate) mod worker;
