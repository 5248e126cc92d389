//! Mesh-wide configuration with every default filled in.

use std::sync::Arc;
use std::time::Duration;

use mesh_api::host::Hostname;
use mesh_api::identity::TrustDomain;
use mesh_api::ids::Namespace;
use mesh_api::names::{CLUSTER_DOMAIN, INBOUND_PORT, OUTBOUND_PORT, ROOT_NAMESPACE};
use mesh_api::text::Str;
use mesh_api_xds::ir::chain::TlsVersion;
use mesh_api_xds::ir::cluster::Keepalive;
use mesh_api_xds::ir::http::{CertDetails, EscapedSlashes, ForwardClientCert, PathPolicy, Tracing};
use mesh_api_xds::ir::route::{RetryOn, RetryPolicy, RetrySafety};
use mesh_api_xds::ir::telemetry::AccessLog;
use mesh_api_xds::ir::{Origin, PerMillion};

use super::services::ExportTo;
use crate::convert::ingress::Settings as IngressSettings;

/// What is retried when nobody says otherwise (istio/istio: pilot/pkg/networking/core/route/retry, `DefaultPolicy`).
pub(crate) const DEFAULT_RETRY_ON: RetryOn = RetryOn::CONNECT_FAILURE
    .union(RetryOn::REFUSED_STREAM)
    .union(RetryOn::GRPC_UNAVAILABLE)
    .union(RetryOn::GRPC_CANCELLED)
    .union(RetryOn::STATUS_CODES);
/// Pause before the first retry (Envoy's default).
pub(crate) const DEFAULT_BACKOFF: Duration = Duration::from_millis(25);

/// Mesh-wide configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct Mesh {
    /// Namespace whose policies are mesh-wide.
    pub root_namespace: Namespace,
    /// Domain of services.
    pub domain: Str,
    /// Trust domain of the mesh.
    pub trust_domain: TrustDomain,
    /// Domains whose workloads are trusted as its own.
    pub trust_domain_aliases: Arc<[TrustDomain]>,
    /// Visibility of objects that say nothing.
    pub default_export: DefaultExport,
    /// Port of captured outbound traffic.
    pub outbound_port: u16,
    /// Port of captured inbound traffic.
    pub inbound_port: u16,
    /// Port of the HTTP proxy listener on loopback of every sidecar.
    pub http_proxy_port: Option<u16>,
    /// Time to connect.
    pub connect_timeout: Duration,
    /// TCP keep-alive.
    pub keepalive: Option<Keepalive>,
    /// How long the first bytes of a connection are waited for; zero waits for ever.
    pub detection_timeout: Duration,
    /// Mutual TLS where both sides can.
    pub auto_mtls: bool,
    /// Unknown destinations.
    pub outbound: OutboundPolicy,
    /// How the proxy reaches its workload.
    pub inbound: InboundPolicy,
    /// HTTP/1.1 becomes HTTP/2 on the way where the port is declared as HTTP.
    pub h2_upgrade: bool,
    /// Time between look-ups of names.
    pub dns_refresh: Duration,
    /// Failover and weights by locality.
    pub locality_balancing: bool,
    /// Retries of routes that say nothing; `None` is none.
    pub retry: Option<Arc<RetryPolicy>>,
    /// Access logs.
    pub access_logs: Arc<[AccessLog]>,
    /// Path normalisation.
    pub path: PathPolicy,
    /// Lowest TLS version inside the mesh.
    pub mesh_tls_min: TlsVersion,
    /// Trace sampling.
    pub tracing: Option<Tracing>,
    /// What gateways do with `x-forwarded-client-cert`.
    pub gateway_client_cert: ForwardClientCert,
    /// What sidecars do with `x-forwarded-client-cert` of inbound requests.
    pub sidecar_client_cert: ForwardClientCert,
    /// Trusted proxies in front of gateways.
    pub trusted_proxies: u32,
    /// Which Ingresses are read, and what serves them.
    pub ingress: IngressSettings,
}

/// Visibility of objects that say nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DefaultExport {
    /// Services.
    pub services: ExportTo,
    /// VirtualServices.
    pub virtual_services: ExportTo,
    /// DestinationRules.
    pub destination_rules: ExportTo,
}

/// What happens to traffic for destinations that no service has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum OutboundPolicy {
    /// It goes where it wants.
    AllowAny,
    /// It is refused.
    RegistryOnly,
}

/// How a proxy reaches its workload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum InboundPolicy {
    /// At the address the client asked for.
    Passthrough,
    /// At 127.0.0.1.
    Localhost,
}

/// All parts of a certificate that Istio names by default.
const CERT_DETAILS: CertDetails = CertDetails { subject: true, uri: true, dns: true, cert: false };

/// Istio's default path treatment, `BASE`.
pub(crate) const PATH_BASE: PathPolicy =
    PathPolicy { normalize: true, merge_slashes: false, escaped_slashes: EscapedSlashes::Keep };

impl Default for Mesh {
    /// Istio's defaults (istio-surface section 1.14), with safe retries.
    fn default() -> Self {
        Self {
            root_namespace: Namespace::from(ROOT_NAMESPACE),
            domain: Str::from(CLUSTER_DOMAIN),
            trust_domain: TrustDomain::default(),
            trust_domain_aliases: Arc::default(),
            default_export: DefaultExport::default(),
            outbound_port: OUTBOUND_PORT,
            inbound_port: INBOUND_PORT,
            http_proxy_port: None,
            connect_timeout: Duration::from_secs(10),
            keepalive: None,
            detection_timeout: Duration::ZERO,
            auto_mtls: true,
            outbound: OutboundPolicy::AllowAny,
            inbound: InboundPolicy::Passthrough,
            h2_upgrade: false,
            dns_refresh: Duration::from_secs(60),
            locality_balancing: true,
            retry: Some(Arc::new(default_retry())),
            access_logs: Arc::default(),
            path: PATH_BASE,
            mesh_tls_min: TlsVersion::V1_2,
            tracing: Some(Tracing { sampling: PerMillion(10_000) }),
            gateway_client_cert: ForwardClientCert::SanitizeSet(CertDetails { cert: true, ..CERT_DETAILS }),
            sidecar_client_cert: ForwardClientCert::AppendForward(CERT_DETAILS),
            trusted_proxies: 0,
            ingress: IngressSettings::default(),
        }
    }
}

impl Mesh {
    /// A host as an object of `namespace` means it.
    #[must_use]
    pub fn expand(&self, host: &str, namespace: &Namespace) -> Hostname {
        Hostname::expand(host, namespace, &self.domain)
    }
}

/// Istio's default retries, but of a request that may have been executed only when it is idempotent.
fn default_retry() -> RetryPolicy {
    RetryPolicy {
        on: DEFAULT_RETRY_ON,
        attempts: 2,
        per_try_timeout: None,
        statuses: Arc::default(),
        avoid_previous: true,
        backoff: DEFAULT_BACKOFF,
        safety: RetrySafety::Safe,
        origin: Origin::default(),
    }
}
