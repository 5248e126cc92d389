//! Rules as nftables messages: each condition becomes "load a value into register 1, compare", each action a verdict
//! or a redirect (linux/netfilter/nf_tables.h). Numbers named here are the kernel's.

use super::cidr::Cidr;
use super::config::Interface;
use super::model::{Action, Base, Chain, ChainName, Hook, Is, Match, Rule, Ruleset, TABLE, Tracked};
use super::netlink::{Header, attr, attr_be32, attr_text, message, nested};

/// Family of the table: IPv4 and IPv6 in one (`NFPROTO_INET`).
const FAMILY_INET: u8 = 1;
/// `NFNL_SUBSYS_NFTABLES`, the high byte of every message type.
const SUBSYSTEM: u16 = 10;

const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
const NEW_TABLE: u16 = SUBSYSTEM << 8;
const GET_TABLE: u16 = SUBSYSTEM << 8 | 1;
const DEL_TABLE: u16 = SUBSYSTEM << 8 | 2;
const NEW_CHAIN: u16 = SUBSYSTEM << 8 | 3;
const NEW_RULE: u16 = SUBSYSTEM << 8 | 6;

const REQUEST: u16 = 0x1;
const ACK: u16 = 0x4;
const DUMP: u16 = 0x300;
const CREATE: u16 = 0x400;
const APPEND: u16 = 0x800;

/// `NFT_REG_1`: every condition uses this one register and leaves nothing in it for the next.
const REGISTER: u32 = 1;
/// `NFT_REG_VERDICT`.
const REGISTER_VERDICT: u32 = 0;

/// A batch that the kernel carries out wholly or not at all.
#[derive(Debug)]
pub(super) struct Batch {
    /// The messages.
    pub(super) bytes: Vec<u8>,
    /// What each message does, in order: the message with sequence number `FIRST + i` is `steps[i]`.
    pub(super) steps: Vec<String>,
}

/// Sequence number of a batch's opening message. The kernel answers with it when it refuses the batch as a whole.
pub(super) const FIRST: u32 = 1;

impl Batch {
    fn begin() -> Self {
        let mut batch = Self { bytes: Vec::new(), steps: Vec::new() };
        batch.push("open a batch".to_owned(), BATCH_BEGIN, 0, batch_mark);
        batch
    }

    /// Ends the batch. Errors are reported for every message, a success only for the last one, so that a long batch
    /// does not overflow the socket with acknowledgements.
    fn end(mut self, last: (String, u16, impl FnOnce(&mut Vec<u8>))) -> Self {
        self.push(last.0, last.1, ACK, last.2);
        self.push("close the batch".to_owned(), BATCH_END, 0, batch_mark);
        self
    }

    fn push(&mut self, step: String, kind: u16, flags: u16, body: impl FnOnce(&mut Vec<u8>)) {
        let sequence = FIRST + u32::try_from(self.steps.len()).unwrap_or(u32::MAX - FIRST);
        message(&mut self.bytes, Header { kind, flags: flags | REQUEST, sequence }, body);
        self.steps.push(step);
    }

    /// The sequence number of the message that is acknowledged: the one before the closing mark.
    pub(super) fn acknowledged(&self) -> u32 {
        FIRST + u32::try_from(self.steps.len().saturating_sub(2)).unwrap_or(u32::MAX - FIRST)
    }

    /// What the message with this sequence number does.
    pub(super) fn step(&self, sequence: u32) -> Option<&str> {
        let index = usize::try_from(sequence.checked_sub(FIRST)?).ok()?;
        self.steps.get(index).map(String::as_str)
    }
}

/// The batch that puts `rules` in place of whatever the table holds now.
pub(super) fn replace(rules: &Ruleset) -> Batch {
    let mut batch = Batch::begin();
    // Deleting a table that is not there is an error, so it is made first: create, delete, create is one replacement.
    batch.push(format!("make sure table {TABLE} exists"), NEW_TABLE, CREATE, table);
    batch.push(format!("delete table {TABLE}"), DEL_TABLE, 0, table);
    batch.push(format!("create table {TABLE}"), NEW_TABLE, CREATE, table);
    for chain in &rules.chains {
        batch.push(format!("create chain {}", chain.name), NEW_CHAIN, CREATE, |out| new_chain(out, chain));
    }
    for chain in &rules.chains {
        for rule in &chain.rules {
            let step = format!("add to chain {}: {rule}", chain.name);
            batch.push(step, NEW_RULE, CREATE | APPEND, |out| new_rule(out, chain.name, rule));
        }
    }
    // Writing the table once more changes nothing and is the message that is acknowledged.
    batch.end((format!("commit table {TABLE}"), NEW_TABLE, table))
}

