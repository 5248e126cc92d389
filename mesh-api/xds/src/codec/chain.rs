//! Filter chains and TCP proxying.

use std::sync::Arc;
use std::time::Duration;

use mesh_api::text::Str;

use super::common::{any, duration, read_duration, read_limit, read_port, u32_value, unpack};
use super::error::{At, DecodeError, EncodeError, each, each_arc, fail, leftover, required};
use super::filter::rbac;
use super::metadata::Metadata;
use super::{access_log, http, matcher, tls};
use crate::ir::chain::{Chain, ChainMatch, Serve, TcpProxy, TransportMatch, WeightedTcp};
use crate::pb;
use crate::pb::listener::filter::ConfigType;
use crate::pb::tcp_proxy::tcp_proxy::weighted_cluster::ClusterWeight;
use crate::pb::tcp_proxy::tcp_proxy::{ClusterSpecifier, WeightedCluster};

const HCM: &str = "envoy.filters.network.http_connection_manager";
const TCP_PROXY: &str = "envoy.filters.network.tcp_proxy";
const RBAC: &str = "envoy.filters.network.rbac";
/// Envoy's default idle timeout of a TCP proxy.
const TCP_IDLE_TIMEOUT: Duration = Duration::from_secs(3600);

fn filter(name: &str, config: pb::protobuf::Any) -> pb::listener::Filter {
    pb::listener::Filter { name: name.to_owned(), config_type: Some(ConfigType::TypedConfig(config)) }
}

pub(super) fn encode(chain: &Chain) -> Result<pb::listener::FilterChain, EncodeError> {
    let mut metadata = Metadata::default();
    let mut filters: Vec<_> =
        each("authz", &*chain.authz, |authz| Ok(filter(RBAC, any(&rbac::encode_network(authz, "tcp.")?))))?;
    filters.push(match &chain.serve {
        Serve::Http(connection) => filter(HCM, any(&http::encode(connection, &mut metadata).at("http")?)),
        Serve::Tcp(proxy) => filter(TCP_PROXY, any(&encode_tcp(proxy, &mut metadata))),
    });
    let handshake_timeout = chain.tls.as_ref().map(|tls| tls.handshake_timeout).filter(|limit| !limit.is_zero());
    Ok(pb::listener::FilterChain {
        name: chain.name.to_string(),
        filter_chain_match: (chain.matches != ChainMatch::default()).then(|| encode_match(&chain.matches)),
        filters,
        transport_socket: chain.tls.as_deref().map(tls::downstream),
        transport_socket_connect_timeout: handshake_timeout.map(duration),
        metadata: metadata.write(),
        ..pb::listener::FilterChain::default()
    })
}

pub(super) fn decode(mut message: pb::listener::FilterChain) -> Result<Chain, DecodeError> {
    let metadata = Metadata::read(message.metadata.take());
    let handshake_timeout = message.transport_socket_connect_timeout.take();
    let handshake_timeout = read_duration(handshake_timeout, Duration::ZERO, "transport_socket_connect_timeout")?;
    let tls = message.transport_socket.take().map(|socket| tls::read_downstream(socket, handshake_timeout));
    let mut filters = std::mem::take(&mut message.filters);
    let last = filters.len().saturating_sub(1);
    let Some(terminal) = filters.pop() else { return fail("is empty").at("filters") };
    let chain = Chain {
        name: std::mem::take(&mut message.name).into(),
        matches: message
            .filter_chain_match
            .take()
            .map(decode_match)
            .transpose()
            .at("filter_chain_match")?
            .unwrap_or_default(),
        tls: tls.transpose().at("transport_socket")?.map(Arc::new),
        authz: each_arc("filters", filters, |filter| match read_filter(filter)? {
            (name, config) if name == RBAC => rbac::decode_network(unpack(&config)?),
            (name, _) => fail(format!("the filter {name} is not supported here")),
        })?,
        serve: decode_terminal(terminal, &metadata).at(&format!("filters[{last}]"))?,
    };
    leftover(&message)?;
    Ok(chain)
}

fn read_filter(filter: pb::listener::Filter) -> Result<(String, pb::protobuf::Any), DecodeError> {
    match required(filter.config_type, "typed_config")? {
        ConfigType::TypedConfig(config) => Ok((filter.name, config)),
        ConfigType::ConfigDiscovery(_) => fail("is not supported").at("config_discovery"),
    }
}

fn decode_terminal(filter: pb::listener::Filter, metadata: &Metadata) -> Result<Serve, DecodeError> {
    let (name, config) = read_filter(filter)?;
    match name.as_str() {
        HCM => Ok(Serve::Http(Arc::new(http::decode(unpack(&config)?, metadata).at("http_connection_manager")?))),
        TCP_PROXY => Ok(Serve::Tcp(Arc::new(decode_tcp(unpack(&config)?, metadata).at("tcp_proxy")?))),
        other => fail(format!("the filter {other} cannot end a chain")),
    }
}

