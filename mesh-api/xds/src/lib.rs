//! The internal representation of proxy configuration, its Envoy codec and the xDS protocol machines.

pub mod ir;
