//! Options of the proxy's TCP sockets.

use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

use socket2::{Domain, SockRef, Socket, TcpKeepalive, Type};

/// What is set on a connection, accepted or opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SocketOptions {
    /// Send small segments at once (`TCP_NODELAY`). On by default: the proxy writes whole messages itself, and
    /// waiting for more would only add latency.
    pub nodelay: bool,
    /// Probing of idle connections; `None` leaves them alone, the default, as in Istio.
    pub keepalive: Option<Keepalive>,
    /// How long sent data may stay unacknowledged before the connection is given up (`TCP_USER_TIMEOUT`); `None`
    /// leaves it to the kernel (about 15 minutes).
    pub user_timeout: Option<Duration>,
}

/// Probing of idle connections (`tcpKeepalive` of DestinationRule and MeshConfig). What is `None` is the kernel's
/// default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Keepalive {
    /// Idle time before the first probe; whole seconds.
    pub time: Option<Duration>,
    /// Time between probes; whole seconds.
    pub interval: Option<Duration>,
    /// Unanswered probes after which the connection is dead.
    pub probes: Option<u32>,
}

/// An option could not be set.
#[derive(Debug, thiserror::Error)]
#[error("cannot set socket option {option}")]
pub struct SockoptError {
    /// The option's name in the system's headers.
    pub option: &'static str,
    /// The system's error.
    #[source]
    pub source: io::Error,
}

impl Default for SocketOptions {
    fn default() -> Self {
        Self { nodelay: true, keepalive: None, user_timeout: None }
    }
}

impl SocketOptions {
    /// Sets the options on a TCP socket.
    ///
    /// # Errors
    /// Names the first option that the kernel refused.
    pub fn apply(&self, socket: impl AsFd) -> Result<(), SockoptError> {
        let socket = SockRef::from(&socket);
        if self.nodelay {
            named("TCP_NODELAY", socket.set_tcp_nodelay(true))?;
        }
        if let Some(keepalive) = &self.keepalive {
            named("SO_KEEPALIVE", socket.set_tcp_keepalive(&keepalive.params()))?;
        }
        if let Some(timeout) = self.user_timeout {
            named("TCP_USER_TIMEOUT", socket.set_tcp_user_timeout(Some(timeout)))?;
        }
        Ok(())
    }
}

impl Keepalive {
    fn params(&self) -> TcpKeepalive {
        // The kernel takes 1 to 32767 seconds and answers EINVAL outside (net/ipv4/tcp.c, MAX_TCP_KEEPIDLE).
        let seconds = |time: Duration| Duration::from_secs(time.as_secs().clamp(1, 32767));
        let mut params = TcpKeepalive::new();
        if let Some(time) = self.time {
            params = params.with_time(seconds(time));
        }
        if let Some(interval) = self.interval {
            params = params.with_interval(seconds(interval));
        }
        if let Some(probes) = self.probes {
            // MAX_TCP_KEEPCNT.
            params = params.with_retries(probes.clamp(1, 127));
        }
        params
    }
}

/// Marks everything that `socket` sends, before it is connected: the loop guard of capture by mark.
///
/// # Errors
/// Without `CAP_NET_ADMIN` in the network namespace's user namespace.
pub fn set_mark(socket: impl AsFd, mark: u32) -> Result<(), SockoptError> {
    named("SO_MARK", SockRef::from(&socket).set_mark(mark))
}

/// Lets a socket have addresses that are not this machine's: a listener takes connections for any destination, a
/// connection has the address of the client for which it is opened (`IP_TRANSPARENT`, for IPv6 sockets as well).
///
/// # Errors
/// Without `CAP_NET_ADMIN` in the network namespace's user namespace.
pub fn set_transparent(socket: impl AsFd) -> Result<(), SockoptError> {
    let set = nix::sys::socket::setsockopt(&socket, nix::sys::socket::sockopt::IpTransparent, &true);
    named("IP_TRANSPARENT", set.map_err(Into::into))
}

/// Mark of connections to the workload in the name of its clients. The rules of TPROXY mode know it (Istio's
/// `INBOUND_TPROXY_MARK` and the mark of its `original_src` filter).
pub const CLIENT_MARK: u32 = 1337;

/// Whether this process may use addresses that are not this machine's, and mark what it sends.
///
/// # Errors
/// See [`set_transparent`].
pub fn check_transparent() -> Result<(), SockoptError> {
    let probe = Socket::new(Domain::IPV4, Type::STREAM, None);
    let probe =
        probe.map_err(|source| SockoptError { option: "IP_TRANSPARENT (opening a socket to try it)", source })?;
    set_transparent(&probe)?;
    set_mark(&probe, CLIENT_MARK)
}

/// Whether this process may mark its sockets. Asked once at start, so that a proxy whose loop guard cannot work says
/// so before it takes the first connection.
///
/// # Errors
/// See [`set_mark`].
pub fn check_mark(mark: u32) -> Result<(), SockoptError> {
    let probe = Socket::new(Domain::IPV4, Type::STREAM, None);
    let probe = probe.map_err(|source| SockoptError { option: "SO_MARK (opening a socket to try it)", source })?;
    set_mark(&probe, mark)
}

fn named(option: &'static str, result: io::Result<()>) -> Result<(), SockoptError> {
    result.map_err(|source| SockoptError { option, source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_reach_the_socket() {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        let options = SocketOptions {
            keepalive: Some(Keepalive {
                time: Some(Duration::from_secs(30)),
                interval: Some(Duration::from_millis(100)),
                probes: Some(1000),
            }),
            user_timeout: Some(Duration::from_secs(7)),
            ..SocketOptions::default()
        };
        options.apply(&socket).unwrap();
        assert!(socket.tcp_nodelay().unwrap() && socket.keepalive().unwrap());
        assert_eq!(socket.tcp_keepalive_time().unwrap(), Duration::from_secs(30));
        assert_eq!(socket.tcp_keepalive_interval().unwrap(), Duration::from_secs(1));
        assert_eq!(socket.tcp_keepalive_retries().unwrap(), 127);
        assert_eq!(socket.tcp_user_timeout().unwrap(), Some(Duration::from_secs(7)));
    }

    #[test]
    fn a_refused_option_is_named() {
        let (end, _other) = std::os::unix::net::UnixStream::pair().unwrap();
        let error = SocketOptions::default().apply(&end).unwrap_err();
        assert_eq!(error.to_string(), "cannot set socket option TCP_NODELAY");
    }
}
