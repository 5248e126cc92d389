//! The outside of a sandbox: starts the helper, talks to it, keeps note of what it says.

use std::net::Ipv4Addr;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::fs::{MemfdFlags, memfd_create};
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{Shutdown, shutdown};

use super::control::{ANSWER_LIMIT, Control};
use super::error::SandboxError;
use super::helper::HELPER_ARG;
use super::process::{Output, Process, ProcessSpec, read_tail};
use super::protocol::{FromHelper, Request, RequestBody, Settings, Spawn, pair, receive, send};
use super::reason::Reason;

/// How to make a sandbox.
#[derive(Clone, Debug)]
pub struct SandboxConfig {
    /// The program that is started as helper: one whose `main` begins with [`helper_main`](super::helper_main). By
    /// default this program.
    pub helper: PathBuf,
    /// Address of the bridge, every workload's default gateway. Default 10.77.0.1.
    pub gateway: Ipv4Addr,
    /// Length of the network's prefix, in bits. Default 16.
    pub prefix: u8,
    /// Files shown inside in place of others, as (file, place): the hosts file of the mesh as `/etc/hosts`, for
    /// example. Both must exist.
    pub binds: Vec<(PathBuf, PathBuf)>,
}

/// A network of our own, with processes in it. Dropping it ends all of them.
#[derive(Debug)]
pub struct Sandbox {
    control: Arc<Control>,
    listener: Option<JoinHandle<()>>,
    helper: Child,
    gateway: Ipv4Addr,
    prefix: u8,
}

impl Default for SandboxConfig {
    fn default() -> Self {
        Self {
            helper: PathBuf::from("/proc/self/exe"),
            gateway: Ipv4Addr::new(10, 77, 0, 1),
            prefix: 16,
            binds: Vec::new(),
        }
    }
}

impl Sandbox {
    /// Makes the namespaces and the bridge. Blocks until they are there.
    ///
    /// # Errors
    /// [`SandboxError::Unavailable`] says in words for the user why this machine does not allow it.
    pub fn create(config: &SandboxConfig) -> Result<Self, SandboxError> {
        let io = |doing| move |source| SandboxError::Io { doing, source };
        let (ours, theirs) = pair().map_err(io("open a connection for the sandbox's helper"))?;
        let mut helper = Command::new(&config.helper)
            .arg(HELPER_ARG)
            .stdin(theirs)
            .stdout(Stdio::null())
            // Out of reach of Ctrl-C, which is for us: we end the sandbox in good order.
            .process_group(0)
            .spawn()
            .map_err(|source| SandboxError::Helper { helper: config.helper.clone(), source })?;
        if let Err(error) = greet(&ours, config) {
            shutdown(&ours, Shutdown::Both).ok();
            let _ = helper.kill();
            let _ = helper.wait();
            return Err(error);
        }
        let control = Arc::new(Control::new(ours));
        let heard = Arc::clone(&control);
        let listener = std::thread::Builder::new()
            .name("sandbox".to_owned())
            .spawn(move || heard.listen())
            .map_err(io("start a thread for the sandbox"))?;
        let SandboxConfig { gateway, prefix, .. } = *config;
        Ok(Self { control, listener: Some(listener), helper, gateway, prefix })
    }

    /// Makes a workload: a network namespace with loopback and an interface `eth0` that has `address`.
    ///
    /// # Errors
    /// When the address is outside the sandbox's network, the name is taken, or the system refuses.
    pub fn add_workload(&self, name: &str, address: Ipv4Addr) -> Result<(), SandboxError> {
        let (gateway, prefix) = (self.gateway, self.prefix);
        if !is_usable(address, gateway, prefix) {
            return Err(SandboxError::Address { address, gateway, prefix });
        }
        self.control.ask(RequestBody::AddWorkload { name: name.to_owned(), address }, &[]).map(drop)
    }

    /// Starts a process in a workload.
    ///
    /// # Errors
    /// When there is no such workload or the program cannot be started.
    pub fn spawn(&self, workload: &str, spec: ProcessSpec) -> Result<Process, SandboxError> {
        let io = |source| SandboxError::Io { doing: "open the process's output", source };
        let mut files = vec![spec.stdout.into_fd().map_err(io)?, spec.stderr.into_fd().map_err(io)?];
        let mut names = Vec::new();
        for (name, socket) in spec.sockets {
            names.push(name);
            files.push(socket);
        }
        let process = self.control.take_number();
        let body = RequestBody::Spawn(Box::new(Spawn {
            process,
            workload: workload.to_owned(),
            program: spec.program,
            args: spec.args,
            env: spec.env,
            clear_env: spec.clear_env,
            directory: spec.directory,
            sockets: names,
        }));
        let files: Vec<_> = files.iter().map(AsFd::as_fd).collect();
        let pid = self.control.ask(body, &files)?;
        self.control.note_running();
        Ok(Process::new(Arc::clone(&self.control), process, workload.to_owned(), pid))
    }

