//! Clusters.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use mesh_api::text::Str;
use serde_json::{Value, json};

use super::common::{ads, any, bool_value, duration, expect_ads, read_duration, read_u32, u32_value, unpack};
use super::endpoint::{ISTIO, SOCKET_MATCH, TLS_MODE, TLS_MODE_ISTIO};
use super::error::{At, DecodeError, EncodeError, bad, fail, leftover, only, required};
use super::metadata::Metadata;
use super::{endpoint, tls};
use crate::ir::cluster::{
    Balance, Cluster, Discovery, Keepalive, Limits, Outlier, RetryBudget, ServiceRef, Sni, Transport, UpstreamHttp,
    UpstreamProtocol,
};
use crate::pb;
use crate::pb::cluster::cluster::common_lb_config::{LocalityConfigSpecifier, LocalityWeightedLbConfig};
use crate::pb::cluster::cluster::{
    ClusterDiscoveryType, CommonLbConfig, DiscoveryType, DnsLookupFamily, EdsClusterConfig, LbPolicy,
    TransportSocketMatch,
};
use crate::pb::upstream_http::http_protocol_options::explicit_http_config::ProtocolConfig;
use crate::pb::upstream_http::http_protocol_options::{
    ExplicitHttpConfig, UpstreamProtocolOptions, UseDownstreamHttpConfig,
};

/// Key of the HTTP options in `typed_extension_protocol_options`.
const HTTP_OPTIONS: &str = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";
/// Names of the two transport sockets of automatic mTLS, as Istio has them.
const MATCH_TLS: &str = "tlsMode-istio";
const MATCH_PLAIN: &str = "tlsMode-disabled";
/// Envoy's default connect timeout.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Envoy's default time between DNS look-ups.
const DNS_REFRESH: Duration = Duration::from_secs(5);

/// Encodes a cluster.
pub(crate) fn encode(cluster: &Cluster) -> Result<pb::cluster::Cluster, EncodeError> {
    let mut metadata = Metadata::default();
    metadata.set_origin("origin", &cluster.origin);
    if cluster.service != ServiceRef::default() {
        let ServiceRef { host, name, namespace } = &cluster.service;
        let service = json!({"host": &**host, "name": &**name, "namespace": &**namespace});
        metadata.set_in(ISTIO, "services", json!([service]));
    }
    let balance = match (&cluster.discovery, cluster.balance) {
        (Discovery::OriginalDst, balance) => {
            metadata.set("balance", balance_word(balance));
            LbPolicy::ClusterProvided
        }
        (_, Balance::LeastRequest) => LbPolicy::LeastRequest,
        (_, Balance::RoundRobin) => LbPolicy::RoundRobin,
        (_, Balance::Random) => LbPolicy::Random,
    };
    let mut message = pb::cluster::Cluster {
        name: cluster.name.to_string(),
        connect_timeout: Some(duration(cluster.connect_timeout)),
        lb_policy: balance.into(),
        common_lb_config: Some(encode_lb(cluster)?),
        outlier_detection: cluster.outlier.as_ref().map(encode_outlier),
        circuit_breakers: Some(encode_limits(&cluster.limits)),
        typed_extension_protocol_options: HashMap::from([(
            HTTP_OPTIONS.to_owned(),
            any(&encode_http(cluster, &mut metadata)),
        )]),
        upstream_connection_options: cluster.keepalive.map(|keepalive| pb::cluster::UpstreamConnectionOptions {
            tcp_keepalive: Some(encode_keepalive(keepalive)),
            ..pb::cluster::UpstreamConnectionOptions::default()
        }),
        upstream_bind_config: cluster.source_address.map(encode_source),
        ..pb::cluster::Cluster::default()
    };
    encode_discovery(cluster, &mut message);
    encode_transport(&cluster.transport, &mut message, &mut metadata);
    message.metadata = metadata.write();
    Ok(message)
}

