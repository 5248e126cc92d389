//! Connections to upstream endpoints: how they are opened, kept and shared.

pub mod connect;
pub mod h1_pool;
pub mod h2_pool;
pub mod key;
pub mod state;

use mesh_proxy_core::fault::{Fault, FaultKind};

use connect::ConnectError;

/// A failure to connect as a fault of the table.
#[must_use]
pub fn fault_of(error: &ConnectError) -> Fault {
    let kind = match error {
        ConnectError::Connect { .. } => FaultKind::ConnectFailed,
        ConnectError::Timeout { .. } => FaultKind::ConnectTimeout,
        ConnectError::Tls { .. } => FaultKind::UpstreamTlsFailed,
        ConnectError::Peer { .. } => FaultKind::UpstreamIdentity,
    };
    let cause = std::error::Error::source(error);
    Fault::new(kind).with_detail(cause.map_or_else(|| error.to_string(), ToString::to_string))
}
