//! What HTTP routes do.

use std::sync::Arc;
use std::time::Duration;

use mesh_api::codes::Code;
use mesh_api::crd::common::{Percent, StringMatch};
use mesh_api::crd::core::secret::SecretBytes;
use mesh_api::crd::networking::virtual_service::{
    CorsPolicy, FaultAbort as ApiAbort, FaultDelay as ApiDelay, HttpDirectResponse, HttpFaultInjection, HttpRedirect,
    HttpRetry, HttpRewrite, RedirectPort as ApiRedirectPort, UnmatchedPreflights,
};
use mesh_api::finding::Finding;
use mesh_api::text::Str;
use mesh_api_xds::ir::PerMillion;
use mesh_api_xds::ir::filter::{AbortStatus, Cors, Fault, FaultAbort, FaultDelay};
use mesh_api_xds::ir::matcher::{StringMatch as IrMatch, StringPattern};
use mesh_api_xds::ir::route::{
    Direct, PathRewrite, Redirect, RedirectPath, RedirectPort, RetryOn, RetryPolicy, RetrySafety,
};
use serde::Deserialize;
use serde::de::IntoDeserializer;
use serde::de::value::{Error as ValueError, StrDeserializer};

use super::Context;
use super::http_match::string_pattern;
use crate::snapshot::mesh::{DEFAULT_BACKOFF, DEFAULT_RETRY_ON};
use crate::snapshot::virtual_services::{RedirectRule, RetryRule};

/// Largest body of a direct response.
const MAX_DIRECT_BODY_BYTES: usize = 1 << 20;

/// gRPC's status names, by number.
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

/// Percent as a share of a million.
pub(super) fn share(cx: &mut Context<'_>, path: &str, percent: &Percent) -> Option<PerMillion> {
    if !(0.0..=100.0).contains(&percent.value) {
        return cx.cut(Code::InvalidValue, path, format!("{} is not a percentage", percent.value));
    }
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "within 0 and 1,000,000 by the test above"
    )]
    Some(PerMillion((percent.value * 10_000.0).round() as u32))
}

/// Whole percent as a share of a million.
pub(super) fn whole_share(cx: &mut Context<'_>, path: &str, percent: i64) -> Option<PerMillion> {
    match u32::try_from(percent) {
        Ok(percent) if percent <= 100 => Some(PerMillion(percent * 10_000)),
        _ => cx.cut(Code::InvalidValue, path, format!("{percent} is not a percentage")),
    }
}

/// Path edit and new authority.
pub(super) fn rewrite(
    cx: &mut Context<'_>,
    path: &str,
    rewrite: Option<&HttpRewrite>,
) -> Option<(PathRewrite, Option<Str>)> {
    let Some(HttpRewrite { uri, authority, uri_regex_rewrite }) = rewrite else {
        return Some((PathRewrite::Keep, None));
    };
    let edit = match uri_regex_rewrite {
        Some(_) if !uri.is_empty() => {
            return cx.cut(Code::Conflict, path, "uri and uriRegexRewrite exclude each other");
        }
        Some(edit) => PathRewrite::Regex {
            pattern: cx.regex(&format!("{path}.uriRegexRewrite.match"), &edit.pattern)?,
            substitution: edit.rewrite.clone(),
        },
        None if uri.is_empty() => PathRewrite::Keep,
        None => PathRewrite::Prefix(uri.clone()),
    };
    Some((edit, (!authority.is_empty()).then(|| authority.clone())))
}

/// Retries of a route.
pub(super) fn retry(cx: &mut Context<'_>, path: &str, retries: Option<&HttpRetry>) -> Option<RetryRule> {
    let Some(retries) = retries else { return Some(RetryRule::Default) };
    Some(retry_policy(cx, path, retries)?.map_or(RetryRule::Off, |policy| RetryRule::Own(Arc::new(policy))))
}

/// A written retry policy; the inner `None` is "no retries". Written by a user, it is obeyed as written.
pub(crate) fn retry_policy(cx: &mut Context<'_>, path: &str, retries: &HttpRetry) -> Option<Option<RetryPolicy>> {
    let HttpRetry {
        attempts,
        per_try_timeout,
        retry_on,
        retry_remote_localities,
        retry_ignore_previous_hosts,
        backoff,
    } = retries;
    let attempts = match u32::try_from(*attempts) {
        Ok(0) => return Some(None),
        Ok(attempts) => attempts,
        Err(_) => return cx.cut(Code::InvalidValue, &format!("{path}.attempts"), "is negative"),
    };
    if *retry_remote_localities == Some(true) {
        let message = "retries are not steered to other localities yet";
        cx.report(Finding::new(Code::NotActing, format!("{path}.retryRemoteLocalities"), message));
    }
    let (on, statuses) = if retry_on.is_empty() {
        (DEFAULT_RETRY_ON, Vec::new())
    } else {
        conditions(cx, &format!("{path}.retryOn"), retry_on)
    };
    Some(Some(RetryPolicy {
        on,
        attempts,
        per_try_timeout: per_try_timeout.map(|text| text.0).filter(|time| !time.is_zero()),
        statuses: statuses.into(),
        avoid_previous: retry_ignore_previous_hosts.unwrap_or(true),
        backoff: backoff.map(|text| text.0).filter(|time| !time.is_zero()).unwrap_or(DEFAULT_BACKOFF),
        safety: RetrySafety::AsConfigured,
        origin: cx.origin(),
    }))
}

