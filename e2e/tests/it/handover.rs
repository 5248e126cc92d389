//! `loop_*`: a new process of a proxy takes over from the running one.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;

use e2e::assert::{PATIENCE, eventually, wait_until};
use e2e::client::{self, Load, url};
use e2e::mesh::{CATALOGUE, FEED, Mesh, Security, TCP_ECHO, Workload, ok};
use e2e::process::{Process, Spec, binary};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::world::{Kind, World, expect_fine};

fn a_world() -> World {
    let mut world = World::new(Security::Strict, Kind::Ours);
    for service in [CATALOGUE, TCP_ECHO, FEED] {
        world.serve(service, "v1", Kind::Ours, &[]);
    }
    world.wait_for_catalogue();
    world
}

/// Starts another process of a workload's proxy; `program` and its first arguments may be those of a program that runs it.
fn start(mesh: &Mesh, workload: &Workload, program: &[&str], more: &[(&str, &str)]) -> Process {
    let proxy = binary("mesh-proxy");
    let mut spec = match program {
        [] => Spec::new(&format!("{}.successor", workload.name), proxy),
        [program, args @ ..] => {
            Spec::new(&format!("{}.successor", workload.name), Path::new(program).to_owned()).args(args).args([proxy])
        }
    };
    spec = spec.args(["proxy", workload.role, "--concurrency", "1", "--take-over"]);
    for (name, value) in mesh.proxy_env(workload) {
        spec = spec.env(name, value);
    }
    for (name, value) in more {
        spec = spec.env(name, *value);
    }
    spec.start(&mesh.logs())
}

fn page(workload: &Workload) -> Value {
    ok(client::get(workload.admin(), "/handover")).map_or(Value::Null, |answer| answer.json())
}

fn number(workload: &Workload, name: &str) -> u64 {
    let text = client::get(workload.admin(), "/stats/prometheus").unwrap().body;
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    value.unwrap_or_else(|| panic!("{name} in {text}")).parse().unwrap()
}

/// Waits until the page says so.
#[track_caller]
fn wait_for_page(workload: &Workload, what: &str, look: impl Fn(&Value) -> bool) -> Value {
    eventually(what, || {
        let page = page(workload);
        if look(&page) { Ok(page) } else { Err(page.to_string()) }
    })
}

/// Waits until the process with this number answers for the workload.
#[track_caller]
fn wait_for_process(workload: &Workload, pid: u32) {
    wait_for_page(workload, "the new process serves", |page| page["process"]["pid"] == pid);
}

/// A process that takes over, once it has.
fn successor(mesh: &Mesh, workload: &Workload) -> Process {
    let process = start(mesh, workload, &[], &[]);
    wait_for_process(workload, process.pid());
    process
}

/// Requests on kept connections and on new ones, through the caller's proxy, until told to end.
struct Loads(Vec<Load>);

impl Loads {
    fn start(world: &World) -> Self {
        let url = url(CATALOGUE.name, "/bytes/200", world.at(CATALOGUE));
        let kept = ["http", "--url", &url, "-n", "0", "-c", "4", "--duration", "120s"];
        let new =
            ["http", "--url", &url, "-n", "0", "-c", "4", "--duration", "120s", "--no-keepalive", "--rate", "200"];
        let loads = Self([&kept[..], &new].map(Load::start).into());
        world.wait_for_flow();
        loads
    }

    #[track_caller]
    fn end(self) {
        for load in self.0 {
            load.interrupt();
            let report = load.finish();
            assert_eq!(report["failed"], 0, "{report}");
            assert_ne!(report["requests"], 0);
        }
    }
}

/// What a control plane knows of a proxy.
fn connections(world: &World, workload: &Workload) -> Vec<String> {
    let page = world.mesh.syncz();
    let proxies = page["proxies"].as_array().cloned().unwrap_or_default();
    let of_workload = proxies.iter().filter(|proxy| proxy["name"] == *workload.name);
    of_workload.map(|proxy| proxy["connection"].to_string()).collect()
}

fn certificate(workload: &Workload) -> (String, String) {
    let page = client::get(workload.admin(), "/certs").unwrap().json();
    let own = &page["certificates"][0]["cert_chain"][0];
    (own["subject_alt_names"][0]["uri"].to_string(), own["serial_number"].to_string())
}

