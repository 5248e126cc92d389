//! Route configurations, virtual hosts, routes.

use std::sync::Arc;
use std::time::Duration;

use mesh_api::text::Str;
use serde::Serialize;

use super::filter::RouteFilter;
use super::matcher::{HeaderMatch, QueryMatch};
use super::{Origin, PerMillion};

/// A route configuration (`envoy.config.route.v3.RouteConfiguration`).
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct RouteConfig {
    /// Resource name, for example `9080`, `http.8080`, `inbound|9080||`.
    pub name: Str,
    /// Virtual hosts.
    pub hosts: RouteHosts,
    /// A port in the request's authority is ignored when hosts are compared.
    pub ignore_port: bool,
}

/// Where a route configuration's virtual hosts come from.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub enum RouteHosts {
    /// In the message. Names need not carry the configuration's name.
    Inline(Arc<[Arc<VirtualHost>]>),
    /// As resources of their own, named `<route configuration>/<virtual host>` (VHDS).
    Apart,
}

/// A virtual host (`envoy.config.route.v3.VirtualHost`).
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct VirtualHost {
    /// `<route configuration>/<hostname>:<port>` when sent apart, else `<hostname>:<port>`.
    pub name: Str,
    /// Hosts: exact, `*.suffix`, `prefix.*` or `*`; lower-case; unique in a route configuration.
    pub domains: Arc<[Str]>,
    /// First match wins.
    pub routes: Arc<[Route]>,
    /// Plain HTTP is redirected to HTTPS.
    pub require_tls: bool,
    /// Upstream requests carry `x-envoy-attempt-count`.
    pub attempt_count: bool,
}

/// One route.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct Route {
    /// `%ROUTE_NAME%`.
    pub name: Str,
    /// Conditions, all of which must hold.
    pub matches: RouteMatch,
    /// What is done.
    pub action: Action,
    /// Header edits of the route, after those of the chosen weighted cluster.
    pub headers: HeaderEdits,
    /// Settings for filters of the chain.
    pub filters: Arc<[RouteFilter]>,
    /// Object that asked for it.
    pub origin: Origin,
}

/// Conditions of a route (`RouteMatch`).
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct RouteMatch {
    /// Path without query.
    pub path: PathMatch,
    /// Case of `path` matters (never for `Regex`).
    pub case_sensitive: bool,
    /// All must hold.
    pub headers: Arc<[HeaderMatch]>,
    /// All must hold.
    pub query: Arc<[QueryMatch]>,
}

/// Test on the path.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub enum PathMatch {
    /// Starts with this text; `/` matches everything.
    Prefix(Str),
    /// Is this path or below it: `/a` matches `/a` and `/a/b`, not `/ab`. No trailing slash.
    SeparatedPrefix(Str),
    /// Equal.
    Exact(Str),
    /// Whole-string regular expression.
    Regex(Str),
}

/// What a route does.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub enum Action {
    /// Send upstream.
    Forward(Forward),
    /// Answer with a redirect.
    Redirect(Redirect),
    /// Answer here.
    Direct(Direct),
}

/// Sending upstream (`RouteAction`).
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct Forward {
    /// Destination.
    pub to: Destination,
    /// Whole time from the request's end to the response's end; `None` is no limit.
    pub timeout: Option<Duration>,
    /// Upper bound on a client's `grpc-timeout`; `None` ignores that header, zero honours it unbounded.
    pub max_grpc_timeout: Option<Duration>,
    /// Retries; `None` is none.
    pub retry: Option<Arc<RetryPolicy>>,
    /// Path edit.
    pub rewrite: PathRewrite,
    /// New authority.
    pub host_rewrite: Option<Str>,
    /// Copies of the request, whose answers are dropped.
    pub mirrors: Arc<[Mirror]>,
}

/// Where a forwarded request goes.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub enum Destination {
    /// One cluster.
    Cluster(Str),
    /// One of several, by weight; the sum is positive.
    Weighted(Arc<[WeightedCluster]>),
}

/// One choice of a weighted destination.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct WeightedCluster {
    /// Cluster name.
    pub cluster: Str,
    /// Relative weight.
    pub weight: u32,
    /// Header edits of this choice.
    pub headers: HeaderEdits,
}

/// Mirroring.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct Mirror {
    /// Cluster name.
    pub cluster: Str,
    /// Share of requests.
    pub share: PerMillion,
}

/// Path edit before forwarding.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize)]
pub enum PathRewrite {
    /// None.
    #[default]
    Keep,
    /// The matched prefix (the whole path when the match was exact) becomes this.
    Prefix(Str),
    /// Every match of the pattern becomes the substitution (`\1` are groups).
    Regex {
        /// RE2 pattern.
        pattern: Str,
        /// Substitution.
        substitution: Str,
    },
}

/// Header edits. Order of application, as Envoy's: `remove`, then `set`, then `add`. Values may hold Envoy format commands.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize)]
pub struct HeaderEdits {
    /// On the request.
    pub request: Edits,
    /// On the response.
    pub response: Edits,
}

/// Edits of one direction; names are lower-case.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize)]
pub struct Edits {
    /// Overwrite or add.
    pub set: Arc<[(Str, Str)]>,
    /// Append a value.
    pub add: Arc<[(Str, Str)]>,
    /// Drop.
    pub remove: Arc<[Str]>,
}

impl Edits {
    /// Nothing to do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.set.is_empty() && self.add.is_empty() && self.remove.is_empty()
    }
}

