//! Clusters: upstreams with balancing, limits, protocol and transport.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use mesh_api::text::Str;
use serde::Serialize;

use super::Origin;
use super::chain::{TlsVersions, Validation};
use super::endpoint::EndpointSet;

/// A cluster (`envoy.config.cluster.v3.Cluster`).
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct Cluster {
    /// Resource name, for example `outbound|9080|v1|reviews.default.svc.cluster.local`.
    pub name: Str,
    /// Where endpoints come from.
    pub discovery: Discovery,
    /// Time to establish a connection, TLS included.
    pub connect_timeout: Duration,
    /// Choice among endpoints.
    pub balance: Balance,
    /// Share of healthy endpoints, in percent, under which health is ignored; 0 never ignores it.
    pub panic_percent: u32,
    /// Passive health checks.
    pub outlier: Option<Outlier>,
    /// Concurrency limits.
    pub limits: Limits,
    /// HTTP version spoken.
    pub protocol: UpstreamProtocol,
    /// Connection settings for HTTP.
    pub http: UpstreamHttp,
    /// Security of connections.
    pub transport: Transport,
    /// TCP keep-alive.
    pub keepalive: Option<Keepalive>,
    /// Local address of connections.
    pub source_address: Option<IpAddr>,
    /// The service behind it, for metrics and dumps.
    pub service: ServiceRef,
    /// Object that shaped it.
    pub origin: Origin,
}

/// Where endpoints come from.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub enum Discovery {
    /// Sent apart as an endpoint set of the cluster's name (EDS).
    Eds,
    /// In the message.
    Static(Arc<EndpointSet>),
    /// Names in the message, resolved by the proxy; every address is an endpoint (`STRICT_DNS`).
    Dns {
        /// Endpoints with names.
        endpoints: Arc<EndpointSet>,
        /// Time between look-ups.
        refresh: Duration,
    },
    /// The connection's original destination (`ORIGINAL_DST`).
    OriginalDst,
}

/// Choice among endpoints.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
pub enum Balance {
    /// Fewest requests in flight of two random ones; weights scale.
    LeastRequest,
    /// In turn, by weight.
    RoundRobin,
    /// At random, by weight.
    Random,
}

/// Passive health checks (`OutlierDetection`). Counts of zero switch that detector off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct Outlier {
    /// Errors in a row, local ones included unless split.
    pub consecutive_5xx: u32,
    /// 502, 503, 504 in a row.
    pub consecutive_gateway: u32,
    /// Local failures in a row, when split.
    pub consecutive_local: u32,
    /// Local failures (connect, reset, timeout) are counted apart.
    pub split_local: bool,
    /// Time between sweeps that return endpoints.
    pub interval: Duration,
    /// Ejection time, multiplied by the number of ejections.
    pub base_ejection: Duration,
    /// Longest ejection.
    pub max_ejection: Duration,
    /// At most this share of endpoints is ejected, but always at least one.
    pub max_ejection_percent: u32,
}

/// Concurrency limits (`CircuitBreakers`, default priority). `u32::MAX` is no limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct Limits {
    /// Connections.
    pub connections: u32,
    /// Requests waiting for a connection.
    pub pending: u32,
    /// Requests in flight.
    pub requests: u32,
    /// Retries in flight; ignored when there is a budget.
    pub retries: u32,
    /// Retry budget.
    pub retry_budget: Option<RetryBudget>,
}

impl Limits {
    /// No limit at all.
    pub const UNLIMITED: Self =
        Self { connections: u32::MAX, pending: u32::MAX, requests: u32::MAX, retries: u32::MAX, retry_budget: None };
}

/// Retries in flight as a share of requests in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct RetryBudget {
    /// Percent of requests in flight, in hundredths of a percent (2000 is 20 %).
    pub percent_hundredths: u32,
    /// Always allowed.
    pub min_concurrency: u32,
}

/// HTTP version spoken upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
pub enum UpstreamProtocol {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2.
    Http2,
    /// That of the downstream request.
    Downstream,
}

/// Connection settings for HTTP; zero is no limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct UpstreamHttp {
    /// Idle time after which a pooled connection is closed.
    pub idle_timeout: Duration,
    /// Requests after which a connection is closed.
    pub max_requests_per_connection: u32,
    /// Streams on one HTTP/2 connection; `u32::MAX` leaves it to the peer.
    pub max_concurrent_streams: u32,
    /// Age after which a connection is closed.
    pub max_connection_duration: Duration,
}

impl Default for UpstreamHttp {
    fn default() -> Self {
        Self {
            idle_timeout: Duration::from_secs(3600),
            max_requests_per_connection: 0,
            max_concurrent_streams: u32::MAX,
            max_connection_duration: Duration::ZERO,
        }
    }
}

/// Security of upstream connections.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub enum Transport {
    /// Plaintext.
    Plaintext,
    /// TLS to every endpoint.
    Tls(Arc<UpstreamTls>),
    /// TLS to endpoints that announce it, plaintext to others (Istio's auto mTLS, `transport_socket_matches`).
    Auto(Arc<UpstreamTls>),
}

/// Client-side TLS (`UpstreamTlsContext`).
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct UpstreamTls {
    /// Secret with the client certificate; `None` presents none.
    pub certificate: Option<Str>,
    /// Check of the server; `None` checks nothing (`insecureSkipVerify`).
    pub validation: Option<Validation>,
    /// Server name sent.
    pub sni: Sni,
    /// Protocols offered; replaced per request where the chain has the `Alpn` filter and `alpn_override` is set.
    pub alpn: Arc<[Str]>,
    /// The `Alpn` filter may replace `alpn` (mesh-internal TLS).
    pub alpn_override: bool,
    /// Lowest and highest version.
    pub versions: TlsVersions,
}

/// Server name in the ClientHello.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub enum Sni {
    /// None.
    None,
    /// This one.
    Name(Str),
    /// The request's host, which the server's certificate must also match (`auto_sni`, `auto_san_validation`).
    FromHost,
}

/// TCP keep-alive; `None` leaves the system's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct Keepalive {
    /// Unanswered probes.
    pub probes: Option<u32>,
    /// Idle time before the first probe.
    pub time: Option<Duration>,
    /// Time between probes.
    pub interval: Option<Duration>,
}

/// The service that a cluster leads to (`filter_metadata.istio.services`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize)]
pub struct ServiceRef {
    /// Full host name; empty when there is no service.
    pub host: Str,
    /// Short name.
    pub name: Str,
    /// Namespace.
    pub namespace: Str,
}
