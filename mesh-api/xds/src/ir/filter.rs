//! HTTP filters and their settings per route. Their order is data, decided in translation.

use std::sync::Arc;
use std::time::Duration;

use mesh_api::text::Str;
use serde::Serialize;

use super::PerMillion;
use super::authz::Authz;

/// A filter of an HTTP chain, in the order of the request. The router is implied at the end.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub enum HttpFilter {
    /// Exchange of peer metadata with the other proxy (`istio.peer_metadata`, `x-envoy-peer-metadata`).
    PeerMetadata(PeerMetadata),
    /// Authorization.
    Authz(Authz),
    /// ALPN offered upstream follows the request's protocol (`istio.alpn`).
    Alpn,
    /// Cross-origin resource sharing; settings are per route.
    Cors,
    /// Fault injection; settings are per route.
    Fault,
    /// Istio's standard metrics (`istio.stats`).
    Stats(Stats),
}

/// Which side of an exchange of peer metadata this proxy takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
pub enum PeerMetadata {
    /// It reads the client's headers, removes them, and answers with its own.
    Server,
    /// It sends its own with requests, reads and removes those of responses.
    Client,
    /// As `Client`, but requests leaving the mesh carry nothing (sidecar outbound and gateways).
    ClientMeshOnly,
}

/// Standard metrics of a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct Stats {
    /// Label `reporter`.
    pub reporter: Reporter,
}

/// Label `reporter`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
pub enum Reporter {
    /// `source`.
    Source,
    /// `destination`.
    Destination,
}

/// Settings of one route for a filter of its chain (`typed_per_filter_config`).
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub enum RouteFilter {
    /// Fault injection.
    Fault(Fault),
    /// Cross-origin resource sharing.
    Cors(Cors),
}

/// Injected faults; delay comes first.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct Fault {
    /// Pause before forwarding.
    pub delay: Option<FaultDelay>,
    /// Answer instead of forwarding.
    pub abort: Option<FaultAbort>,
}

/// Injected pause.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct FaultDelay {
    /// Share of requests.
    pub share: PerMillion,
    /// Length.
    pub duration: Duration,
}

/// Injected answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct FaultAbort {
    /// Share of requests.
    pub share: PerMillion,
    /// The answer.
    pub status: AbortStatus,
}

/// Status of an injected answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
pub enum AbortStatus {
    /// HTTP status, 200–599.
    Http(u16),
    /// gRPC status, 0–16.
    Grpc(u16),
}

/// CORS policy (`envoy.extensions.filters.http.cors.v3.CorsPolicy`).
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct Cors {
    /// Allowed origins, any of.
    pub origins: Arc<[super::matcher::StringMatch]>,
    /// `access-control-allow-methods`; empty is not sent.
    pub methods: Str,
    /// `access-control-allow-headers`; empty is not sent.
    pub headers: Str,
    /// `access-control-expose-headers`; empty is not sent.
    pub expose: Str,
    /// `access-control-max-age`.
    pub max_age: Option<Duration>,
    /// `access-control-allow-credentials`.
    pub credentials: bool,
    /// Preflight requests of other origins go upstream.
    pub forward_unmatched: bool,
}
