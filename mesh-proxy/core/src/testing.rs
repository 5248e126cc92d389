//! What tests share.

use std::sync::OnceLock;
use std::time::Instant;

use rand::SeedableRng;
use rand::rngs::StdRng;

/// A fixed instant; tests add durations to it.
#[expect(
    clippy::disallowed_methods,
    reason = "std offers no other way to an Instant; it is read once and never compared with the clock"
)]
pub(crate) fn t0() -> Instant {
    static T0: OnceLock<Instant> = OnceLock::new();
    *T0.get_or_init(Instant::now)
}

/// A seeded generator.
pub(crate) fn rng(seed: u64) -> StdRng {
    StdRng::seed_from_u64(seed)
}
