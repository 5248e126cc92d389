//! A token bucket in one atomic word.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// Lets through `burst` at once and one more every `every`.
///
/// It keeps the virtual time at which the bucket would be full again (GCRA, ITU-T I.371), so there is no refill task and
/// no lock.
#[derive(Debug)]
pub struct TokenBucket {
    base: Instant,
    every_nanos: u64,
    burst_nanos: u64,
    full_at: AtomicU64,
}

impl TokenBucket {
    /// A full bucket; a `burst` of 0 lets nothing through, an `every` of zero everything.
    #[must_use]
    pub fn new(burst: u32, every: Duration, now: Instant) -> Self {
        let every_nanos = nanos(every);
        Self {
            base: now,
            every_nanos,
            burst_nanos: every_nanos.saturating_mul(u64::from(burst)),
            full_at: AtomicU64::new(0),
        }
    }

    /// Takes a token if there is one at `now`.
    pub fn take(&self, now: Instant) -> bool {
        if self.every_nanos == 0 {
            return true;
        }
        let now = nanos(now.saturating_duration_since(self.base));
        let horizon = now.saturating_add(self.burst_nanos);
        self.full_at
            .fetch_update(Relaxed, Relaxed, |full_at| {
                let next = full_at.max(now).saturating_add(self.every_nanos);
                (next <= horizon).then_some(next)
            })
            .is_ok()
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::t0;

    #[test]
    fn a_burst_then_the_steady_rate() {
        let bucket = TokenBucket::new(3, Duration::from_millis(100), t0());
        let granted = |at: u64| bucket.take(t0() + Duration::from_millis(at));
        assert_eq!([0, 0, 0, 0].map(granted), [true, true, true, false]);
        assert_eq!([99, 100, 100, 250, 350].map(granted), [false, true, false, true, true]);
        assert_eq!([10_000, 10_000, 10_000, 10_000].map(granted), [true, true, true, false]);
    }

    #[test]
    fn edges() {
        assert!(!TokenBucket::new(0, Duration::from_secs(1), t0()).take(t0()));
        let open = TokenBucket::new(0, Duration::ZERO, t0());
        assert!((0..100).all(|_| open.take(t0())));
    }
}
