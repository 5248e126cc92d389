//! Moves one request and its response between the client's side and an attempt.
//!
//! Both directions run in the one task of the request. A response may begin, and end, before the request has been sent:
//! what was received is delivered, and a failure to send the rest is no failure of the exchange.

use std::future::Future as _;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use mesh_api_xds::ir::http::HttpLimits;
use mesh_proxy_core::h1::head::Asked;
use mesh_proxy_core::head::Head;
use tokio::time::{Instant, Sleep, sleep_until};

use super::call::{Call, Started};
use super::downstream::Downstream;
use super::event::Broken;
use super::pump::{PumpError, Tap, poll_pump};

/// Progress of the bodies of one exchange.
#[derive(Debug, Default)]
pub struct Progress {
    /// The request has been received and sent whole.
    pub request_ended: bool,
    /// The response has been received and sent whole.
    pub response_ended: bool,
    /// The upstream takes no more of the request.
    pub request_stopped: bool,
    /// Request body bytes received.
    pub received: u64,
    /// Response body bytes sent.
    pub sent: u64,
    /// What can be sent again.
    pub replay: Replay,
    /// The `grpc-status` of the response's trailers.
    pub grpc_status: Option<u8>,
}

/// The request body so far, kept for another attempt.
#[derive(Debug, Default)]
pub struct Replay {
    limit: usize,
    bytes: Vec<u8>,
    /// More was received than is kept.
    overflowed: bool,
    trailers: bool,
}

impl Replay {
    /// Keeps up to `limit` bytes.
    pub const fn keep(&mut self, limit: usize) {
        self.limit = limit;
    }

    /// Whether everything received so far can be sent again.
    #[must_use]
    pub const fn is_possible(&self) -> bool {
        !self.overflowed && !self.trailers
    }

    /// The bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    fn push(&mut self, bytes: &[u8]) {
        if self.overflowed {
            return;
        }
        if self.bytes.len() + bytes.len() > self.limit {
            self.overflowed = true;
            self.bytes = Vec::new();
        } else {
            self.bytes.extend_from_slice(bytes);
        }
    }
}

struct RequestTap<'a> {
    received: &'a mut u64,
    replay: &'a mut Replay,
}

impl Tap for RequestTap<'_> {
    fn on_data(&mut self, bytes: &[u8]) {
        *self.received += bytes.len() as u64;
        self.replay.push(bytes);
    }

    fn on_trailers(&mut self, _trailers: &mut Head) {
        self.replay.trailers = true;
    }
}

struct ResponseTap<'a> {
    sent: &'a mut u64,
    grpc_status: &'a mut Option<u8>,
}

impl Tap for ResponseTap<'_> {
    fn on_data(&mut self, bytes: &[u8]) {
        *self.sent += bytes.len() as u64;
    }

    fn on_trailers(&mut self, trailers: &mut Head) {
        *self.grpc_status = grpc_status(trailers);
    }
}

/// The `grpc-status` field.
#[must_use]
pub fn grpc_status(head: &Head) -> Option<u8> {
    use mesh_proxy_core::head::known::KnownName;
    std::str::from_utf8(head.get(KnownName::GrpcStatus)?).ok()?.parse().ok()
}

/// How waiting for a response ended.
#[derive(Debug)]
pub enum Waited {
    /// Its head is there.
    Started(Started),
    /// The upstream broke.
    Upstream(Broken),
    /// The request could not be received to its end.
    Request(Broken),
    /// Nobody waits for the response any more.
    Gone(Broken),
    /// The deadline passed.
    TimedOut,
    /// The client is too slow, or nothing moves.
    Impatient(Impatient),
}

/// How a response ended.
#[derive(Debug)]
pub enum Ended {
    /// Complete.
    Complete,
    /// The upstream broke in the middle.
    Upstream(Broken),
    /// The client went away, or its request broke.
    Downstream(Broken),
    /// The deadline passed.
    TimedOut,
    /// The client is too slow, or nothing moves.
    Impatient(Impatient),
}

/// A deadline that is armed only when there is one.
#[derive(Debug, Default)]
pub struct Deadline(Option<Pin<Box<Sleep>>>);

impl Deadline {
    /// Fires at `at`.
    #[must_use]
    pub fn at(at: Option<Instant>) -> Self {
        Self(at.map(|at| Box::pin(sleep_until(at))))
    }

    /// Ready when it has passed.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.0.as_mut().map_or(Poll::Pending, |sleep| sleep.as_mut().poll(cx))
    }
}

/// Bounds on a client that is slow, and on a stream in which nothing moves.
#[derive(Debug)]
pub struct Patience {
    request: Deadline,
    idle: Option<Idle>,
}

#[derive(Debug)]
struct Idle {
    limit: Duration,
    seen: u64,
    timer: Pin<Box<Sleep>>,
}

/// Which bound was passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Impatient {
    /// The request was not received whole in time.
    Request,
    /// Nothing moved for too long.
    Idle,
}

