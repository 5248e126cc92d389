//! Asks name servers what the mesh does not know. Queries and answers pass as the bytes they are.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use mesh_proxy_core::dns::message::Query;
use rand::seq::SliceRandom as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream, UdpSocket};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::settings::DnsSettings;
use crate::net::sockopt::set_mark;

/// Time for an answer over all servers (istio/istio: `DefaultUpstreamTimeout`); resolvers wait as long.
pub const TIMEOUT: Duration = Duration::from_secs(5);
/// Time after which a server that is silent no longer is waited for alone: the next one is asked too.
const PATIENCE: Duration = Duration::from_secs(1);
/// Longest message over UDP.
pub const MAX_UDP_BYTES: usize = 65_535;

/// How a look-up came, which is how it goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// One datagram.
    Udp,
    /// A message behind its length.
    Tcp,
}

/// Asks the servers, in an order of chance: the next one when the one before fails or is slow. The first answer counts.
/// `None`: nobody answered.
pub async fn ask(settings: &DnsSettings, query: &Query, bytes: &[u8], transport: Transport) -> Option<Vec<u8>> {
    let mut servers = settings.resolv.servers.clone();
    servers.shuffle(&mut rand::rng());
    let patience = if settings.parallel { Duration::ZERO } else { PATIENCE };
    let mut waiting = servers.into_iter();
    let mut asked = JoinSet::new();
    let answer = async {
        loop {
            let more = match waiting.next() {
                Some(server) => {
                    let (query, bytes, mark) = (query.clone(), bytes.to_vec(), settings.mark);
                    asked.spawn(async move {
                        let answer = match transport {
                            Transport::Udp => ask_udp(server, mark, &query, &bytes).await,
                            Transport::Tcp => ask_tcp(server, mark, &query, &bytes).await,
                        };
                        answer.map_err(|error| (server, error))
                    });
                    true
                }
                None => false,
            };
            tokio::select! {
                Some(ended) = asked.join_next() => match ended {
                    Ok(Ok(answer)) => return Some(answer),
                    Ok(Err((server, error))) => tracing::debug!(%server, %error, "Name server failed"),
                    Err(error) => tracing::debug!(%error, "Name server was not asked"),
                },
                () = sleep(patience), if more => {}
                else => return None,
            }
        }
    };
    timeout(TIMEOUT, answer).await.ok().flatten()
}

async fn ask_udp(server: SocketAddr, mark: Option<u32>, query: &Query, bytes: &[u8]) -> io::Result<Vec<u8>> {
    // A socket, and so a port, for each look-up: an answer cannot be guessed.
    let own: SocketAddr =
        if server.is_ipv4() { (Ipv4Addr::UNSPECIFIED, 0).into() } else { (Ipv6Addr::UNSPECIFIED, 0).into() };
    let socket = UdpSocket::bind(own).await?;
    if let Some(mark) = mark {
        set_mark(&socket, mark).map_err(io::Error::other)?;
    }
    socket.connect(server).await?;
    socket.send(bytes).await?;
    let mut buffer = vec![0; MAX_UDP_BYTES];
    loop {
        let length = socket.recv(&mut buffer).await?;
        let answer = buffer.get(..length).unwrap_or_default();
        if query.is_answered_by(answer) {
            return Ok(answer.to_vec());
        }
    }
}

async fn ask_tcp(server: SocketAddr, mark: Option<u32>, query: &Query, bytes: &[u8]) -> io::Result<Vec<u8>> {
    let socket = if server.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    if let Some(mark) = mark {
        set_mark(&socket, mark).map_err(io::Error::other)?;
    }
    let mut stream = socket.connect(server).await?;
    write_message(&mut stream, bytes).await?;
    let answer = read_message(&mut stream).await?;
    let answer = answer.filter(|answer| query.is_answered_by(answer));
    answer.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "the answer is to another query"))
}

/// Reads a message behind its length (RFC 1035, section 4.2.2); `None` at the end of the stream.
///
/// # Errors
/// When the stream fails or ends within a message.
pub async fn read_message(stream: &mut TcpStream) -> io::Result<Option<Vec<u8>>> {
    let length = match stream.read_u16().await {
        Ok(length) => length,
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut message = vec![0; usize::from(length)];
    stream.read_exact(&mut message).await?;
    Ok(Some(message))
}

/// Writes a message behind its length.
///
/// # Errors
/// When the stream fails, or the message is longer than its length can say.
pub async fn write_message(stream: &mut TcpStream, message: &[u8]) -> io::Result<()> {
    let length = u16::try_from(message.len()).map_err(|_| io::ErrorKind::InvalidData)?;
    let mut framed = Vec::with_capacity(message.len() + 2);
    framed.extend_from_slice(&length.to_be_bytes());
    framed.extend_from_slice(message);
    stream.write_all(&framed).await
}
