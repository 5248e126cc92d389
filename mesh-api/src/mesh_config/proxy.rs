//! ProxyConfig: what a proxy is started with. istio/api: mesh/v1alpha1/proxy.proto.

use std::{collections::BTreeMap, time::Duration};

use serde_json::Value;

use super::{TextMap, port_or};
use crate::{
    crd::{
        api, api_enum,
        networking::{
            destination_rule::{ClientTlsSettings, TcpKeepalive},
            workload_group::ReadinessProbe,
        },
    },
    duration::DurationText,
    finding::Finding,
    names, not_acting,
    parse::{self, ParseError},
    text::Str,
};

api! {
    /// What a proxy is started with.
    pub struct ProxyConfig {
        /// Where generated configuration is kept.
        pub config_path: Option<Str>,
        /// Path of Envoy.
        pub binary_path: Option<Str>,
        /// A bootstrap of one's own.
        pub custom_config_file: Option<Str>,
        /// A template of the bootstrap.
        pub proxy_bootstrap_template_path: Option<Str>,
        /// A statsd server.
        pub statsd_udp_address: Option<Str>,
        /// Deprecated.
        pub discovery_refresh_delay: Option<DurationText>,
        /// Deprecated.
        pub zipkin_address: Option<Str>,
        /// Deprecated.
        pub envoy_metrics_service_address: Option<Str>,
        /// Deprecated.
        pub availability_zone: Option<Str>,
        /// Deprecated.
        pub sds: Option<Value>,
        /// Name of the proxy's service in traces.
        pub service_cluster: Option<Str>,
        /// How that name is made.
        pub tracing_service_name: Option<TracingServiceName>,
        /// How long connections may drain when a listener goes; 45s when absent.
        pub drain_duration: Option<DurationText>,
        /// How long the proxy lives on after it is told to stop; 5s when absent.
        pub termination_drain_duration: Option<DurationText>,
        /// The control plane; `istiod.istio-system.svc:15012` when absent.
        pub discovery_address: Option<Str>,
        /// Whether the control plane is spoken to over TLS.
        pub control_plane_auth_policy: Option<AuthenticationPolicy>,
        /// Port of the admin page; 15000 when absent.
        pub proxy_admin_port: Option<u32>,
        /// Port of health and merged metrics; 15020 when absent.
        pub status_port: Option<u32>,
        /// Longest name of a statistic.
        pub stat_name_length: Option<u32>,
        /// Number of workers; from the CPU limit when absent, all cores when zero.
        pub concurrency: Option<u32>,
        /// How traffic is captured; REDIRECT when absent.
        pub interception_mode: Option<InterceptionMode>,
        /// Traces.
        pub tracing: Option<Tracing>,
        /// Envoy's access log service.
        pub envoy_access_log_service: Option<RemoteService>,
        /// Envoy's metrics service.
        pub envoy_metrics_service: Option<RemoteService>,
        /// Environment of the proxy; `ISTIO_META_*` becomes node metadata.
        pub proxy_metadata: TextMap,
        /// Envoy's runtime flags.
        pub runtime_values: TextMap,
        /// Deprecated.
        pub extra_stat_tags: Vec<Str>,
        /// What stands before a gateway.
        pub gateway_topology: Option<Topology>,
        /// The id of the mesh; the trust domain when absent.
        pub mesh_id: Option<Str>,
        /// How the workload's health is found outside Kubernetes.
        pub readiness_probe: Option<ReadinessProbe>,
        /// Which of Envoy's statistics are kept.
        pub proxy_stats_matcher: Option<ProxyStatsMatcher>,
        /// Whether the workload starts only when its proxy is ready.
        pub hold_application_until_proxy_starts: Option<bool>,
        /// Further roots.
        pub ca_certificates_pem: Vec<Str>,
        /// The proxy's image.
        pub image: Option<ProxyImage>,
        /// Hardware for private keys.
        pub private_key_provider: Option<Value>,
        /// Headers that the proxy adds.
        pub proxy_headers: Option<ProxyHeaders>,
        /// How often log files are written out.
        pub file_flush_interval: Option<DurationText>,
        /// How much is collected before log files are written out.
        pub file_flush_min_size_kb: Option<u32>,
        /// Whether metrics are compressed.
        pub stats_compression: Option<bool>,
        /// Limits on connections from clients.
        pub connection_settings: Option<ConnectionSettings>,
    }

    /// Traces.
    pub struct Tracing {
        /// Zipkin.
        pub zipkin: Option<Value>,
        /// Lightstep.
        pub lightstep: Option<Value>,
        /// Datadog.
        pub datadog: Option<Value>,
        /// Stackdriver.
        pub stackdriver: Option<Value>,
        /// OpenCensus.
        pub open_census_agent: Option<Value>,
        /// Tags to add.
        pub custom_tags: BTreeMap<Str, Value>,
        /// Longest path in a trace.
        pub max_path_tag_length: Option<u32>,
        /// Share of requests that are traced, in percent.
        pub sampling: Option<f64>,
        /// TLS towards the collector.
        pub tls_settings: Option<ClientTlsSettings>,
        /// Whether Istio's own tags are added.
        pub enable_istio_tags: Option<bool>,
    }

    /// A service that takes logs or metrics.
    pub struct RemoteService {
        /// Where it is.
        pub address: Str,
        /// TLS towards it.
        pub tls_settings: Option<ClientTlsSettings>,
        /// TCP keepalive.
        pub tcp_keepalive: Option<TcpKeepalive>,
    }

    /// What stands before a gateway.
    pub struct Topology {
        /// How many proxies before it are trusted to have set `X-Forwarded-For`.
        pub num_trusted_proxies: u32,
        /// What happens to the header about the client's certificate.
        pub forward_client_cert_details: ForwardClientCertDetails,
        /// Whether clients send the PROXY protocol first.
        pub proxy_protocol: Option<Value>,
    }

    /// Which of Envoy's statistics are kept.
    pub struct ProxyStatsMatcher {
        /// By prefix.
        pub inclusion_prefixes: Vec<Str>,
        /// By suffix.
        pub inclusion_suffixes: Vec<Str>,
        /// By expression.
        pub inclusion_regexps: Vec<Str>,
    }

    /// The proxy's image.
    pub struct ProxyImage {
        /// `default`, `distroless` or `debug`.
        pub image_type: Str,
    }

    /// Headers that the proxy adds.
    pub struct ProxyHeaders {
        /// What happens to the header about the client's certificate; APPEND_FORWARD when absent.
        pub forwarded_client_cert: ForwardClientCertDetails,
        /// What is written about the present client's certificate.
        pub set_current_client_cert_details: Option<SetCurrentClientCertDetails>,
        /// `x-request-id`.
        pub request_id: Option<Disabled>,
        /// `server`.
        pub server: Option<ServerHeader>,
        /// `x-envoy-attempt-count`.
        pub attempt_count: Option<Disabled>,
        /// `x-envoy-*` for debugging.
        pub envoy_debug_headers: Option<Disabled>,
        /// Headers about the peer.
        pub metadata_exchange_headers: Option<MetadataExchangeHeaders>,
        /// Whether the case of HTTP/1.1 headers is kept.
        pub preserve_http1_header_case: Option<bool>,
        /// `x-forwarded-host` on rewrites of the authority.
        pub x_forwarded_host: Option<Enabled>,
        /// `x-forwarded-port`.
        pub x_forwarded_port: Option<Enabled>,
    }

    /// What is written about a client's certificate.
    pub struct SetCurrentClientCertDetails {
        /// The subject; true when absent.
        pub subject: Option<bool>,
        /// The certificate.
        pub cert: Option<bool>,
        /// The chain.
        pub chain: Option<bool>,
        /// DNS names; true when absent.
        pub dns: Option<bool>,
        /// URIs; true when absent.
        pub uri: Option<bool>,
    }

    /// A header that can be turned off.
    pub struct Disabled {
        /// Off.
        pub disabled: Option<bool>,
    }

    /// A header that can be turned on.
    pub struct Enabled {
        /// On.
        pub enabled: Option<bool>,
    }

    /// The header `server`.
    pub struct ServerHeader {
        /// Off.
        pub disabled: Option<bool>,
        /// Its value; `istio-envoy` when empty.
        pub value: Str,
    }

    /// Headers about the peer.
    pub struct MetadataExchangeHeaders {
        /// When they are sent.
        pub mode: MetadataExchangeMode,
    }

    /// Limits on connections from clients.
    pub struct ConnectionSettings {
        /// A set of defaults.
        pub profile: ConnectionProfile,
        /// Bytes a gateway buffers for a connection.
        pub listener_per_connection_buffer_limit_bytes: Option<i64>,
        /// Bytes buffered for a connection to an endpoint.
        pub cluster_per_connection_buffer_limit_bytes: Option<i64>,
        /// Longest idle time of a connection.
        pub http_idle_timeout: Option<DurationText>,
        /// Longest idle time of a stream.
        pub http_stream_idle_timeout: Option<DurationText>,
        /// Longest time to receive a request.
        pub http_request_timeout: Option<DurationText>,
        /// Longest time to receive a request's headers.
        pub http_request_headers_timeout: Option<DurationText>,
        /// Longest life of a connection.
        pub http_max_connection_duration: Option<DurationText>,
        /// Longest life of a stream.
        pub http_max_stream_duration: Option<DurationText>,
        /// Time between the two GOAWAY frames.
        pub http_drain_timeout: Option<DurationText>,
        /// Most streams of a connection.
        pub http_max_concurrent_streams: Option<u32>,
        /// Window of a stream.
        pub http2_initial_stream_window_size: Option<u32>,
        /// Window of a connection.
        pub http2_initial_connection_window_size: Option<u32>,
        /// What happens to headers with underscores.
        pub http_headers_with_underscores_action: Option<Str>,
        /// Whether several slashes become one.
        pub http_merge_slashes: Option<bool>,
        /// What happens to escaped slashes.
        pub http_path_with_escaped_slashes_action: Option<Str>,
        /// Most connections of a listener.
        pub listener_connection_limit: Option<u32>,
        /// Most connections of the proxy.
        pub global_downstream_connection_limit: Option<u64>,
    }
}

