//! Random choices over a caller's generator.

use mesh_api_xds::ir::PerMillion;
use rand_core::Rng;

/// A number in `0..bound`; 0 when `bound` is 0.
///
/// Multiply-shift without rejection (Lemire): the bias is below `bound / 2^64`.
#[must_use]
pub fn below(rng: &mut impl Rng, bound: u64) -> u64 {
    let product = u128::from(rng.next_u64()) * u128::from(bound);
    u64::try_from(product >> 64).unwrap_or_default()
}

/// An index into `0..len`; 0 when `len` is 0.
#[must_use]
pub fn index(rng: &mut impl Rng, len: usize) -> usize {
    let bound = u64::try_from(len).unwrap_or(u64::MAX);
    usize::try_from(below(rng, bound)).unwrap_or_default()
}

/// True for the given share of draws. Nothing is drawn for none and for all.
#[must_use]
pub fn chance(rng: &mut impl Rng, share: PerMillion) -> bool {
    match share.0 {
        0 => false,
        all if all >= PerMillion::ALL.0 => true,
        some => below(rng, u64::from(PerMillion::ALL.0)) < u64::from(some),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::rng;

    #[test]
    fn draws_stay_below_their_bound_and_reach_all_values() {
        let mut rng = rng(1);
        let mut seen = [0_u32; 7];
        for _ in 0..7_000 {
            seen[index(&mut rng, 7)] += 1;
        }
        assert!(seen.iter().all(|&n| (850..1_150).contains(&n)), "{seen:?}");
        assert_eq!((index(&mut rng, 0), below(&mut rng, 1)), (0, 0));
    }

    #[test]
    fn chances_are_shares() {
        let mut rng = rng(2);
        let mut hits = |share| (0..100_000).filter(|_| chance(&mut rng, PerMillion(share))).count();
        assert_eq!((hits(0), hits(1_000_000), hits(2_000_000)), (0, 100_000, 100_000));
        let tenth = hits(100_000);
        assert!((9_500..10_500).contains(&tenth), "{tenth}");
    }
}
