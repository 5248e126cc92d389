//! Envoy's own series that common dashboards read, under Envoy's names and Istio's labels: of the server, of the managers, of
//! listeners, and of the connection to the control plane, which Istio's agent gives Envoy as the cluster `xds-grpc`.

use std::fmt;
use std::sync::atomic::Ordering::Relaxed;
use std::time::SystemTime;

use mesh_api::text::Str;
use mesh_api_rt::metrics::Declaration;
use mesh_proxy_core::plan::Plan;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet};

use super::server_info::Memory;
use super::state::{counter, first_expiry, gauge, put};
use crate::config::store::{Live, Store};
use crate::telemetry::{ClusterTotals, Hub, ListenerTotals};

/// Name of the cluster that stands for the control plane.
pub(super) const CONTROL_PLANE: &str = "xds-grpc";
/// Seconds of a day.
const DAY: u64 = 86_400;

const ALLOCATED: Declaration =
    gauge("envoy_server_memory_allocated", "Resident bytes that belong to no file, under Envoy's name.");
const HEAP: Declaration = gauge("envoy_server_memory_heap_size", "Bytes of data pages, under Envoy's name.");
const PHYSICAL: Declaration =
    gauge("envoy_server_memory_physical_size", "Resident bytes of the process, under Envoy's name.");
const SERVER_CONNECTIONS: Declaration =
    gauge("envoy_server_total_connections", "Connections from clients that are open, under Envoy's name.");
const FIRST_EXPIRY: Declaration = gauge(
    "envoy_server_days_until_first_cert_expiring",
    "Whole days until the first certificate in use ends, under Envoy's name.",
);
const CLUSTERS: Declaration =
    gauge("envoy_cluster_manager_active_clusters", "Clusters of the configuration in use, under Envoy's name.");
const CLUSTER_UPDATES: Declaration =
    counter("envoy_cluster_manager_cds_update_success", "Configurations put to use, under Envoy's name.");
const LISTENERS: Declaration =
    gauge("envoy_listener_manager_total_listeners_active", "Listeners in use, under Envoy's name.");
const LISTENER_UPDATES: Declaration =
    counter("envoy_listener_manager_lds_update_success", "Configurations put to use, under Envoy's name.");
const REJECTED: Declaration = counter(
    "mesh_proxy_config_rejected_total",
    "Configurations in which something was not used; the control plane knows what.",
);
const CLUSTER_OPENED: Declaration =
    counter("envoy_cluster_upstream_cx_total", "Connections opened to a cluster, under Envoy's name.");
const CLUSTER_FAILED: Declaration = counter(
    "envoy_cluster_upstream_cx_connect_fail",
    "Connections to a cluster that could not be opened or secured, under Envoy's name.",
);
const CX_ACTIVE: Declaration =
    gauge("envoy_listener_downstream_cx_active", "Open connections of a listener, under Envoy's name.");
const CX_TOTAL: Declaration =
    counter("envoy_listener_downstream_cx_total", "Connections that a listener took, under Envoy's name.");
const RQ_TOTAL: Declaration = counter(
    "envoy_listener_http_downstream_rq",
    "Requests that a listener's connections brought, by class of their status, under the name that Istio's Envoy has.",
);

/// Everything that [`encode`] writes.
pub(super) fn declarations() -> impl Iterator<Item = Declaration> {
    [
        ALLOCATED,
        HEAP,
        PHYSICAL,
        SERVER_CONNECTIONS,
        FIRST_EXPIRY,
        CLUSTERS,
        CLUSTER_UPDATES,
        LISTENERS,
        LISTENER_UPDATES,
        REJECTED,
        CLUSTER_OPENED,
        CLUSTER_FAILED,
        CX_ACTIVE,
        CX_TOTAL,
        RQ_TOTAL,
    ]
    .into_iter()
}

