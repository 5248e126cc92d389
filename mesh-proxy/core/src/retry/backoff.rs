//! Pauses between attempts.

use std::time::Duration;

use rand_core::Rng;

use crate::draw;

/// The longest pause as a multiple of the first (envoyproxy/envoy: `max_interval` defaults to 10 times `base_interval`).
const LONGEST: u32 = 10;

/// The pause before the `nth` retry, the first being 1: drawn below the first pause doubled each time, up to ten times
/// ("full jitter"; envoyproxy/envoy: `JitteredExponentialBackOffStrategy`).
#[must_use]
pub fn pause(first: Duration, nth: u32, rng: &mut impl Rng) -> Duration {
    let doubled = 2_u32.saturating_pow(nth.saturating_sub(1)).min(LONGEST);
    let below = u64::try_from(first.saturating_mul(doubled).as_nanos()).unwrap_or(u64::MAX);
    Duration::from_nanos(draw::below(rng, below))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::rng;

    #[test]
    fn pauses_grow_to_ten_times_the_first() {
        let first = Duration::from_millis(25);
        let mut rng = rng(1);
        for (nth, bound) in [(1, 25), (2, 50), (3, 100), (4, 200), (5, 250), (40, 250)] {
            let pauses: Vec<_> = (0..1_000).map(|_| pause(first, nth, &mut rng)).collect();
            let longest = pauses.iter().max().unwrap();
            let bound = Duration::from_millis(bound);
            assert!(*longest < bound && *longest > bound * 9 / 10, "{nth}: {longest:?}");
        }
        assert_eq!(pause(Duration::ZERO, 3, &mut rng), Duration::ZERO);
    }
}
