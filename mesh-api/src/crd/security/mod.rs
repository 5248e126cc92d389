//! security.istio.io

pub mod authorization_policy;
pub mod peer_authentication;
