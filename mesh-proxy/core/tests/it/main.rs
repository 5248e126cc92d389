//! Integration tests of the core crate, one binary for all of them.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod allocations;
mod counting;
mod decisions;
mod hello;
mod pages;
