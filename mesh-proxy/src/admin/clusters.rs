//! `/clusters`: endpoints with their health, as `istioctl proxy-config endpoint` reads them.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;

use mesh_api_rt::admin::{Response, Router};
use mesh_api_xds::ir::endpoint::Health;
use mesh_proxy_core::endpoint::EndpointId;
use mesh_proxy_core::health::outlier;
use mesh_proxy_core::limit::circuit::Counted;
use mesh_proxy_core::plan::cluster::ClusterPlan;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::Admin;

/// Adds the page.
pub(super) fn pages(router: Router, admin: &Arc<Admin>) -> Router {
    let admin = Arc::clone(admin);
    router.get("/clusters", "Clusters with their endpoints and health: ?format=json", move |request| {
        let live = admin.context.shared.store.live();
        if request.param("format").as_deref() == Some("json") {
            let all: Vec<_> = live.plan.clusters().map(|cluster| cluster_status(cluster)).collect();
            Response::json(&json!({ "cluster_statuses": all }))
        } else {
            Response::ok(live.plan.clusters().map(|cluster| cluster_text(cluster)).collect::<String>())
        }
    })
}

/// `envoy.config.core.v3.Address`.
pub(super) fn socket_address(address: SocketAddr) -> Value {
    json!({ "socket_address": { "address": address.ip().to_string(), "port_value": address.port() } })
}

const fn health_word(health: Health) -> &'static str {
    match health {
        Health::Healthy => "HEALTHY",
        Health::Unhealthy => "UNHEALTHY",
        Health::Draining => "DRAINING",
    }
}

fn ejected(cluster: &ClusterPlan) -> Vec<EndpointId> {
    outlier::ejected(cluster, Instant::now().into_std()).iter().map(|(endpoint, _)| endpoint.id()).collect()
}

/// `envoy.admin.v3.ClusterStatus`.
fn cluster_status(cluster: &ClusterPlan) -> Value {
    let out = ejected(cluster);
    let hosts: Vec<_> = cluster
        .all()
        .iter()
        .map(|endpoint| {
            let mut health = json!({ "eds_health_status": health_word(endpoint.health) });
            if let (true, Some(health)) = (out.contains(&endpoint.id()), health.as_object_mut()) {
                health.insert("failed_outlier_check".to_owned(), Value::Bool(true));
            }
            json!({
                "address": socket_address(endpoint.address),
                "stats": [{ "name": "rq_active", "value": endpoint.active().to_string(), "type": "GAUGE" }],
                "health_status": health,
                "hostname": endpoint.hostname.as_deref().unwrap_or_default(),
                "weight": endpoint.weight,
                "locality": {
                    "region": &*endpoint.locality.region,
                    "zone": &*endpoint.locality.zone,
                    "sub_zone": &*endpoint.locality.subzone,
                },
            })
        })
        .collect();
    let limits = &cluster.settings.limits;
    json!({
        "name": &*cluster.settings.name,
        "added_via_api": true,
        "observability_name": &*cluster.settings.name,
        "host_statuses": hosts,
        "circuit_breakers": { "thresholds": [{
            "priority": "DEFAULT",
            "max_connections": limits.connections,
            "max_pending_requests": limits.pending,
            "max_requests": limits.requests,
            "max_retries": limits.retries,
        }] },
    })
}

/// Envoy's lines: `<cluster>::<what>::<value>` and `<cluster>::<address>::<what>::<value>`.
fn cluster_text(cluster: &ClusterPlan) -> String {
    let (name, limits, circuit) = (&cluster.settings.name, &cluster.settings.limits, &cluster.state.circuit);
    let out = ejected(cluster);
    let mut text = String::new();
    // Writing to a string cannot fail.
    for (key, value) in [
        ("default_priority::max_connections", limits.connections),
        ("default_priority::max_pending_requests", limits.pending),
        ("default_priority::max_requests", limits.requests),
        ("default_priority::max_retries", limits.retries),
        ("cx_active", circuit.inside(Counted::Connections)),
        ("rq_active", circuit.inside(Counted::Requests)),
        ("rq_pending", circuit.inside(Counted::Pending)),
    ] {
        let _ = writeln!(text, "{name}::{key}::{value}");
    }
    let _ = writeln!(text, "{name}::added_via_api::true");
    for endpoint in cluster.all() {
        let address = endpoint.address;
        let flags = match (out.contains(&endpoint.id()), endpoint.health) {
            (true, _) => "/failed_outlier_check",
            (false, Health::Healthy) => "healthy",
            (false, Health::Unhealthy) => "/failed_eds_health",
            (false, Health::Draining) => "/eds_status_draining",
        };
        let _ = writeln!(text, "{name}::{address}::rq_active::{}", endpoint.active());
        let _ = writeln!(text, "{name}::{address}::health_flags::{flags}");
        let _ = writeln!(text, "{name}::{address}::weight::{}", endpoint.weight);
        for (key, value) in [
            ("region", &endpoint.locality.region),
            ("zone", &endpoint.locality.zone),
            ("sub_zone", &endpoint.locality.subzone),
        ] {
            let _ = writeln!(text, "{name}::{address}::{key}::{value}");
        }
    }
    text
}
