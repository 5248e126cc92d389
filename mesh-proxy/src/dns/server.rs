//! The server that captured look-ups arrive at.

use std::io;
use std::net::{SocketAddr, TcpListener as StdTcpListener, UdpSocket as StdUdpSocket};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use mesh_proxy_core::dns::message::{Query, Rcode, Unreadable, refusal};
use mesh_proxy_core::dns::table::Found;
use rand::seq::SliceRandom as _;
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::{Semaphore, watch};
use tokio::time::{Instant, timeout};

use super::Names;
use super::settings::DnsSettings;
use super::upstream::{self, MAX_UDP_BYTES, Transport};
use crate::net::sockopt::set_mark;
use crate::worker::DrainPhase;

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

/// Open sockets, by the addresses that settings call them by.
#[derive(Debug, Default)]
pub struct Sockets {
    /// For queries in datagrams.
    pub udp: Vec<(SocketAddr, StdUdpSocket)>,
    /// For queries over connections.
    pub tcp: Vec<(SocketAddr, StdTcpListener)>,
}

impl Sockets {
    /// Listens on all addresses; one that the machine does not have is left out. Those that were handed over are used as they
    /// are.
    ///
    /// # Errors
    /// When an address is taken, or none is the machine's.
    pub fn open(settings: &DnsSettings, mut handed: Self) -> Result<Self, ServeError> {
        let addresses = &settings.addresses;
        let mut sockets = Self::default();
        for &address in addresses {
            let failed = |transport| move |source| ServeError::Listen { address, transport, source };
            let udp = match take(&mut handed.udp, address).map_or_else(|| StdUdpSocket::bind(address), Ok) {
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
            udp.set_nonblocking(true).map_err(failed(Transport::Udp))?;
            let tcp = take(&mut handed.tcp, address).map_or_else(|| StdTcpListener::bind(address), Ok);
            let tcp = tcp.map_err(failed(Transport::Tcp))?;
            tcp.set_nonblocking(true).map_err(failed(Transport::Tcp))?;
            sockets.udp.push((address, udp));
            sockets.tcp.push((address, tcp));
        }
        if sockets.udp.is_empty() { Err(ServeError::NoAddress(addresses.clone())) } else { Ok(sockets) }
    }

    /// Further handles of the same sockets.
    fn duplicate(&self) -> io::Result<Self> {
        let udp = self.udp.iter().map(|(address, socket)| Ok((*address, socket.try_clone()?)));
        let tcp = self.tcp.iter().map(|(address, socket)| Ok((*address, socket.try_clone()?)));
        Ok(Self { udp: udp.collect::<io::Result<_>>()?, tcp: tcp.collect::<io::Result<_>>()? })
    }

    /// The first address, for tests that let the system choose.
    #[cfg(test)]
    pub(super) fn address(&self) -> (SocketAddr, SocketAddr) {
        (self.udp[0].1.local_addr().unwrap(), self.tcp[0].1.local_addr().unwrap())
    }
}

fn take<T>(sockets: &mut Vec<(SocketAddr, T)>, address: SocketAddr) -> Option<T> {
    let at = sockets.iter().position(|(of, _)| *of == address)?;
    Some(sockets.swap_remove(at).1)
}

/// No such address, or no such family.
fn is_absent(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EADDRNOTAVAIL | libc::EAFNOSUPPORT))
}

/// The sockets of this process, until another has them.
#[derive(Debug, Default)]
pub struct Held(Mutex<Option<Sockets>>);

impl Held {
    /// Keeps open sockets.
    #[must_use]
    pub fn new(sockets: Sockets) -> Self {
        Self(Mutex::new(Some(sockets)))
    }

    /// Further handles of them; none once they were let go.
    ///
    /// # Errors
    /// When there are too many descriptors.
    pub fn duplicate(&self) -> io::Result<Sockets> {
        let held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        held.as_ref().map_or_else(|| Ok(Sockets::default()), Sockets::duplicate)
    }

    /// Closes them here.
    pub fn let_go(&self) {
        drop(self.0.lock().unwrap_or_else(PoisonError::into_inner).take());
    }
}

/// Starts the server on a thread of its own, which lives as long as the process and serves while its process is one that does.
///
/// # Errors
/// See [`ServeError`].
pub fn start(
    settings: DnsSettings,
    names: Arc<Names>,
    held: Arc<Held>,
    mut phases: watch::Receiver<DrainPhase>,
) -> Result<(), ServeError> {
    let runtime = mesh_api_rt::runtime::single().map_err(ServeError::Start)?;
    let server = Server::new(settings, names);
    let body = async move {
        while phases.wait_for(|phase| serves(*phase)).await.is_ok() {
            let sockets = match held.duplicate() {
                Ok(sockets) if sockets.udp.is_empty() => return,
                Ok(sockets) => sockets,
                Err(error) => {
                    tracing::error!(%error, "Look-ups of names cannot be served");
                    return;
                }
            };
            tokio::select! {
                ended = serve(sockets, Arc::clone(&server)) => match ended {
                    Ok(()) => return,
                    Err(error) => {
                        tracing::error!(%error, "Look-ups of names cannot be served");
                        return;
                    }
                },
                _ = phases.wait_for(|phase| !serves(*phase)) => {}
            }
        }
    };
    let thread = thread::Builder::new().name("dns".to_owned());
    thread.spawn(move || runtime.block_on(body)).map(drop).map_err(ServeError::Start)
}

/// Whether look-ups are answered here: to the end of the process, unless another has taken over.
fn serves(phase: DrainPhase) -> bool {
    !matches!(phase, DrainPhase::Waiting | DrainPhase::HandedOver)
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
///
/// # Errors
/// When a socket cannot be watched.
pub async fn serve(sockets: Sockets, server: Arc<Server>) -> io::Result<()> {
    // Held by the tasks' owner only: dropping it ends them.
    let mut tasks = tokio::task::JoinSet::new();
    for (_, socket) in sockets.udp {
        tasks.spawn(serve_udp(Arc::new(UdpSocket::from_std(socket)?), Arc::clone(&server)));
    }
    for (_, listener) in sockets.tcp {
        tasks.spawn(serve_tcp(TcpListener::from_std(listener)?, Arc::clone(&server)));
    }
    while tasks.join_next().await.is_some() {}
    Ok(())
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
