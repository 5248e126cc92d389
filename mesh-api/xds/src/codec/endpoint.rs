//! Endpoint sets.

use std::net::{IpAddr, SocketAddr};

use mesh_api::text::Str;
use serde_json::Value;

use super::common::{host_address, read_host, read_u32, u32_value};
use super::error::{At, DecodeError, bad, each_arc, fail, leftover, required};
use super::metadata::Metadata;
use crate::ir::endpoint::{
    Address, Endpoint, EndpointSet, EndpointTls, Health, Locality, LocalityEndpoints, WorkloadRef,
};
use crate::pb;
use crate::pb::core::HealthStatus;
use crate::pb::endpoint::lb_endpoint::HostIdentifier;

/// Namespace by which a cluster's `transport_socket_matches` choose.
pub(super) const SOCKET_MATCH: &str = "envoy.transport_socket_match";
/// Key in it.
pub(super) const TLS_MODE: &str = "tlsMode";
/// Its value for mesh TLS.
pub(super) const TLS_MODE_ISTIO: &str = "istio";
/// Namespace of Istio's telemetry.
pub(super) const ISTIO: &str = "istio";

pub(super) fn encode(set: &EndpointSet) -> pb::endpoint::ClusterLoadAssignment {
    pb::endpoint::ClusterLoadAssignment {
        cluster_name: set.cluster.to_string(),
        endpoints: set.localities.iter().map(encode_locality).collect(),
        ..pb::endpoint::ClusterLoadAssignment::default()
    }
}

pub(super) fn decode(mut message: pb::endpoint::ClusterLoadAssignment) -> Result<EndpointSet, DecodeError> {
    let cluster = Str::from(std::mem::take(&mut message.cluster_name));
    let localities = each_arc("endpoints", std::mem::take(&mut message.endpoints), decode_locality)?;
    leftover(&message)?;
    Ok(EndpointSet { cluster, localities })
}

/// Clusters weigh localities (`locality_weighted_lb_config`), and in Envoy one without a weight then takes nothing. So
/// "not weighted" is written as the sum of the endpoints' weights, which spreads requests as if there were no localities.
fn encode_locality(group: &LocalityEndpoints) -> pb::endpoint::LocalityLbEndpoints {
    let mut metadata = Metadata::default();
    let weight = if group.weight == 0 {
        metadata.set("unweighted", true);
        group.endpoints.iter().fold(0u32, |sum, endpoint| sum.saturating_add(endpoint.weight)).max(1)
    } else {
        group.weight
    };
    pb::endpoint::LocalityLbEndpoints {
        locality: Some(pb::core::Locality {
            region: group.locality.region.to_string(),
            zone: group.locality.zone.to_string(),
            sub_zone: group.locality.subzone.to_string(),
        }),
        lb_endpoints: group.endpoints.iter().map(encode_endpoint).collect(),
        load_balancing_weight: u32_value(weight),
        priority: group.priority,
        metadata: metadata.write(),
        ..pb::endpoint::LocalityLbEndpoints::default()
    }
}

fn decode_locality(mut message: pb::endpoint::LocalityLbEndpoints) -> Result<LocalityEndpoints, DecodeError> {
    let locality = message.locality.take().unwrap_or_default();
    let metadata = Metadata::read(message.metadata.take());
    let weight = read_u32(message.load_balancing_weight.take(), 0);
    let group = LocalityEndpoints {
        locality: Locality {
            region: locality.region.into(),
            zone: locality.zone.into(),
            subzone: locality.sub_zone.into(),
        },
        priority: std::mem::take(&mut message.priority),
        weight: if metadata.get("unweighted").is_some() { 0 } else { weight },
        endpoints: each_arc("lb_endpoints", std::mem::take(&mut message.lb_endpoints), decode_endpoint)?,
    };
    leftover(&message)?;
    Ok(group)
}

fn encode_endpoint(endpoint: &Endpoint) -> pb::endpoint::LbEndpoint {
    let mut metadata = Metadata::default();
    if endpoint.tls == EndpointTls::Istio {
        metadata.set_in(SOCKET_MATCH, TLS_MODE, Value::from(TLS_MODE_ISTIO));
    }
    if endpoint.workload != WorkloadRef::default() {
        let WorkloadRef { name, namespace, service, revision, cluster } = &endpoint.workload;
        let text = format!("{name};{namespace};{service};{revision};{cluster}");
        metadata.set_in(ISTIO, "workload", Value::from(text));
    }
    let (host, port) = match &endpoint.address {
        Address::Socket(address) => (address.ip().to_string(), address.port()),
        Address::Name(name, port) => (name.to_string(), *port),
    };
    let health = match endpoint.health {
        Health::Healthy => HealthStatus::Healthy,
        Health::Unhealthy => HealthStatus::Unhealthy,
        Health::Draining => HealthStatus::Draining,
    };
    pb::endpoint::LbEndpoint {
        health_status: health.into(),
        metadata: metadata.write(),
        load_balancing_weight: u32_value(endpoint.weight),
        host_identifier: Some(HostIdentifier::Endpoint(pb::endpoint::Endpoint {
            address: Some(host_address(host, port)),
            ..pb::endpoint::Endpoint::default()
        })),
    }
}

fn decode_endpoint(message: pb::endpoint::LbEndpoint) -> Result<Endpoint, DecodeError> {
    let HostIdentifier::Endpoint(mut endpoint) = required(message.host_identifier, "host_identifier")? else {
        return fail("is not supported").at("endpoint_name");
    };
    let (host, port) = read_host(endpoint.address.take()).at("endpoint.address")?;
    // Used by active health checks alone.
    endpoint.hostname.clear();
    leftover(&endpoint).at("endpoint")?;
    let metadata = Metadata::read(message.metadata);
    let mode = metadata.get_in(SOCKET_MATCH, TLS_MODE).and_then(Value::as_str);
    Ok(Endpoint {
        address: match host.parse::<IpAddr>() {
            Ok(ip) => Address::Socket(SocketAddr::new(ip, port)),
            Err(_) => Address::Name(host.into(), port),
        },
        weight: read_u32(message.load_balancing_weight, 1).max(1),
        health: match HealthStatus::try_from(message.health_status) {
            Ok(HealthStatus::Unknown | HealthStatus::Healthy | HealthStatus::Degraded) => Health::Healthy,
            Ok(HealthStatus::Unhealthy | HealthStatus::Timeout) => Health::Unhealthy,
            Ok(HealthStatus::Draining) => Health::Draining,
            Err(_) => return bad("a health status", message.health_status).at("health_status"),
        },
        tls: if mode == Some(TLS_MODE_ISTIO) { EndpointTls::Istio } else { EndpointTls::Disabled },
        workload: read_workload(metadata.get_in(ISTIO, "workload").and_then(Value::as_str).unwrap_or_default()),
    })
}

/// `name;namespace;service;revision;cluster`; missing parts are empty.
fn read_workload(text: &str) -> WorkloadRef {
    let mut parts = text.split(';').map(Str::from);
    let mut next = || parts.next().unwrap_or_default();
    WorkloadRef { name: next(), namespace: next(), service: next(), revision: next(), cluster: next() }
}