/// The batch that removes the table and everything in it. The kernel answers `ENOENT` when there is none.
pub(super) fn remove() -> Batch {
    Batch::begin().end((format!("delete table {TABLE}"), DEL_TABLE, table))
}

/// A request for the names of all tables.
pub(super) fn list_tables() -> Vec<u8> {
    let mut bytes = Vec::new();
    let header = Header { kind: GET_TABLE, flags: REQUEST | DUMP, sequence: FIRST };
    message(&mut bytes, header, |out| family_header(out, 0, 0));
    bytes
}

/// The name in an answer to [`list_tables`].
pub(super) fn table_name(kind: u16, body: &[u8]) -> Option<String> {
    if kind != NEW_TABLE {
        return None;
    }
    // `struct nfgenmsg` precedes the attributes; attribute 1 is the name.
    let (_, name) = super::netlink::attrs(body.get(4..)?).find(|(kind, _)| *kind == 1)?;
    let name = name.strip_suffix(b"\0").unwrap_or(name);
    Some(String::from_utf8_lossy(name).into_owned())
}

/// `struct nfgenmsg`.
fn family_header(out: &mut Vec<u8>, family: u8, resource: u16) {
    out.extend_from_slice(&[family, 0]);
    out.extend_from_slice(&resource.to_be_bytes());
}

fn batch_mark(out: &mut Vec<u8>) {
    family_header(out, 0, SUBSYSTEM);
}

fn table(out: &mut Vec<u8>) {
    family_header(out, FAMILY_INET, 0);
    attr_text(out, 1, TABLE);
}

fn new_chain(out: &mut Vec<u8>, chain: &Chain) {
    family_header(out, FAMILY_INET, 0);
    attr_text(out, 1, TABLE);
    attr_text(out, 3, chain.name.as_str());
    let Some(Base { hook, kind, priority }) = chain.name.base() else { return };
    nested(out, 4, |out| {
        attr_be32(out, 1, hook_number(hook));
        attr(out, 2, &priority.to_be_bytes());
    });
    // Policy NF_ACCEPT.
    attr_be32(out, 5, 1);
    attr_text(out, 7, kind.name());
}

fn hook_number(hook: Hook) -> u32 {
    match hook {
        Hook::Prerouting => 0,
        Hook::Output => 3,
    }
}

fn new_rule(out: &mut Vec<u8>, chain: ChainName, rule: &Rule) {
    family_header(out, FAMILY_INET, 0);
    attr_text(out, 1, TABLE);
    attr_text(out, 2, chain.as_str());
    nested(out, 4, |out| {
        for condition in &rule.matches {
            encode_match(out, condition);
        }
        encode_action(out, rule.action);
    });
}

fn encode_match(out: &mut Vec<u8>, condition: &Match) {
    match condition {
        Match::Ipv6 => protocol_family(out, Family::V6),
        Match::Tcp => transport(out, 6),
        Match::UdpPort(port) => {
            transport(out, 17);
            destination_port(out, Is::Equal, *port);
        }
        Match::UdpSourcePort(port) => {
            transport(out, 17);
            payload(out, 2, 0, 2);
            compare(out, Is::Equal, &port.to_be_bytes());
        }
        Match::TcpPort(is, port) => {
            transport(out, 6);
            destination_port(out, *is, *port);
        }
        Match::Destination(is, range) => address(out, Side::Destination, *is, *range),
        Match::Source(range) => address(out, Side::Source, Is::Equal, *range),
        Match::InputInterface(name) => interface(out, META_IIFNAME, name),
        Match::OutputInterface(name) => interface(out, META_OIFNAME, name),
        Match::Uid(is, id) => meta_number(out, META_SKUID, *is, *id),
        Match::Gid(is, id) => meta_number(out, META_SKGID, *is, *id),
        Match::Mark(is, mark) => meta_number(out, META_MARK, *is, *mark),
        Match::ConnectionMark(mark) => {
            track(out, TRACK_MARK);
            compare(out, Is::Equal, &mark.to_ne_bytes());
        }
        Match::Tracked(state) => {
            track(out, TRACK_STATE);
            let bits = match state {
                Tracked::Invalid => STATE_INVALID,
                Tracked::Known => STATE_ESTABLISHED | STATE_RELATED,
            };
            // Any of the bits: what is left of the others is not zero.
            mask(out, 4, &u32::to_ne_bytes(bits));
            compare(out, Is::Not, &[0; 4]);
        }
    }
}

