//! Second stage: process 1 of the sandbox. Carries out requests one after the other, on one thread, because it walks
//! between network namespaces; reaps whatever ends; ends itself when the outside is gone.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::process::ExitCode;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::{SigSet, Signal, killpg};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid, waitpid};
use nix::unistd::Pid;
use rustix::event::{PollFd, PollFlags, poll};

use super::{network, spawn};
use crate::netns::protocol::{Exit, Failure, FromHelper, ProcessId, Request, RequestBody, Settings, receive, send};

pub(super) fn run(control: OwnedFd) -> ExitCode {
    // If the first stage dies, so do we: there would be no one for the outside to wait for.
    let _ = set_pdeathsig(Signal::SIGKILL);
    match Init::start(control) {
        Ok(Some(mut init)) => init.serve(),
        Ok(None) => ExitCode::FAILURE,
        Err(_) => ExitCode::FAILURE,
    }
}

struct Init {
    control: OwnedFd,
    children: SignalFd,
    settings: Settings,
    /// The network namespace with the bridge, where this process is when it does nothing.
    home: File,
    workloads: HashMap<String, File>,
    wires: u32,
    processes: BTreeMap<i32, ProcessId>,
}

impl Init {
    /// Makes the network that the first message asks for; `None` when that failed and the outside was told.
    fn start(control: OwnedFd) -> io::Result<Option<Self>> {
        let Some((Request { body: RequestBody::Start(settings), .. }, _)) = receive(&control)? else {
            return Ok(None);
        };
        match Self::prepare(&settings) {
            Ok((children, home)) => {
                send(&control, &FromHelper::Ready, &[])?;
                let (workloads, processes) = (HashMap::new(), BTreeMap::new());
                Ok(Some(Self { control, children, settings, home, workloads, wires: 0, processes }))
            }
            Err(failure) => {
                send(&control, &FromHelper::Failed(failure), &[])?;
                Ok(None)
            }
        }
    }

    fn prepare(settings: &Settings) -> Result<(SignalFd, File), Failure> {
        let mut mask = SigSet::empty();
        mask.add(Signal::SIGCHLD);
        let children = mask
            .thread_block()
            .and_then(|()| SignalFd::with_flags(&mask, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK));
        let children = children.map_err(|error| Failure::new("watch for ended processes", &error.into()))?;
        for (source, target) in &settings.binds {
            let bound = mount(Some(source), target, None::<&str>, MsFlags::MS_BIND, None::<&str>);
            let step = || format!("show {} as {}", source.display(), target.display());
            bound.map_err(|error| Failure::new(step(), &error.into()))?;
        }
        network::make_bridge(settings.gateway, settings.prefix)?;
        Ok((children, open_netns()?))
    }

    /// Serves until the outside is gone. Returning ends process 1, and the kernel ends everything else.
    fn serve(&mut self) -> ExitCode {
        loop {
            let (asked, ended);
            {
                let mut ready = [
                    PollFd::new(&self.control, PollFlags::IN),
                    PollFd::from_borrowed_fd(self.children.as_fd(), PollFlags::IN),
                ];
                match poll(&mut ready, None) {
                    Ok(_) => {}
                    Err(rustix::io::Errno::INTR) => continue,
                    Err(_) => return ExitCode::FAILURE,
                }
                let [control, children] = &ready;
                asked = !control.revents().is_empty();
                ended = !children.revents().is_empty();
            }
            // First what has ended, so that an answer to "signal it" never says more than is so.
            if ended && self.reap().is_err() {
                return ExitCode::FAILURE;
            }
            if asked {
                match receive(&self.control) {
                    Ok(Some((request, files))) => {
                        if self.answer(request, files).is_err() {
                            return ExitCode::FAILURE;
                        }
                    }
                    Ok(None) => return ExitCode::SUCCESS,
                    Err(_) => return ExitCode::FAILURE,
                }
            }
        }
    }

    fn answer(&mut self, Request { id, body }: Request, files: Vec<OwnedFd>) -> io::Result<()> {
        let result = match body {
            RequestBody::Start(_) => Err(Failure::new("start twice", &io::ErrorKind::AlreadyExists.into())),
            RequestBody::AddWorkload { name, address } => self.add_workload(name, address).map(|()| None),
            RequestBody::Spawn(spec) => self.spawn(&spec, files),
            RequestBody::Signal { process, signal } => self.signal(process, signal).map(|()| None),
        };
        send(&self.control, &FromHelper::Answer { id, result }, &[])
    }