/// Retry policy (`RetryPolicy`).
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct RetryPolicy {
    /// Outcomes that may be tried again.
    pub on: RetryOn,
    /// Further attempts after the first.
    pub attempts: u32,
    /// Time of one attempt; `None` is no limit of its own.
    pub per_try_timeout: Option<Duration>,
    /// Statuses for `RetryOn::STATUS_CODES`.
    pub statuses: Arc<[u16]>,
    /// Endpoints already tried are avoided.
    pub avoid_previous: bool,
    /// First pause between attempts; doubled with jitter up to ten times.
    pub backoff: Duration,
    /// Which requests may be sent twice.
    pub safety: RetrySafety,
    /// Object that asked for it.
    pub origin: Origin,
}

/// Whether a request that the upstream may have executed is sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
pub enum RetrySafety {
    /// Only when provably unprocessed or the method is idempotent (RFC 9110 section 9.2.2).
    Safe,
    /// Whenever an outcome of `on` is seen (Istio's behaviour; also when the user wrote a retry policy).
    AsConfigured,
}

/// A set of retry conditions (Envoy's `retry_on` words).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize)]
pub struct RetryOn(pub u32);

impl RetryOn {
    /// `5xx`.
    pub const SERVER_ERROR: Self = Self(1);
    /// `gateway-error`: 502, 503, 504.
    pub const GATEWAY_ERROR: Self = Self(1 << 1);
    /// `reset`: no response at all.
    pub const RESET: Self = Self(1 << 2);
    /// `reset-before-request`: no byte of the request was sent.
    pub const RESET_BEFORE_REQUEST: Self = Self(1 << 3);
    /// `connect-failure`.
    pub const CONNECT_FAILURE: Self = Self(1 << 4);
    /// `refused-stream`.
    pub const REFUSED_STREAM: Self = Self(1 << 5);
    /// `retriable-4xx`: 409.
    pub const RETRIABLE_4XX: Self = Self(1 << 6);
    /// `retriable-status-codes`.
    pub const STATUS_CODES: Self = Self(1 << 7);
    /// `cancelled` (gRPC status 1).
    pub const GRPC_CANCELLED: Self = Self(1 << 8);
    /// `deadline-exceeded` (4).
    pub const GRPC_DEADLINE_EXCEEDED: Self = Self(1 << 9);
    /// `internal` (13).
    pub const GRPC_INTERNAL: Self = Self(1 << 10);
    /// `resource-exhausted` (8).
    pub const GRPC_RESOURCE_EXHAUSTED: Self = Self(1 << 11);
    /// `unavailable` (14).
    pub const GRPC_UNAVAILABLE: Self = Self(1 << 12);
    /// `http3-post-connect-failure`: understood, never happens here.
    pub const HTTP3_POST_CONNECT_FAILURE: Self = Self(1 << 13);
    /// `envoy-ratelimited`.
    pub const RATE_LIMITED: Self = Self(1 << 14);

    /// Envoy's word for each bit, in the order in which they are written.
    pub const WORDS: &'static [(&'static str, Self)] = &[
        ("5xx", Self::SERVER_ERROR),
        ("gateway-error", Self::GATEWAY_ERROR),
        ("reset", Self::RESET),
        ("reset-before-request", Self::RESET_BEFORE_REQUEST),
        ("connect-failure", Self::CONNECT_FAILURE),
        ("refused-stream", Self::REFUSED_STREAM),
        ("retriable-4xx", Self::RETRIABLE_4XX),
        ("retriable-status-codes", Self::STATUS_CODES),
        ("cancelled", Self::GRPC_CANCELLED),
        ("deadline-exceeded", Self::GRPC_DEADLINE_EXCEEDED),
        ("internal", Self::GRPC_INTERNAL),
        ("resource-exhausted", Self::GRPC_RESOURCE_EXHAUSTED),
        ("unavailable", Self::GRPC_UNAVAILABLE),
        ("http3-post-connect-failure", Self::HTTP3_POST_CONNECT_FAILURE),
        ("envoy-ratelimited", Self::RATE_LIMITED),
    ];

    /// Both sets together.
    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether any condition of `other` is in this set.
    #[must_use]
    pub const fn intersects(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// The condition that an Envoy word names.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        Self::WORDS.iter().find(|(known, _)| *known == word).map(|(_, bit)| *bit)
    }

    /// The comma-separated words of the set.
    #[must_use]
    pub fn words(self) -> String {
        let words: Vec<_> =
            Self::WORDS.iter().filter(|(_, bit)| self.intersects(*bit)).map(|(word, _)| *word).collect();
        words.join(",")
    }
}

/// A redirect (`RedirectAction`).
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct Redirect {
    /// 301, 302, 303, 307 or 308.
    pub status: u16,
    /// New scheme.
    pub scheme: Option<Str>,
    /// New host, with its port if it has one.
    pub authority: Option<Str>,
    /// New port.
    pub port: RedirectPort,
    /// New path.
    pub path: RedirectPath,
}

/// Port of a redirect's location.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
pub enum RedirectPort {
    /// As in the request's authority.
    Keep,
    /// None.
    Strip,
    /// This one; the scheme's default is not written.
    Port(u16),
}

/// Path of a redirect's location; the query is kept.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub enum RedirectPath {
    /// As requested.
    Keep,
    /// Replaced whole.
    Full(Str),
    /// The matched prefix replaced.
    Prefix(Str),
}

/// An answer by the proxy (`DirectResponseAction`).
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct Direct {
    /// 200–599.
    pub status: u16,
    /// Body, 1 MiB at most.
    pub body: Arc<[u8]>,
}
