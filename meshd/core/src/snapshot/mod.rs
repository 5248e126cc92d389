//! The world as translation sees it: immutable, compiled, indexed, shared.

pub mod destination_rules;
pub mod endpoints;
pub mod mesh;
pub mod services;
pub(crate) mod shard;
pub mod virtual_services;