    fn add_workload(&mut self, name: String, address: std::net::Ipv4Addr) -> Result<(), Failure> {
        if self.workloads.contains_key(&name) {
            return Err(Failure::new(format!("add workload {name} again"), &io::ErrorKind::AlreadyExists.into()));
        }
        let step = |error: nix::Error| Failure::new("make a network namespace", &error.into());
        unshare(CloneFlags::CLONE_NEWNET).map_err(step)?;
        let netns = open_netns();
        self.go_home()?;
        let netns = netns?;
        let number = self.wires;
        self.wires += 1;
        let Settings { gateway, prefix, .. } = self.settings;
        let wired = network::make_wire(number, &netns)
            .and_then(|()| self.visit(&netns, || network::configure(number, address, prefix, gateway)));
        if let Err(failure) = wired {
            // Without the wire the half-made namespace vanishes with the last handle to it. That the wire may not
            // have come into being is no further news.
            let _ = network::remove_wire(number);
            return Err(failure);
        }
        self.workloads.insert(name, netns);
        Ok(())
    }

    fn spawn(&mut self, spec: &crate::netns::protocol::Spawn, files: Vec<OwnedFd>) -> Result<Option<u32>, Failure> {
        let Some(netns) = self.workloads.get(&spec.workload) else {
            let step = format!("start a process in workload {}", spec.workload);
            return Err(Failure::new(step, &io::ErrorKind::NotFound.into()));
        };
        let pid = self.visit(netns, || spawn::start(spec, files))?;
        self.processes.insert(pid.as_raw(), spec.process);
        Ok(spawn::outside_pid(pid))
    }

    /// Runs `body` in another network namespace and comes back.
    fn visit<T>(&self, netns: &File, body: impl FnOnce() -> Result<T, Failure>) -> Result<T, Failure> {
        let entered = setns(netns, CloneFlags::CLONE_NEWNET);
        entered.map_err(|error| Failure::new("enter a network namespace", &error.into()))?;
        let result = body();
        self.go_home()?;
        result
    }

    fn go_home(&self) -> Result<(), Failure> {
        let returned = setns(&self.home, CloneFlags::CLONE_NEWNET);
        returned.map_err(|error| Failure::new("return to the first network namespace", &error.into()))
    }

    fn signal(&self, process: ProcessId, signal: i32) -> Result<(), Failure> {
        let failed = |error: nix::Error| Failure::new(format!("send signal {signal}"), &error.into());
        let signal = Signal::try_from(signal).map_err(failed)?;
        match self.processes.iter().find(|(_, known)| **known == process) {
            Some((pid, _)) => killpg(Pid::from_raw(*pid), signal).map_err(failed),
            // It has ended, which is what a signal is for.
            None => Ok(()),
        }
    }

    /// Reports every process of ours that has ended, and takes note of every other.
    fn reap(&mut self) -> io::Result<()> {
        while let Ok(Some(_)) = self.children.read_signal() {}
        loop {
            // Looked at first and left in place, so that its group's number cannot be taken by another meanwhile.
            let status = waitid(Id::All, WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT);
            let Ok(status) = status else { return Ok(()) };
            let exit = match status {
                WaitStatus::Exited(_, code) => Exit::Code(code),
                WaitStatus::Signaled(_, signal, _) => Exit::Signal(signal as i32),
                _ => return Ok(()),
            };
            let Some(pid) = status.pid() else { return Ok(()) };
            let process = self.processes.remove(&pid.as_raw());
            if process.is_some() {
                // What it left running in its group goes with it. There may be nothing.
                let _ = killpg(pid, Signal::SIGKILL);
            }
            let _ = waitpid(pid, Some(WaitPidFlag::WNOHANG));
            if let Some(process) = process {
                send(&self.control, &FromHelper::Exited { process, exit }, &[])?;
            }
        }
    }
}

fn open_netns() -> Result<File, Failure> {
    File::open("/proc/self/ns/net").map_err(|error| Failure::new("open /proc/self/ns/net", &error))
}
