//! Processes that end with the test, and whose logs are shown when it fails.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::net::{SocketAddr, TcpListener};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rustix::io::{FdFlags, fcntl_setfd};
use rustix::process::{Pid, Signal, kill_process};

use crate::assert::{eventually, now, pause};

/// Where a daemon finds the sockets handed to it.
const LISTEN_FDS: &str = "LATEEN_LISTEN_FDS";
/// Most of a log that a failure shows, in bytes.
const SHOWN_BYTES: usize = 6_000;

/// Time for the processes of a failed test to write what they have not yet.
const LAST_WORDS: Duration = Duration::from_millis(1500);

/// Descriptors are inherited by whatever starts while they are open for it, so one process starts at a time.
static STARTING: Mutex<()> = Mutex::new(());

/// The folder of the binaries under test.
///
/// # Panics
/// Without the variable that `cargo xtask ci` sets.
#[must_use]
pub fn binary(name: &str) -> PathBuf {
    let folder = std::env::var_os("MESH_BIN_DIR").expect("MESH_BIN_DIR names the folder of the built binaries");
    let path = PathBuf::from(folder).join(name);
    assert!(path.is_file(), "{} is not built", path.display());
    path
}

/// The stock Envoy that interoperability is tested with.
///
/// # Panics
/// Without the variable that `cargo xtask ci` sets.
#[must_use]
pub fn envoy() -> PathBuf {
    std::env::var_os("MESH_ENVOY").expect("MESH_ENVOY names the binary of an Envoy").into()
}

/// A process to start.
#[derive(Debug)]
pub struct Spec {
    name: String,
    program: PathBuf,
    args: Vec<OsString>,
    env: Vec<(String, String)>,
    sockets: Vec<(SocketAddr, TcpListener)>,
}

impl Spec {
    /// A process that logs report as `name`.
    #[must_use]
    pub fn new(name: &str, program: PathBuf) -> Self {
        Self { name: name.to_owned(), program, args: Vec::new(), env: Vec::new(), sockets: Vec::new() }
    }

    /// Adds arguments.
    #[must_use]
    pub fn args(mut self, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Self {
        self.args.extend(args.into_iter().map(|arg| arg.as_ref().to_owned()));
        self
    }

    /// Sets a variable. Nothing but `PATH` is inherited.
    #[must_use]
    pub fn env(mut self, name: &str, value: impl Into<String>) -> Self {
        self.env.push((name.to_owned(), value.into()));
        self
    }

    /// Hands in a listening socket at `at` under the address that the process asks for.
    ///
    /// # Panics
    /// When `at` is taken.
    #[must_use]
    pub fn socket(mut self, asked_for: &str, at: SocketAddr) -> Self {
        let socket = TcpListener::bind(at).unwrap_or_else(|error| panic!("{at}: {error}"));
        self.sockets.push((asked_for.parse().unwrap(), socket));
        self
    }

    /// Starts it. Its streams go to a file in `folder`.
    ///
    /// # Panics
    /// When it cannot be started.
    #[must_use]
    pub fn start(self, folder: &Path) -> Process {
        let log = unused(folder, &self.name);
        let file = File::create(&log).unwrap();
        // The kernel ends it when the thread that runs the test ends, however that happens.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--"]).arg(&self.program).args(&self.args).env_clear();
        command.env("PATH", std::env::var_os("PATH").unwrap_or_default()).envs(self.env).current_dir(folder);
        command.stdin(Stdio::null()).stdout(file.try_clone().unwrap()).stderr(file);
        let _one = STARTING.lock().unwrap_or_else(PoisonError::into_inner);
        if !self.sockets.is_empty() {
            let named: Vec<_> =
                self.sockets.iter().map(|(name, socket)| format!("{name}={}", socket.as_raw_fd())).collect();
            command.env(LISTEN_FDS, named.join(","));
        }
        for (_, socket) in &self.sockets {
            fcntl_setfd(socket, FdFlags::empty()).unwrap();
        }
        let child = command.spawn().unwrap_or_else(|error| panic!("setpriv {}: {error}", self.program.display()));
        Process { name: self.name, child, log, expected: false }
    }
}

fn unused(folder: &Path, name: &str) -> PathBuf {
    let names = std::iter::once(format!("{name}.log")).chain((2..).map(|number| format!("{name}.{number}.log")));
    names.map(|name| folder.join(name)).find(|path| !path.exists()).unwrap()
}

/// A running process. Killed when dropped; if the test is failing, the end of its log is shown.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
    /// It was told to end.
    expected: bool,
}

impl Process {
    /// Number of the process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it wrote so far.
    #[must_use]
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// How it ended, if it did.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }

    /// Fails the test when the process has ended by itself.
    ///
    /// # Panics
    /// See above.
    #[track_caller]
    pub fn expect_alive(&mut self) {
        if let Some(status) = self.ended() {
            panic!("{} ended: {status}", self.name);
        }
    }

    /// Asks it to end and waits until it has.
    ///
    /// # Panics
    /// When it does not end in time.
    #[track_caller]
    pub fn stop(&mut self) -> ExitStatus {
        self.signal(Signal::TERM);
        self.expected = true;
        let name = self.name.clone();
        eventually(&format!("{name} ends"), || self.ended().ok_or("it runs"))
    }

    /// Ends it at once.
    pub fn kill(&mut self) {
        self.expected = true;
        // Already gone is as good.
        _ = self.child.kill();
        _ = self.child.wait();
    }

    /// Sends a signal.
    ///
    /// # Panics
    /// When it has ended.
    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let by_itself = if self.expected { None } else { self.child.try_wait().ok().flatten() };
        if std::thread::panicking() {
            // Some of what it has to say is still in its buffers.
            _ = kill_process(Pid::from_child(&self.child), Signal::TERM);
            let started = now();
            while matches!(self.child.try_wait(), Ok(None)) && started.elapsed() < LAST_WORDS {
                pause();
            }
        }
        self.kill();
        if std::thread::panicking() {
            let log = self.log();
            let start = log.len().saturating_sub(SHOWN_BYTES);
            let start = (start..=log.len()).find(|at| log.is_char_boundary(*at)).unwrap_or(0);
            let state = by_itself.map_or_else(|| "was running".to_owned(), |status| format!("had ended: {status}"));
            show(&format!("──── {} ({state})\n{}", self.name, &log[start..]));
        }
    }
}

/// Shows a log of a failing test.
#[expect(clippy::print_stderr, reason = "what a failing test shows")]
pub fn show(text: &str) {
    eprintln!("{text}");
}
