use std::net::IpAddr;

use proptest::prelude::*;

use super::*;
use crate::capture::config::{InterfaceError, MAX_ENTRIES};

/// A connection as the rules see its first packet.
#[derive(Clone, Debug)]
struct Packet {
    /// Where the kernel meets it.
    hook: Hook,
    /// The interface it arrives on or leaves by.
    interface: String,
    udp: bool,
    source: IpAddr,
    destination: IpAddr,
    port: u16,
    uid: u32,
    gid: u32,
    mark: u32,
}

/// What becomes of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Untouched,
    Redirected(u16),
}

/// Evaluates the rules the way the kernel does.
fn fate(rules: &Ruleset, packet: &Packet) -> Fate {
    let base = match packet.hook {
        Hook::Prerouting => ChainName::HookPrerouting,
        Hook::Output => ChainName::HookOutput,
    };
    walk(rules, base, packet).map_or(Fate::Untouched, Fate::Redirected)
}

fn walk(rules: &Ruleset, name: ChainName, packet: &Packet) -> Option<u16> {
    let chain = rules.chains.iter().find(|chain| chain.name == name).unwrap();
    for rule in &chain.rules {
        if !rule.matches.iter().all(|condition| holds(condition, packet)) {
            continue;
        }
        match rule.action {
            Action::Return => return None,
            Action::Redirect(port) => return Some(port),
            Action::Jump(chain) => match walk(rules, chain, packet) {
                None => {}
                some => return some,
            },
        }
    }
    None
}

fn holds(condition: &Match, packet: &Packet) -> bool {
    let named = |interface: &Interface| {
        if interface.prefix {
            packet.interface.starts_with(&interface.name)
        } else {
            packet.interface == interface.name
        }
    };
    let is = |is: &Is, equal: bool| equal == (*is == Is::Equal);
    let output = packet.hook == Hook::Output;
    match condition {
        Match::Ipv6 => packet.destination.is_ipv6(),
        Match::Tcp => !packet.udp,
        Match::UdpPort(port) => packet.udp && packet.port == *port,
        Match::TcpPort(sign, port) => !packet.udp && is(sign, packet.port == *port),
        Match::Destination(sign, range) => {
            packet.destination.is_ipv4() == range.addr().is_ipv4() && is(sign, range.contains(packet.destination))
        }
        Match::Source(range) => range.contains(packet.source),
        Match::InputInterface(interface) => !output && named(interface),
        Match::OutputInterface(interface) => output && named(interface),
        // Without a sending socket there is no owner and the rule does not apply.
        Match::Uid(sign, uid) => output && is(sign, packet.uid == *uid),
        Match::Gid(sign, gid) => output && is(sign, packet.gid == *gid),
        Match::Mark(sign, mark) => is(sign, packet.mark == *mark),
    }
}

fn outgoing(destination: &str, port: u16) -> Packet {
    Packet {
        hook: Hook::Output,
        interface: "eth0".to_owned(),
        udp: false,
        source: "10.77.0.2".parse().unwrap(),
        destination: destination.parse().unwrap(),
        port,
        uid: 1000,
        gid: 1000,
        mark: 0,
    }
}

fn incoming(port: u16) -> Packet {
    Packet { hook: Hook::Prerouting, uid: 0, gid: 0, ..outgoing("10.77.0.2", port) }
}

fn over_loopback(packet: Packet) -> Packet {
    Packet { interface: "lo".to_owned(), ..packet }
}

#[track_caller]
fn check(config: &CaptureConfig, packet: &Packet, expect: Fate) {
    let rules = config.ruleset().unwrap();
    assert_eq!(fate(&rules, packet), expect, "{packet:?}\n{rules}");
}

const OUT: Fate = Fate::Redirected(15001);
const IN: Fate = Fate::Redirected(15006);

#[test]
fn everything_is_captured_by_default() {
    let config = CaptureConfig::default();
    check(&config, &outgoing("10.96.0.1", 80), OUT);
    check(&config, &outgoing("fd00::1", 443), OUT);
    check(&config, &incoming(8080), IN);
    for port in [15008, 15090, 15021, 15020] {
        check(&config, &incoming(port), Fate::Untouched);
    }
    check(&config, &Packet { udp: true, ..outgoing("10.96.0.10", 53) }, Fate::Untouched);
}

