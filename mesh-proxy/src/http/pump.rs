//! Moves the rest of a message from one codec to the other.
//!
//! A source that gives nothing now lets what is queued be flushed; a sink that is full stops the source. So a message costs
//! one write when it is there as a whole, and a bounded buffer when it is not.

use std::task::{Context, Poll, ready};

use mesh_proxy_core::head::Head;

use super::event::{Broken, Chunk, Event};
use super::{h1, h2};

/// A message in the middle of being received and one in the middle of being sent, on one connection or stream.
#[derive(Debug)]
pub enum Side<'a> {
    /// HTTP/1.1.
    H1(&'a mut h1::Wire),
    /// HTTP/2.
    H2(&'a mut h2::Stream),
}

impl Side<'_> {
    /// The next event of the incoming message.
    ///
    /// # Errors
    /// When the message breaks.
    pub fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<Result<Event, Broken>> {
        match self {
            Self::H1(wire) => wire.poll_event(cx),
            Self::H2(stream) => stream.poll_event(cx),
        }
    }

    /// Whether nothing follows what was taken.
    #[must_use]
    pub fn is_recv_ended(&self) -> bool {
        match self {
            Self::H1(wire) => wire.is_recv_ended(),
            Self::H2(stream) => stream.is_recv_ended(),
        }
    }

    fn trailers(&mut self) -> &mut Head {
        match self {
            Self::H1(wire) => wire.trailers(),
            Self::H2(stream) => stream.trailers(),
        }
    }

    /// Whether more can be queued now.
    fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        match self {
            Self::H1(wire) if wire.has_room() => Poll::Ready(Ok(())),
            Self::H1(wire) => wire.poll_flush(cx),
            Self::H2(stream) => stream.poll_flush(cx),
        }
    }

    /// Ready when everything queued was handed on.
    ///
    /// # Errors
    /// When the receiver is gone.
    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        match self {
            Self::H1(wire) => wire.poll_flush(cx),
            Self::H2(stream) => stream.poll_flush(cx),
        }
    }

    /// Queues bytes that lie elsewhere; call only with room.
    pub fn send_bytes(&mut self, bytes: &[u8]) {
        match self {
            Self::H1(wire) => wire.send_bytes(bytes),
            Self::H2(stream) => stream.send_data(Chunk::Borrowed(bytes)),
        }
    }

    /// Ends the outgoing message.
    ///
    /// # Errors
    /// When it was shorter than announced.
    pub fn finish(&mut self, trailers: Option<&Head>) -> Result<(), Broken> {
        match self {
            Self::H1(wire) => wire.finish(trailers),
            Self::H2(stream) => {
                stream.finish(trailers);
                Ok(())
            }
        }
    }
}

/// What passes through a pump, counted and perhaps kept.
pub trait Tap {
    /// Body bytes are on their way.
    fn on_data(&mut self, bytes: &[u8]);
    /// Trailers are on their way.
    fn on_trailers(&mut self, trailers: &mut Head);
}

/// Which side of a pump broke.
#[derive(Debug)]
pub enum PumpError {
    /// The message could not be received.
    Source(Broken),
    /// The message could not be sent.
    Sink(Broken),
}

/// Moves events until the message is complete and flushed.
///
/// # Errors
/// When either side breaks.
pub fn poll_pump(
    cx: &mut Context<'_>,
    from: &mut Side<'_>,
    to: &mut Side<'_>,
    ended: &mut bool,
    tap: &mut impl Tap,
) -> Poll<Result<(), PumpError>> {
    while !*ended {
        ready!(to.poll_room(cx)).map_err(PumpError::Sink)?;
        let Poll::Ready(event) = from.poll_event(cx) else {
            // What is queued goes out while the source rests.
            if let Poll::Ready(Err(error)) = to.poll_flush(cx) {
                return Poll::Ready(Err(PumpError::Sink(error)));
            }
            return Poll::Pending;
        };
        match event.map_err(PumpError::Source)? {
            Event::Data => move_chunk(from, to, tap),
            Event::Trailers => {
                let trailers = from.trailers();
                tap.on_trailers(trailers);
                to.finish(Some(trailers)).map_err(PumpError::Source)?;
                *ended = true;
            }
            Event::End => {
                to.finish(None).map_err(PumpError::Source)?;
                *ended = true;
            }
        }
    }
    to.poll_flush(cx).map_err(PumpError::Sink)
}

fn move_chunk(from: &mut Side<'_>, to: &mut Side<'_>, tap: &mut impl Tap) {
    match from {
        Side::H1(wire) => {
            tap.on_data(wire.chunk());
            to.send_bytes(wire.chunk());
            wire.consume_chunk();
        }
        Side::H2(stream) => {
            let chunk = stream.take_chunk();
            tap.on_data(chunk.as_slice());
            match to {
                Side::H1(sink) => sink.send_data(&chunk),
                Side::H2(sink) => sink.send_data(chunk),
            }
        }
    }
}
