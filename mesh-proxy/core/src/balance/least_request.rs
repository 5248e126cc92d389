//! The less busy of two random endpoints ("power of two choices", envoyproxy/envoy: `LEAST_REQUEST` with
//! `choice_count: 2`).
//!
//! Both candidates are drawn by weight, and busyness is requests in flight divided by weight; so shares follow weights when
//! nothing is in flight, and a slow endpoint loses its share as its requests pile up. Unlike Envoy, which goes over to a
//! weighted round robin when weights differ, there is one rule for both cases.

use rand_core::Rng;

use super::pool::Pool;
use crate::draw;
use crate::endpoint::Endpoint;

/// Draws for a second candidate that differs from the first.
const SECOND_DRAWS: u32 = 4;

pub(crate) fn pick(pool: &Pool, rng: &mut impl Rng, ok: &impl Fn(&Endpoint) -> bool) -> Option<usize> {
    let first = pool.draw_where(rng, ok)?;
    let Some(second) = second(pool, rng, first, ok) else { return Some(first) };
    let (Some(a), Some(b)) = (pool.get(first), pool.get(second)) else { return Some(first) };
    let busy_a = u64::from(a.active()) * u64::from(b.weight.max(1));
    let busy_b = u64::from(b.active()) * u64::from(a.weight.max(1));
    Some(if busy_b < busy_a { second } else { first })
}

fn second(pool: &Pool, rng: &mut impl Rng, first: usize, ok: &impl Fn(&Endpoint) -> bool) -> Option<usize> {
    if pool.len() < 2 {
        return None;
    }
    for _ in 0..SECOND_DRAWS {
        let index = if pool.weighted() {
            pool.draw(rng)
        } else {
            // One of the others, each with equal chance, in one draw.
            let other = draw::index(rng, pool.len() - 1);
            if other >= first { other + 1 } else { other }
        };
        if index != first && pool.get(index).is_some_and(|host| ok(host)) {
            return Some(index);
        }
    }
    None
}
