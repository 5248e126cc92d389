//! Where configuration and certificates come from, and the one place where they are published.

pub mod apply;
pub mod channel;
pub mod client;
pub mod dns;
pub mod held;
pub mod identity;
pub mod store;
