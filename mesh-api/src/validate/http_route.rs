//! Rules of a VirtualService's HTTP routes.

use base64::{Engine, engine::general_purpose::STANDARD};

use super::{
    check::Check,
    route_parts::{destination, source, weights},
};
use crate::{
    codes::Code,
    crd::{
        common::{Percent, StringMatch},
        networking::virtual_service::{
            CorsPolicy, FaultAbort, FaultDelay, HeaderOperations, Headers, HttpBody, HttpDirectResponse,
            HttpFaultInjection, HttpMatchRequest, HttpRedirect, HttpRetry, HttpRewrite, HttpRoute,
        },
    },
};

/// The largest body of a direct response, in bytes. istio/istio: pkg/config/validation MaxDirectResponseSize.
pub const MAX_DIRECT_RESPONSE_BYTES: usize = 1 << 20;
/// Bodies above this deserve a warning: every proxy holds them. Istio's limit.
const LARGE_DIRECT_RESPONSE_BYTES: usize = 100 << 10;

/// What `retryOn` may hold besides status codes. Envoy: docs, x-envoy-retry-on and x-envoy-retry-grpc-on.
const RETRY_CONDITIONS: &[&str] = &[
    "5xx",
    "gateway-error",
    "reset",
    "reset-before-request",
    "connect-failure",
    "envoy-ratelimited",
    "retriable-4xx",
    "refused-stream",
    "retriable-status-codes",
    "retriable-headers",
    "http3-post-connect-failure",
    "cancelled",
    "deadline-exceeded",
    "internal",
    "resource-exhausted",
    "unavailable",
];

/// Methods of requests across origins.
const METHODS: &[&str] = &["*", "GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"];

/// gRPC's status names, by number. grpc/grpc: doc/statuscodes.md.
const GRPC_STATUSES: [&str; 17] = [
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];

/// The number of a gRPC status by its name (also in the forms `CamelCase`, `kebab-case`) or its number.
#[must_use]
pub fn grpc_status(text: &str) -> Option<u32> {
    if let Ok(number) = text.parse::<u32>() {
        return (number <= 16).then_some(number);
    }
    let plain = |t: &str| t.replace(['_', '-'], "").to_ascii_uppercase();
    let wanted = plain(text);
    // grpc-go spells it with one L.
    let wanted = if wanted == "CANCELED" { "CANCELLED" } else { &wanted };
    let at = GRPC_STATUSES.iter().position(|name| plain(name) == *wanted)?;
    u32::try_from(at).ok()
}

