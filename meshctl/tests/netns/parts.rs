//! The programs that run inside a sandbox.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use clap::Parser;
use mesh_api_rt::listen::ListenerTable;
use mesh_proxy::capture::{self, InitArgs};
use mesh_proxy::net::orig_dst::original_dst;
use mesh_proxy::net::sockopt::set_mark;
use meshctl::netns::{ProcessSpec, Sandbox, SandboxConfig};
use socket2::{Domain, Socket, Type};

/// First argument of a child that plays a part.
pub const PART: &str = "--part";

/// What a process writes once it has done what it is started for.
pub const READY: &str = "ready\n";

/// A process that plays `part`.
pub fn part(part: &str, args: &[&str]) -> ProcessSpec {
    ProcessSpec::new("/proc/self/exe").args([PART, part]).args(args.iter().copied())
}

pub fn play(part: &str, args: &[&str]) -> ExitCode {
    match (part, args) {
        ("serve", [address]) => serve(address.parse().unwrap()),
        ("call", [address]) => call(address.parse().unwrap(), None),
        ("call-marked", [address]) => call(address.parse().unwrap(), Some(1337)),
        ("init", flags) => return init(flags),
        ("stay", []) => stay(),
        ("stay-deaf", []) => {
            // No ear for anything but SIGKILL.
            nix::sys::signal::SigSet::all().thread_block().unwrap();
            stay();
        }
        ("leave-child", [child, group]) => leave_child(child, *group == "own-group"),
        ("fail", []) => {
            println!("it cannot be done");
            return ExitCode::from(3);
        }
        ("show", [path]) => print!("{}", std::fs::read_to_string(path).unwrap()),
        ("parent", []) => parent(),
        _ => panic!("no part {part} {args:?}"),
    }
    ExitCode::SUCCESS
}

/// Starts a child, waits until it is ready, and leaves it behind. It holds our standard error.
fn leave_child(part: &str, own_group: bool) {
    let mut command = Command::new("/proc/self/exe");
    command.args([PART, part]).stdout(Stdio::piped());
    if own_group {
        command.process_group(0);
    }
    let mut output = command.spawn().unwrap().stdout.take().unwrap();
    output.read_exact(&mut [0; READY.len()]).unwrap();
    ready();
}

/// Tells every caller who he is and where he was going.
fn serve(address: SocketAddr) {
    let mut table = ListenerTable::from_env().unwrap();
    let listener = table.listen(address).unwrap();
    listener.set_nonblocking(false).unwrap();
    ready();
    loop {
        let (mut stream, peer) = listener.accept().unwrap();
        let was = original_dst(&stream).unwrap().map_or_else(|| "here".to_owned(), |address| address.to_string());
        write!(stream, "{} came to {was}", peer.ip()).unwrap();
    }
}

fn call(address: SocketAddr, mark: Option<u32>) {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None).unwrap();
    if let Some(mark) = mark {
        set_mark(&socket, mark).unwrap();
    }
    socket.connect_timeout(&address.into(), Duration::from_secs(10)).unwrap();
    let mut text = String::new();
    TcpStream::from(socket).read_to_string(&mut text).unwrap();
    print!("{text}");
}

/// What `mesh-proxy init` does.
fn init(flags: &[&str]) -> ExitCode {
    #[derive(Parser)]
    struct Init {
        #[command(flatten)]
        args: InitArgs,
    }

    match capture::run(&Init::parse_from(["init"].iter().chain(flags)).args) {
        Ok(outcome) => print!("{outcome}"),
        Err(error) => {
            println!("{error:?}");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

/// Makes a sandbox with a process in it and waits to be killed. All of them hold our standard error, the process also
/// our standard output.
fn parent() {
    let sandbox = Sandbox::create(&SandboxConfig::default()).unwrap();
    sandbox.add_workload("one", [10, 77, 0, 2].into()).unwrap();
    let output = std::fs::File::from(std::os::fd::AsFd::as_fd(&std::io::stdout()).try_clone_to_owned().unwrap());
    sandbox.spawn("one", part("stay-deaf", &[]).log(output).unwrap()).unwrap();
    stay();
}

fn stay() -> ! {
    ready();
    loop {
        std::thread::park();
    }
}

fn ready() {
    print!("{READY}");
    std::io::stdout().flush().unwrap();
}
