//! MeshConfig: what holds for the whole mesh. istio/api: mesh/v1alpha1/config.proto.
//!
//! Fields are optional as in the text, so that two configurations can be laid over each other; the methods give the
//! values that count, with Istio's defaults.

pub mod providers;
pub mod proxy;
mod selector;

use std::{collections::BTreeMap, time::Duration};

use self::{
    providers::{DefaultProviders, ExtensionProvider},
    proxy::ProxyConfig,
};
use crate::{
    crd::{
        api, api_enum,
        common::TlsProtocol,
        networking::{
            destination_rule::{
                ClientTlsSettings, ConnectionPoolSettings, LocalityLbSetting, OutlierDetection, TcpKeepalive,
                ZoneAwareLbSetting,
            },
            sidecar::OutboundTrafficPolicyMode,
            virtual_service::HttpRetry,
        },
    },
    duration::DurationText,
    finding::Finding,
    identity::TrustDomain,
    labels::Selector,
    names, not_acting,
    parse::{self, ParseError},
    text::Str,
};

api! {
    /// What holds for the whole mesh.
    pub struct MeshConfig {
        /// Port of captured outbound traffic; 15001 when absent.
        pub proxy_listen_port: Option<u32>,
        /// Port of captured inbound traffic; 15006 when absent.
        pub proxy_inbound_listen_port: Option<u32>,
        /// Port of an HTTP proxy for workloads without capture; none when absent or zero.
        pub proxy_http_port: Option<u32>,
        /// Longest time for connecting; 10s when absent.
        pub connect_timeout: Option<DurationText>,
        /// Idle time of HBONE tunnels.
        pub hbone_idle_timeout: Option<DurationText>,
        /// How long a connection may stay silent before its protocol counts as TCP; no limit when absent or zero.
        pub protocol_detection_timeout: Option<DurationText>,
        /// TCP keepalive of all connections.
        pub tcp_keepalive: Option<TcpKeepalive>,
        /// Class of Ingress objects.
        pub ingress_class: Option<Str>,
        /// Service of the ingress gateway.
        pub ingress_service: Option<Str>,
        /// Which Ingress objects are read.
        pub ingress_controller_mode: Option<IngressControllerMode>,
        /// Label of the ingress gateway.
        pub ingress_selector: Option<Str>,
        /// Whether traces are sent.
        pub enable_tracing: Option<bool>,
        /// File of the access log, e.g. `/dev/stdout`; no log when empty.
        pub access_log_file: Option<Str>,
        /// Format of the access log; Istio's default when empty.
        pub access_log_format: Option<Str>,
        /// Text or JSON.
        pub access_log_encoding: Option<AccessLogEncoding>,
        /// Whether Envoy's access log service is used.
        pub enable_envoy_access_log_service: Option<bool>,
        /// Whether connections that no listener takes go without a log line.
        pub disable_envoy_listener_log: Option<bool>,
        /// Configuration of every proxy.
        pub default_config: Option<ProxyConfig>,
        /// What happens to traffic for unknown destinations; ALLOW_ANY when absent.
        pub outbound_traffic_policy: Option<MeshOutboundTrafficPolicy>,
        /// What happens to inbound traffic for ports without a service.
        pub inbound_traffic_policy: Option<InboundTrafficPolicy>,
        /// Where objects are read from.
        pub config_sources: Vec<ConfigSource>,
        /// Whether proxies use mutual TLS wherever the other side can; true when absent.
        pub enable_auto_mtls: Option<bool>,
        /// The trust domain of the mesh; `cluster.local` when absent.
        pub trust_domain: Option<TrustDomain>,
        /// Other trust domains whose identities count as the mesh's own.
        pub trust_domain_aliases: Vec<TrustDomain>,
        /// Further roots.
        pub ca_certificates: Vec<CertificateData>,
        /// Who sees services that do not say; `*` when absent.
        pub default_service_export_to: Vec<Str>,
        /// Who sees VirtualServices that do not say; `*` when absent.
        pub default_virtual_service_export_to: Vec<Str>,
        /// Who sees DestinationRules that do not say; `*` when absent.
        pub default_destination_rule_export_to: Vec<Str>,
        /// The namespace whose policies are mesh-wide; `istio-system` when absent.
        pub root_namespace: Option<Str>,
        /// Shares and failover between localities.
        pub locality_lb_setting: Option<LocalityLbSetting>,
        /// Balancing that knows zones.
        pub zone_aware_lb_setting: Option<ZoneAwareLbSetting>,
        /// How often names are resolved; 60s when absent.
        pub dns_refresh_rate: Option<DurationText>,
        /// Whether HTTP/1.1 becomes HTTP/2 on the way.
        pub h2_upgrade_policy: Option<MeshH2UpgradePolicy>,
        /// Pattern of the statistics' name of inbound clusters.
        pub inbound_cluster_stat_name: Option<Str>,
        /// Pattern of the statistics' name of outbound clusters.
        pub outbound_cluster_stat_name: Option<Str>,
        /// Settings of single services.
        pub service_settings: Vec<ServiceSettings>,
        /// Scope of services in a mesh of several clusters.
        pub service_scope_configs: Vec<ServiceScopeConfig>,
        /// Whether the metrics of a workload are merged into its proxy's.
        pub enable_prometheus_merge: Option<bool>,
        /// Deprecated; certificates are always verified.
        pub verify_certificate_at_client: Option<bool>,
        /// An external CA.
        pub ca: Option<ExternalCa>,
        /// Services that extend the mesh.
        pub extension_providers: Vec<ExtensionProvider>,
        /// Which of them are used without being asked for.
        pub default_providers: Option<DefaultProviders>,
        /// Namespaces that are looked at; all when absent.
        pub discovery_selectors: Vec<LabelSelector>,
        /// How paths are normalised before they are compared.
        pub path_normalization: Option<ProxyPathNormalization>,
        /// Retries of routes that do not say.
        pub default_http_retry_policy: Option<HttpRetry>,
        /// The mesh's own TLS.
        #[serde(rename = "meshMTLS")]
        pub mesh_mtls: Option<TlsConfig>,
        /// Other TLS.
        pub tls_defaults: Option<TlsConfig>,
        /// Policies of destinations that do not say.
        pub default_traffic_policy: Option<DefaultTrafficPolicy>,
        /// Who sees ServiceEntries.
        pub service_entry_visibility: Option<ServiceEntryVisibility>,
        /// Deprecated and without effect.
        pub certificates: Vec<Certificate>,
    }

    /// What happens to traffic for unknown destinations.
    pub struct MeshOutboundTrafficPolicy {
        /// Refused or let through.
        pub mode: OutboundTrafficPolicyMode,
        /// TLS towards destinations that the name in the request gives.
        pub tls: Option<ClientTlsSettings>,
    }

    /// What happens to inbound traffic for ports without a service.
    pub struct InboundTrafficPolicy {
        /// To the original address or to localhost.
        pub mode: InboundTrafficPolicyMode,
    }

    /// A source of objects.
    pub struct ConfigSource {
        /// `xds://`, `fs:///path` or `k8s://`.
        pub address: Str,
        /// TLS towards it.
        pub tls_settings: Option<ClientTlsSettings>,
        /// What is read from it.
        pub subscribed_resources: Vec<Str>,
    }

    /// A further root: one of pem and spiffeBundleUrl.
    pub struct CertificateData {
        /// The certificate.
        pub pem: Option<Str>,
        /// Where the certificate is.
        pub spiffe_bundle_url: Option<Str>,
        /// Signers that it vouches for.
        pub cert_signers: Vec<Str>,
        /// Trust domains that it vouches for.
        pub trust_domains: Vec<Str>,
    }

    /// Settings of single services.
    pub struct ServiceSettings {
        /// The settings.
        pub settings: Option<ServiceSettingsValue>,
        /// The services.
        pub hosts: Vec<Str>,
    }

    /// Settings of a service.
    pub struct ServiceSettingsValue {
        /// Whether only endpoints of the own cluster are used.
        pub cluster_local: bool,
    }

    /// Scope of services in a mesh of several clusters.
    pub struct ServiceScopeConfig {
        /// Namespaces.
        pub namespace_selector: Option<LabelSelector>,
        /// Services.
        pub services_selector: Option<LabelSelector>,
        /// Their scope.
        pub scope: ServiceScope,
    }

    /// Kubernetes' label selector.
    pub struct LabelSelector {
        /// Labels with their values.
        pub match_labels: Selector,
        /// Further requirements.
        pub match_expressions: Vec<LabelSelectorRequirement>,
    }

    /// A requirement on a label.
    pub struct LabelSelectorRequirement {
        /// The label.
        pub key: Str,
        /// `In`, `NotIn`, `Exists` or `DoesNotExist`.
        pub operator: Str,
        /// The values.
        pub values: Vec<Str>,
    }

    /// An external CA.
    pub struct ExternalCa {
        /// Where it is.
        pub address: Str,
        /// TLS towards it.
        pub tls_settings: Option<ClientTlsSettings>,
        /// Longest time for a request.
        pub request_timeout: Option<DurationText>,
        /// Whether the control plane asks it in the name of workloads.
        pub istiod_side: bool,
    }

    /// How paths are normalised.
    pub struct ProxyPathNormalization {
        /// The rule.
        pub normalization: PathNormalization,
    }

    /// Limits of TLS.
    pub struct TlsConfig {
        /// Oldest version; TLS 1.2 when TLS_AUTO.
        pub min_protocol_version: TlsProtocol,
        /// Allowed key exchange groups.
        pub ecdh_curves: Vec<Str>,
        /// Allowed cipher suites.
        pub cipher_suites: Vec<Str>,
    }

    /// Policies of destinations that do not say.
    pub struct DefaultTrafficPolicy {
        /// Connections and requests.
        pub connection_pool: Option<ConnectionPoolSettings>,
        /// When an endpoint is left out for a while.
        pub outlier_detection: Option<OutlierDetection>,
    }

    /// Who sees ServiceEntries.
    pub struct ServiceEntryVisibility {
        /// Where no policy matches.
        pub default_visibility: Visibility,
        /// Whether it holds for sidecars, too.
        pub apply_to_sidecars: bool,
        /// Policies by namespace.
        pub policies: Vec<VisibilityPolicy>,
    }

    /// Who sees the ServiceEntries of some namespaces.
    pub struct VisibilityPolicy {
        /// Who.
        pub visibility: Visibility,
        /// Which namespaces.
        pub matching_rules: Vec<VisibilityRule>,
    }

    /// Some namespaces.
    pub struct VisibilityRule {
        /// By their labels.
        pub namespace_selector: Option<LabelSelector>,
    }

    /// Deprecated.
    pub struct Certificate {
        /// A secret.
        pub secret_name: Str,
        /// Names in the certificate.
        pub dns_names: Vec<Str>,
    }
}

