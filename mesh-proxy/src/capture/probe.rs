//! Whether traffic of this network namespace is captured, found out by a connection of our own.
//!
//! Needs no privilege: rules can be read only with `CAP_NET_ADMIN`, but anyone sees where a connection ends. What is
//! asked depends on who asks. The proxy's user calls an address of the workload's own, which is led to the inbound
//! port; anyone else calls an address far away, which is led to the outbound port. For the length of the check both
//! ports are listened on here, so that it works before the proxy runs, and only then.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use tokio::net::{TcpListener, TcpSocket};
use tokio::time::{sleep, timeout};

use super::config::{CaptureConfig, Guard, Select};
use super::rules::{PASSTHROUGH_V4, PASSTHROUGH_V6};
use crate::net::orig_dst::original_dst;
use crate::net::sockopt::set_mark;

/// Time for a connection, and between two (Istio's validation waits as long).
const PAUSE: Duration = Duration::from_secs(1);

/// Somewhere else, where nobody is (RFC 5737, RFC 3849).
const ELSEWHERE: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1))];

/// What to ask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probe {
    /// Destinations; one that arrives is enough.
    pub targets: Vec<SocketAddr>,
    /// Where it must arrive.
    pub port: u16,
    /// Mark of the connection.
    pub mark: Option<u32>,
}

/// Traffic is not captured, or that could not be found out.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// A connection did not arrive.
    #[error(
        "traffic of this network namespace is not captured: a connection to {target} did not arrive at port {port} \
         within {within:?}. Its rules are written by the pod's istio-init container or by the CNI plugin of the node; \
         when the pod was started before that plugin was ready, delete the pod to have it started again"
    )]
    NotCaptured {
        /// Where the connection went.
        target: SocketAddr,
        /// Where it should have arrived.
        port: u16,
        /// How long it was tried.
        within: Duration,
    },
    /// The port that connections are led to cannot be listened on.
    #[error("cannot find out whether traffic is captured: port {port} cannot be listened on")]
    Listen {
        /// The port.
        port: u16,
        /// The system's error, as a rule that the proxy runs already.
        #[source]
        source: io::Error,
    },
    /// The settings capture no traffic of this process.
    #[error(
        "these settings capture no traffic that a check could send; name an outgoing range, or run it as the proxy's user"
    )]
    Nothing,
}

/// Who runs the check.
#[derive(Clone, Copy, Debug)]
pub struct Caller {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
}

impl Caller {
    /// This process.
    #[must_use]
    pub fn this() -> Self {
        Self { uid: nix::unistd::geteuid().as_raw(), gid: nix::unistd::getegid().as_raw() }
    }
}

impl Probe {
    /// The check that `caller` can do of rules made from `config`.
    ///
    /// # Errors
    /// [`ProbeError::Nothing`].
    pub fn of(config: &CaptureConfig, caller: Caller, port: u16) -> Result<Self, ProbeError> {
        let Guard { uids, gids, mark } = &config.guard;
        let ipv6 = config.ipv6;
        let at = |ip: IpAddr| SocketAddr::new(ip, port);
        if uids.contains(&caller.uid) || gids.contains(&caller.gid) || mark.is_some() {
            // Any loopback address but localhost itself; of IPv6 there is only the one that capture adds.
            let own = [IpAddr::V4(PASSTHROUGH_V4)].into_iter().chain(ipv6.then_some(IpAddr::V6(PASSTHROUGH_V6)));
            let targets = own.filter(|ip| !config.loopback.contains(*ip)).map(at).collect();
            return Ok(Self { targets, port: config.inbound_port, mark: *mark });
        }
        let excluded = |ip: &IpAddr| config.exclude_outbound_ranges.iter().any(|range| range.contains(*ip));
        let ranges: Vec<IpAddr> = match &config.outbound_ranges {
            Select::All => ELSEWHERE.to_vec(),
            Select::Only(ranges) => {
                ranges.iter().filter(|range| !range.is_loopback()).map(|range| range.addr()).collect()
            }
        };
        let targets: Vec<_> = ranges.into_iter().filter(|ip| (ipv6 || ip.is_ipv4()) && !excluded(ip)).map(at).collect();
        if targets.is_empty() || config.exclude_outbound_ports.contains(&port) {
            return Err(ProbeError::Nothing);
        }
        Ok(Self { targets, port: config.outbound_port, mark: None })
    }

    /// Connects until a connection arrives, for `within` at most.
    ///
    /// # Errors
    /// See [`ProbeError`].
    pub async fn run(&self, within: Duration) -> Result<(), ProbeError> {
        let Some(target) = self.targets.first().copied() else { return Err(ProbeError::Nothing) };
        let listeners = self.listen()?;
        let attempts = async {
            while !self.any_arrives(&listeners).await {
                sleep(PAUSE).await;
            }
        };
        let not_captured = |_| ProbeError::NotCaptured { target, port: self.port, within };
        timeout(within, attempts).await.map_err(not_captured)
    }

