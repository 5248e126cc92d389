//! The vocabulary of failure: every way a request or connection can fail in the proxy, in one table.
//!
//! A [`FaultKind`] has a stable code, an origin, a rule for retries, a response flag and the answer that [`crate::reply`]
//! makes of it. Retry logic reads it, the shell wraps it with its cause, logs and metrics print it, and
//! `docs/reference/codes.md` is made from it. A number is never used again for another meaning.

use std::fmt;

use mesh_api::text::Str;

use crate::flags::{Flags, ResponseFlag};
use crate::h1::H1Error;

/// Who caused a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Origin {
    /// The client.
    Downstream,
    /// The destination.
    Upstream,
    /// The configuration, policies included.
    Config,
    /// This proxy.
    Internal,
}

/// When a failed request may be sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Retry {
    /// Not at all: it would fail again, or nobody waits for it.
    Never,
    /// Always: the destination provably did not process it.
    Unprocessed,
    /// If its method is idempotent (RFC 9110 section 9.2.2): the destination may have processed it.
    IfIdempotent,
    /// A reused connection was closed before any response byte, most likely while the request was on its way: as
    /// `IfIdempotent`, and always when no byte of the request was written.
    ReusedOnly,
}

/// Everything the table says about a kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Meaning {
    /// Stable number, printed as `LTN-1001`.
    pub number: u16,
    /// Name of the kind.
    pub name: &'static str,
    /// Who caused it.
    pub origin: Origin,
    /// Whether another attempt makes sense.
    pub retry: Retry,
    /// Response flag, if it has one.
    pub flag: Option<ResponseFlag>,
    /// HTTP status of the answer; 0 when none can be given and the stream or connection ends.
    pub status: u16,
    /// Text of the answer.
    pub body: Body,
    /// `%RESPONSE_CODE_DETAILS%`; Envoy's word where it has one.
    pub details: &'static str,
    /// What happened, in a sentence.
    pub summary: &'static str,
    /// What to do about it, in a sentence.
    pub hint: &'static str,
}

/// Text of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Body {
    /// These words.
    Text(&'static str),
    /// Envoy's sentence about an upstream reset, with this reason. The reason is also part of the details.
    Reset(&'static str),
}

/// Declares the kinds. A row: number, name, origin, retry, flag; status, body, details; summary; hint.
macro_rules! fault_kinds {
    ($(
        $number:literal $variant:ident: $origin:ident, $retry:ident, $flag:expr;
        $status:literal, $body:expr, $details:literal; $summary:literal; $hint:literal;
    )+) => {
        /// One way to fail.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum FaultKind {
            $(
                #[doc = concat!("`LTN-", stringify!($number), "`: ", $summary)]
                $variant,
            )+
        }

        impl FaultKind {
            /// All of them, by number.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The row of the table.
            #[must_use]
            pub const fn meaning(self) -> &'static Meaning {
                match self {
                    $(Self::$variant => &Meaning {
                        number: $number,
                        name: stringify!($variant),
                        origin: Origin::$origin,
                        retry: Retry::$retry,
                        flag: $flag,
                        status: $status,
                        body: $body,
                        details: $details,
                        summary: $summary,
                        hint: $hint,
                    },)+
                }
            }
        }
    };
}

use Body::{Reset, Text};
use ResponseFlag as Flag;

