//! Writes capture rules into the kernel: one atomic nftables batch over a netlink socket, in the network namespace of
//! the calling thread. No program is run and no C library used.

use std::io::{self, Read};
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};

use super::encode::{self, Batch};
use super::model::{Ruleset, TABLE};
use super::netlink::{Reply, replies};

/// How long the kernel may take over an answer. It answers within the send call; this only bounds a lost one.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// Room for one datagram of answers; the kernel never sends a larger one unasked (`NLMSG_GOODSIZE`, at most 32 KiB
/// for dumps).
pub(super) const ANSWER_BYTES: usize = 32 * 1024;
/// Greatest number of answers read before giving up on a dump.
const MAX_ANSWERS: usize = 4096;
/// `NETLINK_NETFILTER`, linux/netlink.h.
const NETFILTER: i32 = 12;

/// The rules could not be written, removed or listed.
#[derive(Debug, thiserror::Error)]
pub enum ExecError {
    /// The kernel has no netfilter netlink family, or it may not be used here.
    #[error("this kernel offers no nftables over netlink (nf_tables is missing or blocked by a sandbox)")]
    Unsupported {
        /// The system's error.
        #[source]
        source: io::Error,
    },
    /// The process may not change rules.
    #[error(
        "not allowed to change the rules of this network namespace: the process needs CAP_NET_ADMIN in it (in \
         Kubernetes: the init container's securityContext.capabilities.add; without Kubernetes: a user and network \
         namespace of its own, as `meshctl demo` makes, or interception mode NONE)"
    )]
    Denied {
        /// The system's error.
        #[source]
        source: io::Error,
    },
    /// The kernel refused one step; nothing was changed.
    #[error("the kernel refused to {step}; nothing was changed{hint}")]
    Rejected {
        /// What was asked.
        step: String,
        /// What may be missing; empty when nothing more is known.
        hint: &'static str,
        /// The system's error.
        #[source]
        source: io::Error,
    },
    /// Talking to the kernel failed.
    #[error("cannot {doing}")]
    Socket {
        /// What was tried.
        doing: &'static str,
        /// The system's error.
        #[source]
        source: io::Error,
    },
    /// The kernel's answer did not end.
    #[error("the kernel's answer did not end after {MAX_ANSWERS} messages")]
    Endless,
}

/// Puts `rules` in place of all earlier capture rules of this network namespace, all at once: no packet sees a half
/// of either.
///
/// # Errors
/// See [`ExecError`]; after any error the earlier rules stand unchanged.
pub fn apply(rules: &Ruleset) -> Result<(), ExecError> {
    run(&encode::replace(rules))
}

/// Removes the capture rules of this network namespace. Returns whether there were any.
///
/// # Errors
/// See [`ExecError`].
pub fn remove() -> Result<bool, ExecError> {
    match run(&encode::remove()) {
        Ok(()) => Ok(true),
        Err(ExecError::Rejected { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Whether this network namespace has capture rules.
///
/// # Errors
/// See [`ExecError`].
pub fn installed() -> Result<bool, ExecError> {
    let mut socket = open(NETFILTER)?;
    send(&socket, &encode::list_tables())?;
    let mut found = false;
    let mut buffer = vec![0; ANSWER_BYTES];
    for _ in 0..MAX_ANSWERS {
        for reply in replies(receive(&mut socket, &mut buffer)?) {
            match reply {
                Reply::Data { kind, body } => found |= encode::table_name(kind, body).as_deref() == Some(TABLE),
                Reply::Done { .. } | Reply::Result { errno: 0, .. } => return Ok(found),
                Reply::Result { errno, .. } => return Err(refused("list the tables", errno)),
            }
        }
    }
    Err(ExecError::Endless)
}

fn run(batch: &Batch) -> Result<(), ExecError> {
    let mut socket = open(NETFILTER)?;
    send(&socket, &batch.bytes)?;
    let mut failure = None;
    let mut buffer = vec![0; ANSWER_BYTES];
    // Every step can fail once and the last one is acknowledged, so there is never more to read than this.
    for _ in 0..=batch.steps.len() {
        for reply in replies(receive(&mut socket, &mut buffer)?) {
            let Reply::Result { sequence, errno } = reply else { continue };
            if errno != 0 && failure.is_none() {
                let step = batch.step(sequence).unwrap_or("carry out the batch");
                failure = Some(refused(step, errno));
            }
            // An answer to the opening mark is about the whole batch, and the only one there will be.
            if sequence == encode::FIRST || sequence == batch.acknowledged() {
                return failure.map_or(Ok(()), Err);
            }
        }
    }
    Err(failure.unwrap_or(ExecError::Endless))
}

/// Opens a netlink socket of one family, such as `NETLINK_ROUTE`.
pub(super) fn open(family: i32) -> Result<Socket, ExecError> {
    let socket = Socket::new(Domain::from(libc::AF_NETLINK), Type::from(libc::SOCK_RAW), Some(Protocol::from(family)));
    let socket = socket.map_err(|source| match source.raw_os_error() {
        Some(libc::EPROTONOSUPPORT | libc::EAFNOSUPPORT | libc::ESOCKTNOSUPPORT) => ExecError::Unsupported { source },
        Some(libc::EPERM | libc::EACCES) => ExecError::Denied { source },
        _ => ExecError::Socket { doing: "open a netlink socket", source },
    })?;
    socket
        .set_read_timeout(Some(ANSWER_TIMEOUT))
        .map_err(|source| ExecError::Socket { doing: "set a timeout on the netlink socket", source })?;
    Ok(socket)
}

/// Sends to the kernel, which is where a netlink socket without a destination sends.
pub(super) fn send(socket: &Socket, bytes: &[u8]) -> Result<(), ExecError> {
    socket.send(bytes).map(drop).map_err(|source| match source.raw_os_error() {
        Some(libc::EPERM) => ExecError::Denied { source },
        _ => ExecError::Socket { doing: "send rules to the kernel", source },
    })
}

/// Reads one datagram.
pub(super) fn receive<'a>(socket: &mut Socket, buffer: &'a mut [u8]) -> Result<&'a [u8], ExecError> {
    let length = loop {
        match socket.read(buffer) {
            Ok(length) => break length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(source) => return Err(ExecError::Socket { doing: "read the kernel's answer", source }),
        }
    };
    Ok(buffer.get(..length).unwrap_or_default())
}

/// What an error number in an answer means.
pub(super) fn refused(step: &str, errno: i32) -> ExecError {
    let source = io::Error::from_raw_os_error(errno);
    let hint = match errno {
        libc::EPERM | libc::EACCES => return ExecError::Denied { source },
        // A kernel without the NAT chain type, the redir expression or inet NAT answers so.
        libc::ENOENT | libc::EOPNOTSUPP | libc::EAFNOSUPPORT => {
            " (the kernel may lack nft_chain_nat, nft_redir or NAT in the inet family, which Linux has since 5.2)"
        }
        _ => "",
    };
    ExecError::Rejected { step: step.to_owned(), hint, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_name_what_is_missing() {
        assert!(refused("x", libc::EPERM).to_string().contains("CAP_NET_ADMIN"));
        let error = refused("create chain istio-output", libc::EOPNOTSUPP).to_string();
        assert!(error.contains("create chain istio-output") && error.contains("nft_redir"), "{error}");
        assert_eq!(
            refused("add a rule", libc::EINVAL).to_string(),
            "the kernel refused to add a rule; nothing was changed"
        );
    }
}