pub(super) fn check(check: &mut Check, route: &HttpRoute, only_mesh: bool) {
    check.exclusive(&[
        ("redirect", route.redirect.is_some()),
        ("directResponse", route.direct_response.is_some()),
        ("delegate", route.delegate.is_some()),
        ("route", !route.route.is_empty()),
    ]);
    if route.redirect.is_none() && route.direct_response.is_none() && route.delegate.is_none() && route.route.is_empty()
    {
        check.here(Code::Required, "has no action: needs one of route, redirect and directResponse");
    }
    for (name, answers) in [("redirect", route.redirect.is_some()), ("directResponse", route.direct_response.is_some())]
    {
        check.exclusive(&[("fault", answers && route.fault.is_some()), (name, answers && route.fault.is_some())]);
        check.exclusive(&[("rewrite", answers && route.rewrite.is_some()), (name, answers && route.rewrite.is_some())]);
    }
    check.exclusive(&[("mirror", route.mirror.is_some()), ("mirrors", !route.mirrors.is_empty())]);
    check.each("match", &route.matches, |check, m| match_request(check, m, only_mesh));
    check.each("route", &route.route, |check, target| {
        check.field("destination", |check| destination(check, &target.destination));
        check.some("headers", target.headers.as_ref(), headers);
        if sets_authority(target.headers.as_ref()) > 0 && authorities(route) > 0 {
            check.at("headers.request", Code::Ineffective, "the authority that the route as a whole sets counts");
        }
    });
    weights(check, route.route.iter().map(|r| r.weight).collect());
    check.some("redirect", route.redirect.as_ref(), |check, r| redirect(check, r, &route.matches));
    check.some("directResponse", route.direct_response.as_ref(), direct_response);
    check.some("rewrite", route.rewrite.as_ref(), |check, r| rewrite(check, r, &route.matches));
    check.duration_or_zero("timeout", route.timeout);
    check.some("retries", route.retries.as_ref(), retries);
    check.some("fault", route.fault.as_ref(), fault);
    check.some("mirror", route.mirror.as_ref(), destination);
    check.each("mirrors", &route.mirrors, |check, mirror| {
        check.required("destination", mirror.destination.is_some());
        check.some("destination", mirror.destination.as_ref(), destination);
        check.some("percentage", mirror.percentage.as_ref(), percent);
    });
    check.some("mirrorPercentage", route.mirror_percentage.as_ref(), percent);
    if let Some(share) = route.mirror_percent {
        check.hinted("mirrorPercent", Code::Deprecated, "is deprecated", "use mirrorPercentage");
        check.range("mirrorPercent", share, 0, 100);
    }
    check.some("corsPolicy", route.cors_policy.as_ref(), cors);
    check.some("headers", route.headers.as_ref(), headers);
    if authorities(route) > 1 {
        check.at("headers.request", Code::Conflict, "the authority is set more than once");
    }
}

fn match_request(check: &mut Check, m: &HttpMatchRequest, in_mesh: bool) {
    if *m == HttpMatchRequest::default() {
        check.here(Code::Ineffective, "has no condition, so it matches everything").hint = "leave match out".into();
        return;
    }
    // An empty prefix of the path is every path; elsewhere proxies refuse it.
    if !matches!(&m.uri, Some(StringMatch::Prefix(text)) if text.is_empty()) {
        check.some("uri", m.uri.as_ref(), |check, uri| check.string_match("", uri));
    }
    check.some("scheme", m.scheme.as_ref(), |check, scheme| check.string_match("", scheme));
    check.some("method", m.method.as_ref(), |check, method| check.string_match("", method));
    check.some("authority", m.authority.as_ref(), |check, authority| check.string_match("", authority));
    for (field, map) in [("headers", &m.headers), ("withoutHeaders", &m.without_headers)] {
        for (name, value) in map {
            check.field(&format!("{field}.{name}"), |check| header_match(check, name, value, in_mesh));
        }
    }
    for (name, value) in &m.query_params {
        check.optional_match(&format!("queryParams.{name}"), value);
    }
    source(check, m.port, &m.source_labels, &m.gateways, &m.source_namespace);
    if !m.gateways.is_empty() && !m.source_labels.is_empty() {
        check.at("sourceLabels", Code::Ineffective, "have no effect in a match that names gateways");
    }
    let ignores_case = matches!(m.uri, Some(StringMatch::Exact(_) | StringMatch::Prefix(_)));
    if m.ignore_uri_case && !ignores_case {
        check.at("ignoreUriCase", Code::Ineffective, "has an effect on an exact or prefix uri only");
    }
}

fn header_match(check: &mut Check, name: &str, value: &StringMatch, in_mesh: bool) {
    if let Some(claim) = name.strip_prefix("@request.auth.claims") {
        let message = format!("matching the claim {claim:?} of a token does not act yet in this release");
        check.here(Code::NotActing, message);
        if in_mesh {
            check.here(Code::Conflict, "claims of tokens can be matched at gateways only");
        }
        return;
    }
    if ["uri", "scheme", "method", "authority"].contains(&name) {
        check.here(Code::Ineffective, format!("{name} is no header; use the field {name} of the match"));
    }
    header_name(check, name);
    if name.bytes().any(|b| b.is_ascii_uppercase()) {
        check.here(Code::Deprecated, format!("header names are in lower case: {}", name.to_ascii_lowercase()));
    }
    check.optional_match("", value);
}

