//! Exponential backoff with jitter.
//!
//! A state machine without a clock: the caller sleeps for what [`Backoff::next_delay`] returns and calls
//! [`Backoff::reset`] after a success. Used by the xDS client, the certificate client and the config sources.

use std::time::Duration;

use rand_core::Rng;

/// Delays that double from `base` to `max`, each drawn from the upper half of its step.
///
/// Half of every delay is fixed and half is random, so that a restarted control plane does not meet all its proxies in
/// the same instant, and yet no caller ever spins.
#[derive(Clone, Debug)]
pub struct Backoff {
    base: Duration,
    max: Duration,
    step: u32,
}

impl Backoff {
    /// A backoff that starts at `base` and never exceeds `max`. A zero `base` counts as one millisecond, so that the
    /// sequence grows; a `max` below `base` counts as `base`.
    #[must_use]
    pub fn new(base: Duration, max: Duration) -> Self {
        let base = base.max(Duration::from_millis(1));
        Self { base, max: max.max(base), step: 0 }
    }

    /// The next delay: between half of the present step and the whole of it.
    pub fn next_delay(&mut self, rng: &mut impl Rng) -> Duration {
        let ceiling = self.base.saturating_mul(1_u32.checked_shl(self.step).unwrap_or(u32::MAX)).min(self.max);
        if ceiling < self.max {
            self.step = self.step.saturating_add(1);
        }
        let half = ceiling / 2;
        // 32 bits of chance are plenty for a delay, and the product stays exact in `Duration`'s nanoseconds.
        let random = (u128::from(rng.next_u32()) * half.as_nanos()) >> 32;
        half + Duration::from_nanos(u64::try_from(random).unwrap_or(u64::MAX))
    }

    /// Back to `base`: call it after a success.
    pub fn reset(&mut self) {
        self.step = 0;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rand::SeedableRng as _;
    use rand::rngs::StdRng;

    use super::*;

    #[test]
    fn doubles_up_to_the_maximum_and_starts_again_after_a_reset() {
        let mut rng = StdRng::seed_from_u64(1);
        let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(10));
        let mut ceiling = Duration::from_millis(50);
        for _ in 0..100 {
            let delay = backoff.next_delay(&mut rng);
            assert!(delay >= ceiling / 2 && delay <= ceiling, "{delay:?} not within the step {ceiling:?}");
            ceiling = (ceiling * 2).min(Duration::from_secs(10));
        }
        backoff.reset();
        assert!(backoff.next_delay(&mut rng) <= Duration::from_millis(50));
    }

    #[test]
    fn delays_of_two_callers_differ() {
        let mut rng = StdRng::seed_from_u64(2);
        let mut one = Backoff::new(Duration::from_secs(1), Duration::from_secs(1));
        let mut two = one.clone();
        assert_ne!(one.next_delay(&mut rng), two.next_delay(&mut rng));
    }

    proptest! {
        #[test]
        fn any_bounds_give_a_delay_that_is_neither_zero_nor_above_the_maximum(
            base in 0_u64..u64::MAX, max in 0_u64..u64::MAX, seed in any::<u64>(), steps in 1_usize..80,
        ) {
            let (base, max) = (Duration::from_millis(base), Duration::from_millis(max));
            let mut rng = StdRng::seed_from_u64(seed);
            let mut backoff = Backoff::new(base, max);
            for _ in 0..steps {
                let delay = backoff.next_delay(&mut rng);
                prop_assert!(delay > Duration::ZERO);
                prop_assert!(delay <= max.max(base).max(Duration::from_millis(1)));
            }
        }
    }
}
