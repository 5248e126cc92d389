//! In turn, by weight, over one shared cursor.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::pool::Pool;
use crate::endpoint::Endpoint;

/// 2^64 divided by the golden ratio: steps of this size spread any number of turns as evenly as can be over a circle
/// (the Kronecker sequence of lowest discrepancy), so weights need no schedule that would have to be stored and rebuilt.
const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;

/// An endpoint that may not be used passes its turn on by a further step of the cursor, not to its neighbour: the neighbour
/// would otherwise get twice its share.
pub(crate) fn pick(pool: &Pool, cursor: &AtomicU64, ok: &impl Fn(&Endpoint) -> bool) -> Option<usize> {
    let tries = pool.len().min(16);
    for _ in 0..tries {
        let index = turn(pool, cursor.fetch_add(1, Relaxed));
        if pool.get(index).is_some_and(|host| ok(host)) {
            return Some(index);
        }
    }
    pool.search(turn(pool, cursor.load(Relaxed)), ok)
}

fn turn(pool: &Pool, turn: u64) -> usize {
    let total = pool.total();
    if total == 0 {
        return 0;
    }
    if pool.weighted() {
        let share = u128::from(turn.wrapping_mul(GOLDEN)) * u128::from(total);
        pool.owner(u64::try_from(share >> 64).unwrap_or_default())
    } else {
        pool.owner(turn % total)
    }
}
