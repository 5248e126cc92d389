//! What the two daemons share at run time: logging, metrics registry, admin server, listening sockets, drain,
//! backoff.
//!
//! `meshd` and `mesh-proxy` call this crate; the pure `-core` crates never do. Nothing here knows the mesh's API,
//! xDS or certificates. A file belongs here only with two users: one-user helpers stay with their user.

pub mod admin;
pub mod backoff;
pub mod build_info;
pub mod drain;
pub mod limits;
pub mod listen;
pub mod metrics;
pub mod panics;
pub mod report;
pub mod runtime;
pub mod signal;
pub mod telemetry;
