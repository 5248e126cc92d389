//! Shows a rule set in the syntax that `nft -f` reads, for `--dry-run`, error messages and golden tests.

use std::fmt;

use super::cidr::Cidr;
use super::config::Interface;
use super::model::{Action, Base, Chain, ChainName, Is, Match, Rule, Ruleset, TABLE, Tracked};

impl fmt::Display for Ruleset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "table inet {TABLE} {{")?;
        for (index, chain) in self.chains.iter().enumerate() {
            if index > 0 {
                writeln!(f)?;
            }
            write!(f, "{chain}")?;
        }
        writeln!(f, "}}")
    }
}

impl fmt::Display for Chain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "\tchain {} {{", self.name)?;
        if let Some(Base { hook, kind, priority }) = self.name.base() {
            writeln!(f, "\t\ttype {} hook {} priority {priority}; policy accept;", kind.name(), hook.name())?;
        }
        for rule in &self.rules {
            writeln!(f, "\t\t{rule}")?;
        }
        writeln!(f, "\t}}")
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for condition in &self.matches {
            write!(f, "{condition} ")?;
        }
        if let Action::Tproxy { .. } = self.action {
            // The family must be said again beside a condition on an address.
            let range = self.matches.iter().find_map(|condition| match condition {
                Match::Destination(_, range) => Some(range),
                _ => None,
            });
            write!(f, "tproxy {}", range.map_or("", family))?;
            return write!(f, " {}", self.action);
        }
        write!(f, "{}", self.action)
    }
}

impl fmt::Display for Match {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ipv6 => write!(f, "meta nfproto ipv6"),
            Self::Tcp => write!(f, "meta l4proto tcp"),
            Self::UdpPort(port) => write!(f, "udp dport {port}"),
            Self::UdpSourcePort(port) => write!(f, "udp sport {port}"),
            Self::TcpPort(is, port) => write!(f, "tcp dport {is}{port}"),
            Self::Destination(is, range) => write!(f, "{} daddr {is}{range}", family(range)),
            Self::Source(range) => write!(f, "{} saddr {range}", family(range)),
            Self::InputInterface(name) => write!(f, "iifname {name}"),
            Self::OutputInterface(name) => write!(f, "oifname {name}"),
            Self::Uid(is, id) => write!(f, "meta skuid {is}{id}"),
            Self::Gid(is, id) => write!(f, "meta skgid {is}{id}"),
            Self::Mark(is, mark) => write!(f, "meta mark {is}{mark:#010x}"),
            Self::ConnectionMark(mark) => write!(f, "ct mark {mark:#010x}"),
            Self::Tracked(Tracked::Invalid) => write!(f, "ct state invalid"),
            Self::Tracked(Tracked::Known) => write!(f, "ct state established,related"),
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Return => write!(f, "return"),
            Self::Jump(chain) => write!(f, "jump {chain}"),
            Self::Redirect(port) => write!(f, "redirect to :{port}"),
            Self::Drop => write!(f, "drop"),
            Self::Zone(zone) => write!(f, "ct zone set {zone} accept"),
            Self::SetMark(mark) => write!(f, "meta mark set {mark:#010x}"),
            Self::MarkAccept(mark) => write!(f, "meta mark set {mark:#010x} accept"),
            Self::Tproxy { port, mark } => write!(f, "to :{port} meta mark set {mark:#010x} accept"),
            Self::SaveMark => write!(f, "ct mark set meta mark"),
            Self::RestoreMark => write!(f, "meta mark set ct mark"),
        }
    }
}

impl fmt::Display for Is {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Equal => Ok(()),
            Self::Not => write!(f, "!= "),
        }
    }
}

impl fmt::Display for Interface {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}{}\"", self.name, if self.prefix { "*" } else { "" })
    }
}

impl fmt::Display for ChainName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

fn family(range: &Cidr) -> &'static str {
    if range.addr().is_ipv4() { "ip" } else { "ip6" }
}
