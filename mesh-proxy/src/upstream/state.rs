//! A worker's view of its upstreams: pool keys resolved once per cluster and endpoint, and the pools themselves.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use hashbrown::HashMap;
use mesh_api::text::Str;
use mesh_api_xds::ir::cluster::{Cluster, Sni, Transport, UpstreamTls};
use mesh_api_xds::ir::endpoint::EndpointTls;
use mesh_proxy_core::endpoint::Endpoint;
use rustls::pki_types::ServerName;

use super::h1_pool::H1Pool;
use super::h2_pool::H2Pool;
use super::key::{PoolKey, Protocol, TlsKey};
use crate::tls::store::{Secrets, TlsError, TlsStore};

/// Protocols offered in mesh TLS for each protocol spoken (Istio's `istio.alpn` filter).
const ALPN_HTTP1: &[&str] = &["istio-http/1.1", "istio", "http/1.1"];
const ALPN_HTTP2: &[&str] = &["istio-h2", "istio", "h2"];

/// A worker's upstreams.
#[derive(Debug, Default)]
pub struct Upstreams {
    clusters: RefCell<HashMap<usize, Rc<ClusterKeys>>>,
    /// Resting HTTP/1.1 connections.
    pub h1: H1Pool,
    /// HTTP/2 connections.
    pub h2: H2Pool,
}

/// Pool keys of one cluster's endpoints.
#[derive(Debug)]
struct ClusterKeys {
    /// Kept so that its address, the key of the map, is not used again.
    settings: Arc<Cluster>,
    keys: RefCell<HashMap<KeyOf, Rc<PoolKey>>>,
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct KeyOf {
    address: SocketAddr,
    tls: EndpointTls,
    protocol: Protocol,
    /// Request host, where the server name follows it.
    host: Option<Str>,
}

/// Pool keys kept for a cluster; original destinations and hosts come from clients, so their number is bounded.
const MOST_KEYS: usize = 4096;

impl Upstreams {
    /// The key under which connections to `endpoint` are pooled.
    ///
    /// # Errors
    /// When the TLS settings cannot be used now.
    pub fn key(
        &self,
        settings: &Arc<Cluster>,
        endpoint: &Endpoint,
        protocol: Protocol,
        host: &[u8],
        store: &TlsStore,
        secrets: &impl Secrets,
    ) -> Result<Rc<PoolKey>, TlsError> {
        let cluster = self.cluster(settings);
        let tls = tls_of(settings, endpoint);
        let host = match tls {
            Some(UpstreamTls { sni: Sni::FromHost, .. }) => {
                std::str::from_utf8(mesh_proxy_core::head::syntax::split_port(host).0).ok().map(Str::from)
            }
            _ => None,
        };
        let of = KeyOf { address: endpoint.address, tls: endpoint.tls, protocol, host };
        if let Some(key) = cluster.keys.borrow().get(&of) {
            return Ok(Rc::clone(key));
        }
        let tls = match tls {
            None => None,
            Some(tls) => Some(TlsKey {
                config: store.client(secrets, tls, alpn(tls, protocol))?,
                server_name: server_name(&tls.sni, of.host.as_ref(), endpoint.address),
                names: tls.validation.as_ref().map_or_else(Arc::default, |check| Arc::clone(&check.sans)),
            }),
        };
        let key = Rc::new(PoolKey { address: endpoint.address, tls, protocol, source: settings.source_address });
        let mut keys = cluster.keys.borrow_mut();
        if keys.len() >= MOST_KEYS {
            keys.clear();
        }
        keys.insert(of, Rc::clone(&key));
        Ok(key)
    }

    fn cluster(&self, settings: &Arc<Cluster>) -> Rc<ClusterKeys> {
        let mut clusters = self.clusters.borrow_mut();
        let entry = clusters
            .entry(Arc::as_ptr(settings).addr())
            .or_insert_with(|| Rc::new(ClusterKeys { settings: Arc::clone(settings), keys: RefCell::default() }));
        Rc::clone(entry)
    }

    /// Forgets clusters that `is_current` refuses. Called after each change of configuration.
    pub fn retain(&self, is_current: impl Fn(&Arc<Cluster>) -> bool) {
        self.clusters.borrow_mut().retain(|_, cluster| is_current(&cluster.settings));
    }

    /// Forgets everything that was secured with the secrets so far: they have changed.
    pub fn forget_secured(&self) {
        self.clusters.borrow_mut().clear();
        self.h1.retain(|key| key.tls.is_none());
        self.h2.retain(|key| key.tls.is_none());
    }
}

fn tls_of<'a>(settings: &'a Cluster, endpoint: &Endpoint) -> Option<&'a UpstreamTls> {
    match (&settings.transport, endpoint.tls) {
        (Transport::Plaintext, _) | (Transport::Auto(_), EndpointTls::Disabled) => None,
        (Transport::Tls(tls), _) | (Transport::Auto(tls), EndpointTls::Istio) => Some(tls),
    }
}

/// Protocols to offer in place of the cluster's own; empty keeps those.
const fn alpn(tls: &UpstreamTls, protocol: Protocol) -> &'static [&'static str] {
    match protocol {
        Protocol::Http1 if tls.alpn_override => ALPN_HTTP1,
        Protocol::Http2 if tls.alpn_override => ALPN_HTTP2,
        Protocol::Http1 | Protocol::Http2 | Protocol::Opaque => &[],
    }
}

/// The server name; an address, which is never sent, where there is none.
fn server_name(sni: &Sni, host: Option<&Str>, address: SocketAddr) -> ServerName<'static> {
    let name = match sni {
        Sni::None => None,
        Sni::Name(name) => Some(name),
        Sni::FromHost => host,
    };
    name.and_then(|name| ServerName::try_from(name.to_string()).ok())
        .unwrap_or_else(|| ServerName::IpAddress(address.ip().into()))
}