impl Patience {
    /// The bounds of a chain, for a request that began at `started`.
    #[must_use]
    pub fn new(limits: &HttpLimits, started: Instant) -> Self {
        let some = |limit: Duration| Some(limit).filter(|limit| !limit.is_zero());
        Self {
            request: Deadline::at(some(limits.request_timeout).map(|limit| started + limit)),
            idle: some(limits.stream_idle_timeout).map(|limit| Idle {
                limit,
                seen: 0,
                timer: Box::pin(sleep_until(Instant::now() + limit)),
            }),
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>, progress: &Progress) -> Poll<Impatient> {
        if !progress.request_ended && !progress.request_stopped && self.request.poll(cx).is_ready() {
            return Poll::Ready(Impatient::Request);
        }
        let Some(idle) = &mut self.idle else { return Poll::Pending };
        let moved = progress.received + progress.sent;
        if moved != idle.seen {
            idle.seen = moved;
            idle.timer.as_mut().reset(Instant::now() + idle.limit);
        }
        idle.timer.as_mut().poll(cx).map(|()| Impatient::Idle)
    }
}

/// Sends the request and waits for the response's head. `deadline` may depend on when the request is complete: it is asked
/// for once that is known.
pub async fn until_response(
    down: &mut Downstream<'_>,
    call: &mut Call,
    head: &mut Head,
    asked: Asked,
    progress: &mut Progress,
    patience: &mut Patience,
    mut deadline: impl FnMut(&Progress) -> Deadline,
) -> Waited {
    let mut timer: Option<Deadline> = None;
    std::future::poll_fn(move |cx| {
        // An interim response may be queued, for which the client waits.
        if let Poll::Ready(Err(error)) = down.side().poll_flush(cx) {
            return Poll::Ready(Waited::Gone(error));
        }
        if let Poll::Ready(end) = poll_request(cx, down, call, progress) {
            return Poll::Ready(end);
        }
        match call.poll_response(cx, asked, head) {
            Poll::Ready(Ok(started)) => return Poll::Ready(Waited::Started(started)),
            Poll::Ready(Err(error)) => return Poll::Ready(Waited::Upstream(error)),
            Poll::Pending => {}
        }
        if progress.request_ended
            && let Poll::Ready(gone) = down.poll_gone(cx)
        {
            return Poll::Ready(Waited::Gone(gone));
        }
        if timer.is_none() && (progress.request_ended || progress.request_stopped) {
            timer = Some(deadline(progress));
        }
        match timer.as_mut().map(|timer| timer.poll(cx)) {
            Some(Poll::Ready(())) => Poll::Ready(Waited::TimedOut),
            _ => patience.poll(cx, progress).map(Waited::Impatient),
        }
    })
    .await
}

/// Moves request bytes as far as they go. Ready only when the client's request itself breaks.
fn poll_request(
    cx: &mut Context<'_>,
    down: &mut Downstream<'_>,
    call: &mut Call,
    progress: &mut Progress,
) -> Poll<Waited> {
    if progress.request_ended || progress.request_stopped {
        // The tail of the request may still be on its way to the socket.
        if let Poll::Ready(Err(_)) = call.side().poll_flush(cx) {
            progress.request_stopped = true;
        }
        return Poll::Pending;
    }
    let mut ended = false;
    let mut tap = RequestTap { received: &mut progress.received, replay: &mut progress.replay };
    let pumped = poll_pump(cx, &mut down.side(), &mut call.side(), &mut ended, &mut tap);
    progress.request_ended = ended;
    match pumped {
        Poll::Ready(Err(PumpError::Source(error))) => Poll::Ready(Waited::Request(error)),
        Poll::Ready(Err(PumpError::Sink(_))) => {
            // The upstream may have answered before it stopped listening: its response is read next.
            progress.request_stopped = true;
            Poll::Pending
        }
        Poll::Ready(Ok(())) | Poll::Pending => Poll::Pending,
    }
}

/// Delivers the response's body, and goes on sending the request while it is not complete. `deadline` as for
/// [`until_response`].
pub async fn until_end(
    down: &mut Downstream<'_>,
    call: &mut Call,
    progress: &mut Progress,
    patience: &mut Patience,
    mut deadline: impl FnMut(&Progress) -> Deadline,
) -> Ended {
    let mut received_all = false;
    let mut timer: Option<Deadline> = None;
    std::future::poll_fn(move |cx| {
        if let Poll::Ready(Waited::Request(error)) = poll_request(cx, down, call, progress) {
            return Poll::Ready(Ended::Downstream(error));
        }
        let mut tap = ResponseTap { sent: &mut progress.sent, grpc_status: &mut progress.grpc_status };
        match poll_pump(cx, &mut call.side(), &mut down.side(), &mut received_all, &mut tap) {
            Poll::Ready(Ok(())) => {
                progress.response_ended = true;
                return Poll::Ready(Ended::Complete);
            }
            Poll::Ready(Err(PumpError::Source(error))) => return Poll::Ready(Ended::Upstream(error)),
            Poll::Ready(Err(PumpError::Sink(error))) => return Poll::Ready(Ended::Downstream(error)),
            Poll::Pending => {}
        }
        if progress.request_ended
            && let Poll::Ready(gone) = down.poll_gone(cx)
        {
            return Poll::Ready(Ended::Downstream(gone));
        }
        if timer.is_none() && (progress.request_ended || progress.request_stopped) {
            timer = Some(deadline(progress));
        }
        match timer.as_mut().map(|timer| timer.poll(cx)) {
            Some(Poll::Ready(())) => Poll::Ready(Ended::TimedOut),
            _ => patience.poll(cx, progress).map(Ended::Impatient),
        }
    })
    .await
}
