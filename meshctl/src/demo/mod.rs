//! `meshctl demo`: a whole mesh on this machine, without root and without a cluster.

pub mod check;
pub mod client;
pub mod dirs;
pub mod host;
pub mod mesh;
pub mod metrics;
pub mod place;
pub mod plan;
pub mod probe;
pub mod run;
mod sockets;
pub mod watch;
pub mod yaml;
