//! A process that starts its own successor: SIGUSR2, as with nginx and HAProxy.
//!
//! The successor is the program that now is where this one was started from, or one that was brought (see
//! [`replace`](super::replace)), with the same arguments and variables. It takes the sockets over as any new process would;
//! that it is a child only decides what becomes of this process (see [`supervise`](super::supervise)).

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use mesh_api_rt::listen::LISTEN_FDS;
use tokio::process::{Child, Command};

use super::supervise;

/// The argument of `proxy` that makes a process take over.
const TAKE_OVER: &str = "--take-over";
/// This program, wherever it is.
const OWN: &str = "/proc/self/exe";

/// How this process was started.
#[derive(Clone, Debug)]
pub struct Launcher {
    program: PathBuf,
    args: Vec<OsString>,
}

impl Launcher {
    /// Of this process. To be called at its start: later its program may have been replaced.
    ///
    /// # Errors
    /// When the program cannot be found.
    pub fn of_this_process() -> io::Result<Self> {
        let mut args: Vec<OsString> = std::env::args_os().skip(1).collect();
        if !args.iter().any(|arg| arg == TAKE_OVER) {
            args.push(TAKE_OVER.into());
        }
        Ok(Self { program: program(std::env::current_exe()?), args })
    }

    /// Starts the successor, from `brought` if that is given.
    ///
    /// # Errors
    /// When the program is gone or cannot be run.
    pub fn start(&self, brought: Option<&OwnedFd>) -> io::Result<Child> {
        let brought = brought.map(|program| PathBuf::from(format!("/proc/self/fd/{}", program.as_raw_fd())));
        let program = brought.as_ref().unwrap_or(&self.program);
        // The successor's successor comes back to this process when its own parent has ended.
        supervise::adopt_orphans()?;
        let mut command = Command::new(program);
        command.args(&self.args).env_remove(LISTEN_FDS);
        if !supervise::is_supervised() {
            command.env(supervise::SUPERVISOR_ENV, std::process::id().to_string());
        }
        let child = command.spawn()?;
        tracing::info!(pid = child.id(), program = %program.display(), "Successor started");
        Ok(child)
    }
}

/// Where the next process is started from: the path, so that a program that was put in its place is found; but a program that was
/// brought from another container is not at its path here, where the old one is.
fn program(path: PathBuf) -> PathBuf {
    let identity = |path: &Path| fs::metadata(path).map(|file| (file.dev(), file.ino())).ok();
    if identity(&path).is_some_and(|found| Some(found) == identity(Path::new(OWN))) { path } else { PathBuf::from(OWN) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_is_not_at_its_path_is_started_from_itself() {
        let own = std::env::current_exe().unwrap();
        assert_eq!(program(own.clone()), own);
        for other in ["/bin/sh", "/nowhere/mesh-proxy"] {
            assert_eq!(program(other.into()), Path::new(OWN));
        }
    }
}