/// Decodes a cluster.
pub(super) fn decode(mut message: pb::cluster::Cluster) -> Result<Cluster, DecodeError> {
    let metadata = Metadata::read(message.metadata.take());
    let name = Str::from(std::mem::take(&mut message.name));
    // Only the name of statistics.
    message.alt_stat_name.clear();
    let discovery = decode_discovery(&name, &mut message)?;
    let balance = decode_balance(std::mem::take(&mut message.lb_policy), &discovery, &metadata).at("lb_policy")?;
    let mut options = std::mem::take(&mut message.typed_extension_protocol_options);
    let http = options.remove(HTTP_OPTIONS).map(|options| unpack(&options)).transpose().at(HTTP_OPTIONS)?;
    only(&options.len(), &0, "typed_extension_protocol_options")?;
    let http = decode_http(http.unwrap_or_default(), &metadata).at(HTTP_OPTIONS)?;
    let transport = decode_transport(&mut message, http.from_host, &metadata)?;
    let mut connection = message.upstream_connection_options.take().unwrap_or_default();
    let keepalive = connection.tcp_keepalive.take();
    leftover(&connection).at("upstream_connection_options")?;
    let cluster = Cluster {
        discovery,
        connect_timeout: read_duration(message.connect_timeout.take(), CONNECT_TIMEOUT, "connect_timeout")?,
        balance,
        panic_percent: decode_lb(message.common_lb_config.take().unwrap_or_default()).at("common_lb_config")?,
        outlier: message.outlier_detection.take().map(decode_outlier).transpose().at("outlier_detection")?,
        limits: decode_limits(message.circuit_breakers.take()).at("circuit_breakers")?,
        protocol: http.protocol,
        http: http.options,
        transport,
        keepalive: keepalive.map(decode_keepalive),
        source_address: message
            .upstream_bind_config
            .take()
            .map(decode_source)
            .transpose()
            .at("upstream_bind_config")?,
        service: decode_service(&metadata),
        origin: metadata.origin("origin"),
        name,
    };
    leftover(&message)?;
    Ok(cluster)
}

#[expect(deprecated, reason = "the resolver extension that replaces them says the same with more words")]
fn encode_discovery(cluster: &Cluster, message: &mut pb::cluster::Cluster) {
    let kind = match &cluster.discovery {
        Discovery::Eds => {
            message.eds_cluster_config =
                Some(EdsClusterConfig { eds_config: Some(ads()), service_name: String::new() });
            DiscoveryType::Eds
        }
        Discovery::Static(endpoints) => {
            message.load_assignment = Some(endpoint::encode(endpoints));
            DiscoveryType::Static
        }
        Discovery::Dns { endpoints, refresh } => {
            message.load_assignment = Some(endpoint::encode(endpoints));
            message.dns_refresh_rate = Some(duration(*refresh));
            message.dns_lookup_family = DnsLookupFamily::All.into();
            DiscoveryType::StrictDns
        }
        Discovery::OriginalDst => DiscoveryType::OriginalDst,
    };
    message.cluster_discovery_type = Some(ClusterDiscoveryType::Type(kind.into()));
}