#[test]
fn every_way_of_being_the_proxy_is_let_out() {
    let guard = Guard { uids: vec![1337], gids: vec![1338], mark: Some(0x539) };
    let config = CaptureConfig { guard, ..CaptureConfig::default() };
    let app = outgoing("10.96.0.1", 80);
    for proxy in [
        Packet { uid: 1337, ..app.clone() },
        Packet { gid: 1338, ..app.clone() },
        Packet { mark: 0x539, ..app.clone() },
    ] {
        check(&config, &proxy, Fate::Untouched);
        // The proxy calls the address of its own workload: an incoming connection like any other.
        let own = over_loopback(Packet { destination: "10.77.0.2".parse().unwrap(), ..proxy.clone() });
        check(&config, &own, IN);
        check(&config, &Packet { port: 15008, ..own.clone() }, Fate::Untouched);
        // What it passes through to the workload comes from an address of its own and is the last hop.
        let passed = Packet { source: IpAddr::V4(PASSTHROUGH_V4), ..own };
        check(&config, &passed, Fate::Untouched);
        // The workload's port on localhost.
        let local = over_loopback(Packet { destination: "127.0.0.1".parse().unwrap(), ..proxy });
        check(&config, &local, Fate::Untouched);
    }
}

#[test]
fn the_workload_may_call_itself() {
    let config = CaptureConfig::default();
    check(&config, &over_loopback(outgoing("10.77.0.2", 80)), Fate::Untouched);
    check(&config, &over_loopback(outgoing("127.0.0.1", 80)), Fate::Untouched);
    check(&config, &over_loopback(outgoing("::1", 80)), Fate::Untouched);
}

#[test]
fn loopback_ranges_are_captured_when_listed() {
    let ranges = Select::Only(vec!["127.1.0.0/16".parse().unwrap()]);
    let config = CaptureConfig { outbound_ranges: ranges, ..CaptureConfig::default() };
    check(&config, &over_loopback(outgoing("127.1.0.5", 80)), OUT);
    check(&config, &over_loopback(outgoing("127.0.0.1", 80)), Fate::Untouched);
    check(&config, &over_loopback(Packet { uid: 1337, ..outgoing("127.1.0.5", 80) }), IN);
}

#[test]
fn lists_narrow_what_is_captured() {
    let config = CaptureConfig {
        inbound_ports: Select::Only(vec![80, 81]),
        exclude_inbound_ports: vec![81],
        outbound_ranges: Select::Only(vec!["10.0.0.0/8".parse().unwrap(), "fd00::/8".parse().unwrap()]),
        exclude_outbound_ranges: vec!["10.9.0.0/16".parse().unwrap()],
        outbound_ports: Select::Only(vec![9000]),
        exclude_outbound_ports: vec![22],
        exclude_interfaces: vec!["tun+".parse().unwrap()],
        ..CaptureConfig::default()
    };
    check(&config, &incoming(80), IN);
    check(&config, &incoming(81), Fate::Untouched);
    check(&config, &incoming(82), Fate::Untouched);
    check(&config, &outgoing("10.1.1.1", 80), OUT);
    check(&config, &outgoing("fd00::1", 80), OUT);
    check(&config, &outgoing("8.8.8.8", 80), Fate::Untouched);
    check(&config, &outgoing("8.8.8.8", 9000), OUT);
    check(&config, &outgoing("10.9.1.1", 9000), Fate::Untouched);
    check(&config, &outgoing("10.1.1.1", 22), Fate::Untouched);
    check(&config, &Packet { interface: "tun7".to_owned(), ..outgoing("10.1.1.1", 80) }, Fate::Untouched);
    check(&config, &Packet { interface: "tun7".to_owned(), ..incoming(80) }, Fate::Untouched);
}

#[test]
fn traffic_of_a_virtual_machine_counts_as_going_out() {
    let config = CaptureConfig { reroute_interfaces: vec!["tap0".parse().unwrap()], ..CaptureConfig::default() };
    let machine = Packet { interface: "tap0".to_owned(), ..incoming(80) };
    check(&config, &machine, OUT);
    check(&config, &Packet { udp: true, ..machine }, Fate::Untouched);
}

#[test]
fn without_ipv6_only_ipv4_is_captured() {
    let config = CaptureConfig { ipv6: false, ..CaptureConfig::default() };
    check(&config, &outgoing("fd00::1", 80), Fate::Untouched);
    check(&config, &outgoing("10.96.0.1", 80), OUT);
    assert!(!config.ruleset().unwrap().to_string().contains("ip6"));
}

