//! HTTP filters and their settings per route, one file a filter.

mod cors;
mod fault;
mod istio;
pub(super) mod rbac;

use std::collections::HashMap;
use std::sync::Arc;

use super::common::{any, unpack};
use super::error::{At, DecodeError, EncodeError, each, fail, leftover, required};
use crate::ir::filter::{HttpFilter, RouteFilter};
use crate::pb;
use crate::pb::hcm::http_filter::ConfigType;

const RBAC: &str = "envoy.filters.http.rbac";
const CORS: &str = "envoy.filters.http.cors";
const FAULT: &str = "envoy.filters.http.fault";
const ROUTER: &str = "envoy.filters.http.router";

fn filter(name: &str, config: pb::protobuf::Any) -> pb::hcm::HttpFilter {
    pb::hcm::HttpFilter {
        name: name.to_owned(),
        config_type: Some(ConfigType::TypedConfig(config)),
        ..pb::hcm::HttpFilter::default()
    }
}

/// The filters of a chain, the router last.
pub(super) fn encode(filters: &[HttpFilter]) -> Result<Vec<pb::hcm::HttpFilter>, EncodeError> {
    let mut messages: Vec<_> = each("filters", filters, |kind| {
        Ok(match kind {
            HttpFilter::PeerMetadata(side) => istio::peer_metadata(*side),
            HttpFilter::Authz(authz) => filter(RBAC, any(&rbac::encode_http(authz)?)),
            HttpFilter::Alpn => istio::alpn(),
            HttpFilter::Cors => filter(CORS, any(&pb::http_cors::Cors::default())),
            HttpFilter::Fault => filter(FAULT, any(&pb::http_fault::HttpFault::default())),
            HttpFilter::Stats(stats) => istio::stats(*stats),
        })
    })?;
    messages.push(filter(ROUTER, any(&pb::http_router::Router::default())));
    Ok(messages)
}

/// Reads the filters of a chain. A filter that we do not have is an error, unless its author says that it may be left out.
pub(super) fn decode(mut messages: Vec<pb::hcm::HttpFilter>) -> Result<Arc<[HttpFilter]>, DecodeError> {
    match messages.pop() {
        Some(last) if last.name == ROUTER || is_router(&last) => {}
        Some(_) | None => return fail("the last filter is not the router").at("http_filters"),
    }
    let filters: Vec<Option<HttpFilter>> = each("http_filters", messages, decode_one)?;
    Ok(filters.into_iter().flatten().collect())
}

fn is_router(message: &pb::hcm::HttpFilter) -> bool {
    matches!(&message.config_type, Some(ConfigType::TypedConfig(config))
        if config.type_url == <pb::http_router::Router as prost::Name>::type_url())
}

fn decode_one(message: pb::hcm::HttpFilter) -> Result<Option<HttpFilter>, DecodeError> {
    if message.disabled {
        return fail("is not supported").at("disabled");
    }
    let ConfigType::TypedConfig(config) = required(message.config_type, "typed_config")? else {
        return fail("is not supported").at("config_discovery");
    };
    if let Some(filter) = istio::decode(&message.name, &config)? {
        return Ok(Some(filter));
    }
    match message.name.as_str() {
        RBAC => rbac::decode_http(unpack(&config)?).map(|authz| Some(HttpFilter::Authz(authz))),
        CORS => Ok(Some(HttpFilter::Cors)),
        FAULT => {
            leftover(&unpack::<pb::http_fault::HttpFault>(&config)?)?;
            Ok(Some(HttpFilter::Fault))
        }
        _ if message.is_optional => Ok(None),
        name => fail(format!("the filter {name} ({}) is not supported", config.type_url)),
    }
}

/// Settings of a route.
pub(super) fn encode_route(filters: &[RouteFilter]) -> Result<HashMap<String, pb::protobuf::Any>, EncodeError> {
    let mut configs = HashMap::new();
    for kind in filters {
        let (name, config) = match kind {
            RouteFilter::Fault(settings) => (FAULT, any(&fault::encode(settings))),
            RouteFilter::Cors(settings) => (CORS, any(&cors::encode(settings))),
        };
        if configs.insert(name.to_owned(), config).is_some() {
            return fail(format!("two settings for {name}")).at("filters");
        }
    }
    Ok(configs)
}

/// Reads the settings of a route.
pub(super) fn decode_route(mut configs: HashMap<String, pb::protobuf::Any>) -> Result<Arc<[RouteFilter]>, DecodeError> {
    let mut filters = Vec::new();
    let mut take = |name: &str| configs.remove(name);
    if let Some(config) = take(FAULT) {
        let settings = unpack(&config).and_then(fault::decode).at(FAULT).at("typed_per_filter_config")?;
        filters.push(RouteFilter::Fault(settings));
    }
    if let Some(config) = take(CORS) {
        let settings = unpack(&config).and_then(cors::decode).at(CORS).at("typed_per_filter_config")?;
        filters.push(RouteFilter::Cors(settings));
    }
    match configs.keys().min() {
        Some(name) => fail("is not supported").at(name).at("typed_per_filter_config"),
        None => Ok(filters.into()),
    }
}