/// `retryOn`: Envoy's words and plain statuses.
fn conditions(cx: &mut Context<'_>, path: &str, text: &str) -> (RetryOn, Vec<u16>) {
    let mut on = RetryOn::default();
    let mut statuses = Vec::new();
    for word in text.split(',').map(str::trim).filter(|word| !word.is_empty()) {
        if let Some(condition) = RetryOn::from_word(word) {
            on = on.union(condition);
        } else if let Some(status) = word.parse().ok().filter(|status| (100..600).contains(status)) {
            statuses.push(status);
            on = on.union(RetryOn::STATUS_CODES);
        } else {
            cx.cut::<()>(Code::InvalidValue, path, format!("{word:?} is neither a retry condition nor a status"));
        }
    }
    (on, statuses)
}

/// A redirect.
pub(super) fn redirect(cx: &mut Context<'_>, path: &str, redirect: &HttpRedirect) -> Option<RedirectRule> {
    let HttpRedirect { uri, prefix_rewrite, authority, port, derive_port, scheme, redirect_code } = redirect;
    let status = match redirect_code {
        0 => 301,
        301 | 302 | 303 | 307 | 308 => u16::try_from(*redirect_code).ok()?,
        other => {
            let message = format!("{other} is not a redirect: 301, 302, 303, 307 or 308");
            return cx.cut(Code::InvalidValue, &format!("{path}.redirectCode"), message);
        }
    };
    let new_path = match (uri.is_empty(), prefix_rewrite.is_empty()) {
        (false, false) => return cx.cut(Code::Conflict, path, "uri and prefixRewrite exclude each other"),
        (false, true) => RedirectPath::Full(uri.clone()),
        (true, false) => RedirectPath::Prefix(prefix_rewrite.clone()),
        (true, true) => RedirectPath::Keep,
    };
    let mut from_request_port = false;
    let new_port = match (port, derive_port) {
        (Some(_), Some(_)) => return cx.cut(Code::Conflict, path, "port and derivePort exclude each other"),
        (Some(port), None) => RedirectPort::Port(cx.port(&format!("{path}.port"), *port)?),
        (None, Some(ApiRedirectPort::FromProtocolDefault)) => RedirectPort::Strip,
        (None, Some(ApiRedirectPort::FromRequestPort)) => {
            from_request_port = true;
            RedirectPort::Keep
        }
        (None, None) => RedirectPort::Keep,
    };
    let nothing = authority.is_empty() && scheme.is_empty() && new_path == RedirectPath::Keep;
    if nothing && new_port == RedirectPort::Keep && !from_request_port {
        return cx.cut(Code::Required, path, "needs one of uri, prefixRewrite, authority, port and scheme");
    }
    let text = |text: &Str| (!text.is_empty()).then(|| text.clone());
    let redirect =
        Redirect { status, scheme: text(scheme), authority: text(authority), port: new_port, path: new_path };
    Some(RedirectRule { redirect, from_request_port })
}

/// A fixed answer.
pub(super) fn direct(cx: &mut Context<'_>, path: &str, response: &HttpDirectResponse) -> Option<Direct> {
    let HttpDirectResponse { status, body } = response;
    let Ok(status @ 200..=599) = u16::try_from(*status) else {
        return cx.cut(Code::InvalidValue, &format!("{path}.status"), format!("{status} is not 200 to 599"));
    };
    let body: Vec<u8> = match body.as_ref().map(|body| (&body.string, &body.bytes)) {
        None | Some((None, None)) => Vec::new(),
        Some((Some(text), None)) => text.as_bytes().to_vec(),
        // base64 is read as a Secret's content is, which saves this crate a decoder of its own.
        Some((None, Some(base64))) => {
            let text: StrDeserializer<'_, ValueError> = base64.as_str().into_deserializer();
            match SecretBytes::deserialize(text) {
                Ok(bytes) => bytes.to_vec(),
                Err(_) => return cx.cut(Code::InvalidValue, &format!("{path}.body.bytes"), "is not base64"),
            }
        }
        Some((Some(_), Some(_))) => {
            return cx.cut(Code::Conflict, &format!("{path}.body"), "string and bytes exclude each other");
        }
    };
    if body.len() > MAX_DIRECT_BODY_BYTES {
        return cx.cut(Code::InvalidValue, &format!("{path}.body"), "is larger than 1 MiB");
    }
    Some(Direct { status, body: body.into() })
}

