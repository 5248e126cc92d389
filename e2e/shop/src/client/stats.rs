//! What came of the load.

use serde::Serialize;
use std::collections::BTreeMap;
use std::time::Duration;

use crate::call::Failure;
use crate::client::histogram::Histogram;

/// Names that one figure is split by; more are counted as `other`.
const NAMES: usize = 256;

/// One answer.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// `200`, `OK`.
    pub(crate) status: String,
    /// Whether the answer is what a client wants.
    pub(crate) fine: bool,
    /// The version, or what else answers are grouped by.
    pub(crate) group: Option<String>,
    pub(crate) instance: Option<String>,
}

/// Figures so far.
#[derive(Debug, Default)]
pub(crate) struct Stats {
    requests: u64,
    failed: u64,
    by_status: BTreeMap<String, u64>,
    by_group: BTreeMap<String, u64>,
    by_instance: BTreeMap<String, u64>,
    errors: BTreeMap<&'static str, u64>,
    error_example: Option<String>,
    latency: Histogram,
}

/// Figures as they are printed; the field names are what scripts read.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    /// Requests that ended, well or not.
    pub(crate) requests: u64,
    /// Those without an answer, or with one that no client wants.
    pub(crate) failed: u64,
    pub(crate) by_status: BTreeMap<String, u64>,
    pub(crate) by_group: BTreeMap<String, u64>,
    pub(crate) by_instance: BTreeMap<String, u64>,
    /// Requests without an answer, by kind: refused, connect, timeout, closed, protocol.
    pub(crate) errors: BTreeMap<&'static str, u64>,
    pub(crate) error_example: Option<String>,
    /// Of answers, from the moment the request was due.
    pub(crate) latency_ms: Latency,
    pub(crate) seconds: f64,
    pub(crate) per_second: f64,
    /// The last answer, when asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) last: Option<serde_json::Value>,
}

#[derive(Debug, Serialize)]
pub(crate) struct Latency {
    pub(crate) mean: f64,
    pub(crate) p50: f64,
    pub(crate) p90: f64,
    pub(crate) p99: f64,
    pub(crate) max: f64,
}

impl Stats {
    pub(crate) fn record(&mut self, result: Result<Outcome, Failure>, latency: Duration) {
        self.requests += 1;
        match result {
            Ok(Outcome { status, fine, group, instance }) => {
                self.latency.record(latency);
                self.failed += u64::from(!fine);
                count(&mut self.by_status, status);
                count(&mut self.by_group, group.unwrap_or_else(|| "none".to_owned()));
                count(&mut self.by_instance, instance.unwrap_or_else(|| "none".to_owned()));
            }
            Err(Failure { kind, text }) => {
                self.failed += 1;
                *self.errors.entry(kind.name()).or_default() += 1;
                self.error_example.get_or_insert(text);
            }
        }
    }

    pub(crate) fn report(&self, elapsed: Duration) -> Report {
        let millis = |latency: Duration| latency.as_secs_f64() * 1000.0;
        let seconds = elapsed.as_secs_f64();
        // Exact up to 2^53 requests.
        #[expect(clippy::cast_precision_loss, reason = "a rate for people")]
        let per_second = if seconds > 0.0 { self.requests as f64 / seconds } else { 0.0 };
        Report {
            requests: self.requests,
            failed: self.failed,
            by_status: self.by_status.clone(),
            by_group: self.by_group.clone(),
            by_instance: self.by_instance.clone(),
            errors: self.errors.clone(),
            error_example: self.error_example.clone(),
            latency_ms: Latency {
                mean: millis(self.latency.mean()),
                p50: millis(self.latency.quantile(500)),
                p90: millis(self.latency.quantile(900)),
                p99: millis(self.latency.quantile(990)),
                max: millis(self.latency.max()),
            },
            seconds,
            per_second,
            last: None,
        }
    }
}

fn count(counts: &mut BTreeMap<String, u64>, name: String) {
    let full = counts.len() >= NAMES && !counts.contains_key(&name);
    *counts.entry(if full { "other".to_owned() } else { name }).or_default() += 1;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::call::FailureKind;

    #[test]
    fn answers_and_failures_are_told_apart() {
        let mut stats = Stats::default();
        let answer = |status: &str, fine| {
            Ok(Outcome { status: status.to_owned(), fine, group: Some("v1".to_owned()), instance: None })
        };
        stats.record(answer("200", true), Duration::from_millis(2));
        stats.record(answer("503", false), Duration::from_millis(4));
        stats.record(Err(Failure::new(FailureKind::Refused, "nobody there")), Duration::from_secs(9));
        let report = stats.report(Duration::from_secs(2));
        assert_eq!((report.requests, report.failed), (3, 2));
        assert_eq!(report.by_group, BTreeMap::from([("v1".to_owned(), 2)]));
        assert_eq!(report.errors, BTreeMap::from([("refused", 1)]));
        assert_eq!((report.latency_ms.max, report.per_second), (4.0, 1.5));
    }

    #[test]
    fn names_are_bounded() {
        let mut stats = Stats::default();
        for n in 0..NAMES + 10 {
            let outcome = Outcome { status: n.to_string(), fine: true, group: None, instance: None };
            stats.record(Ok(outcome), Duration::ZERO);
        }
        let by_status = stats.report(Duration::ZERO).by_status;
        assert_eq!((by_status.len(), by_status["other"]), (NAMES + 1, 10));
    }
}