fault_kinds! {
    // 1xxx: the client's connection and bytes.
    1001 BadRequest: Downstream, Never, Some(Flag::DownstreamProtocol);
        400, Text("Bad Request"), "http1.codec_error";
        "The client sent bytes that are not a valid HTTP/1.1 request.";
        "Look at the client's HTTP library; the log names the rule that was broken.";
    1002 AmbiguousFraming: Downstream, Never, Some(Flag::DownstreamProtocol);
        400, Text("Bad Request"), "http1.ambiguous_framing";
        "The length of the request could be understood in two ways (both content-length and transfer-encoding, or either of them twice).";
        "Send one of the two fields, once; this is also what request smuggling looks like.";
    1003 RequestHeadTooLarge: Downstream, Never, Some(Flag::DownstreamProtocol);
        431, Text("Request Header Fields Too Large"), "http1.headers_too_large";
        "The request's start line and fields are larger, or more, than the listener accepts.";
        "Send smaller cookies or tokens, or raise the limit of the listener.";
    1004 InvalidHost: Downstream, Never, Some(Flag::DownstreamProtocol);
        400, Text("Bad Request"), "missing_host_header";
        "The request has no host, more than one, or one that is not host[:port].";
        "HTTP/1.1 clients must send exactly one Host field.";
    1005 Http10Refused: Downstream, Never, Some(Flag::DownstreamProtocol);
        426, Text("Upgrade Required"), "low_version";
        "The client speaks HTTP/1.0, which this listener does not accept.";
        "Use HTTP/1.1, or set PILOT_HTTP10 as in Istio.";
    1006 VersionNotSupported: Downstream, Never, Some(Flag::DownstreamProtocol);
        505, Text("HTTP Version Not Supported"), "http1.unsupported_version";
        "The request line names a version other than HTTP/1.0 and HTTP/1.1.";
        "Use HTTP/1.1, or HTTP/2 with its connection preface.";
    1007 EncodingNotSupported: Downstream, Never, Some(Flag::DownstreamProtocol);
        501, Text("Not Implemented"), "http1.invalid_transfer_encoding";
        "The request uses a transfer coding other than a single chunked.";
        "Compress with content-encoding instead of transfer-encoding.";
    1008 ExpectationFailed: Downstream, Never, Some(Flag::DownstreamProtocol);
        417, Text("Expectation Failed"), "http1.expectation_failed";
        "The request expects something other than 100-continue.";
        "Remove the Expect field.";
    1009 InvalidRequestBody: Downstream, Never, Some(Flag::DownstreamProtocol);
        400, Text("Bad Request"), "http1.codec_error";
        "The chunks or trailers of the request body are malformed.";
        "Look at the client's HTTP library, or at a proxy before this one.";
    1010 Http2Error: Downstream, Never, Some(Flag::DownstreamProtocol);
        0, Text(""), "http2.protocol_error";
        "The client broke the HTTP/2 protocol, and its connection was closed.";
        "Look at the client's HTTP/2 library.";
    1011 ClientClosed: Downstream, Never, Some(Flag::DownstreamClosed);
        0, Text(""), "downstream_remote_disconnect";
        "The client closed the connection before the response was complete.";
        "Often a timeout of the client that is shorter than the response takes.";
    1012 ClientReset: Downstream, Never, Some(Flag::DownstreamReset);
        0, Text(""), "downstream_remote_reset";
        "The client reset its HTTP/2 stream, as cancelled gRPC calls do.";
        "Often a deadline of the client that is shorter than the response takes.";
    1013 RequestHeadTimeout: Downstream, Never, None;
        408, Text("request header timeout"), "request_header_timeout";
        "The client did not finish the head of its request in time.";
        "Look for slow or stuck clients.";
    1014 RequestTimeout: Downstream, Never, None;
        408, Text("request timeout"), "request_overall_timeout";
        "The client did not finish its request in time.";
        "Look for slow clients, or raise the request timeout of the listener.";
    1015 RequestIdle: Downstream, Never, Some(Flag::StreamIdle);
        408, Text("stream timeout"), "stream_idle_timeout";
        "Nothing moved on the stream for its idle timeout while the request was incomplete.";
        "Look for stuck clients, or raise the idle timeout.";
    1016 InvalidEnvoyFields: Downstream, Never, Some(Flag::InvalidEnvoyHeaders);
        400, Text(""), "request_headers_failed_strict_check";
        "An x-envoy-* field of the request is malformed.";
        "Correct the field that the log names.";
    1017 InvalidPath: Downstream, Never, Some(Flag::DownstreamProtocol);
        400, Text("Bad Request"), "path_normalization_failed";
        "The path of the request cannot be normalized.";
        "Send a path whose percent-encoding is valid, or lower the mesh's path normalization.";
    1018 Misdirected: Downstream, Never, None;
        421, Text("Misdirected Request"), "misdirected_request";
        "The request's host is not one that its TLS connection was opened for.";
        "The client reuses a connection for another host; it should open a new one, which 421 asks for.";
    1019 UpgradeRefused: Downstream, Never, None;
        403, Text(""), "upgrade_failed";
        "The client asked to switch to a protocol that the route does not allow.";
        "Only websocket is allowed by default.";
    1020 RequestTooLarge: Downstream, Never, None;
        413, Text("Payload Too Large"), "request_payload_too_large";
        "A filter needs the whole request body and it is larger than the filter's limit.";
        "Send less, or raise the limit of the filter.";
    1021 ClientTlsFailed: Downstream, Never, None;
        0, Text(""), "downstream_tls_failed";
        "The TLS handshake with the client failed.";
        "The log has the reason: a certificate that is expired or of another trust domain, or no common version.";
    1022 PlaintextRefused: Downstream, Never, Some(Flag::NoRoute);
        0, Text(""), "filter_chain_not_found";
        "A client without mutual TLS came to a port that demands it.";
        "The caller has no sidecar or has TLS disabled by a DestinationRule; or set PeerAuthentication to PERMISSIVE.";
    1023 ConnectionTooOld: Config, Never, Some(Flag::DurationTimeout);
        0, Text(""), "duration_timeout";
        "The connection reached the longest duration allowed for it.";
        "Expected: clients reconnect.";
    1024 DetectionTimeout: Downstream, Never, None;
        0, Text(""), "protocol_detection_timeout";
        "The client sent nothing that shows its protocol, in the time given for detection.";
        "For protocols where the server speaks first, name the Service port tcp-… or set appProtocol.";

    // 2xxx: configuration.
    2001 NoRoute: Config, Never, Some(Flag::NoRoute);
        404, Text(""), "route_not_found";
        "No route matches the request's host, path and fields.";
        "meshctl proxy-config route shows the routes that this proxy has.";
    2002 NoRouteTable: Config, Never, Some(Flag::NoRoute);
        404, Text(""), "route_configuration_not_found";
        "The listener's route configuration has not arrived.";
        "meshctl proxy-status shows whether the proxy is in sync.";
    2003 NoCluster: Config, Never, Some(Flag::NoCluster);
        503, Text(""), "cluster_not_found";
        "The route names a destination that this proxy does not know.";
        "Check that the VirtualService's host and subset exist (Service, ServiceEntry, DestinationRule).";
    2004 NoFilterChain: Config, Never, Some(Flag::NoRoute);
        0, Text(""), "filter_chain_not_found";
        "No filter chain of the listener matches the connection.";
        "meshctl proxy-config listener shows the chains that this proxy has.";
    2005 NotReady: Config, Never, Some(Flag::NoRoute);
        503, Text("configuration not received yet"), "configuration_not_received";
        "The proxy has no configuration from the control plane yet.";
        "Check that meshd runs and that meshctl proxy-status lists the proxy.";
    2006 NoFilterConfig: Config, Never, Some(Flag::NoFilterConfig);
        500, Text(""), "no_filter_config_found";
        "A filter of the listener waits for configuration that did not arrive.";
        "meshctl proxy-status shows what the proxy lacks.";
    2007 Loop: Config, Never, Some(Flag::UpstreamConnectFailure);
        508, Text("request would loop back to this proxy"), "proxy_loop";
        "The destination is this proxy itself.";
        "A ServiceEntry or passthrough address points at the proxy's own port.";

    // 3xxx: the destination.
    3001 NoHealthyUpstream: Upstream, Never, Some(Flag::NoHealthyUpstream);
        503, Text("no healthy upstream"), "no_healthy_upstream";
        "The destination has no endpoint that may be used: none at all, none of the subset, or all ejected.";
        "meshctl proxy-config endpoint shows them with the reason of each ejection.";
    3002 ConnectFailed: Upstream, Unprocessed, Some(Flag::UpstreamConnectFailure);
        503, Reset("remote connection failure"), "upstream_reset_before_response_started";
        "The destination refused the connection or could not be reached.";
        "Check that the workload listens on the port that the Service targets.";
    3003 ConnectTimeout: Upstream, Unprocessed, Some(Flag::UpstreamConnectFailure);
        503, Reset("connection timeout"), "upstream_reset_before_response_started";
        "Connecting to the destination took longer than its connect timeout.";
        "Check network policies and the workload's load; connectTimeout is in the DestinationRule.";
    3004 UpstreamTlsFailed: Upstream, Unprocessed, Some(Flag::UpstreamConnectFailure);
        503, Reset("remote connection failure"), "upstream_reset_before_response_started";
        "The TLS handshake with the destination failed.";
        "Check that both sides agree on TLS (PeerAuthentication and DestinationRule) and that no certificate has expired.";
    3005 UpstreamIdentity: Upstream, Unprocessed, Some(Flag::UpstreamConnectFailure);
        503, Reset("remote connection failure"), "upstream_reset_before_response_started";
        "The destination showed an identity that is not among those expected of it.";
        "Compare its service account with the service's, or check subjectAltNames in the DestinationRule.";
    3006 UpstreamOverflow: Upstream, Never, Some(Flag::UpstreamOverflow);
        503, Reset("overflow"), "upstream_reset_before_response_started";
        "A connection pool limit of the destination was reached.";
        "Raise connectionPool in the DestinationRule, or add capacity.";
    3007 ReusedClosed: Upstream, ReusedOnly, Some(Flag::UpstreamClosed);
        503, Reset("connection termination"), "upstream_reset_before_response_started";
        "The destination closed a kept connection just as it was used again.";
        "Harmless when retried; otherwise raise the server's keep-alive time above the proxy's idle timeout.";
    3008 UpstreamClosed: Upstream, IfIdempotent, Some(Flag::UpstreamClosed);
        503, Reset("connection termination"), "upstream_reset_before_response_started";
        "The destination closed the connection before it answered.";
        "Look for crashes and restarts of the workload.";
    3009 UpstreamReset: Upstream, IfIdempotent, Some(Flag::UpstreamReset);
        503, Reset("remote reset"), "upstream_reset_before_response_started";
        "The destination reset the stream before it answered.";
        "Look at the workload's log at this time.";
    3010 UpstreamRefusedStream: Upstream, Unprocessed, Some(Flag::UpstreamReset);
        503, Reset("remote refused stream reset"), "upstream_reset_before_response_started";
        "The destination refused the stream without processing it, as a draining server does, or a proxy whose application \
         cannot be reached.";
        "Harmless when retried; where it stays, check that the workload listens on the port that the Service targets.";
    3011 UpstreamProtocol: Upstream, IfIdempotent, Some(Flag::UpstreamProtocol);
        502, Reset("protocol error"), "upstream_reset_before_response_started";
        "The destination's response is not valid HTTP.";
        "Check that the port's protocol in the Service (name or appProtocol) is what the workload speaks.";
    3012 ResponseTimeout: Upstream, Never, Some(Flag::UpstreamTimeout);
        504, Text("upstream request timeout"), "response_timeout";
        "The destination did not answer within the route's timeout.";
        "Look at the workload's latency; the timeout is in the VirtualService.";
    3013 PerTryTimeout: Upstream, IfIdempotent, Some(Flag::UpstreamTimeout);
        504, Text("upstream request timeout"), "upstream_per_try_timeout";
        "The last attempt did not answer within the timeout of one attempt.";
        "Look at the workload's latency; perTryTimeout is in the VirtualService.";
    3014 UpstreamClosedLate: Upstream, Never, Some(Flag::UpstreamClosed);
        0, Reset("connection termination"), "upstream_reset_after_response_started";
        "The destination closed the connection in the middle of its response.";
        "Look for crashes and restarts of the workload.";
    3015 UpstreamResetLate: Upstream, Never, Some(Flag::UpstreamReset);
        0, Reset("remote reset"), "upstream_reset_after_response_started";
        "The destination reset the stream in the middle of its response.";
        "Look at the workload's log at this time.";
    3016 UpstreamProtocolLate: Upstream, Never, Some(Flag::UpstreamProtocol);
        0, Reset("protocol error"), "upstream_reset_after_response_started";
        "The body of the destination's response is malformed.";
        "Look at the workload's HTTP library.";
    3017 MaxDuration: Config, Never, Some(Flag::UpstreamMaxDuration);
        504, Text("upstream max stream duration reached"), "upstream_max_stream_duration_reached";
        "The request reached the longest duration allowed for it.";
        "Raise the route's maximum stream duration.";
    3018 DnsFailed: Upstream, Unprocessed, Some(Flag::DnsFailure);
        503, Text("DNS resolution failure"), "dns_resolution_failure";
        "The destination's name could not be resolved.";
        "Check the host of the ServiceEntry and the proxy's name servers.";
    3019 ResponseIdle: Upstream, Never, Some(Flag::StreamIdle);
        504, Text("stream timeout"), "stream_idle_timeout";
        "Nothing moved on the stream for its idle timeout while the response was incomplete.";
        "Look at the workload, or raise the idle timeout.";
    3020 ResponseTooLarge: Upstream, Never, None;
        500, Text("Internal Server Error"), "response_payload_too_large";
        "A filter needs the whole response body and it is larger than the filter's limit.";
        "Raise the limit of the filter.";

    // 4xxx: policy.
    4001 AccessDenied: Config, Never, None;
        403, Text("RBAC: access denied"), "rbac_access_denied_matched_policy";
        "An AuthorizationPolicy denies the request, or none allows it.";
        "The log names the policy and rule; meshctl explain says what the request lacked.";
    4002 TokenMissing: Downstream, Never, Some(Flag::AuthzService);
        401, Text("Jwt is missing"), "jwt_authn_access_denied{Jwt_is_missing}";
        "The request has no token where one is required.";
        "Send a token of an issuer that the RequestAuthentication names.";
    4003 TokenInvalid: Downstream, Never, Some(Flag::AuthzService);
        401, Text("Jwt verification fails"), "jwt_authn_access_denied{Jwt_verification_fails}";
        "The request's token is malformed, expired, of an unknown issuer, or its signature is wrong.";
        "The log has the reason.";
    4004 AuthzServiceDenied: Config, Never, Some(Flag::AuthzService);
        403, Text(""), "ext_authz_denied";
        "The external authorization service denied the request.";
        "Ask the service; its answer was passed on to the client.";
    4005 AuthzServiceFailed: Upstream, Never, Some(Flag::AuthzService);
        403, Text(""), "ext_authz_error";
        "The external authorization service could not be asked, and its policy fails closed.";
        "Check that the service of the extension provider runs.";

    // 5xxx: limits.
    5001 Overloaded: Internal, Unprocessed, Some(Flag::Overload);
        503, Text("envoy overloaded"), "overload";
        "The proxy sheds requests because its memory or connection budget is used up.";
        "Raise the proxy's resources or look for connection leaks.";
    5002 RateLimited: Config, Never, Some(Flag::RateLimited);
        429, Text("local_rate_limited"), "local_rate_limited";
        "The request exceeds a rate limit of this proxy.";
        "Send less, or raise the limit.";
    5003 RateLimitedGlobally: Config, Never, Some(Flag::RateLimited);
        429, Text(""), "request_rate_limited";
        "The request exceeds a rate limit of the rate limit service.";
        "Send less, or raise the limit.";
    5004 RateLimitServiceFailed: Upstream, Never, Some(Flag::RateLimitService);
        500, Text(""), "rate_limiter_error";
        "The rate limit service could not be asked, and its policy fails closed.";
        "Check that the service runs.";

    // 6xxx: on purpose.
    6001 AbortInjected: Config, Never, Some(Flag::FaultInjected);
        503, Text("fault filter abort"), "fault_filter_abort";
        "The VirtualService's fault injection answered instead of the destination.";
        "Remove fault.abort from the VirtualService.";

    // 9xxx: the proxy itself.
    9001 Internal: Internal, Never, None;
        500, Text("internal error"), "internal_error";
        "The proxy failed in a way it should not.";
        "Report it with the log lines of this time.";
    9002 LocalReset: Internal, IfIdempotent, Some(Flag::LocalReset);
        503, Reset("local reset"), "upstream_reset_before_response_started";
        "The proxy gave up its stream to the destination.";
        "Look at the proxy's log at this time.";
    9003 Leaving: Internal, Unprocessed, None;
        503, Text("the connection is about to close"), "connection_leaving";
        "The proxy closed a connection that rested, just as its client may have sent a request; nothing of it was read.";
        "Harmless: a proxy of the mesh sends it again, if its route has retries.";
}

