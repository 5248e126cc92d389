//! What can go wrong with a sandbox.

use std::io;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::time::Duration;

use super::protocol::Exit;
use super::reason::Reason;

/// A sandbox could not be made, or something in it not be done.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// This machine does not allow it.
    #[error("no sandbox without root here: {0}")]
    Unavailable(Reason),
    /// The helper could not be started.
    #[error("cannot start {} as the sandbox's helper", helper.display())]
    Helper {
        /// The program.
        helper: PathBuf,
        /// The system's error.
        #[source]
        source: io::Error,
    },
    /// The address is not one that a workload can have.
    #[error("{address} is no address for a workload: the network is {gateway}/{prefix}")]
    Address {
        /// The address asked for.
        address: Ipv4Addr,
        /// The bridge's own address.
        gateway: Ipv4Addr,
        /// Length of the prefix.
        prefix: u8,
    },
    /// The inside could not do what was asked.
    #[error("cannot {step}: {message}")]
    Refused {
        /// What was asked.
        step: String,
        /// What the system said.
        message: String,
    },
    /// A program that should have succeeded did not.
    #[error("{program} in {workload} ended with {exit}: {output}")]
    Failed {
        /// The program.
        program: String,
        /// Where it ran.
        workload: String,
        /// How it ended.
        exit: Exit,
        /// The end of what it wrote.
        output: String,
    },
    /// A program did not end in time.
    #[error("{program} in {workload} did not end within {limit:?}")]
    Late {
        /// The program.
        program: String,
        /// Where it ran.
        workload: String,
        /// How long it had.
        limit: Duration,
    },
    /// Talking to the helper failed.
    #[error("cannot {doing}")]
    Io {
        /// What was tried.
        doing: &'static str,
        /// The system's error.
        #[source]
        source: io::Error,
    },
    /// The sandbox has ended, and everything in it.
    #[error("the sandbox has ended")]
    Ended,
    /// The helper is there but says nothing.
    #[error("the sandbox's helper does not answer")]
    Silent,
}
