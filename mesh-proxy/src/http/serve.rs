//! Serves the requests of one connection, HTTP/1.1 or HTTP/2.

use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use mesh_api_xds::ir::http::{Codec, HttpLimits};
use mesh_proxy_core::detect::HTTP2_PREFACE;
use mesh_proxy_core::fault::{Fault, FaultKind};
use mesh_proxy_core::filter::Reply;
use mesh_proxy_core::h1::head::Request;
use mesh_proxy_core::h1::limits::{Http10, Limits};
use mesh_proxy_core::head::Version;
use mesh_proxy_core::plan::listener::{HttpPlan, ServePlan};
use tokio::time::Instant;

use super::call::Call;
use super::downstream::Downstream;
use super::event::Broken;
use super::exchange::{self, After};
use super::transfer::Deadline;
use super::{h1, h2, reply};
use crate::buffers::ByteQueue;
use crate::conn::Connection;
use crate::connections::Closing;
use crate::net::copy::{TunnelBytes, tunnel};
use crate::net::inspect::Found;
use crate::net::stream::Stream;
use crate::worker::{PanicWatch, Worker};

/// Time for the rest of a request's head once its first byte has come. Envoy has none by default; without one a slow sender
/// holds a connection for ever.
const HEAD_TIMEOUT: Duration = Duration::from_secs(60);

/// Time for the last bytes of a connection to be taken by the client.
const LINGER: Duration = Duration::from_secs(2);

/// Time for an HTTP/2 connection's streams after it was told to go away.
const H2_GRACE: Duration = Duration::from_secs(30);

/// Bounds of responses.
#[must_use]
pub fn response_limits() -> Limits {
    Limits::default()
}

/// Serves a connection to its end. `found`: what its first bytes were, if the listener looked at them.
pub async fn serve(worker: &Rc<Worker>, connection: Connection, mut stream: Stream, found: &Found) {
    let Some((limits, codec, bounds)) = settings(worker, &connection) else { return };
    connection.entry.set_idle_timeout(bounds.idle_timeout);
    connection.entry.set_max_age(bounds.max_connection_duration);
    let by_alpn = stream.session().and_then(|session| session.alpn()).map(|name| matches!(name, b"h2" | b"istio-h2"));
    let is_h2 = match (codec, by_alpn, found) {
        (Codec::Http1, ..) | (Codec::Auto, Some(false), _) | (Codec::Auto, None, Found::Http1) => false,
        (Codec::Http2, ..) | (Codec::Auto, Some(true), _) | (Codec::Auto, None, Found::Http2) => true,
        (Codec::Auto, None, Found::Opaque | Found::Tls(_)) => {
            // Nobody looked, or it is TLS without ALPN: the protocol shows only in the first bytes.
            let Some(early) = first_bytes(&connection, &mut stream).await else { return };
            if HTTP2_PREFACE.starts_with(early.as_slice()) || early.as_slice().starts_with(HTTP2_PREFACE) {
                return Box::pin(serve_h2(worker, connection, stream.with_early(early), &limits)).await;
            }
            return serve_h1(worker, connection, h1::Wire::new(stream, limits, early)).await;
        }
    };
    if is_h2 {
        return Box::pin(serve_h2(worker, connection, stream, &limits)).await;
    }
    serve_h1(worker, connection, h1::Wire::new(stream, limits, ByteQueue::default())).await;
}

/// Limits, codec and time bounds of the connection's chain.
fn settings(worker: &Worker, connection: &Connection) -> Option<(Limits, Codec, HttpLimits)> {
    let live = worker.live();
    let chain = live.plan.listener(&connection.listener)?.chain(&connection.chain)?;
    let ServePlan::Http(http) = &chain.serve else { return None };
    Some((limits_of(http), http.settings.codec, http.settings.limits))
}

fn limits_of(http: &HttpPlan) -> Limits {
    let settings = &http.settings.limits;
    Limits {
        max_head_bytes: usize::try_from(settings.max_headers_kib).unwrap_or(usize::MAX).saturating_mul(1024),
        max_fields: usize::try_from(settings.max_headers_count).unwrap_or(usize::MAX),
        http10: if http.settings.http10 { Http10::Accept } else { Http10::Refuse },
        ..Limits::default()
    }
}

