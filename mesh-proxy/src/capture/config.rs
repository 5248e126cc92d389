//! What to capture, as the flags of `mesh-proxy init` and the annotations of a pod say it.

use std::net::{IpAddr, Ipv4Addr};

use super::cidr::Cidr;

/// Greatest number of entries over all lists of a [`CaptureConfig`]: the rules must fit into one netlink batch.
pub const MAX_ENTRIES: usize = 256;

/// All of something, or only what is listed. An empty list is nothing at all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Select<T> {
    /// Everything (`*`).
    All,
    /// Only these.
    Only(Vec<T>),
}

/// How the proxy's own connections are told from those of the workload, so that they are not captured again.
/// A socket belongs to the proxy if it fits any entry.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Guard {
    /// User ids the proxy runs as (Istio: 1337).
    pub uids: Vec<u32>,
    /// Group ids the proxy runs as (Istio: 1337).
    pub gids: Vec<u32>,
    /// Socket mark (`SO_MARK`) the proxy puts on every connection it opens. Marks need `CAP_NET_ADMIN`, which a
    /// proxy has in a user namespace of its own, where it cannot have a user id of its own.
    pub mark: Option<u32>,
}

/// What to capture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CaptureConfig {
    /// Port of the proxy that takes the workload's outgoing connections (15001).
    pub outbound_port: u16,
    /// Port of the proxy that takes incoming connections (15006).
    pub inbound_port: u16,
    /// Port of the proxy's tunnel, never captured (15008).
    pub tunnel_port: u16,
    /// How the proxy's own connections are recognised.
    pub guard: Guard,
    /// Incoming ports to capture.
    pub inbound_ports: Select<u16>,
    /// Incoming ports to leave alone.
    pub exclude_inbound_ports: Vec<u16>,
    /// Outgoing destination ranges to capture.
    pub outbound_ranges: Select<Cidr>,
    /// Outgoing destination ranges to leave alone.
    pub exclude_outbound_ranges: Vec<Cidr>,
    /// Outgoing destination ports to capture whatever the range.
    pub outbound_ports: Select<u16>,
    /// Outgoing destination ports to leave alone.
    pub exclude_outbound_ports: Vec<u16>,
    /// Interfaces whose traffic is not captured in either direction.
    pub exclude_interfaces: Vec<Interface>,
    /// Interfaces of virtual machines: what comes in on them is traffic going out.
    pub reroute_interfaces: Vec<Interface>,
    /// Groups of the workload whose traffic is captured.
    pub groups: Groups,
    /// The workload's own localhost, whose traffic is not captured (IPv4; 127.0.0.1).
    pub loopback: Cidr,
    /// Look-ups of names to capture.
    pub dns: Dns,
    /// Port of the proxy that answers look-ups (15053).
    pub dns_port: u16,
    /// Whether packets that belong to no connection are dropped instead of being answered with a reset.
    pub drop_invalid: bool,
    /// Incoming connections reach the proxy with their addresses unchanged; `None` rewrites the destination.
    pub tproxy: Option<Tproxy>,
    /// Whether IPv6 is captured too; if not, IPv6 connections pass untouched.
    pub ipv6: bool,
}

/// Groups of users whose outgoing traffic is captured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Groups {
    /// All but these.
    Except(Vec<u32>),
    /// These only.
    Only(Vec<u32>),
}

/// Which look-ups of names are captured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Dns {
    /// None.
    Off,
    /// Those that go to one of these servers.
    Servers(Vec<IpAddr>),
    /// All that go to port 53.
    All,
}

/// How packets are led to the proxy without a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tproxy {
    /// The mark of such packets (Istio: 1337).
    pub mark: u32,
    /// The routing table that keeps marked packets on this machine (Istio: 133).
    pub table: u32,
}

/// A network interface, by its whole name or (written with a trailing `+`) by the beginning of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// The name without the `+`; 1 to 15 bytes.
    pub(super) name: String,
    /// Whether every interface whose name begins so is meant.
    pub(super) prefix: bool,
}

/// A configuration that cannot be turned into rules.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RulesError {
    /// Without a guard the proxy's own connections would come back to it for ever.
    #[error("no loop guard: name at least one user id, group id or socket mark of the proxy")]
    NoGuard,
    /// A mark of zero is what every socket has.
    #[error("the loop guard's socket mark must not be 0: every socket without a mark would count as the proxy's")]
    ZeroMark,
    /// Two of the proxy's ports are the same, or one is zero.
    #[error("the proxy's ports must be different and not 0: outbound {outbound}, inbound {inbound}, tunnel {tunnel}")]
    Ports {
        /// See [`CaptureConfig::outbound_port`].
        outbound: u16,
        /// See [`CaptureConfig::inbound_port`].
        inbound: u16,
        /// See [`CaptureConfig::tunnel_port`].
        tunnel: u16,
    },
    /// The marks of TPROXY and of the loop guard are one value, or one that cannot be used.
    #[error(
        "TPROXY needs a mark that is neither 0 nor 1338, a routing table that is not 0, and a loop guard by user or group, not by mark"
    )]
    TproxyMark,
    /// The workload's localhost is not within 127.0.0.0/8.
    #[error("the IPv4 loopback range must lie within 127.0.0.0/8, which {0} does not")]
    Loopback(Cidr),
    /// More list entries than one batch can carry.
    #[error("{count} ports, ranges, interfaces and ids are listed; at most {MAX_ENTRIES} fit")]
    TooMany {
        /// Number of entries over all lists.
        count: usize,
    },
}

