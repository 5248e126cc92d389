//! What the two ends of a sandbox say to each other: JSON in messages of a socket that keeps message boundaries
//! (`SOCK_SEQPACKET`), with open files as ancillary data. Both ends are the same binary, so there is no versioning.

use std::collections::BTreeMap;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};
use serde::{Deserialize, Serialize};

/// Greatest length of a message. The kernel's default socket buffer holds one of these with its overhead.
pub(super) const MAX_BYTES: usize = 128 * 1024;
/// Greatest number of open files in one message.
pub(super) const MAX_FILES: usize = 64;

/// Names a process within one sandbox; never used twice.
pub(super) type ProcessId = u64;

/// A request, or what answers it.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Request {
    /// Repeated in the answer.
    pub(super) id: u64,
    pub(super) body: RequestBody,
}

/// What the outside asks of the inside.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum RequestBody {
    /// The first message: make the network. No answer but [`FromHelper::Ready`] or [`FromHelper::Failed`].
    Start(Settings),
    /// Make a network namespace.
    AddWorkload { name: String, address: Ipv4Addr },
    /// Start a process. The message's files are its output, its errors, then the sockets in order.
    Spawn(Box<Spawn>),
    /// Send a signal to a process and all that it started and left in its group.
    Signal { process: ProcessId, signal: i32 },
}

/// How the sandbox is set up.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Settings {
    pub(super) gateway: Ipv4Addr,
    pub(super) prefix: u8,
    pub(super) binds: Vec<(PathBuf, PathBuf)>,
}

/// A process to start.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Spawn {
    pub(super) process: ProcessId,
    pub(super) workload: String,
    pub(super) program: PathBuf,
    pub(super) args: Vec<String>,
    pub(super) env: BTreeMap<String, String>,
    pub(super) clear_env: bool,
    pub(super) directory: Option<PathBuf>,
    pub(super) sockets: Vec<SocketAddr>,
}

/// What the inside says.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum FromHelper {
    /// The network is there.
    Ready,
    /// The sandbox cannot be made; the helper ends.
    Failed(Failure),
    /// The answer to a request: the process id as seen from outside, where there is one, or why it failed.
    Answer { id: u64, result: Result<Option<u32>, Failure> },
    /// A process ended.
    Exited { process: ProcessId, exit: Exit },
}

/// A step that failed.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Failure {
    /// What was tried, as in "cannot …".
    pub(super) step: String,
    /// The system's error number, if it was the system that refused.
    pub(super) errno: Option<i32>,
    /// What it said.
    pub(super) message: String,
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Exit {
    /// It returned this code.
    Code(i32),
    /// This signal killed it.
    Signal(i32),
}

impl Exit {
    /// Whether the process returned zero.
    #[must_use]
    pub fn success(self) -> bool {
        self == Self::Code(0)
    }
}

impl std::fmt::Display for Exit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exit code {code}"),
            Self::Signal(signal) => write!(f, "signal {signal}"),
        }
    }
}

impl Failure {
    /// A step that the system refused.
    pub(super) fn new(step: impl Into<String>, error: &io::Error) -> Self {
        Self { step: step.into(), errno: error.raw_os_error(), message: error.to_string() }
    }
}

/// The two ends of a new connection. Neither survives `exec` unless made to.
pub(super) fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?)
}

/// Sends one message, whole or not at all.
pub(super) fn send(socket: impl AsFd, message: &impl Serialize, files: &[BorrowedFd<'_>]) -> io::Result<()> {
    let bytes = serde_json::to_vec(message)?;
    if bytes.len() > MAX_BYTES || files.len() > MAX_FILES {
        let text = format!(
            "{} bytes and {} files in one message; at most {MAX_BYTES} and {MAX_FILES} fit",
            bytes.len(),
            files.len()
        );
        return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
    }
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FILES))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !files.is_empty() && !control.push(SendAncillaryMessage::ScmRights(files)) {
        return Err(io::Error::other("the files do not fit into the message"));
    }
    rustix::io::retry_on_intr(|| sendmsg(&socket, &[IoSlice::new(&bytes)], &mut control, SendFlags::NOSIGNAL))?;
    Ok(())
}

/// Receives one message; `None` when the other end is gone.
pub(super) fn receive<T: for<'de> Deserialize<'de>>(socket: impl AsFd) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
    let mut bytes = vec![0; MAX_BYTES];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FILES))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received = rustix::io::retry_on_intr(|| {
        recvmsg(&socket, &mut [IoSliceMut::new(&mut bytes)], &mut control, RecvFlags::CMSG_CLOEXEC)
    });
    let received = match received {
        Ok(received) => received,
        // The other end died with messages of ours unread.
        Err(rustix::io::Errno::CONNRESET) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let files = control.drain().flat_map(|message| match message {
        RecvAncillaryMessage::ScmRights(files) => files.collect(),
        _ => Vec::new(),
    });
    let files: Vec<OwnedFd> = files.collect();
    if received.bytes == 0 {
        return Ok(None);
    }
    if received.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC) {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "a message was cut short"));
    }
    let message = serde_json::from_slice(bytes.get(..received.bytes).unwrap_or_default())?;
    Ok(Some((message, files)))
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Seek, Write};

    use super::*;

    #[test]
    fn messages_keep_their_bounds_and_files() {
        let (near, far) = pair().unwrap();
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"in a file").unwrap();
        file.rewind().unwrap();
        send(&near, &"first", &[file.as_fd()]).unwrap();
        send(&near, &"second", &[]).unwrap();
        let (text, mut files) = receive::<String>(&far).unwrap().unwrap();
        assert_eq!((text.as_str(), files.len()), ("first", 1));
        let mut content = String::new();
        std::fs::File::from(files.remove(0)).read_to_string(&mut content).unwrap();
        assert_eq!(content, "in a file");
        assert_eq!(receive::<String>(&far).unwrap().unwrap().0, "second");
        drop(near);
        assert!(receive::<String>(&far).unwrap().is_none());
        assert!(send(&far, &"to nobody", &[]).is_err());
    }

    #[test]
    fn a_message_that_is_too_long_is_refused_by_the_sender() {
        let (near, _far) = pair().unwrap();
        let error = send(&near, &"x".repeat(MAX_BYTES), &[]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
        // As long as may be fits into the socket even though no one reads.
        send(&near, &"x".repeat(MAX_BYTES - 2), &[]).unwrap();
    }
}
