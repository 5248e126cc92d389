//! Clusters.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use mesh_api::names::{BLACK_HOLE_CLUSTER, INBOUND_PASSTHROUGH_CLUSTER, PASSTHROUGH_CLUSTER};
use mesh_api::text::Str;
use mesh_api_xds::ir::Origin;
use mesh_api_xds::ir::cluster::{
    Balance, Cluster, Discovery, Keepalive, Limits, RetryBudget, ServiceRef, Transport, UpstreamHttp, UpstreamProtocol,
};
use mesh_api_xds::ir::endpoint::{
    Address, Endpoint, EndpointSet, EndpointTls, Health, Locality, LocalityEndpoints, WorkloadRef,
};

use super::endpoint::{EndpointKey, endpoint_set};
use super::keys::ClusterKey;
use super::{names, tls};
use crate::proxy::ProxyType;
use crate::snapshot::destination_rules::{Balancing, Blocks, Pool};
use crate::snapshot::mesh::Mesh;
use crate::snapshot::services::{Protocol, Resolution, Service};

/// Retries in flight of a cluster that nobody limits, as a share of requests in flight (promise B11: no retry storms).
const DEFAULT_RETRY_BUDGET: RetryBudget = RetryBudget { percent_hundredths: 2000, min_concurrency: 3 };
/// Idle time of HTTP connections of pass-through clusters (istio-surface section 3.11).
const PASSTHROUGH_IDLE: Duration = Duration::from_secs(300);
/// Source of connections to the workload, which redirection leaves alone.
const INBOUND_SOURCE_V4: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 6));
const INBOUND_SOURCE_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0, 0, 0, 0, 0, 0, 0, 6));

/// Makes an outbound cluster.
pub(crate) fn outbound(key: &ClusterKey) -> Cluster {
    let ClusterKey { mesh, service, port, subset, rule, .. } = key;
    let rule = rule.as_deref();
    let chosen = rule.and_then(|rule| rule.subset(subset));
    let blocks = rule.map(|rule| rule.blocks(chosen, port.number)).unwrap_or_default();
    let name = names::outbound(port.number, subset, &service.host);
    let passthrough = key.sees_destinations
        && (blocks.balance == Some(Balancing::Passthrough) || service.resolution == Resolution::Passthrough);
    let discovery = match (&key.names, passthrough) {
        (_, true) => Discovery::OriginalDst,
        (None, false) => Discovery::Eds,
        (Some(instances), false) => {
            let labels = chosen.map(|subset| subset.labels.clone());
            let endpoints =
                EndpointKey { cluster: name.clone(), instances: instances.clone(), subset: labels, near: None };
            Discovery::Dns { endpoints: Arc::new(endpoint_set(&endpoints)), refresh: mesh.dns_refresh }
        }
    };
    let protocol = upstream_protocol(key, &blocks);
    let transport = tls::upstream(key, &blocks, protocol);
    let pool = blocks.pool.clone().unwrap_or_default();
    let mut limits = limits(&pool);
    // A budget that the user wrote wins; so does a plain limit. Otherwise retries are a share of the requests.
    let default_budget = if pool.max_retries.is_some() { None } else { Some(DEFAULT_RETRY_BUDGET) };
    limits.retry_budget = blocks.retry_budget.or(default_budget);
    Cluster {
        name,
        discovery,
        connect_timeout: pool.connect_timeout.unwrap_or(mesh.connect_timeout),
        balance: match blocks.balance {
            Some(Balancing::Among(balance)) => balance,
            Some(Balancing::Passthrough) | None => Balance::LeastRequest,
        },
        // Endpoints that are not ready are sent along; without a share to fall below they never get a request.
        panic_percent: blocks.outlier.map_or(0, |rule| rule.panic_percent),
        outlier: blocks.outlier.map(|rule| rule.outlier),
        limits,
        protocol,
        http: upstream_http(&pool),
        transport,
        keepalive: keepalive(mesh.keepalive, pool.keepalive),
        source_address: None,
        service: service_ref(service),
        origin: rule.map(|rule| rule.origin.clone()).unwrap_or_default(),
    }
}

fn service_ref(service: &Service) -> ServiceRef {
    ServiceRef { host: service.host.text().clone(), name: service.name.clone(), namespace: service.namespace.0.clone() }
}

fn upstream_protocol(key: &ClusterKey, blocks: &Blocks) -> UpstreamProtocol {
    let pool = blocks.pool.as_ref();
    let upgrade = pool.and_then(|pool| pool.h2_upgrade);
    if pool.is_some_and(|pool| pool.use_client_protocol) {
        return UpstreamProtocol::Downstream;
    }
    match (key.port.protocol, upgrade) {
        (Protocol::Http2 | Protocol::Grpc, _) => UpstreamProtocol::Http2,
        (Protocol::Http | Protocol::Auto, Some(true)) => UpstreamProtocol::Http2,
        (Protocol::Http, None) if key.mesh.h2_upgrade => UpstreamProtocol::Http2,
        // A gateway's client has nothing to do with what the server speaks.
        (Protocol::Auto, _) if key.kind == ProxyType::Sidecar => UpstreamProtocol::Downstream,
        _ => UpstreamProtocol::Http1,
    }
}

