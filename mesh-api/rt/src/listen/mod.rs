//! The listening sockets of the process: one per address, never shared by `SO_REUSEPORT`, all in one table.
//!
//! The table can be seeded with sockets that were opened elsewhere and handed in, so that a new binary takes over
//! from an old one without a refused connection, and so that a proxy in a network namespace of its own can take
//! connections from the user's.

mod holder;
mod inherited;

use std::collections::BTreeMap;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, BorrowedFd};

use socket2::{Domain, Protocol, Socket, Type};

pub use self::inherited::{InheritError, LISTEN_FDS};

/// How many connections may wait to be accepted. The kernel takes the lesser of this and `net.core.somaxconn`
/// (4096 since Linux 5.4).
pub const BACKLOG: i32 = 4096;

/// The listening sockets of the process.
#[derive(Debug, Default)]
pub struct ListenerTable {
    sockets: BTreeMap<SocketAddr, Entry>,
}

#[derive(Debug)]
struct Entry {
    socket: TcpListener,
    /// Whether anyone has asked for it yet. A socket handed in but never asked for takes connections that no one
    /// will ever accept.
    claimed: bool,
}

/// A listening socket could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// Someone else listens there.
    #[error("cannot listen on {address}: the address is in use{holder}; stop that process or choose another port")]
    InUse {
        /// The address asked for.
        address: SocketAddr,
        /// " by …" when the holder could be found.
        holder: String,
        /// The system's error.
        #[source]
        source: io::Error,
    },
    /// The port is privileged.
    #[error(
        "cannot listen on {address}: not permitted; ports below net.ipv4.ip_unprivileged_port_start (1024) need \
         CAP_NET_BIND_SERVICE"
    )]
    Denied {
        /// The address asked for.
        address: SocketAddr,
        /// The system's error.
        #[source]
        source: io::Error,
    },
    /// The address is not one of this machine's.
    #[error("cannot listen on {address}: no interface of this network namespace has that address")]
    NotLocal {
        /// The address asked for.
        address: SocketAddr,
        /// The system's error.
        #[source]
        source: io::Error,
    },
    /// Anything else.
    #[error("cannot listen on {address}: {doing} failed")]
    Other {
        /// The address asked for.
        address: SocketAddr,
        /// What was tried.
        doing: &'static str,
        /// The system's error.
        #[source]
        source: io::Error,
    },
}

impl ListenerTable {
    /// A table without any socket.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A table of the sockets that the parent process handed in, named in the environment variable [`LISTEN_FDS`];
    /// empty without it.
    ///
    /// To be called first thing in `main`, before the process opens descriptors of its own.
    ///
    /// # Errors
    /// When the variable cannot be read or names a descriptor that is no inherited listening socket, and at the
    /// second call.
    pub fn from_env() -> Result<Self, InheritError> {
        match std::env::var(LISTEN_FDS) {
            Ok(text) => inherited::take(&text).map(Self::seeded),
            Err(std::env::VarError::NotPresent) => Ok(Self::new()),
            Err(std::env::VarError::NotUnicode(text)) => {
                Err(InheritError::Syntax { entry: text.to_string_lossy().into_owned() })
            }
        }
    }

    /// A table that holds `sockets`, each under the address that [`ListenerTable::listen`] will be asked for. That
    /// need not be the address the socket is bound to.
    #[must_use]
    pub fn seeded(sockets: impl IntoIterator<Item = (SocketAddr, TcpListener)>) -> Self {
        let entry = |socket| Entry { socket, claimed: false };
        Self { sockets: sockets.into_iter().map(|(address, socket)| (address, entry(socket))).collect() }
    }

    /// The socket that listens on `address`: the one in the table, or a new one. It is non-blocking.
    ///
    /// What is returned is a second handle to the socket that the table keeps; the port is given up when the address
    /// is [closed](Self::close) and every handle dropped. Port 0 lets the kernel choose and never finds a socket
    /// that is already open.
    ///
    /// # Errors
    /// Names the address and, when the address is taken, who has it.
    pub fn listen(&mut self, address: SocketAddr) -> Result<TcpListener, ListenError> {
        let other = |doing| move |source| ListenError::Other { address, doing, source };
        if let Some(entry) = self.sockets.get_mut(&address) {
            entry.claimed = true;
            return entry.socket.try_clone().map_err(other("duplicating its socket"));
        }
        let socket = open(address)?;
        let bound = socket.local_addr().map_err(other("asking for the bound address"))?;
        let handle = socket.try_clone().map_err(other("duplicating its socket"))?;
        self.sockets.insert(bound, Entry { socket, claimed: true });
        Ok(handle)
    }

    /// Forgets the socket of `address`; returns whether there was one. Connections that wait in it are reset when the
    /// last handle goes.
    pub fn close(&mut self, address: SocketAddr) -> bool {
        self.sockets.remove(&address).is_some()
    }

