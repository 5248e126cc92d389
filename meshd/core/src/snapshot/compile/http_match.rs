//! Conditions of HTTP routes.

use std::sync::Arc;

use mesh_api::codes::Code;
use mesh_api::crd::common::StringMatch;
use mesh_api::crd::networking::virtual_service::HttpMatchRequest;
use mesh_api::finding::Finding;
use mesh_api::ids::Namespace;
use mesh_api::text::Str;
use mesh_api_xds::ir::matcher::{HeaderMatch, QueryMatch, StringMatch as IrMatch, StringPattern, ValueTest};
use mesh_api_xds::ir::route::{PathMatch, RouteMatch};

use super::headers::is_header_name;
use super::{Context, gateway_refs};
use crate::snapshot::virtual_services::{HttpCase, StaticMatch};

/// The match of a route that has none.
pub(super) fn anything() -> HttpCase {
    HttpCase {
        on: StaticMatch::default(),
        name: Str::empty(),
        matches: RouteMatch {
            path: PathMatch::Prefix(Str::from("/")),
            case_sensitive: true,
            headers: Arc::default(),
            query: Arc::default(),
        },
    }
}

/// One match block; `None` when a condition of it cannot be used.
pub(super) fn http_case(cx: &mut Context<'_>, path: &str, request: &HttpMatchRequest) -> Option<HttpCase> {
    let HttpMatchRequest {
        name,
        uri,
        scheme,
        method,
        authority,
        headers,
        port,
        source_labels,
        gateways,
        query_params,
        ignore_uri_case,
        without_headers,
        source_namespace,
        stat_prefix,
    } = request;
    if !stat_prefix.is_empty() {
        let message = "routes have no statistics of their own yet";
        cx.report(Finding::new(Code::NotActing, format!("{path}.statPrefix"), message));
    }
    let on = StaticMatch {
        port: if *port == 0 { None } else { Some(cx.port(&format!("{path}.port"), *port)?) },
        source_labels: source_labels.clone(),
        source_namespace: (!source_namespace.is_empty()).then(|| Namespace::from(source_namespace)),
        gateways: if gateways.is_empty() { None } else { Some(gateway_refs(cx, gateways)) },
    };
    let path_match = path_match(cx, &format!("{path}.uri"), uri.as_ref())?;
    let mut tests = Vec::new();
    for (pseudo, value) in [(":scheme", scheme), (":method", method), (":authority", authority)] {
        if let Some(value) = value {
            let field = pseudo.trim_start_matches(':');
            tests.push(header(cx, &format!("{path}.{field}"), pseudo, value, false)?);
        }
    }
    for (list, what, invert) in [(headers, "headers", false), (without_headers, "withoutHeaders", true)] {
        for (name, value) in list {
            let path = format!("{path}.{what}[{name}]");
            if matches!(name.as_str(), "uri" | "scheme" | "method" | "authority") {
                cx.report(Finding::new(Code::Ineffective, path, "has its own field and is ignored here"));
                continue;
            }
            if name.starts_with('@') {
                return cx.cut(
                    Code::NotActing,
                    &path,
                    "matching on token claims does not act yet, so the route is left out",
                );
            }
            let lower = name.to_ascii_lowercase();
            if !is_header_name(&lower) && !lower.starts_with(':') {
                return cx.cut(Code::InvalidValue, &path, format!("{name:?} is not a header"));
            }
            tests.push(header(cx, &path, &lower, value, invert)?);
        }
    }
    let mut query = Vec::new();
    for (name, value) in query_params {
        let test = value_test(cx, &format!("{path}.queryParams[{name}]"), value)?;
        query.push(QueryMatch { name: name.clone(), test });
    }
    let matches = RouteMatch {
        case_sensitive: !*ignore_uri_case || matches!(path_match, PathMatch::Regex(_)),
        path: path_match,
        headers: tests.into(),
        query: query.into(),
    };
    Some(HttpCase { on, name: name.clone(), matches })
}

fn path_match(cx: &mut Context<'_>, path: &str, uri: Option<&StringMatch>) -> Option<PathMatch> {
    Some(match uri {
        None | Some(StringMatch::Present) => PathMatch::Prefix(Str::from("/")),
        Some(StringMatch::Exact(text)) => PathMatch::Exact(text.clone()),
        Some(StringMatch::Prefix(text)) if text.is_empty() => {
            return cx.cut(Code::InvalidValue, path, "an empty prefix says nothing; use /");
        }
        Some(StringMatch::Prefix(text)) => PathMatch::Prefix(text.clone()),
        Some(StringMatch::Regex(text)) => PathMatch::Regex(cx.regex(path, text)?),
    })
}

fn header(cx: &mut Context<'_>, path: &str, name: &str, value: &StringMatch, invert: bool) -> Option<HeaderMatch> {
    let test = value_test(cx, path, value)?;
    // Without this, `withoutHeaders: {x: {exact: a}}` would not let a request through that lacks the header.
    let missing_is_empty = invert && test != ValueTest::Present;
    Some(HeaderMatch { name: Str::from(name), test, invert, missing_is_empty })
}

fn value_test(cx: &mut Context<'_>, path: &str, value: &StringMatch) -> Option<ValueTest> {
    Some(match value {
        StringMatch::Present => ValueTest::Present,
        // Istio reads the lone star of other tools as presence, although it is no regular expression.
        StringMatch::Regex(text) if text == "*" => ValueTest::Present,
        StringMatch::Prefix(text) if text.is_empty() => {
            return cx.cut(Code::InvalidValue, path, "an empty prefix says nothing; use {} for presence");
        }
        other => ValueTest::Matches(IrMatch::new(string_pattern(cx, path, other)?)),
    })
}

/// A test on one string; presence and an empty prefix are none.
pub(super) fn string_pattern(cx: &mut Context<'_>, path: &str, value: &StringMatch) -> Option<StringPattern> {
    match value {
        StringMatch::Exact(text) => Some(StringPattern::Exact(text.clone())),
        StringMatch::Prefix(text) if !text.is_empty() => Some(StringPattern::Prefix(text.clone())),
        StringMatch::Regex(text) => Some(StringPattern::Regex(cx.regex(path, text)?)),
        StringMatch::Present | StringMatch::Prefix(_) => {
            cx.cut(Code::InvalidValue, path, "must be one of exact, a non-empty prefix, and regex")
        }
    }
}
