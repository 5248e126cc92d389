//! What is known of a connection and of a request besides its head.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use mesh_api::text::Str;
use smallvec::SmallVec;

/// Facts of an accepted connection. The worker's connection table keeps them, so that changed policies can be asked again.
#[derive(Clone, Debug)]
pub struct ConnFacts {
    /// Direct peer.
    pub source: SocketAddr,
    /// Destination: the original one when the connection was captured.
    pub destination: SocketAddr,
    /// How bytes travel.
    pub transport: Transport,
    /// SNI of the ClientHello, in lower case.
    pub server_name: Option<Str>,
    /// ALPN of a ClientHello in the client's order; on plaintext `http/1.1` or `h2c` when sniffed.
    pub protocols: SmallVec<[Str; 2]>,
    /// The peer's certificate, once the handshake has verified it.
    pub peer: Option<Arc<Peer>>,
    /// SPIFFE URI of our own certificate on this connection, for `By=` in `x-forwarded-client-cert`.
    pub local_identity: Option<Str>,
}

/// Transport protocol of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Transport {
    /// Plaintext (`raw_buffer`).
    Raw,
    /// TLS.
    Tls,
}

/// A verified client certificate.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Peer {
    /// URI names, the SPIFFE id first if there is one.
    pub uris: Vec<Str>,
    /// DNS names.
    pub dns_names: Vec<Str>,
    /// Subject in RFC 2253 form.
    pub subject: Str,
    /// SHA-256 of the certificate, lower-case hexadecimal.
    pub sha256: Str,
    /// The certificate, URL-encoded PEM.
    pub pem_url_encoded: Str,
}

/// Facts of a request besides its head.
#[derive(Clone, Copy, Debug)]
pub struct RequestFacts<'a> {
    /// Its connection.
    pub conn: &'a ConnFacts,
    /// The client's address after trusted proxies (`filter::forwarded::client`).
    pub client: SocketAddr,
}

impl Peer {
    /// Whether it has an identity of the mesh: a SPIFFE id. What its issuer vouches for is checked by the handshake.
    #[must_use]
    pub fn is_workload(&self) -> bool {
        self.uris.first().is_some_and(|uri| uri.starts_with("spiffe://"))
    }
}

impl ConnFacts {
    /// A plaintext connection from `source` to `destination` of which nothing else is known.
    #[must_use]
    pub fn new(source: SocketAddr, destination: SocketAddr) -> Self {
        Self {
            source,
            destination,
            transport: Transport::Raw,
            server_name: None,
            protocols: SmallVec::new(),
            peer: None,
            local_identity: None,
        }
    }

    /// The peer's SPIFFE URI, or its first URI name.
    #[must_use]
    pub fn identity(&self) -> Option<&Str> {
        self.peer.as_ref()?.uris.first()
    }

    /// Address of the direct peer.
    #[must_use]
    pub const fn source_ip(&self) -> IpAddr {
        self.source.ip()
    }
}

impl<'a> RequestFacts<'a> {
    /// Facts of a request whose client is the direct peer.
    #[must_use]
    pub const fn direct(conn: &'a ConnFacts) -> Self {
        Self { conn, client: conn.source }
    }
}
