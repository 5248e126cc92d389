//! What traffic is captured, as plain data: configuration in, a list of nftables chains and rules out.
//!
//! Nothing here touches the system; [`super::exec`] writes the list into the kernel and `Display` shows it in the
//! syntax of `nft -f`. The order of the rules is that of Istio's REDIRECT mode (istio/istio:
//! tools/istio-iptables/pkg/capture/run.go), because users reason about it: loop guard first, then what is left out,
//! then what is taken in.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::cidr::Cidr;

/// Name of the one nftables table that capture owns. Everything in it is replaced and removed with it.
pub const TABLE: &str = "lateen-capture";
/// Priority of both base chains: where destination NAT belongs (`dstnat`, linux/netfilter_ipv4.h).
pub const PRIORITY: i32 = -100;
/// Greatest number of entries over all lists of a [`CaptureConfig`]: the rules must fit into one netlink batch.
pub const MAX_ENTRIES: usize = 256;
/// Source address of connections that the proxy opens to its own workload for traffic it passes through unchanged
/// (Istio's `InboundPassthroughBindIpv4`).
pub const PASSTHROUGH_V4: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 6);
/// The same for IPv6 (`InboundPassthroughBindIpv6`).
pub const PASSTHROUGH_V6: Ipv6Addr = Ipv6Addr::new(0, 0, 0, 0, 0, 0, 0, 6);

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
    /// Whether IPv6 is captured too; if not, IPv6 connections pass untouched.
    pub ipv6: bool,
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

/// The rules to install: one table of the `inet` family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ruleset {
    /// Every chain, callees before callers.
    pub chains: Vec<Chain>,
}

/// One chain of the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain {
    /// Name within the table.
    pub name: ChainName,
    /// The rules in order of evaluation; the end of the chain returns to the caller, or accepts in a base chain.
    pub rules: Vec<Rule>,
}

/// The chains there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ChainName {
    /// Hands a connection to the proxy's outbound port.
    Redirect,
    /// Hands a connection to the proxy's inbound port.
    InRedirect,
    /// Decides about incoming connections.
    Inbound,
    /// Decides about outgoing connections.
    Output,
    /// Base chain for what arrives from an interface.
    HookPrerouting,
    /// Base chain for what a local process opens.
    HookOutput,
}

/// Where the kernel calls a base chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// Before routing of what arrives.
    Prerouting,
    /// What a local process sends.
    Output,
}

/// One rule: if every match holds, the action is taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// All must hold; none means always.
    pub matches: Vec<Match>,
    /// What is done.
    pub action: Action,
}

/// Whether a value must be equal or must differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Is {
    /// The value must be equal (be in the range).
    Equal,
    /// The value must differ (be outside the range).
    Not,
}

/// One condition on a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Match {
    /// It is IPv6.
    Ipv6,
    /// It is TCP.
    Tcp,
    /// It is UDP to this destination port.
    UdpPort(u16),
    /// It is TCP and its destination port is (not) this one.
    TcpPort(Is, u16),
    /// The address family is that of the range and the destination is (not) in it.
    Destination(Is, Cidr),
    /// The address family is that of the range and the source is in it.
    Source(Cidr),
    /// It arrived on this interface.
    InputInterface(Interface),
    /// It leaves by this interface.
    OutputInterface(Interface),
    /// The sending socket's user is (not) this one.
    Uid(Is, u32),
    /// The sending socket's group is (not) this one.
    Gid(Is, u32),
    /// The packet's mark is (not) this one.
    Mark(Is, u32),
}

/// What a rule does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Leave this chain.
    Return,
    /// Go through another chain, then go on here.
    Jump(ChainName),
    /// Rewrite the destination to this port of the local machine; ends the evaluation.
    Redirect(u16),
}

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
            ipv6: true,
        }
    }
}