#[test]
#[ignore = "needs built binaries: cargo xtask ci interop"]
fn loop_a_new_process_takes_over_under_load() {
    let mut world = a_world();
    let (caller, server) = (world.caller.clone(), world.backends[0].workload.clone());
    let loads = Loads::start(&world);
    let feed = url(FEED.name, "/feed", world.at(FEED));
    let ws = Load::start(&["ws", "--url", &feed, "-n", "0", "-c", "2", "--rate", "20", "--duration", "120s"]);
    let echo = world.at(TCP_ECHO).to_string();
    let tcp = Load::start(&["tcp", "--addr", &echo, "-n", "0", "-c", "2", "--rate", "20", "--duration", "120s"]);
    let (before, certified) = (connections(&world, &caller), certificate(&caller));
    assert_eq!(before.len(), 1);
    let new_server = successor(&world.mesh, &server);
    let new_caller = successor(&world.mesh, &caller);
    assert_eq!(number(&caller, "mesh_proxy_handovers_total{outcome=\"taken\"}"), 1);
    assert_eq!(number(&caller, "envoy_server_hot_restart_generation"), 1);
    // The same workload to its peers, at first with the certificate of the process before.
    assert_eq!(certificate(&caller).0, certified.0);
    wait_until("it has a certificate of its own", || certificate(&caller).1 != certified.1);
    world.wait_for_flow();
    // The control plane knows both until the old one has let go.
    eventually("the control plane has the new process only", || match &connections(&world, &caller)[..] {
        [one] if *one != before[0] => Ok(()),
        other => Err(format!("{other:?}")),
    });
    // Long streams keep the old process, and nothing else does.
    world.proxy.expect_alive();
    for stream in [ws, tcp] {
        stream.interrupt();
        let report = stream.finish();
        assert_eq!(report["failed"], 0, "{report}");
        assert_ne!(report["requests"], 0);
    }
    let status = eventually("the old process ends", || world.proxy.ended().ok_or("it runs"));
    assert!(status.success(), "{status}");
    loads.end();
    world.proxy = new_caller;
    world.backends[0].proxy = new_server;
    world.call_catalogue();
}

#[test]
#[ignore = "needs built binaries: cargo xtask ci interop"]
fn loop_a_new_process_that_does_not_get_ready_changes_nothing() {
    let mut world = a_world();
    let caller = world.caller.clone();
    let loads = Loads::start(&world);
    // There is no control plane at that address.
    let nowhere = [("PROXY_CONFIG", "{discoveryAddress: '127.0.0.1:1'}")];
    let mut process = start(&world.mesh, &caller, &[], &nowhere);
    wait_for_page(&caller, "it has the sockets", |page| page["state"] == "successor-warms-up");
    process.kill();
    wait_for_page(&caller, "nothing has changed", |page| page["state"] == "serving");
    assert_eq!(number(&caller, "mesh_proxy_handovers_total{outcome=\"failed\"}"), 1);
    loads.end();
    world.proxy.expect_alive();
    // The next one gets what it asks for.
    let next = successor(&world.mesh, &caller);
    world.wait_for_catalogue();
    world.proxy = next;
}

#[test]
#[ignore = "needs built binaries: cargo xtask ci interop"]
fn loop_a_new_process_that_dies_on_probation_is_replaced_by_the_old() {
    let mut world = a_world();
    let caller = world.caller.clone();
    let mut process = successor(&world.mesh, &caller);
    process.kill();
    wait_for_process(&caller, world.proxy.pid());
    assert_eq!(number(&caller, "mesh_proxy_handovers_total{outcome=\"resumed\"}"), 1);
    let loads = Loads::start(&world);
    world.wait_for_flow();
    loads.end();
    world.proxy.expect_alive();
}

#[test]
#[ignore = "needs built binaries: cargo xtask ci interop"]
fn loop_a_process_of_another_user_gets_nothing() {
    if !rustix::process::geteuid().is_root() {
        e2e::process::show("not tried: only root can start a process of another user");
        return;
    }
    let mut world = a_world();
    let caller = world.caller.clone();
    let stranger = ["setpriv", "--reuid", "65534", "--clear-groups"];
    // Its own files are not read before it has asked.
    let mut process = start(&world.mesh, &caller, &stranger, &[]);
    let status = eventually("it ends", || process.ended().ok_or("it runs"));
    assert_eq!(status.code(), Some(2), "{}", process.log());
    assert!(process.log().contains("taking over from the running proxy"), "{}", process.log());
    assert_eq!(number(&caller, "mesh_proxy_handovers_total{outcome=\"refused\"}"), 1);
    assert_eq!(page(&caller)["state"], "serving");
    world.wait_for_catalogue();
    world.proxy.expect_alive();
}