api_enum! {
    /// Which Ingress objects are read.
    pub enum IngressControllerMode {
        /// Unset.
        Unspecified,
        /// None.
        Off,
        /// Those of the class, and those without one.
        Default,
        /// Those of the class.
        Strict,
    }

    /// How a line of the access log is written.
    pub enum AccessLogEncoding {
        /// By a format.
        Text,
        /// As JSON.
        Json,
    }

    /// What happens to inbound traffic for ports without a service.
    pub enum InboundTrafficPolicyMode {
        /// To the original address.
        Passthrough,
        /// To 127.0.0.1.
        Localhost,
    }

    /// Whether HTTP/1.1 becomes HTTP/2 on the way.
    pub enum MeshH2UpgradePolicy {
        /// No.
        DoNotUpgrade,
        /// Yes.
        Upgrade,
    }

    /// The scope of a service.
    pub enum ServiceScope {
        /// Its cluster.
        Local,
        /// The mesh.
        Global,
    }

    /// How paths are normalised before they are compared.
    pub enum PathNormalization {
        /// BASE.
        Default,
        /// Not at all.
        None,
        /// RFC 3986: dot segments, case of escapes; and `\` to `/`.
        Base,
        /// BASE, and several slashes become one.
        MergeSlashes,
        /// MERGE_SLASHES, after escaped slashes are decoded.
        DecodeAndMergeSlashes,
    }

    /// Who sees a ServiceEntry.
    pub enum Visibility {
        /// Unset.
        VisibilityUnspecified,
        /// Nobody.
        None,
        /// Its namespace.
        Namespace,
        /// All.
        Public,
    }
}

