//! The server that captured look-ups arrive at.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use mesh_proxy_core::dns::message::{Query, Rcode, Unreadable, refusal};
use mesh_proxy_core::dns::table::Found;
use rand::seq::SliceRandom as _;
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout};

use super::Names;
use super::settings::DnsSettings;
use super::upstream::{self, MAX_UDP_BYTES, Transport};
use crate::net::sockopt::set_mark;

/// How long answers of ours may be kept, in seconds: short, so that the newest address is used soon (Istio: 30).
const TTL_SECONDS: u32 = 30;
/// Look-ups that wait for name servers, at most. Each holds a socket; beyond it the client is told to try elsewhere.
const MAX_IN_FLIGHT: usize = 1024;
/// Connections, at most.
const MAX_CONNECTIONS: usize = 256;
/// Time for the next query on a connection (RFC 7766, section 6.2.3, wants a few seconds).
const IDLE: Duration = Duration::from_secs(10);
/// Longest answer over TCP.
const MAX_TCP_BYTES: usize = 65_535;
/// Pause after a failed accept or receive, so that a lasting error does not spin.
const PAUSE: Duration = Duration::from_millis(50);

/// The server cannot run.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// An address cannot be listened on.
    #[error(
        "the port for look-ups of names cannot be opened at {address} ({transport:?}); DNS_PROXY_ADDR chooses another"
    )]
    Listen {
        /// The address.
        address: SocketAddr,
        /// The transport.
        transport: Transport,
        /// The system's error.
        #[source]
        source: io::Error,
    },
    /// None of the addresses is this machine's.
    #[error("look-ups of names cannot be served: this machine has none of the addresses {0:?}")]
    NoAddress(Vec<SocketAddr>),
    /// The thread or its runtime cannot be made.
    #[error("the thread for look-ups of names cannot be started")]
    Start(#[source] io::Error),
}

/// Open sockets.
#[derive(Debug)]
pub struct Sockets {
    udp: Vec<UdpSocket>,
    tcp: Vec<TcpListener>,
}

impl Sockets {
    /// Listens on all addresses; one that the machine does not have is left out.
    ///
    /// # Errors
    /// When an address is taken, or none is the machine's.
    pub async fn open(settings: &DnsSettings) -> Result<Self, ServeError> {
        let addresses = &settings.addresses;
        let mut sockets = Self { udp: Vec::new(), tcp: Vec::new() };
        for &address in addresses {
            let failed = |transport| move |source| ServeError::Listen { address, transport, source };
            let udp = match UdpSocket::bind(address).await {
                Err(error) if is_absent(&error) => {
                    tracing::debug!(%address, "Look-ups of names are not served at an address that is not here");
                    continue;
                }
                udp => udp.map_err(failed(Transport::Udp))?,
            };
            // By it the tracker finds the look-up that an answer belongs to, as it does by the proxy's user.
            if let Some(mark) = settings.mark {
                set_mark(&udp, mark).map_err(io::Error::other).map_err(failed(Transport::Udp))?;
            }
            sockets.udp.push(udp);
            sockets.tcp.push(TcpListener::bind(address).await.map_err(failed(Transport::Tcp))?);
        }
        if sockets.udp.is_empty() { Err(ServeError::NoAddress(addresses.clone())) } else { Ok(sockets) }
    }

    /// The first address, for tests that let the system choose.
    #[cfg(test)]
    pub(super) fn address(&self) -> (SocketAddr, SocketAddr) {
        (self.udp[0].local_addr().unwrap(), self.tcp[0].local_addr().unwrap())
    }
}

/// No such address, or no such family.
fn is_absent(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EADDRNOTAVAIL | libc::EAFNOSUPPORT))
}

/// Starts the server on a thread of its own, which lives as long as the process.
///
/// # Errors
/// See [`ServeError`].
pub fn start(settings: DnsSettings, names: Arc<Names>) -> Result<(), ServeError> {
    let (opened, result) = std::sync::mpsc::sync_channel(1);
    let body = move || {
        let runtime = match mesh_api_rt::runtime::single() {
            Ok(runtime) => runtime,
            Err(error) => return drop(opened.send(Err(ServeError::Start(error)))),
        };
        runtime.block_on(async {
            match Sockets::open(&settings).await {
                Ok(sockets) => {
                    let _ = opened.send(Ok(()));
                    serve(sockets, Server::new(settings, names)).await;
                }
                Err(error) => drop(opened.send(Err(error))),
            }
        });
    };
    thread::Builder::new().name("dns".to_owned()).spawn(body).map_err(ServeError::Start)?;
    result.recv().map_err(|_| ServeError::Start(io::ErrorKind::BrokenPipe.into()))?
}

/// What all look-ups share.
#[derive(Debug)]
pub struct Server {
    settings: DnsSettings,
    names: Arc<Names>,
    in_flight: Semaphore,
    connections: Arc<Semaphore>,
}

impl Server {
    /// A server that answers from the table of `names`.
    #[must_use]
    pub fn new(settings: DnsSettings, names: Arc<Names>) -> Arc<Self> {
        Arc::new(Self {
            settings,
            names,
            in_flight: Semaphore::new(MAX_IN_FLIGHT),
            connections: Arc::new(Semaphore::new(MAX_CONNECTIONS)),
        })
    }

