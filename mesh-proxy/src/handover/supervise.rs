//! What remains of a process whose successor is its child: it passes signals on and ends when the last child has.
//!
//! A service manager or a container runtime looks at the process that it started. Were that to end with its drain, its child
//! would be killed with it. So it makes itself small instead: it runs its own program anew as `mesh-proxy supervise`, with the
//! same number, without threads, sockets and configuration. The successor of a supervised process becomes the supervisor's
//! child when that one ends, so there is one supervisor however often the proxy is replaced.

use std::fs;
use std::io;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use anyhow::Context as _;
use nix::errno::Errno;
use nix::sys::prctl;
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, getpid, getppid};

/// Variable that tells a process who supervises it.
pub const SUPERVISOR_ENV: &str = "LATEEN_SUPERVISOR";
/// The command of the supervisor.
pub const COMMAND: &str = "supervise";
/// Most processes looked at for children.
const MAX_PROCESSES: usize = 64 * 1024;

/// What happened to the supervisor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Event {
    /// A signal that is for the proxy.
    Signal(Signal),
    /// A child ended, with this exit code.
    Ended(u8),
    /// No child is left.
    Childless,
}

/// What to do about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    Nothing,
    /// Pass it on to all children.
    Forward(Signal),
    /// End with this exit code.
    Exit(u8),
}

/// Decides for the supervisor.
#[derive(Clone, Copy, Debug, Default)]
struct Supervisor {
    last: u8,
}

impl Supervisor {
    const fn on(&mut self, event: Event) -> Action {
        match event {
            Event::Signal(signal) => Action::Forward(signal),
            Event::Ended(code) => {
                self.last = code;
                Action::Nothing
            }
            Event::Childless => Action::Exit(self.last),
        }
    }
}

/// Makes descendants whose parent ends children of this process.
///
/// # Errors
/// When the kernel refuses.
pub fn adopt_orphans() -> io::Result<()> {
    Ok(prctl::set_child_subreaper(true)?)
}

/// Whether this process is the child of a supervisor, or of a process that will become one.
#[must_use]
pub fn is_supervised() -> bool {
    std::env::var(SUPERVISOR_ENV).ok().and_then(|pid| pid.parse().ok()) == Some(getppid().as_raw())
}

/// Living children of this process.
#[must_use]
pub fn children() -> Vec<Pid> {
    let own = getpid().as_raw();
    let Ok(processes) = fs::read_dir("/proc") else { return Vec::new() };
    let numbers = processes.take(MAX_PROCESSES).flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    numbers.filter(|pid| parent(*pid) == Some(own)).map(Pid::from_raw).collect()
}

/// The parent of a process that runs.
#[must_use]
pub fn parent(pid: i32) -> Option<i32> {
    parent_in(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// The parent in the text of `/proc/<pid>/stat`; none for a process that has ended and was not waited for.
fn parent_in(stat: &str) -> Option<i32> {
    // The name before may hold anything, parentheses too.
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace();
    let state = fields.next()?;
    if matches!(state, "Z" | "X") { None } else { fields.next()?.parse().ok() }
}

/// Passes a signal to all children.
pub fn forward(signal: Signal) {
    for child in children() {
        // It may have ended meanwhile.
        let _ = kill(child, signal);
    }
}

/// Becomes the supervisor of this process's children. Returns only when that fails.
pub fn become_supervisor() -> io::Error {
    // Held back until the supervisor asks for them.
    if let Err(error) = signals().thread_block() {
        return error.into();
    }
    Command::new("/proc/self/exe").arg(COMMAND).exec()
}

/// What the supervisor passes on, and what it hears of its children.
fn signals() -> SigSet {
    use Signal::{SIGCHLD, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2};
    [SIGTERM, SIGINT, SIGQUIT, SIGHUP, SIGUSR1, SIGUSR2, SIGCHLD].into_iter().collect()
}

/// `mesh-proxy supervise`. Returns the exit code.
///
/// # Errors
/// When signals cannot be waited for.
pub fn run() -> anyhow::Result<u8> {
    let signals = signals();
    signals.thread_block().context("holding signals back")?;
    let mut supervisor = Supervisor::default();
    loop {
        // Children that ended before the first wait are found too.
        while let Some(event) = reap().context("waiting for children")? {
            if let Action::Exit(code) = supervisor.on(event) {
                return Ok(code);
            }
        }
        match signals.wait().context("waiting for signals")? {
            Signal::SIGCHLD => {}
            signal => {
                if let Action::Forward(signal) = supervisor.on(Event::Signal(signal)) {
                    forward(signal);
                }
            }
        }
    }
}

/// What became of a child; `None` while those that are left run.
fn reap() -> Result<Option<Event>, Errno> {
    loop {
        return match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(_, code)) => Ok(Some(Event::Ended(u8::try_from(code).unwrap_or(u8::MAX)))),
            // As shells have it.
            Ok(WaitStatus::Signaled(_, signal, _)) => {
                Ok(Some(Event::Ended(128_u8.saturating_add(u8::try_from(signal as i32).unwrap_or_default()))))
            }
            Ok(WaitStatus::StillAlive) => Ok(None),
            Ok(_) => continue,
            Err(Errno::ECHILD) => Ok(Some(Event::Childless)),
            Err(error) => Err(error),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_ends_as_the_last_of_its_children_did() {
        let mut supervisor = Supervisor::default();
        assert_eq!(supervisor.on(Event::Signal(Signal::SIGTERM)), Action::Forward(Signal::SIGTERM));
        assert_eq!(supervisor.on(Event::Ended(2)), Action::Nothing);
        assert_eq!(supervisor.on(Event::Ended(0)), Action::Nothing);
        assert_eq!(supervisor.on(Event::Childless), Action::Exit(0));
        let mut killed = Supervisor::default();
        assert_eq!(killed.on(Event::Ended(137)), Action::Nothing);
        assert_eq!(killed.on(Event::Childless), Action::Exit(137));
    }

    #[test]
    fn the_parent_is_read_whatever_the_name() {
        assert_eq!(parent_in("42 (mesh-proxy) S 7 42 42 0"), Some(7));
        assert_eq!(parent_in("42 (a) S 9 (b) R 7 42"), Some(7));
        assert_eq!(parent_in("42 (mesh-proxy) Z 7 42"), None);
        assert_eq!(parent_in("nonsense"), None);
    }
}
