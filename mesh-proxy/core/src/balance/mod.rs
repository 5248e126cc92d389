//! Choice of an endpoint: priority, locality, then the cluster's policy.

pub(crate) mod least_request;
pub(crate) mod pool;
pub(crate) mod priority;
pub(crate) mod random;
pub(crate) mod round_robin;
pub mod set;

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use mesh_api_xds::ir::cluster::Balance;
use rand_core::Rng;

use crate::draw;
use crate::endpoint::{Endpoint, EndpointId};
use pool::Pool;
use set::{EndpointSet, Level};

/// Why there is no endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoEndpoint {
    /// The endpoint set has not arrived, or its names have not been resolved; it may soon.
    #[error("endpoints have not been received")]
    NotReceived,
    /// The set has no endpoint that takes new requests.
    #[error("the cluster has no endpoints")]
    Empty,
    /// There are endpoints, but all are unhealthy or ejected.
    #[error("no endpoint is healthy")]
    Unhealthy,
    /// The cluster sends to each connection's original destination: use `ClusterPlan::original`.
    #[error("the cluster has no endpoints of its own")]
    OriginalDst,
}

/// What a choice depends on besides the set and chance.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Criteria<'a> {
    pub(crate) balance: Balance,
    pub(crate) panic_percent: u32,
    /// Turn counter of the cluster.
    pub(crate) cursor: &'a AtomicU64,
    /// Some endpoint may be ejected; false skips looking.
    pub(crate) some_ejected: bool,
    /// Endpoints tried before. They are used again only when there is no other (`retry_host_predicate: previous_hosts`).
    pub(crate) avoid: &'a [EndpointId],
    /// Nanoseconds after the cluster's base instant.
    pub(crate) now_nanos: u64,
}

/// Chooses an endpoint of `set`.
pub(crate) fn pick(
    set: &EndpointSet,
    criteria: &Criteria<'_>,
    rng: &mut impl Rng,
) -> Result<Arc<Endpoint>, NoEndpoint> {
    if set.is_empty() {
        return Err(NoEndpoint::Empty);
    }
    let usable = |host: &Endpoint| !criteria.some_ejected || !host.is_ejected(criteria.now_nanos);
    let counts = set.levels().iter().map(|level| level.count(criteria.some_ejected, &usable));
    // One level is the rule: then there is nothing to draw for.
    let draw = if set.levels().len() > 1 { draw::below(rng, 100) } else { 0 };
    let choice = priority::choose(&counts, criteria.panic_percent, draw).ok_or(NoEndpoint::Unhealthy)?;
    let level = set.levels().get(choice.level).ok_or(NoEndpoint::Empty)?;
    let found = if choice.panic {
        pick_in(level.every(), criteria, rng, &|_| true)
    } else {
        pick_in(locality(level, criteria.some_ejected, rng, &usable), criteria, rng, &usable)
    };
    found.ok_or(NoEndpoint::Unhealthy)
}

/// The endpoints of one locality, by effective weight; all healthy ones where localities have no weights.
fn locality<'a>(
    level: &'a Level,
    some_ejected: bool,
    rng: &mut impl Rng,
    usable: &impl Fn(&Endpoint) -> bool,
) -> &'a Pool {
    let weights = level.localities().iter().map(|locality| locality.effective_weight(some_ejected, usable));
    let total: u64 = weights.clone().sum();
    if total == 0 {
        return level.healthy();
    }
    let mut at = draw::below(rng, total);
    for (locality, weight) in level.localities().iter().zip(weights) {
        if at < weight {
            return locality.healthy();
        }
        at -= weight;
    }
    level.healthy()
}

fn pick_in(
    pool: &Pool,
    criteria: &Criteria<'_>,
    rng: &mut impl Rng,
    usable: &impl Fn(&Endpoint) -> bool,
) -> Option<Arc<Endpoint>> {
    let fresh = |host: &Endpoint| usable(host) && !criteria.avoid.contains(&host.id());
    let found = if criteria.avoid.is_empty() {
        by_policy(pool, criteria, rng, usable)
    } else {
        by_policy(pool, criteria, rng, &fresh).or_else(|| by_policy(pool, criteria, rng, usable))
    };
    pool.get(found?).cloned()
}

fn by_policy(
    pool: &Pool,
    criteria: &Criteria<'_>,
    rng: &mut impl Rng,
    ok: &impl Fn(&Endpoint) -> bool,
) -> Option<usize> {
    match criteria.balance {
        Balance::LeastRequest => least_request::pick(pool, rng, ok),
        Balance::RoundRobin => round_robin::pick(pool, criteria.cursor, ok),
        Balance::Random => random::pick(pool, rng, ok),
    }
}
