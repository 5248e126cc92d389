//! Starting a process in a workload.

use std::fs;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use nix::unistd::Pid;
use rustix::io::{FdFlags, fcntl_setfd};
use rustix::process::{PidfdFlags, pidfd_open};

use crate::netns::process::LISTEN_FDS;
use crate::netns::protocol::{Failure, Spawn};

/// Starts the process in the network namespace that the calling thread is in. `files` are its output, its errors and
/// the sockets that `spec` names.
pub(super) fn start(spec: &Spawn, files: Vec<OwnedFd>) -> Result<Pid, Failure> {
    let failed = |error: &io::Error| Failure::new(format!("start {}", spec.program.display()), error);
    let mut files = files.into_iter();
    let (Some(output), Some(errors)) = (files.next(), files.next()) else {
        return Err(failed(&io::Error::other("no files for its output")));
    };
    let sockets: Vec<OwnedFd> = files.collect();
    if sockets.len() != spec.sockets.len() {
        return Err(failed(&io::Error::other("as many sockets as names are needed")));
    }
    let mut command = Command::new(&spec.program);
    if spec.clear_env {
        command.env_clear();
    }
    // A group of its own, so that a signal reaches whatever the process starts, and nothing else.
    command.args(&spec.args).envs(&spec.env).stdin(Stdio::null()).stdout(output).stderr(errors).process_group(0);
    if let Some(directory) = &spec.directory {
        command.current_dir(directory);
    }
    if sockets.is_empty() {
        command.env_remove(LISTEN_FDS);
    } else {
        let named = spec.sockets.iter().zip(&sockets);
        let named: Vec<String> = named.map(|(name, fd)| format!("{name}={}", fd.as_raw_fd())).collect();
        command.env(LISTEN_FDS, named.join(","));
    }
    for socket in &sockets {
        // This process starts nothing else meanwhile, and its copies close when this function returns.
        fcntl_setfd(socket, FdFlags::empty()).map_err(|error| failed(&error.into()))?;
    }
    let child = command.spawn().map_err(|error| failed(&error))?;
    i32::try_from(child.id()).map(Pid::from_raw).map_err(|error| failed(&io::Error::other(error)))
}

/// The number by which the world outside knows a child of ours, if `/proc` tells.
pub(super) fn outside_pid(child: Pid) -> Option<u32> {
    let pidfd = pidfd_open(rustix::process::Pid::from_raw(child.as_raw())?, PidfdFlags::empty()).ok()?;
    // Our /proc is the one mounted outside, so it speaks in outside numbers (proc(5), fdinfo of pidfds).
    let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", pidfd.as_raw_fd())).ok()?;
    info.lines().find_map(|line| line.strip_prefix("Pid:")?.trim().parse().ok()).filter(|pid| *pid > 0)
}