#[expect(deprecated, reason = "as in `encode_discovery`")]
fn decode_discovery(name: &Str, message: &mut pb::cluster::Cluster) -> Result<Discovery, DecodeError> {
    let kind = match message.cluster_discovery_type.take() {
        None => DiscoveryType::Static,
        Some(ClusterDiscoveryType::Type(kind)) => {
            DiscoveryType::try_from(kind).or_else(|_| bad("a discovery type", kind).at("type"))?
        }
        Some(ClusterDiscoveryType::ClusterType(_)) => return fail("is not supported").at("cluster_type"),
    };
    let endpoints = |message: &mut pb::cluster::Cluster| {
        let assignment = message.load_assignment.take().unwrap_or_default();
        endpoint::decode(assignment).at("load_assignment").map(Arc::new)
    };
    match kind {
        DiscoveryType::Eds => {
            let config = required(message.eds_cluster_config.take(), "eds_cluster_config")?;
            expect_ads(config.eds_config, "eds_cluster_config.eds_config")?;
            if !config.service_name.is_empty() && *name != config.service_name {
                return fail("a name other than the cluster's is not supported").at("eds_cluster_config.service_name");
            }
            Ok(Discovery::Eds)
        }
        DiscoveryType::Static => Ok(Discovery::Static(endpoints(message)?)),
        DiscoveryType::StrictDns => {
            let family = std::mem::take(&mut message.dns_lookup_family);
            only(&DnsLookupFamily::try_from(family).ok(), &Some(DnsLookupFamily::All), "dns_lookup_family")?;
            let refresh = read_duration(message.dns_refresh_rate.take(), DNS_REFRESH, "dns_refresh_rate")?;
            Ok(Discovery::Dns { endpoints: endpoints(message)?, refresh })
        }
        DiscoveryType::OriginalDst => Ok(Discovery::OriginalDst),
        DiscoveryType::LogicalDns => fail("LOGICAL_DNS is not supported").at("type"),
    }
}

const fn balance_word(balance: Balance) -> &'static str {
    match balance {
        Balance::LeastRequest => "least_request",
        Balance::RoundRobin => "round_robin",
        Balance::Random => "random",
    }
}

fn decode_balance(raw: i32, discovery: &Discovery, metadata: &Metadata) -> Result<Balance, DecodeError> {
    match LbPolicy::try_from(raw) {
        Ok(LbPolicy::LeastRequest) => Ok(Balance::LeastRequest),
        Ok(LbPolicy::RoundRobin) => Ok(Balance::RoundRobin),
        Ok(LbPolicy::Random) => Ok(Balance::Random),
        Ok(LbPolicy::ClusterProvided) if *discovery == Discovery::OriginalDst => {
            let word = metadata.text("balance");
            let known = [Balance::LeastRequest, Balance::RoundRobin, Balance::Random];
            Ok(known.into_iter().find(|balance| word == balance_word(*balance)).unwrap_or(Balance::LeastRequest))
        }
        Ok(_) | Err(_) => bad("a supported policy", raw),
    }
}

fn encode_lb(cluster: &Cluster) -> Result<CommonLbConfig, EncodeError> {
    if cluster.panic_percent > 100 {
        return bad("a percentage", cluster.panic_percent).at("panic_percent");
    }
    let weighs = cluster.discovery != Discovery::OriginalDst;
    Ok(CommonLbConfig {
        healthy_panic_threshold: Some(pb::kind::Percent { value: f64::from(cluster.panic_percent) }),
        locality_config_specifier: weighs
            .then_some(LocalityConfigSpecifier::LocalityWeightedLbConfig(LocalityWeightedLbConfig {})),
        ..CommonLbConfig::default()
    })
}

/// The panic threshold in percent.
fn decode_lb(mut message: CommonLbConfig) -> Result<u32, DecodeError> {
    // Envoy's default is 50.
    let percent = message.healthy_panic_threshold.take().map_or(50.0, |percent| percent.value);
    match message.locality_config_specifier.take() {
        None | Some(LocalityConfigSpecifier::LocalityWeightedLbConfig(_)) => {}
        Some(LocalityConfigSpecifier::ZoneAwareLbConfig(_)) => {
            return fail("is not supported").at("zone_aware_lb_config");
        }
    }
    leftover(&message)?;
    (0..=100)
        .find(|whole| (f64::from(*whole) - percent).abs() < 0.5)
        .map_or_else(|| bad("a percentage", percent).at("healthy_panic_threshold"), Ok)
}

