//! A list of endpoints that can be drawn from by weight.

use std::sync::Arc;

use rand_core::Rng;

use crate::draw;
use crate::endpoint::Endpoint;

/// Endpoints among which one policy chooses.
#[derive(Debug)]
pub(crate) struct Pool {
    hosts: Box<[Arc<Endpoint>]>,
    /// Running sums of weights; empty when all weights are equal.
    sums: Box<[u64]>,
}

/// Draws that are tried before the list is searched. With a tenth of all endpoints ejected (Istio's bound) 8 draws fail
/// once in 10^8.
const DRAWS: u32 = 8;

impl Pool {
    pub(crate) fn new(hosts: Box<[Arc<Endpoint>]>) -> Self {
        let equal = hosts.windows(2).all(|pair| matches!(pair, [a, b] if a.weight == b.weight));
        let mut sum = 0_u64;
        let sums = if equal {
            Box::default()
        } else {
            hosts
                .iter()
                .map(|host| {
                    sum = sum.saturating_add(u64::from(host.weight.max(1)));
                    sum
                })
                .collect()
        };
        Self { hosts, sums }
    }

    pub(crate) fn len(&self) -> usize {
        self.hosts.len()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Arc<Endpoint>> {
        self.hosts.iter()
    }

    pub(crate) fn get(&self, index: usize) -> Option<&Arc<Endpoint>> {
        self.hosts.get(index)
    }

    pub(crate) fn weighted(&self) -> bool {
        !self.sums.is_empty()
    }

    /// Sum of weights.
    pub(crate) fn total(&self) -> u64 {
        self.sums.last().copied().unwrap_or_else(|| u64::try_from(self.hosts.len()).unwrap_or(u64::MAX))
    }

    /// The index of the endpoint that owns the `at`-th unit of weight, `at < total()`.
    pub(crate) fn owner(&self, at: u64) -> usize {
        if self.weighted() {
            self.sums.partition_point(|&sum| sum <= at)
        } else {
            usize::try_from(at).unwrap_or_default()
        }
    }

    /// An index by weight.
    pub(crate) fn draw(&self, rng: &mut impl Rng) -> usize {
        self.owner(draw::below(rng, self.total()))
    }

    /// An endpoint by weight among those that pass `ok`; `None` only when none passes.
    pub(crate) fn draw_where(&self, rng: &mut impl Rng, ok: &impl Fn(&Endpoint) -> bool) -> Option<usize> {
        for _ in 0..DRAWS {
            let index = self.draw(rng);
            if self.get(index).is_some_and(|host| ok(host)) {
                return Some(index);
            }
        }
        self.search(draw::index(rng, self.len()), ok)
    }

    /// The first endpoint at or after `start`, wrapping round, that passes `ok`.
    pub(crate) fn search(&self, start: usize, ok: &impl Fn(&Endpoint) -> bool) -> Option<usize> {
        (start..self.len()).chain(0..start.min(self.len())).find(|&index| self.get(index).is_some_and(|host| ok(host)))
    }
}