/// Enough plaintext to tell HTTP/2 from HTTP/1.1.
async fn first_bytes(connection: &Connection, stream: &mut Stream) -> Option<ByteQueue> {
    let mut early = ByteQueue::default();
    loop {
        let count = std::future::poll_fn(|cx| {
            if connection.entry.poll_closing(cx, Closing::Idle).is_ready() {
                return Poll::Ready(0);
            }
            match stream.poll_read_ready(cx) {
                Poll::Ready(Ok(())) => stream.poll_read_into(cx, early.tail(1024)).map(|result| result.unwrap_or(0)),
                Poll::Ready(Err(_)) => Poll::Ready(0),
                Poll::Pending => Poll::Pending,
            }
        })
        .await;
        if count == 0 {
            return None;
        }
        // "PRI" is no method anybody uses: three bytes decide.
        if early.len() >= 3 || !HTTP2_PREFACE.starts_with(early.as_slice()) {
            return Some(early);
        }
    }
}

/// What ends a wait for the next request.
enum Next {
    /// A request's head is in the scratch area.
    Request(Request),
    /// Its head is no good: answer, then close.
    Malformed(Broken),
    /// The client has ended the connection.
    End,
    /// We end it, and a request may be on its way.
    Leave,
}

async fn serve_h1(worker: &Rc<Worker>, connection: Connection, mut wire: h1::Wire) {
    let mut first = true;
    let mut leaves = false;
    loop {
        if !first && !wait_for_request(&connection, &wire).await {
            leaves = true;
            break;
        }
        first = false;
        let mut scratch = worker.take_scratch();
        let (request, version) = match read_head(&connection, &mut wire, &mut scratch.request).await {
            Next::Request(request) => (request, scratch.request.version()),
            Next::Malformed(broken) => {
                Box::pin(refuse(worker, &connection, &mut wire, scratch, &broken)).await;
                break;
            }
            ended @ (Next::End | Next::Leave) => {
                leaves = matches!(ended, Next::Leave);
                worker.give_scratch(scratch);
                break;
            }
        };
        let busy = connection.entry.busy();
        let close = !request.persistent || connection.entry.closing().is_some();
        let mut down = Downstream::H1 { wire: &mut wire, request, version, close };
        // Boxed, so that a resting connection does not keep the room that a request needs.
        let running = Box::pin(exchange::run(worker, &connection, &mut scratch, &mut down));
        let forced = std::future::poll_fn(|cx| connection.entry.poll_closing(cx, Closing::Now));
        let after = tokio::select! {
            after = running => after,
            _ = forced => {
                // The grace of a drain is over: the request is cut, and told of.
                exchange::cut_by_drain(worker, &connection, &mut scratch);
                worker.give_scratch(scratch);
                return;
            }
        };
        drop(busy);
        match after {
            After::Next => worker.give_scratch(scratch),
            After::Close => {
                worker.give_scratch(scratch);
                break;
            }
            After::Tunnel(call) => {
                Box::pin(run_tunnel(worker, &connection, wire, *call, &mut scratch)).await;
                worker.give_scratch(scratch);
                return;
            }
        }
    }
    if leaves && connection.is_of_mesh() {
        Box::pin(take_leave(worker, wire)).await;
    } else {
        Box::pin(close(wire)).await;
    }
}