#[test]
#[ignore = "needs built binaries: cargo xtask ci interop"]
fn loop_a_signal_replaces_the_process_again_and_again() {
    let mut world = a_world();
    let caller = world.caller.clone();
    let loads = Loads::start(&world);
    let first = world.proxy.pid();
    for generation in 1..=3_u64 {
        world.proxy.signal(Signal::USR2);
        let page = wait_for_page(&caller, "the next generation serves", |page| page["generation"] == generation);
        assert_ne!(page["process"]["pid"], first);
        world.wait_for_flow();
        // Its children are those that serve, and it does nothing but look after them.
        let look = || std::fs::read(format!("/proc/{first}/cmdline")).unwrap();
        wait_until("the first process is a supervisor", || look().ends_with(b"\0supervise\0"));
    }
    loads.end();
    let last = page(&caller)["process"]["pid"].as_u64().unwrap();
    // Those between have ended, and left their successors to it.
    let status = || std::fs::read_to_string(format!("/proc/{last}/status")).unwrap();
    wait_until("there is one supervisor", || status().contains(&format!("\nPPid:\t{first}\n")));
    assert_eq!(world.proxy.stop().code(), Some(0));
    assert!(!Path::new(&format!("/proc/{last}")).exists(), "the last generation ended with its supervisor");
    assert!(TcpStream::connect(world.at(CATALOGUE)).is_err());
}

#[test]
#[ignore = "needs built binaries: cargo xtask ci interop"]
fn loop_a_supervisor_ends_as_the_process_that_serves() {
    let mut world = World::new(Security::Plaintext, Kind::Ours);
    let caller = world.caller.clone();
    world.proxy.signal(Signal::USR2);
    let page = wait_for_page(&caller, "the successor serves", |page| page["generation"] == 1);
    let look = || std::fs::read(format!("/proc/{}/cmdline", world.proxy.pid())).unwrap();
    wait_until("the first process is a supervisor", || look().ends_with(b"\0supervise\0"));
    let pid = page["process"]["pid"].as_i64().unwrap();
    kill_process(Pid::from_raw(i32::try_from(pid).unwrap()).unwrap(), Signal::KILL).unwrap();
    let status = eventually("the supervisor ends", || world.proxy.ended().ok_or("it runs"));
    assert_eq!(status.code(), Some(128 + 9));
    world.proxy.kill();
}

/// As an ephemeral container does it: the program is somewhere else, and gone afterwards.
#[test]
#[ignore = "needs built binaries: cargo xtask ci interop"]
fn loop_a_program_is_brought_and_started_in_place() {
    let mut world = a_world();
    let caller = world.caller.clone();
    let loads = Loads::start(&world);
    let elsewhere = tempfile::tempdir().unwrap();
    let program = elsewhere.path().join("mesh-proxy");
    std::fs::copy(binary("mesh-proxy"), &program).unwrap();
    let door = page(&caller)["door"].as_str().unwrap().to_owned();
    let output = Command::new(&program).args(["replace", "--door", &door]).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(told.starts_with("replaced: process ") && told.ends_with("generation 1\n"), "{told}");
    // For a moment both answer.
    let page = wait_for_page(&caller, "the new process answers", |page| page["generation"] == 1);
    let pid = page["process"]["pid"].as_u64().unwrap();
    assert_eq!(std::fs::read_link(format!("/proc/{pid}/exe")).unwrap(), program);
    loads.end();
    // Without an argument only where there is no choice.
    let output = Command::new(&program).arg("replace").output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("choose with --door"), "{output:?}");
    assert_eq!(world.proxy.stop().code(), Some(0));
}

#[test]
#[ignore = "needs built binaries: cargo xtask ci interop"]
fn loop_what_is_open_ends_with_the_time_to_drain() {
    let mut world = World::with(Security::Strict, &[("LATEEN_HANDOVER_DRAIN", "1s")]);
    world.serve(TCP_ECHO, "v1", Kind::Ours, &[]);
    let (caller, at) = (world.caller.clone(), world.at(TCP_ECHO));
    let mut stream = eventually("the echo answers", || talk(connect(at)?));
    let process = successor(&world.mesh, &caller);
    stream = talk(stream).unwrap();
    let status = eventually("the old process ends", || world.proxy.ended().ok_or("it runs"));
    assert!(status.success(), "{status}");
    assert!(matches!(stream.read(&mut [0]), Ok(0) | Err(_)));
    talk(connect(at).unwrap()).unwrap();
    world.proxy = process;
}

fn connect(at: SocketAddr) -> std::io::Result<TcpStream> {
    let stream = TcpStream::connect(at)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// One line there and one back.
fn talk(mut stream: TcpStream) -> std::io::Result<TcpStream> {
    stream.write_all(b"hello\n")?;
    let mut byte = [0];
    while byte != *b"\n" {
        stream.read_exact(&mut byte)?;
    }
    Ok(stream)
}

impl World {
    /// A few requests, none of which may fail.
    #[track_caller]
    fn call_catalogue(&self) {
        expect_fine(&self.load("/healthz", &["-n", "50"]), 50);
    }
}
