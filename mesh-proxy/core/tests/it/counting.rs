//! A global allocator that counts the allocations of each thread.
//!
//! JUSTIFICATION: `GlobalAlloc` is an unsafe trait, and counting is the only way to hold "no allocation per request" to an
//! exact number. Used by tests only; every call goes unchanged to the system allocator.
#![expect(unsafe_code, reason = "GlobalAlloc is an unsafe trait; see the module's justification")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

thread_local! {
    // Const and without a destructor, so that the allocator may touch it at any time in a thread's life.
    static COUNT: Cell<usize> = const { Cell::new(0) };
}

/// Allocations and reallocations made by `work` on this thread.
pub(crate) fn allocations(work: impl FnOnce()) -> usize {
    let before = COUNT.get();
    work();
    COUNT.get() - before
}

// SAFETY: every method passes its arguments to `System` as they came and returns its answer, so `System`'s guarantees hold.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        COUNT.set(COUNT.get() + 1);
        // SAFETY: the caller's promises about `layout` are the ones `System` asks for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: `pointer` came from `System` with this `layout`, because `alloc` and `realloc` only pass through.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        COUNT.set(COUNT.get() + 1);
        // SAFETY: as for `dealloc`; `new_size` is the caller's promise.
        unsafe { System.realloc(pointer, layout, new_size) }
    }
}

#[test]
fn the_counter_counts() {
    assert_eq!(allocations(|| drop(std::hint::black_box(vec![1u8; 100]))), 1);
    assert_eq!(allocations(|| {}), 0);
}