fn encode_outlier(outlier: &Outlier) -> pb::cluster::OutlierDetection {
    let count = |count: u32| if count == 0 { None } else { u32_value(count) };
    let enforce = |count: u32| u32_value(if count == 0 { 0 } else { 100 });
    pb::cluster::OutlierDetection {
        consecutive_5xx: count(outlier.consecutive_5xx),
        enforcing_consecutive_5xx: enforce(outlier.consecutive_5xx),
        consecutive_gateway_failure: count(outlier.consecutive_gateway),
        enforcing_consecutive_gateway_failure: enforce(outlier.consecutive_gateway),
        consecutive_local_origin_failure: count(outlier.consecutive_local),
        enforcing_consecutive_local_origin_failure: enforce(outlier.consecutive_local),
        split_external_local_origin_errors: outlier.split_local,
        interval: Some(duration(outlier.interval)),
        base_ejection_time: Some(duration(outlier.base_ejection)),
        max_ejection_time: Some(duration(outlier.max_ejection)),
        max_ejection_percent: u32_value(outlier.max_ejection_percent),
        // Istio does not use the statistical detectors either.
        enforcing_success_rate: u32_value(0),
        enforcing_local_origin_success_rate: u32_value(0),
        always_eject_one_host: bool_value(true),
        ..pb::cluster::OutlierDetection::default()
    }
}

fn decode_outlier(mut message: pb::cluster::OutlierDetection) -> Result<Outlier, DecodeError> {
    let detector = |count: Option<pb::protobuf::UInt32Value>,
                    enforcing: Option<pb::protobuf::UInt32Value>,
                    default: u32,
                    field: &str| match read_u32(enforcing, default) {
        0 => Ok(0),
        100 => Ok(read_u32(count, 5)),
        other => bad("0 or 100", other).at(field),
    };
    let outlier = Outlier {
        consecutive_5xx: detector(
            message.consecutive_5xx.take(),
            message.enforcing_consecutive_5xx.take(),
            100,
            "enforcing_consecutive_5xx",
        )?,
        consecutive_gateway: detector(
            message.consecutive_gateway_failure.take(),
            message.enforcing_consecutive_gateway_failure.take(),
            0,
            "enforcing_consecutive_gateway_failure",
        )?,
        consecutive_local: detector(
            message.consecutive_local_origin_failure.take(),
            message.enforcing_consecutive_local_origin_failure.take(),
            100,
            "enforcing_consecutive_local_origin_failure",
        )?,
        split_local: std::mem::take(&mut message.split_external_local_origin_errors),
        interval: read_duration(message.interval.take(), Duration::from_secs(10), "interval")?,
        base_ejection: read_duration(message.base_ejection_time.take(), Duration::from_secs(30), "base_ejection_time")?,
        max_ejection: read_duration(message.max_ejection_time.take(), Duration::from_secs(300), "max_ejection_time")?,
        max_ejection_percent: read_u32(message.max_ejection_percent.take(), 10),
    };
    only(&read_u32(message.enforcing_success_rate.take(), 100), &0, "enforcing_success_rate")?;
    let local = read_u32(message.enforcing_local_origin_success_rate.take(), 100);
    if outlier.split_local {
        only(&local, &0, "enforcing_local_origin_success_rate")?;
    }
    // At least one endpoint may always be ejected here; Envoy asks for it.
    message.always_eject_one_host = None;
    leftover(&message)?;
    Ok(outlier)
}

fn encode_limits(limits: &Limits) -> pb::cluster::CircuitBreakers {
    let budget = limits.retry_budget.map(|budget| pb::cluster::circuit_breakers::thresholds::RetryBudget {
        budget_percent: Some(pb::kind::Percent { value: f64::from(budget.percent_hundredths) / 100.0 }),
        min_retry_concurrency: u32_value(budget.min_concurrency),
        budget_interval: None,
    });
    pb::cluster::CircuitBreakers {
        thresholds: vec![pb::cluster::circuit_breakers::Thresholds {
            max_connections: u32_value(limits.connections),
            max_pending_requests: u32_value(limits.pending),
            max_requests: u32_value(limits.requests),
            max_retries: u32_value(limits.retries),
            retry_budget: budget,
            track_remaining: true,
            ..pb::cluster::circuit_breakers::Thresholds::default()
        }],
        per_host_thresholds: Vec::new(),
    }
}

