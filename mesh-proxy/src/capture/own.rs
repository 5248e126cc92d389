//! Whether the proxy's own workload is captured: asked once at the start, before the proxy listens.
//!
//! A pod can come up without rules, as when a node's CNI plugin was not ready: then its traffic passes the mesh by, without
//! encryption and policy, and nothing fails. So the proxy looks for itself and says what it found: in its log, in a metric, on
//! the readiness page and in the metadata by which the control plane knows it.

use mesh_api::names::CAPTURED_METADATA;
use mesh_api_rt::metrics::{Declaration, DuplicateMetric, Metrics};
use mesh_api_rt::report::Report;
use mesh_api_xds::node::InterceptionMode;
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::gauge::Gauge;
use serde_json::Value;

use super::config::{CaptureConfig, Guard};
use super::probe::{Caller, Probe, ProbeError};
use crate::bootstrap::Bootstrap;

/// Port that the check connects to, as Istio's validation does.
const PROBE_PORT: u16 = 15002;

const CAPTURED: Declaration = Declaration::new(
    "mesh_proxy_traffic_captured",
    MetricType::Gauge,
    "1 when a connection of the proxy's own was led through the mesh at the start, 0 when traffic of this workload passes it by.",
);

/// Finds out whether traffic is captured and tells the log. `None`: nothing is to be captured here, or it cannot be found out
/// because the port is taken already.
pub async fn check(bootstrap: &Bootstrap) -> Option<bool> {
    if bootstrap.is_gateway() || bootstrap.node.metadata.interception_mode == InterceptionMode::None {
        return None;
    }
    let caller = Caller::this();
    // Whoever runs the proxy is who the rules take for it. Of IPv4 every namespace has loopback addresses.
    let guard = Guard { uids: vec![caller.uid], gids: vec![caller.gid], mark: bootstrap.socket_mark };
    let config = CaptureConfig { guard, ipv6: false, ..CaptureConfig::default() };
    let found = match Probe::of(&config, caller, PROBE_PORT) {
        Ok(probe) => probe.once().await,
        Err(error) => Err(error),
    };
    match found {
        Ok(()) => Some(true),
        Err(error @ ProbeError::NotCaptured { .. }) => {
            tracing::error!(error = %Report::new(&error), "Traffic of this workload passes the mesh by");
            Some(false)
        }
        Err(error) => {
            tracing::debug!(error = %Report::new(&error), "Not known whether traffic is captured");
            None
        }
    }
}

/// Tells the control plane.
pub fn announce(bootstrap: &mut Bootstrap, captured: Option<bool>) {
    if let Some(captured) = captured {
        bootstrap.node.metadata.other.insert(CAPTURED_METADATA.to_owned(), Value::from(captured.to_string()));
    }
}

/// Makes what was found part of a scrape.
///
/// # Errors
/// When the name is taken.
pub fn register(metrics: &mut Metrics, captured: Option<bool>) -> Result<(), DuplicateMetric> {
    let Some(captured) = captured else { return Ok(()) };
    let gauge = Gauge::<i64>::default();
    gauge.set(i64::from(captured));
    metrics.register_one(&CAPTURED, gauge)
}
