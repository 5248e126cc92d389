//! What the rules of `mesh-proxy init` do to connections.

use std::net::{SocketAddr, TcpListener};

use clap::Parser;
use mesh_proxy::capture::config::MAX_ENTRIES;
use mesh_proxy::capture::exec::{self, ExecError};
use mesh_proxy::capture::{self, CaptureError, InitArgs, Outcome};
use mesh_proxy::net::orig_dst::original_dst;

use crate::world::{self, ELSEWHERE, ELSEWHERE_V6, NEIGHBOUR, Neighbour, OWN};

#[derive(Parser)]
struct Init {
    #[command(flatten)]
    args: InitArgs,
}

fn try_init(flags: &[&str]) -> Result<Outcome, CaptureError> {
    let init = Init::try_parse_from(["init"].iter().chain(flags)).expect("good flags");
    capture::run(&init.args)
}

/// Runs `mesh-proxy init` with the guard that a rootless proxy has.
fn init(flags: &[&str]) -> Outcome {
    let guard = ["-u", "", "--proxy-mark", "1337"];
    try_init(&[&guard, flags].concat()).expect("capture rules are written")
}

/// Accepts one connection and returns its peer and original destination.
fn accept(listener: &TcpListener) -> (SocketAddr, Option<SocketAddr>) {
    let (stream, peer) = listener.accept().expect("a connection arrives");
    (peer, original_dst(&stream).expect("the kernel knows the destination"))
}

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

pub fn outgoing_connections_reach_the_proxy() {
    world::workload();
    let proxy = world::listen("0.0.0.0:15001");
    assert!(matches!(init(&[]), Outcome::Applied { ipv6: true, .. }));
    let client = world::connect(&format!("{ELSEWHERE}:80"));
    assert_eq!(accept(&proxy), (client.local_addr().unwrap(), Some(address(&format!("{ELSEWHERE}:80")))));
    // Who calls the proxy's port itself has no other destination, so nothing could be forwarded in a circle.
    let _direct = world::connect("127.0.0.1:15001");
    assert_eq!(accept(&proxy).1, None);
}

pub fn outgoing_ipv6_connections_reach_the_proxy() {
    world::workload();
    let proxy = world::listen("[::]:15001");
    init(&[]);
    let client = world::connect(&format!("[{ELSEWHERE_V6}]:80"));
    assert_eq!(accept(&proxy), (client.local_addr().unwrap(), Some(address(&format!("[{ELSEWHERE_V6}]:80")))));
    // The same socket takes IPv4; its addresses come in IPv6 clothing.
    let _client = world::connect(&format!("{ELSEWHERE}:81"));
    assert_eq!(accept(&proxy).1, Some(address(&format!("{ELSEWHERE}:81"))));
}

pub fn incoming_connections_reach_the_proxy() {
    let neighbour = Neighbour::beside_workload();
    let proxy = world::listen("0.0.0.0:15006");
    let readiness = world::listen(&format!("{OWN}:15021"));
    assert!(matches!(init(&[]), Outcome::Applied { ipv6: false, .. }));
    let client = neighbour.visit(|| world::connect(&format!("{OWN}:8080")));
    let from = client.local_addr().unwrap();
    assert_eq!(from.ip().to_string(), NEIGHBOUR);
    assert_eq!(accept(&proxy), (from, Some(address(&format!("{OWN}:8080")))));
    let _probe = neighbour.visit(|| world::connect(&format!("{OWN}:15021")));
    assert_eq!(accept(&readiness).1, None);
    assert!(world::is_idle(&proxy));
}

pub fn marked_connections_are_left_alone() {
    world::workload();
    let proxy = world::listen("0.0.0.0:15001");
    init(&[]);
    let _marked = world::begin_connect(&format!("{ELSEWHERE}:80"), Some(1337));
    let _other_mark = world::begin_connect(&format!("{ELSEWHERE}:81"), Some(7));
    // The first to arrive is the second that was sent.
    assert_eq!(accept(&proxy).1, Some(address(&format!("{ELSEWHERE}:81"))));
    assert!(world::is_idle(&proxy));
}

