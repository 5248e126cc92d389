//! What a sandbox promises.

use std::fs::{self, File};
use std::io::{PipeReader, Read};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};
use std::time::Duration;

use meshctl::netns::{Exit, Process, ProcessSpec, Sandbox, SandboxConfig, SandboxError, userns_available};

use crate::parts::{PART, READY, part};

const PATIENCE: Duration = Duration::from_secs(20);
const WEB: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 2);
const API: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 3);

/// A sandbox with the workloads `web` and `api`.
fn sandbox() -> Sandbox {
    let sandbox = Sandbox::create(&SandboxConfig::default()).expect("a sandbox");
    sandbox.add_workload("web", WEB).unwrap();
    sandbox.add_workload("api", API).unwrap();
    sandbox
}

/// Starts a process and waits until it says that it is ready. The pipe ends when no process holds it any more.
fn start(sandbox: &Sandbox, workload: &str, mut spec: ProcessSpec) -> (Process, PipeReader) {
    let (mut reader, writer) = std::io::pipe().unwrap();
    spec = spec.log(File::from(OwnedFd::from(writer))).unwrap();
    let process = sandbox.spawn(workload, spec).unwrap();
    expect_ready(&mut reader);
    (process, reader)
}

fn expect_ready(reader: &mut impl Read) {
    let mut text = Vec::new();
    reader.take(READY.len() as u64).read_to_end(&mut text).unwrap();
    assert_eq!(String::from_utf8_lossy(&text), READY);
}

/// Waits until no process holds the other end.
fn expect_end(mut reader: impl Read) {
    assert_eq!(reader.read_to_end(&mut Vec::new()).unwrap(), 0);
}

fn run(sandbox: &Sandbox, workload: &str, name: &str, args: &[&str]) -> String {
    sandbox.run(workload, part(name, args), PATIENCE).unwrap()
}

pub fn user_namespaces_are_available() {
    // If this fails no other case can pass, and the message says what to change on the machine.
    userns_available(&SandboxConfig::default()).unwrap_or_else(|reason| panic!("{reason}"));
}

pub fn workloads_talk_over_the_bridge() {
    let sandbox = sandbox();
    let _server = start(&sandbox, "api", part("serve", &["0.0.0.0:8080"]));
    assert_eq!(run(&sandbox, "web", "call", &["10.77.0.3:8080"]), "10.77.0.2 came to here");
    assert_eq!(run(&sandbox, "api", "call", &["10.77.0.3:8080"]), "10.77.0.3 came to here");
    // The same port in another workload is another port, and outside no one has these addresses.
    let _other = start(&sandbox, "web", part("serve", &["0.0.0.0:8080"]));
    assert_eq!(TcpListener::bind((API, 0)).unwrap_err().kind(), std::io::ErrorKind::AddrNotAvailable);
}

pub fn capture_rules_stay_in_their_workload() {
    let sandbox = sandbox();
    let applied = run(&sandbox, "web", "init", &["-u", "", "--proxy-mark", "1337"]);
    assert!(applied.starts_with("Traffic capture is on"), "{applied}");
    let _outbound = start(&sandbox, "web", part("serve", &["0.0.0.0:15001"]));
    let _inbound = start(&sandbox, "web", part("serve", &["0.0.0.0:15006"]));
    let _api = start(&sandbox, "api", part("serve", &["0.0.0.0:8080"]));
    // Out of web: to a service address that no one has, and to api; the proxy's own connection passes.
    assert_eq!(run(&sandbox, "web", "call", &["10.96.0.9:80"]), "10.77.0.2 came to 10.96.0.9:80");
    assert_eq!(run(&sandbox, "web", "call", &["10.77.0.3:8080"]), "10.77.0.2 came to 10.77.0.3:8080");
    assert_eq!(run(&sandbox, "web", "call-marked", &["10.77.0.3:8080"]), "10.77.0.2 came to here");
    // Into web; api has no rules of its own.
    assert_eq!(run(&sandbox, "api", "call", &["10.77.0.2:9999"]), "10.77.0.3 came to 10.77.0.2:9999");
    // With rules in both, what web's proxy sends is taken by api's: a mark does not leave its namespace.
    run(&sandbox, "api", "init", &["-u", "", "--proxy-mark", "1337"]);
    let _inbound = start(&sandbox, "api", part("serve", &["0.0.0.0:15006"]));
    assert_eq!(run(&sandbox, "web", "call-marked", &["10.77.0.3:8080"]), "10.77.0.2 came to 10.77.0.3:8080");
}

pub fn sockets_handed_in_are_reached_from_outside() {
    let sandbox = sandbox();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let spec = part("serve", &["0.0.0.0:8080"]).socket("0.0.0.0:8080".parse().unwrap(), listener);
    let (server, output) = start(&sandbox, "web", spec);
    let mut text = String::new();
    TcpStream::connect(address).unwrap().read_to_string(&mut text).unwrap();
    assert_eq!(text, "127.0.0.1 came to here");
    // No one but the server holds the port, neither this process nor the helper.
    assert_eq!(server.stop(PATIENCE).unwrap(), Exit::Signal(libc::SIGTERM));
    expect_end(output);
    TcpListener::bind(address).expect("the port is free again");
}

