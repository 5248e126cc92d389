//! Limits on what goes on at once and on how often. Lock-free; what is taken is given back by dropping a guard.

pub mod circuit;
pub mod concurrency;
pub mod token_bucket;
