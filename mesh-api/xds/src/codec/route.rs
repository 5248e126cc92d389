//! Routes.

use std::sync::Arc;
use std::time::Duration;

use mesh_api::text::Str;

use super::common::{
    bool_value, duration, inline, read_bool, read_duration, read_inline, read_limit, read_port, read_runtime_share,
    read_u32, share, u32_value,
};
use super::error::{At, DecodeError, EncodeError, bad, each_arc, fail, leftover, required};
use super::metadata::Metadata;
use super::{filter, matcher, retry};
use crate::ir::PerMillion;
use crate::ir::route::{
    Action, Destination, Direct, Edits, Forward, HeaderEdits, Mirror, PathMatch, PathRewrite, Redirect, RedirectPath,
    RedirectPort, Route, RouteMatch, WeightedCluster,
};
use crate::pb;
use crate::pb::core::header_value_option::HeaderAppendAction;
use crate::pb::route::redirect_action::{PathRewriteSpecifier, RedirectResponseCode, SchemeRewriteSpecifier};
use crate::pb::route::route::Action as ActionMessage;
use crate::pb::route::route_action::{ClusterSpecifier, HostRewriteSpecifier, MaxStreamDuration, RequestMirrorPolicy};
use crate::pb::route::route_match::PathSpecifier;
use crate::pb::route::weighted_cluster::ClusterWeight;

/// Longest body of a direct answer, in bytes; Envoy's own bound would be 4 KiB.
pub(super) const MAX_DIRECT_BODY_BYTES: u32 = 1 << 20;
/// Envoy's default route timeout.
const TIMEOUT: Duration = Duration::from_secs(15);

pub(super) fn encode(route: &Route) -> Result<pb::route::Route, EncodeError> {
    let mut metadata = Metadata::default();
    metadata.set_origin("origin", &route.origin);
    let action = match &route.action {
        Action::Forward(forward) => ActionMessage::Route(encode_forward(forward, &mut metadata)),
        Action::Redirect(redirect) => ActionMessage::Redirect(encode_redirect(redirect, &mut metadata).at("redirect")?),
        Action::Direct(direct) => ActionMessage::DirectResponse(pb::route::DirectResponseAction {
            status: direct.status.into(),
            body: (!direct.body.is_empty()).then(|| inline(&direct.body)),
            ..pb::route::DirectResponseAction::default()
        }),
    };
    Ok(pb::route::Route {
        name: route.name.to_string(),
        r#match: Some(encode_match(&route.matches)),
        metadata: metadata.write(),
        typed_per_filter_config: filter::encode_route(&route.filters)?,
        request_headers_to_add: encode_edits(&route.headers.request),
        request_headers_to_remove: encode_removals(&route.headers.request),
        response_headers_to_add: encode_edits(&route.headers.response),
        response_headers_to_remove: encode_removals(&route.headers.response),
        action: Some(action),
        ..pb::route::Route::default()
    })
}

