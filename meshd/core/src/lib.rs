//! The control plane's decisions: world, snapshot, translation. No I/O, no clock.
//!
//! ```text
//! Change ──► world::World ──► world::ChangeSet ──► debounce::Debounce ──► snapshot::Snapshot
//!                                                                              │
//!        proxy::ProxyView ──► scope::ProxyScope ──► translate::affects ──► translate ──► resources
//!                                                                              │
//!                                                    acknowledgements ──► rollout::Rollout
//! ```

pub mod debounce;
pub mod proxy;
pub mod rollout;
pub mod scope;

pub mod snapshot;
pub mod translate;
pub mod world;