fn texts(items: &[Str]) -> Vec<String> {
    items.iter().map(ToString::to_string).collect()
}

fn encode_match(matches: &ChainMatch) -> pb::listener::FilterChainMatch {
    pb::listener::FilterChainMatch {
        destination_port: matches.destination_port.and_then(|port| u32_value(port.into())),
        prefix_ranges: matches.destinations.iter().map(|range| matcher::cidr(*range)).collect(),
        server_names: texts(&matches.server_names),
        transport_protocol: match matches.transport {
            TransportMatch::Any => String::new(),
            TransportMatch::Raw => "raw_buffer".to_owned(),
            TransportMatch::Tls => "tls".to_owned(),
        },
        application_protocols: texts(&matches.application_protocols),
        direct_source_prefix_ranges: matches.sources.iter().map(|range| matcher::cidr(*range)).collect(),
        ..pb::listener::FilterChainMatch::default()
    }
}

fn decode_match(mut message: pb::listener::FilterChainMatch) -> Result<ChainMatch, DecodeError> {
    let port = message.destination_port.take().map(|port| read_port(port.value, "destination_port"));
    let transport = match std::mem::take(&mut message.transport_protocol).as_str() {
        "" => TransportMatch::Any,
        "raw_buffer" => TransportMatch::Raw,
        "tls" => TransportMatch::Tls,
        other => return fail(format!("{other} is not supported")).at("transport_protocol"),
    };
    let matches = ChainMatch {
        destination_port: port.transpose()?,
        destinations: each_arc("prefix_ranges", std::mem::take(&mut message.prefix_ranges), matcher::read_cidr)?,
        server_names: std::mem::take(&mut message.server_names).into_iter().map(Str::from).collect(),
        transport,
        application_protocols: std::mem::take(&mut message.application_protocols).into_iter().map(Str::from).collect(),
        sources: each_arc(
            "direct_source_prefix_ranges",
            std::mem::take(&mut message.direct_source_prefix_ranges),
            matcher::read_cidr,
        )?,
    };
    leftover(&message)?;
    Ok(matches)
}

fn encode_tcp(proxy: &TcpProxy, metadata: &mut Metadata) -> pb::tcp_proxy::TcpProxy {
    metadata.set_origin("origin", &proxy.origin);
    let cluster = match &*proxy.clusters {
        [only] if only.weight == 1 => ClusterSpecifier::Cluster(only.cluster.to_string()),
        clusters => ClusterSpecifier::WeightedClusters(WeightedCluster {
            clusters: clusters
                .iter()
                .map(|choice| ClusterWeight {
                    name: choice.cluster.to_string(),
                    weight: choice.weight,
                    ..ClusterWeight::default()
                })
                .collect(),
        }),
    };
    pb::tcp_proxy::TcpProxy {
        stat_prefix: proxy.stat_prefix.to_string(),
        idle_timeout: Some(duration(proxy.idle_timeout.unwrap_or_default())),
        access_log: access_log::encode(&proxy.access_logs, metadata),
        cluster_specifier: Some(cluster),
        ..pb::tcp_proxy::TcpProxy::default()
    }
}

fn decode_tcp(mut message: pb::tcp_proxy::TcpProxy, metadata: &Metadata) -> Result<TcpProxy, DecodeError> {
    let clusters = match required(message.cluster_specifier.take(), "cluster_specifier")? {
        ClusterSpecifier::Cluster(cluster) => Arc::from([WeightedTcp { cluster: cluster.into(), weight: 1 }]),
        ClusterSpecifier::WeightedClusters(weighted) => {
            each_arc("weighted_clusters.clusters", weighted.clusters, |mut choice| {
                let (cluster, weight) = (std::mem::take(&mut choice.name).into(), std::mem::take(&mut choice.weight));
                leftover(&choice)?;
                Ok(WeightedTcp { cluster, weight })
            })?
        }
    };
    if clusters.iter().all(|choice| choice.weight == 0) {
        return fail("no weight is positive").at("weighted_clusters.clusters");
    }
    let proxy = TcpProxy {
        stat_prefix: std::mem::take(&mut message.stat_prefix).into(),
        clusters,
        idle_timeout: read_limit(message.idle_timeout.take(), TCP_IDLE_TIMEOUT, "idle_timeout")?,
        access_logs: access_log::decode(std::mem::take(&mut message.access_log), metadata)?,
        origin: metadata.origin("origin"),
    };
    leftover(&message)?;
    Ok(proxy)
}
