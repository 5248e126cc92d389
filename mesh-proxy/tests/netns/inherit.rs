//! Listening sockets that a parent process hands to the proxy.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::os::fd::AsRawFd;
use std::process::{Command, ExitCode, Stdio};

use mesh_api_rt::listen::{LISTEN_FDS, ListenerTable};
use nix::sched::{CloneFlags, unshare};
use socket2::SockRef;

use crate::world;

/// First argument of a child that serves one connection on a socket handed in.
pub const SERVE: &str = "--serve-inherited";
/// What the proxy's configuration calls the socket.
const NAME: &str = "0.0.0.0:8080";

/// The child: leaves for a network namespace where nothing is up, and serves from there.
pub fn serve() -> ExitCode {
    let mut table = ListenerTable::from_env().expect("the sockets are taken");
    assert!(ListenerTable::from_env().is_err(), "a descriptor has one owner");
    unshare(CloneFlags::CLONE_NEWNET).expect("another network namespace");
    let listener = table.listen(NAME.parse().unwrap()).expect("the socket has its name");
    listener.set_nonblocking(false).unwrap();
    let (mut stream, _) = listener.accept().expect("a connection arrives");
    assert_eq!(mesh_proxy::net::orig_dst::original_dst(&stream).unwrap(), None);
    stream.write_all(b"hello from inside").unwrap();
    ExitCode::SUCCESS
}

pub fn a_handed_in_socket_is_served() {
    world::workload();
    let listener = world::listen("127.0.0.1:0");
    let address = listener.local_addr().unwrap();
    SockRef::from(&listener).set_cloexec(false).unwrap();
    let handed = format!("{NAME}={}", listener.as_raw_fd());
    let mut child = Command::new("/proc/self/exe").arg(SERVE).env(LISTEN_FDS, handed).spawn().unwrap();
    drop(listener);
    let mut text = String::new();
    world::connect(&address.to_string()).read_to_string(&mut text).unwrap();
    assert_eq!(text, "hello from inside");
    assert!(child.wait().unwrap().success());
    // The child was the last holder of the port.
    TcpListener::bind(address).expect("the port is free again");
    refuses_what_is_no_listener(address);
}

fn refuses_what_is_no_listener(address: SocketAddr) {
    // A descriptor that is not open in the child.
    let handed = format!("{address}=77");
    let output = Command::new("/proc/self/exe").arg(SERVE).env(LISTEN_FDS, handed).stderr(Stdio::piped()).output();
    let output = output.unwrap();
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("fd: 77"), "{output:?}");
}
