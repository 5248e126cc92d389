//! The HTTP connection manager.

use std::sync::Arc;
use std::time::Duration;

use mesh_api::text::Str;

use super::common::{ads, bool_value, duration, expect_ads, read_bool, read_duration, read_u32, u32_value};
use super::error::{At, DecodeError, EncodeError, each_arc, fail, leftover, only, required};
use super::metadata::Metadata;
use super::{access_log, filter, route_config};
use crate::ir::PerMillion;
use crate::ir::http::{
    CertDetails, Codec, Edge, EscapedSlashes, ForwardClientCert, HttpConnection, HttpLimits, PathPolicy, RouteSource,
    ServerHeader, Tracing,
};
use crate::pb;
use crate::pb::hcm::HttpConnectionManager as Message;
use crate::pb::hcm::http_connection_manager::{
    CodecType, ForwardClientCertDetails, PathWithEscapedSlashesAction, RouteSpecifier, ServerHeaderTransformation,
    SetCurrentClientCertDetails, Tracing as TracingMessage, UpgradeConfig,
};

/// Text of the `server` header when none is set, as Envoy's.
const SERVER: &str = "envoy";
/// Envoy's default stream idle timeout.
const STREAM_IDLE_TIMEOUT: Duration = Duration::from_secs(300);

pub(super) fn encode(connection: &HttpConnection, metadata: &mut Metadata) -> Result<Message, EncodeError> {
    let limits = &connection.limits;
    let limit = |limit: Duration| (!limit.is_zero()).then(|| duration(limit));
    let (use_remote_address, trusted_hops) = match connection.edge {
        Edge::Internal => (false, 0),
        Edge::Public { trusted_hops } => (true, trusted_hops),
    };
    let (transformation, server_name) = match &connection.server_header {
        ServerHeader::Overwrite(name) => (ServerHeaderTransformation::Overwrite, name.to_string()),
        ServerHeader::AppendIfAbsent(name) => (ServerHeaderTransformation::AppendIfAbsent, name.to_string()),
        ServerHeader::PassThrough => (ServerHeaderTransformation::PassThrough, String::new()),
    };
    let (forward, details) = encode_client_cert(connection.client_cert);
    Ok(Message {
        codec_type: match connection.codec {
            Codec::Auto => CodecType::Auto.into(),
            Codec::Http1 => CodecType::Http1.into(),
            Codec::Http2 => CodecType::Http2.into(),
        },
        stat_prefix: connection.stat_prefix.to_string(),
        route_specifier: Some(encode_routes(&connection.routes)?),
        http_filters: filter::encode(&connection.filters)?,
        tracing: connection.tracing.as_ref().map(encode_tracing),
        common_http_protocol_options: Some(pb::core::HttpProtocolOptions {
            idle_timeout: Some(duration(limits.idle_timeout)),
            max_connection_duration: limit(limits.max_connection_duration),
            max_headers_count: u32_value(limits.max_headers_count),
            ..pb::core::HttpProtocolOptions::default()
        }),
        http_protocol_options: connection.http10.then(|| pb::core::Http1ProtocolOptions {
            accept_http_10: true,
            ..pb::core::Http1ProtocolOptions::default()
        }),
        server_name,
        server_header_transformation: transformation.into(),
        max_request_headers_kb: u32_value(limits.max_headers_kib),
        stream_idle_timeout: Some(duration(limits.stream_idle_timeout)),
        request_timeout: limit(limits.request_timeout),
        access_log: access_log::encode(&connection.access_logs, metadata),
        use_remote_address: bool_value(use_remote_address),
        xff_num_trusted_hops: trusted_hops,
        generate_request_id: bool_value(connection.request_id),
        forward_client_cert_details: forward.into(),
        set_current_client_cert_details: details,
        proxy_100_continue: true,
        upgrade_configs: connection
            .upgrades
            .iter()
            .map(|name| UpgradeConfig { upgrade_type: name.to_string(), ..UpgradeConfig::default() })
            .collect(),
        normalize_path: bool_value(connection.path.normalize),
        merge_slashes: connection.path.merge_slashes,
        path_with_escaped_slashes_action: escaped_slashes(connection.path.escaped_slashes).into(),
        ..Message::default()
    })
}