    /// Runs a program in a workload until it ends, at most for `limit`, and returns the end of what it wrote. Where
    /// its streams go is decided here; [`ProcessSpec::stdout`] and `stderr` are overwritten.
    ///
    /// # Errors
    /// When it cannot be started, takes longer, or does not succeed; then with the end of what it wrote.
    pub fn run(&self, workload: &str, mut spec: ProcessSpec, limit: Duration) -> Result<String, SandboxError> {
        let io = |source| SandboxError::Io { doing: "keep what a program writes", source };
        let output = memfd_create("output", MemfdFlags::CLOEXEC).map_err(|error| io(error.into()))?;
        let output = std::fs::File::from(output);
        spec.stdout = Output::File(output.try_clone().map_err(io)?);
        spec.stderr = Output::File(output.try_clone().map_err(io)?);
        let program = spec.program.display().to_string();
        let process = self.spawn(workload, spec)?;
        let workload = workload.to_owned();
        let Some(exit) = process.wait(limit)? else {
            process.signal(libc::SIGKILL)?;
            return Err(SandboxError::Late { program, workload, limit });
        };
        let output = read_tail(output).map_err(io)?;
        if exit.success() { Ok(output) } else { Err(SandboxError::Failed { program, workload, exit, output }) }
    }

    /// Ends everything in good order: asks every process in `processes` to end (`SIGTERM`), all at once, waits for
    /// `grace`, then ends the sandbox and with it whatever still runs.
    ///
    /// # Errors
    /// When the sandbox had already ended.
    pub fn shutdown(self, processes: &[Process], grace: Duration) -> Result<(), SandboxError> {
        for process in processes {
            process.signal(libc::SIGTERM)?;
        }
        self.control.wait_all(grace);
        Ok(())
    }

    /// Whether the sandbox still stands.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        !self.control.has_ended()
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        // Process 1 inside reads the end of the connection and ends, and the kernel ends the rest.
        self.control.close();
        let _ = self.helper.wait();
        if let Some(listener) = self.listener.take() {
            let _ = listener.join();
        }
    }
}

/// Sends the settings and waits until the helper is ready.
fn greet(socket: &OwnedFd, config: &SandboxConfig) -> Result<(), SandboxError> {
    let io = |source| SandboxError::Io { doing: "talk to the sandbox's helper", source };
    let settings = Settings { gateway: config.gateway, prefix: config.prefix, binds: config.binds.clone() };
    let sent = send(socket, &Request { id: 0, body: RequestBody::Start(settings) }, &[]);
    set_socket_timeout(socket, Timeout::Recv, Some(ANSWER_LIMIT)).map_err(|error| io(error.into()))?;
    // A helper that no longer reads must not stop us.
    set_socket_timeout(socket, Timeout::Send, Some(ANSWER_LIMIT)).map_err(|error| io(error.into()))?;
    // Even when it could not be told, it may have said why. A socket whose other end went without having read says that by
    // an error, at either end.
    let gone = |error: &std::io::Error| {
        matches!(error.kind(), std::io::ErrorKind::ConnectionReset | std::io::ErrorKind::BrokenPipe)
    };
    let heard = match receive(socket) {
        Err(error) if gone(&error) => None,
        heard => heard.map_err(io)?,
    };
    match heard {
        Some((FromHelper::Ready, _)) => {}
        Some((FromHelper::Failed(failure), _)) => return Err(SandboxError::Unavailable(Reason::of(&failure))),
        Some(_) => return Err(SandboxError::Silent),
        None => {
            return Err(match sent {
                Err(error) if !gone(&error) => io(error),
                _ => SandboxError::Ended,
            });
        }
    }
    set_socket_timeout(socket, Timeout::Recv, None).map_err(|error| io(error.into()))
}

/// Whether a workload can have this address: in the network, and not the bridge's, the network's or the broadcast's.
fn is_usable(address: Ipv4Addr, gateway: Ipv4Addr, prefix: u8) -> bool {
    let host_bits = u32::MAX.checked_shr(u32::from(prefix)).unwrap_or(0);
    let (address, gateway) = (address.to_bits(), gateway.to_bits());
    let host = address & host_bits;
    address & !host_bits == gateway & !host_bits && address != gateway && host != 0 && host != host_bits
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workloads_have_addresses_of_the_network() {
        let gateway = Ipv4Addr::new(10, 77, 0, 1);
        let check = |address: [u8; 4], prefix| is_usable(address.into(), gateway, prefix);
        assert!(check([10, 77, 0, 2], 16) && check([10, 77, 255, 254], 16) && check([11, 0, 0, 0], 0));
        assert!(!check([10, 77, 0, 1], 16) && !check([10, 77, 0, 0], 16) && !check([10, 77, 255, 255], 16));
        assert!(!check([10, 78, 0, 2], 16) && !check([10, 77, 0, 2], 32));
    }

    #[test]
    fn a_helper_that_is_none_is_an_error() {
        let missing = SandboxConfig { helper: "/nowhere/at-all".into(), ..SandboxConfig::default() };
        assert!(matches!(Sandbox::create(&missing), Err(SandboxError::Helper { .. })));
        let wrong = SandboxConfig { helper: "/bin/true".into(), ..SandboxConfig::default() };
        assert!(matches!(Sandbox::create(&wrong), Err(SandboxError::Ended)));
    }
}
