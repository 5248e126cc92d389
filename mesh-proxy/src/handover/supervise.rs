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
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid, waitpid};
use nix::unistd::{Pid, getppid};

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

/// Whether this process has children, living or not waited for.
#[must_use]
pub fn has_children() -> bool {
    let look = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
    waitid(Id::All, look) != Err(Errno::ECHILD)
}

/// Living children of this process.
#[must_use]
pub fn children() -> Vec<Pid> {
    // `/proc` may be that of an outer namespace of processes, where all have other numbers.
    let own: Option<i32> = fs::read_link("/proc/self").ok().and_then(|link| link.to_str()?.parse().ok());
    let level = Relation::of("self").map(|own| own.numbers.len());
    let (Some(own), Some(level), Ok(processes)) = (own, level, fs::read_dir("/proc")) else { return Vec::new() };
    let names = processes.take(MAX_PROCESSES).flatten().filter_map(|entry| entry.file_name().into_string().ok());
    let names = names.filter(|name| name.bytes().all(|byte| byte.is_ascii_digit()));
    let child = |name: String| {
        let relation = Relation::of(&name).filter(|relation| relation.lives && relation.parent == own)?;
        relation.numbers.get(level.checked_sub(1)?).copied().map(Pid::from_raw)
    };
    names.filter_map(child).collect()
}

/// What `/proc` tells of a process and its parent.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Relation {
    /// It has not ended.
    lives: bool,
    /// Number of its parent, as `/proc` counts.
    parent: i32,
    /// Its numbers, from the namespace of `/proc` inwards.
    numbers: Vec<i32>,
}

impl Relation {
    fn of(name: &str) -> Option<Self> {
        Self::parse(&fs::read_to_string(format!("/proc/{name}/status")).ok()?)
    }

    /// Reads the text of `/proc/<pid>/status`. A name in it has its line breaks escaped.
    fn parse(status: &str) -> Option<Self> {
        let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
        Some(Self {
            lives: !field("State:")?.starts_with(['Z', 'X']),
            parent: field("PPid:")?.parse().ok()?,
            numbers: field("NSpid:")?.split_ascii_whitespace().map_while(|number| number.parse().ok()).collect(),
        })
    }
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

/// How the children ended that this process adopted; `None` while one is left. For a process that waits for no child of its own.
///
/// # Errors
/// When the kernel does not tell.
pub fn adopted() -> Result<Option<u8>, Errno> {
    let mut supervisor = Supervisor::default();
    while let Some(event) = reap()? {
        if let Action::Exit(code) = supervisor.on(event) {
            return Ok(Some(code));
        }
    }
    Ok(None)
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
    fn relations_are_read_across_namespaces() {
        let text = "Name:\tmesh-proxy\nState:\tS (sleeping)\nPid:\t4711\nPPid:\t4700\nNSpid:\t4711\t17\n";
        let relation = Relation { lives: true, parent: 4700, numbers: vec![4711, 17] };
        assert_eq!(Relation::parse(text), Some(relation));
        let dead = text.replace("S (sleeping)", "Z (zombie)");
        assert!(Relation::parse(&dead).is_some_and(|relation| !relation.lives));
        assert_eq!(Relation::parse("Name:\tx\n"), None);
    }

    #[test]
    fn a_child_is_found_while_it_lives() {
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let pid = Pid::from_raw(i32::try_from(child.id()).unwrap());
        assert!(children().contains(&pid) && has_children());
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(!children().contains(&pid));
    }
}
