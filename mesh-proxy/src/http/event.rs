//! The vocabulary between codecs and the request pipeline: a message is a head, then events.
//!
//! No type of a codec's library passes this line; bytes do.

use std::io;

use bytes::Bytes;
use mesh_proxy_core::h1::H1Error;

/// What follows a head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// Body bytes are ready to be taken.
    Data,
    /// The trailer section is ready.
    Trailers,
    /// The message is complete.
    End,
}

/// Body bytes on their way from one codec to the other.
#[derive(Debug)]
pub enum Chunk<'a> {
    /// Part of a connection's buffer.
    Borrowed(&'a [u8]),
    /// A frame of its own.
    Shared(Bytes),
}

impl Chunk<'_> {
    /// The bytes.
    #[must_use]
    pub fn as_slice(&self) -> &[u8] {
        match self {
            Self::Borrowed(bytes) => bytes,
            Self::Shared(bytes) => bytes,
        }
    }

    /// The bytes as a frame of its own, copied if they are borrowed.
    #[must_use]
    pub fn into_bytes(self) -> Bytes {
        match self {
            Self::Borrowed(bytes) => Bytes::copy_from_slice(bytes),
            Self::Shared(bytes) => bytes,
        }
    }
}

/// Why a message ended before its end.
#[derive(Debug, thiserror::Error)]
pub enum Broken {
    /// The peer closed the connection in the middle of a message, or before one.
    #[error("connection closed by peer")]
    Closed,
    /// The stream was reset with this HTTP/2 error code (RFC 9113 section 7).
    #[error("stream reset with code {0}")]
    Reset(u32),
    /// The peer said that it will not process the stream (`REFUSED_STREAM`, or `GOAWAY` below it).
    #[error("stream refused by peer")]
    Refused,
    /// The peer broke the protocol.
    #[error("protocol error: {0}")]
    Protocol(String),
    /// The bytes are not an acceptable HTTP/1.1 message.
    #[error(transparent)]
    Message(#[from] H1Error),
    /// The socket failed.
    #[error("connection failed")]
    Io(#[from] io::Error),
}
