//! The client's side of an exchange: a request that has been received as far as its head, and a response to be sent.

use std::task::{Context, Poll};

use ::h2::server::SendResponse;
use bytes::Bytes;
use mesh_proxy_core::h1::Framing;
use mesh_proxy_core::h1::encode::{Connection, framing_for};
use mesh_proxy_core::h1::head::{Request, Switch};
use mesh_proxy_core::head::known::KnownName;
use mesh_proxy_core::head::{Head, Method, Version};

use super::event::Broken;
use super::pump::Side;
use super::{h1, h2};

/// The client's side.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "one for each request, on its stack")]
pub enum Downstream<'a> {
    /// HTTP/1.1.
    H1 {
        /// The connection.
        wire: &'a mut h1::Wire,
        /// What the request's head said of its message.
        request: Request,
        /// Version of the request, which the response must suit.
        version: Version,
        /// The connection ends after this response.
        close: bool,
    },
    /// HTTP/2.
    H2 {
        /// The stream.
        stream: h2::Stream,
        /// Sends the response's head; gone once that is done.
        respond: Option<SendResponse<Bytes>>,
    },
}

/// What follows a response's head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Follows {
    /// Nothing.
    Nothing,
    /// A body of this many bytes.
    Length(u64),
    /// A body of unknown length, perhaps trailers.
    Stream,
}

impl Downstream<'_> {
    /// Both directions of the body.
    pub const fn side(&mut self) -> Side<'_> {
        match self {
            Self::H1 { wire, .. } => Side::H1(wire),
            Self::H2 { stream, .. } => Side::H2(stream),
        }
    }

    /// Framing of the request's body.
    #[must_use]
    pub fn request_follows(&self, head: &Head) -> Follows {
        match self {
            Self::H1 { request, .. } => match request.framing {
                Framing::None | Framing::Length(0) => Follows::Nothing,
                Framing::Length(bytes) => Follows::Length(bytes),
                Framing::Chunked | Framing::UntilClose => Follows::Stream,
            },
            Self::H2 { stream, .. } if stream.is_recv_ended() => Follows::Nothing,
            Self::H2 { .. } => content_length(head).map_or(Follows::Stream, Follows::Length),
        }
    }

    /// Whether the client asks for another protocol.
    #[must_use]
    pub const fn switch(&self) -> Switch {
        match self {
            Self::H1 { request, .. } => request.switch,
            Self::H2 { .. } => Switch::None,
        }
    }

    /// Tells a client that waits for it to send its body.
    pub fn send_continue(&mut self) {
        if let Self::H1 { wire, request, .. } = self
            && std::mem::take(&mut request.expect_continue)
        {
            wire.send_continue();
        }
    }

    /// Whether the client still waits for `100 Continue`, and so has sent no body.
    #[must_use]
    pub const fn awaits_continue(&self) -> bool {
        matches!(self, Self::H1 { request: Request { expect_continue: true, .. }, .. })
    }

    /// Ends the connection after this response.
    pub const fn close_after(&mut self) {
        if let Self::H1 { close, .. } = self {
            *close = true;
        }
    }

    /// Refuses an HTTP/2 stream: nothing of it was processed (RFC 9113 section 8.7). False where HTTP/1.1 needs an answer.
    pub fn refuse(&mut self) -> bool {
        let Self::H2 { respond, .. } = self else { return false };
        if let Some(mut respond) = respond.take() {
            respond.send_reset(::h2::Reason::REFUSED_STREAM);
        }
        true
    }

    /// Queues the response's head.
    ///
    /// # Errors
    /// When it cannot be written, or the stream is gone.
    pub fn send_head(&mut self, head: &Head, method: Method, follows: Follows) -> Result<(), Broken> {
        match self {
            Self::H1 { wire, version, close, .. } => {
                let bodiless = method == Method::Head || matches!(head.status(), 204 | 304);
                let framing = match follows {
                    _ if bodiless => Framing::None,
                    Follows::Nothing => Framing::Length(0),
                    Follows::Length(bytes) => Framing::Length(bytes),
                    Follows::Stream => framing_for(*version, Framing::Chunked),
                };
                *close |= framing == Framing::UntilClose;
                let connection = match (*close, *version) {
                    (true, _) => Connection::Close,
                    (false, Version::Http10) => Connection::KeepAlive,
                    (false, _) => Connection::Persist,
                };
                wire.send_response(head, framing, connection);
                Ok(())
            }
            Self::H2 { stream, respond } => {
                let Some(mut respond) = respond.take() else { return Err(Broken::Closed) };
                let ended = follows == Follows::Nothing;
                let send = respond.send_response(h2::write_response(head)?, ended).map_err(h2::broken)?;
                stream.set_send(send, ended);
                Ok(())
            }
        }
    }

    /// Ready when nobody waits for the response any more.
    pub fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<Broken> {
        match self {
            // A request that is already there (pipelining) is looked at after this response.
            Self::H1 { wire, .. } => match wire.poll_stale(cx) {
                Poll::Ready(()) if !wire.has_input() => Poll::Ready(Broken::Closed),
                _ => Poll::Pending,
            },
            Self::H2 { stream, respond: None } => stream.poll_broken(cx),
            Self::H2 { respond: Some(respond), .. } => respond.poll_reset(cx).map(|result| match result {
                Ok(reason) => Broken::Reset(reason.into()),
                Err(error) => h2::broken(error),
            }),
        }
    }
}

/// The length that a head announces.
#[must_use]
pub fn content_length(head: &Head) -> Option<u64> {
    std::str::from_utf8(head.get(KnownName::ContentLength)?).ok()?.parse().ok()
}
