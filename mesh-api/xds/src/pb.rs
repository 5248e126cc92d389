//! Envoy's messages: the only file that names the crate which holds them.
//!
//! Nothing outside this crate sees them; see [`crate::ir`] for what stands between both sides.

pub(crate) use envoy_types::pb::envoy::config::accesslog::v3 as accesslog;
#[cfg(feature = "testing")]
pub(crate) use envoy_types::pb::envoy::config::bootstrap::v3 as bootstrap;
pub(crate) use envoy_types::pb::envoy::config::cluster::v3 as cluster;
pub(crate) use envoy_types::pb::envoy::config::core::v3 as core;
pub(crate) use envoy_types::pb::envoy::config::endpoint::v3 as endpoint;
pub(crate) use envoy_types::pb::envoy::config::listener::v3 as listener;
pub(crate) use envoy_types::pb::envoy::config::rbac::v3 as rbac;
pub(crate) use envoy_types::pb::envoy::config::route::v3 as route;
pub(crate) use envoy_types::pb::envoy::extensions::access_loggers::file::v3 as file_log;
pub(crate) use envoy_types::pb::envoy::extensions::filters::common::fault::v3 as common_fault;
pub(crate) use envoy_types::pb::envoy::extensions::filters::http::cors::v3 as http_cors;
pub(crate) use envoy_types::pb::envoy::extensions::filters::http::fault::v3 as http_fault;
pub(crate) use envoy_types::pb::envoy::extensions::filters::http::rbac::v3 as http_rbac;
pub(crate) use envoy_types::pb::envoy::extensions::filters::http::router::v3 as http_router;
pub(crate) use envoy_types::pb::envoy::extensions::filters::listener::http_inspector::v3 as http_inspector;
pub(crate) use envoy_types::pb::envoy::extensions::filters::listener::original_dst::v3 as original_dst;
pub(crate) use envoy_types::pb::envoy::extensions::filters::listener::tls_inspector::v3 as tls_inspector;
pub(crate) use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3 as hcm;
pub(crate) use envoy_types::pb::envoy::extensions::filters::network::rbac::v3 as network_rbac;
pub(crate) use envoy_types::pb::envoy::extensions::filters::network::tcp_proxy::v3 as tcp_proxy;
pub(crate) use envoy_types::pb::envoy::extensions::retry::host::previous_hosts::v3 as previous_hosts;
pub(crate) use envoy_types::pb::envoy::extensions::transport_sockets::raw_buffer::v3 as raw_buffer;
pub(crate) use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3 as tls;
pub(crate) use envoy_types::pb::envoy::extensions::upstreams::http::v3 as upstream_http;
pub(crate) use envoy_types::pb::envoy::r#type::matcher::v3 as matcher;
pub(crate) use envoy_types::pb::envoy::r#type::v3 as kind;
pub(crate) use envoy_types::pb::google::protobuf;

/// `xds.type.v3.TypedStruct`, which the crate leaves out: a message by its type's name and its fields.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct TypedStruct {
    /// Type of the message.
    #[prost(string, tag = "1")]
    pub(crate) type_url: String,
    /// Its fields.
    #[prost(message, optional, tag = "2")]
    pub(crate) value: Option<protobuf::Struct>,
}

impl prost::Name for TypedStruct {
    const NAME: &'static str = "TypedStruct";
    const PACKAGE: &'static str = "xds.type.v3";

    fn full_name() -> String {
        "xds.type.v3.TypedStruct".to_owned()
    }

    fn type_url() -> String {
        "type.googleapis.com/xds.type.v3.TypedStruct".to_owned()
    }
}
