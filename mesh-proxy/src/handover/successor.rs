//! A process that starts its own successor: SIGUSR2, as with nginx and HAProxy.
//!
//! The successor is the program that now is where this one was started from, with the same arguments and variables. It takes
//! the sockets over as any new process would; that it is a child only decides what becomes of this process (see
//! [`supervise`](super::supervise)).

use std::ffi::OsString;
use std::io;
use std::path::PathBuf;

use mesh_api_rt::listen::LISTEN_FDS;
use tokio::process::{Child, Command};

use super::supervise;

/// The argument of `proxy` that makes a process take over.
pub const TAKE_OVER: &str = "--take-over";
/// The variable that says the same.
pub const TAKE_OVER_ENV: &str = "LATEEN_TAKE_OVER";

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
        Ok(Self { program: std::env::current_exe()?, args })
    }

    /// Starts the successor.
    ///
    /// # Errors
    /// When the program is gone or cannot be run.
    pub fn start(&self) -> io::Result<Child> {
        // The successor's successor comes back to this process when its own parent has ended.
        supervise::adopt_orphans()?;
        let mut command = Command::new(&self.program);
        command.args(&self.args).env_remove(LISTEN_FDS);
        if !supervise::is_supervised() {
            command.env(supervise::SUPERVISOR_ENV, std::process::id().to_string());
        }
        let child = command.spawn()?;
        tracing::info!(pid = child.id(), program = %self.program.display(), "Successor started");
        Ok(child)
    }
}