/// A failure that happened: its kind and what the table cannot know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// What happened.
    pub kind: FaultKind,
    /// HTTP status in place of the table's, for kinds whose status is configured.
    pub status: Option<u16>,
    /// gRPC status in place of the one derived from the HTTP status.
    pub grpc_status: Option<u8>,
    /// The particular: transport failure reason, policy name, broken rule. Goes to the details, and for resets to the body.
    pub detail: Option<Str>,
    /// Whether retries were made.
    pub retried: bool,
    /// Whether the retries allowed were used up; adds `URX`.
    pub exhausted: bool,
    /// Whether the request may be sent again whatever its policy: nothing of it was processed, or it may be twice.
    pub resend: bool,
}

/// A code as text: `LTN-1001`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Code(pub u16);

impl Fault {
    /// A fault of this kind.
    #[must_use]
    pub fn new(kind: FaultKind) -> Self {
        Self { kind, status: None, grpc_status: None, detail: None, retried: false, exhausted: false, resend: false }
    }

    /// The fault with its particular.
    #[must_use]
    pub fn with_detail(self, detail: impl Into<Str>) -> Self {
        Self { detail: Some(detail.into()), ..self }
    }

    /// The fault with a configured status.
    #[must_use]
    pub fn with_status(self, status: u16) -> Self {
        Self { status: Some(status), ..self }
    }