pub(super) fn decode(mut message: pb::route::Route) -> Result<Route, DecodeError> {
    let metadata = Metadata::read(message.metadata.take());
    // The name of a span and of statistics.
    message.decorator = None;
    message.stat_prefix.clear();
    let action = match required(message.action.take(), "action")? {
        ActionMessage::Route(action) => Action::Forward(decode_forward(action, &metadata).at("route")?),
        ActionMessage::Redirect(action) => Action::Redirect(decode_redirect(action, &metadata).at("redirect")?),
        ActionMessage::DirectResponse(action) => Action::Direct(decode_direct(action).at("direct_response")?),
        ActionMessage::FilterAction(_) | ActionMessage::NonForwardingAction(_) => {
            return fail("only route, redirect and direct_response are supported").at("action");
        }
    };
    let route = Route {
        name: std::mem::take(&mut message.name).into(),
        matches: decode_match(required(message.r#match.take(), "match")?).at("match")?,
        action,
        headers: HeaderEdits {
            request: decode_edits(
                "request_headers",
                std::mem::take(&mut message.request_headers_to_add),
                std::mem::take(&mut message.request_headers_to_remove),
            )?,
            response: decode_edits(
                "response_headers",
                std::mem::take(&mut message.response_headers_to_add),
                std::mem::take(&mut message.response_headers_to_remove),
            )?,
        },
        filters: filter::decode_route(std::mem::take(&mut message.typed_per_filter_config))?,
        origin: metadata.origin("origin"),
    };
    leftover(&message)?;
    Ok(route)
}

fn encode_match(matches: &RouteMatch) -> pb::route::RouteMatch {
    let path = match &matches.path {
        PathMatch::Prefix(text) => PathSpecifier::Prefix(text.to_string()),
        PathMatch::SeparatedPrefix(text) => PathSpecifier::PathSeparatedPrefix(text.to_string()),
        PathMatch::Exact(text) => PathSpecifier::Path(text.to_string()),
        PathMatch::Regex(text) => PathSpecifier::SafeRegex(matcher::regex(text)),
    };
    pb::route::RouteMatch {
        case_sensitive: bool_value(matches.case_sensitive),
        headers: matches.headers.iter().map(matcher::header).collect(),
        query_parameters: matches.query.iter().map(matcher::query).collect(),
        path_specifier: Some(path),
        ..pb::route::RouteMatch::default()
    }
}

fn decode_match(mut message: pb::route::RouteMatch) -> Result<RouteMatch, DecodeError> {
    let path = match required(message.path_specifier.take(), "path_specifier")? {
        PathSpecifier::Prefix(text) => PathMatch::Prefix(text.into()),
        PathSpecifier::PathSeparatedPrefix(text) => PathMatch::SeparatedPrefix(text.into()),
        PathSpecifier::Path(text) => PathMatch::Exact(text.into()),
        PathSpecifier::SafeRegex(regex) => PathMatch::Regex(regex.regex.into()),
        PathSpecifier::ConnectMatcher(_) => return fail("is not supported").at("connect_matcher"),
        PathSpecifier::PathMatchPolicy(_) => return fail("is not supported").at("path_match_policy"),
    };
    let matches = RouteMatch {
        path,
        case_sensitive: read_bool(message.case_sensitive.take(), true),
        headers: each_arc("headers", std::mem::take(&mut message.headers), matcher::read_header)?,
        query: each_arc("query_parameters", std::mem::take(&mut message.query_parameters), matcher::read_query)?,
    };
    leftover(&message)?;
    Ok(matches)
}

fn encode_forward(forward: &Forward, metadata: &mut Metadata) -> pb::route::RouteAction {
    let cluster = match &forward.to {
        Destination::Cluster(name) => ClusterSpecifier::Cluster(name.to_string()),
        Destination::Weighted(choices) => ClusterSpecifier::WeightedClusters(pb::route::WeightedCluster {
            clusters: choices.iter().map(encode_choice).collect(),
            ..pb::route::WeightedCluster::default()
        }),
    };
    let mut message = pb::route::RouteAction {
        timeout: Some(duration(forward.timeout.unwrap_or_default())),
        retry_policy: forward.retry.as_ref().map(|policy| retry::encode(policy, metadata)),
        request_mirror_policies: forward.mirrors.iter().map(encode_mirror).collect(),
        max_stream_duration: forward.max_grpc_timeout.map(|limit| MaxStreamDuration {
            grpc_timeout_header_max: Some(duration(limit)),
            ..MaxStreamDuration::default()
        }),
        cluster_specifier: Some(cluster),
        host_rewrite_specifier: forward
            .host_rewrite
            .as_ref()
            .map(|host| HostRewriteSpecifier::HostRewriteLiteral(host.to_string())),
        ..pb::route::RouteAction::default()
    };
    match &forward.rewrite {
        PathRewrite::Keep => {}
        PathRewrite::Prefix(text) => message.prefix_rewrite = text.to_string(),
        PathRewrite::Regex { pattern, substitution } => {
            message.regex_rewrite = Some(pb::matcher::RegexMatchAndSubstitute {
                pattern: Some(matcher::regex(pattern)),
                substitution: substitution.to_string(),
            });
        }
    }
    message
}

fn decode_forward(mut message: pb::route::RouteAction, metadata: &Metadata) -> Result<Forward, DecodeError> {
    let to = match required(message.cluster_specifier.take(), "cluster_specifier")? {
        ClusterSpecifier::Cluster(name) => Destination::Cluster(name.into()),
        ClusterSpecifier::WeightedClusters(weighted) => decode_choices(weighted).at("weighted_clusters")?,
        ClusterSpecifier::ClusterHeader(_) => return fail("is not supported").at("cluster_header"),
        ClusterSpecifier::ClusterSpecifierPlugin(_) | ClusterSpecifier::InlineClusterSpecifierPlugin(_) => {
            return fail("is not supported").at("cluster_specifier_plugin");
        }
    };
    let prefix = std::mem::take(&mut message.prefix_rewrite);
    let rewrite = match (prefix.is_empty(), message.regex_rewrite.take()) {
        (true, None) => PathRewrite::Keep,
        (false, None) => PathRewrite::Prefix(prefix.into()),
        (true, Some(rewrite)) => PathRewrite::Regex {
            pattern: required(rewrite.pattern, "regex_rewrite.pattern")?.regex.into(),
            substitution: rewrite.substitution.into(),
        },
        (false, Some(_)) => return fail("excludes prefix_rewrite").at("regex_rewrite"),
    };
    let host_rewrite = match message.host_rewrite_specifier.take() {
        None => None,
        Some(HostRewriteSpecifier::HostRewriteLiteral(host)) => Some(Str::from(host)),
        Some(_) => return fail("only host_rewrite_literal is supported").at("host_rewrite_specifier"),
    };
    let mut limits = message.max_stream_duration.take().unwrap_or_default();
    let max_grpc_timeout = limits.grpc_timeout_header_max.take();
    leftover(&limits).at("max_stream_duration")?;
    let retry = message.retry_policy.take().map(|policy| retry::decode(policy, metadata));
    let mirrors = std::mem::take(&mut message.request_mirror_policies);
    let forward = Forward {
        to,
        timeout: read_limit(message.timeout.take(), TIMEOUT, "timeout")?,
        max_grpc_timeout: max_grpc_timeout
            .map(|limit| read_duration(Some(limit), Duration::ZERO, "max_stream_duration.grpc_timeout_header_max"))
            .transpose()?,
        retry: retry.transpose().at("retry_policy")?.map(Arc::new),
        rewrite,
        host_rewrite,
        mirrors: each_arc("request_mirror_policies", mirrors, decode_mirror)?,
    };
    leftover(&message)?;
    Ok(forward)
}

fn encode_choice(choice: &WeightedCluster) -> ClusterWeight {
    ClusterWeight {
        name: choice.cluster.to_string(),
        weight: u32_value(choice.weight),
        request_headers_to_add: encode_edits(&choice.headers.request),
        request_headers_to_remove: encode_removals(&choice.headers.request),
        response_headers_to_add: encode_edits(&choice.headers.response),
        response_headers_to_remove: encode_removals(&choice.headers.response),
        ..ClusterWeight::default()
    }
}

fn decode_choices(mut message: pb::route::WeightedCluster) -> Result<Destination, DecodeError> {
    let choices = std::mem::take(&mut message.clusters);
    // The sum, once required.
    clear_total(&mut message);
    leftover(&message)?;
    let choices = each_arc("clusters", choices, |mut message: ClusterWeight| {
        let choice = WeightedCluster {
            cluster: std::mem::take(&mut message.name).into(),
            weight: read_u32(message.weight.take(), 0),
            headers: HeaderEdits {
                request: decode_edits(
                    "request_headers",
                    std::mem::take(&mut message.request_headers_to_add),
                    std::mem::take(&mut message.request_headers_to_remove),
                )?,
                response: decode_edits(
                    "response_headers",
                    std::mem::take(&mut message.response_headers_to_add),
                    std::mem::take(&mut message.response_headers_to_remove),
                )?,
            },
        };
        leftover(&message)?;
        Ok(choice)
    })?;
    if choices.iter().all(|choice| choice.weight == 0) {
        return fail("no weight is positive").at("clusters");
    }
    Ok(Destination::Weighted(choices))
}

#[expect(deprecated, reason = "still sent by others; the sum of the weights, which we compute")]
const fn clear_total(message: &mut pb::route::WeightedCluster) {
    message.total_weight = None;
}

fn encode_mirror(mirror: &Mirror) -> RequestMirrorPolicy {
    RequestMirrorPolicy {
        cluster: mirror.cluster.to_string(),
        runtime_fraction: Some(pb::core::RuntimeFractionalPercent {
            default_value: Some(share(mirror.share)),
            runtime_key: String::new(),
        }),
        ..RequestMirrorPolicy::default()
    }
}

fn decode_mirror(mut message: RequestMirrorPolicy) -> Result<Mirror, DecodeError> {
    let cluster = std::mem::take(&mut message.cluster).into();
    let share =
        message.runtime_fraction.take().map_or(Ok(PerMillion::ALL), read_runtime_share).at("runtime_fraction")?;
    // Whether copies are traced; ours never are.
    message.trace_sampled = None;
    leftover(&message)?;
    Ok(Mirror { cluster, share })
}

fn encode_edits(edits: &Edits) -> Vec<pb::core::HeaderValueOption> {
    let option = |(name, value): &(Str, Str), action: HeaderAppendAction| pb::core::HeaderValueOption {
        header: Some(pb::core::HeaderValue {
            key: name.to_string(),
            value: value.to_string(),
            ..pb::core::HeaderValue::default()
        }),
        append_action: action.into(),
        ..pb::core::HeaderValueOption::default()
    };
    let set = edits.set.iter().map(|edit| option(edit, HeaderAppendAction::OverwriteIfExistsOrAdd));
    let add = edits.add.iter().map(|edit| option(edit, HeaderAppendAction::AppendIfExistsOrAdd));
    set.chain(add).collect()
}

fn encode_removals(edits: &Edits) -> Vec<String> {
    edits.remove.iter().map(ToString::to_string).collect()
}

fn decode_edits(
    field: &str,
    additions: Vec<pb::core::HeaderValueOption>,
    removals: Vec<String>,
) -> Result<Edits, DecodeError> {
    let (mut set, mut add) = (Vec::new(), Vec::new());
    for (position, message) in additions.into_iter().enumerate() {
        let place = format!("{field}_to_add[{position}]");
        let (overwrite, edit) = decode_edit(message).at(&place)?;
        // In whichever order they are written, Envoy sets before it adds.
        if overwrite { set.push(edit) } else { add.push(edit) }
    }
    let remove = removals.into_iter().map(|name| name.to_ascii_lowercase().into()).collect();
    Ok(Edits { set: set.into(), add: add.into(), remove })
}

/// One edit; whether it overwrites.
#[expect(deprecated, reason = "the old flag still comes from other control planes and has an exact equivalent")]
fn decode_edit(message: pb::core::HeaderValueOption) -> Result<(bool, (Str, Str)), DecodeError> {
    let header = required(message.header, "header")?;
    let action = match (message.append, HeaderAppendAction::try_from(message.append_action)) {
        (Some(append), Ok(HeaderAppendAction::AppendIfExistsOrAdd)) => !append.value,
        (None, Ok(HeaderAppendAction::AppendIfExistsOrAdd)) => false,
        (None, Ok(HeaderAppendAction::OverwriteIfExistsOrAdd)) => true,
        _ => {
            return fail("only APPEND_IF_EXISTS_OR_ADD and OVERWRITE_IF_EXISTS_OR_ADD are supported")
                .at("append_action");
        }
    };
    let value = if header.raw_value.is_empty() {
        header.value
    } else {
        String::from_utf8(header.raw_value).or_else(|_| fail("is not UTF-8").at("header.raw_value"))?
    };
    // A value that comes out empty changes nothing. Only one without commands is known not to.
    if message.keep_empty_value && (value.is_empty() || value.contains('%')) {
        return fail("is not supported").at("keep_empty_value");
    }
    Ok((action, (header.key.to_ascii_lowercase().into(), value.into())))
}

fn encode_redirect(redirect: &Redirect, metadata: &mut Metadata) -> Result<pb::route::RedirectAction, EncodeError> {
    let code = match redirect.status {
        301 => RedirectResponseCode::MovedPermanently,
        302 => RedirectResponseCode::Found,
        303 => RedirectResponseCode::SeeOther,
        307 => RedirectResponseCode::TemporaryRedirect,
        308 => RedirectResponseCode::PermanentRedirect,
        other => return bad("a redirect's status", other).at("status"),
    };
    let port = match redirect.port {
        RedirectPort::Keep => 0,
        RedirectPort::Port(port) => port.into(),
        RedirectPort::Strip => {
            metadata.set("redirect_port", "strip");
            0
        }
    };
    Ok(pb::route::RedirectAction {
        host_redirect: redirect.authority.as_ref().map(ToString::to_string).unwrap_or_default(),
        port_redirect: port,
        response_code: code.into(),
        strip_query: false,
        scheme_rewrite_specifier: redirect
            .scheme
            .as_ref()
            .map(|scheme| SchemeRewriteSpecifier::SchemeRedirect(scheme.to_string())),
        path_rewrite_specifier: match &redirect.path {
            RedirectPath::Keep => None,
            RedirectPath::Full(path) => Some(PathRewriteSpecifier::PathRedirect(path.to_string())),
            RedirectPath::Prefix(path) => Some(PathRewriteSpecifier::PrefixRewrite(path.to_string())),
        },
    })
}

fn decode_redirect(mut message: pb::route::RedirectAction, metadata: &Metadata) -> Result<Redirect, DecodeError> {
    let status = match RedirectResponseCode::try_from(std::mem::take(&mut message.response_code)) {
        Ok(RedirectResponseCode::MovedPermanently) => 301,
        Ok(RedirectResponseCode::Found) => 302,
        Ok(RedirectResponseCode::SeeOther) => 303,
        Ok(RedirectResponseCode::TemporaryRedirect) => 307,
        Ok(RedirectResponseCode::PermanentRedirect) => 308,
        Err(_) => return fail("is not a redirect's status").at("response_code"),
    };
    let scheme = match message.scheme_rewrite_specifier.take() {
        Some(SchemeRewriteSpecifier::SchemeRedirect(scheme)) => Some(Str::from(scheme)),
        Some(SchemeRewriteSpecifier::HttpsRedirect(true)) => Some(Str::from("https")),
        Some(SchemeRewriteSpecifier::HttpsRedirect(false)) | None => None,
    };
    let path = match message.path_rewrite_specifier.take() {
        None => RedirectPath::Keep,
        Some(PathRewriteSpecifier::PathRedirect(path)) => RedirectPath::Full(path.into()),
        Some(PathRewriteSpecifier::PrefixRewrite(path)) => RedirectPath::Prefix(path.into()),
        Some(PathRewriteSpecifier::RegexRewrite(_)) => return fail("is not supported").at("regex_rewrite"),
        Some(PathRewriteSpecifier::PathRewrite(_)) => return fail("is not supported").at("path_rewrite"),
    };
    let host = std::mem::take(&mut message.host_redirect);
    let port = match read_port(std::mem::take(&mut message.port_redirect), "port_redirect")? {
        0 if metadata.text("redirect_port") == "strip" => RedirectPort::Strip,
        0 => RedirectPort::Keep,
        port => RedirectPort::Port(port),
    };
    leftover(&message)?;
    let authority = (!host.is_empty()).then(|| host.into());
    Ok(Redirect { status, scheme, authority, port, path })
}

fn decode_direct(message: pb::route::DirectResponseAction) -> Result<Direct, DecodeError> {
    if message.body_format.is_some() {
        return fail("is not supported").at("body_format");
    }
    let Ok(status @ 200..600) = u16::try_from(message.status) else {
        return bad("a status from 200 to 599", message.status).at("status");
    };
    let body = read_inline(message.body, "body")?;
    if body.len() > MAX_DIRECT_BODY_BYTES as usize {
        return fail(format!("has {} bytes, more than {MAX_DIRECT_BODY_BYTES}", body.len())).at("body");
    }
    Ok(Direct { status, body: body.into() })
}
