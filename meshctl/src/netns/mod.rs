//! A network of our own without root: one user namespace, in it one network namespace per workload, all joined by
//! veth pairs to a bridge. `meshctl demo` and the end-to-end tests run whole meshes in it, with real addresses, real
//! ports and real redirect rules.
//!
//! [`Sandbox::create`] starts this program again as a helper (see [`helper_main`]), because only a process with a
//! single thread may enter a user namespace. The helper's child is process 1 of a process namespace: when the
//! connection to us breaks, for whatever reason, it ends, and with it the kernel kills every process inside and
//! removes every namespace. Nothing is left behind, and nothing has to be cleaned up.
//!
//! Inside, every process is root of the user namespace and our user outside: there is only one user id, so the proxy
//! is told from its workload by socket mark. What is opened outside (files, listening sockets) works inside.

mod control;
mod error;
mod helper;
mod process;
mod protocol;
mod reason;
mod sandbox;

pub use self::error::SandboxError;
pub use self::helper::{HELPER_ARG, helper_main};
pub use self::process::{LISTEN_FDS, Output, Process, ProcessSpec};
pub use self::protocol::Exit;
pub use self::reason::Reason;
pub use self::sandbox::{Sandbox, SandboxConfig};

/// Whether this machine gives an ordinary user a sandbox. Answered by making one, because nothing else is sure.
///
/// # Errors
/// Why not, in words for the user.
pub fn userns_available(config: &SandboxConfig) -> Result<(), Reason> {
    match Sandbox::create(config) {
        Ok(_) => Ok(()),
        Err(SandboxError::Unavailable(reason)) => Err(reason),
        Err(error) => Err(Reason::Other { step: "make a sandbox".to_owned(), message: error.to_string() }),
    }
}
