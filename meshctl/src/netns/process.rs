//! Processes in a sandbox, as seen from outside.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::{self, Read, Seek};
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::control::{ANSWER_LIMIT, Control};
use super::error::SandboxError;
use super::protocol::{Exit, ProcessId, RequestBody};

/// Environment variable in which a process finds the listening sockets handed to it, as `mesh-proxy` reads it:
/// `address=descriptor`, separated by commas.
pub const LISTEN_FDS: &str = "LATEEN_LISTEN_FDS";

/// A process to start.
#[derive(Debug)]
pub struct ProcessSpec {
    /// The program; a bare name is looked up in `PATH`.
    pub program: PathBuf,
    /// Its arguments, without its own name.
    pub args: Vec<String>,
    /// Environment variables to set.
    pub env: BTreeMap<String, String>,
    /// Whether it starts without the environment of this process.
    pub clear_env: bool,
    /// Working directory; `None` is that of this process.
    pub directory: Option<PathBuf>,
    /// Where its standard output goes.
    pub stdout: Output,
    /// Where its standard error goes.
    pub stderr: Output,
    /// Listening sockets opened outside, each under the address that the process's configuration calls it; see
    /// [`LISTEN_FDS`]. At most 60.
    pub sockets: Vec<(SocketAddr, OwnedFd)>,
}

/// Where a stream of a process goes.
#[derive(Debug, Default)]
pub enum Output {
    /// Nowhere.
    #[default]
    Null,
    /// Into an open file.
    File(File),
}

impl ProcessSpec {
    /// A process that runs `program` without arguments and shows nothing.
    #[must_use]
    pub fn new(program: impl Into<PathBuf>) -> Self {
        Self {
            program: program.into(),
            args: Vec::new(),
            env: BTreeMap::new(),
            clear_env: false,
            directory: None,
            stdout: Output::Null,
            stderr: Output::Null,
            sockets: Vec::new(),
        }
    }

    /// Adds arguments.
    #[must_use]
    pub fn args<T: Into<String>>(mut self, args: impl IntoIterator<Item = T>) -> Self {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    /// Sets an environment variable.
    #[must_use]
    pub fn env(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.env.insert(name.into(), value.into());
        self
    }

    /// Hands in a listening socket; see [`ProcessSpec::sockets`].
    #[must_use]
    pub fn socket(mut self, name: SocketAddr, socket: impl Into<OwnedFd>) -> Self {
        self.sockets.push((name, socket.into()));
        self
    }

    /// Sends both streams into one file.
    ///
    /// # Errors
    /// When the file's descriptor cannot be duplicated.
    pub fn log(mut self, file: File) -> io::Result<Self> {
        self.stderr = Output::File(file.try_clone()?);
        self.stdout = Output::File(file);
        Ok(self)
    }
}

impl Output {
    pub(super) fn into_fd(self) -> io::Result<OwnedFd> {
        Ok(match self {
            Self::Null => File::options().write(true).open("/dev/null")?,
            Self::File(file) => file,
        }
        .into())
    }
}

/// A process in a sandbox. Dropping this neither stops nor forgets it: it ends with the sandbox.
#[derive(Clone)]
pub struct Process {
    control: Arc<Control>,
    id: ProcessId,
    workload: String,
    pid: Option<u32>,
}

impl Process {
    pub(super) fn new(control: Arc<Control>, id: ProcessId, workload: String, pid: Option<u32>) -> Self {
        Self { control, id, workload, pid }
    }

    /// The workload it runs in.
    #[must_use]
    pub fn workload(&self) -> &str {
        &self.workload
    }

    /// Its number outside, as `ps` and `kill` in the user's shell know it, if the system tells.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.pid
    }

    /// How it ended, if it has.
    #[must_use]
    pub fn exit(&self) -> Option<Exit> {
        self.control.exit(self.id)
    }

    /// Waits until it ends, `limit` long; `None` when it has not by then.
    ///
    /// # Errors
    /// When the sandbox ended, and with it the process.
    pub fn wait(&self, limit: Duration) -> Result<Option<Exit>, SandboxError> {
        self.control.wait_exit(self.id, limit)
    }

    /// Sends a signal, by its number, to the process and to all that it started and left in its process group. One
    /// that has ended takes no notice.
    ///
    /// # Errors
    /// When there is no such signal, or the sandbox ended.
    pub fn signal(&self, signal: i32) -> Result<(), SandboxError> {
        self.control.ask(RequestBody::Signal { process: self.id, signal }, &[]).map(drop)
    }

    /// Asks it to end (`SIGTERM`), waits for `grace`, then ends it (`SIGKILL`).
    ///
    /// # Errors
    /// When the sandbox ended meanwhile.
    pub fn stop(&self, grace: Duration) -> Result<Exit, SandboxError> {
        self.signal(libc::SIGTERM)?;
        if let Some(exit) = self.wait(grace)? {
            return Ok(exit);
        }
        self.signal(libc::SIGKILL)?;
        // The kernel does not refuse this one, it may only take a moment.
        self.wait(ANSWER_LIMIT)?.ok_or(SandboxError::Silent)
    }
}

impl fmt::Debug for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Process").field("workload", &self.workload).field("pid", &self.pid).finish_non_exhaustive()
    }
}

/// The end of a short-lived process, with what it wrote.
pub(super) fn read_tail(mut file: File) -> io::Result<String> {
    /// As much of a message as a person reads.
    const TAIL_BYTES: u64 = 16 * 1024;
    let length = file.seek(io::SeekFrom::End(0))?;
    file.seek(io::SeekFrom::Start(length.saturating_sub(TAIL_BYTES)))?;
    let mut bytes = Vec::new();
    file.take(TAIL_BYTES).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
