use std::net::IpAddr;

use proptest::prelude::*;

use super::*;
use crate::capture::config::{InterfaceError, MAX_ENTRIES, Tproxy};
use crate::capture::model::{Hook, Tracked};

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
    source_port: u16,
    uid: u32,
    gid: u32,
    mark: u32,
    /// The connection's mark.
    connection: u32,
    tracked: Option<Tracked>,
}

/// What becomes of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Untouched,
    Redirected(u16),
}

/// What one base chain does to a packet, besides leaving it alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Effect {
    Redirected(u16),
    Dropped,
    Zone(u16),
    /// Given to a socket, with a mark.
    Given(u16, u32),
    /// Routed by its mark.
    Marked(u32),
    Saved,
    Restored,
    /// Left a chain that was jumped to.
    Returned,
}

/// Evaluates the translating rules the way the kernel does.
fn fate(rules: &Ruleset, packet: &Packet) -> Fate {
    let base = match packet.hook {
        Hook::Prerouting => ChainName::HookPrerouting,
        Hook::Output => ChainName::HookOutput,
    };
    match walk(rules, base, packet).last() {
        Some(Effect::Redirected(port)) => Fate::Redirected(*port),
        _ => Fate::Untouched,
    }
}

/// What a chain does, in order. An effect that ends the evaluation is the last.
fn walk(rules: &Ruleset, name: ChainName, packet: &Packet) -> Vec<Effect> {
    let mut effects = Vec::new();
    let Some(chain) = rules.chains.iter().find(|chain| chain.name == name) else { return effects };
    for rule in &chain.rules {
        if !rule.matches.iter().all(|condition| holds(condition, packet)) {
            continue;
        }
        match rule.action {
            Action::Return => {
                effects.push(Effect::Returned);
                return effects;
            }
            Action::Jump(chain) => {
                let mut inner = walk(rules, chain, packet);
                inner.retain(|effect| *effect != Effect::Returned);
                let ends = inner.last().is_some_and(|effect| !matches!(effect, Effect::Saved | Effect::Restored));
                effects.extend(inner);
                if ends {
                    return effects;
                }
            }
            Action::SetMark(mark) => effects.push(Effect::Marked(mark)),
            Action::SaveMark => effects.push(Effect::Saved),
            Action::RestoreMark => effects.push(Effect::Restored),
            action => {
                effects.push(match action {
                    Action::Redirect(port) => Effect::Redirected(port),
                    Action::Drop => Effect::Dropped,
                    Action::Zone(zone) => Effect::Zone(zone),
                    Action::Tproxy { port, mark } => Effect::Given(port, mark),
                    Action::MarkAccept(mark) => Effect::Marked(mark),
                    _ => unreachable!("{action:?} ends nothing"),
                });
                return effects;
            }
        }
    }
    effects
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
        Match::UdpSourcePort(port) => packet.udp && packet.source_port == *port,
        Match::ConnectionMark(mark) => packet.connection == *mark,
        Match::Tracked(tracked) => packet.tracked == Some(*tracked),
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
        source_port: 40_000,
        uid: 1000,
        gid: 1000,
        mark: 0,
        connection: 0,
        tracked: None,
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
fn look_ups_of_the_workload_are_captured_and_those_of_the_proxy_are_not() {
    let server: IpAddr = "10.96.0.10".parse().unwrap();
    let config = CaptureConfig { dns: Dns::Servers(vec![server]), ..CaptureConfig::default() };
    let rules = config.ruleset().unwrap();
    let dns = Fate::Redirected(15053);
    for udp in [false, true] {
        let look_up = Packet { udp, ..outgoing("10.96.0.10", 53) };
        check(&config, &look_up, dns);
        check(&config, &Packet { uid: 1337, ..look_up.clone() }, Fate::Untouched);
        // A server that resolv.conf does not name: a resolver's own business if it is UDP, else traffic like any other.
        let other = Packet { destination: "8.8.8.8".parse().unwrap(), ..look_up };
        check(&config, &other, if udp { Fate::Untouched } else { OUT });
        check(&CaptureConfig { dns: Dns::All, ..config.clone() }, &other, dns);
    }
    let zone = |packet: &Packet| walk(&rules, ChainName::RawOutput, packet);
    let look_up = Packet { udp: true, ..outgoing("10.96.0.10", 53) };
    assert_eq!(zone(&look_up), [Effect::Zone(2)]);
    assert_eq!(zone(&Packet { uid: 1337, ..look_up.clone() }), [Effect::Zone(1)]);
    let answer = Packet { source_port: 15053, port: 40_000, uid: 1337, ..look_up.clone() };
    assert_eq!(zone(&answer), [Effect::Zone(2)]);
    let from_server = Packet { udp: true, source: server, source_port: 53, ..incoming(40_000) };
    assert_eq!(walk(&rules, ChainName::RawPrerouting, &from_server), [Effect::Zone(1)]);
}

#[test]
fn a_name_server_on_localhost_is_captured_too() {
    let server: IpAddr = "127.0.0.53".parse().unwrap();
    let config = CaptureConfig { dns: Dns::Servers(vec![server]), ..CaptureConfig::default() };
    for udp in [false, true] {
        check(&config, &over_loopback(Packet { udp, ..outgoing("127.0.0.53", 53) }), Fate::Redirected(15053));
        let own = over_loopback(Packet { udp, uid: 1337, ..outgoing("127.0.0.53", 53) });
        check(&config, &own, Fate::Untouched);
    }
    check(&config, &over_loopback(outgoing("127.0.0.53", 80)), Fate::Untouched);
}

#[test]
fn groups_choose_whose_traffic_is_captured() {
    let of = |gid| Packet { gid, ..outgoing("10.96.0.1", 80) };
    let except = CaptureConfig { groups: Groups::Except(vec![50, 51]), ..CaptureConfig::default() };
    check(&except, &of(50), Fate::Untouched);
    check(&except, &of(52), OUT);
    let only = CaptureConfig { groups: Groups::Only(vec![50, 51]), ..CaptureConfig::default() };
    check(&only, &of(51), OUT);
    check(&only, &of(52), Fate::Untouched);
}

#[test]
fn a_wider_localhost_is_left_alone() {
    let config = CaptureConfig {
        loopback: "127.1.0.0/16".parse().unwrap(),
        outbound_ranges: Select::Only(vec!["127.0.0.0/8".parse().unwrap()]),
        ..CaptureConfig::default()
    };
    check(&config, &over_loopback(outgoing("127.1.0.5", 80)), Fate::Untouched);
    check(&config, &over_loopback(outgoing("127.2.0.5", 80)), OUT);
    let wrong = CaptureConfig { loopback: "10.0.0.0/8".parse().unwrap(), ..CaptureConfig::default() };
    assert!(matches!(wrong.ruleset(), Err(RulesError::Loopback(_))));
}

#[test]
fn packets_of_no_connection_are_dropped_when_asked() {
    let config = CaptureConfig { drop_invalid: true, ..CaptureConfig::default() };
    let walk =
        |tracked| walk(&config.ruleset().unwrap(), ChainName::ManglePrerouting, &Packet { tracked, ..incoming(80) });
    assert_eq!(walk(Some(Tracked::Invalid)), [Effect::Dropped]);
    assert_eq!(walk(Some(Tracked::Known)), []);
}

fn tproxy() -> CaptureConfig {
    CaptureConfig { tproxy: Some(Tproxy { mark: 1337, table: 133 }), ..CaptureConfig::default() }
}

#[test]
fn tproxy_gives_incoming_connections_to_the_proxy_unchanged() {
    let rules = tproxy().ruleset().unwrap();
    let arrives = |packet: &Packet| walk(&rules, ChainName::ManglePrerouting, packet);
    assert_eq!(arrives(&incoming(8080)), [Effect::Given(15006, 1337)]);
    assert_eq!(arrives(&Packet { tracked: Some(Tracked::Known), ..incoming(8080) }), [Effect::Marked(1337)]);
    assert_eq!(arrives(&incoming(15021)), []);
    assert_eq!(arrives(&incoming(15008)), []);
    check(&tproxy(), &incoming(8080), Fate::Untouched);
    check(&tproxy(), &outgoing("10.96.0.1", 80), OUT);
    // The proxy to the workload, in the name of the client: its mark becomes the connection's.
    let client: IpAddr = "10.77.0.9".parse().unwrap();
    let onward = over_loopback(Packet { source: client, mark: 1337, uid: 1337, ..outgoing("10.77.0.2", 8080) });
    check(&tproxy(), &onward, Fate::Untouched);
    assert_eq!(walk(&rules, ChainName::MangleOutput, &onward), [Effect::Returned]);
    assert_eq!(arrives(&Packet { hook: Hook::Prerouting, ..onward }), [Effect::Saved]);
    // The workload's answer goes back to the proxy.
    let answer = Packet { connection: 1337, destination: client, ..outgoing("10.77.0.9", 40_000) };
    assert_eq!(walk(&rules, ChainName::MangleOutput, &answer), [Effect::Restored]);
    // The workload calls itself.
    let own = over_loopback(Packet { hook: Hook::Prerouting, ..outgoing("10.77.0.2", 8080) });
    assert_eq!(arrives(&own), []);
}

#[test]
fn tproxy_is_refused_with_marks_that_would_mix() {
    let with = |guard, mark, table| CaptureConfig { guard, tproxy: Some(Tproxy { mark, table }), ..tproxy() }.ruleset();
    let user = Guard { uids: vec![1337], ..Guard::default() };
    assert!(with(user.clone(), 1337, 133).is_ok());
    for (mark, table) in [(0, 133), (1338, 133), (1337, 0)] {
        assert_eq!(with(user.clone(), mark, table), Err(RulesError::TproxyMark));
    }
    assert_eq!(with(Guard { mark: Some(5), ..user }, 1337, 133), Err(RulesError::TproxyMark));
}

/// Compares with a file, or writes it when `UPDATE_GOLDEN` is set.
#[track_caller]
fn golden(name: &str, config: &CaptureConfig) {
    let rules = config.ruleset().unwrap().to_string();
    let path = format!("{}/src/capture/rules/{name}.nft", env!("CARGO_MANIFEST_DIR"));
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, &rules).unwrap();
    }
    assert_eq!(rules, std::fs::read_to_string(&path).unwrap_or_default(), "{path}");
}

