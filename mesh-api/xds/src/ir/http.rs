//! The HTTP connection manager's settings.

use std::sync::Arc;
use std::time::Duration;

use mesh_api::text::Str;
use serde::Serialize;

use super::PerMillion;
use super::filter::HttpFilter;
use super::route::RouteConfig;
use super::telemetry::AccessLog;

/// Settings of an HTTP chain (`HttpConnectionManager`).
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct HttpConnection {
    /// Statistics prefix.
    pub stat_prefix: Str,
    /// Protocol spoken by clients.
    pub codec: Codec,
    /// Where routes come from.
    pub routes: RouteSource,
    /// Filters, in order of the request; the router is implied at the end.
    pub filters: Arc<[HttpFilter]>,
    /// Accepted `Upgrade` protocols, lower-case, for example `websocket`.
    pub upgrades: Arc<[Str]>,
    /// The `server` response header.
    pub server_header: ServerHeader,
    /// How much of the client's word is believed.
    pub edge: Edge,
    /// Treatment of `x-forwarded-client-cert`.
    pub client_cert: ForwardClientCert,
    /// Path normalisation before routing.
    pub path: PathPolicy,
    /// Bounds.
    pub limits: HttpLimits,
    /// Generate and forward `x-request-id`.
    pub request_id: bool,
    /// HTTP/1.0 requests are served.
    pub http10: bool,
    /// Trace sampling; `None` leaves trace headers alone.
    pub tracing: Option<Tracing>,
    /// Access logs.
    pub access_logs: Arc<[AccessLog]>,
}

/// Codec of the downstream side.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
pub enum Codec {
    /// By ALPN or the HTTP/2 preface.
    Auto,
    /// HTTP/1 only.
    Http1,
    /// HTTP/2 only.
    Http2,
}

/// Where an HTTP chain finds its routes.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub enum RouteSource {
    /// In the listener.
    Inline(Arc<RouteConfig>),
    /// A route configuration of this name, sent apart (RDS).
    Named(Str),
}

/// The `server` response header (`server_header_transformation`).
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub enum ServerHeader {
    /// Always this text.
    Overwrite(Str),
    /// This text unless the upstream sent one.
    AppendIfAbsent(Str),
    /// As the upstream sent it.
    PassThrough,
}

/// Trust in what the client says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
pub enum Edge {
    /// The client is the mesh: `x-forwarded-for` is kept as it came (`use_remote_address: false`).
    Internal,
    /// The client is a stranger: the peer address is appended and internal headers are dropped; this many proxies in
    /// front are trusted (`use_remote_address: true`, `xff_num_trusted_hops`).
    Public {
        /// Trusted proxies in front.
        trusted_hops: u32,
    },
}

/// `forward_client_cert_details`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
pub enum ForwardClientCert {
    /// Remove the header.
    Sanitize,
    /// Pass the header on when the connection is mutual TLS, else remove it.
    ForwardOnly,
    /// Append this hop's element when the connection is mutual TLS, else remove the header.
    AppendForward(CertDetails),
    /// Replace the header by this hop's element when the connection is mutual TLS, else remove it.
    SanitizeSet(CertDetails),
    /// Pass the header on whatever the connection is.
    AlwaysForwardOnly,
}

/// Parts of the peer certificate named in an element; `By` and `Hash` are always there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize)]
pub struct CertDetails {
    /// `Subject`.
    pub subject: bool,
    /// `URI`.
    pub uri: bool,
    /// `DNS`.
    pub dns: bool,
    /// `Cert`, URL-encoded PEM.
    pub cert: bool,
}

/// Path normalisation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct PathPolicy {
    /// RFC 3986 dot segments, case of percent-encodings, backslashes.
    pub normalize: bool,
    /// Adjacent slashes become one.
    pub merge_slashes: bool,
    /// `%2F` and `%5C`.
    pub escaped_slashes: EscapedSlashes,
}

/// Treatment of percent-encoded slashes (`path_with_escaped_slashes_action`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
pub enum EscapedSlashes {
    /// Left alone.
    Keep,
    /// 400.
    Reject,
    /// Decoded and the client redirected.
    UnescapeAndRedirect,
    /// Decoded.
    UnescapeAndForward,
}

/// Bounds on a connection and its requests; a zero duration means no limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct HttpLimits {
    /// Request head, in KiB.
    pub max_headers_kib: u32,
    /// Header fields.
    pub max_headers_count: u32,
    /// Idle time of a connection without requests.
    pub idle_timeout: Duration,
    /// Time a stream may be without progress.
    pub stream_idle_timeout: Duration,
    /// Time to receive the whole request.
    pub request_timeout: Duration,
    /// Age after which a connection is drained.
    pub max_connection_duration: Duration,
}

impl Default for HttpLimits {
    /// Envoy's defaults with Istio's `stream_idle_timeout: 0`.
    fn default() -> Self {
        Self {
            max_headers_kib: 60,
            max_headers_count: 100,
            idle_timeout: Duration::from_secs(3600),
            stream_idle_timeout: Duration::ZERO,
            request_timeout: Duration::ZERO,
            max_connection_duration: Duration::ZERO,
        }
    }
}

/// Trace context handling.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct Tracing {
    /// Share of requests without a sampling decision that are sampled.
    pub sampling: PerMillion,
}
