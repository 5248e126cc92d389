//! Retry budgets: retries in flight as a share of requests in flight, so that retries cannot become a storm.

use mesh_api_xds::ir::cluster::{Limits, RetryBudget};

/// How the number of retries in flight is bounded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RetryAllowance {
    /// At most this many.
    Fixed(u32),
    /// A share of requests.
    Budget(Budget),
}

/// A retry budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget(RetryBudget);

impl RetryAllowance {
    /// The allowance that a cluster's limits ask for.
    ///
    /// Where nothing is configured there still is a budget: Istio's default of no limit lets retries multiply the load on
    /// an upstream that is failing (deviation; an explicit `maxRetries` or `retryBudget` wins).
    #[must_use]
    pub const fn of(limits: &Limits) -> Self {
        match limits.retry_budget {
            Some(budget) => Self::Budget(Budget(budget)),
            None if limits.retries == u32::MAX => Self::Budget(Budget::DEFAULT),
            None => Self::Fixed(limits.retries),
        }
    }
}

impl Budget {
    /// 20 % of requests in flight and never less than 3: Istio's and Envoy's defaults of a budget that is asked for
    /// (envoyproxy/envoy: `CircuitBreakers.Thresholds.RetryBudget`).
    pub const DEFAULT: Self = Self(RetryBudget { percent_hundredths: 2_000, min_concurrency: 3 });

    /// Retries allowed at once while this many requests are in flight and waiting.
    #[must_use]
    pub fn bound(self, requests: u32, pending: u32) -> u32 {
        let load = u64::from(requests) + u64::from(pending);
        let share = load.saturating_mul(u64::from(self.0.percent_hundredths)) / 10_000;
        u32::try_from(share).unwrap_or(u32::MAX).max(self.0.min_concurrency)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bound_is_share_or_floor() {
        let check = |requests, pending, expect| assert_eq!(Budget::DEFAULT.bound(requests, pending), expect);
        check(0, 0, 3);
        check(15, 0, 3);
        check(20, 0, 4);
        check(90, 10, 20);
        check(u32::MAX, u32::MAX, 1_717_986_918);
        let all = Budget(RetryBudget { percent_hundredths: u32::MAX, min_concurrency: 0 });
        assert_eq!(all.bound(u32::MAX, u32::MAX), u32::MAX);
        assert_eq!(all.bound(0, 0), 0);
    }
}