api_enum! {
    /// How the name of a service in traces is made.
    pub enum TracingServiceName {
        /// From the label `app` and the namespace.
        AppLabelAndNamespace,
        /// From the canonical name.
        CanonicalNameOnly,
        /// From the canonical name and the namespace.
        CanonicalNameAndNamespace,
    }

    /// Whether the control plane is spoken to over TLS.
    pub enum AuthenticationPolicy {
        /// No.
        None,
        /// Yes.
        MutualTls,
        /// As the mesh says.
        Inherit,
    }

    /// How traffic is captured.
    pub enum InterceptionMode {
        /// By redirection.
        Redirect,
        /// Transparently, with the client's address.
        Tproxy,
        /// Not at all.
        None,
    }

    /// What happens to the header about the client's certificate.
    pub enum ForwardClientCertDetails {
        /// The default of the place.
        Undefined,
        /// Dropped.
        Sanitize,
        /// Kept over mutual TLS.
        ForwardOnly,
        /// Kept and extended over mutual TLS.
        AppendForward,
        /// Replaced.
        SanitizeSet,
        /// Kept always.
        AlwaysForwardOnly,
    }

    /// When headers about the peer are sent.
    pub enum MetadataExchangeMode {
        /// Always.
        Undefined,
        /// Only within the mesh.
        InMesh,
    }

    /// A set of defaults.
    pub enum ConnectionProfile {
        /// Within the mesh.
        Sidecar,
        /// At the edge.
        Edge,
    }
}

