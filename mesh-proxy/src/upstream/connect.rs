//! Opens one upstream connection: socket, TLS, check of the peer's names.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use mesh_api_xds::ir::cluster::Cluster;
use mesh_proxy_core::facts::Peer;
use socket2::{Domain, Protocol as IpProtocol, Socket, Type};
use tokio::net::TcpSocket;

use super::key::PoolKey;
use crate::capture::rules::{PASSTHROUGH_V4, PASSTHROUGH_V6};
use crate::net::io::Io;
use crate::net::sockopt::{self, SocketOptions};
use crate::net::stream::Stream;
use crate::tls::peer::{self, KeepCertificate, PeerError};
use crate::tls::session::Session;

/// What a connection needs besides its key.
#[derive(Clone, Copy, Debug)]
pub struct ConnectOptions {
    /// Time for everything.
    pub timeout: Duration,
    /// Socket options.
    pub socket: SocketOptions,
    /// Mark that keeps the proxy's own connections out of redirection.
    pub mark: Option<u32>,
    /// Mark of connections whose source is their client's address (TPROXY).
    pub client_mark: Option<u32>,
}

impl ConnectOptions {
    /// Those of a cluster.
    #[must_use]
    pub fn of(settings: &Cluster, mark: Option<u32>) -> Self {
        let keepalive = settings.keepalive.map(|keepalive| sockopt::Keepalive {
            time: keepalive.time,
            interval: keepalive.interval,
            probes: keepalive.probes,
        });
        Self {
            timeout: settings.connect_timeout,
            socket: SocketOptions { keepalive, ..SocketOptions::default() },
            mark,
            client_mark: None,
        }
    }

    /// The same; a source that is not this machine's loopback is a client's.
    #[must_use]
    pub const fn with_client_mark(self, client_mark: Option<u32>) -> Self {
        Self { client_mark, ..self }
    }
}

/// A connection ready for use.
#[derive(Debug)]
pub struct Connected {
    /// The byte stream.
    pub stream: Stream,
    /// The peer; `None` in plaintext.
    pub peer: Option<Arc<Peer>>,
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The socket could not be set up or connected.
    #[error("cannot connect to {address}")]
    Connect {
        /// Where to.
        address: SocketAddr,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// It took too long.
    #[error("connecting to {address} took longer than {timeout:?}")]
    Timeout {
        /// Where to.
        address: SocketAddr,
        /// The limit.
        timeout: Duration,
    },
    /// The TLS handshake failed.
    #[error("TLS with {address} failed")]
    Tls {
        /// Where to.
        address: SocketAddr,
        /// What went wrong.
        #[source]
        source: io::Error,
    },
    /// The peer is not who it should be.
    #[error("{address} is not the expected peer")]
    Peer {
        /// Where to.
        address: SocketAddr,
        /// What is wrong with it.
        #[source]
        source: PeerError,
    },
}

/// Opens a connection.
///
/// # Errors
/// [`ConnectError`], by stage.
pub async fn connect(key: &PoolKey, options: ConnectOptions) -> Result<Connected, ConnectError> {
    let address = key.address;
    let attempt = establish(key, options);
    if options.timeout.is_zero() {
        return attempt.await;
    }
    match tokio::time::timeout(options.timeout, attempt).await {
        Ok(result) => result,
        Err(_) => Err(ConnectError::Timeout { address, timeout: options.timeout }),
    }
}

async fn establish(key: &PoolKey, options: ConnectOptions) -> Result<Connected, ConnectError> {
    let address = key.address;
    let connect = |source| ConnectError::Connect { address, source };
    let socket = open_socket(address, key.source, options).map_err(connect)?;
    let tcp = socket.connect(address).await.map_err(connect)?;
    let io = Io::Tcp(tcp);
    let Some(tls) = &key.tls else {
        return Ok(Connected { stream: Stream::plain(io, Vec::new()), peer: None });
    };
    let failed = |source| ConnectError::Tls { address, source };
    let session = Session::client(tls.config.clone(), tls.server_name.clone())
        .map_err(|error| failed(io::Error::new(io::ErrorKind::InvalidInput, error)))?;
    let mut stream = Stream::secured(io, session, Vec::new());
    stream.handshake().await.map_err(failed)?;
    let leaf = stream.session().and_then(Session::peer_certificates).and_then(<[_]>::first);
    let wrong = |source| ConnectError::Peer { address, source };
    let peer = peer::read(leaf.ok_or_else(|| wrong(PeerError::Malformed))?, KeepCertificate::No).map_err(wrong)?;
    peer::check_names(&peer, &tls.names).map_err(wrong)?;
    Ok(Connected { stream, peer: Some(Arc::new(peer)) })
}

fn open_socket(address: SocketAddr, source: Option<IpAddr>, options: ConnectOptions) -> io::Result<TcpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(IpProtocol::TCP))?;
    socket.set_nonblocking(true)?;
    options.socket.apply(&socket).map_err(io::Error::other)?;
    if let Some(mark) = options.mark {
        sockopt::set_mark(&socket, mark).map_err(io::Error::other)?;
    }
    if let Some(source) = source.and_then(|source| of_family(source, address)) {
        if let Some(mark) = options.client_mark.filter(|_| !is_passthrough(source)) {
            sockopt::set_transparent(&socket).map_err(io::Error::other)?;
            sockopt::set_mark(&socket, mark).map_err(io::Error::other)?;
        }
        // The kernel chooses the port when it knows both ends, so that many connections can share an address.
        nix::sys::socket::setsockopt(&socket, nix::sys::socket::sockopt::IpBindAddressNoPort, &true)?;
        socket.bind(&SocketAddr::new(source, 0).into())?;
    }
    Ok(TcpSocket::from_std_stream(socket.into()))
}

/// The source for a destination of this family. The address by which the rules know passed-through connections has a twin in
/// the other family; any other is of no use there.
fn of_family(source: IpAddr, address: SocketAddr) -> Option<IpAddr> {
    if source.is_ipv4() == address.is_ipv4() {
        return Some(source);
    }
    let twin = if address.is_ipv4() { PASSTHROUGH_V4.into() } else { PASSTHROUGH_V6.into() };
    is_passthrough(source).then_some(twin)
}

fn is_passthrough(source: IpAddr) -> bool {
    source == PASSTHROUGH_V4 || source == PASSTHROUGH_V6
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passed_through_connections_have_a_source_of_their_family() {
        let check = |source: &str, address: &str, expect: Option<&str>| {
            let found = of_family(source.parse().unwrap(), address.parse().unwrap());
            assert_eq!(found, expect.map(|text| text.parse::<IpAddr>().unwrap()), "{source} {address}");
        };
        check("127.0.0.6", "10.0.0.1:80", Some("127.0.0.6"));
        check("127.0.0.6", "[fd00::1]:80", Some("::6"));
        check("::6", "10.0.0.1:80", Some("127.0.0.6"));
        check("10.0.0.9", "10.0.0.1:80", Some("10.0.0.9"));
        check("10.0.0.9", "[fd00::1]:80", None);
    }
}
