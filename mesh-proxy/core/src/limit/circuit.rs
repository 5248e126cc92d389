//! Circuit limits of a cluster (`CircuitBreakers`): connections, waiting requests, requests, retries.
//!
//! A refusal here is this proxy's own doing. It is reported as overflow and never reaches outlier detection: no host is at
//! fault (envoyproxy/envoy#25487 is what happens otherwise).

use std::sync::Arc;

use mesh_api_xds::ir::cluster::Limits;

use super::concurrency::{Concurrency, Permit};
use crate::retry::budget::RetryAllowance;

/// Counters of one cluster over all workers and plans.
#[derive(Debug, Default)]
pub struct Circuit {
    connections: Arc<Concurrency>,
    pending: Arc<Concurrency>,
    requests: Arc<Concurrency>,
    retries: Arc<Concurrency>,
}

/// What a circuit counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counted {
    /// Connections that exist or are being made.
    Connections,
    /// Requests waiting for a connection.
    Pending,
    /// Requests in flight.
    Requests,
    /// Retries in flight.
    Retries,
}

impl Circuit {
    /// Room for one more connection, as long as the permit lives.
    pub fn connection(&self, limits: &Limits) -> Option<Permit> {
        self.connections.enter(limits.connections)
    }

    /// Room for one more request that waits for a connection.
    pub fn pending(&self, limits: &Limits) -> Option<Permit> {
        self.pending.enter(limits.pending)
    }

    /// Room for one more request in flight.
    pub fn request(&self, limits: &Limits) -> Option<Permit> {
        self.requests.enter(limits.requests)
    }

    /// Room for one more retry in flight: within the budget, else within the configured number.
    pub fn retry(&self, limits: &Limits) -> Option<Permit> {
        let bound = match RetryAllowance::of(limits) {
            RetryAllowance::Fixed(retries) => retries,
            RetryAllowance::Budget(budget) => {
                budget.bound(self.inside(Counted::Requests), self.inside(Counted::Pending))
            }
        };
        self.retries.enter(bound)
    }

    /// How many of a kind there are now.
    #[must_use]
    pub fn inside(&self, counted: Counted) -> u32 {
        self.of(counted).inside()
    }

    /// How many of a kind were refused since the start.
    #[must_use]
    pub fn refused(&self, counted: Counted) -> u64 {
        self.of(counted).refused()
    }

    const fn of(&self, counted: Counted) -> &Arc<Concurrency> {
        match counted {
            Counted::Connections => &self.connections,
            Counted::Pending => &self.pending,
            Counted::Requests => &self.requests,
            Counted::Retries => &self.retries,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mesh_api_xds::ir::cluster::RetryBudget;

    #[test]
    fn each_kind_has_its_own_bound() {
        let circuit = Circuit::default();
        let limits = Limits { connections: 1, pending: 0, requests: 2, ..Limits::UNLIMITED };
        let connection = circuit.connection(&limits);
        assert!(connection.is_some() && circuit.connection(&limits).is_none());
        assert!(circuit.pending(&limits).is_none());
        let requests = [circuit.request(&limits), circuit.request(&limits), circuit.request(&limits)];
        assert_eq!(requests.iter().flatten().count(), 2);
        assert_eq!((circuit.inside(Counted::Requests), circuit.refused(Counted::Requests)), (2, 1));
        assert_eq!(circuit.refused(Counted::Pending), 1);
    }

    #[track_caller]
    fn retries_allowed(limits: Limits, requests: usize, expect: usize) {
        let circuit = Circuit::default();
        let held: Vec<_> = (0..requests).map(|_| circuit.request(&limits)).collect();
        let granted: Vec<_> = std::iter::from_fn(|| circuit.retry(&limits)).take(1_000).collect();
        assert_eq!(granted.len(), expect);
        drop(held);
    }

    #[test]
    fn retries_are_a_share_of_requests_with_a_floor() {
        retries_allowed(Limits::UNLIMITED, 0, 3);
        retries_allowed(Limits::UNLIMITED, 100, 20);
        retries_allowed(Limits { retries: 7, ..Limits::UNLIMITED }, 100, 7);
        let budget = Some(RetryBudget { percent_hundredths: 5_000, min_concurrency: 1 });
        retries_allowed(Limits { retries: 7, retry_budget: budget, ..Limits::UNLIMITED }, 100, 50);
        retries_allowed(Limits { retry_budget: budget, ..Limits::UNLIMITED }, 0, 1);
    }
}