    /// The fault with a configured gRPC status; other clients see 200, as with Envoy's fault filter.
    #[must_use]
    pub fn with_grpc_status(self, grpc_status: u8) -> Self {
        Self { status: Some(200), grpc_status: Some(grpc_status), ..self }
    }

    /// A request that [`crate::h1`] refused.
    #[must_use]
    pub fn of_request(error: H1Error) -> Self {
        let kind = match error {
            H1Error::ContentLength
            | H1Error::DuplicateContentLength
            | H1Error::LengthAndEncoding
            | H1Error::EncodingInHttp10 => FaultKind::AmbiguousFraming,
            H1Error::HeadTooLarge | H1Error::TooManyFields => FaultKind::RequestHeadTooLarge,
            H1Error::MissingHost | H1Error::DuplicateHost | H1Error::InvalidHost => FaultKind::InvalidHost,
            H1Error::Http10 => FaultKind::Http10Refused,
            H1Error::Version => FaultKind::VersionNotSupported,
            H1Error::Encoding => FaultKind::EncodingNotSupported,
            H1Error::Expectation => FaultKind::ExpectationFailed,
            H1Error::ChunkSize
            | H1Error::ChunkExtension
            | H1Error::ChunkEnd
            | H1Error::TrailersTooLarge
            | H1Error::TrailerField => FaultKind::InvalidRequestBody,
            H1Error::Incomplete => FaultKind::ClientClosed,
            H1Error::LineEnd
            | H1Error::ObsFold
            | H1Error::SpaceBeforeColon
            | H1Error::FieldName
            | H1Error::FieldValue
            | H1Error::RequestLine
            | H1Error::Target
            | H1Error::StatusLine
            | H1Error::UnexpectedSwitch => FaultKind::BadRequest,
        };
        Self::new(kind).with_detail(error.to_string())
    }