/// Writes them.
pub(super) fn encode(store: &Store, live: &Live, hub: &Hub, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let plan = &live.plan;
    let memory = Memory::read();
    let gauges = [
        (ALLOCATED, memory.allocated),
        (HEAP, memory.heap),
        (PHYSICAL, memory.resident),
        (SERVER_CONNECTIONS, hub.connections()),
        (CLUSTERS, plan.clusters().count() as u64),
        (LISTENERS, plan.listeners().count() as u64),
    ];
    for (declaration, value) in gauges {
        put(encoder, &declaration, |metric| metric.encode_gauge(&value))?;
    }
    if let Some(days) = days_left(plan) {
        put(encoder, &FIRST_EXPIRY, |metric| metric.encode_gauge(&days))?;
    }
    let updates = if live.is_configured() { live.generation } else { 0 };
    let counters =
        [(CLUSTER_UPDATES, updates), (LISTENER_UPDATES, updates), (REJECTED, store.link.rejected.load(Relaxed))];
    for (declaration, value) in counters {
        put(encoder, &declaration, |metric| metric.encode_counter::<NoLabelSet, u64, f64>(&value, None))?;
    }
    connections(store, hub, encoder)?;
    listeners(plan, hub, encoder)
}

fn days_left(plan: &Plan) -> Option<u64> {
    let first = plan.secrets().filter_map(|secret| first_expiry(secret)).min()?;
    Some(first.duration_since(SystemTime::now()).map_or(0, |left| left.as_secs() / DAY))
}

fn listeners(plan: &Plan, hub: &Hub, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let totals: Vec<(String, ListenerTotals)> =
        hub.listener_totals().iter().map(|(name, totals)| (address(plan, name), *totals)).collect();
    put(encoder, &CX_ACTIVE, |metric| {
        totals.iter().try_for_each(|(address, totals)| {
            let open = totals.opened.saturating_sub(totals.closed);
            metric.encode_family(&[("listener_address", address.as_str())])?.encode_gauge(&open)
        })
    })?;
    put(encoder, &CX_TOTAL, |metric| {
        totals.iter().try_for_each(|(address, totals)| {
            let labels = [("listener_address", address.as_str())];
            let mut metric = metric.encode_family(&labels)?;
            metric.encode_counter::<NoLabelSet, u64, f64>(&totals.opened, None)
        })
    })?;
    put(encoder, &RQ_TOTAL, |metric| {
        for (address, totals) in &totals {
            for (class, number) in ["1xx", "2xx", "3xx", "4xx", "5xx"].into_iter().zip(totals.classes) {
                if number > 0 {
                    let labels = [("listener_address", address.as_str()), ("response_code_class", class)];
                    let mut metric = metric.encode_family(&labels)?;
                    metric.encode_counter::<NoLabelSet, u64, f64>(&number, None)?;
                }
            }
        }
        Ok(())
    })
}

/// `0.0.0.0_15006`, as Istio's tag has it; a listener that is gone keeps its name.
fn address(plan: &Plan, name: &Str) -> String {
    match plan.listener(name) {
        Some(listener) => format!("{}_{}", listener.address.ip(), listener.address.port()),
        None => name.to_string(),
    }
}

/// Opened and failed connections of the clusters that were used, and of the control plane.
fn connections(store: &Store, hub: &Hub, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let (opened, failed) = (store.link.opened.load(Relaxed), store.link.failed.load(Relaxed));
    let clusters = hub.cluster_totals();
    for (declaration, of_link, of) in [
        (CLUSTER_OPENED, opened, (|totals| totals.opened) as fn(&ClusterTotals) -> u64),
        (CLUSTER_FAILED, failed, |totals| totals.failed),
    ] {
        put(encoder, &declaration, |metric| {
            let used = clusters.iter().map(|(name, totals)| (name.as_str(), of(totals)));
            std::iter::once((CONTROL_PLANE, of_link)).chain(used).try_for_each(|(name, value)| {
                let labels = [("cluster_name", name)];
                let mut metric = metric.encode_family(&labels)?;
                metric.encode_counter::<NoLabelSet, u64, f64>(&value, None)
            })
        })?;
    }
    Ok(())
}
