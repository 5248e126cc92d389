//! VirtualService: how requests to a host are routed. istio/api: networking/v1alpha3/virtual_service.proto.

use std::collections::BTreeMap;

use crate::{
    crd::{
        api, api_enum,
        common::{Percent, PortSelector, StringMatch},
    },
    duration::DurationText,
    labels::{Labels, Selector},
    text::Str,
};

api! {
    /// How requests to a host are routed.
    pub struct VirtualService {
        /// The hosts: DNS names, names with a leading wildcard, or (gateways only) addresses. A name without a dot is
        /// one of the object's own namespace.
        pub hosts: Vec<Str>,
        /// The gateways that apply the routes; `mesh` stands for all sidecars and is the default.
        pub gateways: Vec<Str>,
        /// Routes of HTTP traffic; the first that matches counts.
        pub http: Vec<HttpRoute>,
        /// Routes of TLS traffic that is not terminated.
        pub tls: Vec<TlsRoute>,
        /// Routes of other TCP traffic.
        pub tcp: Vec<TcpRoute>,
        /// Namespaces that see the object: `.` its own, `*` all, or names.
        pub export_to: Vec<Str>,
    }

    /// One route of HTTP traffic.
    pub struct HttpRoute {
        /// A name for logs.
        pub name: Str,
        /// Conditions, of which one must hold; none matches everything.
        #[serde(rename = "match")]
        pub matches: Vec<HttpMatchRequest>,
        /// Where requests go, in shares.
        pub route: Vec<HttpRouteDestination>,
        /// Answer with a redirect.
        pub redirect: Option<HttpRedirect>,
        /// Answer with a fixed response.
        pub direct_response: Option<HttpDirectResponse>,
        /// Continue with the routes of another VirtualService.
        pub delegate: Option<Delegate>,
        /// Change the path or the authority before sending.
        pub rewrite: Option<HttpRewrite>,
        /// Longest time for the whole exchange; absent or zero means none.
        pub timeout: Option<DurationText>,
        /// Retries; absent means the mesh's policy.
        pub retries: Option<HttpRetry>,
        /// Faults to inject.
        pub fault: Option<HttpFaultInjection>,
        /// A destination that gets a copy of each request.
        pub mirror: Option<Destination>,
        /// Destinations that get copies.
        pub mirrors: Vec<HttpMirrorPolicy>,
        /// Deprecated: use mirrorPercentage.
        pub mirror_percent: Option<u32>,
        /// Share of requests to mirror; 100 when absent.
        pub mirror_percentage: Option<Percent>,
        /// Cross-origin resource sharing.
        pub cors_policy: Option<CorsPolicy>,
        /// Headers to change.
        pub headers: Option<Headers>,
    }

    /// Conditions that must all hold.
    pub struct HttpMatchRequest {
        /// A name for logs, appended to the route's.
        pub name: Str,
        /// The path without the query.
        pub uri: Option<StringMatch>,
        /// The scheme.
        pub scheme: Option<StringMatch>,
        /// The method.
        pub method: Option<StringMatch>,
        /// The authority, with the port if the client sent one.
        pub authority: Option<StringMatch>,
        /// Headers by lower-case name.
        pub headers: BTreeMap<Str, StringMatch>,
        /// The port that the client addressed.
        pub port: u32,
        /// Labels of the client workload.
        pub source_labels: Selector,
        /// Gateways this match is for; overrides those of the object.
        pub gateways: Vec<Str>,
        /// Query parameters.
        pub query_params: BTreeMap<Str, StringMatch>,
        /// Compare exact and prefix paths without case.
        pub ignore_uri_case: bool,
        /// Headers that must not match.
        pub without_headers: BTreeMap<Str, StringMatch>,
        /// The namespace of the client workload.
        pub source_namespace: Str,
        /// Prefix of the route's own statistics.
        pub stat_prefix: Str,
    }

    /// A share of a route's requests.
    pub struct HttpRouteDestination {
        /// Where to.
        pub destination: Destination,
        /// The share relative to the other weights.
        pub weight: i32,
        /// Headers to change for this destination.
        pub headers: Option<Headers>,
    }

    /// A share of a route's connections.
    pub struct RouteDestination {
        /// Where to.
        pub destination: Destination,
        /// The share relative to the other weights.
        pub weight: i32,
    }

    /// A service, a subset of it, and its port.
    pub struct Destination {
        /// A host of the registry. A name without a dot is one of the object's own namespace.
        pub host: Str,
        /// A subset that a DestinationRule defines.
        pub subset: Str,
        /// The service's port; needed unless it has only one or the one addressed.
        pub port: Option<PortSelector>,
    }

    /// Another VirtualService.
    pub struct Delegate {
        /// Its name.
        pub name: Str,
        /// Its namespace; the object's own when empty.
        pub namespace: Str,
    }

    /// Header changes in both directions.
    pub struct Headers {
        /// Of the request.
        pub request: Option<HeaderOperations>,
        /// Of the response.
        pub response: Option<HeaderOperations>,
    }

    /// Header changes.
    pub struct HeaderOperations {
        /// Overwrite or add.
        pub set: Labels,
        /// Append.
        pub add: Labels,
        /// Drop.
        pub remove: Vec<Str>,
    }

    /// A redirect.
    pub struct HttpRedirect {
        /// The new path.
        pub uri: Str,
        /// What replaces the matched prefix of the path.
        pub prefix_rewrite: Str,
        /// The new authority.
        pub authority: Str,
        /// The new port.
        pub port: Option<u32>,
        /// How the new port follows from the request.
        pub derive_port: Option<RedirectPort>,
        /// The new scheme.
        pub scheme: Str,
        /// 301 (when zero), 302, 303, 307 or 308.
        pub redirect_code: u32,
    }

    /// A fixed response.
    pub struct HttpDirectResponse {
        /// 200 to 599.
        pub status: u32,
        /// The body; none when absent.
        pub body: Option<HttpBody>,
    }

    /// A fixed body: one of its fields.
    pub struct HttpBody {
        /// As text.
        pub string: Option<Str>,
        /// As base64.
        pub bytes: Option<Str>,
    }

    /// Changes of path and authority.
    pub struct HttpRewrite {
        /// Replaces the matched prefix or the whole matched path.
        pub uri: Str,
        /// Replaces the authority.
        pub authority: Str,
        /// Replaces parts of the path.
        pub uri_regex_rewrite: Option<RegexRewrite>,
    }

    /// A substitution.
    pub struct RegexRewrite {
        /// An RE2 expression.
        #[serde(rename = "match")]
        pub pattern: Str,
        /// What replaces each match; `\1` is the first group.
        pub rewrite: Str,
    }

    /// When and how often to try again.
    pub struct HttpRetry {
        /// Retries after the first try; 0 turns them off.
        pub attempts: i32,
        /// Longest time for each try; the route's timeout when absent.
        pub per_try_timeout: Option<DurationText>,
        /// Comma-separated conditions and status codes.
        pub retry_on: Str,
        /// Whether other localities may be tried.
        pub retry_remote_localities: Option<bool>,
        /// Whether hosts that failed are avoided; true when absent.
        pub retry_ignore_previous_hosts: Option<bool>,
        /// The base of the pause between tries; 25ms when absent.
        pub backoff: Option<DurationText>,
    }

    /// A copy of requests.
    pub struct HttpMirrorPolicy {
        /// Where to.
        pub destination: Option<Destination>,
        /// The share of requests; 100 when absent.
        pub percentage: Option<Percent>,
    }

    /// Cross-origin resource sharing.
    pub struct CorsPolicy {
        /// Deprecated: use allowOrigins.
        pub allow_origin: Vec<Str>,
        /// Origins that are let in.
        pub allow_origins: Vec<StringMatch>,
        /// Methods that are let in.
        pub allow_methods: Vec<Str>,
        /// Headers that are let in.
        pub allow_headers: Vec<Str>,
        /// Headers that scripts may read.
        pub expose_headers: Vec<Str>,
        /// How long the answer to a preflight request may be kept.
        pub max_age: Option<DurationText>,
        /// Whether credentials may be sent.
        pub allow_credentials: Option<bool>,
        /// What happens to preflight requests of other origins.
        pub unmatched_preflights: UnmatchedPreflights,
    }

    /// Faults to inject.
    pub struct HttpFaultInjection {
        /// Delay requests.
        pub delay: Option<FaultDelay>,
        /// Abort requests.
        pub abort: Option<FaultAbort>,
    }

    /// A delay.
    pub struct FaultDelay {
        /// Deprecated: use percentage.
        pub percent: i32,
        /// How long.
        pub fixed_delay: Option<DurationText>,
        /// Never worked in Istio.
        pub exponential_delay: Option<DurationText>,
        /// Share of requests.
        pub percentage: Option<Percent>,
    }

    /// An abort: one of the three statuses.
    pub struct FaultAbort {
        /// An HTTP status, 200 to 599.
        pub http_status: Option<i32>,
        /// A gRPC status by its name or number.
        pub grpc_status: Option<Str>,
        /// Never worked in Istio.
        pub http2_error: Option<Str>,
        /// Share of requests.
        pub percentage: Option<Percent>,
    }

    /// A route of TLS traffic.
    pub struct TlsRoute {
        /// Conditions, of which one must hold.
        #[serde(rename = "match")]
        pub matches: Vec<TlsMatchAttributes>,
        /// Where connections go, in shares.
        pub route: Vec<RouteDestination>,
    }

    /// Conditions that must all hold.
    pub struct TlsMatchAttributes {
        /// Server names the client asks for.
        pub sni_hosts: Vec<Str>,
        /// Addresses the client connected to.
        pub destination_subnets: Vec<Str>,
        /// The port that the client addressed.
        pub port: u32,
        /// Labels of the client workload.
        pub source_labels: Selector,
        /// Gateways this match is for.
        pub gateways: Vec<Str>,
        /// The namespace of the client workload.
        pub source_namespace: Str,
    }

    /// A route of TCP traffic.
    pub struct TcpRoute {
        /// Conditions, of which one must hold; none matches everything.
        #[serde(rename = "match")]
        pub matches: Vec<L4MatchAttributes>,
        /// Where connections go, in shares.
        pub route: Vec<RouteDestination>,
    }

    /// Conditions that must all hold.
    pub struct L4MatchAttributes {
        /// Addresses the client connected to.
        pub destination_subnets: Vec<Str>,
        /// The port that the client addressed.
        pub port: u32,
        /// Not implemented in Istio.
        pub source_subnet: Str,
        /// Labels of the client workload.
        pub source_labels: Selector,
        /// Gateways this match is for.
        pub gateways: Vec<Str>,
        /// The namespace of the client workload.
        pub source_namespace: Str,
    }
}

api_enum! {
    /// How a redirect's port follows from the request.
    pub enum RedirectPort {
        /// 80 for http, 443 for https.
        FromProtocolDefault,
        /// The port the request came to.
        FromRequestPort,
    }

    /// What happens to preflight requests of other origins.
    pub enum UnmatchedPreflights {
        /// The same as FORWARD.
        Unspecified,
        /// Sent on.
        Forward,
        /// Answered without headers.
        Ignore,
    }
}
