//! The inside of a sandbox: what this program does when it is started again as a helper.
//!
//! Two stages, because a process does not itself enter the process namespace it makes: [`enter`] makes the
//! namespaces and starts the second stage, which is process 1 in them and runs [`init`] until the connection on its
//! standard input ends.

mod enter;
mod init;
mod network;
mod spawn;

use std::os::fd::{AsFd, OwnedFd};
use std::process::ExitCode;

/// First argument of this program when it is a helper. Not for users.
pub const HELPER_ARG: &str = "internal-sandbox";
/// Second argument of the second stage.
const INIT_ARG: &str = "init";

/// Runs the helper if this process was started as one; `None` for every other start.
///
/// Every program that makes a [`Sandbox`](super::Sandbox) with itself as the helper calls this first thing in `main`,
/// before it starts a thread or a runtime, and ends with the code it gets.
#[must_use]
pub fn helper_main() -> Option<ExitCode> {
    let mut args = std::env::args_os().skip(1);
    if args.next()? != HELPER_ARG {
        return None;
    }
    let stage = match args.next() {
        None => enter::run as fn(OwnedFd) -> ExitCode,
        Some(stage) if stage == INIT_ARG => init::run,
        Some(_) => return Some(ExitCode::from(2)),
    };
    // The connection to the outside is the standard input; the copy does not pass to the processes we start.
    Some(match std::io::stdin().as_fd().try_clone_to_owned() {
        Ok(control) => stage(control),
        Err(_) => ExitCode::from(2),
    })
}
