//! The control plane's decisions: world, snapshot, translation. No I/O, no clock.
//!
//! ```text
//! Change ──► World ──► ChangeSet ──► Debounce ──► Snapshot ──► Impact ──► Translator ──► resources
//!                                                                              ▲             │
//!                                                 ProxyView ──► ProxyScope ────┘             ▼
//!                                                                Rollout ◄── acknowledgements
//! ```
//!
//! 1. [`world::World`] keeps objects as they came and says which of them differ now ([`world::ChangeSet`]).
//! 2. [`debounce::Debounce`] says when a burst of changes becomes a snapshot.
//! 3. [`snapshot::Snapshot`] is the world compiled: names resolved, defaults filled in, what is wrong cut out and named. It is
//!    a function of the world alone, made from the one before only to save work.
//! 4. [`translate::affects::Impact`] says which types of which proxies a step can change; nobody else is translated for.
//! 5. [`translate::Translator`] makes the resources of a proxy ([`proxy::ProxyView`]) from what it may see
//!    ([`scope::ProxyScope`]), and remembers each by its inputs.
//! 6. [`rollout::Rollout`] follows every change to every proxy that confirms it.
//!
//! Held by the tests in `tests/it`: a snapshot made step by step equals one made from nothing; the order in which objects
//! arrive does not matter; a type that is not wanted has not changed; the proxy's own code accepts all that is made.

pub mod allocate;
pub mod analyze;
pub mod convert;
pub mod debounce;
pub mod inject;
pub mod proxy;
pub mod rollout;
pub mod scope;

pub mod snapshot;
pub mod status;
pub mod translate;
pub mod world;
