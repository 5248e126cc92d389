//! The operator's tool as a library, so that the end-to-end tests can use parts of it.

pub mod netns;
