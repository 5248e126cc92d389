//! Per-worker read and write buffers.
//!
//! An idle connection owns no buffer: it takes one when its socket has bytes and gives it back once they are consumed.
//! Buffers belong to the worker's thread and never cross it.

use std::cell::RefCell;

/// Size of a buffer in bytes. Measured best for copies on the bench machine (performance notes, point 6).
pub const BUFFER_BYTES: usize = 32 * 1024;

/// Buffers kept by a thread for reuse; further ones are freed. 64 × 32 KiB is 2 MiB a worker at most.
const KEPT: usize = 64;

/// A leftover below this size moves to an allocation of its own, so that a slow sender cannot pin a whole buffer.
const SMALL_BYTES: usize = 4 * 1024;

thread_local! {
    static FREE: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

/// An empty vector with room for `BUFFER_BYTES`.
#[must_use]
pub fn take() -> Vec<u8> {
    FREE.with_borrow_mut(Vec::pop).unwrap_or_else(|| Vec::with_capacity(BUFFER_BYTES))
}

/// Gives a buffer back. Vectors of another capacity are freed.
pub fn give(mut buffer: Vec<u8>) {
    if buffer.capacity() == 0 {
        return;
    }
    buffer.clear();
    if buffer.capacity() == BUFFER_BYTES {
        FREE.with_borrow_mut(|free| {
            if free.len() < KEPT {
                free.push(buffer);
            }
        });
    }
}

/// A byte queue on a pooled buffer: filled at the end, consumed at the front.
#[derive(Debug, Default)]
pub struct ByteQueue {
    bytes: Vec<u8>,
    start: usize,
}

impl ByteQueue {
    /// The bytes not yet consumed.
    #[must_use]
    pub fn as_slice(&self) -> &[u8] {
        self.bytes.get(self.start..).unwrap_or_default()
    }

    /// Number of bytes not yet consumed.
    #[must_use]
    pub fn len(&self) -> usize {
        self.bytes.len() - self.start
    }

    /// Whether nothing is left.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Drops `count` bytes from the front (all of them when there are fewer); gives the buffer back when none is left.
    pub fn consume(&mut self, count: usize) {
        self.start = self.start.saturating_add(count).min(self.bytes.len());
        if self.start == self.bytes.len() {
            self.release();
        }
    }

    /// Appends bytes.
    pub fn extend(&mut self, bytes: &[u8]) {
        self.tail(bytes.len()).extend_from_slice(bytes);
    }

    /// The vector to append to, with room for `want` bytes, after moving what is left to its front.
    pub fn tail(&mut self, want: usize) -> &mut Vec<u8> {
        if self.bytes.capacity() == 0 {
            self.bytes = take();
        }
        if self.bytes.capacity() - self.bytes.len() < want {
            self.compact();
        }
        if self.bytes.capacity() - self.bytes.len() < want {
            if self.bytes.capacity() < BUFFER_BYTES && self.bytes.len() + want <= BUFFER_BYTES {
                let mut larger = take();
                larger.extend_from_slice(&self.bytes);
                self.bytes = larger;
            } else {
                self.bytes.reserve(want);
            }
        }
        &mut self.bytes
    }

    /// Moves what is left to the front, so that a queue which never empties does not grow.
    pub fn compact(&mut self) {
        if self.start > 0 {
            self.bytes.copy_within(self.start.., 0);
            let len = self.len();
            self.bytes.truncate(len);
            self.start = 0;
        }
    }

    /// Called before waiting for more bytes: a small leftover leaves the pooled buffer.
    pub fn park(&mut self) {
        let len = self.len();
        if len == 0 {
            self.release();
        } else if len <= SMALL_BYTES && self.bytes.capacity() >= BUFFER_BYTES {
            let small = self.as_slice().to_vec();
            give(std::mem::replace(&mut self.bytes, small));
            self.start = 0;
        }
    }

    fn release(&mut self) {
        self.start = 0;
        give(std::mem::take(&mut self.bytes));
    }
}

impl Drop for ByteQueue {
    fn drop(&mut self) {
        give(std::mem::take(&mut self.bytes));
    }
}

#[cfg(test)]
mod tests {
    use super::{BUFFER_BYTES, ByteQueue};

    #[test]
    fn queue_keeps_order_over_consume_and_growth() {
        let mut queue = ByteQueue::default();
        let mut expect = Vec::new();
        for round in 0..200_u32 {
            let piece = vec![u8::try_from(round % 251).unwrap_or(0); 700];
            queue.extend(&piece);
            expect.extend_from_slice(&piece);
            if round % 3 == 0 {
                queue.consume(500);
                expect.drain(..500);
            }
            if round % 7 == 0 {
                queue.park();
            }
            assert_eq!(queue.as_slice(), expect);
        }
        queue.consume(usize::MAX / 2);
        assert!(queue.is_empty());
    }

    #[test]
    fn a_small_leftover_does_not_pin_a_buffer() {
        let mut queue = ByteQueue::default();
        queue.extend(b"GET / HT");
        queue.park();
        assert_eq!(queue.as_slice(), b"GET / HT");
        assert!(queue.bytes.capacity() < BUFFER_BYTES);
        queue.extend(b"TP/1.1\r\n");
        assert_eq!(queue.as_slice(), b"GET / HTTP/1.1\r\n");
        queue.consume(16);
        assert_eq!(queue.bytes.capacity(), 0);
    }
}