pub(super) fn decode(mut message: Message, metadata: &Metadata) -> Result<HttpConnection, DecodeError> {
    drop_silent_fields(&mut message)?;
    let mut common = message.common_http_protocol_options.take().unwrap_or_default();
    let mut http1 = message.http_protocol_options.take().unwrap_or_default();
    let http10 = std::mem::take(&mut http1.accept_http_10);
    leftover(&http1).at("http_protocol_options")?;
    let field = "common_http_protocol_options";
    let defaults = HttpLimits::default();
    let limits = HttpLimits {
        max_headers_kib: read_u32(message.max_request_headers_kb.take(), defaults.max_headers_kib),
        max_headers_count: read_u32(common.max_headers_count.take(), defaults.max_headers_count),
        idle_timeout: read_duration(common.idle_timeout.take(), defaults.idle_timeout, "idle_timeout").at(field)?,
        stream_idle_timeout: read_duration(
            message.stream_idle_timeout.take(),
            STREAM_IDLE_TIMEOUT,
            "stream_idle_timeout",
        )?,
        request_timeout: read_duration(message.request_timeout.take(), Duration::ZERO, "request_timeout")?,
        max_connection_duration: read_duration(
            common.max_connection_duration.take(),
            Duration::ZERO,
            "max_connection_duration",
        )
        .at(field)?,
    };
    leftover(&common).at(field)?;
    let connection = HttpConnection {
        stat_prefix: std::mem::take(&mut message.stat_prefix).into(),
        codec: decode_codec(std::mem::take(&mut message.codec_type))?,
        routes: decode_routes(message.route_specifier.take())?,
        filters: filter::decode(std::mem::take(&mut message.http_filters))?,
        upgrades: each_arc("upgrade_configs", std::mem::take(&mut message.upgrade_configs), decode_upgrade)?,
        server_header: decode_server(&mut message)?,
        edge: decode_edge(&mut message)?,
        client_cert: decode_client_cert(&mut message)?,
        path: decode_path(&mut message)?,
        limits,
        request_id: read_bool(message.generate_request_id.take(), true),
        http10,
        tracing: message.tracing.take().map(decode_tracing).transpose().at("tracing")?,
        access_logs: access_log::decode(std::mem::take(&mut message.access_log), metadata)?,
    };
    leftover(&message)?;
    Ok(connection)
}

/// Takes out what only says what we do anyway.
fn drop_silent_fields(message: &mut Message) -> Result<(), DecodeError> {
    // `Expect: 100-continue` is always passed on.
    message.proxy_100_continue = false;
    // The default kind of request id.
    message.request_id_extension = None;
    // Empty options leave HTTP/2 at its defaults.
    let http2 = message.http2_protocol_options.take();
    leftover(&http2.unwrap_or_default()).at("http2_protocol_options")
}

fn encode_routes(routes: &RouteSource) -> Result<RouteSpecifier, EncodeError> {
    Ok(match routes {
        RouteSource::Inline(config) => RouteSpecifier::RouteConfig(route_config::encode(config).at("routes")?),
        RouteSource::Named(name) => {
            RouteSpecifier::Rds(pb::hcm::Rds { config_source: Some(ads()), route_config_name: name.to_string() })
        }
    })
}

fn decode_routes(message: Option<RouteSpecifier>) -> Result<RouteSource, DecodeError> {
    match required(message, "route_specifier")? {
        RouteSpecifier::RouteConfig(config) => {
            Ok(RouteSource::Inline(Arc::new(route_config::decode(config).at("route_config")?)))
        }
        RouteSpecifier::Rds(rds) => {
            expect_ads(rds.config_source, "rds.config_source")?;
            Ok(RouteSource::Named(rds.route_config_name.into()))
        }
        RouteSpecifier::ScopedRoutes(_) => fail("is not supported").at("scoped_routes"),
    }
}

fn decode_codec(raw: i32) -> Result<Codec, DecodeError> {
    match CodecType::try_from(raw) {
        Ok(CodecType::Auto) => Ok(Codec::Auto),
        Ok(CodecType::Http1) => Ok(Codec::Http1),
        Ok(CodecType::Http2) => Ok(Codec::Http2),
        Ok(CodecType::Http3) | Err(_) => fail("only AUTO, HTTP1 and HTTP2 are supported").at("codec_type"),
    }
}

fn decode_upgrade(mut message: UpgradeConfig) -> Result<Str, DecodeError> {
    let name = std::mem::take(&mut message.upgrade_type).to_ascii_lowercase().into();
    only(&read_bool(message.enabled.take(), true), &true, "enabled")?;
    leftover(&message)?;
    Ok(name)
}

fn decode_server(message: &mut Message) -> Result<ServerHeader, DecodeError> {
    let name = std::mem::take(&mut message.server_name);
    let name = Str::from(if name.is_empty() { SERVER } else { name.as_str() });
    match ServerHeaderTransformation::try_from(std::mem::take(&mut message.server_header_transformation)) {
        Ok(ServerHeaderTransformation::Overwrite) => Ok(ServerHeader::Overwrite(name)),
        Ok(ServerHeaderTransformation::AppendIfAbsent) => Ok(ServerHeader::AppendIfAbsent(name)),
        Ok(ServerHeaderTransformation::PassThrough) => Ok(ServerHeader::PassThrough),
        Err(_) => fail("is unknown").at("server_header_transformation"),
    }
}

fn decode_edge(message: &mut Message) -> Result<Edge, DecodeError> {
    let trusted_hops = std::mem::take(&mut message.xff_num_trusted_hops);
    if read_bool(message.use_remote_address.take(), false) {
        return Ok(Edge::Public { trusted_hops });
    }
    only(&trusted_hops, &0, "xff_num_trusted_hops")?;
    Ok(Edge::Internal)
}

