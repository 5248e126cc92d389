//! What the rules of `mesh-proxy init` do to connections.

use std::net::{SocketAddr, TcpListener, UdpSocket};

use clap::Parser;
use mesh_proxy::capture::config::{CaptureConfig, Guard, MAX_ENTRIES};
use mesh_proxy::capture::exec::{self, ExecError};
use mesh_proxy::capture::probe::{Caller, Probe, ProbeError};
use mesh_proxy::capture::{self, CaptureError, InitArgs, Outcome};
use mesh_proxy::net::orig_dst::original_dst;
use mesh_proxy::net::sockopt;

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
pub fn init(flags: &[&str]) -> Outcome {
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

/// Receives one datagram and returns its text and sender.
fn receive(socket: &UdpSocket) -> (String, SocketAddr) {
    let mut buffer = [0; 64];
    let (length, from) = socket.recv_from(&mut buffer).expect("a datagram arrives");
    (String::from_utf8_lossy(&buffer[..length]).into_owned(), from)
}

pub fn look_ups_of_the_workload_reach_the_proxy() {
    let neighbour = Neighbour::beside_workload();
    let server = neighbour.visit(|| world::udp(&format!("{NEIGHBOUR}:53"), None));
    let proxy = world::udp("127.0.0.1:15053", Some(1337));
    let proxy_tcp = world::listen("127.0.0.1:15053");
    init(&["--redirect-dns", "--capture-all-dns"]);
    let workload = world::udp("0.0.0.0:0", None);
    workload.send_to(b"who", (NEIGHBOUR, 53)).unwrap();
    let (text, from) = receive(&proxy);
    assert_eq!((text.as_str(), from.port()), ("who", workload.local_addr().unwrap().port()));
    // The workload sees the answer come from the server that it asked.
    proxy.send_to(b"me", from).unwrap();
    assert_eq!(receive(&workload), ("me".to_owned(), address(&format!("{NEIGHBOUR}:53"))));
    // Soon after, the proxy asks the server itself and happens to get the port that the workload had: tracked in a
    // zone of its own, the two are not mixed up.
    drop(workload);
    let upstream = world::udp(&format!("{OWN}:{}", from.port()), Some(1337));
    upstream.send_to(b"who?", (NEIGHBOUR, 53)).unwrap();
    let (text, asker) = receive(&server);
    assert_eq!((text.as_str(), asker), ("who?", upstream.local_addr().unwrap()));
    server.send_to(b"you", asker).unwrap();
    assert_eq!(receive(&upstream), ("you".to_owned(), address(&format!("{NEIGHBOUR}:53"))));
    // Over TCP too.
    let _client = world::connect(&format!("{NEIGHBOUR}:53"));
    assert_eq!(accept(&proxy_tcp).1, Some(address(&format!("{NEIGHBOUR}:53"))));
}

pub fn groups_choose_whose_connections_are_captured() {
    world::workload();
    let proxy = world::listen("0.0.0.0:15001");
    // All sockets of this process are of group 0.
    init(&["--owner-groups-exclude", "0"]);
    let _left_alone = world::begin_connect(&format!("{ELSEWHERE}:80"), None);
    init(&["--owner-groups", "7,8"]);
    let _not_listed = world::begin_connect(&format!("{ELSEWHERE}:81"), None);
    init(&["--owner-groups", "0"]);
    let _listed = world::begin_connect(&format!("{ELSEWHERE}:82"), None);
    assert_eq!(accept(&proxy).1, Some(address(&format!("{ELSEWHERE}:82"))));
    assert!(world::is_idle(&proxy));
}

pub fn the_pass_through_address_of_ipv6_comes_and_goes_with_the_rules() {
    world::workload();
    assert!(TcpListener::bind("[::6]:0").is_err());
    assert!(matches!(init(&["--drop-invalid"]), Outcome::Applied { ipv6: true, .. }));
    drop(TcpListener::bind("[::6]:0").expect("the address is there"));
    init(&[]);
    init(&["--cleanup-only"]);
    assert!(TcpListener::bind("[::6]:0").is_err());
    // Nothing to remove is no error.
    assert_eq!(init(&["--cleanup-only"]), Outcome::Removed { existed: false });
}

pub fn rules_of_another_namespace_are_written_from_here() {
    world::workload();
    let keep = world::current_netns();
    let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&keep));
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
    assert!(!exec::installed().unwrap());
    // The flag moves the thread, so that what follows looks at the workload's namespace.
    init(&["--network-namespace", &path]);
    assert!(exec::installed().unwrap());
    let error = try_init(&["--network-namespace", "/nowhere"]).unwrap_err();
    assert!(matches!(error, CaptureError::Namespace { .. }), "{error:?}");
}

