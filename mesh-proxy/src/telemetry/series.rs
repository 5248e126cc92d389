//! Counters with one writer, and the series made of them.
//!
//! A worker owns its series: only its thread writes them, with a relaxed load and a store; the scrape reads them from
//! another thread. A number may be a request old when it is read, never torn.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use mesh_proxy_core::stats::{BUCKETS, FixedLabels, Outcome};

/// A number that only grows, written by one thread.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds. To be called on the owner's thread only: two writers would lose counts.
    pub fn add(&self, amount: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_add(amount), Relaxed);
    }

    /// The value.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// Observations by bucket, written by one thread.
#[derive(Debug, Default)]
pub struct Histogram {
    /// One for each bound of [`BUCKETS`], then those above the last.
    buckets: [AtomicU64; BUCKETS.len() + 1],
    /// Bits of a floating point number.
    sum: AtomicU64,
}

impl Histogram {
    /// Notes one value. On the owner's thread only.
    pub fn observe(&self, value: f64) {
        let place = BUCKETS.partition_point(|bound| *bound < value);
        if let Some(bucket) = self.buckets.get(place) {
            bucket.store(bucket.load(Relaxed).wrapping_add(1), Relaxed);
        }
        let sum = f64::from_bits(self.sum.load(Relaxed)) + value;
        self.sum.store(sum.to_bits(), Relaxed);
    }

    /// Adds what was observed to `totals`.
    pub fn add_to(&self, totals: &mut HistogramTotals) {
        for (total, bucket) in totals.buckets.iter_mut().zip(&self.buckets) {
            *total = total.wrapping_add(bucket.load(Relaxed));
        }
        totals.sum += f64::from_bits(self.sum.load(Relaxed));
    }
}

/// Sum of histograms.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HistogramTotals {
    /// Observations in each bucket, not cumulated.
    pub buckets: [u64; BUCKETS.len() + 1],
    /// Sum of the values.
    pub sum: f64,
}

impl HistogramTotals {
    /// Number of observations.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    /// Upper bounds with the observations in each; the encoder cumulates.
    #[must_use]
    pub fn bounded(&self) -> Vec<(f64, u64)> {
        BUCKETS.iter().copied().chain([f64::INFINITY]).zip(self.buckets).collect()
    }
}

/// What identifies a series: the values of all its labels.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SeriesKey {
    /// Values that stay the same between requests of a route and peer.
    pub labels: FixedLabels,
    /// The rest.
    pub outcome: Outcome,
}

/// All metrics of one label set, of one worker.
#[derive(Debug)]
pub struct Series {
    /// Its labels.
    pub key: SeriesKey,
    /// Its numbers.
    pub numbers: Numbers,
    /// When it was used last, on the table's clock of uses; 0 is never.
    pub(super) used: AtomicU64,
}

/// Numbers of a series.
#[derive(Debug)]
pub enum Numbers {
    /// Of requests.
    Http(Box<HttpNumbers>),
    /// Of connections.
    Tcp(TcpNumbers),
}

/// Istio's metrics of requests.
#[derive(Debug, Default)]
pub struct HttpNumbers {
    /// `istio_requests_total`
    pub requests: Counter,
    /// `istio_request_duration_milliseconds`
    pub duration: Histogram,
    /// `istio_request_bytes`
    pub request_bytes: Histogram,
    /// `istio_response_bytes`
    pub response_bytes: Histogram,
}

/// Istio's metrics of TCP connections.
#[derive(Debug, Default)]
pub struct TcpNumbers {
    /// `istio_tcp_connections_opened_total`
    pub opened: Counter,
    /// `istio_tcp_connections_closed_total`
    pub closed: Counter,
    /// `istio_tcp_sent_bytes_total`
    pub sent: Counter,
    /// `istio_tcp_received_bytes_total`
    pub received: Counter,
}

impl Series {
    /// A series without observations.
    #[must_use]
    pub fn new(key: SeriesKey) -> Self {
        let numbers = match key.outcome {
            Outcome::Http { .. } => Numbers::Http(Box::default()),
            Outcome::Tcp { .. } => Numbers::Tcp(TcpNumbers::default()),
        };
        Self { key, numbers, used: AtomicU64::new(0) }
    }
}

/// A number as metrics have it; exact up to 2^53.
#[must_use]
pub const fn float(number: u64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "metrics are floating point numbers")]
    let number = number as f64;
    number
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_fall_into_the_bucket_whose_bound_they_do_not_exceed() {
        let histogram = Histogram::default();
        for value in [0.0, 0.5, 0.6, 1.0, 3_600_000.0, 3_600_001.0] {
            histogram.observe(value);
        }
        let mut totals = HistogramTotals::default();
        histogram.add_to(&mut totals);
        histogram.add_to(&mut totals);
        assert_eq!((totals.buckets[0], totals.buckets[1], totals.count()), (4, 4, 12));
        assert_eq!(totals.buckets[BUCKETS.len() - 1..], [2, 2]);
        assert_eq!(totals.sum, 2.0 * (2.1 + 7_200_001.0));
        assert_eq!(totals.bounded()[0], (0.5, 4));
        assert_eq!(totals.bounded().len(), BUCKETS.len() + 1);
    }
}
