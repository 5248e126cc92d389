//! Names, API objects, mesh configuration and validation shared by every part of the mesh.
//!
//! What lives here: the words (names, hosts, labels, durations, identities), the objects users write and the rules they
//! must follow. What never will: sockets, clocks, Kubernetes clients, Envoy's messages, and decisions about traffic.

pub mod access;
pub mod codes;
pub mod crd;
#[cfg(test)]
mod crd_manifests;
pub mod duration;
pub mod finding;
pub mod host;
pub mod identity;
pub mod ids;
pub mod inject;
pub mod kinds;
pub mod labels;
pub mod mesh_config;
pub mod meta;
pub mod names;
pub mod near;
pub mod not_acting;
pub mod object;
pub mod parse;
pub mod received;
#[cfg(test)]
mod reference;
pub mod text;
pub mod typed;
pub mod validate;
