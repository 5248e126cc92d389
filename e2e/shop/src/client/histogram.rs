//! Latencies in bounded memory: buckets that are at most 1/128 of their value wide.

use std::time::Duration;

const SUB_BITS: u32 = 7;
const SUB: u64 = 1 << SUB_BITS;

/// Counts of durations, microsecond resolution.
#[derive(Clone, Debug, Default)]
pub(crate) struct Histogram {
    counts: Vec<u64>,
    total: u64,
    sum: Duration,
    max: Duration,
}

impl Histogram {
    pub(crate) fn record(&mut self, latency: Duration) {
        let at = bucket(u64::try_from(latency.as_micros()).unwrap_or(u64::MAX));
        if self.counts.len() <= at {
            self.counts.resize(at + 1, 0);
        }
        self.counts[at] += 1;
        self.total += 1;
        self.sum += latency;
        self.max = self.max.max(latency);
    }

    pub(crate) fn max(&self) -> Duration {
        self.max
    }

    /// Zero when nothing was recorded.
    pub(crate) fn mean(&self) -> Duration {
        u32::try_from(self.total).ok().and_then(|total| self.sum.checked_div(total)).unwrap_or_default()
    }

    /// The latency that `per_mille` thousandths of all are not above, rounded up to its bucket's end, never above the
    /// largest recorded.
    pub(crate) fn quantile(&self, per_mille: u64) -> Duration {
        let rank = (self.total * per_mille).div_ceil(1000).max(1);
        let mut seen = 0;
        for (at, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= rank {
                return Duration::from_micros(end(at)).min(self.max);
            }
        }
        Duration::ZERO
    }
}

/// Values below `SUB` have a bucket each; above, each power of two has `SUB` buckets.
fn bucket(micros: u64) -> usize {
    let at = if micros < SUB {
        micros
    } else {
        let shift = micros.ilog2() - SUB_BITS;
        SUB * u64::from(shift + 1) + (micros >> shift) - SUB
    };
    usize::try_from(at).unwrap_or(usize::MAX)
}

/// The largest value in a bucket.
fn end(bucket: usize) -> u64 {
    let bucket = bucket as u64;
    if bucket < SUB {
        return bucket;
    }
    let shift = u32::try_from(bucket / SUB - 1).unwrap_or(u32::MAX);
    let start = (bucket % SUB + SUB).checked_shl(shift).unwrap_or(u64::MAX);
    start + ((1 << shift) - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_lies_in_its_bucket() {
        for micros in (0..100_000).chain([1 << 20, (1 << 40) - 1, 1 << 40, u64::MAX]) {
            let at = bucket(micros);
            assert!(end(at) >= micros, "{micros}");
            assert!(at == 0 || end(at - 1) < micros, "{micros}");
            assert!(end(at) - micros <= micros / 128, "{micros}");
        }
    }

    #[test]
    fn quantiles_of_a_known_set() {
        let mut histogram = Histogram::default();
        assert_eq!(histogram.quantile(500), Duration::ZERO);
        (1..=100).for_each(|n| histogram.record(Duration::from_micros(n)));
        assert_eq!(histogram.quantile(500), Duration::from_micros(50));
        assert_eq!(histogram.quantile(990), Duration::from_micros(99));
        assert_eq!(histogram.quantile(1000), Duration::from_micros(100));
        assert_eq!(histogram.mean(), Duration::from_nanos(50_500));
        assert_eq!(histogram.max(), Duration::from_micros(100));
    }
}
