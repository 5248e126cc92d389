//! The new process: asks the running one for its sockets, and does what [`taker`](super::taker) decides.

use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::time::{Duration, SystemTime};

use mesh_api_rt::listen::ListenerTable;
use mesh_api_rt::report::Report;
use mesh_ca::client::Credential;
use socket2::{Domain, Socket, Type};
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::channel::{Channel, ChannelError};
use super::door::{self, Peer, Stranger};
use super::message::{Handed, MAX_SOCKETS, Message, Offer, ProcessInfo, Role, VERSION};
use super::taker::{Action, Event, Taker};
use crate::dns::server::Sockets;

/// Time for the running process to answer with its sockets. It answers one process at a time, so that another attempt may have
/// to be waited for.
const ANSWER: Duration = Duration::from_secs(15);

/// What the running process gave.
#[derive(Debug)]
pub struct Taken {
    /// What it said.
    pub offer: Offer,
    /// Listening sockets, by the address that configuration calls them by.
    pub listeners: Vec<(SocketAddr, TcpListener)>,
    /// Those of them that the running process listens on.
    pub used: Vec<SocketAddr>,
    /// Sockets of look-ups.
    pub names: Sockets,
    /// Where the next process will ask.
    pub door: Option<UnixListener>,
    channel: Channel,
}

/// Why the sockets were not taken over.
#[derive(Debug, thiserror::Error)]
pub enum TakeError {
    /// It cannot be reached.
    #[error("the running proxy cannot be asked for its sockets")]
    Door(#[source] io::Error),
    /// It is somebody else's.
    #[error("the process that holds the name of the running proxy is not to be trusted")]
    Stranger(#[source] Stranger),
    /// It said no.
    #[error("the running proxy does not hand over its sockets: {0}")]
    Refused(String),
    /// It said nothing.
    #[error(
        "the running proxy closed the connection without a word; it serves only processes of its own user and process namespace"
    )]
    Silent,
    /// It took too long.
    #[error("the running proxy did not answer within {ANSWER:?}")]
    NoAnswer,
    /// The connection failed.
    #[error("the running proxy was not understood")]
    Channel(#[from] ChannelError),
    /// It said something else.
    #[error("the running proxy does not keep to the protocol of the hand-over")]
    Protocol,
    /// A descriptor is not what it was said to be.
    #[error("the socket for {address} ({role:?}) that the running proxy gave cannot be used")]
    Socket {
        /// What for.
        role: Role,
        /// Where.
        address: SocketAddr,
        /// The system's error.
        #[source]
        source: io::Error,
    },
    /// The running process goes on.
    #[error("the running proxy goes on: {0}")]
    Aborted(String),
}

/// Asks the process that serves as `node_id`. `None`: there is none.
///
/// # Errors
/// See [`TakeError`].
pub async fn ask(node_id: &str) -> Result<Option<Taken>, TakeError> {
    let Some(channel) = connect(&door::name(node_id))? else { return Ok(None) };
    timeout(ANSWER, receive(channel)).await.map_err(|_| TakeError::NoAnswer)?.map(Some)
}

/// A connection to the running process. `None`: there is none of that name.
///
/// # Errors
/// When it cannot be reached, or is somebody else's.
pub fn connect(name: &str) -> Result<Option<Channel>, TakeError> {
    let Some(stream) = door::knock(name).map_err(TakeError::Door)? else { return Ok(None) };
    let stream = UnixStream::from_std(stream).map_err(TakeError::Door)?;
    // Only its user counts: the socket may have been opened by a process before it, whose number is gone.
    let own = rustix::process::geteuid().as_raw();
    let peer = Peer::of(&stream).map_err(TakeError::Door)?;
    Peer { pid: 1, ..peer }.admit(own).map_err(TakeError::Stranger)?;
    Ok(Some(Channel::new(stream)))
}

async fn receive(mut channel: Channel) -> Result<Taken, TakeError> {
    let ask = Message::Ask { oldest: VERSION, newest: VERSION, process: ProcessInfo::this() };
    channel.send(&ask, &[]).await?;
    let offer = match channel.receive().await? {
        Some((Message::Offer(offer), _)) if offer.version == VERSION && offer.sockets <= MAX_SOCKETS => *offer,
        Some((Message::Refuse { reason }, _)) => return Err(TakeError::Refused(reason)),
        Some(_) => return Err(TakeError::Protocol),
        None => return Err(TakeError::Silent),
    };
    let mut taken =
        Taken { offer, listeners: Vec::new(), used: Vec::new(), names: Sockets::default(), door: None, channel };
    let mut missing = taken.offer.sockets;
    while missing > 0 {
        let Some((Message::Sockets { sockets }, descriptors)) = taken.channel.receive().await? else {
            return Err(TakeError::Protocol);
        };
        if sockets.is_empty() {
            return Err(TakeError::Protocol);
        }
        missing = missing.checked_sub(sockets.len()).ok_or(TakeError::Protocol)?;
        for (handed, descriptor) in sockets.into_iter().zip(descriptors) {
            taken.keep(handed, descriptor)?;
        }
    }
    Ok(taken)
}

impl Taken {
    fn keep(&mut self, handed: Handed, descriptor: OwnedFd) -> Result<(), TakeError> {
        let Handed { role, address } = handed;
        let wrong = |source| TakeError::Socket { role, address, source };
        let socket = check(role, Socket::from(descriptor)).map_err(wrong)?;
        match role {
            Role::Listener => {
                self.used.push(address);
                self.listeners.push((address, socket.into()));
            }
            Role::Spare => self.listeners.push((address, socket.into())),
            Role::NamesUdp => self.names.udp.push((address, UdpSocket::from(socket))),
            Role::NamesTcp => self.names.tcp.push((address, socket.into())),
            Role::Door => self.door = Some(OwnedFd::from(socket).into()),
        }
        Ok(())
    }