/// A text that is not the name of an interface.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not an interface name: 1 to 15 printable bytes without '/', with an optional trailing '+'")]
pub struct InterfaceError(pub String);

impl Default for CaptureConfig {
    /// Everything is captured, as Istio's injector asks for: ports 15090, 15021 and 15020 of the proxy itself are
    /// left out, and the proxy is known by user and group 1337.
    fn default() -> Self {
        Self {
            outbound_port: 15001,
            inbound_port: 15006,
            tunnel_port: 15008,
            guard: Guard { uids: vec![1337], gids: vec![1337], mark: None },
            inbound_ports: Select::All,
            exclude_inbound_ports: vec![15090, 15021, 15020],
            outbound_ranges: Select::All,
            exclude_outbound_ranges: Vec::new(),
            outbound_ports: Select::Only(Vec::new()),
            exclude_outbound_ports: Vec::new(),
            exclude_interfaces: Vec::new(),
            reroute_interfaces: Vec::new(),
            groups: Groups::Except(Vec::new()),
            loopback: Cidr::host(IpAddr::V4(Ipv4Addr::LOCALHOST)),
            dns: Dns::Off,
            dns_port: 15053,
            drop_invalid: false,
            tproxy: None,
            ipv6: true,
        }
    }
}

impl CaptureConfig {
    /// Whether rules can be made of it.
    ///
    /// # Errors
    /// When there is no loop guard, when the proxy's ports collide, or when there are more than [`MAX_ENTRIES`].
    pub fn check(&self) -> Result<(), RulesError> {
        let Guard { uids, gids, mark } = &self.guard;
        if uids.is_empty() && gids.is_empty() && mark.is_none() {
            return Err(RulesError::NoGuard);
        }
        if *mark == Some(0) {
            return Err(RulesError::ZeroMark);
        }
        let (outbound, inbound, tunnel) = (self.outbound_port, self.inbound_port, self.tunnel_port);
        if outbound == inbound || outbound == tunnel || inbound == tunnel || [outbound, inbound, tunnel].contains(&0) {
            return Err(RulesError::Ports { outbound, inbound, tunnel });
        }
        if self.tproxy.is_some_and(|tproxy| matches!(tproxy.mark, 0 | 1338) || tproxy.table == 0 || mark.is_some()) {
            return Err(RulesError::TproxyMark);
        }
        if !self.loopback.addr().is_ipv4() || !self.loopback.is_loopback() {
            return Err(RulesError::Loopback(self.loopback));
        }
        let count = uids.len()
            + gids.len()
            + self.inbound_ports.len()
            + self.exclude_inbound_ports.len()
            // Each range may stand once per rerouted interface.
            + self.outbound_ranges.len().saturating_mul(1 + self.reroute_interfaces.len())
            + self.exclude_outbound_ranges.len()
            + self.outbound_ports.len()
            + self.exclude_outbound_ports.len()
            + self.groups.len()
            + self.dns.len()
            + self.exclude_interfaces.len()
            + self.reroute_interfaces.len();
        if count > MAX_ENTRIES {
            return Err(RulesError::TooMany { count });
        }
        Ok(())
    }
}

impl Groups {
    fn len(&self) -> usize {
        match self {
            Self::Except(list) | Self::Only(list) => list.len(),
        }
    }
}

impl Dns {
    fn len(&self) -> usize {
        match self {
            Self::Off | Self::All => 0,
            Self::Servers(list) => list.len(),
        }
    }
}

impl<T> Select<T> {
    fn len(&self) -> usize {
        match self {
            Self::All => 0,
            Self::Only(list) => list.len(),
        }
    }
}

impl std::str::FromStr for Interface {
    type Err = InterfaceError;

    fn from_str(text: &str) -> Result<Self, InterfaceError> {
        let (name, prefix) = match text.strip_suffix('+') {
            Some(name) => (name, true),
            None => (text, false),
        };
        // IFNAMSIZ is 16 with the closing zero (linux/if.h).
        let fits = (1..=15).contains(&name.len());
        if !fits || !name.bytes().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'/' | b'"' | b'*' | b'+')) {
            return Err(InterfaceError(text.to_owned()));
        }
        Ok(Self { name: name.to_owned(), prefix })
    }
}