#[test]
fn goldens_of_each_option() {
    let base = CaptureConfig::default;
    let ipv4 = || CaptureConfig { ipv6: false, ..base() };
    let servers: Vec<IpAddr> = vec!["10.96.0.10".parse().unwrap(), "fd00::10".parse().unwrap()];
    golden("dns", &CaptureConfig { dns: Dns::Servers(servers.clone()), ..base() });
    golden("dns-ipv4", &CaptureConfig { dns: Dns::Servers(servers), ..ipv4() });
    golden("dns-all", &CaptureConfig { dns: Dns::All, ..ipv4() });
    golden("groups", &CaptureConfig { groups: Groups::Only(vec![50, 51]), ..ipv4() });
    golden("groups-exclude", &CaptureConfig { groups: Groups::Except(vec![50, 51]), ..ipv4() });
    golden("drop-invalid", &CaptureConfig { drop_invalid: true, ..ipv4() });
    golden("localhost", &CaptureConfig { loopback: "127.1.0.0/16".parse().unwrap(), ..ipv4() });
    golden("tproxy", &tproxy());
    golden(
        "tproxy-ports",
        &CaptureConfig {
            inbound_ports: Select::Only(vec![80, 443]),
            exclude_interfaces: vec!["eth1".parse().unwrap()],
            reroute_interfaces: vec!["tap0".parse().unwrap()],
            drop_invalid: true,
            ipv6: false,
            ..tproxy()
        },
    );
    golden(
        "nothing",
        &CaptureConfig { inbound_ports: Select::Only(Vec::new()), outbound_ranges: Select::Only(Vec::new()), ..ipv4() },
    );
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
            source_port: 40_000,
            uid,
            gid,
            mark,
            connection: 0,
            tracked: None,
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
