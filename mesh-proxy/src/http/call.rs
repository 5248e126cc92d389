//! One attempt at an upstream: the request that was sent and the response that is awaited.

use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use mesh_proxy_core::facts::Peer;
use mesh_proxy_core::h1::Framing;
use mesh_proxy_core::h1::encode::Connection;
use mesh_proxy_core::h1::head::{Asked, Stage, Switch};
use mesh_proxy_core::head::Head;
use mesh_proxy_core::head::known::KnownName;

use super::downstream::{Follows, content_length};
use super::event::Broken;
use super::pump::Side;
use crate::upstream::h1_pool::Pooled;
use crate::upstream::h2_pool::{H2Call, H2Slot};
use crate::upstream::key::PoolKey;

/// An attempt in progress.
#[derive(Debug)]
pub enum Call {
    /// On an HTTP/1.1 connection.
    H1 {
        /// The connection.
        pooled: Pooled,
        /// Where it goes back to.
        key: Rc<PoolKey>,
        /// The peer keeps the connection open after this response.
        persistent: bool,
    },
    /// On a stream of an HTTP/2 connection.
    H2 {
        /// Place on the connection.
        slot: H2Slot,
        /// The stream.
        call: H2Call,
    },
}

/// What a response's head said of its message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Started {
    /// What follows.
    pub follows: Follows,
    /// Bytes of another protocol follow.
    pub switched: bool,
}

impl Call {
    /// Sends a request's head on an HTTP/1.1 connection.
    #[must_use]
    pub fn begin_h1(mut pooled: Pooled, key: Rc<PoolKey>, head: &Head, follows: Follows, switch: Switch) -> Self {
        let framing = match follows {
            // An empty body that was announced stays announced: some servers want a length with every POST.
            Follows::Nothing if head.contains(KnownName::ContentLength) => Framing::Length(0),
            Follows::Nothing => Framing::None,
            Follows::Length(bytes) => Framing::Length(bytes),
            Follows::Stream => Framing::Chunked,
        };
        let connection = if switch == Switch::Upgrade { Connection::Upgrade } else { Connection::Persist };
        pooled.requests = pooled.requests.saturating_add(1);
        pooled.wire.send_request(head, framing, connection);
        Self::H1 { pooled, key, persistent: true }
    }

    /// Both directions of the body.
    pub const fn side(&mut self) -> Side<'_> {
        match self {
            Self::H1 { pooled, .. } => Side::H1(&mut pooled.wire),
            Self::H2 { call, .. } => Side::H2(&mut call.stream),
        }
    }

    /// The upstream's certificate; `None` in plaintext.
    #[must_use]
    pub fn peer(&self) -> Option<&Arc<Peer>> {
        match self {
            Self::H1 { pooled, .. } => pooled.peer.as_ref(),
            Self::H2 { slot, .. } => slot.peer(),
        }
    }

    /// Whether bytes of the request may have reached the upstream.
    #[must_use]
    pub const fn has_sent(&self) -> bool {
        match self {
            Self::H1 { pooled, .. } => pooled.wire.has_sent(),
            Self::H2 { .. } => true,
        }
    }

    /// Whether the connection had carried a request before this one.
    #[must_use]
    pub const fn is_reused(&self) -> bool {
        match self {
            Self::H1 { pooled, .. } => pooled.requests > 1,
            Self::H2 { .. } => false,
        }
    }

    /// Reads the final response's head; interim ones are passed over (RFC 9110 section 15.2 lets a proxy do so, and the
    /// only common one, 100, was answered here already).
    ///
    /// # Errors
    /// When the connection or the response breaks.
    pub fn poll_response(
        &mut self,
        cx: &mut Context<'_>,
        asked: Asked,
        head: &mut Head,
    ) -> Poll<Result<Started, Broken>> {
        match self {
            Self::H1 { pooled, persistent, .. } => loop {
                let response = ready!(pooled.wire.poll_response(cx, asked, head))?;
                if response.stage == Stage::Interim {
                    continue;
                }
                *persistent = response.persistent;
                let follows = match response.framing {
                    // An answer to HEAD, or a 304, announces the length of what a GET would get.
                    Framing::None | Framing::Length(0) => Follows::Nothing,
                    Framing::Length(bytes) => Follows::Length(bytes),
                    Framing::Chunked | Framing::UntilClose => Follows::Stream,
                };
                return Poll::Ready(Ok(Started { follows, switched: response.stage == Stage::Switched }));
            },
            Self::H2 { call, .. } => {
                ready!(call.poll_response(cx, head))?;
                let follows = if call.stream.is_recv_ended() {
                    Follows::Nothing
                } else {
                    content_length(head).map_or(Follows::Stream, Follows::Length)
                };
                Poll::Ready(Ok(Started { follows, switched: false }))
            }
        }
    }
}
