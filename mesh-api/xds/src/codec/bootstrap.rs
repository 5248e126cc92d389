//! A bootstrap that gives resources to a real Envoy, for `envoy --mode validate` and for suites that run one.
//!
//! Binary, because that is what the messages are: Envoy reads it from a file whose name ends in `.pb`.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use prost::Message as _;

use super::EncodeError;
use super::common::{address, ads, any, duration, unpack};
use crate::discovery::Protocol;
use crate::ir::Resource;
use crate::ir::http::RouteSource;
use crate::ir::route::RouteHosts;
use crate::node::{NodeError, NodeInfo};
use crate::pb;
use crate::pb::bootstrap::bootstrap::{DynamicResources, StaticResources};
use crate::pb::cluster::cluster::{ClusterDiscoveryType, DiscoveryType};
use crate::pb::core::api_config_source::ApiType;
use crate::pb::core::config_source::ConfigSourceSpecifier;
use crate::pb::core::grpc_service::{EnvoyGrpc, TargetSpecifier};

/// Name of the cluster that leads to the control plane.
const XDS_CLUSTER: &str = "xds-grpc";

/// A bootstrap under construction.
#[derive(Debug)]
pub struct Bootstrap {
    message: pb::bootstrap::Bootstrap,
}

/// A bootstrap that cannot be built.
#[derive(Debug, thiserror::Error)]
pub enum BootstrapError {
    /// A resource has no encoding.
    #[error("a resource cannot be encoded")]
    Resource(#[source] EncodeError),
    /// The node has no encoding.
    #[error("the node cannot be encoded")]
    Node(#[source] NodeError),
}

impl Bootstrap {
    /// An Envoy that asks the control plane at `xds` for aggregated resources, in plaintext.
    ///
    /// # Errors
    /// When the node cannot be encoded.
    pub fn new(node: &NodeInfo, xds: SocketAddr) -> Result<Self, BootstrapError> {
        let node = node.encode().map_err(BootstrapError::Node)?;
        let node = pb::core::Node::decode(node).map_err(|error| BootstrapError::Node(NodeError::Malformed(error)))?;
        let dynamic =
            DynamicResources { ads_config: Some(api_source(ApiType::DeltaGrpc)), ..DynamicResources::default() };
        let message = pb::bootstrap::Bootstrap {
            node: Some(node),
            static_resources: Some(StaticResources { clusters: vec![xds_cluster(xds)], ..StaticResources::default() }),
            dynamic_resources: Some(dynamic),
            ..pb::bootstrap::Bootstrap::default()
        };
        Ok(Self { message })
    }

    /// Listeners and clusters come from the control plane too.
    #[must_use]
    pub fn dynamic(mut self) -> Self {
        if let Some(dynamic) = &mut self.message.dynamic_resources {
            dynamic.lds_config = Some(ads());
            dynamic.cds_config = Some(ads());
        }
        self
    }

    /// Asks in another variant of the protocol than the incremental one.
    #[must_use]
    pub fn protocol(mut self, protocol: Protocol) -> Self {
        let source = self.message.dynamic_resources.as_mut().and_then(|dynamic| dynamic.ads_config.as_mut());
        if let Some(source) = source {
            source.api_type = match protocol {
                Protocol::Delta => ApiType::DeltaGrpc.into(),
                Protocol::Sotw => ApiType::Grpc.into(),
            };
        }
        self
    }

    /// Serves the admin interface.
    #[must_use]
    pub fn admin(mut self, at: SocketAddr) -> Self {
        self.message.admin =
            Some(pb::bootstrap::Admin { address: Some(address(at)), ..pb::bootstrap::Admin::default() });
        self
    }

    /// Adds a resource to the static ones. Route configurations and virtual hosts stand in a listener of their own, since a
    /// bootstrap has no other place for them; endpoint sets in a cluster.
    ///
    /// # Errors
    /// When it cannot be encoded.
    pub fn with(mut self, resource: &Resource) -> Result<Self, BootstrapError> {
        let number =
            self.message.static_resources.as_ref().map_or(0, |fixed| fixed.listeners.len() + fixed.clusters.len());
        let Some(fixed) = &mut self.message.static_resources else { return Ok(self) };
        let place = wrapped(resource, number);
        match place.as_ref().unwrap_or(resource) {
            Resource::Cluster(cluster) => {
                let mut message = super::cluster::encode(cluster).map_err(BootstrapError::Resource)?;
                let matches = message.transport_socket_matches.iter_mut();
                let sockets = matches.filter_map(|choice| choice.transport_socket.as_mut());
                sockets.chain(&mut message.transport_socket).for_each(detach_secrets);
                fixed.clusters.push(message);
            }
            Resource::Listener(listener) => {
                let mut message = super::listener::encode(listener).map_err(BootstrapError::Resource)?;
                let chains = message.filter_chains.iter_mut().chain(&mut message.default_filter_chain);
                chains.filter_map(|chain| chain.transport_socket.as_mut()).for_each(detach_secrets);
                fixed.listeners.push(message);
            }
            Resource::Secret(secret) => fixed.secrets.push(super::secret::encode(secret)),
            Resource::Endpoints(_) | Resource::Routes(_) | Resource::VirtualHost(_) | Resource::Names(_) => {}
        }
        Ok(self)
    }

    /// The content of the file.
    #[must_use]
    pub fn into_bytes(self) -> Bytes {
        self.message.encode_to_vec().into()
    }
}

/// The control plane as a source.
fn api_source(api_type: ApiType) -> pb::core::ApiConfigSource {
    let grpc = pb::core::GrpcService {
        target_specifier: Some(TargetSpecifier::EnvoyGrpc(EnvoyGrpc {
            cluster_name: XDS_CLUSTER.to_owned(),
            ..EnvoyGrpc::default()
        })),
        ..pb::core::GrpcService::default()
    };
    pb::core::ApiConfigSource {
        api_type: api_type.into(),
        transport_api_version: pb::core::ApiVersion::V3.into(),
        grpc_services: vec![grpc],
        set_node_on_first_message_only: true,
        ..pb::core::ApiConfigSource::default()
    }
}

/// Static resources are loaded before there is an aggregated stream, and Envoy 1.40 crashes when their secrets want it. They
/// get a stream of their own.
fn detach_secrets(socket: &mut pb::core::TransportSocket) {
    use pb::core::transport_socket::ConfigType;
    let Some(ConfigType::TypedConfig(config)) = &mut socket.config_type else { return };
    if let Ok(mut context) = unpack::<pb::tls::UpstreamTlsContext>(config) {
        context.common_tls_context.iter_mut().for_each(detach_context);
        *config = any(&context);
    } else if let Ok(mut context) = unpack::<pb::tls::DownstreamTlsContext>(config) {
        context.common_tls_context.iter_mut().for_each(detach_context);
        *config = any(&context);
    }
}

fn detach_context(context: &mut pb::tls::CommonTlsContext) {
    use pb::tls::common_tls_context::ValidationContextType;
    let trust = match &mut context.validation_context_type {
        Some(ValidationContextType::CombinedValidationContext(combined)) => {
            combined.validation_context_sds_secret_config.as_mut()
        }
        _ => None,
    };
    for secret in context.tls_certificate_sds_secret_configs.iter_mut().chain(trust) {
        let source = ConfigSourceSpecifier::ApiConfigSource(api_source(ApiType::Grpc));
        secret.sds_config = Some(pb::core::ConfigSource { config_source_specifier: Some(source), ..ads() });
    }
}

/// A cluster of one endpoint that speaks HTTP/2.
fn xds_cluster(at: SocketAddr) -> pb::cluster::Cluster {
    use pb::upstream_http::http_protocol_options::explicit_http_config::ProtocolConfig;
    use pb::upstream_http::http_protocol_options::{ExplicitHttpConfig, UpstreamProtocolOptions};
    let http2 = ExplicitHttpConfig { protocol_config: Some(ProtocolConfig::Http2ProtocolOptions(Default::default())) };
    let options = pb::upstream_http::HttpProtocolOptions {
        upstream_protocol_options: Some(UpstreamProtocolOptions::ExplicitHttpConfig(http2)),
        ..pb::upstream_http::HttpProtocolOptions::default()
    };
    let endpoint = pb::endpoint::Endpoint { address: Some(address(at)), ..pb::endpoint::Endpoint::default() };
    let endpoint = pb::endpoint::LbEndpoint {
        host_identifier: Some(pb::endpoint::lb_endpoint::HostIdentifier::Endpoint(endpoint)),
        ..pb::endpoint::LbEndpoint::default()
    };
    let group = pb::endpoint::LocalityLbEndpoints {
        lb_endpoints: vec![endpoint],
        ..pb::endpoint::LocalityLbEndpoints::default()
    };
    pb::cluster::Cluster {
        name: XDS_CLUSTER.to_owned(),
        cluster_discovery_type: Some(ClusterDiscoveryType::Type(DiscoveryType::Static.into())),
        connect_timeout: Some(duration(Duration::from_secs(1))),
        load_assignment: Some(pb::endpoint::ClusterLoadAssignment {
            cluster_name: XDS_CLUSTER.to_owned(),
            endpoints: vec![group],
            ..pb::endpoint::ClusterLoadAssignment::default()
        }),
        typed_extension_protocol_options: [(
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions".to_owned(),
            any(&options),
        )]
        .into(),
        ..pb::cluster::Cluster::default()
    }
}

/// A resource in one that a bootstrap has a place for; none when it has one itself.
fn wrapped(resource: &Resource, number: usize) -> Option<Resource> {
    use crate::ir::cluster::Discovery;
    use crate::ir::route::RouteConfig;
    let routes = match resource {
        Resource::Cluster(_) | Resource::Listener(_) | Resource::Secret(_) | Resource::Names(_) => return None,
        Resource::Endpoints(endpoints) => {
            let mut cluster = crate::testing::samples::cluster(&format!("c{number}"));
            cluster.discovery = Discovery::Static(endpoints.clone().into());
            return Some(Resource::Cluster(cluster));
        }
        Resource::Routes(routes) => routes.clone(),
        Resource::VirtualHost(host) => {
            RouteConfig { name: "r".into(), hosts: RouteHosts::Inline([host.clone().into()].into()), ignore_port: true }
        }
    };
    Some(Resource::Listener(crate::testing::samples::listener(
        &format!("l{number}"),
        RouteSource::Inline(routes.into()),
    )))
}
