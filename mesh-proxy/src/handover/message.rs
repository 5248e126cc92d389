//! What the two processes say to each other: a length of four bytes (big endian), then JSON.
//!
//! ```text
//! new                          running
//!  Ask ───────────────────────▶
//!      ◀─────────────────────── Offer, Sockets… (with the descriptors), or Refuse
//!  (gets its certificate and its configuration)
//!  Ready ─────────────────────▶
//!      ◀─────────────────────── Go
//!  (accepts)
//!  Active ────────────────────▶
//!                               (stops accepting)
//! ```
//!
//! Besides, a process may bring a program to be started (Bring with its descriptor, answered by Started or Refuse), and ask who
//! serves (Who, answered by Here).
//!
//! The running process may say Abort until it has said Go. Unknown fields are left alone, so that a version can learn more
//! without becoming another.

use std::fmt;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

/// The protocol that this build speaks, the only one so far.
pub const VERSION: u32 = 1;
/// Longest message. The largest part is the trust bundle of a federated mesh.
pub const MAX_BYTES: usize = 2 << 20;
/// Most sockets that change hands.
pub const MAX_SOCKETS: usize = 2048;
/// Sockets in one message; the kernel takes at most 253 descriptors at once (`SCM_MAX_FD`).
pub const SOCKETS_A_MESSAGE: usize = 64;

/// One message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "say", rename_all = "kebab-case")]
pub enum Message {
    /// The new process asks for the sockets.
    Ask {
        /// Oldest protocol it speaks.
        oldest: u32,
        /// Newest protocol it speaks.
        newest: u32,
        /// Who it is.
        process: ProcessInfo,
    },
    /// It does not get them.
    Refuse {
        /// Why.
        reason: String,
    },
    /// It gets them: they follow.
    Offer(Box<Offer>),
    /// Some of the sockets, each with its descriptor.
    Sockets {
        /// What they are, in the order of the descriptors.
        sockets: Vec<Handed>,
    },
    /// The new process has all it needs to serve.
    Ready,
    /// It shall serve.
    Go,
    /// It serves.
    Active,
    /// It shall end: the running process goes on.
    Abort {
        /// Why.
        reason: String,
    },
    /// A process that is no proxy brings a program, with its descriptor: the running process shall start it in its place.
    Bring {
        /// Who it is.
        process: ProcessInfo,
    },
    /// It was started.
    Started,
    /// A process asks who serves.
    Who,
    /// This one does.
    Here {
        /// How many processes came before it.
        generation: u32,
        /// Who it is.
        process: ProcessInfo,
        /// A successor that it started is on its way.
        replaced_soon: bool,
    },
}

/// What the new process learns.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offer {
    /// The protocol from here on.
    pub version: u32,
    /// Who the running process is.
    pub process: ProcessInfo,
    /// How many processes came before it; 0 in the first.
    pub generation: u32,
    /// When the first of them started, in seconds since 1970.
    pub first_started: u64,
    /// How many sockets follow.
    pub sockets: usize,
    /// Whether traffic of the workload is captured, as the first process found out.
    pub captured: Option<bool>,
    /// The workload certificate, so that the new process needs no token, which may have expired.
    pub credential: Option<CredentialText>,
}

/// A process.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessInfo {
    /// Its number, in its own namespace.
    pub pid: u32,
    /// Version and revision of its build.
    pub build: String,
}

/// A certificate with its key, as PEM.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CredentialText {
    /// The chain.
    pub chain: String,
    /// The key.
    pub key: String,
    /// The mesh's roots.
    pub roots: String,
}

/// One socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Handed {
    /// What it is for.
    pub role: Role,
    /// The address that configuration calls it by.
    pub address: SocketAddr,
}

/// What a socket is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// A TCP listener of traffic or of the administrative interface.
    Listener,
    /// A TCP listener that was handed in by who started the first process, and that no configuration has asked for yet.
    Spare,
    /// Look-ups of names over UDP.
    NamesUdp,
    /// Look-ups of names over TCP.
    NamesTcp,
    /// The unix socket at which the next process will ask. Its address means nothing.
    Door,
}

