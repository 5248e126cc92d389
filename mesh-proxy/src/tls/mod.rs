//! TLS: configurations from the plan, sessions over bytes, the authenticated peer.

pub mod peer;
pub mod provider;
pub mod session;
pub mod store;
pub mod verify;