/// Tells a proxy of the mesh that no request of this connection will be read any more, and closes. Its next request may be on
/// its way: this is its answer, and no other comes. A proxy that rests finds the connection out of step and drops it.
async fn take_leave(worker: &Rc<Worker>, mut wire: h1::Wire) {
    let mut scratch = worker.take_scratch();
    scratch.request.clear();
    let fault = Fault { resend: true, ..Fault::new(FaultKind::Leaving) };
    let mut down = Downstream::H1 { wire: &mut wire, request: NO_REQUEST, version: Version::Http11, close: true };
    let _ = reply::send(None, Reply::Fault(fault), reply::Says::SendAgain, &mut scratch, &mut down).await;
    worker.give_scratch(scratch);
    let orderly = async {
        let _ = std::future::poll_fn(|cx| wire.poll_close(cx)).await;
        // Until the client closes too: to close before would take back what it has not read yet.
        std::future::poll_fn(|cx| wire.poll_discard(cx)).await;
    };
    let _ = tokio::time::timeout(LINGER, orderly).await;
}

/// What there is of a request that was not understood, or not read.
const NO_REQUEST: Request = Request {
    consumed: 0,
    framing: mesh_proxy_core::h1::Framing::None,
    persistent: false,
    switch: mesh_proxy_core::h1::head::Switch::None,
    expect_continue: false,
};

/// Waits until a request's first byte is there. False: the connection is to end.
async fn wait_for_request(connection: &Connection, wire: &h1::Wire) -> bool {
    std::future::poll_fn(|cx| {
        if wire.poll_readable(cx).is_ready() {
            return Poll::Ready(true);
        }
        connection.entry.poll_closing(cx, Closing::Idle).map(|_| false)
    })
    .await
}

async fn read_head(connection: &Connection, wire: &mut h1::Wire, head: &mut mesh_proxy_core::head::Head) -> Next {
    // The timer is made only for a head that does not come in one piece.
    let mut timer = None;
    std::future::poll_fn(|cx| {
        match wire.poll_request(cx, head) {
            Poll::Ready(Ok(Some(request))) => return Poll::Ready(Next::Request(request)),
            Poll::Ready(Ok(None) | Err(Broken::Closed | Broken::Io(_))) => return Poll::Ready(Next::End),
            Poll::Ready(Err(broken)) => return Poll::Ready(Next::Malformed(broken)),
            Poll::Pending => {}
        }
        if !wire.has_input() {
            return connection.entry.poll_closing(cx, Closing::Idle).map(|_| Next::Leave);
        }
        let timer = timer.get_or_insert_with(|| Box::pin(tokio::time::sleep(HEAD_TIMEOUT)));
        match std::future::Future::poll(timer.as_mut(), cx) {
            Poll::Ready(()) => Poll::Ready(Next::End),
            Poll::Pending => connection.entry.poll_closing(cx, Closing::Now).map(|_| Next::Leave),
        }
    })
    .await
}

/// Answers a request that cannot be understood.
async fn refuse(
    worker: &Rc<Worker>,
    connection: &Connection,
    wire: &mut h1::Wire,
    mut scratch: Box<exchange::Scratch>,
    broken: &Broken,
) {
    let fault = exchange::downstream_fault(broken);
    worker.telemetry.request_refused(connection, &fault);
    tracing::debug!(listener = %connection.listener, code = %fault.code(), "Malformed request");
    scratch.request.clear();
    let mut down = Downstream::H1 { wire, request: NO_REQUEST, version: Version::Http11, close: true };
    let _ = reply::send(None, Reply::Fault(fault), reply::Says::Final, &mut scratch, &mut down).await;
    worker.give_scratch(scratch);
}

/// Closes in an orderly way: what was sent must not be lost to a reset because of unread bytes.
async fn close(mut wire: h1::Wire) {
    let orderly = async {
        let _ = std::future::poll_fn(|cx| wire.poll_flush(cx)).await;
        let _ = std::future::poll_fn(|cx| wire.poll_close(cx)).await;
        if wire.has_input() || !wire.is_recv_ended() {
            std::future::poll_fn(|cx| wire.poll_discard(cx)).await;
        }
    };
    let _ = tokio::time::timeout(LINGER, orderly).await;
}

