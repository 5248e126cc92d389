//! Stable generational slots: how a route refers to a cluster without holding it.
//!
//! A name keeps its slot from plan to plan while anything of that name exists or is referred to. So a cluster or an
//! endpoint set can change without touching the routes that lead to it, a route may come before its cluster, and the
//! request path finds a cluster by two array accesses. The array is cut into chunks that plans share.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use mesh_api::text::Str;

/// Entries of a chunk: what one change copies.
const CHUNK: usize = 64;

/// A place in a table of slots. It never finds another name's value: a slot that is used again has a new generation.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Slot {
    index: u32,
    generation: u32,
}

/// Values by slot and by name. Cloning copies one pointer a chunk.
#[derive(Clone)]
pub(crate) struct Slots<T> {
    chunks: Vec<Arc<Chunk<T>>>,
    names: Arc<BTreeMap<Str, Slot>>,
    /// Slots that no name has.
    free: Vec<u32>,
    /// Slots that have a value.
    filled: usize,
}

#[derive(Clone)]
struct Chunk<T>(Vec<Entry<T>>);

#[derive(Clone)]
struct Entry<T> {
    generation: u32,
    value: Option<T>,
}

impl<T: Clone> Slots<T> {
    pub(crate) fn new() -> Self {
        Self { chunks: Vec::new(), names: Arc::default(), free: Vec::new(), filled: 0 }
    }

    /// The slot of a name; made if there is none.
    pub(crate) fn slot(&mut self, name: &Str) -> Slot {
        if let Some(slot) = self.names.get(name) {
            return *slot;
        }
        let index = self.free.pop().unwrap_or_else(|| self.grow());
        let generation = self.entry(index).map_or(0, |entry| entry.generation);
        let slot = Slot { index, generation };
        Arc::make_mut(&mut self.names).insert(name.clone(), slot);
        slot
    }

    /// The slot of a name, if it has one.
    pub(crate) fn find(&self, name: &str) -> Option<Slot> {
        self.names.get(name).copied()
    }

    pub(crate) fn get(&self, slot: Slot) -> Option<&T> {
        let entry = self.entry(slot.index)?;
        if entry.generation == slot.generation { entry.value.as_ref() } else { None }
    }

    pub(crate) fn by_name(&self, name: &str) -> Option<&T> {
        self.get(self.find(name)?)
    }

    /// Sets or clears the value of a slot.
    pub(crate) fn set(&mut self, slot: Slot, value: Option<T>) {
        let filled = value.is_some();
        if let Some(entry) = self.entry_mut(slot.index)
            && entry.generation == slot.generation
        {
            let before = std::mem::replace(&mut entry.value, value).is_some();
            self.filled = self.filled + usize::from(filled) - usize::from(before);
        }
    }

    /// Names with their values, by name.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&Str, &T)> {
        self.names.iter().filter_map(|(name, slot)| Some((name, self.get(*slot)?)))
    }

    /// Names that have a slot without a value.
    pub(crate) fn vacant(&self) -> usize {
        self.names.len() - self.filled
    }

    /// Names that have a value.
    pub(crate) const fn filled(&self) -> usize {
        self.filled
    }

    /// Gives back the slots that have no value and that `used` does not know.
    pub(crate) fn sweep(&mut self, used: impl Fn(Slot) -> bool) {
        let idle: Vec<_> = self
            .names
            .iter()
            .filter(|(_, slot)| self.get(**slot).is_none() && !used(**slot))
            .map(|(name, slot)| (name.clone(), *slot))
            .collect();
        for (name, slot) in idle {
            Arc::make_mut(&mut self.names).remove(&name);
            if let Some(entry) = self.entry_mut(slot.index) {
                entry.generation = entry.generation.wrapping_add(1);
            }
            self.free.push(slot.index);
        }
    }

    fn entry(&self, index: u32) -> Option<&Entry<T>> {
        let index = index as usize;
        self.chunks.get(index / CHUNK)?.0.get(index % CHUNK)
    }

    fn entry_mut(&mut self, index: u32) -> Option<&mut Entry<T>> {
        let index = index as usize;
        Arc::make_mut(self.chunks.get_mut(index / CHUNK)?).0.get_mut(index % CHUNK)
    }

    /// A fresh entry at the end.
    fn grow(&mut self) -> u32 {
        if self.chunks.last().is_none_or(|chunk| chunk.0.len() == CHUNK) {
            self.chunks.push(Arc::new(Chunk(Vec::with_capacity(CHUNK))));
        }
        let full = (self.chunks.len() - 1) * CHUNK;
        let Some(last) = self.chunks.last_mut().map(Arc::make_mut) else { return u32::MAX };
        last.0.push(Entry { generation: 0, value: None });
        // Four billion names do not fit into memory.
        u32::try_from(full + last.0.len() - 1).unwrap_or(u32::MAX)
    }
}

impl<T: Clone + fmt::Debug> fmt::Debug for Slots<T> {
    /// By name; where things stand is left out.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

impl fmt::Debug for Slot {
    /// Nothing that depends on history: two plans of equal configuration print alike.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Slot")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(n: usize) -> Str {
        Str::from(format!("n{n}"))
    }

    #[test]
    fn one_change_copies_one_chunk() {
        let mut slots = Slots::new();
        for n in 0..200 {
            let slot = slots.slot(&name(n));
            slots.set(slot, Some(n));
        }
        let before = slots.clone();
        let slot = slots.slot(&name(70));
        slots.set(slot, Some(7_000));
        let shared: Vec<_> = before.chunks.iter().zip(&slots.chunks).map(|(a, b)| Arc::ptr_eq(a, b)).collect();
        assert_eq!(shared, [true, false, true, true]);
        assert!(Arc::ptr_eq(&before.names, &slots.names));
        assert_eq!((before.get(slot), slots.get(slot)), (Some(&70), Some(&7_000)));
    }

    #[test]
    fn a_slot_that_is_used_again_does_not_answer_to_its_old_name() {
        let mut slots = Slots::new();
        let old = slots.slot(&name(1));
        slots.set(old, Some(1));
        slots.set(old, None);
        assert_eq!((slots.slot(&name(1)), slots.vacant()), (old, 1));
        slots.sweep(|slot| slot == old);
        assert_eq!(slots.find("n1"), Some(old));
        slots.sweep(|_| false);
        assert_eq!(slots.find("n1"), None);
        let new = slots.slot(&name(2));
        slots.set(new, Some(2));
        assert_eq!(slots.chunks.len(), 1);
        assert_eq!((slots.get(old), slots.get(new)), (None, Some(&2)));
        slots.set(old, Some(9));
        assert_eq!(slots.get(new), Some(&2));
    }
}