fn decode_limits(message: Option<pb::cluster::CircuitBreakers>) -> Result<Limits, DecodeError> {
    let mut message = message.unwrap_or_default();
    let mut thresholds = std::mem::take(&mut message.thresholds);
    leftover(&message)?;
    if thresholds.len() > 1 {
        return fail("only the default priority is supported").at("thresholds");
    }
    let mut limits = thresholds.pop().unwrap_or_default();
    // Statistics only.
    limits.track_remaining = false;
    let budget = limits.retry_budget.take();
    // Envoy's defaults: config.cluster.v3.CircuitBreakers.Thresholds.
    let read = Limits {
        connections: read_u32(limits.max_connections.take(), 1024),
        pending: read_u32(limits.max_pending_requests.take(), 1024),
        requests: read_u32(limits.max_requests.take(), 1024),
        retries: read_u32(limits.max_retries.take(), 3),
        retry_budget: budget.map(decode_budget).transpose().at("thresholds[0].retry_budget")?,
    };
    leftover(&limits).at("thresholds[0]")?;
    Ok(read)
}

fn decode_budget(message: pb::cluster::circuit_breakers::thresholds::RetryBudget) -> Result<RetryBudget, DecodeError> {
    let percent = message.budget_percent.map_or(20.0, |percent| percent.value);
    let hundredths = (percent * 100.0).round();
    if message.budget_interval.is_some() {
        return fail("is not supported").at("budget_interval");
    }
    if !(0.0..=10_000.0).contains(&hundredths) {
        return bad("a percentage", percent).at("budget_percent");
    }
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "whole and within 0 to 10,000")]
    let percent_hundredths = hundredths as u32;
    Ok(RetryBudget { percent_hundredths, min_concurrency: read_u32(message.min_retry_concurrency, 3) })
}

