//! DestinationRule: what happens to traffic for a host after routing. istio/api:
//! networking/v1alpha3/destination_rule.proto.

use std::collections::BTreeMap;

use crate::{
    crd::{
        api, api_enum,
        common::{PortSelector, WorkloadSelector},
    },
    duration::DurationText,
    labels::Selector,
    text::Str,
};

api! {
    /// What happens to traffic for a host after routing.
    pub struct DestinationRule {
        /// A host of the registry. A name without a dot is one of the object's own namespace.
        pub host: Str,
        /// The policy of all subsets and ports.
        pub traffic_policy: Option<TrafficPolicy>,
        /// Named parts of the service.
        pub subsets: Vec<Subset>,
        /// Namespaces that see the object: `.` its own, `*` all, or names.
        pub export_to: Vec<Str>,
        /// Client workloads that the rule is for.
        pub workload_selector: Option<WorkloadSelector>,
    }

    /// Endpoints of a service that have certain labels.
    pub struct Subset {
        /// The name that routes use.
        pub name: Str,
        /// Labels that an endpoint must have.
        pub labels: Selector,
        /// Overrides the rule's policy, block by block.
        pub traffic_policy: Option<TrafficPolicy>,
    }

    /// Balancing, limits, outliers and TLS.
    pub struct TrafficPolicy {
        /// Balancing.
        pub load_balancer: Option<LoadBalancerSettings>,
        /// Connections and requests.
        pub connection_pool: Option<ConnectionPoolSettings>,
        /// When an endpoint is left out for a while.
        pub outlier_detection: Option<OutlierDetection>,
        /// TLS towards the endpoints; absent means mutual TLS where both sides can.
        pub tls: Option<ClientTlsSettings>,
        /// Policies of single ports; each replaces the whole policy for its port.
        pub port_level_settings: Vec<PortTrafficPolicy>,
        /// Tunnel TCP connections through a proxy.
        pub tunnel: Option<TunnelSettings>,
        /// Send the PROXY protocol first.
        pub proxy_protocol: Option<ProxyProtocol>,
        /// Limit retries to a share of the requests.
        pub retry_budget: Option<RetryBudget>,
    }

    /// The policy of one port.
    pub struct PortTrafficPolicy {
        /// The service's port.
        pub port: Option<PortSelector>,
        /// Balancing.
        pub load_balancer: Option<LoadBalancerSettings>,
        /// Connections and requests.
        pub connection_pool: Option<ConnectionPoolSettings>,
        /// When an endpoint is left out for a while.
        pub outlier_detection: Option<OutlierDetection>,
        /// TLS towards the endpoints.
        pub tls: Option<ClientTlsSettings>,
    }

    /// Balancing.
    pub struct LoadBalancerSettings {
        /// A plain algorithm.
        pub simple: Option<SimpleLb>,
        /// The same endpoint for the same key.
        pub consistent_hash: Option<ConsistentHashLb>,
        /// Shares and failover between localities.
        pub locality_lb_setting: Option<LocalityLbSetting>,
        /// Balancing that knows zones.
        pub zone_aware_lb_setting: Option<ZoneAwareLbSetting>,
        /// Deprecated: use warmup.
        pub warmup_duration_secs: Option<DurationText>,
        /// Grow the share of new endpoints slowly.
        pub warmup: Option<WarmupConfiguration>,
    }

    /// The same endpoint for the same key: one kind of key.
    pub struct ConsistentHashLb {
        /// The value of a header.
        pub http_header_name: Option<Str>,
        /// The value of a cookie.
        pub http_cookie: Option<HttpCookie>,
        /// The client's address.
        pub use_source_ip: Option<bool>,
        /// The value of a query parameter.
        pub http_query_parameter_name: Option<Str>,
        /// Hashing by a ring.
        pub ring_hash: Option<RingHash>,
        /// Hashing by a Maglev table.
        pub maglev: Option<MagLev>,
        /// Deprecated: use ringHash.
        pub minimum_ring_size: u64,
    }

    /// A cookie to hash.
    pub struct HttpCookie {
        /// Its name.
        pub name: Str,
        /// Its path when it is made.
        pub path: Str,
        /// Its lifetime; absent means that it is not made.
        pub ttl: Option<DurationText>,
        /// Further attributes when it is made.
        pub attributes: Vec<CookieAttribute>,
    }

    /// An attribute of a cookie.
    pub struct CookieAttribute {
        /// Its name.
        pub name: Str,
        /// Its value.
        pub value: Str,
    }

    /// Hashing by a ring.
    pub struct RingHash {
        /// Least number of points on the ring; 1024 when zero.
        pub minimum_ring_size: u64,
    }

    /// Hashing by a Maglev table.
    pub struct MagLev {
        /// A prime below 5000011; 65537 when zero.
        pub table_size: u64,
    }

    /// Shares and failover between localities.
    pub struct LocalityLbSetting {
        /// Fixed shares.
        pub distribute: Vec<LocalityDistribute>,
        /// Which region takes over.
        pub failover: Vec<LocalityFailover>,
        /// Labels in the order in which they make endpoints near.
        pub failover_priority: Vec<Str>,
        /// Overrides the mesh's switch.
        pub enabled: Option<bool>,
    }

    /// Shares of traffic from one locality.
    pub struct LocalityDistribute {
        /// The client's `region/zone/subzone`.
        pub from: Str,
        /// Percentages by locality.
        pub to: BTreeMap<Str, u32>,
    }

    /// A region that takes over.
    pub struct LocalityFailover {
        /// For which region.
        pub from: Str,
        /// Which one.
        pub to: Str,
    }

    /// Balancing that knows zones.
    pub struct ZoneAwareLbSetting {
        /// On or off.
        pub enabled: Option<bool>,
        /// Which region takes over.
        pub failover: Vec<LocalityFailover>,
        /// Labels in the order in which they make endpoints near.
        pub failover_priority: Vec<Str>,
        /// Fewest endpoints for which zones count; 6 when absent.
        pub min_cluster_size: Option<u64>,
    }

    /// Growing the share of new endpoints slowly.
    pub struct WarmupConfiguration {
        /// For how long.
        pub duration: Option<DurationText>,
        /// The share to begin with, in percent; 10 when absent.
        pub minimum_percent: Option<f64>,
        /// The shape of the growth; 1.0 is a line.
        pub aggression: Option<f64>,
    }

    /// Connections and requests.
    pub struct ConnectionPoolSettings {
        /// Connections.
        pub tcp: Option<TcpSettings>,
        /// Requests.
        pub http: Option<HttpSettings>,
    }

    /// Limits on connections.
    pub struct TcpSettings {
        /// Most connections; no limit when zero.
        pub max_connections: i32,
        /// Longest time for connecting; the mesh's 10s when absent.
        pub connect_timeout: Option<DurationText>,
        /// TCP keepalive.
        pub tcp_keepalive: Option<TcpKeepalive>,
        /// Longest life of a connection.
        pub max_connection_duration: Option<DurationText>,
        /// Longest idle time of a connection; 1h when absent.
        pub idle_timeout: Option<DurationText>,
    }

    /// TCP keepalive; what is absent is the operating system's.
    pub struct TcpKeepalive {
        /// Unanswered probes until a connection counts as dead.
        pub probes: u32,
        /// Idle time until the first probe.
        pub time: Option<DurationText>,
        /// Time between probes.
        pub interval: Option<DurationText>,
    }

    /// Limits on requests.
    pub struct HttpSettings {
        /// Most requests that wait for a connection; no limit when zero.
        pub http1_max_pending_requests: i32,
        /// Most requests in flight; no limit when zero.
        pub http2_max_requests: i32,
        /// Most requests of one connection; no limit when zero, 1 turns keep-alive off.
        pub max_requests_per_connection: i32,
        /// Most retries in flight; no limit when zero.
        pub max_retries: i32,
        /// Longest idle time of a connection; 1h when absent.
        pub idle_timeout: Option<DurationText>,
        /// Whether HTTP/1.1 becomes HTTP/2 on the way.
        pub h2_upgrade_policy: H2UpgradePolicy,
        /// Whether the protocol is the client's.
        pub use_client_protocol: bool,
        /// Most streams of one HTTP/2 connection.
        pub max_concurrent_streams: i32,
        /// HTTP/2 pings on idle connections.
        pub http2_keep_alive: Option<Http2KeepAlive>,
    }

    /// HTTP/2 pings.
    pub struct Http2KeepAlive {
        /// Time between pings.
        pub interval: Option<DurationText>,
        /// How long an answer may take.
        pub timeout: Option<DurationText>,
    }

    /// When an endpoint is left out for a while.
    pub struct OutlierDetection {
        /// Deprecated and without effect: use consecutive5xxErrors.
        pub consecutive_errors: i32,
        /// Whether failures to connect count apart from error responses.
        pub split_external_local_origin_errors: bool,
        /// Failures to connect in a row until ejection; 5 when absent.
        pub consecutive_local_origin_failures: Option<u32>,
        /// 502, 503 and 504 in a row until ejection; 0 or absent is off.
        pub consecutive_gateway_errors: Option<u32>,
        /// Errors in a row until ejection; 5 when absent, 0 is off.
        pub consecutive_5xx_errors: Option<u32>,
        /// Time between sweeps; 10s when absent.
        pub interval: Option<DurationText>,
        /// First time of an ejection, multiplied by how often it happened; 30s when absent.
        pub base_ejection_time: Option<DurationText>,
        /// Most of the endpoints that may be ejected, in percent; 10 when zero.
        pub max_ejection_percent: i32,
        /// Below this share of healthy endpoints nothing is ejected, in percent.
        pub min_health_percent: i32,
        /// Status codes that count as errors; all 5xx when empty.
        pub outlier_detection_http_error_codes: Vec<u32>,
    }

    /// TLS towards the endpoints.
    pub struct ClientTlsSettings {
        /// Off, server-authenticated, mutual, or the mesh's own.
        pub mode: ClientTlsMode,
        /// File of the client's certificate chain.
        pub client_certificate: Str,
        /// File of the client's key.
        pub private_key: Str,
        /// File of the roots that vouch for the server; the system's when empty.
        pub ca_certificates: Str,
        /// Secret with the client's certificate.
        pub credential_name: Str,
        /// Names of which the server's certificate must hold one.
        pub subject_alt_names: Vec<Str>,
        /// Server name to ask for.
        pub sni: Str,
        /// Whether the server's certificate is not verified.
        pub insecure_skip_verify: Option<bool>,
        /// File of revoked certificates.
        pub ca_crl: Str,
    }

    /// Tunnel TCP connections through a proxy.
    pub struct TunnelSettings {
        /// `CONNECT` (when empty) or `POST`.
        pub protocol: Str,
        /// The host to ask for.
        pub target_host: Str,
        /// The port to ask for.
        pub target_port: u32,
    }

    /// Send the PROXY protocol first.
    pub struct ProxyProtocol {
        /// Its version.
        pub version: ProxyProtocolVersion,
    }

    /// Limit retries to a share of the requests.
    pub struct RetryBudget {
        /// The share in percent; 20 when absent.
        pub percent: Option<f64>,
        /// Retries in flight that are always allowed; 3 when absent.
        pub min_retry_concurrency: Option<u32>,
        /// The time over which requests count.
        pub budget_interval: Option<DurationText>,
    }
}

api_enum! {
    /// Plain algorithms.
    pub enum SimpleLb {
        /// LEAST_REQUEST.
        Unspecified,
        /// Deprecated name of LEAST_REQUEST.
        LeastConn,
        /// Any.
        Random,
        /// No balancing: the address that the client connected to.
        Passthrough,
        /// One after the other.
        RoundRobin,
        /// The less loaded of two.
        LeastRequest,
    }

    /// Whether HTTP/1.1 becomes HTTP/2 on the way.
    pub enum H2UpgradePolicy {
        /// The mesh's policy.
        Default,
        /// No.
        DoNotUpgrade,
        /// Yes.
        Upgrade,
    }

    /// TLS towards the endpoints.
    pub enum ClientTlsMode {
        /// None.
        Disable,
        /// The server proves who it is.
        Simple,
        /// Both prove who they are, with the given certificate.
        Mutual,
        /// Both prove who they are, with the mesh's certificates.
        IstioMutual,
    }

    /// Versions of the PROXY protocol.
    pub enum ProxyProtocolVersion {
        /// Text.
        V1,
        /// Binary.
        V2,
    }
}