#[test]
fn settings_that_would_loop_are_refused() {
    let guard = |guard| CaptureConfig { guard, ..CaptureConfig::default() }.ruleset().unwrap_err();
    assert_eq!(guard(Guard::default()), RulesError::NoGuard);
    assert_eq!(guard(Guard { mark: Some(0), ..Guard::default() }), RulesError::ZeroMark);
    let ports = CaptureConfig { inbound_port: 15001, ..CaptureConfig::default() };
    assert_eq!(
        ports.ruleset().unwrap_err().to_string(),
        "the proxy's ports must be different and not 0: outbound 15001, inbound 15001, tunnel 15008"
    );
    let many = CaptureConfig { exclude_outbound_ports: vec![1; MAX_ENTRIES], ..CaptureConfig::default() };
    assert!(matches!(many.ruleset(), Err(RulesError::TooMany { .. })));
}

#[test]
fn interface_names_are_checked() {
    for good in ["eth0", "veth+", "cni-podman0"] {
        good.parse::<Interface>().unwrap();
    }
    for bad in ["", "+", "a/b", "sixteen-bytes-xx", "with space", "e\"h"] {
        assert_eq!(bad.parse::<Interface>(), Err(InterfaceError(bad.to_owned())));
    }
}

#[test]
fn golden_default() {
    let rules = CaptureConfig::default().ruleset().unwrap().to_string();
    assert_eq!(rules, include_str!("default.nft"));
}

#[test]
fn golden_lists_and_mark() {
    let config = CaptureConfig {
        guard: Guard { uids: vec![1337, 2000], gids: Vec::new(), mark: Some(1337) },
        inbound_ports: Select::Only(vec![80, 443]),
        exclude_inbound_ports: Vec::new(),
        outbound_ranges: Select::Only(vec!["10.0.0.0/8".parse().unwrap(), "192.168.1.1".parse().unwrap()]),
        exclude_outbound_ranges: vec!["10.9.0.0/16".parse().unwrap()],
        outbound_ports: Select::Only(vec![9000]),
        exclude_outbound_ports: vec![22],
        exclude_interfaces: vec!["tun+".parse().unwrap()],
        reroute_interfaces: vec!["tap0".parse().unwrap()],
        ipv6: false,
        ..CaptureConfig::default()
    };
    assert_eq!(config.ruleset().unwrap().to_string(), include_str!("lists.nft"));
}

fn any_packet() -> impl Strategy<Value = Packet> {
    let address = prop_oneof![
        Just(IpAddr::from([127, 0, 0, 1])),
        Just(IpAddr::from([127, 0, 0, 6])),
        Just(IpAddr::from([10, 77, 0, 2])),
        any::<[u8; 4]>().prop_map(IpAddr::from),
        any::<[u8; 16]>().prop_map(IpAddr::from),
    ];
    let port = prop_oneof![prop::sample::select(vec![22, 80, 15001, 15006, 15008, 15090]), any::<u16>()];
    let id = prop::sample::select(vec![0, 1000, 1337]);
    let interface = prop::sample::select(vec!["lo", "eth0", "tun1"]);
    let hook = prop::sample::select(vec![Hook::Prerouting, Hook::Output]);
    (hook, interface, any::<bool>(), address.clone(), address, port, (id.clone(), id.clone(), id)).prop_map(
        |(hook, interface, udp, source, destination, port, (uid, gid, mark))| Packet {
            hook,
            interface: interface.to_owned(),
            udp,
            source,
            destination,
            port,
            uid,
            gid,
            mark,
        },
    )
}

proptest! {
    #[test]
    fn the_proxy_never_meets_its_own_outgoing_connection(
        packet in any_packet(), exclude in prop::collection::vec(any::<u16>(), 0..3), ipv6: bool,
    ) {
        let guard = Guard { uids: vec![1337], gids: vec![1337], mark: Some(1337) };
        let config = CaptureConfig { guard, exclude_outbound_ports: exclude, ipv6, ..CaptureConfig::default() };
        let proxy = packet.hook == Hook::Output && [packet.uid, packet.gid, packet.mark].contains(&1337);
        let fate = fate(&config.ruleset().unwrap(), &packet);
        prop_assert!(!proxy || fate != OUT, "{fate:?}");
        // Only TCP is captured, and nothing of IPv6 when that is off.
        let plain = packet.udp || (!ipv6 && packet.destination.is_ipv6());
        prop_assert!(!plain || fate == Fate::Untouched, "{fate:?}");
    }
}
