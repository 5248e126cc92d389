//! The internal representation of proxy configuration, its Envoy codec and the xDS protocol machines.
//!
//! - [`ir`]: plain data between the control plane and the proxy.
//! - [`encoded`]: resources as they are served, with stable versions.
//! - [`ads`]: the discovery protocol of both sides as state machines without I/O.
//! - [`discovery`], [`node`], [`type_url`]: the protocol's words.
//!
//! Not here: sockets, tasks, clocks. Envoy's messages are an implementation detail of this crate.

pub mod ads;
#[cfg(feature = "grpc")]
pub mod ca_proto;
pub mod codec;
pub mod discovery;
pub mod encoded;
#[cfg(feature = "grpc")]
pub mod grpc;
pub mod ir;
pub mod node;
mod pb;
#[cfg(feature = "testing")]
pub mod testing;
pub mod type_url;