/// Carries the other protocol that both sides agreed on.
async fn run_tunnel(
    worker: &Rc<Worker>,
    connection: &Connection,
    wire: h1::Wire,
    call: Call,
    scratch: &mut exchange::Scratch,
) {
    let Call::H1 { pooled, .. } = call else { return };
    let busy = connection.entry.busy();
    let (down, early) = wire.into_parts();
    let (up, late) = pooled.wire.into_parts();
    let (mut down, mut up) = (down.with_early(early), up.with_early(late));
    let bytes = TunnelBytes::default();
    let forced = std::future::poll_fn(|cx| connection.entry.poll_closing(cx, Closing::Now));
    tokio::select! {
        _ = tunnel(&mut down, &mut up, None, &bytes) => {}
        _ = forced => {}
    }
    drop(busy);
    scratch.progress.received += bytes.sent.get();
    scratch.progress.sent += bytes.received.get();
    scratch.record.end(Instant::now());
    let live = worker.live();
    let chain = live.plan.listener(&connection.listener).and_then(|listener| listener.chain(&connection.chain));
    let http = chain.and_then(|chain| match &chain.serve {
        ServePlan::Http(http) => Some(http),
        ServePlan::Tcp(_) => None,
    });
    worker.telemetry.http_finished(connection, http, scratch);
}

async fn serve_h2(worker: &Rc<Worker>, connection: Connection, stream: Stream, limits: &Limits) {
    let max_head = u32::try_from(limits.max_head_bytes).unwrap_or(u32::MAX);
    let handshake = h2::server_builder(max_head).handshake::<_, bytes::Bytes>(stream);
    let mut accepting = match tokio::time::timeout(HEAD_TIMEOUT, handshake).await {
        Ok(Ok(accepting)) => accepting,
        Ok(Err(error)) => {
            worker.telemetry.request_refused(&connection, &exchange::downstream_fault(&h2::broken(error)));
            return;
        }
        Err(_) => return,
    };
    let connection = Rc::new(connection);
    // Set once the client was told to go away.
    let mut grace: Option<Deadline> = None;
    loop {
        let event = std::future::poll_fn(|cx| {
            if let Poll::Ready(accepted) = accepting.poll_accept(cx) {
                return Poll::Ready(Some(accepted));
            }
            let wanted = if grace.is_some() { Closing::Now } else { Closing::Leave };
            let over = grace.as_mut().is_some_and(|grace| grace.poll(cx).is_ready());
            if over || connection.entry.poll_closing(cx, wanted).is_ready() { Poll::Ready(None) } else { Poll::Pending }
        })
        .await;
        match event {
            Some(Some(Ok((request, respond)))) => {
                let stream = serve_stream(Rc::clone(worker), Rc::clone(&connection), request, respond);
                tokio::task::spawn_local(stream);
            }
            Some(Some(Err(error))) => {
                tracing::debug!(listener = %connection.listener, %error, "HTTP/2 connection ended");
                return;
            }
            Some(None) => return,
            None if grace.is_some() => return,
            None => {
                accepting.graceful_shutdown();
                grace = Some(Deadline::at(Some(Instant::now() + H2_GRACE)));
            }
        }
    }
}

async fn serve_stream(
    worker: Rc<Worker>,
    connection: Rc<Connection>,
    request: http::Request<::h2::RecvStream>,
    respond: ::h2::server::SendResponse<bytes::Bytes>,
) {
    let _busy = connection.entry.busy();
    let _watch = PanicWatch(Rc::clone(&worker));
    let mut scratch = worker.take_scratch();
    let (parts, body) = request.into_parts();
    let mut down = Downstream::H2 { stream: h2::Stream::new(None, Some(body)), respond: Some(respond) };
    if let Err(broken) = h2::read_request(&parts, &mut scratch.request) {
        let fault: Fault = exchange::downstream_fault(&broken);
        worker.telemetry.request_refused(&connection, &fault);
        if let Downstream::H2 { respond: Some(respond), .. } = &mut down {
            respond.send_reset(::h2::Reason::PROTOCOL_ERROR);
        }
    } else {
        drop(parts);
        exchange::run(&worker, &connection, &mut scratch, &mut down).await;
        // A request that was not read to its end is reset by dropping its stream, behind what is queued.
    }
    worker.give_scratch(scratch);
}