    /// A table of the listening sockets, and of those of `inherited` that are not among them.
    ///
    /// # Errors
    /// When there are too many descriptors.
    pub fn table(&mut self, inherited: &ListenerTable) -> io::Result<ListenerTable> {
        let mut sockets = Vec::new();
        for (address, socket) in inherited.sockets() {
            sockets.push((address, TcpListener::from(socket.try_clone_to_owned()?)));
        }
        // The later of two counts.
        sockets.append(&mut self.listeners);
        Ok(ListenerTable::seeded(sockets))
    }

    /// The workload certificate of the running process, if it is good.
    #[must_use]
    pub fn credential(&self, now: SystemTime) -> Option<Credential> {
        let text = self.offer.credential.as_ref()?;
        let read = Credential::from_pem(text.chain.as_bytes(), text.key.as_bytes(), text.roots.as_bytes(), now);
        read.inspect_err(
            |error| tracing::warn!(error = %Report::new(error), "The running proxy's certificate cannot be used"),
        )
        .ok()
    }

    /// Waits until `prepared`, then serves by `serve` once the running process says so.
    ///
    /// # Errors
    /// When this process must not serve, because the other one does.
    pub async fn finish(mut self, prepared: impl Future<Output = ()>, serve: impl FnOnce()) -> Result<(), TakeError> {
        let mut taker = Taker::default();
        let mut prepared = std::pin::pin!(prepared);
        let mut waits = true;
        loop {
            let event = tokio::select! {
                () = prepared.as_mut(), if waits => {
                    waits = false;
                    Event::Prepared
                }
                received = self.channel.receive(), if !taker.is_alone() => event(received),
            };
            match taker.on(event) {
                Action::Nothing => {
                    if taker.is_alone() {
                        tracing::warn!("The running proxy is gone, this one goes on alone");
                    }
                }
                // If it is gone, receiving tells.
                Action::SayReady => drop(self.channel.send(&Message::Ready, &[]).await),
                Action::Serve => {
                    serve();
                    return self.confirm().await;
                }
                Action::ServeAlone => {
                    serve();
                    return Ok(());
                }
                Action::Fail(reason) => return Err(TakeError::Aborted(reason)),
            }
        }
    }

    /// Tells the running process that this one serves. When it does not hear it, either it has given this one up, or it is gone.
    async fn confirm(mut self) -> Result<(), TakeError> {
        if self.channel.send(&Message::Active, &[]).await.is_err()
            && let Ok(Some((Message::Abort { reason }, _))) = self.channel.receive().await
        {
            return Err(TakeError::Aborted(reason));
        }
        // Held open as long as this process lives: its end is how the other learns of a death on probation.
        tokio::spawn(async move { while let Ok(Some(_)) = self.channel.receive().await {} });
        Ok(())
    }
}

fn event(received: Result<Option<(Message, Vec<OwnedFd>)>, ChannelError>) -> Event {
    match received {
        Ok(Some((Message::Go, _))) => Event::Go,
        Ok(Some((Message::Abort { reason }, _))) => Event::Abort { reason },
        Ok(Some(_)) | Err(ChannelError::Message(_) | ChannelError::Descriptors { .. }) => Event::Confused,
        Ok(None) | Err(ChannelError::Io(_)) => Event::Lost,
    }
}

/// Whether it is a socket of that kind.
fn check(role: Role, socket: Socket) -> io::Result<Socket> {
    let unix = socket.domain()? == Domain::UNIX;
    let right = match role {
        Role::Listener | Role::Spare | Role::NamesTcp => {
            !unix && socket.r#type()? == Type::STREAM && socket.is_listener()?
        }
        Role::NamesUdp => !unix && socket.r#type()? == Type::DGRAM,
        Role::Door => unix && socket.is_listener()?,
    };
    if right {
        socket.set_nonblocking(true)?;
        Ok(socket)
    } else {
        Err(io::Error::new(io::ErrorKind::InvalidInput, "it is a descriptor of another kind"))
    }
}