pub fn connections_of_the_proxys_user_are_left_alone() {
    world::workload();
    let proxy = world::listen("0.0.0.0:15001");
    for guard in [["-u", "0", "-g", ""], ["-u", "", "-g", "0"]] {
        try_init(&guard).unwrap();
        let _ours = world::begin_connect(&format!("{ELSEWHERE}:80"), None);
        try_init(&["-u", "1337"]).unwrap();
        let _not_ours = world::begin_connect(&format!("{ELSEWHERE}:81"), None);
        assert_eq!(accept(&proxy).1, Some(address(&format!("{ELSEWHERE}:81"))), "{guard:?}");
        assert!(world::is_idle(&proxy), "{guard:?}");
    }
}

pub fn the_proxy_reaches_its_workload_as_a_client_would() {
    world::workload();
    let inbound = world::listen("0.0.0.0:15006");
    let outbound = world::listen("0.0.0.0:15001");
    let workload = world::listen(&format!("{OWN}:8080"));
    init(&[]);
    // From the proxy to the workload's own address: an incoming call.
    let _own_service = world::begin_connect(&format!("{OWN}:8080"), Some(1337));
    assert_eq!(accept(&inbound).1, Some(address(&format!("{OWN}:8080"))));
    // The workload to itself.
    let _itself = world::connect(&format!("{OWN}:8080"));
    assert_eq!(accept(&workload).1, None);
    assert!(world::is_idle(&inbound) && world::is_idle(&outbound));
}

pub fn excluded_destinations_are_left_alone() {
    world::workload();
    let proxy = world::listen("0.0.0.0:15001");
    init(&["-x", "10.96.0.0/24", "-o", "22"]);
    let _range = world::begin_connect(&format!("{ELSEWHERE}:80"), None);
    let _port = world::begin_connect("10.97.0.1:22", None);
    let _captured = world::begin_connect("10.96.1.1:80", None);
    assert_eq!(accept(&proxy).1, Some(address("10.96.1.1:80")));
    assert!(world::is_idle(&proxy));
}

pub fn rules_are_replaced_and_removed() {
    world::workload();
    let first = world::listen("0.0.0.0:15001");
    let second = world::listen("0.0.0.0:25001");
    assert!(!exec::installed().unwrap());
    let once = init(&[]);
    // Twice is the same as once, and other settings take the place of the earlier ones.
    assert_eq!(init(&[]), once);
    init(&["-p", "25001"]);
    assert!(exec::installed().unwrap());
    let _client = world::connect(&format!("{ELSEWHERE}:80"));
    assert_eq!(accept(&second).1, Some(address(&format!("{ELSEWHERE}:80"))));
    assert_eq!(init(&["--cleanup-only"]), Outcome::Removed { existed: true });
    assert!(!exec::installed().unwrap());
    assert_eq!(init(&["-m", "none"]), Outcome::Removed { existed: false });
    // Without rules the connection goes nowhere near the proxy.
    let _lost = world::begin_connect(&format!("{ELSEWHERE}:80"), None);
    assert!(world::is_idle(&first) && world::is_idle(&second));
}

pub fn as_many_entries_as_may_be_fit_into_a_batch() {
    let ports: Vec<String> = (1..=MAX_ENTRIES - 4).map(|port| port.to_string()).collect();
    // With the mark's rules and the three excluded ports that are the default; each port makes two rules.
    let Outcome::Applied { rules, .. } = init(&["-o", &ports.join(",")]) else { panic!("not applied") };
    assert!(rules > 2 * (MAX_ENTRIES - 4), "{rules}");
    assert!(exec::installed().unwrap());
}

pub fn a_process_without_the_capability_is_told() {
    // In a user namespace below, all capabilities are for that one only.
    world::enter();
    let user_only = nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWUSER);
    user_only.expect("a user namespace without a network namespace");
    let error = try_init(&[]).unwrap_err();
    assert!(matches!(error, CaptureError::Exec(ExecError::Denied { .. })), "{error:?}");
    assert!(mesh_proxy::net::sockopt::check_mark(1337).is_err());
}