impl MeshConfig {
    /// Reads a configuration. Unknown fields and fields that do not act yet are findings.
    ///
    /// # Errors
    /// When the text is not YAML or a field has a wrong type.
    pub fn parse(text: &str) -> Result<(Self, Vec<Finding>), Box<ParseError>> {
        let (config, mut findings): (Self, _) = parse::parse_plain(text, "MeshConfig")?;
        findings.extend(not_acting::walk(&config, not_acting::MESH_CONFIG));
        for mut finding in config.default_config.iter().flat_map(ProxyConfig::not_acting) {
            finding.path = format!("defaultConfig.{}", finding.path).into();
            findings.push(finding);
        }
        Ok((config, findings))
    }

    /// The fields of `accessLogFormat` when it is a JSON object of texts, as it must be with encoding JSON.
    #[must_use]
    pub fn access_log_fields(&self) -> Option<BTreeMap<Str, Str>> {
        serde_json::from_str(self.access_log_format.as_deref()?).ok()
    }

    /// The port of captured outbound traffic.
    #[must_use]
    pub fn outbound_port(&self) -> u16 {
        port_or(self.proxy_listen_port, names::OUTBOUND_PORT)
    }

    /// The port of captured inbound traffic.
    #[must_use]
    pub fn inbound_port(&self) -> u16 {
        port_or(self.proxy_inbound_listen_port, names::INBOUND_PORT)
    }

