//! Clusters.

mod http;
mod limits;
mod transport;

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use mesh_api::text::Str;
use serde_json::{Value, json};

use super::common::{ads, any, duration, expect_ads, read_duration, u32_value, unpack};
use super::endpoint;
use super::endpoint::ISTIO;
use super::error::{At, DecodeError, EncodeError, bad, fail, leftover, only, required};
use super::metadata::Metadata;
use crate::ir::cluster::{Balance, Cluster, Discovery, Keepalive, ServiceRef};
use crate::pb;
use crate::pb::cluster::cluster::common_lb_config::{LocalityConfigSpecifier, LocalityWeightedLbConfig};
use crate::pb::cluster::cluster::{
    ClusterDiscoveryType, CommonLbConfig, DiscoveryType, DnsLookupFamily, EdsClusterConfig, LbPolicy,
};

/// Key of the HTTP options in `typed_extension_protocol_options`.
const HTTP_OPTIONS: &str = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";
/// Envoy's default connect timeout.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Envoy's default time between DNS look-ups.
const DNS_REFRESH: Duration = Duration::from_secs(5);

/// Encodes a cluster.
pub(super) fn encode(cluster: &Cluster) -> Result<pb::cluster::Cluster, EncodeError> {
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
        outlier_detection: cluster.outlier.as_ref().map(limits::encode_outlier),
        circuit_breakers: Some(limits::encode_limits(&cluster.limits)),
        typed_extension_protocol_options: HashMap::from([(
            HTTP_OPTIONS.to_owned(),
            any(&http::encode(cluster, &mut metadata)),
        )]),
        upstream_connection_options: cluster.keepalive.map(|keepalive| pb::cluster::UpstreamConnectionOptions {
            tcp_keepalive: Some(encode_keepalive(keepalive)),
            ..pb::cluster::UpstreamConnectionOptions::default()
        }),
        upstream_bind_config: cluster.source_address.map(encode_source),
        ..pb::cluster::Cluster::default()
    };
    encode_discovery(cluster, &mut message);
    transport::encode(&cluster.transport, &mut message, &mut metadata);
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
    let http = http::decode(http.unwrap_or_default(), &metadata).at(HTTP_OPTIONS)?;
    let transport = transport::decode(&mut message, http.from_host, &metadata)?;
    let mut connection = message.upstream_connection_options.take().unwrap_or_default();
    let keepalive = connection.tcp_keepalive.take();
    leftover(&connection).at("upstream_connection_options")?;
    let cluster = Cluster {
        discovery,
        connect_timeout: read_duration(message.connect_timeout.take(), CONNECT_TIMEOUT, "connect_timeout")?,
        balance,
        panic_percent: decode_lb(message.common_lb_config.take().unwrap_or_default()).at("common_lb_config")?,
        outlier: message.outlier_detection.take().map(limits::decode_outlier).transpose().at("outlier_detection")?,
        limits: limits::decode_limits(message.circuit_breakers.take()).at("circuit_breakers")?,
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