fn encode_http(cluster: &Cluster, metadata: &mut Metadata) -> pb::upstream_http::HttpProtocolOptions {
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

struct Http {
    protocol: UpstreamProtocol,
    options: UpstreamHttp,
    from_host: bool,
}

fn decode_http(mut message: pb::upstream_http::HttpProtocolOptions, metadata: &Metadata) -> Result<Http, DecodeError> {
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

fn encode_transport(transport: &Transport, message: &mut pb::cluster::Cluster, metadata: &mut Metadata) {
    let (Transport::Tls(context) | Transport::Auto(context)) = transport else { return };
    if context.alpn_override {
        metadata.set("alpn_override", true);
    }
    let socket = tls::upstream(context);
    if matches!(transport, Transport::Tls(_)) {
        message.transport_socket = Some(socket);
        return;
    }
    let mode = pb::protobuf::Struct {
        fields: HashMap::from([(
            TLS_MODE.to_owned(),
            pb::protobuf::Value { kind: Some(pb::protobuf::value::Kind::StringValue(TLS_MODE_ISTIO.to_owned())) },
        )]),
    };
    let plain = pb::core::TransportSocket {
        name: "envoy.transport_sockets.raw_buffer".to_owned(),
        config_type: Some(pb::core::transport_socket::ConfigType::TypedConfig(any(&pb::raw_buffer::RawBuffer {}))),
    };
    message.transport_socket_matches = vec![
        TransportSocketMatch { name: MATCH_TLS.to_owned(), r#match: Some(mode), transport_socket: Some(socket) },
        TransportSocketMatch {
            name: MATCH_PLAIN.to_owned(),
            r#match: Some(pb::protobuf::Struct::default()),
            transport_socket: Some(plain),
        },
    ];
}

fn decode_transport(
    message: &mut pb::cluster::Cluster,
    from_host: bool,
    metadata: &Metadata,
) -> Result<Transport, DecodeError> {
    let alpn_override = metadata.get("alpn_override").is_some();
    let matches = std::mem::take(&mut message.transport_socket_matches);
    let socket = message.transport_socket.take();
    let read = |socket| tls::read_upstream(socket, from_host, alpn_override).map(Arc::new);
    match (socket, matches.len()) {
        (None, 0) => Ok(Transport::Plaintext),
        (Some(socket), 0) => Ok(Transport::Tls(read(socket).at("transport_socket")?)),
        (None, 2) => {
            let [with_tls, plain] = <[_; 2]>::try_from(matches).unwrap_or_default();
            let expect = [(TLS_MODE, Value::from(TLS_MODE_ISTIO))];
            let expect: serde_json::Map<_, _> =
                expect.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
            let found = super::value::struct_to_json(with_tls.r#match.unwrap_or_default());
            let raw = plain.transport_socket.is_some_and(|socket| socket.name == "envoy.transport_sockets.raw_buffer");
            if found != Value::Object(expect) || !plain.r#match.unwrap_or_default().fields.is_empty() || !raw {
                return fail(format!("only {SOCKET_MATCH}.{TLS_MODE} is supported")).at("transport_socket_matches");
            }
            let socket = required(with_tls.transport_socket, "transport_socket_matches[0].transport_socket")?;
            Ok(Transport::Auto(read(socket).at("transport_socket_matches[0].transport_socket")?))
        }
        (_, _) => fail("only TLS with a plaintext fallback is supported").at("transport_socket_matches"),
    }
}

fn encode_keepalive(keepalive: Keepalive) -> pb::core::TcpKeepalive {
    let seconds =
        |time: Duration| pb::protobuf::UInt32Value { value: u32::try_from(time.as_secs()).unwrap_or(u32::MAX) };
    pb::core::TcpKeepalive {
        keepalive_probes: keepalive.probes.and_then(u32_value),
        keepalive_time: keepalive.time.map(seconds),
        keepalive_interval: keepalive.interval.map(seconds),
    }
}

fn decode_keepalive(message: pb::core::TcpKeepalive) -> Keepalive {
    let seconds = |value: pb::protobuf::UInt32Value| Duration::from_secs(value.value.into());
    Keepalive {
        probes: message.keepalive_probes.map(|value| value.value),
        time: message.keepalive_time.map(seconds),
        interval: message.keepalive_interval.map(seconds),
    }
}

fn encode_source(address: IpAddr) -> pb::core::BindConfig {
    let source = super::common::address(SocketAddr::new(address, 0));
    let source = source.address.map(|address| match address {
        pb::core::address::Address::SocketAddress(socket) => socket,
        _ => pb::core::SocketAddress::default(),
    });
    pb::core::BindConfig { source_address: source, ..pb::core::BindConfig::default() }
}

fn decode_source(mut message: pb::core::BindConfig) -> Result<IpAddr, DecodeError> {
    let source = required(message.source_address.take(), "source_address")?;
    // A free address is bound with a flag that needs no privilege here.
    message.freebind = None;
    leftover(&message)?;
    let source = pb::core::Address { address: Some(pb::core::address::Address::SocketAddress(source)) };
    let source = super::common::read_address(Some(source), "source_address")?;
    only(&source.port(), &0, "source_address.port_value")?;
    Ok(source.ip())
}

fn decode_service(metadata: &Metadata) -> ServiceRef {
    let services = metadata.get_in(ISTIO, "services").and_then(Value::as_array);
    let Some(service) = services.and_then(|services| services.first()) else { return ServiceRef::default() };
    let text = |key: &str| service.get(key).and_then(Value::as_str).map_or_else(Str::empty, Str::from);
    ServiceRef { host: text("host"), name: text("name"), namespace: text("namespace") }
}
