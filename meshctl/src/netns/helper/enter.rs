//! First stage: makes the namespaces, becomes their root, and starts the second stage in them.

use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Command, ExitCode};

use nix::sched::{CloneFlags, unshare};
use nix::unistd::{getegid, geteuid};

use super::{HELPER_ARG, INIT_ARG};
use crate::netns::protocol::{Failure, FromHelper, send};

pub(super) fn run(control: OwnedFd) -> ExitCode {
    match enter().and_then(|()| wait_for_init(&control)) {
        Ok(code) => code,
        Err(failure) => {
            // If no one is there to be told, ending is all that is left to do.
            let _ = send(&control, &FromHelper::Failed(failure), &[]);
            ExitCode::FAILURE
        }
    }
}

fn enter() -> Result<(), Failure> {
    let (uid, gid) = (geteuid(), getegid());
    step("make a user namespace", unshare(CloneFlags::CLONE_NEWUSER).map_err(io::Error::from))?;
    // A user without privileges may map a group only after giving up changing groups (user_namespaces(7)).
    step("write /proc/self/setgroups", fs::write("/proc/self/setgroups", "deny"))?;
    step("become root of the user namespace", fs::write("/proc/self/uid_map", format!("0 {uid} 1")))?;
    step("map the group into the user namespace", fs::write("/proc/self/gid_map", format!("0 {gid} 1")))?;
    let others = CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWPID;
    step("make network, mount and process namespaces", unshare(others).map_err(io::Error::from))
}

/// Starts the second stage and ends when it ends.
fn wait_for_init(control: &OwnedFd) -> Result<ExitCode, Failure> {
    let input = step("copy the connection to the outside", control.as_fd().try_clone_to_owned())?;
    let init = Command::new("/proc/self/exe").args([HELPER_ARG, INIT_ARG]).stdin(input).spawn();
    let status = step("start the second stage", init)?.wait();
    Ok(if step("wait for the second stage", status)?.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn step<T>(what: &str, result: io::Result<T>) -> Result<T, Failure> {
    result.map_err(|error| Failure::new(what, &error))
}
