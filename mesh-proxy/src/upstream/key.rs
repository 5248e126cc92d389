//! What two requests must have in common to share a connection.

use std::hash::{Hash, Hasher};
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;

use mesh_api_xds::ir::matcher::StringMatch;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;

/// Key of pooled connections: endpoint, TLS parameters (own identity, trust, ALPN, SNI, accepted peer names), protocol and
/// source address. Two identities never share a connection, because each has a rustls configuration of its own.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PoolKey {
    /// Where the connection goes.
    pub address: SocketAddr,
    /// How it is secured; `None` is plaintext.
    pub tls: Option<TlsKey>,
    /// What is spoken.
    pub protocol: Protocol,
    /// Address that it comes from, where one is set.
    pub source: Option<IpAddr>,
}

impl PoolKey {
    /// The key of a connection to the workload in the name of `client`: such connections are shared only by the client's own
    /// requests. Any other connection has its own address.
    #[must_use]
    pub fn in_name_of(self: Rc<Self>, client: IpAddr, client_mark: Option<u32>) -> Rc<Self> {
        if client_mark.is_none() || self.source.is_none() || client.is_ipv4() != self.address.is_ipv4() {
            return self;
        }
        Rc::new(Self { source: Some(client), ..Self::clone(&self) })
    }
}

/// TLS parameters of a connection.
#[derive(Clone, Debug)]
pub struct TlsKey {
    /// Own certificate, trust anchors and ALPN; equal when it is the same configuration.
    pub config: Arc<ClientConfig>,
    /// Name in the ClientHello.
    pub server_name: ServerName<'static>,
    /// Names that the peer may have.
    pub names: Arc<[StringMatch]>,
}

/// Protocol spoken to an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2.
    Http2,
    /// Opaque bytes; never pooled.
    Opaque,
}

impl PartialEq for TlsKey {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.config, &other.config)
            && self.server_name == other.server_name
            && (Arc::ptr_eq(&self.names, &other.names) || self.names == other.names)
    }
}

impl Eq for TlsKey {}

impl Hash for TlsKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        // The key keeps the configuration alive, so its address is not reused while the key exists.
        Arc::as_ptr(&self.config).hash(state);
        self.server_name.hash(state);
    }
}