pub fn files_are_shown_inside_only() {
    let directory = tempfile::tempdir().unwrap();
    let (hosts, target) = (directory.path().join("hosts"), directory.path().join("target"));
    fs::write(&hosts, "10.96.0.1 catalogue\n").unwrap();
    fs::write(&target, "outside\n").unwrap();
    let binds = vec![(hosts.clone(), target.clone())];
    let sandbox = Sandbox::create(&SandboxConfig { binds, ..SandboxConfig::default() }).unwrap();
    sandbox.add_workload("web", WEB).unwrap();
    let shown = target.to_str().unwrap();
    assert_eq!(run(&sandbox, "web", "show", &[shown]), "10.96.0.1 catalogue\n");
    // It is the same file, so that edits show.
    fs::write(&hosts, "10.96.0.2 catalogue\n").unwrap();
    assert_eq!(run(&sandbox, "web", "show", &[shown]), "10.96.0.2 catalogue\n");
    assert_eq!(fs::read_to_string(&target).unwrap(), "outside\n");
    let binds = vec![(directory.path().join("missing"), target)];
    let error = Sandbox::create(&SandboxConfig { binds, ..SandboxConfig::default() }).unwrap_err().to_string();
    assert!(error.contains("missing as") && error.contains("No such file"), "{error}");
}

pub fn processes_end_as_told_and_are_reported() {
    let sandbox = sandbox();
    let (polite, _output) = start(&sandbox, "web", part("stay", &[]));
    let (deaf, _output) = start(&sandbox, "api", part("stay-deaf", &[]));
    // The numbers are those of the world outside.
    let name = fs::read_to_string(format!("/proc/{}/comm", polite.pid().unwrap())).unwrap();
    assert!(!name.is_empty() && polite.pid() != deaf.pid());
    assert_eq!((polite.exit(), polite.wait(Duration::from_millis(1)).unwrap()), (None, None));
    assert_eq!(polite.stop(PATIENCE).unwrap(), Exit::Signal(libc::SIGTERM));
    assert_eq!(polite.exit(), Some(Exit::Signal(libc::SIGTERM)));
    polite.signal(libc::SIGTERM).expect("a signal to one who has ended is no error");
    let code = sandbox.spawn("web", part("fail", &[])).unwrap().wait(PATIENCE).unwrap();
    assert_eq!(code, Some(Exit::Code(3)));
    assert!(sandbox.is_alive());
    // Whoever does not listen goes when the sandbox goes.
    sandbox.shutdown(&[polite, deaf.clone()], Duration::from_millis(100)).unwrap();
    assert!(matches!(deaf.wait(PATIENCE), Err(SandboxError::Ended)));
}

pub fn what_a_process_leaves_in_its_group_ends_with_it() {
    let sandbox = sandbox();
    let (process, output) = start(&sandbox, "web", part("leave-child", &["stay", "same-group"]));
    assert_eq!(process.wait(PATIENCE).unwrap(), Some(Exit::Code(0)));
    expect_end(output);
}

pub fn dropping_the_sandbox_ends_even_who_hides() {
    let sandbox = sandbox();
    let (process, hidden) = start(&sandbox, "web", part("leave-child", &["stay-deaf", "own-group"]));
    let (_, other_group) = start(&sandbox, "web", part("leave-child", &["stay", "own-group"]));
    assert_eq!(process.wait(PATIENCE).unwrap(), Some(Exit::Code(0)));
    drop(sandbox);
    expect_end(hidden);
    expect_end(other_group);
}

pub fn nothing_outlives_a_killed_parent() {
    let mut command = Command::new("/proc/self/exe");
    command.args([PART, "parent"]).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut parent = command.spawn().unwrap();
    let (mut output, errors) = (parent.stdout.take().unwrap(), parent.stderr.take().unwrap());
    // Once from the process in the sandbox, once from its parent.
    expect_ready(&mut output);
    expect_ready(&mut output);
    parent.kill().unwrap();
    parent.wait().unwrap();
    expect_end(output);
    // The helper's two stages hold this one.
    expect_end(errors);
}

pub fn errors_name_what_was_asked() {
    let sandbox = sandbox();
    let check = |result: Result<(), SandboxError>, expect: &str| {
        let error = result.unwrap_err().to_string();
        assert!(error.contains(expect), "{error}");
    };
    check(sandbox.add_workload("web", [10, 77, 0, 9].into()), "cannot add workload web again");
    check(sandbox.add_workload("far", [10, 78, 0, 9].into()), "10.78.0.9 is no address for a workload");
    let spawn = |workload, program: &str| sandbox.spawn(workload, ProcessSpec::new(program)).map(drop);
    check(spawn("nowhere", "true"), "cannot start a process in workload nowhere");
    check(spawn("web", "/no/such/program"), "cannot start /no/such/program: No such file or directory");
    let failed = sandbox.run("web", part("fail", &[]), PATIENCE).map(drop);
    check(failed, "in web ended with exit code 3: it cannot be done");
    let late = sandbox.run("web", part("stay", &[]), Duration::from_millis(50)).map(drop);
    check(late, "in web did not end within 50ms");
    // After all of that it still works.
    sandbox.add_workload("third", [10, 77, 0, 4].into()).unwrap();
    assert_eq!(run(&sandbox, "third", "show", &["/proc/self/comm"]).lines().count(), 1);
}