    /// The port of the HTTP proxy, if there is one.
    #[must_use]
    pub fn http_proxy_port(&self) -> Option<u16> {
        self.proxy_http_port.and_then(|port| u16::try_from(port).ok()).filter(|port| *port != 0)
    }

    /// Longest time for connecting: 10 s when it does not say.
    #[must_use]
    pub fn connect_timeout(&self) -> Duration {
        self.connect_timeout.map_or(Duration::from_secs(10), |text| *text)
    }

    /// How long a connection may stay silent before it counts as TCP, if there is a limit.
    #[must_use]
    pub fn protocol_detection_timeout(&self) -> Option<Duration> {
        self.protocol_detection_timeout.map(|text| *text).filter(|timeout| !timeout.is_zero())
    }

    /// What happens to traffic for unknown destinations: ALLOW_ANY when it does not say.
    #[must_use]
    pub fn outbound_mode(&self) -> OutboundTrafficPolicyMode {
        self.outbound_traffic_policy.as_ref().map_or(OutboundTrafficPolicyMode::AllowAny, |policy| policy.mode)
    }

    /// Whether proxies use mutual TLS wherever the other side can: true when it does not say.
    #[must_use]
    pub fn auto_mtls(&self) -> bool {
        self.enable_auto_mtls.unwrap_or(true)
    }

    /// The trust domain: `cluster.local` when it does not say.
    #[must_use]
    pub fn trust_domain(&self) -> TrustDomain {
        self.trust_domain.clone().unwrap_or_default()
    }

    /// The namespace whose policies are mesh-wide: `istio-system` when it does not say.
    #[must_use]
    pub fn root_namespace(&self) -> &str {
        self.root_namespace.as_deref().filter(|name| !name.is_empty()).unwrap_or(names::ROOT_NAMESPACE)
    }

    /// How often names are resolved: 60 s when it does not say.
    #[must_use]
    pub fn dns_refresh_rate(&self) -> Duration {
        self.dns_refresh_rate.map(|text| *text).filter(|rate| !rate.is_zero()).unwrap_or(Duration::from_secs(60))
    }

    /// How paths are normalised: BASE when it does not say.
    #[must_use]
    pub fn normalization(&self) -> PathNormalization {
        match self.path_normalization.as_ref().map(|p| p.normalization) {
            None | Some(PathNormalization::Default) => PathNormalization::Base,
            Some(other) => other,
        }
    }

    /// The configuration of every proxy.
    #[must_use]
    pub fn proxy(&self) -> ProxyConfig {
        self.default_config.clone().unwrap_or_default()
    }
}

/// A port, or the default where it is absent, zero or too large.
pub(crate) fn port_or(port: Option<u32>, default: u16) -> u16 {
    port.and_then(|port| u16::try_from(port).ok()).filter(|port| *port != 0).unwrap_or(default)
}

/// Named values, e.g. of proxyMetadata.
pub type TextMap = BTreeMap<Str, Str>;

#[cfg(test)]
mod tests;