/// Injected faults; `None` when a part cannot be used, the inner `None` when there is nothing to inject.
pub(super) fn fault(cx: &mut Context<'_>, path: &str, fault: &HttpFaultInjection) -> Option<Option<Fault>> {
    let delay = match &fault.delay {
        Some(delay) => fault_delay(cx, &format!("{path}.delay"), delay)?,
        None => None,
    };
    let abort = match &fault.abort {
        Some(abort) => fault_abort(cx, &format!("{path}.abort"), abort)?,
        None => None,
    };
    Some((delay.is_some() || abort.is_some()).then_some(Fault { delay, abort }))
}

fn fault_delay(cx: &mut Context<'_>, path: &str, delay: &ApiDelay) -> Option<Option<FaultDelay>> {
    let ApiDelay { percent, fixed_delay, exponential_delay, percentage } = delay;
    if exponential_delay.is_some() {
        return cx.cut(Code::InvalidValue, &format!("{path}.exponentialDelay"), "never worked; use fixedDelay");
    }
    let Some(duration) = fixed_delay.map(|text| text.0).filter(|time| !time.is_zero()) else {
        return cx.cut(Code::Required, &format!("{path}.fixedDelay"), "a delay needs a length");
    };
    let share = match percentage {
        Some(percentage) => share(cx, &format!("{path}.percentage"), percentage)?,
        None => whole_share(cx, &format!("{path}.percent"), i64::from(*percent))?,
    };
    if share == PerMillion(0) {
        cx.report(Finding::new(Code::Ineffective, path, "delays no request").hint("set percentage.value"));
        return Some(None);
    }
    Some(Some(FaultDelay { share, duration }))
}

fn fault_abort(cx: &mut Context<'_>, path: &str, abort: &ApiAbort) -> Option<Option<FaultAbort>> {
    let ApiAbort { http_status, grpc_status, http2_error, percentage } = abort;
    if http2_error.is_some() {
        return cx.cut(Code::InvalidValue, &format!("{path}.http2Error"), "never worked; use httpStatus");
    }
    let status = match (http_status, grpc_status) {
        (Some(status), None) => match u16::try_from(*status) {
            Ok(status @ 200..=599) => AbortStatus::Http(status),
            _ => {
                return cx.cut(
                    Code::InvalidValue,
                    &format!("{path}.httpStatus"),
                    format!("{status} is not 200 to 599"),
                );
            }
        },
        (None, Some(text)) => {
            let named = GRPC_STATUSES.iter().position(|name| *name == text.as_str());
            let number = named.or_else(|| text.parse().ok().filter(|number| *number < GRPC_STATUSES.len()));
            match number.and_then(|number| u16::try_from(number).ok()) {
                Some(number) => AbortStatus::Grpc(number),
                None => {
                    let message = format!("{text:?} is not a gRPC status such as UNAVAILABLE");
                    return cx.cut(Code::InvalidValue, &format!("{path}.grpcStatus"), message);
                }
            }
        }
        _ => return cx.cut(Code::Required, path, "needs exactly one of httpStatus and grpcStatus"),
    };
    let share = match percentage {
        Some(percentage) => share(cx, &format!("{path}.percentage"), percentage)?,
        None => PerMillion(0),
    };
    if share == PerMillion(0) {
        cx.report(Finding::new(Code::Ineffective, path, "aborts no request").hint("set percentage.value"));
        return Some(None);
    }
    Some(Some(FaultAbort { share, status }))
}

/// A CORS policy.
pub(super) fn cors(cx: &mut Context<'_>, path: &str, policy: &CorsPolicy) -> Option<Cors> {
    let CorsPolicy {
        allow_origin,
        allow_origins,
        allow_methods,
        allow_headers,
        expose_headers,
        max_age,
        allow_credentials,
        unmatched_preflights,
    } = policy;
    let mut origins = Vec::new();
    let exact = allow_origin.iter().map(|text| StringMatch::Exact(text.clone()));
    for (index, origin) in allow_origins.iter().cloned().chain(exact).enumerate() {
        let pattern = match origin {
            // Envoy takes the literal star for any origin.
            StringMatch::Exact(text) if text == "*" => StringPattern::Regex(Str::from(".*")),
            other => string_pattern(cx, &format!("{path}.allowOrigins[{index}]"), &other)?,
        };
        origins.push(IrMatch::new(pattern));
    }
    Some(Cors {
        origins: origins.into(),
        methods: joined(allow_methods),
        headers: joined(allow_headers),
        expose: joined(expose_headers),
        max_age: max_age.map(|text| Duration::from_secs(text.0.as_secs())),
        credentials: *allow_credentials == Some(true),
        forward_unmatched: *unmatched_preflights != UnmatchedPreflights::Ignore,
    })
}

fn joined(list: &[Str]) -> Str {
    Str::from(list.iter().map(Str::as_str).collect::<Vec<_>>().join(","))
}