fn limits(pool: &Pool) -> Limits {
    Limits {
        connections: pool.max_connections.unwrap_or(u32::MAX),
        pending: pool.max_pending.unwrap_or(u32::MAX),
        requests: pool.max_requests.unwrap_or(u32::MAX),
        retries: pool.max_retries.unwrap_or(u32::MAX),
        retry_budget: None,
    }
}

fn upstream_http(pool: &Pool) -> UpstreamHttp {
    let default = UpstreamHttp::default();
    UpstreamHttp {
        idle_timeout: pool.http_idle_timeout.or(pool.tcp_idle_timeout).unwrap_or(default.idle_timeout),
        max_requests_per_connection: pool.max_requests_per_connection.unwrap_or(default.max_requests_per_connection),
        max_concurrent_streams: pool.max_concurrent_streams.unwrap_or(default.max_concurrent_streams),
        max_connection_duration: pool.max_connection_duration.unwrap_or(default.max_connection_duration),
    }
}

/// The rule's values over the mesh's, field by field.
fn keepalive(mesh: Option<Keepalive>, rule: Option<Keepalive>) -> Option<Keepalive> {
    match (mesh, rule) {
        (Some(mesh), Some(rule)) => Some(Keepalive {
            probes: rule.probes.or(mesh.probes),
            time: rule.time.or(mesh.time),
            interval: rule.interval.or(mesh.interval),
        }),
        (mesh, rule) => rule.or(mesh),
    }
}

/// A cluster without anything special.
fn plain(mesh: &Mesh, name: Str, discovery: Discovery, protocol: UpstreamProtocol) -> Cluster {
    Cluster {
        name,
        discovery,
        connect_timeout: mesh.connect_timeout,
        balance: Balance::LeastRequest,
        panic_percent: 50,
        outlier: None,
        limits: Limits::UNLIMITED,
        protocol,
        http: UpstreamHttp::default(),
        transport: Transport::Plaintext,
        keepalive: None,
        source_address: None,
        service: ServiceRef::default(),
        origin: Origin::default(),
    }
}

/// Clusters that do not depend on any object.
pub(crate) fn fixed(mesh: &Mesh, kind: ProxyType, ipv6: bool) -> Vec<Cluster> {
    let nobody = EndpointSet { cluster: Str::from(BLACK_HOLE_CLUSTER), localities: Arc::default() };
    let black_hole =
        plain(mesh, Str::from(BLACK_HOLE_CLUSTER), Discovery::Static(Arc::new(nobody)), UpstreamProtocol::Http1);
    if kind == ProxyType::Router {
        return vec![black_hole];
    }
    let through = |name: &str| {
        let mut cluster = plain(mesh, Str::from(name), Discovery::OriginalDst, UpstreamProtocol::Downstream);
        cluster.http.idle_timeout = PASSTHROUGH_IDLE;
        cluster
    };
    let mut inbound = through(INBOUND_PASSTHROUGH_CLUSTER);
    inbound.source_address = Some(if ipv6 { INBOUND_SOURCE_V6 } else { INBOUND_SOURCE_V4 });
    vec![black_hole, through(PASSTHROUGH_CLUSTER), inbound]
}

/// Everything an inbound cluster is made of.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct InboundCluster<'a> {
    pub(crate) mesh: &'a Mesh,
    /// Port of the workload.
    pub(crate) port: u16,
    pub(crate) protocol: Protocol,
    /// Where the workload listens; `None` is the original destination.
    pub(crate) endpoint: Option<SocketAddr>,
    /// The service whose telemetry it is.
    pub(crate) service: Option<&'a Service>,
    pub(crate) pool: Option<&'a Pool>,
    pub(crate) ipv6: bool,
}

/// Makes an inbound cluster.
pub(crate) fn inbound(of: &InboundCluster<'_>) -> Cluster {
    let name = names::inbound(of.port);
    let protocol = match of.protocol {
        Protocol::Http2 | Protocol::Grpc => UpstreamProtocol::Http2,
        Protocol::Auto => UpstreamProtocol::Downstream,
        Protocol::Http | Protocol::Tls | Protocol::Tcp | Protocol::Udp => UpstreamProtocol::Http1,
    };
    let discovery = match of.endpoint {
        None => Discovery::OriginalDst,
        Some(address) => Discovery::Static(Arc::new(EndpointSet {
            cluster: name.clone(),
            localities: Arc::from([LocalityEndpoints {
                locality: Locality::default(),
                priority: 0,
                weight: 0,
                endpoints: Arc::from([Endpoint {
                    address: Address::Socket(address),
                    weight: 1,
                    health: Health::Healthy,
                    tls: EndpointTls::Disabled,
                    workload: WorkloadRef::default(),
                }]),
            }]),
        })),
    };
    let mut cluster = plain(of.mesh, name, discovery, protocol);
    if of.endpoint.is_none() {
        cluster.source_address = Some(if of.ipv6 { INBOUND_SOURCE_V6 } else { INBOUND_SOURCE_V4 });
    }
    if let Some(pool) = of.pool {
        cluster.limits = limits(pool);
        cluster.http = upstream_http(pool);
        cluster.connect_timeout = pool.connect_timeout.unwrap_or(cluster.connect_timeout);
        cluster.keepalive = pool.keepalive;
    }
    cluster.service = of.service.map(service_ref).unwrap_or_default();
    cluster
}
