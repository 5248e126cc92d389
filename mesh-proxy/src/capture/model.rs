//! Capture rules as plain data: chains, rules, conditions and actions of one nftables table.
//!
//! [`super::rules`] makes them, [`super::encode`] turns them into kernel messages, [`super::render`] into text.

use super::cidr::Cidr;
use super::config::Interface;

/// Name of the one nftables table that capture owns. Everything in it is replaced and removed with it.
pub const TABLE: &str = "lateen-capture";

/// The rules to install: one table of the `inet` family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ruleset {
    /// Every chain that has rules, callees before callers.
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
    /// Decides about incoming connections that are redirected.
    Inbound,
    /// Hands look-ups of names to the proxy's DNS port.
    OutputDns,
    /// Decides about outgoing connections.
    Output,
    /// Leads packets of connections that the proxy has already to it (TPROXY mode).
    Divert,
    /// Hands a new connection to the proxy's inbound port with its addresses unchanged (TPROXY mode).
    Tproxy,
    /// Decides about incoming packets in TPROXY mode.
    InboundTproxy,
    /// Base chain that tells the connection tracker apart whose look-ups are answered (raw).
    RawPrerouting,
    /// The same for what is sent (raw).
    RawOutput,
    /// Base chain for packets that arrive, before addresses are translated (mangle).
    ManglePrerouting,
    /// Base chain for packets that a local process sends, before addresses are translated (mangle).
    MangleOutput,
    /// Base chain for what arrives from an interface.
    HookPrerouting,
    /// Base chain for what a local process opens.
    HookOutput,
}

/// Where and as what the kernel calls a base chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Base {
    /// The place.
    pub hook: Hook,
    /// What the chain may do.
    pub kind: Kind,
    /// Order among the chains of a place (linux/netfilter_ipv4.h).
    pub priority: i32,
}

/// Where the kernel calls a base chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// Before routing of what arrives.
    Prerouting,
    /// What a local process sends.
    Output,
}

/// What a base chain may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Translate addresses; sees the first packet of a connection.
    Nat,
    /// Look at every packet.
    Filter,
    /// As a filter; a packet whose mark changes is routed again.
    Route,
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

/// States of a connection that a rule asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tracked {
    /// The tracker cannot place the packet in any connection (`NF_CT_STATE_INVALID_BIT`).
    Invalid,
    /// The packet belongs to a known connection, or to one that a known connection announced.
    Known,
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
    /// It is UDP from this source port.
    UdpSourcePort(u16),
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
    /// The connection's mark is this one.
    ConnectionMark(u32),
    /// What the connection tracker says of the packet.
    Tracked(Tracked),
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
    /// Drop the packet.
    Drop,
    /// Track the connection in this zone, apart from equal ones in other zones; ends the evaluation of the base chain.
    Zone(u16),
    /// Mark the packet and go on.
    SetMark(u32),
    /// Mark the packet; ends the evaluation of the base chain.
    MarkAccept(u32),
    /// Mark the packet and give it to whoever listens on this port for any address; ends the evaluation of the base
    /// chain if there is such a listener.
    Tproxy {
        /// The port.
        port: u16,
        /// The mark, by which the packet is routed to this machine.
        mark: u32,
    },
    /// Make the packet's mark the connection's.
    SaveMark,
    /// Make the connection's mark the packet's.
    RestoreMark,
}

impl ChainName {
    /// The name in the kernel. Istio's names for its chains, in the spelling nftables likes.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Redirect => "istio-redirect",
            Self::InRedirect => "istio-in-redirect",
            Self::Inbound => "istio-inbound",
            Self::OutputDns => "istio-output-dns",
            Self::Output => "istio-output",
            Self::Divert => "istio-divert",
            Self::Tproxy => "istio-tproxy",
            Self::InboundTproxy => "istio-inbound-tproxy",
            Self::RawPrerouting => "raw-prerouting",
            Self::RawOutput => "raw-output",
            Self::ManglePrerouting => "mangle-prerouting",
            Self::MangleOutput => "mangle-output",
            Self::HookPrerouting => "hook-prerouting",
            Self::HookOutput => "hook-output",
        }
    }

    /// What a base chain is; `None` for a chain that is only jumped to.
    #[must_use]
    pub fn base(self) -> Option<Base> {
        let base = |hook, kind, priority| Some(Base { hook, kind, priority });
        match self {
            // NF_IP_PRI_RAW: before the connection tracker looks at the packet.
            Self::RawPrerouting => base(Hook::Prerouting, Kind::Filter, -300),
            Self::RawOutput => base(Hook::Output, Kind::Filter, -300),
            // NF_IP_PRI_MANGLE.
            Self::ManglePrerouting => base(Hook::Prerouting, Kind::Filter, -150),
            Self::MangleOutput => base(Hook::Output, Kind::Route, -150),
            // NF_IP_PRI_NAT_DST.
            Self::HookPrerouting => base(Hook::Prerouting, Kind::Nat, -100),
            Self::HookOutput => base(Hook::Output, Kind::Nat, -100),
            Self::Redirect
            | Self::InRedirect
            | Self::Inbound
            | Self::OutputDns
            | Self::Output
            | Self::Divert
            | Self::Tproxy
            | Self::InboundTproxy => None,
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

impl Kind {
    /// The name in the kernel and in nft's syntax.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Nat => "nat",
            Self::Filter => "filter",
            Self::Route => "route",
        }
    }
}