fn encode_client_cert(mode: ForwardClientCert) -> (ForwardClientCertDetails, Option<SetCurrentClientCertDetails>) {
    let details = |details: CertDetails| {
        Some(SetCurrentClientCertDetails {
            subject: bool_value(details.subject),
            cert: details.cert,
            dns: details.dns,
            uri: details.uri,
            ..SetCurrentClientCertDetails::default()
        })
    };
    match mode {
        ForwardClientCert::Sanitize => (ForwardClientCertDetails::Sanitize, None),
        ForwardClientCert::ForwardOnly => (ForwardClientCertDetails::ForwardOnly, None),
        ForwardClientCert::AlwaysForwardOnly => (ForwardClientCertDetails::AlwaysForwardOnly, None),
        ForwardClientCert::AppendForward(parts) => (ForwardClientCertDetails::AppendForward, details(parts)),
        ForwardClientCert::SanitizeSet(parts) => (ForwardClientCertDetails::SanitizeSet, details(parts)),
    }
}

fn decode_client_cert(message: &mut Message) -> Result<ForwardClientCert, DecodeError> {
    let mut details = message.set_current_client_cert_details.take().unwrap_or_default();
    let parts = CertDetails {
        subject: read_bool(details.subject.take(), false),
        uri: std::mem::take(&mut details.uri),
        dns: std::mem::take(&mut details.dns),
        cert: std::mem::take(&mut details.cert),
    };
    leftover(&details).at("set_current_client_cert_details")?;
    match ForwardClientCertDetails::try_from(std::mem::take(&mut message.forward_client_cert_details)) {
        Ok(ForwardClientCertDetails::Sanitize) => Ok(ForwardClientCert::Sanitize),
        Ok(ForwardClientCertDetails::ForwardOnly) => Ok(ForwardClientCert::ForwardOnly),
        Ok(ForwardClientCertDetails::AlwaysForwardOnly) => Ok(ForwardClientCert::AlwaysForwardOnly),
        Ok(ForwardClientCertDetails::AppendForward) => Ok(ForwardClientCert::AppendForward(parts)),
        Ok(ForwardClientCertDetails::SanitizeSet) => Ok(ForwardClientCert::SanitizeSet(parts)),
        Err(_) => fail("is unknown").at("forward_client_cert_details"),
    }
}

const fn escaped_slashes(mode: EscapedSlashes) -> PathWithEscapedSlashesAction {
    match mode {
        EscapedSlashes::Keep => PathWithEscapedSlashesAction::KeepUnchanged,
        EscapedSlashes::Reject => PathWithEscapedSlashesAction::RejectRequest,
        EscapedSlashes::UnescapeAndRedirect => PathWithEscapedSlashesAction::UnescapeAndRedirect,
        EscapedSlashes::UnescapeAndForward => PathWithEscapedSlashesAction::UnescapeAndForward,
    }
}

fn decode_path(message: &mut Message) -> Result<PathPolicy, DecodeError> {
    let action = std::mem::take(&mut message.path_with_escaped_slashes_action);
    let escaped_slashes = match PathWithEscapedSlashesAction::try_from(action) {
        Ok(
            PathWithEscapedSlashesAction::ImplementationSpecificDefault | PathWithEscapedSlashesAction::KeepUnchanged,
        ) => EscapedSlashes::Keep,
        Ok(PathWithEscapedSlashesAction::RejectRequest) => EscapedSlashes::Reject,
        Ok(PathWithEscapedSlashesAction::UnescapeAndRedirect) => EscapedSlashes::UnescapeAndRedirect,
        Ok(PathWithEscapedSlashesAction::UnescapeAndForward) => EscapedSlashes::UnescapeAndForward,
        Err(_) => return fail("is unknown").at("path_with_escaped_slashes_action"),
    };
    Ok(PathPolicy {
        normalize: read_bool(message.normalize_path.take(), false),
        merge_slashes: std::mem::take(&mut message.merge_slashes),
        escaped_slashes,
    })
}

fn percent(share: PerMillion) -> Option<pb::kind::Percent> {
    Some(pb::kind::Percent { value: f64::from(share.0) / 10_000.0 })
}

fn encode_tracing(tracing: &Tracing) -> TracingMessage {
    TracingMessage {
        client_sampling: percent(PerMillion::ALL),
        random_sampling: percent(tracing.sampling),
        overall_sampling: percent(PerMillion::ALL),
        ..TracingMessage::default()
    }
}

fn decode_tracing(mut message: TracingMessage) -> Result<Tracing, DecodeError> {
    let all = percent(PerMillion::ALL);
    only(&message.client_sampling.take().or(all), &all, "client_sampling")?;
    only(&message.overall_sampling.take().or(all), &all, "overall_sampling")?;
    let percent = message.random_sampling.take().map_or(100.0, |percent| percent.value);
    leftover(&message)?;
    let millionths = (percent * 10_000.0).round();
    if !(0.0..=1_000_000.0).contains(&millionths) {
        return fail(format!("{percent} is not a percentage")).at("random_sampling");
    }
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "whole and within 0 to 1,000,000")]
    let sampling = PerMillion(millionths as u32);
    Ok(Tracing { sampling })
}