impl CaptureConfig {
    /// The rules for this configuration.
    ///
    /// # Errors
    /// When there is no loop guard, when the proxy's ports collide, or when there are more than [`MAX_ENTRIES`].
    pub fn ruleset(&self) -> Result<Ruleset, RulesError> {
        self.check()?;
        Ok(Ruleset {
            chains: vec![
                chain(ChainName::Redirect, vec![on(Match::Tcp, Action::Redirect(self.outbound_port))]),
                chain(ChainName::InRedirect, vec![on(Match::Tcp, Action::Redirect(self.inbound_port))]),
                chain(ChainName::Inbound, self.inbound()),
                chain(ChainName::Output, self.output()),
                chain(ChainName::HookPrerouting, self.prerouting_hook()),
                chain(ChainName::HookOutput, self.output_hook()),
            ],
        })
    }

    fn check(&self) -> Result<(), RulesError> {
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
        let count = uids.len()
            + gids.len()
            + self.inbound_ports.len()
            + self.exclude_inbound_ports.len()
            // Each range may stand once per rerouted interface.
            + self.outbound_ranges.len().saturating_mul(1 + self.reroute_interfaces.len())
            + self.exclude_outbound_ranges.len()
            + self.outbound_ports.len()
            + self.exclude_outbound_ports.len()
            + self.exclude_interfaces.len()
            + self.reroute_interfaces.len();
        if count > MAX_ENTRIES {
            return Err(RulesError::TooMany { count });
        }
        Ok(())
    }

    fn prerouting_hook(&self) -> Vec<Rule> {
        let mut rules = self.both_hooks(Match::InputInterface);
        for interface in &self.reroute_interfaces {
            let input = Match::InputInterface(interface.clone());
            for range in self.outbound_ranges.as_matches() {
                rules.push(all([input.clone(), range], Action::Jump(ChainName::Redirect)));
            }
            rules.push(on(input, Action::Return));
        }
        if self.inbound_ports != Select::Only(Vec::new()) {
            rules.push(on(Match::Tcp, Action::Jump(ChainName::Inbound)));
        }
        rules
    }

    fn output_hook(&self) -> Vec<Rule> {
        let mut rules = self.both_hooks(Match::OutputInterface);
        rules.push(Rule { matches: Vec::new(), action: Action::Jump(ChainName::Output) });
        rules
    }

    /// What is left out in both directions.
    fn both_hooks(&self, interface: impl Fn(Interface) -> Match) -> Vec<Rule> {
        let mut rules = Vec::new();
        if !self.ipv6 {
            rules.push(on(Match::Ipv6, Action::Return));
        }
        rules.extend(self.exclude_interfaces.iter().map(|name| on(interface(name.clone()), Action::Return)));
        rules
    }

    fn inbound(&self) -> Vec<Rule> {
        let port = |port: &u16, action| on(Match::TcpPort(Is::Equal, *port), action);
        let mut rules = vec![port(&self.tunnel_port, Action::Return)];
        rules.extend(self.exclude_inbound_ports.iter().map(|listed| port(listed, Action::Return)));
        let take = Action::Jump(ChainName::InRedirect);
        match &self.inbound_ports {
            Select::All => rules.push(on(Match::Tcp, take)),
            Select::Only(ports) => rules.extend(ports.iter().map(|listed| port(listed, take))),
        }
        rules
    }

    fn output(&self) -> Vec<Rule> {
        let mut rules = Vec::new();
        for port in &self.exclude_outbound_ports {
            rules.push(on(Match::TcpPort(Is::Equal, *port), Action::Return));
            rules.push(on(Match::UdpPort(*port), Action::Return));
        }
        for source in [IpAddr::V4(PASSTHROUGH_V4), IpAddr::V6(PASSTHROUGH_V6)] {
            if self.speaks(source) {
                rules.push(all([loopback(), Match::Source(Cidr::host(source))], Action::Return));
            }
        }
        rules.extend(self.guard_rules());
        for address in self.localhost() {
            rules.push(on(Match::Destination(Is::Equal, Cidr::host(address)), Action::Return));
        }
        for range in &self.exclude_outbound_ranges {
            rules.push(on(Match::Destination(Is::Equal, *range), Action::Return));
        }
        let take = Action::Jump(ChainName::Redirect);
        match &self.outbound_ports {
            Select::All => rules.push(on(Match::Tcp, take)),
            Select::Only(ports) => rules.extend(ports.iter().map(|port| on(Match::TcpPort(Is::Equal, *port), take))),
        }
        rules.extend(self.outbound_ranges.as_matches().into_iter().map(|range| on(range, take)));
        rules
    }

