//! Filter chains: what a connection must look like, how it is secured, what serves it.

use std::sync::Arc;
use std::time::Duration;

use mesh_api::text::Str;
use serde::Serialize;

use super::Origin;
use super::authz::Authz;
use super::http::HttpConnection;
use super::matcher::{Cidr, StringMatch};
use super::telemetry::AccessLog;

/// One filter chain (`envoy.config.listener.v3.FilterChain`).
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct Chain {
    /// Name, unique in its listener.
    pub name: Str,
    /// Which connections it takes.
    pub matches: ChainMatch,
    /// TLS termination; absent means that bytes are passed on as they come.
    pub tls: Option<Arc<DownstreamTls>>,
    /// Connection-level policies, in order; all must pass.
    pub authz: Arc<[Authz]>,
    /// What serves the connection.
    pub serve: Serve,
}

/// Conditions of a chain; an empty list is no condition. Envoy's order of specificity applies: destination port, address,
/// server name, transport, application protocol, source address.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize)]
pub struct ChainMatch {
    /// Original destination port.
    pub destination_port: Option<u16>,
    /// Original destination address.
    pub destinations: Arc<[Cidr]>,
    /// SNI: exact names, `*.suffix` wildcards.
    pub server_names: Arc<[Str]>,
    /// Transport protocol.
    pub transport: TransportMatch,
    /// ALPN of a ClientHello, or `http/1.1`, `h2c` as sniffed on plaintext.
    pub application_protocols: Arc<[Str]>,
    /// Direct peer address.
    pub sources: Arc<[Cidr]>,
}

/// Transport condition of a chain.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize)]
pub enum TransportMatch {
    /// Either.
    #[default]
    Any,
    /// Plaintext only (`raw_buffer`).
    Raw,
    /// TLS only (`tls`).
    Tls,
}

/// What serves a chain's connections.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub enum Serve {
    /// The HTTP connection manager.
    Http(Arc<HttpConnection>),
    /// Opaque bytes to a cluster.
    Tcp(Arc<TcpProxy>),
}

/// Server-side TLS (`DownstreamTlsContext`).
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct DownstreamTls {
    /// Secrets with a certificate and key; at least one.
    pub certificates: Arc<[Str]>,
    /// How client certificates are checked.
    pub client: ClientCertificate,
    /// Protocols offered, best first.
    pub alpn: Arc<[Str]>,
    /// Lowest and highest version.
    pub versions: TlsVersions,
    /// Deadline of the handshake; zero is the built-in one.
    pub handshake_timeout: Duration,
}

/// Whether and how a client certificate is asked for.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub enum ClientCertificate {
    /// Not asked for.
    None,
    /// Checked when presented.
    Optional(Validation),
    /// Required.
    Required(Validation),
}

/// What a peer's certificate must fulfil.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct Validation {
    /// Secret with the trust anchors.
    pub trust: Str,
    /// Allowed subject alternative names, any of; empty allows all.
    pub sans: Arc<[StringMatch]>,
}

/// A range of TLS versions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct TlsVersions {
    /// Lowest.
    pub min: TlsVersion,
    /// Highest.
    pub max: TlsVersion,
}

impl Default for TlsVersions {
    /// TLS 1.2 to 1.3, as Istio.
    fn default() -> Self {
        Self { min: TlsVersion::V1_2, max: TlsVersion::V1_3 }
    }
}

/// The versions that are spoken; older ones do not exist here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub enum TlsVersion {
    /// RFC 5246.
    V1_2,
    /// RFC 8446.
    V1_3,
}

/// Opaque proxying (`envoy.filters.network.tcp_proxy`).
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct TcpProxy {
    /// Statistics prefix.
    pub stat_prefix: Str,
    /// Where to; weights are relative and at least one is positive.
    pub clusters: Arc<[WeightedTcp]>,
    /// Connection closed after this long without a byte in either direction; `None`: never.
    pub idle_timeout: Option<Duration>,
    /// Access logs.
    pub access_logs: Arc<[AccessLog]>,
    /// Object that asked for it.
    pub origin: Origin,
}

/// One destination of a TCP proxy.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct WeightedTcp {
    /// Cluster name.
    pub cluster: Str,
    /// Relative weight.
    pub weight: u32,
}