/// Bytes that are no message.
#[derive(Debug, thiserror::Error)]
pub enum MessageError {
    /// Longer than any message.
    #[error("a message of {0} bytes; {MAX_BYTES} are allowed")]
    TooLong(usize),
    /// No JSON of a message.
    #[error("not a message of the hand-over")]
    Json(#[source] serde_json::Error),
}

impl Message {
    /// How many descriptors come with it.
    #[must_use]
    pub fn descriptors(&self) -> usize {
        match self {
            Self::Sockets { sockets } => sockets.len(),
            Self::Bring { .. } => 1,
            _ => 0,
        }
    }

    /// The bytes of it.
    ///
    /// # Errors
    /// When it is too long.
    pub fn encode(&self) -> Result<Vec<u8>, MessageError> {
        let body = serde_json::to_vec(self).map_err(MessageError::Json)?;
        let length = u32::try_from(body.len()).ok().filter(|_| body.len() <= MAX_BYTES);
        let length = length.ok_or(MessageError::TooLong(body.len()))?;
        Ok([&length.to_be_bytes(), body.as_slice()].concat())
    }

    /// The first message of `buffer` and its length, once all of it is there.
    ///
    /// # Errors
    /// When there never will be one.
    pub fn decode(buffer: &[u8]) -> Result<Option<(Self, usize)>, MessageError> {
        let Some((length, rest)) = buffer.split_first_chunk::<4>() else { return Ok(None) };
        let length = usize::try_from(u32::from_be_bytes(*length)).unwrap_or(usize::MAX);
        if length > MAX_BYTES {
            return Err(MessageError::TooLong(length));
        }
        let Some(body) = rest.get(..length) else { return Ok(None) };
        let message = serde_json::from_slice(body).map_err(MessageError::Json)?;
        Ok(Some((message, length + 4)))
    }
}

impl fmt::Debug for CredentialText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CredentialText").finish_non_exhaustive()
    }
}

impl ProcessInfo {
    /// This process.
    #[must_use]
    pub fn this() -> Self {
        let build = mesh_api_rt::build_info!("mesh-proxy");
        Self { pid: std::process::id(), build: format!("{}-{}", build.version, build.revision) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_come_back_whole_and_one_at_a_time() {
        let sockets = vec![Handed { role: Role::NamesUdp, address: ([127, 0, 0, 1], 15053).into() }];
        let all = [
            Message::Ask { oldest: 1, newest: 3, process: ProcessInfo::this() },
            Message::Sockets { sockets },
            Message::Ready,
        ];
        let mut bytes: Vec<u8> = all.iter().flat_map(|message| message.encode().unwrap()).collect();
        for message in &all {
            let whole = message.encode().unwrap().len();
            assert!(Message::decode(&bytes[..whole - 1]).unwrap().is_none());
            let (found, length) = Message::decode(&bytes).unwrap().unwrap();
            assert_eq!((&found, length), (message, whole));
            bytes.drain(..length);
        }
        assert!(bytes.is_empty());
    }

    #[test]
    fn what_is_no_message_is_refused_at_once() {
        assert!(matches!(Message::decode(b"GET / HTTP/1.1\r\n\r\n"), Err(MessageError::TooLong(_))));
        assert!(matches!(Message::decode(b"\0\0\0\x02{}"), Err(MessageError::Json(_))));
        assert!(matches!(Message::decode(b"\0\0\0\x12{\"say\":\"nothing\"}"), Ok(None)));
        assert!(matches!(Message::decode(b"\0\0\0\x11{\"say\":\"nothing\"}"), Err(MessageError::Json(_))));
    }

    #[test]
    fn later_versions_may_say_more() {
        let text = br#"{"say":"ask","oldest":1,"newest":9,"process":{"pid":7,"build":"x","more":1},"wish":true}"#;
        let bytes = [&u32::try_from(text.len()).unwrap().to_be_bytes(), text.as_slice()].concat();
        assert!(matches!(Message::decode(&bytes), Ok(Some((Message::Ask { newest: 9, .. }, _)))));
    }

    #[test]
    fn a_key_is_not_shown() {
        let credential = CredentialText { chain: "a".into(), key: "secret".into(), roots: "b".into() };
        assert!(!format!("{credential:?}").contains("secret"));
    }
}
