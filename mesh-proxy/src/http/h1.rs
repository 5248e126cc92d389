//! One HTTP/1.1 connection, as server or as client: the core's machine over a byte stream.
//!
//! Buffers are taken from the worker's pool when bytes are there and given back when none are left, so an idle connection
//! owns none.

use std::io;
use std::task::{Context, Poll, ready};

use mesh_proxy_core::h1::body::{Body, Event as BodyEvent};
use mesh_proxy_core::h1::encode::{self, Connection};
use mesh_proxy_core::h1::head::{Asked, Request, Response, parse_request, parse_response};
use mesh_proxy_core::h1::limits::Limits;
use mesh_proxy_core::h1::{Framing, H1Error, Scan};
use mesh_proxy_core::head::Head;

use super::event::{Broken, Chunk, Event};
use crate::buffers::ByteQueue;
use crate::net::stream::Stream;

/// Room for one read; smaller leftovers are moved to the front before it.
const READ_BYTES: usize = 8 * 1024;

/// Unsent bytes above which no more are queued.
const HIGH_WATER: usize = 64 * 1024;

/// Bytes that one write hands to the peer as a whole, or not at all: within a segment of the loopback device.
const PIECE_BYTES: usize = 16 * 1024;

/// An HTTP/1.1 connection.
#[derive(Debug)]
pub struct Wire {
    stream: Stream,
    limits: Limits,
    inbox: ByteQueue,
    outbox: ByteQueue,
    sent: usize,
    scan: Scan,
    body: Option<Body>,
    /// Body bytes at the front of `inbox` that [`Self::take_chunk`] gives.
    ready: usize,
    trailers: Option<Box<Head>>,
    outgoing: Framing,
    /// Bytes of the outgoing message were handed to the kernel.
    has_sent: bool,
    /// In how many pieces.
    pieces: u8,
    /// The peer has closed its sending side.
    ended: bool,
}

impl Wire {
    /// A connection over `stream`; `early` was read from it already.
    #[must_use]
    pub fn new(stream: Stream, limits: Limits, early: ByteQueue) -> Self {
        Self {
            stream,
            limits,
            inbox: early,
            outbox: ByteQueue::default(),
            sent: 0,
            scan: Scan::default(),
            body: None,
            ready: 0,
            trailers: None,
            outgoing: Framing::None,
            has_sent: false,
            pieces: 0,
            ended: false,
        }
    }

    /// The byte stream.
    #[must_use]
    pub const fn stream(&self) -> &Stream {
        &self.stream
    }

    /// Gives the byte stream back with what was read from it but not consumed, for a tunnel.
    #[must_use]
    pub fn into_parts(self) -> (Stream, ByteQueue) {
        (self.stream, self.inbox)
    }

