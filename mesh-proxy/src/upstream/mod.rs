//! Connections to upstream endpoints: how they are opened, kept and shared.

pub mod connect;
pub mod h1_pool;
pub mod h2_pool;
pub mod key;