    /// The answer of the mesh, or what is to be asked of name servers.
    fn local(&self, bytes: &[u8], transport: Transport) -> Local {
        self.names.metrics.requests.inc();
        let query = match Query::parse(bytes) {
            Ok(query) => query,
            Err(Unreadable::NoQuery) => return Local::Nothing,
            Err(Unreadable::Refused { id, rcode }) => return Local::Answer(refusal(id, rcode)),
        };
        let Some(current) = self.names.current() else {
            // A name of the mesh must not be looked for elsewhere, and which are is not known yet.
            return Local::Answer(query.failure(Rcode::ServerFailure));
        };
        let name = query.name.as_deref().filter(|_| query.internet);
        let Some(Found::Known { alias, addresses }) = name.map(|name| current.table.find(name, query.kind)) else {
            return Local::Elsewhere(query);
        };
        // In an order of chance, so that clients that take the first spread over all.
        let mut addresses = addresses.to_vec();
        addresses.shuffle(&mut rand::rng());
        Local::Answer(query.answer(alias.as_deref(), &addresses, TTL_SECONDS, limit(&query, transport)))
    }

    async fn elsewhere(&self, query: &Query, bytes: &[u8], transport: Transport) -> Vec<u8> {
        let Ok(_permit) = self.in_flight.try_acquire() else {
            self.names.metrics.refused.inc();
            return query.failure(Rcode::ServerFailure);
        };
        self.names.metrics.upstream.inc();
        let started = Instant::now();
        let answer = upstream::ask(&self.settings, query, bytes, transport).await;
        self.names.metrics.upstream_time.observe(started.elapsed().as_secs_f64());
        if let Some(answer) = answer {
            return query.cut(answer, limit(query, transport));
        }
        self.names.metrics.failures.inc();
        query.failure(Rcode::ServerFailure)
    }
}

/// What is known without name servers.
enum Local {
    /// Not even a query.
    Nothing,
    /// All there is to say.
    Answer(Vec<u8>),
    /// To be asked.
    Elsewhere(Query),
}

fn limit(query: &Query, transport: Transport) -> usize {
    match transport {
        Transport::Udp => query.udp_limit(),
        Transport::Tcp => MAX_TCP_BYTES,
    }
}

/// Serves until dropped.
pub async fn serve(sockets: Sockets, server: Arc<Server>) {
    // Held by the tasks' owner only: dropping it ends them.
    let mut tasks = tokio::task::JoinSet::new();
    for socket in sockets.udp {
        tasks.spawn(serve_udp(Arc::new(socket), Arc::clone(&server)));
    }
    for listener in sockets.tcp {
        tasks.spawn(serve_tcp(listener, Arc::clone(&server)));
    }
    while tasks.join_next().await.is_some() {}
}

async fn serve_udp(socket: Arc<UdpSocket>, server: Arc<Server>) {
    let mut buffer = vec![0; MAX_UDP_BYTES];
    loop {
        let (length, client) = match socket.recv_from(&mut buffer).await {
            Ok(received) => received,
            Err(error) => {
                // As a rule a client that is gone, of which an answer sent earlier told us.
                tracing::debug!(%error, "Look-up not received");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        let bytes = buffer.get(..length).unwrap_or_default();
        match server.local(bytes, Transport::Udp) {
            Local::Nothing => {}
            Local::Answer(answer) => send(&socket, &answer, client).await,
            Local::Elsewhere(query) => {
                let (socket, server, bytes) = (Arc::clone(&socket), Arc::clone(&server), bytes.to_vec());
                // Bounded: beyond `MAX_IN_FLIGHT` the task answers at once.
                tokio::spawn(async move {
                    let answer = server.elsewhere(&query, &bytes, Transport::Udp).await;
                    send(&socket, &answer, client).await;
                });
            }
        }
    }
}

async fn send(socket: &UdpSocket, answer: &[u8], client: SocketAddr) {
    if let Err(error) = socket.send_to(answer, client).await {
        tracing::debug!(%client, %error, "Answer to a look-up not sent");
    }
}

async fn serve_tcp(listener: TcpListener, server: Arc<Server>) {
    loop {
        let Ok(permit) = Arc::clone(&server.connections).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let server = Arc::clone(&server);
                tokio::spawn(async move {
                    if let Err(error) = serve_connection(stream, &server).await {
                        tracing::debug!(%error, "Connection with look-ups ended");
                    }
                    drop(permit);
                });
            }
            Err(error) => {
                tracing::debug!(%error, "Connection with look-ups not accepted");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

async fn serve_connection(mut stream: TcpStream, server: &Server) -> io::Result<()> {
    loop {
        let next = timeout(IDLE, upstream::read_message(&mut stream)).await;
        let Ok(Some(bytes)) = next.unwrap_or(Ok(None)) else { return Ok(()) };
        let answer = match server.local(&bytes, Transport::Tcp) {
            Local::Nothing => return Ok(()),
            Local::Answer(answer) => answer,
            Local::Elsewhere(query) => server.elsewhere(&query, &bytes, Transport::Tcp).await,
        };
        timeout(IDLE, upstream::write_message(&mut stream, &answer)).await.map_err(|_| io::ErrorKind::TimedOut)??;
    }
}
