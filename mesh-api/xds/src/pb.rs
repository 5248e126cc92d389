//! Envoy's messages: the only file that names the crate which holds them.
//!
//! Nothing outside this crate sees them; see [`crate::ir`] for what stands between both sides.

pub(crate) use envoy_types::pb::envoy::config::core::v3 as core;
pub(crate) use envoy_types::pb::google::protobuf;