pub fn tproxy_keeps_the_clients_address() {
    let neighbour = Neighbour::beside_workload();
    let proxy = world::listen("0.0.0.0:15006");
    sockopt::set_transparent(&proxy).unwrap();
    let workload = world::listen("0.0.0.0:8080");
    try_init(&["-m", "TPROXY", "-u", "4711"]).unwrap();
    try_init(&["-m", "TPROXY", "-u", "4711"]).expect("twice is as good as once");
    let mut client = neighbour.visit(|| world::connect(&format!("{OWN}:8080")));
    let (mut inbound, peer) = proxy.accept().unwrap();
    assert_eq!(peer.ip().to_string(), NEIGHBOUR);
    assert_eq!(inbound.local_addr().unwrap(), address(&format!("{OWN}:8080")));
    assert_eq!(original_dst(&inbound).unwrap(), None);
    // Onward, in the name of the client.
    let onward = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    sockopt::set_transparent(&onward).unwrap();
    sockopt::set_mark(&onward, 1337).unwrap();
    onward.bind(&SocketAddr::new(peer.ip(), 0).into()).unwrap();
    onward.connect_timeout(&address(&format!("{OWN}:8080")).into(), std::time::Duration::from_secs(10)).unwrap();
    let mut onward = std::net::TcpStream::from(onward);
    let (mut served, seen) = workload.accept().unwrap();
    assert_eq!(seen.ip().to_string(), NEIGHBOUR);
    // Bytes make the whole way and back.
    pass(&mut client, &mut inbound, "question");
    pass(&mut onward, &mut served, "question");
    pass(&mut served, &mut onward, "answer");
    pass(&mut inbound, &mut client, "answer");
    assert!(world::is_idle(&proxy) && world::is_idle(&workload));
    try_init(&["--cleanup-only"]).unwrap();
    drop((client, inbound, onward, served));
    let _direct = neighbour.visit(|| world::connect(&format!("{OWN}:8080")));
    assert_eq!(workload.accept().unwrap().1.ip().to_string(), NEIGHBOUR);
    assert!(world::is_idle(&proxy));
}

fn pass(from: &mut std::net::TcpStream, to: &mut std::net::TcpStream, text: &str) {
    use std::io::{Read as _, Write as _};

    to.set_read_timeout(Some(std::time::Duration::from_secs(10))).unwrap();
    from.write_all(text.as_bytes()).unwrap();
    let mut buffer = vec![0; text.len()];
    to.read_exact(&mut buffer).expect("the bytes arrive");
    assert_eq!(String::from_utf8(buffer).unwrap(), text);
}

pub fn capture_is_validated_by_a_connection() {
    world::workload();
    let not_captured = try_init(&["-u", "0", "--skip-rule-apply", "--run-validation", "--probe-timeout", "10ms"]);
    let error = not_captured.unwrap_err();
    assert!(matches!(error, CaptureError::Validation(ProbeError::NotCaptured { .. })), "{error:?}");
    assert_eq!(error.exit_code(), 126);
    // As the proxy's user, as anyone else (here the rules are for another user), and by mark.
    for guard in [&["-u", "0"][..], &["-u", "1337"], &["-u", "", "--proxy-mark", "1337"], &["-u", "0", "-m", "TPROXY"]]
    {
        let validated = try_init(&[guard, &["--run-validation"]].concat()).unwrap();
        assert!(matches!(validated, Outcome::Applied { .. }), "{guard:?}");
        let again = try_init(&[guard, &["--skip-rule-apply", "--run-validation"]].concat()).unwrap();
        assert_eq!(again, Outcome::Validated, "{guard:?}");
    }
    // As the proxy asks for itself at its start: by its own user, once.
    let captured = || {
        let guard = Guard { uids: vec![0], ..Guard::default() };
        let config = CaptureConfig { guard, ipv6: false, ..CaptureConfig::default() };
        let probe = Probe::of(&config, Caller::this(), 15002).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(probe.once())
    };
    captured().expect("traffic is captured");
    init(&["--cleanup-only"]);
    assert!(matches!(captured(), Err(ProbeError::NotCaptured { .. })));
    // Where the proxy runs already, nothing can be found out.
    let _proxy = world::listen("0.0.0.0:15006");
    let busy = try_init(&["-u", "0", "--skip-rule-apply", "--run-validation"]).unwrap_err();
    assert!(matches!(busy, CaptureError::Validation(ProbeError::Listen { .. })), "{busy:?}");
}

pub fn a_process_without_the_capability_is_told() {
    // In a user namespace below, all capabilities are for that one only.
    world::enter();
    let user_only = nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWUSER);
    user_only.expect("a user namespace without a network namespace");
    let error = try_init(&[]).unwrap_err();
    assert!(matches!(error, CaptureError::Exec(ExecError::Denied { .. })), "{error:?}");
    assert!(sockopt::check_mark(1337).is_err());
}