/// `NFT_CT_STATE`, `NFT_CT_MARK`, `NFT_CT_ZONE`.
const TRACK_STATE: u32 = 0;
const TRACK_MARK: u32 = 3;
const TRACK_ZONE: u32 = 17;
/// `NF_CT_STATE_INVALID_BIT`, and `NF_CT_STATE_BIT` of `IP_CT_ESTABLISHED` and `IP_CT_RELATED`
/// (linux/netfilter/nf_conntrack_common.h).
const STATE_INVALID: u32 = 1;
const STATE_ESTABLISHED: u32 = 2;
const STATE_RELATED: u32 = 4;

const META_MARK: u32 = 3;
const META_IIFNAME: u32 = 6;
const META_OIFNAME: u32 = 7;
const META_SKUID: u32 = 10;
const META_SKGID: u32 = 11;
const META_NFPROTO: u32 = 15;
const META_L4PROTO: u32 = 16;

#[derive(Clone, Copy)]
enum Family {
    V4,
    V6,
}

#[derive(Clone, Copy)]
enum Side {
    Source,
    Destination,
}

fn protocol_family(out: &mut Vec<u8>, family: Family) {
    meta(out, META_NFPROTO);
    compare(
        out,
        Is::Equal,
        &[match family {
            Family::V4 => 2,
            Family::V6 => 10,
        }],
    );
}

fn transport(out: &mut Vec<u8>, protocol: u8) {
    meta(out, META_L4PROTO);
    compare(out, Is::Equal, &[protocol]);
}

fn destination_port(out: &mut Vec<u8>, is: Is, port: u16) {
    // Base 2 is the transport header; both TCP and UDP have the destination port at offset 2.
    payload(out, 2, 2, 2);
    compare(out, is, &port.to_be_bytes());
}

fn address(out: &mut Vec<u8>, side: Side, is: Is, range: Cidr) {
    let (family, bytes, offset) = match (range.addr(), side) {
        (std::net::IpAddr::V4(addr), side) => {
            let offset = if matches!(side, Side::Source) { 12 } else { 16 };
            (Family::V4, addr.octets().to_vec(), offset)
        }
        (std::net::IpAddr::V6(addr), side) => {
            let offset = if matches!(side, Side::Source) { 8 } else { 24 };
            (Family::V6, addr.octets().to_vec(), offset)
        }
    };
    let length = if bytes.len() == 4 { 4 } else { 16 };
    protocol_family(out, family);
    // Base 1 is the network header.
    payload(out, 1, offset, length);
    if !range.is_host() {
        mask(out, length, &range.mask());
    }
    compare(out, is, &bytes);
}

fn interface(out: &mut Vec<u8>, key: u32, name: &Interface) {
    meta(out, key);
    // A name is compared in its whole 16 bytes; a shorter comparison asks only for the beginning.
    let mut bytes = name.name.as_bytes().to_vec();
    if !name.prefix {
        bytes.resize(16, 0);
    }
    compare(out, Is::Equal, &bytes);
}

fn meta_number(out: &mut Vec<u8>, key: u32, is: Is, value: u32) {
    meta(out, key);
    compare(out, is, &value.to_ne_bytes());
}

/// One expression of a rule: its name and its attributes.
fn expression(out: &mut Vec<u8>, name: &str, body: impl FnOnce(&mut Vec<u8>)) {
    nested(out, 1, |out| {
        attr_text(out, 1, name);
        nested(out, 2, body);
    });
}

fn meta(out: &mut Vec<u8>, key: u32) {
    expression(out, "meta", |out| {
        attr_be32(out, 1, REGISTER);
        attr_be32(out, 2, key);
    });
}

fn payload(out: &mut Vec<u8>, base: u32, offset: u32, length: u32) {
    expression(out, "payload", |out| {
        attr_be32(out, 1, REGISTER);
        attr_be32(out, 2, base);
        attr_be32(out, 3, offset);
        attr_be32(out, 4, length);
    });
}

