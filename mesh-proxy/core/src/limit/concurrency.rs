//! A counter of things that go on at once, with a bound that is given at each entry.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

/// How many are inside, and how many were turned away.
///
/// The bound is an argument, because it belongs to the plan while the counter outlives plans.
#[derive(Default)]
pub struct Concurrency {
    inside: AtomicU32,
    refused: AtomicU64,
}

/// One entry; leaves when dropped.
#[must_use = "the entry counts only while this lives"]
pub struct Permit(Arc<Concurrency>);

impl Concurrency {
    /// Enters if fewer than `limit` are inside (`u32::MAX` is no limit); else counts a refusal.
    pub fn enter(self: &Arc<Self>, limit: u32) -> Option<Permit> {
        let entered = self
            .inside
            .fetch_update(Relaxed, Relaxed, |inside| if inside < limit { inside.checked_add(1) } else { None });
        if entered.is_ok() {
            Some(Permit(Arc::clone(self)))
        } else {
            self.refused.fetch_add(1, Relaxed);
            None
        }
    }

    /// Entries that have not left.
    #[must_use]
    pub fn inside(&self) -> u32 {
        self.inside.load(Relaxed)
    }

    /// Entries refused since the start.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.refused.load(Relaxed)
    }
}

impl fmt::Debug for Concurrency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Concurrency({} inside)", self.inside())
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.inside.fetch_sub(1, Relaxed);
    }
}

impl fmt::Debug for Permit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Permit")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_house_refuses_until_someone_leaves() {
        let house = Arc::new(Concurrency::default());
        let first = house.enter(2).unwrap();
        let _second = house.enter(2).unwrap();
        assert!(house.enter(2).is_none());
        assert_eq!((house.inside(), house.refused()), (2, 1));
        drop(first);
        assert!(house.enter(2).is_some());
        assert!(house.enter(0).is_none());
        assert!(house.enter(u32::MAX).is_some());
    }

    #[test]
    fn threads_together_never_exceed_the_bound() {
        let house = Arc::new(Concurrency::default());
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..2_000 {
                        let permit = house.enter(3);
                        assert!(house.inside() <= 3);
                        drop(permit);
                    }
                });
            }
        });
        assert_eq!(house.inside(), 0);
    }
}