/// A token by RFC 9110 section 5.6.2; a leading `:` is allowed for pseudo headers.
fn header_name(check: &mut Check, name: &str) {
    let token = name.strip_prefix(':').unwrap_or(name);
    let legal = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    if token.is_empty() || !token.bytes().all(legal) {
        check.here(Code::InvalidName, format!("{name:?} is not the name of a header"));
    }
}

fn headers(check: &mut Check, headers: &Headers) {
    check.some("request", headers.request.as_ref(), |check, o| operations(check, o, true));
    check.some("response", headers.response.as_ref(), |check, o| operations(check, o, false));
}

fn operations(check: &mut Check, operations: &HeaderOperations, of_request: bool) {
    for (field, map) in [("set", &operations.set), ("add", &operations.add)] {
        for (name, value) in map {
            check.field(&format!("{field}.{name}"), |check| {
                header_name(check, name);
                if is_reserved(name) && !(of_request && is_authority(name)) {
                    check.here(Code::InvalidValue, format!("{name} cannot be set"));
                }
                // RFC 9110 section 5.5: visible characters, blanks and tabs; no line ends, no NUL.
                if value.bytes().any(|b| (b < b' ' && b != b'\t') || b == 0x7f) {
                    check.here(Code::InvalidValue, "the value holds a control character");
                }
                if !is_format(value) {
                    let message = format!("{value:?} has a '%' that begins no variable such as %PROTOCOL%");
                    check.here(Code::InvalidValue, message).hint = "write %% for a percent sign".into();
                }
            });
        }
    }
    check.each("remove", &operations.remove, |check, name| {
        header_name(check, name);
        if is_reserved(name) {
            check.here(Code::InvalidValue, format!("{name} cannot be removed"));
        }
    });
}

fn is_authority(name: &str) -> bool {
    name.eq_ignore_ascii_case("host") || name.eq_ignore_ascii_case(":authority")
}

fn is_reserved(name: &str) -> bool {
    name.starts_with(':') || is_authority(name)
}