macro_rules! overlay {
    ($base:expr, $over:expr, $($field:ident)*) => {
        Self {
            $($field: if crate::crd::is_default(&$over.$field) { $base.$field.clone() } else { $over.$field.clone() },)*
            proxy_metadata: merged(&$base.proxy_metadata, &$over.proxy_metadata),
            runtime_values: merged(&$base.runtime_values, &$over.runtime_values),
        }
    };
}

impl ProxyConfig {
    /// Reads the value of the annotation `proxy.istio.io/config` or of the variable `PROXY_CONFIG`.
    ///
    /// # Errors
    /// When the text is not YAML or a field has a wrong type.
    pub fn parse(text: &str) -> Result<(Self, Vec<Finding>), Box<ParseError>> {
        let (config, mut findings): (Self, _) = parse::parse_plain(text, "ProxyConfig")?;
        findings.extend(config.not_acting());
        Ok((config, findings))
    }

    /// Fields that do not act yet.
    pub(super) fn not_acting(&self) -> Vec<Finding> {
        not_acting::walk(self, not_acting::PROXY_CONFIG)
    }

    /// The configuration with `over` on top: what it sets counts, field by field; metadata and runtime values key by
    /// key. istio/istio: pkg/config/mesh/mesh.go ApplyProxyConfig.
    #[must_use]
    pub fn overlaid(&self, over: &Self) -> Self {
        // A field that is missing here does not compile.
        overlay!(self, over,
            config_path binary_path custom_config_file proxy_bootstrap_template_path statsd_udp_address
            discovery_refresh_delay zipkin_address envoy_metrics_service_address availability_zone sds service_cluster
            tracing_service_name drain_duration termination_drain_duration discovery_address control_plane_auth_policy
            proxy_admin_port status_port stat_name_length concurrency interception_mode tracing
            envoy_access_log_service envoy_metrics_service extra_stat_tags gateway_topology mesh_id readiness_probe
            proxy_stats_matcher hold_application_until_proxy_starts ca_certificates_pem image private_key_provider
            proxy_headers file_flush_interval file_flush_min_size_kb stats_compression connection_settings
        )
    }

    /// The control plane's address: `istiod.istio-system.svc:15012` when it does not say.
    #[must_use]
    pub fn discovery_address(&self) -> &str {
        self.discovery_address.as_deref().filter(|a| !a.is_empty()).unwrap_or("istiod.istio-system.svc:15012")
    }

    /// How long connections may drain: 45 s when it does not say.
    #[must_use]
    pub fn drain_duration(&self) -> Duration {
        self.drain_duration.map_or(Duration::from_secs(45), |text| *text)
    }

    /// How long the proxy lives on after it is told to stop: 5 s when it does not say.
    #[must_use]
    pub fn termination_drain_duration(&self) -> Duration {
        self.termination_drain_duration.map_or(Duration::from_secs(5), |text| *text)
    }

    /// The port of the admin page.
    #[must_use]
    pub fn admin_port(&self) -> u16 {
        port_or(self.proxy_admin_port, names::PROXY_ADMIN_PORT)
    }

    /// The port of health and merged metrics.
    #[must_use]
    pub fn status_port(&self) -> u16 {
        port_or(self.status_port, names::STATUS_PORT)
    }

    /// How traffic is captured: REDIRECT when it does not say.
    #[must_use]
    pub fn interception_mode(&self) -> InterceptionMode {
        self.interception_mode.unwrap_or_default()
    }
}

fn merged(base: &TextMap, over: &TextMap) -> TextMap {
    base.iter().chain(over).map(|(key, value)| (key.clone(), value.clone())).collect()
}