    /// Ready when the peer has sent or closed; takes no buffer. What was received before is ready at once.
    ///
    /// # Errors
    /// When the runtime is shutting down.
    pub fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.inbox.is_empty() && !self.ended { self.stream.poll_read_ready(cx) } else { Poll::Ready(Ok(())) }
    }

    /// Whether bytes have been received that belong to no message yet.
    #[must_use]
    pub fn has_input(&self) -> bool {
        !self.inbox.is_empty()
    }

    /// Reads more bytes. `Ready(Ok(0))`: the peer has closed.
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if self.ended {
            return Poll::Ready(Ok(0));
        }
        if self.stream.poll_read_ready(cx)?.is_pending() {
            self.inbox.park();
            return Poll::Pending;
        }
        let result = self.stream.poll_read_into(cx, self.inbox.tail(READ_BYTES));
        match &result {
            Poll::Ready(Ok(0)) => self.ended = true,
            Poll::Ready(Ok(_)) => {}
            Poll::Ready(Err(_)) | Poll::Pending => self.inbox.park(),
        }
        result
    }

    /// Reads a request's head; `None` when the client closed before its first byte.
    ///
    /// # Errors
    /// When the bytes are not a request, or the connection breaks inside one.
    pub fn poll_request(&mut self, cx: &mut Context<'_>, head: &mut Head) -> Poll<Result<Option<Request>, Broken>> {
        loop {
            if self.has_input()
                && let Some(request) = parse_request(self.inbox.as_slice(), &mut self.scan, &self.limits, head)?
            {
                self.inbox.consume(request.consumed);
                self.begin_body(request.framing);
                return Poll::Ready(Ok(Some(request)));
            }
            if ready!(self.poll_fill(cx))? == 0 {
                let clean = self.inbox.is_empty();
                return Poll::Ready(if clean { Ok(None) } else { Err(Broken::Closed) });
            }
        }
    }

    /// Reads a response's head.
    ///
    /// # Errors
    /// [`Broken::Closed`] when the peer closed before its last byte; when the bytes are not a response.
    pub fn poll_response(
        &mut self,
        cx: &mut Context<'_>,
        asked: Asked,
        head: &mut Head,
    ) -> Poll<Result<Response, Broken>> {
        loop {
            if self.has_input()
                && let Some(response) =
                    parse_response(self.inbox.as_slice(), &mut self.scan, &self.limits, asked, head)?
            {
                self.inbox.consume(response.consumed);
                self.begin_body(response.framing);
                return Poll::Ready(Ok(response));
            }
            if ready!(self.poll_fill(cx))? == 0 {
                if self.pieces == 1 && self.stream.was_sent_back() {
                    // The server had closed before the request came. Of more pieces it may have read the first, and a
                    // server that ends its side processes nothing more (RFC 9112 section 9.6).
                    self.has_sent = false;
                }
                return Poll::Ready(Err(Broken::Closed));
            }
        }
    }

    fn begin_body(&mut self, framing: Framing) {
        self.scan = Scan::default();
        self.ready = 0;
        if let Some(trailers) = &mut self.trailers {
            trailers.clear();
        }
        self.body = (!matches!(framing, Framing::None | Framing::Length(0))).then(|| Body::new(framing));
    }

    /// Whether the whole incoming message has been taken.
    #[must_use]
    pub fn is_recv_ended(&self) -> bool {
        self.body.is_none() && self.ready == 0
    }

    /// The next event of the incoming message.
    ///
    /// # Errors
    /// When its framing is broken or the connection ends inside it.
    pub fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<Result<Event, Broken>> {
        if self.ready > 0 {
            return Poll::Ready(Ok(Event::Data));
        }
        loop {
            let Some(body) = &mut self.body else { return Poll::Ready(Ok(Event::End)) };
            let trailers = self.trailers.get_or_insert_with(Default::default);
            let (used, event) = body.next(self.inbox.as_slice(), &self.limits, trailers)?;
            match event {
                BodyEvent::Data(range) => {
                    // Framing before the range is dropped; the range itself is now the front of the inbox.
                    let after = used.saturating_sub(range.end);
                    debug_assert_eq!(after, 0, "framing behind a range is consumed by the next call");
                    self.inbox.consume(range.start);
                    self.ready = range.len();
                    return Poll::Ready(Ok(Event::Data));
                }
                BodyEvent::End => {
                    self.inbox.consume(used);
                    self.body = None;
                    let has_trailers = self.trailers.as_ref().is_some_and(|trailers| !trailers.is_empty());
                    return Poll::Ready(Ok(if has_trailers { Event::Trailers } else { Event::End }));
                }
                BodyEvent::NeedMore => {
                    self.inbox.consume(used);
                    if ready!(self.poll_fill(cx))? == 0 {
                        let Some(body) = &mut self.body else { return Poll::Ready(Ok(Event::End)) };
                        return Poll::Ready(match body.finish() {
                            Ok(()) => {
                                self.body = None;
                                Ok(Event::End)
                            }
                            Err(H1Error::Incomplete) => Err(Broken::Closed),
                            Err(error) => Err(error.into()),
                        });
                    }
                }
            }
        }
    }

    /// The bytes of [`Event::Data`]; call [`Self::consume_chunk`] after use.
    #[must_use]
    pub fn chunk(&self) -> &[u8] {
        self.inbox.as_slice().get(..self.ready).unwrap_or_default()
    }

    /// Drops the bytes of [`Self::chunk`].
    pub fn consume_chunk(&mut self) {
        self.inbox.consume(self.ready);
        self.ready = 0;
    }

    /// The fields of [`Event::Trailers`].
    pub fn trailers(&mut self) -> &mut Head {
        self.trailers.get_or_insert_with(Default::default)
    }

    /// Queues a request's head.
    pub fn send_request(&mut self, head: &Head, framing: Framing, connection: Connection) {
        self.outgoing = framing;
        self.has_sent = false;
        self.pieces = 0;
        encode::request(head, framing, connection, self.out());
    }

    /// Queues a response's head.
    pub fn send_response(&mut self, head: &Head, framing: Framing, connection: Connection) {
        self.outgoing = framing;
        encode::response(head, framing, connection, self.out());
    }

    /// Queues `100 Continue`.
    pub fn send_continue(&mut self) {
        self.out().extend_from_slice(encode::CONTINUE);
    }

    /// Queues body bytes. With [`Framing::None`] (an answer to HEAD) they are dropped.
    pub fn send_data(&mut self, chunk: &Chunk<'_>) {
        self.send_bytes(chunk.as_slice());
    }

    /// As [`Self::send_data`].
    pub fn send_bytes(&mut self, data: &[u8]) {
        match &mut self.outgoing {
            Framing::None => return,
            Framing::Length(left) => *left = left.saturating_sub(data.len() as u64),
            Framing::UntilClose => {}
            Framing::Chunked => {
                encode::chunk(data, self.out());
                return;
            }
        }
        self.out().extend_from_slice(data);
    }

    /// Queues the end of the outgoing message.
    ///
    /// # Errors
    /// [`Broken::Closed`] when fewer bytes were given than its head announced: the connection must be closed.
    pub fn finish(&mut self, trailers: Option<&Head>) -> Result<(), Broken> {
        match std::mem::replace(&mut self.outgoing, Framing::None) {
            Framing::Chunked => encode::last_chunk(trailers, self.out()),
            Framing::Length(left) if left > 0 => return Err(Broken::Closed),
            Framing::None | Framing::Length(_) | Framing::UntilClose => {}
        }
        Ok(())
    }

    /// Whether more may be queued before a flush.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.outbox.len() - self.sent < HIGH_WATER
    }

    /// Ready when everything queued is handed to the kernel.
    ///
    /// # Errors
    /// As the socket reports.
    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        if self.outbox.is_empty() {
            return Poll::Ready(Ok(()));
        }
        let piece = if self.outbox.len() > PIECE_BYTES { u8::MAX } else { 1 };
        self.pieces = self.pieces.saturating_add(piece);
        let polled = self.stream.poll_write_all(cx, self.outbox.as_slice(), &mut self.sent);
        self.has_sent |= self.sent > 0;
        if polled.is_pending() {
            // A receiver that takes some but never all must not make the queue grow with the body.
            self.outbox.consume(std::mem::take(&mut self.sent));
            self.outbox.compact();
            return Poll::Pending;
        }
        ready!(polled)?;
        self.sent = 0;
        self.outbox.consume(usize::MAX);
        Poll::Ready(Ok(()))
    }

    /// Whether bytes of the request that was sent last may have reached the peer.
    #[must_use]
    pub const fn has_sent(&self) -> bool {
        self.has_sent
    }

    /// Whether bytes wait to be written.
    #[must_use]
    pub fn has_output(&self) -> bool {
        !self.outbox.is_empty()
    }

    /// Closes the sending side.
    ///
    /// # Errors
    /// As the socket reports.
    pub fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream.poll_close(cx)
    }

    /// Reads and drops what the peer still sends, until it closes.
    pub fn poll_discard(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            self.inbox.consume(usize::MAX);
            match self.poll_fill(cx) {
                Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(()),
                Poll::Ready(Ok(_)) => {}
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    /// For a connection that rests: ready when it is no longer usable, because the peer closed it, or sent what nobody
    /// asked for.
    pub fn poll_stale(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.has_input() || self.ended {
            return Poll::Ready(());
        }
        match self.poll_fill(cx) {
            // Tickets and key updates of TLS were absorbed without giving a byte.
            Poll::Pending => Poll::Pending,
            Poll::Ready(_) => Poll::Ready(()),
        }
    }

    fn out(&mut self) -> &mut Vec<u8> {
        self.outbox.tail(0)
    }
}

#[cfg(test)]
mod tests;