/// Whether each `%` is doubled or begins and ends a variable: `%NAME%`, `%NAME(argument)%`, `%NAME(argument):12%`.
fn is_format(value: &str) -> bool {
    let mut rest = value;
    while let Some((_, after)) = rest.split_once('%') {
        if let Some(after) = after.strip_prefix('%') {
            rest = after;
            continue;
        }
        let name = after.find(|c: char| !(c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_')).unwrap_or(0);
        let mut tail = after.get(name..).unwrap_or_default();
        if let Some(arguments) = tail.strip_prefix('(') {
            let Some((_, after)) = arguments.split_once(')') else { return false };
            tail = after;
        }
        if let Some(length) = tail.strip_prefix(':') {
            tail = length.trim_start_matches(|c: char| c.is_ascii_digit());
        }
        match tail.strip_prefix('%') {
            Some(after) if name > 0 => rest = after,
            _ => return false,
        }
    }
    true
}

/// How often these headers set the authority of the request.
fn sets_authority(headers: Option<&Headers>) -> usize {
    let request = headers.and_then(|h| h.request.as_ref());
    request.map_or(0, |r| r.set.iter().chain(&r.add).filter(|(name, _)| is_authority(name)).count())
}

/// How often the route as a whole sets the authority of the request.
fn authorities(route: &HttpRoute) -> usize {
    let rewrites = route.rewrite.as_ref().is_some_and(|r| !r.authority.is_empty());
    usize::from(rewrites) + sets_authority(route.headers.as_ref())
}

fn redirect(check: &mut Check, redirect: &HttpRedirect, matches: &[HttpMatchRequest]) {
    let says_where = !redirect.uri.is_empty()
        || !redirect.prefix_rewrite.is_empty()
        || !redirect.authority.is_empty()
        || !redirect.scheme.is_empty()
        || redirect.port.is_some()
        || redirect.derive_port.is_some();
    if !says_where {
        check.here(Code::Required, "needs one of uri, prefixRewrite, authority, scheme, port and derivePort");
    }
    check.exclusive(&[("uri", !redirect.uri.is_empty()), ("prefixRewrite", !redirect.prefix_rewrite.is_empty())]);
    check.exclusive(&[("port", redirect.port.is_some()), ("derivePort", redirect.derive_port.is_some())]);
    let only_prefixes = matches.iter().all(|m| matches!(m.uri, None | Some(StringMatch::Prefix(_))));
    if !redirect.prefix_rewrite.is_empty() && !only_prefixes {
        check.at("prefixRewrite", Code::Conflict, "needs prefix wherever a match has a uri");
    }
    if let Some(port) = redirect.port {
        check.port("port", port);
    }
    if !redirect.scheme.is_empty() && !["http", "https"].contains(&&*redirect.scheme) {
        check.at("scheme", Code::InvalidValue, "is neither http nor https");
    }
    if ![0, 301, 302, 303, 307, 308].contains(&redirect.redirect_code) {
        check.at("redirectCode", Code::InvalidValue, "is not one of 301, 302, 303, 307 and 308");
    }
}

fn direct_response(check: &mut Check, response: &HttpDirectResponse) {
    check.range("status", response.status, 200, 599);
    check.some("body", response.body.as_ref(), body);
}

fn body(check: &mut Check, body: &HttpBody) {
    check.exclusive(&[("string", body.string.is_some()), ("bytes", body.bytes.is_some())]);
    let size = match (&body.string, &body.bytes) {
        (Some(text), _) => text.len(),
        (None, Some(text)) => match STANDARD.decode(text.as_bytes()) {
            Ok(bytes) => bytes.len(),
            Err(_) => return check.at("bytes", Code::InvalidValue, "is not base64"),
        },
        (None, None) => {
            check.here(Code::Required, "needs one of string and bytes");
            return;
        }
    };
    if size > MAX_DIRECT_RESPONSE_BYTES {
        check.here(Code::InvalidValue, format!("has {size} bytes, more than {MAX_DIRECT_RESPONSE_BYTES}"));
    } else if size > LARGE_DIRECT_RESPONSE_BYTES {
        check.here(Code::Ineffective, format!("has {size} bytes, which every proxy keeps in memory"));
    }
}

fn rewrite(check: &mut Check, rewrite: &HttpRewrite, matches: &[HttpMatchRequest]) {
    if *rewrite == HttpRewrite::default() {
        check.here(Code::Required, "needs one of uri, uriRegexRewrite and authority");
    }
    check.exclusive(&[("uri", !rewrite.uri.is_empty()), ("uriRegexRewrite", rewrite.uri_regex_rewrite.is_some())]);
    if !rewrite.uri.is_empty() && matches.iter().any(|m| matches!(m.uri, Some(StringMatch::Regex(_)))) {
        let hint = "use uriRegexRewrite";
        check.hinted("uri", Code::Ineffective, "cannot replace a path that is matched by a regex", hint);
    }
    check.some("uriRegexRewrite", rewrite.uri_regex_rewrite.as_ref(), |check, regex| {
        check.regex("match", &regex.pattern);
    });
}

fn retries(check: &mut Check, retries: &HttpRetry) {
    check.not_negative("attempts", retries.attempts);
    check.duration_or_zero("perTryTimeout", retries.per_try_timeout);
    check.duration("backoff", retries.backoff);
    if retries.attempts == 0 && *retries != HttpRetry::default() {
        check.at("attempts", Code::Ineffective, "is 0, which turns retries off whatever else is set");
    }
    for token in retries.retry_on.split(',').map(str::trim).filter(|t| !t.is_empty()) {
        let is_status = token.parse::<u32>().is_ok_and(|code| (100..=599).contains(&code));
        if !is_status && !RETRY_CONDITIONS.contains(&token) {
            let near = crate::near::nearest(token, RETRY_CONDITIONS.iter().copied());
            let hint = near.map(|near| format!("did you mean {near}?")).unwrap_or_default();
            check.hinted("retryOn", Code::InvalidValue, format!("{token:?} is not a condition for retries"), hint);
        }
    }
}

fn percent(check: &mut Check, percent: &Percent) {
    check.percent("value", percent.value);
}

fn fault(check: &mut Check, fault: &HttpFaultInjection) {
    if fault.delay.is_none() && fault.abort.is_none() {
        check.here(Code::Required, "needs delay or abort");
    }
    check.some("delay", fault.delay.as_ref(), delay);
    check.some("abort", fault.abort.as_ref(), abort);
}

fn delay(check: &mut Check, delay: &FaultDelay) {
    if delay.fixed_delay.is_none() && delay.exponential_delay.is_none() {
        check.at("fixedDelay", Code::Ineffective, "is missing, so nothing is delayed");
    }
    check.duration("fixedDelay", delay.fixed_delay);
    if delay.exponential_delay.is_some() {
        check.hinted("exponentialDelay", Code::InvalidValue, "does not work, in Istio neither", "use fixedDelay");
    }
    if delay.percent != 0 {
        check.hinted("percent", Code::Deprecated, "is deprecated", "use percentage");
        check.range("percent", delay.percent, 0, 100);
    } else if delay.percentage.is_none() {
        check.hinted(
            "percentage",
            Code::Ineffective,
            "is missing, so nothing is delayed",
            "write percentage: {value: 100}",
        );
    }
    check.some("percentage", delay.percentage.as_ref(), percent);
}

fn abort(check: &mut Check, abort: &FaultAbort) {
    check.exclusive(&[
        ("httpStatus", abort.http_status.is_some()),
        ("grpcStatus", abort.grpc_status.is_some()),
        ("http2Error", abort.http2_error.is_some()),
    ]);
    match (abort.http_status, &abort.grpc_status, &abort.http2_error) {
        (None, None, None) => {
            check.here(Code::Ineffective, "has neither httpStatus nor grpcStatus, so nothing is aborted");
        }
        (Some(status), ..) => check.range("httpStatus", status, 200, 599),
        (None, Some(status), _) => {
            if grpc_status(status).is_none() {
                check.at("grpcStatus", Code::InvalidValue, format!("{status:?} is not a gRPC status"));
            }
        }
        (None, None, Some(_)) => check.at("http2Error", Code::InvalidValue, "does not work, in Istio neither"),
    }
    if abort.percentage.is_none() {
        let hint = "write percentage: {value: 100}";
        check.hinted("percentage", Code::Ineffective, "is missing, so nothing is aborted", hint);
    }
    check.some("percentage", abort.percentage.as_ref(), percent);
}

fn cors(check: &mut Check, cors: &CorsPolicy) {
    if !cors.allow_origin.is_empty() {
        check.hinted("allowOrigin", Code::Deprecated, "is deprecated", "use allowOrigins");
    }
    check.each("allowOrigins", &cors.allow_origins, |check, origin| match origin {
        StringMatch::Present => check.required("", false),
        StringMatch::Exact(text) => check.required("exact", !text.is_empty()),
        other => check.string_match("", other),
    });
    check.each("allowMethods", &cors.allow_methods, |check, method| {
        if !METHODS.contains(&&**method) {
            check.here(Code::InvalidValue, format!("{method:?} is not a method"));
        }
    });
    for (field, names) in [("allowHeaders", &cors.allow_headers), ("exposeHeaders", &cors.expose_headers)] {
        check.each(field, names, |check, name| {
            if *name != "*" {
                header_name(check, name);
            }
        });
    }
    if cors.max_age.is_some_and(|age| age.subsec_nanos() != 0) {
        check.at("maxAge", Code::InvalidValue, "is not a whole number of seconds");
    }
}