    /// The addresses with a socket, in order.
    pub fn addresses(&self) -> impl Iterator<Item = SocketAddr> {
        self.sockets.keys().copied()
    }

    /// Addresses of sockets that were handed in and that no one has asked for.
    pub fn unclaimed(&self) -> impl Iterator<Item = SocketAddr> {
        self.sockets.iter().filter(|(_, entry)| !entry.claimed).map(|(address, _)| *address)
    }

    /// Every socket with its address, to hand them to a successor.
    pub fn sockets(&self) -> impl Iterator<Item = (SocketAddr, BorrowedFd<'_>)> {
        self.sockets.iter().map(|(address, entry)| (*address, entry.socket.as_fd()))
    }
}

fn open(address: SocketAddr) -> Result<TcpListener, ListenError> {
    let other = |doing| move |source| ListenError::Other { address, doing, source };
    let socket = Socket::new(Domain::for_address(address), Type::STREAM.nonblocking(), Some(Protocol::TCP))
        .map_err(other("opening a socket"))?;
    // Lets a restarted proxy have its port back while old connections linger in TIME_WAIT; it does not let two
    // processes listen at once on Linux.
    socket.set_reuse_address(true).map_err(other("setting SO_REUSEADDR"))?;
    if address.is_ipv6() {
        // `[::]` is IPv6 only: `0.0.0.0` is an address of its own in the table.
        socket.set_only_v6(true).map_err(other("setting IPV6_V6ONLY"))?;
    }
    socket.bind(&address.into()).map_err(|source| refused(address, "binding", source))?;
    socket.listen(BACKLOG).map_err(|source| refused(address, "listening", source))?;
    Ok(socket.into())
}

fn refused(address: SocketAddr, doing: &'static str, source: io::Error) -> ListenError {
    match source.kind() {
        io::ErrorKind::AddrInUse => {
            let holder = holder::find(address).map(|holder| format!(" by {holder}")).unwrap_or_default();
            ListenError::InUse { address, holder, source }
        }
        io::ErrorKind::PermissionDenied => ListenError::Denied { address, source },
        io::ErrorKind::AddrNotAvailable => ListenError::NotLocal { address, source },
        _ => ListenError::Other { address, doing, source },
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpStream;

    use super::*;

    fn any_port() -> SocketAddr {
        "127.0.0.1:0".parse().unwrap()
    }

    #[test]
    fn one_socket_per_address() {
        let mut table = ListenerTable::new();
        let first = table.listen(any_port()).unwrap();
        let address = first.local_addr().unwrap();
        let second = table.listen(address).unwrap();
        assert_eq!(table.addresses().collect::<Vec<_>>(), [address]);
        // Both handles accept from the same queue.
        let _client = TcpStream::connect(address).unwrap();
        second.set_nonblocking(false).unwrap();
        second.accept().unwrap();
        first.set_nonblocking(true).unwrap();
        assert_eq!(first.accept().unwrap_err().kind(), io::ErrorKind::WouldBlock);
    }

    #[test]
    fn a_closed_address_is_free_again() {
        let mut table = ListenerTable::new();
        // An address of this test's own, so that no other test takes the port meanwhile.
        let address = table.listen("127.77.0.9:0".parse().unwrap()).unwrap().local_addr().unwrap();
        assert!(table.close(address) && !table.close(address));
        assert!(TcpStream::connect(address).is_err());
        table.listen(address).unwrap();
    }

    #[test]
    fn an_address_in_use_names_the_address_and_its_holder() {
        let taken = TcpListener::bind(any_port()).unwrap();
        let address = taken.local_addr().unwrap();
        let message = ListenerTable::new().listen(address).unwrap_err().to_string();
        assert!(message.contains(&address.to_string()), "{message}");
        assert!(message.contains(&format!("process {}", std::process::id())), "{message}");
    }

    #[test]
    fn a_foreign_address_is_named() {
        // RFC 5737 keeps this range for documentation.
        let error = ListenerTable::new().listen("192.0.2.1:80".parse().unwrap()).unwrap_err();
        assert!(matches!(error, ListenError::NotLocal { .. }), "{error:?}");
    }

    #[test]
    fn a_seeded_socket_is_taken_under_its_name() {
        let outside = TcpListener::bind(any_port()).unwrap();
        let bound = outside.local_addr().unwrap();
        let name: SocketAddr = "0.0.0.0:8080".parse().unwrap();
        let mut table = ListenerTable::seeded([(name, outside)]);
        assert_eq!(table.unclaimed().collect::<Vec<_>>(), [name]);
        assert_eq!(table.listen(name).unwrap().local_addr().unwrap(), bound);
        assert_eq!(table.unclaimed().count(), 0);
    }
}