/// Loads what the connection tracker knows.
fn track(out: &mut Vec<u8>, key: u32) {
    expression(out, "ct", |out| {
        attr_be32(out, 1, REGISTER);
        attr_be32(out, 2, key);
    });
}

/// Stores the register with the connection tracker.
fn set_track(out: &mut Vec<u8>, key: u32) {
    expression(out, "ct", |out| {
        attr_be32(out, 2, key);
        attr_be32(out, 4, REGISTER);
    });
}

/// Stores the register with the packet.
fn set_meta(out: &mut Vec<u8>, key: u32) {
    expression(out, "meta", |out| {
        attr_be32(out, 2, key);
        attr_be32(out, 3, REGISTER);
    });
}

/// Loads a constant.
fn immediate(out: &mut Vec<u8>, value: &[u8]) {
    expression(out, "immediate", |out| {
        attr_be32(out, 1, REGISTER);
        nested(out, 2, |out| attr(out, 1, value));
    });
}

fn set_mark(out: &mut Vec<u8>, mark: u32) {
    immediate(out, &mark.to_ne_bytes());
    set_meta(out, META_MARK);
}

fn mask(out: &mut Vec<u8>, length: u32, bits: &[u8]) {
    expression(out, "bitwise", |out| {
        attr_be32(out, 1, REGISTER);
        attr_be32(out, 2, REGISTER);
        attr_be32(out, 3, length);
        nested(out, 4, |out| attr(out, 1, bits));
        nested(out, 5, |out| attr(out, 1, &vec![0; bits.len()]));
    });
}

fn compare(out: &mut Vec<u8>, is: Is, value: &[u8]) {
    expression(out, "cmp", |out| {
        attr_be32(out, 1, REGISTER);
        attr_be32(
            out,
            2,
            match is {
                Is::Equal => 0,
                Is::Not => 1,
            },
        );
        nested(out, 3, |out| attr(out, 1, value));
    });
}

fn encode_action(out: &mut Vec<u8>, action: Action) {
    match action {
        Action::Return => verdict(out, RETURN, None),
        Action::Jump(chain) => verdict(out, JUMP, Some(chain)),
        Action::Drop => verdict(out, DROP, None),
        Action::Redirect(port) => {
            immediate(out, &port.to_be_bytes());
            expression(out, "redir", |out| {
                attr_be32(out, 1, REGISTER);
                attr_be32(out, 2, REGISTER);
                // NF_NAT_RANGE_PROTO_SPECIFIED: the register holds a port.
                attr_be32(out, 3, 2);
            });
        }
        Action::Zone(zone) => {
            immediate(out, &zone.to_ne_bytes());
            set_track(out, TRACK_ZONE);
            verdict(out, ACCEPT, None);
        }
        Action::SetMark(mark) => set_mark(out, mark),
        Action::MarkAccept(mark) => {
            set_mark(out, mark);
            verdict(out, ACCEPT, None);
        }
        Action::Tproxy { port, mark } => {
            immediate(out, &port.to_be_bytes());
            expression(out, "tproxy", |out| {
                // NFPROTO_UNSPEC: the family of the packet.
                attr_be32(out, 1, 0);
                attr_be32(out, 3, REGISTER);
            });
            set_mark(out, mark);
            verdict(out, ACCEPT, None);
        }
        Action::SaveMark => {
            meta(out, META_MARK);
            set_track(out, TRACK_MARK);
        }
        Action::RestoreMark => {
            track(out, TRACK_MARK);
            set_meta(out, META_MARK);
        }
    }
}

/// `NF_DROP`, `NF_ACCEPT`, `NFT_RETURN`, `NFT_JUMP`.
const DROP: i32 = 0;
const ACCEPT: i32 = 1;
const RETURN: i32 = -5;
const JUMP: i32 = -3;

fn verdict(out: &mut Vec<u8>, code: i32, chain: Option<ChainName>) {
    expression(out, "immediate", |out| {
        attr_be32(out, 1, REGISTER_VERDICT);
        nested(out, 2, |out| {
            nested(out, 2, |out| {
                attr(out, 1, &code.to_be_bytes());
                if let Some(chain) = chain {
                    attr_text(out, 2, chain.as_str());
                }
            });
        });
    });
}
