//! Whether, when and how often a request is sent again.

pub mod budget;
