//! At random, by weight.

use rand_core::Rng;

use super::pool::Pool;
use crate::endpoint::Endpoint;

pub(crate) fn pick(pool: &Pool, rng: &mut impl Rng, ok: &impl Fn(&Endpoint) -> bool) -> Option<usize> {
    pool.draw_where(rng, ok)
}