    /// Connects once.
    ///
    /// # Errors
    /// See [`ProbeError`].
    pub async fn once(&self) -> Result<(), ProbeError> {
        let Some(target) = self.targets.first().copied() else { return Err(ProbeError::Nothing) };
        let listeners = self.listen()?;
        if self.any_arrives(&listeners).await {
            return Ok(());
        }
        Err(ProbeError::NotCaptured { target, port: self.port, within: PAUSE })
    }

    async fn any_arrives(&self, listeners: &[Listener]) -> bool {
        for target in &self.targets {
            let family = |listener: &&Listener| listener.ipv4 == target.is_ipv4();
            if let Some(listener) = listeners.iter().find(family)
                && self.arrives(*target, &listener.socket).await
            {
                return true;
            }
        }
        false
    }

    /// A redirected connection arrives at localhost of its own family.
    fn listen(&self) -> Result<Vec<Listener>, ProbeError> {
        let mut listeners: Vec<Listener> = Vec::new();
        for target in &self.targets {
            if listeners.iter().any(|listener| listener.ipv4 == target.is_ipv4()) {
                continue;
            }
            let ip = if target.is_ipv4() { Ipv4Addr::LOCALHOST.into() } else { Ipv6Addr::LOCALHOST.into() };
            let socket = listen(SocketAddr::new(ip, self.port));
            let socket = socket.map_err(|source| ProbeError::Listen { port: self.port, source })?;
            listeners.push(Listener { ipv4: target.is_ipv4(), socket });
        }
        Ok(listeners)
    }

    async fn arrives(&self, target: SocketAddr, listener: &TcpListener) -> bool {
        let attempt = async {
            let socket = open(target)?;
            if let Some(mark) = self.mark {
                set_mark(&socket, mark).map_err(io::Error::other)?;
            }
            // Kept open until it was looked at.
            let _client = socket.connect(target).await?;
            while let Ok((arrived, _)) = listener.accept().await {
                if original_dst(&arrived)? == Some(target) {
                    return Ok::<_, io::Error>(true);
                }
            }
            Ok(false)
        };
        matches!(timeout(PAUSE, attempt).await, Ok(Ok(true)))
    }
}

/// Where connections arrive.
struct Listener {
    ipv4: bool,
    socket: TcpListener,
}

fn open(address: SocketAddr) -> io::Result<TcpSocket> {
    if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = open(address)?;
    // Connections of an earlier check may still be closing.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(16)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROXY: Caller = Caller { uid: 1337, gid: 1337 };
    const WORKLOAD: Caller = Caller { uid: 0, gid: 0 };

    #[track_caller]
    fn check(config: &CaptureConfig, caller: Caller, port: u16, targets: &[&str]) {
        let probe = Probe::of(config, caller, 15002).unwrap();
        let shown: Vec<_> = probe.targets.iter().map(ToString::to_string).collect();
        assert_eq!((probe.port, shown), (port, targets.iter().map(|&text| text.to_owned()).collect()));
    }

    #[test]
    fn what_is_asked_depends_on_who_asks() {
        let both = CaptureConfig::default();
        check(&both, PROXY, 15006, &["127.0.0.6:15002", "[::6]:15002"]);
        check(&both, Caller { uid: 0, gid: 1337 }, 15006, &["127.0.0.6:15002", "[::6]:15002"]);
        check(&both, WORKLOAD, 15001, &["192.0.2.1:15002", "[2001:db8::1]:15002"]);
        let ranges = vec!["127.0.0.0/8".parse().unwrap(), "10.0.0.0/8".parse().unwrap(), "fd00::/8".parse().unwrap()];
        let ipv4 = CaptureConfig { ipv6: false, outbound_ranges: Select::Only(ranges), ..both.clone() };
        check(&ipv4, PROXY, 15006, &["127.0.0.6:15002"]);
        check(&ipv4, WORKLOAD, 15001, &["10.0.0.0:15002"]);
        let nothing = CaptureConfig { outbound_ranges: Select::Only(Vec::new()), ..both };
        assert!(matches!(Probe::of(&nothing, WORKLOAD, 15002), Err(ProbeError::Nothing)));
    }

    #[tokio::test]
    async fn a_namespace_without_rules_is_found_out() {
        let port = listen("127.0.0.1:0".parse().unwrap()).unwrap().local_addr().unwrap().port();
        let probe = Probe { targets: vec!["127.0.0.6:9".parse().unwrap()], port, mark: None };
        let error = probe.run(Duration::from_millis(20)).await.unwrap_err();
        assert!(matches!(error, ProbeError::NotCaptured { .. }), "{error:?}");
        assert!(error.to_string().contains("delete the pod"), "{error}");
    }
}
