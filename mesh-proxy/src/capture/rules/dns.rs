//! Capture of DNS look-ups, which are UDP as well as TCP.

use super::super::config::{CaptureConfig, Dns};
use super::super::model::{Action, Is, Match, Rule};
use super::{DNS_PORT, all, on};
use crate::capture::cidr::Cidr;

/// Zone of the tracker for what passes between the proxy and name servers (Istio's numbers).
const ZONE_SERVERS: u16 = 1;
/// Zone for what passes between the workload and the proxy.
const ZONE_WORKLOAD: u16 = 2;

impl CaptureConfig {
    /// Look-ups go to the proxy's DNS port: all of them, or those that go to the listed servers.
    ///
    /// Only the servers of `resolv.conf` are listed, so that a resolver of the workload's own (dnsmasq) still reaches
    /// the servers behind it.
    pub(super) fn dns_redirects(&self) -> Vec<Rule> {
        let take = Action::Redirect(self.dns_port);
        let mut rules = Vec::new();
        for port in [Match::TcpPort(Is::Equal, DNS_PORT), Match::UdpPort(DNS_PORT)] {
            rules.extend(self.to_servers(port, take));
        }
        rules
    }

    /// Look-ups of the workload and of the proxy are tracked apart. Both may use one source port for one server, and
    /// the first is translated while the second is not: in one table the second to come would be dropped.
    pub(super) fn raw_output(&self) -> Vec<Rule> {
        if !self.captures_dns() {
            return Vec::new();
        }
        let mut rules = self.only_spoken();
        for owner in self.guard.matches(Is::Equal) {
            rules.push(all([Match::UdpPort(DNS_PORT), owner.clone()], Action::Zone(ZONE_SERVERS)));
            rules.push(all([Match::UdpSourcePort(self.dns_port), owner], Action::Zone(ZONE_WORKLOAD)));
        }
        rules.extend(self.to_servers(Match::UdpPort(DNS_PORT), Action::Zone(ZONE_WORKLOAD)));
        rules
    }

    /// Answers of name servers.
    pub(super) fn raw_prerouting(&self) -> Vec<Rule> {
        if !self.captures_dns() {
            return Vec::new();
        }
        let mut rules = self.only_spoken();
        let answer = Match::UdpSourcePort(DNS_PORT);
        let action = Action::Zone(ZONE_SERVERS);
        match &self.dns {
            Dns::Off => {}
            Dns::All => rules.push(on(answer, action)),
            Dns::Servers(_) => {
                rules.extend(self.servers().map(|server| all([Match::Source(server), answer.clone()], action)));
            }
        }
        rules
    }

    fn only_spoken(&self) -> Vec<Rule> {
        if self.ipv6 { Vec::new() } else { vec![on(Match::Ipv6, Action::Return)] }
    }

    fn to_servers(&self, port: Match, action: Action) -> Vec<Rule> {
        match &self.dns {
            Dns::Off => Vec::new(),
            Dns::All => vec![on(port, action)],
            Dns::Servers(_) => self
                .servers()
                .map(|server| all([Match::Destination(Is::Equal, server), port.clone()], action))
                .collect(),
        }
    }

    fn servers(&self) -> impl Iterator<Item = Cidr> {
        let servers = match &self.dns {
            Dns::Servers(servers) => servers.as_slice(),
            Dns::Off | Dns::All => &[],
        };
        servers.iter().filter(|server| self.speaks(**server)).map(|server| Cidr::host(*server))
    }
}
