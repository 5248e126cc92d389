//! Names of resources: Istio's, letter by letter, because dashboards, scripts and EnvoyFilters hold them.

use std::net::SocketAddr;

use mesh_api::host::Hostname;
use mesh_api::text::Str;

/// `outbound|9080|v1|reviews.default.svc.cluster.local`.
pub(crate) fn outbound(port: u16, subset: &str, host: &Hostname) -> Str {
    Str::from(format!("outbound|{port}|{subset}|{host}"))
}

/// `inbound|9080||`.
pub(crate) fn inbound(port: u16) -> Str {
    Str::from(format!("inbound|{port}||"))
}

/// `outbound_.9080_.v1_.reviews.default.svc.cluster.local`, the server name of mesh TLS.
pub(crate) fn sni(port: u16, subset: &str, host: &Hostname) -> Str {
    Str::from(format!("outbound_.{port}_.{subset}_.{host}"))
}

/// `10.0.0.1_9080`, `::1_9080`: a listener by its address.
pub(crate) fn listener(address: SocketAddr) -> Str {
    Str::from(format!("{}_{}", address.ip(), address.port()))
}

/// Chain of the loop guard of `virtualOutbound`.
pub(crate) const OUTBOUND_BLACKHOLE_CHAIN: &str = "virtualOutbound-blackhole";
/// Default chain of `virtualOutbound`.
pub(crate) const OUTBOUND_CATCHALL_CHAIN: &str = "virtualOutbound-catchall-tcp";
/// Chain for what is not HTTP on a port of HTTP services.
pub(crate) const PASSTHROUGH_CHAIN: &str = "PassthroughFilterChain";
/// Chain of the loop guard of `virtualInbound`.
pub(crate) const INBOUND_BLACKHOLE_CHAIN: &str = "virtualInbound-blackhole";
/// Chains of HTTP on inbound ports without a service.
pub(crate) const INBOUND_CATCHALL_HTTP_CHAIN: &str = "virtualInbound-catchall-http";
/// Virtual host of unknown destinations that are let through.
pub(crate) const ALLOW_ANY: &str = "allow_any";
/// Virtual host of unknown destinations that are refused.
pub(crate) const BLOCK_ALL: &str = "block_all";
/// Route configuration of the HTTP proxy listener.
pub(crate) const HTTP_PROXY_ROUTES: &str = "http_proxy";
/// Route of a service without routes of its own.
pub(crate) const DEFAULT_ROUTE: &str = "default";
