//! HTTP options of a cluster.

use std::time::Duration;

use crate::codec::common::{duration, read_duration, read_u32, u32_value};
use crate::codec::error::{At, DecodeError, fail, leftover};
use crate::codec::metadata::Metadata;
use crate::ir::cluster::{Cluster, Sni, Transport, UpstreamHttp, UpstreamProtocol};
use crate::pb;
use crate::pb::upstream_http::http_protocol_options::explicit_http_config::ProtocolConfig;
use crate::pb::upstream_http::http_protocol_options::{
    ExplicitHttpConfig, UpstreamProtocolOptions, UseDownstreamHttpConfig,
};

pub(super) fn encode(cluster: &Cluster, metadata: &mut Metadata) -> pb::upstream_http::HttpProtocolOptions {
    let UpstreamHttp { idle_timeout, max_requests_per_connection, max_concurrent_streams, max_connection_duration } =
        cluster.http;
    let http1 = pb::core::Http1ProtocolOptions::default();
    let http2 = pb::core::Http2ProtocolOptions {
        max_concurrent_streams: if max_concurrent_streams == u32::MAX {
            None
        } else {
            u32_value(max_concurrent_streams)
        },
        ..pb::core::Http2ProtocolOptions::default()
    };
    let explicit =
        |config| UpstreamProtocolOptions::ExplicitHttpConfig(ExplicitHttpConfig { protocol_config: Some(config) });
    let protocol = match cluster.protocol {
        UpstreamProtocol::Http1 => {
            if max_concurrent_streams != u32::MAX {
                metadata.set("max_concurrent_streams", max_concurrent_streams.to_string());
            }
            explicit(ProtocolConfig::HttpProtocolOptions(http1))
        }
        UpstreamProtocol::Http2 => explicit(ProtocolConfig::Http2ProtocolOptions(http2)),
        UpstreamProtocol::Downstream => UpstreamProtocolOptions::UseDownstreamProtocolConfig(UseDownstreamHttpConfig {
            http_protocol_options: Some(http1),
            http2_protocol_options: Some(http2),
            ..UseDownstreamHttpConfig::default()
        }),
    };
    let from_host = match &cluster.transport {
        Transport::Plaintext => false,
        Transport::Tls(tls) | Transport::Auto(tls) => tls.sni == Sni::FromHost,
    };
    let limit = |limit: Duration| (!limit.is_zero()).then(|| duration(limit));
    pb::upstream_http::HttpProtocolOptions {
        common_http_protocol_options: Some(pb::core::HttpProtocolOptions {
            idle_timeout: Some(duration(idle_timeout)),
            max_connection_duration: limit(max_connection_duration),
            max_requests_per_connection: u32_value(max_requests_per_connection),
            ..pb::core::HttpProtocolOptions::default()
        }),
        upstream_http_protocol_options: from_host.then(|| pb::core::UpstreamHttpProtocolOptions {
            auto_sni: true,
            auto_san_validation: true,
            ..pb::core::UpstreamHttpProtocolOptions::default()
        }),
        upstream_protocol_options: Some(protocol),
        ..pb::upstream_http::HttpProtocolOptions::default()
    }
}

/// What the options say.
pub(super) struct Http {
    pub(super) protocol: UpstreamProtocol,
    pub(super) options: UpstreamHttp,
    pub(super) from_host: bool,
}

pub(super) fn decode(
    mut message: pb::upstream_http::HttpProtocolOptions,
    metadata: &Metadata,
) -> Result<Http, DecodeError> {
    let (protocol, http1, http2) = match message.upstream_protocol_options.take() {
        None => (UpstreamProtocol::Http1, None, None),
        Some(UpstreamProtocolOptions::ExplicitHttpConfig(explicit)) => match explicit.protocol_config {
            Some(ProtocolConfig::HttpProtocolOptions(http1)) => (UpstreamProtocol::Http1, Some(http1), None),
            Some(ProtocolConfig::Http2ProtocolOptions(http2)) => (UpstreamProtocol::Http2, None, Some(http2)),
            Some(ProtocolConfig::Http3ProtocolOptions(_)) => {
                return fail("is not supported").at("http3_protocol_options");
            }
            None => (UpstreamProtocol::Http1, None, None),
        },
        Some(UpstreamProtocolOptions::UseDownstreamProtocolConfig(mut downstream)) => {
            let (http1, http2) = (downstream.http_protocol_options.take(), downstream.http2_protocol_options.take());
            leftover(&downstream).at("use_downstream_protocol_config")?;
            (UpstreamProtocol::Downstream, http1, http2)
        }
        Some(UpstreamProtocolOptions::AutoConfig(_)) => return fail("is not supported").at("auto_config"),
    };
    leftover(&http1.unwrap_or_default()).at("http_protocol_options")?;
    let mut http2 = http2.unwrap_or_default();
    let streams = http2.max_concurrent_streams.take().map(|value| value.value);
    leftover(&http2).at("http2_protocol_options")?;
    let streams = streams.or_else(|| metadata.text("max_concurrent_streams").parse().ok());
    let mut common = message.common_http_protocol_options.take().unwrap_or_default();
    let upstream = message.upstream_http_protocol_options.take().unwrap_or_default();
    if upstream.auto_sni != upstream.auto_san_validation || !upstream.override_auto_sni_header.is_empty() {
        return fail("auto_sni and auto_san_validation go together").at("upstream_http_protocol_options");
    }
    leftover(&message)?;
    let field = "common_http_protocol_options";
    let options = UpstreamHttp {
        idle_timeout: read_duration(common.idle_timeout.take(), UpstreamHttp::default().idle_timeout, "idle_timeout")
            .at(field)?,
        max_requests_per_connection: read_u32(common.max_requests_per_connection.take(), 0),
        max_concurrent_streams: streams.unwrap_or(u32::MAX),
        max_connection_duration: read_duration(
            common.max_connection_duration.take(),
            Duration::ZERO,
            "max_connection_duration",
        )
        .at(field)?,
    };
    leftover(&common).at(field)?;
    Ok(Http { protocol, options, from_host: upstream.auto_sni })
}
