//! Translations that several proxies share, made once.
//!
//! A memo is keyed by an *inputs struct*, and the function that fills it receives nothing but that key: a cache keyed on
//! less than its inputs would hand one proxy what was meant for another. Parts of a snapshot enter a key as [`ByPtr`],
//! which compares addresses; a snapshot keeps the same `Arc` for what did not change, and the key keeps it alive, so that an
//! address is never used again while it is in a key.
//!
//! Values are held weakly: what no proxy is served any more goes away with the last set that holds it, and its entry at
//! the next sweep.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

/// A shared value that is compared by address. Equal addresses are equal values; the reverse is not promised.
pub(crate) struct ByPtr<T: ?Sized>(pub(crate) Arc<T>);

impl<T: ?Sized> Clone for ByPtr<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T: ?Sized> PartialEq for ByPtr<T> {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl<T: ?Sized> Eq for ByPtr<T> {}

impl<T: ?Sized> Hash for ByPtr<T> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        Arc::as_ptr(&self.0).cast::<()>().hash(state);
    }
}

impl<T: ?Sized> fmt::Debug for ByPtr<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:p}", Arc::as_ptr(&self.0))
    }
}

impl<T: ?Sized> std::ops::Deref for ByPtr<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

/// One memo.
pub(crate) struct Memo<K, V> {
    inner: Mutex<Inner<K, V>>,
    made: AtomicU64,
}

struct Inner<K, V> {
    entries: HashMap<K, Weak<V>>,
    /// The values made last with the epoch in which they were made, held so that they outlive the moment between two
    /// proxies of one push.
    recent: VecDeque<(u64, Arc<V>)>,
    keep: usize,
    epoch: u64,
    /// Number of entries at which dead ones are swept out.
    sweep_at: usize,
}

/// Below this many entries nothing is swept.
const MIN_SWEEP: usize = 64;

impl<K, V> Memo<K, V> {
    /// A memo that also holds the values it made in this epoch and the one before, at most `keep` of them.
    pub(crate) fn keeping(keep: usize) -> Self {
        let inner = Inner { entries: HashMap::new(), recent: VecDeque::new(), keep, epoch: 0, sweep_at: MIN_SWEEP };
        Self { inner: Mutex::new(inner), made: AtomicU64::new(0) }
    }
}

impl<K: Hash + Eq, V> Memo<K, V> {
    /// The value of a key: the one that is in use, else a new one.
    pub(crate) fn get(&self, key: K, make: impl FnOnce(&K) -> V) -> Arc<V> {
        let made: Result<_, std::convert::Infallible> = self.try_get(key, |key| Ok(make(key)));
        match made {
            Ok(value) => value,
            Err(never) => match never {},
        }
    }

    /// The value of a key, where making it may fail; a failure is not kept. The lock is not held while a value is made, so two
    /// workers may make the same one at once; the first one in wins and is shared.
    pub(crate) fn try_get<E>(&self, key: K, make: impl FnOnce(&K) -> Result<V, E>) -> Result<Arc<V>, E> {
        if let Some(found) = self.lock().entries.get(&key).and_then(Weak::upgrade) {
            return Ok(found);
        }
        self.made.fetch_add(1, Ordering::Relaxed);
        let made = Arc::new(make(&key)?);
        let mut inner = self.lock();
        if let Some(found) = inner.entries.get(&key).and_then(Weak::upgrade) {
            return Ok(found);
        }
        inner.entries.insert(key, Arc::downgrade(&made));
        if inner.keep > 0 {
            if inner.recent.len() == inner.keep {
                inner.recent.pop_front();
            }
            let epoch = inner.epoch;
            inner.recent.push_back((epoch, Arc::clone(&made)));
        }
        if inner.entries.len() >= inner.sweep_at {
            inner.entries.retain(|_, value| value.strong_count() > 0);
            inner.sweep_at = (inner.entries.len() * 2).max(MIN_SWEEP);
        }
        Ok(made)
    }

    /// A new epoch has begun, if `epoch` is one: values of the one before last are held no longer, and what nobody uses goes
    /// at once, so that keys do not keep old snapshots alive.
    pub(crate) fn advance(&self, epoch: u64) {
        let mut inner = self.lock();
        if epoch <= inner.epoch {
            return;
        }
        inner.epoch = epoch;
        inner.recent.retain(|(made, _)| made + 1 >= epoch);
        inner.entries.retain(|_, value| value.strong_count() > 0);
    }

    /// How many values were ever made.
    pub(crate) fn made(&self) -> u64 {
        self.made.load(Ordering::Relaxed)
    }

    /// A panic while a value is made happens outside the lock, so a poisoned lock still guards a sound map.
    fn lock(&self) -> std::sync::MutexGuard<'_, Inner<K, V>> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K, V> Default for Memo<K, V> {
    fn default() -> Self {
        Self::keeping(0)
    }
}

impl<K, V> fmt::Debug for Memo<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Memo({} made)", self.made.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_keys_share_one_value_while_it_is_in_use() {
        let memo: Memo<u32, String> = Memo::default();
        let first = memo.get(1, |n| n.to_string());
        let second = memo.get(1, |n| n.to_string());
        assert!(Arc::ptr_eq(&first, &second));
        assert_eq!(memo.made(), 1);
        drop((first, second));
        let _third = memo.get(1, |n| n.to_string());
        assert_eq!(memo.made(), 2, "a value that nobody holds is made again");
    }

    #[test]
    fn values_are_held_for_two_epochs() {
        let memo: Memo<u32, u32> = Memo::keeping(8);
        memo.advance(5);
        memo.get(1, |n| *n);
        memo.advance(6);
        memo.get(1, |n| *n);
        assert_eq!(memo.made(), 1);
        memo.advance(5);
        assert_eq!(memo.lock().epoch, 6, "epochs do not go back");
        memo.advance(7);
        assert!(memo.lock().entries.is_empty());
        memo.get(1, |n| *n);
        assert_eq!(memo.made(), 2);
    }

    #[test]
    fn dead_entries_are_swept() {
        let memo: Memo<usize, usize> = Memo::default();
        let kept = memo.get(usize::MAX, |n| *n);
        for n in 0..10 * MIN_SWEEP {
            memo.get(n, |n| *n);
        }
        assert!(memo.lock().entries.len() < MIN_SWEEP);
        assert!(Arc::ptr_eq(&kept, &memo.get(usize::MAX, |n| *n)));
    }

    #[test]
    fn a_panic_in_one_translation_spares_the_others() {
        let memo: Memo<u32, u32> = Memo::default();
        let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| memo.get(1, |_| panic!("injected"))));
        assert!(panicked.is_err());
        assert_eq!(*memo.get(1, |n| *n + 1), 2);
    }

    #[test]
    fn keys_by_address_tell_equal_values_apart() {
        let (a, b) = (ByPtr(Arc::new(1)), ByPtr(Arc::new(1)));
        assert_eq!(a, a.clone());
        assert_ne!(a, b);
    }
}
