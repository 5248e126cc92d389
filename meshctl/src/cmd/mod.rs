//! One file for each command.

pub mod validate;
pub mod version;
