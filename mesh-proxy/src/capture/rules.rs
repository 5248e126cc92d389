//! What traffic is captured, as plain data: configuration in, a list of nftables chains and rules out.
//!
//! Nothing here touches the system; [`super::exec`] writes the list into the kernel and `Display` shows it in the
//! syntax of `nft -f`. The order of the rules is that of Istio's REDIRECT mode (istio/istio:
//! tools/istio-iptables/pkg/capture/run.go), because users reason about it: loop guard first, then what is left out,
//! then what is taken in.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::cidr::Cidr;
use super::config::{CaptureConfig, Guard, Interface, RulesError, Select};

/// Name of the one nftables table that capture owns. Everything in it is replaced and removed with it.
pub const TABLE: &str = "lateen-capture";
/// Priority of both base chains: where destination NAT belongs (`dstnat`, linux/netfilter_ipv4.h).
pub const PRIORITY: i32 = -100;
/// Source address of connections that the proxy opens to its own workload for traffic it passes through unchanged
/// (Istio's `InboundPassthroughBindIpv4`).
pub const PASSTHROUGH_V4: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 6);
/// The same for IPv6 (`InboundPassthroughBindIpv6`).
pub const PASSTHROUGH_V6: Ipv6Addr = Ipv6Addr::new(0, 0, 0, 0, 0, 0, 0, 6);

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

impl CaptureConfig {
    /// The rules for this configuration.
    ///
    /// # Errors
    /// See [`CaptureConfig::check`].
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

impl Select<Cidr> {
    /// The conditions of which one must hold for a connection to be selected.
    fn as_matches(&self) -> Vec<Match> {
        match self {
            Self::All => vec![Match::Tcp],
            Self::Only(ranges) => ranges.iter().map(|range| Match::Destination(Is::Equal, *range)).collect(),
        }
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
