//! What traffic is captured, as plain data: configuration in, a list of nftables chains and rules out.
//!
//! Nothing here touches the system; [`super::exec`] writes the list into the kernel and `Display` shows it in the
//! syntax of `nft -f`. The order of the rules is that of Istio (istio/istio: tools/istio-iptables/pkg/capture/run.go),
//! because users reason about it: loop guard first, then what is left out, then what is taken in.

mod dns;
mod mangle;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::cidr::Cidr;
use super::config::{CaptureConfig, Dns, Groups, Guard, Interface, RulesError, Select};
use super::model::{Action, Chain, ChainName, Is, Match, Rule, Ruleset};

/// Source address of connections that the proxy opens to its own workload for traffic it passes through unchanged
/// (Istio's `InboundPassthroughBindIpv4`).
pub const PASSTHROUGH_V4: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 6);
/// The same for IPv6 (`InboundPassthroughBindIpv6`).
pub const PASSTHROUGH_V6: Ipv6Addr = Ipv6Addr::new(0, 0, 0, 0, 0, 0, 0, 6);
/// Where names are looked up.
const DNS_PORT: u16 = 53;

impl CaptureConfig {
    /// The rules for this configuration.
    ///
    /// # Errors
    /// See [`CaptureConfig::check`].
    pub fn ruleset(&self) -> Result<Ruleset, RulesError> {
        self.check()?;
        let mut chains = vec![
            chain(ChainName::Redirect, vec![on(Match::Tcp, Action::Redirect(self.outbound_port))]),
            chain(ChainName::InRedirect, vec![on(Match::Tcp, Action::Redirect(self.inbound_port))]),
        ];
        let mut add = |name, rules: Vec<Rule>| {
            if !rules.is_empty() {
                chains.push(chain(name, rules));
            }
        };
        if self.tproxy.is_none() {
            add(ChainName::Inbound, self.inbound());
        }
        add(ChainName::OutputDns, self.dns_redirects());
        add(ChainName::Output, self.output());
        add(ChainName::Divert, self.divert());
        add(ChainName::Tproxy, self.hand_over());
        add(ChainName::InboundTproxy, self.inbound_unchanged());
        add(ChainName::RawPrerouting, self.raw_prerouting());
        add(ChainName::RawOutput, self.raw_output());
        add(ChainName::ManglePrerouting, self.mangle_prerouting());
        add(ChainName::MangleOutput, self.mangle_output());
        add(ChainName::HookPrerouting, self.prerouting_hook());
        add(ChainName::HookOutput, self.output_hook());
        Ok(Ruleset { chains })
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
        if self.takes_inbound() && self.tproxy.is_none() {
            rules.push(on(Match::Tcp, Action::Jump(ChainName::Inbound)));
        }
        rules
    }

    fn output_hook(&self) -> Vec<Rule> {
        let mut rules = self.both_hooks(Match::OutputInterface);
        rules.push(always(Action::Jump(ChainName::Output)));
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
        let mut rules = self.inbound_left_out();
        let take = Action::Jump(ChainName::InRedirect);
        rules.extend(self.inbound_taken().into_iter().map(|port| on(port, take)));
        rules
    }

    /// The ports at which nothing is taken.
    fn inbound_left_out(&self) -> Vec<Rule> {
        let ports = std::iter::once(&self.tunnel_port).chain(&self.exclude_inbound_ports);
        ports.map(|port| on(Match::TcpPort(Is::Equal, *port), Action::Return)).collect()
    }

    /// The conditions of which one must hold for an incoming connection to be taken.
    fn inbound_taken(&self) -> Vec<Match> {
        match &self.inbound_ports {
            Select::All => vec![Match::Tcp],
            Select::Only(ports) => ports.iter().map(|port| Match::TcpPort(Is::Equal, *port)).collect(),
        }
    }

    fn takes_inbound(&self) -> bool {
        self.inbound_ports != Select::Only(Vec::new())
    }

    fn output(&self) -> Vec<Rule> {
        let mut rules = Vec::new();
        for port in &self.exclude_outbound_ports {
            rules.push(on(Match::TcpPort(Is::Equal, *port), Action::Return));
            rules.push(on(Match::UdpPort(*port), Action::Return));
        }
        for source in self.passthrough() {
            rules.push(all([loopback(), Match::Source(source)], Action::Return));
        }
        rules.extend(self.to_own_workload());
        rules.extend(self.guard_rules());
        rules.extend(self.group_rules());
        if self.captures_dns() {
            rules.push(always(Action::Jump(ChainName::OutputDns)));
        }
        for address in self.localhost() {
            rules.push(on(Match::Destination(Is::Equal, address), Action::Return));
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
    ///
    /// With DNS capture, look-ups are left out of the first two: the proxy's own must not become incoming
    /// connections, and those of the workload are captured even when the name server is on localhost.
    fn guard_rules(&self) -> Vec<Rule> {
        let is_proxy = self.guard.matches(Is::Equal);
        let no_look_up = self.captures_dns().then_some(Match::TcpPort(Is::Not, DNS_PORT));
        let mut rules = Vec::new();
        for address in self.localhost() {
            for owner in &is_proxy {
                let mut matches = vec![loopback(), Match::Destination(Is::Not, address)];
                matches.extend(no_look_up.clone());
                matches.extend([Match::TcpPort(Is::Not, self.tunnel_port), owner.clone()]);
                rules.push(Rule { matches, action: Action::Jump(ChainName::InRedirect) });
            }
        }
        if !self.captures_loopback() {
            let mut matches = vec![loopback()];
            matches.extend(no_look_up);
            matches.extend(self.guard.matches(Is::Not));
            rules.push(Rule { matches, action: Action::Return });
        }
        rules.extend(is_proxy.into_iter().map(|owner| on(owner, Action::Return)));
        rules
    }

    /// Groups whose traffic is left out, or the only ones whose traffic is not.
    fn group_rules(&self) -> Vec<Rule> {
        let gids = |is, groups: &[u32]| groups.iter().map(|gid| Match::Gid(is, *gid)).collect::<Vec<_>>();
        match &self.groups {
            Groups::Except(groups) => {
                gids(Is::Equal, groups).into_iter().map(|owner| on(owner, Action::Return)).collect()
            }
            Groups::Only(groups) => vec![Rule { matches: gids(Is::Not, groups), action: Action::Return }],
        }
    }

    /// Whether loopback ranges are listed as captured, as when two workloads share one machine.
    fn captures_loopback(&self) -> bool {
        match &self.outbound_ranges {
            Select::All => false,
            Select::Only(ranges) => ranges.iter().any(Cidr::is_loopback),
        }
    }

    fn captures_dns(&self) -> bool {
        match &self.dns {
            Dns::Off => false,
            Dns::All => true,
            Dns::Servers(servers) => servers.iter().any(|server| self.speaks(*server)),
        }
    }

    fn localhost(&self) -> impl Iterator<Item = Cidr> {
        let ranges = [self.loopback, Cidr::host(IpAddr::V6(Ipv6Addr::LOCALHOST))];
        ranges.into_iter().filter(|range| self.speaks(range.addr()))
    }

    fn passthrough(&self) -> impl Iterator<Item = Cidr> {
        let addresses = [IpAddr::V4(PASSTHROUGH_V4), IpAddr::V6(PASSTHROUGH_V6)];
        addresses.into_iter().filter(|address| self.speaks(*address)).map(Cidr::host)
    }

    fn speaks(&self, address: IpAddr) -> bool {
        self.ipv6 || address.is_ipv4()
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

fn always(action: Action) -> Rule {
    Rule { matches: Vec::new(), action }
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