    /// A response that [`crate::h1`] refused, before (`started` false) or after its head was passed on.
    #[must_use]
    pub fn of_response(error: H1Error, started: bool) -> Self {
        let kind = match (error, started) {
            (H1Error::Incomplete, false) => FaultKind::UpstreamClosed,
            (H1Error::Incomplete, true) => FaultKind::UpstreamClosedLate,
            (_, false) => FaultKind::UpstreamProtocol,
            (_, true) => FaultKind::UpstreamProtocolLate,
        };
        Self::new(kind).with_detail(error.to_string())
    }

    /// The row of the table.
    #[must_use]
    pub fn meaning(&self) -> &'static Meaning {
        self.kind.meaning()
    }

    /// Stable code.
    #[must_use]
    pub fn code(&self) -> Code {
        self.kind.code()
    }

    /// When the request may be sent again.
    #[must_use]
    pub fn retry(&self) -> Retry {
        self.meaning().retry
    }

    /// Response flags: the kind's, and `URX` when retries were used up.
    #[must_use]
    pub fn flags(&self) -> Flags {
        let flags = Flags::from(self.meaning().flag);
        if self.exhausted { flags.with(ResponseFlag::RetriesExhausted) } else { flags }
    }
}

impl From<FaultKind> for Fault {
    fn from(kind: FaultKind) -> Self {
        Self::new(kind)
    }
}

impl FaultKind {
    /// Stable code.
    #[must_use]
    pub const fn code(self) -> Code {
        Code(self.meaning().number)
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LTN-{:04}", self.0)
    }
}

/// Code and particular, for logs: `LTN-3002 ConnectFailed: connection refused`.
impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.code(), self.meaning().name)?;
        self.detail.as_ref().map_or(Ok(()), |detail| write!(f, ": {detail}"))
    }
}

#[cfg(test)]
mod tests;
