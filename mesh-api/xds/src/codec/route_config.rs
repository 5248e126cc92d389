//! Route configurations: virtual hosts, or where they come from.

use std::sync::Arc;

use super::common::{ads, bool_value, expect_ads, u32_value};
use super::error::{At, DecodeError, EncodeError, each, each_arc, fail, leftover};
use super::route::MAX_DIRECT_BODY_BYTES;
use super::vhost;
use crate::ir::route::{RouteConfig, RouteHosts};
use crate::pb;

pub(super) fn encode(config: &RouteConfig) -> Result<pb::route::RouteConfiguration, EncodeError> {
    let (hosts, apart) = match &config.hosts {
        RouteHosts::Inline(hosts) => (each("virtual_hosts", &**hosts, |host| vhost::encode(host))?, None),
        RouteHosts::Apart => (Vec::new(), Some(pb::route::Vhds { config_source: Some(ads()) })),
    };
    Ok(pb::route::RouteConfiguration {
        name: config.name.to_string(),
        virtual_hosts: hosts,
        vhds: apart,
        ignore_port_in_host_matching: config.ignore_port,
        validate_clusters: bool_value(false),
        max_direct_response_body_size_bytes: u32_value(MAX_DIRECT_BODY_BYTES),
        ..pb::route::RouteConfiguration::default()
    })
}

pub(super) fn decode(mut message: pb::route::RouteConfiguration) -> Result<RouteConfig, DecodeError> {
    let hosts = std::mem::take(&mut message.virtual_hosts);
    let hosts = match message.vhds.take() {
        None => RouteHosts::Inline(each_arc("virtual_hosts", hosts, |host| vhost::decode(host).map(Arc::new))?),
        Some(vhds) if hosts.is_empty() => {
            expect_ads(vhds.config_source, "vhds.config_source")?;
            RouteHosts::Apart
        }
        Some(_) => return fail("excludes virtual_hosts").at("vhds"),
    };
    // Whether Envoy checks clusters at load time, its bound on bodies (ours is fixed), and notes for others.
    message.validate_clusters = None;
    message.max_direct_response_body_size_bytes = None;
    message.metadata = None;
    let name = std::mem::take(&mut message.name).into();
    let ignore_port = std::mem::take(&mut message.ignore_port_in_host_matching);
    leftover(&message)?;
    Ok(RouteConfig { name, hosts, ignore_port })
}
