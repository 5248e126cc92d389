//! Rules that look at every packet: TPROXY mode, in which the proxy and the workload see the client's own address, and
//! dropping packets of no connection.
//!
//! In TPROXY mode a connection is not translated but given to the proxy's socket as it is, by mark and route. The
//! proxy's connection to the workload has the client's address and the same mark; the workload's answers carry the
//! connection's mark, by which they are routed back to the proxy instead of out of the machine.

use super::super::config::{CaptureConfig, Interface};
use super::super::model::{Action, ChainName, Is, Match, Rule, Tracked};
use super::{all, always, loopback, on};

/// Mark of connections from the proxy to its own workload that go through the inbound port again, as all incoming
/// ones do (Istio's `OutboundMark`).
const TO_SELF_MARK: u32 = 1338;

impl CaptureConfig {
    pub(super) fn mangle_prerouting(&self) -> Vec<Rule> {
        let mut rules = Vec::new();
        if self.drop_invalid {
            rules.push(on(Match::Tracked(Tracked::Invalid), Action::Drop));
        }
        if let Some(mark) = self.inbound_mark() {
            for interface in &self.reroute_interfaces {
                rules.push(on(Match::InputInterface(interface.clone()), Action::Return));
            }
            rules.push(on(Match::Tcp, Action::Jump(ChainName::InboundTproxy)));
            rules.push(all([Match::Tcp, Match::Mark(Is::Equal, mark)], Action::SaveMark));
        }
        self.after_both_hooks(rules, Match::InputInterface)
    }

    pub(super) fn mangle_output(&self) -> Vec<Rule> {
        let Some(mark) = self.inbound_mark() else { return Vec::new() };
        let mut rules = self.to_own_workload();
        for address in self.localhost() {
            for owner in self.guard.matches(Is::Equal) {
                let own_address = Match::Destination(Is::Not, address);
                rules.push(all([Match::Tcp, loopback(), own_address, owner], Action::SetMark(TO_SELF_MARK)));
            }
        }
        rules.push(all([Match::Tcp, Match::ConnectionMark(mark)], Action::RestoreMark));
        self.after_both_hooks(rules, Match::OutputInterface)
    }

    pub(super) fn inbound_unchanged(&self) -> Vec<Rule> {
        let Some(mark) = self.inbound_mark() else { return Vec::new() };
        let from_loopback = || Match::InputInterface(Interface { name: "lo".to_owned(), prefix: false });
        // From the proxy to the workload.
        let mut rules = vec![on(Match::Mark(Is::Equal, mark), Action::Return)];
        rules.extend(self.passthrough().map(|source| all([from_loopback(), Match::Source(source)], Action::Return)));
        // From the workload to itself.
        rules.push(all([from_loopback(), Match::Mark(Is::Not, TO_SELF_MARK)], Action::Return));
        rules.extend(self.inbound_left_out());
        for port in self.inbound_taken() {
            rules.push(all([port.clone(), Match::Tracked(Tracked::Known)], Action::Jump(ChainName::Divert)));
            rules.push(on(port, Action::Jump(ChainName::Tproxy)));
        }
        rules
    }

    pub(super) fn divert(&self) -> Vec<Rule> {
        self.inbound_mark().map(|mark| always(Action::MarkAccept(mark))).into_iter().collect()
    }

    pub(super) fn hand_over(&self) -> Vec<Rule> {
        let Some(mark) = self.inbound_mark() else { return Vec::new() };
        let give = Action::Tproxy { port: self.inbound_port, mark };
        self.localhost().map(|address| all([Match::Tcp, Match::Destination(Is::Not, address)], give)).collect()
    }

    /// What the proxy sends to its own workload in the name of a client, which would otherwise count as a call of the
    /// workload's own address and come back to the proxy.
    pub(super) fn to_own_workload(&self) -> Vec<Rule> {
        let rule = |mark| all([Match::Tcp, loopback(), Match::Mark(Is::Equal, mark)], Action::Return);
        self.inbound_mark().map(rule).into_iter().collect()
    }

    fn inbound_mark(&self) -> Option<u32> {
        self.tproxy.filter(|_| self.takes_inbound()).map(|tproxy| tproxy.mark)
    }

    fn after_both_hooks(&self, rules: Vec<Rule>, interface: impl Fn(Interface) -> Match) -> Vec<Rule> {
        if rules.is_empty() {
            return rules;
        }
        let mut before = self.both_hooks(interface);
        before.extend(rules);
        before
    }
}
