//! Kubernetes' own kinds, reduced to the fields somebody reads: a mesh holds tens of thousands of them.
//! Unknown fields are skipped in silence here, because most of their fields are none of ours.

pub mod config_map;
pub mod endpoint_slice;
pub mod ingress;
pub mod namespace;
pub mod node;
pub mod pod;
pub mod secret;
pub mod service;
