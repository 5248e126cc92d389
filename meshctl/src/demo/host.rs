//! Where the demo's processes run: in a sandbox of network namespaces, or as plain children on loopback.

use std::ffi::OsString;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use rustix::io::{FdFlags, fcntl_setfd};
use rustix::process::set_parent_process_death_signal;
use tokio::time::Instant;

use super::plan::{Capture, Workload};
use crate::error::CliError;
use crate::netns::{Exit, LISTEN_FDS, Output, Process, ProcessSpec, Sandbox, SandboxError};

/// First argument of this program when it starts another that must not outlive it.
const GUARD_ARG: &str = "demo-guard";
/// How often a process is looked at for its end.
const POLL: Duration = Duration::from_millis(10);

/// Where processes run.
#[derive(Debug)]
pub enum Host {
    /// Each workload in a network namespace.
    Netns(Sandbox),
    /// All on this machine's loopback.
    Plain,
}

/// A process of the demo.
#[derive(Clone, Debug)]
pub struct Task {
    name: String,
    kind: Kind,
}

#[derive(Clone, Debug)]
enum Kind {
    Netns(Process),
    Plain(Arc<Plain>),
}

#[derive(Debug)]
struct Plain {
    child: Mutex<Child>,
    group: Pid,
}

/// When this process was started as a guard, becomes what it guards; otherwise nothing.
#[must_use]
pub fn guard_main() -> Option<ExitCode> {
    let mut args = std::env::args_os().skip(1);
    if args.next()? != GUARD_ARG {
        return None;
    }
    // The signal stays asked for across exec: the program ends with the one who started it, however that ends.
    let asked = set_parent_process_death_signal(Some(rustix::process::Signal::KILL));
    // It may have ended before we asked; then someone else is our parent now.
    let parent: i32 = args.next()?.to_str()?.parse().ok()?;
    let orphan = rustix::process::getppid().is_none_or(|now| now.as_raw_nonzero().get() != parent);
    let program: OsString = args.next()?;
    if asked.is_ok() && !orphan {
        // Returns only when it fails, and then the exit code says it.
        let _ = Command::new(program).args(args).exec();
    }
    Some(ExitCode::from(127))
}

impl Host {
    /// How traffic is captured here.
    #[must_use]
    pub fn capture(&self) -> Capture {
        match self {
            Self::Netns(_) => Capture::Redirect,
            Self::Plain => Capture::None,
        }
    }

    /// Makes room for a workload.
    ///
    /// # Errors
    /// When the sandbox refuses.
    pub fn add(&self, workload: &Workload) -> Result<(), CliError> {
        match self {
            Self::Netns(sandbox) => {
                let added = sandbox.add_workload(&workload.name, workload.address);
                added.map_err(|error| failed(&format!("cannot add workload {}", workload.name), &error))
            }
            Self::Plain => Ok(()),
        }
    }

    /// Starts a process in a workload.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn spawn(&self, workload: &str, spec: ProcessSpec) -> Result<Task, CliError> {
        let program = spec.program.display().to_string();
        let kind = match self {
            Self::Netns(sandbox) => sandbox
                .spawn(workload, spec)
                .map(Kind::Netns)
                .map_err(|error| failed(&format!("cannot start {program} in {workload}"), &error))?,
            Self::Plain => Kind::Plain(Arc::new(spawn_plain(spec).map_err(|error| {
                CliError::internal(format!("cannot start {program} for {workload}")).because(&error)
            })?)),
        };
        Ok(Task { name: workload.to_owned(), kind })
    }

    /// Starts a process outside of all workloads: as a user's shell would.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn spawn_outside(spec: ProcessSpec) -> Result<Task, CliError> {
        let program = spec.program.display().to_string();
        let started = spawn_plain(spec);
        let plain = started.map_err(|error| CliError::internal(format!("cannot start {program}")).because(&error))?;
        Ok(Task { name: "outside".to_owned(), kind: Kind::Plain(Arc::new(plain)) })
    }
}

impl Task {
    /// The workload it runs in.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How it ended, if it has.
    #[must_use]
    pub fn exit(&self) -> Option<Exit> {
        match &self.kind {
            Kind::Netns(process) => process.exit(),
            Kind::Plain(plain) => {
                let status = plain.child.lock().unwrap_or_else(PoisonError::into_inner).try_wait().ok()??;
                Some(status.code().map_or_else(|| Exit::Signal(status.signal().unwrap_or_default()), Exit::Code))
            }
        }
    }

    /// Waits until it has ended; `None` when it has not within `limit`.
    pub async fn wait(&self, limit: Duration) -> Option<Exit> {
        let until = Instant::now() + limit;
        loop {
            if let Some(exit) = self.exit() {
                return Some(exit);
            }
            if Instant::now() >= until {
                return None;
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Sends a signal to it and what it started. One that has ended takes no notice.
    pub fn signal(&self, signal: Signal) {
        match &self.kind {
            // A sandbox that has ended took the process along.
            Kind::Netns(process) => drop(process.signal(signal as i32)),
            Kind::Plain(plain) => {
                if self.exit().is_none() {
                    let _ = killpg(plain.group, signal);
                }
            }
        }
    }

    /// Asks it to end, and ends it when it has not within `grace`.
    pub async fn stop(&self, grace: Duration) {
        self.signal(Signal::SIGTERM);
        if self.wait(grace).await.is_none() {
            self.signal(Signal::SIGKILL);
            self.wait(Duration::from_secs(5)).await;
        }
    }
}

impl Drop for Plain {
    fn drop(&mut self) {
        let child = self.child.get_mut().unwrap_or_else(PoisonError::into_inner);
        if matches!(child.try_wait(), Ok(None)) {
            let _ = killpg(self.group, Signal::SIGKILL);
            let _ = child.wait();
        }
    }
}

fn failed(message: &str, error: &SandboxError) -> CliError {
    CliError::internal(message).because(error)
}

fn spawn_plain(spec: ProcessSpec) -> std::io::Result<Plain> {
    let mut command = Command::new("/proc/self/exe");
    command.arg(GUARD_ARG).arg(std::process::id().to_string()).arg(&spec.program).args(&spec.args);
    if spec.clear_env {
        command.env_clear();
    }
    command.envs(&spec.env).stdin(Stdio::null()).process_group(0);
    command.stdout(stream(spec.stdout)).stderr(stream(spec.stderr));
    if let Some(directory) = &spec.directory {
        command.current_dir(directory);
    }
    let sockets: Vec<(std::net::SocketAddr, OwnedFd)> = spec.sockets;
    if sockets.is_empty() {
        command.env_remove(LISTEN_FDS);
    } else {
        let named: Vec<String> =
            sockets.iter().map(|(address, socket)| format!("{address}={}", socket.as_raw_fd())).collect();
        command.env(LISTEN_FDS, named.join(","));
    }
    for (_, socket) in &sockets {
        // Processes are started one after the other by one thread, and these copies close when this returns: no
        // other child gets them.
        fcntl_setfd(socket, FdFlags::empty())?;
    }
    let child = command.spawn()?;
    let group = Pid::from_raw(i32::try_from(child.id()).map_err(std::io::Error::other)?);
    Ok(Plain { child: Mutex::new(child), group })
}

fn stream(output: Output) -> Stdio {
    match output {
        Output::Null => Stdio::null(),
        Output::File(file) => file.into(),
    }
}