    /// The loop guard. Three cases over the loopback interface and everything the proxy sends:
    ///
    /// - the proxy calls the workload's own address: that is an incoming connection, so it goes to the inbound port;
    /// - the workload calls itself: not the mesh's business;
    /// - anything else of the proxy's leaves untouched.
    ///
    /// Istio writes the three once for the user and once for the group; the second case is one rule here that asks
    /// for none of the guard's marks, so that each way of being the proxy is as good as the other.
    fn guard_rules(&self) -> Vec<Rule> {
        let is_proxy = self.guard.matches(Is::Equal);
        let mut rules = Vec::new();
        for address in self.localhost() {
            for owner in &is_proxy {
                let own_address = Match::Destination(Is::Not, Cidr::host(address));
                let no_tunnel = Match::TcpPort(Is::Not, self.tunnel_port);
                rules.push(all(
                    [loopback(), own_address, no_tunnel, owner.clone()],
                    Action::Jump(ChainName::InRedirect),
                ));
            }
        }
        if !self.captures_loopback() {
            let mut matches = vec![loopback()];
            matches.extend(self.guard.matches(Is::Not));
            rules.push(Rule { matches, action: Action::Return });
        }
        rules.extend(is_proxy.into_iter().map(|owner| on(owner, Action::Return)));
        rules
    }

    /// Whether loopback ranges are listed as captured, as when two workloads share one machine.
    fn captures_loopback(&self) -> bool {
        match &self.outbound_ranges {
            Select::All => false,
            Select::Only(ranges) => ranges.iter().any(Cidr::is_loopback),
        }
    }

    fn localhost(&self) -> impl Iterator<Item = IpAddr> {
        let addresses = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
        addresses.into_iter().filter(|address| self.speaks(*address))
    }

    fn speaks(&self, address: IpAddr) -> bool {
        self.ipv6 || address.is_ipv4()
    }
}

impl ChainName {
    /// The name in the kernel. Istio's names for its chains, in the spelling nftables likes.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Redirect => "istio-redirect",
            Self::InRedirect => "istio-in-redirect",
            Self::Inbound => "istio-inbound",
            Self::Output => "istio-output",
            Self::HookPrerouting => "hook-prerouting",
            Self::HookOutput => "hook-output",
        }
    }

    /// The hook of a base chain; `None` for a chain that is only jumped to.
    #[must_use]
    pub fn hook(self) -> Option<Hook> {
        match self {
            Self::HookPrerouting => Some(Hook::Prerouting),
            Self::HookOutput => Some(Hook::Output),
            Self::Redirect | Self::InRedirect | Self::Inbound | Self::Output => None,
        }
    }
}

impl Hook {
    /// The name in nft's syntax.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Prerouting => "prerouting",
            Self::Output => "output",
        }
    }
}

impl Guard {
    fn matches(&self, is: Is) -> Vec<Match> {
        let mut matches = Vec::new();
        matches.extend(self.mark.map(|mark| Match::Mark(is, mark)));
        matches.extend(self.uids.iter().map(|uid| Match::Uid(is, *uid)));
        matches.extend(self.gids.iter().map(|gid| Match::Gid(is, *gid)));
        matches
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

impl Select<Cidr> {
    /// The conditions of which one must hold for a connection to be selected.
    fn as_matches(&self) -> Vec<Match> {
        match self {
            Self::All => vec![Match::Tcp],
            Self::Only(ranges) => ranges.iter().map(|range| Match::Destination(Is::Equal, *range)).collect(),
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

fn chain(name: ChainName, rules: Vec<Rule>) -> Chain {
    Chain { name, rules }
}

fn on(condition: Match, action: Action) -> Rule {
    Rule { matches: vec![condition], action }
}

fn all<const N: usize>(conditions: [Match; N], action: Action) -> Rule {
    Rule { matches: conditions.into(), action }
}

fn loopback() -> Match {
    Match::OutputInterface(Interface { name: "lo".to_owned(), prefix: false })
}

#[cfg(test)]
mod tests;
