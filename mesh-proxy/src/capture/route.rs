//! What capture needs besides rules: the address that passed-through IPv6 connections come from, and the route that
//! keeps packets for the proxy on this machine (TPROXY). Written over a netlink socket, as the rules are.

use super::config::{CaptureConfig, Tproxy};
use super::exec::{ANSWER_BYTES, ExecError, open, receive, refused, send};
use super::netlink::{Header, Reply, attr, message, replies};
use super::rules::PASSTHROUGH_V6;

/// Adds what is missing.
///
/// # Errors
/// See [`ExecError`].
pub(super) fn apply(config: &CaptureConfig) -> Result<(), ExecError> {
    let lo = loopback()?;
    if config.ipv6 {
        request(&Step::address(Verb::Add, lo), &[libc::EEXIST])?;
    }
    if let Some(tproxy) = config.tproxy {
        for family in families(config.ipv6) {
            request(&Step::rule(Verb::Add, family, tproxy), &[libc::EEXIST])?;
            request(&Step::route(Verb::Add, family, tproxy, lo), &[libc::EEXIST])?;
        }
    }
    Ok(())
}

/// Removes what is there.
///
/// # Errors
/// See [`ExecError`].
pub(super) fn remove(config: &CaptureConfig) -> Result<(), ExecError> {
    // Absent, or of an address family that this kernel does not have.
    let absent = [libc::ENOENT, libc::ESRCH, libc::EADDRNOTAVAIL, libc::EAFNOSUPPORT, libc::EOPNOTSUPP, libc::ENODEV];
    let lo = loopback()?;
    let tproxy = config.tproxy.unwrap_or(DEFAULT);
    request(&Step::address(Verb::Delete, lo), &absent)?;
    for family in families(true) {
        request(&Step::rule(Verb::Delete, family, tproxy), &absent)?;
        request(&Step::route(Verb::Delete, family, tproxy, lo), &absent)?;
    }
    Ok(())
}

/// Istio's numbers, for a removal that is told no others.
const DEFAULT: Tproxy = Tproxy { mark: 1337, table: 133 };

/// `NETLINK_ROUTE`.
const ROUTE: i32 = 0;
/// `NLM_F_REQUEST | NLM_F_ACK`.
const REQUEST: u16 = 0x5;
/// `NLM_F_CREATE | NLM_F_EXCL`.
const CREATE_NEW: u16 = 0x600;
/// `RT_SCOPE_HOST`.
const SCOPE_HOST: u8 = 254;

#[derive(Clone, Copy)]
enum Verb {
    Add,
    Delete,
}

/// One request, and what it does.
struct Step {
    what: String,
    bytes: Vec<u8>,
}

impl Step {
    /// `ip -6 addr add ::6/128 dev lo`. Without it the address cannot be a source: of IPv6, loopback is one address.
    fn address(verb: Verb, lo: u32) -> Self {
        // RTM_NEWADDR and RTM_DELADDR, linux/if_addr.h.
        Self::new(verb, 20, format!("address {PASSTHROUGH_V6} of lo"), |out| {
            // No duplicate address detection (IFA_F_NODAD): there is no one else on loopback.
            out.extend_from_slice(&[family_number(Family::V6), 128, 0x02, SCOPE_HOST]);
            out.extend_from_slice(&lo.to_ne_bytes());
            attr(out, 1, &PASSTHROUGH_V6.octets());
            attr(out, 2, &PASSTHROUGH_V6.octets());
        })
    }

    /// `ip rule add fwmark <mark> lookup <table>`.
    fn rule(verb: Verb, family: Family, tproxy: Tproxy) -> Self {
        let what = format!("rule fwmark {} lookup {} ({})", tproxy.mark, tproxy.table, family.name());
        // RTM_NEWRULE and RTM_DELRULE, linux/fib_rules.h; action FR_ACT_TO_TBL.
        Self::new(verb, 32, what, |out| {
            out.extend_from_slice(&[family_number(family), 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0]);
            attr(out, 10, &tproxy.mark.to_ne_bytes());
            attr(out, 15, &tproxy.table.to_ne_bytes());
        })
    }

    /// `ip route add local default dev lo table <table>`.
    fn route(verb: Verb, family: Family, tproxy: Tproxy, lo: u32) -> Self {
        let what = format!("local default route in table {} ({})", tproxy.table, family.name());
        // RTM_NEWROUTE and RTM_DELROUTE, linux/rtnetlink.h; RTPROT_STATIC, RTN_LOCAL.
        Self::new(verb, 24, what, |out| {
            out.extend_from_slice(&[family_number(family), 0, 0, 0, 0, 4, SCOPE_HOST, 2, 0, 0, 0, 0]);
            attr(out, 15, &tproxy.table.to_ne_bytes());
            attr(out, 4, &lo.to_ne_bytes());
        })
    }

    /// `kind` is the number of the adding message; the deleting one is the next.
    fn new(verb: Verb, kind: u16, what: String, body: impl FnOnce(&mut Vec<u8>)) -> Self {
        let (kind, flags, doing) = match verb {
            Verb::Add => (kind, REQUEST | CREATE_NEW, "add"),
            Verb::Delete => (kind + 1, REQUEST, "delete"),
        };
        let mut bytes = Vec::new();
        message(&mut bytes, Header { kind, flags, sequence: 1 }, body);
        Self { what: format!("{doing} {what}"), bytes }
    }
}

#[derive(Clone, Copy)]
enum Family {
    V4,
    V6,
}

impl Family {
    fn name(self) -> &'static str {
        match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        }
    }
}

/// `AF_INET` and `AF_INET6`.
fn family_number(family: Family) -> u8 {
    match family {
        Family::V4 => 2,
        Family::V6 => 10,
    }
}

fn families(ipv6: bool) -> impl Iterator<Item = Family> {
    std::iter::once(Family::V4).chain(ipv6.then_some(Family::V6))
}

fn loopback() -> Result<u32, ExecError> {
    nix::net::if_::if_nametoindex("lo")
        .map_err(|source| ExecError::Socket { doing: "find the interface lo", source: source.into() })
}

/// Carries out one step; an error in `fine` is none.
fn request(step: &Step, fine: &[i32]) -> Result<(), ExecError> {
    let mut socket = open(ROUTE)?;
    send(&socket, &step.bytes)?;
    let mut buffer = vec![0; ANSWER_BYTES];
    for reply in replies(receive(&mut socket, &mut buffer)?) {
        if let Reply::Result { errno, .. } = reply {
            return if errno == 0 || fine.contains(&errno) { Ok(()) } else { Err(refused(&step.what, errno)) };
        }
    }
    Err(ExecError::Endless)
}
