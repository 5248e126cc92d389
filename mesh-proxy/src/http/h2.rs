//! HTTP/2 by the `h2` crate behind the event vocabulary. Only this file, the pool that opens connections and the server
//! that accepts them name that crate's types; none of them passes on to the request pipeline.

use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use h2::{Reason, RecvStream, SendStream};
use http::header::{HeaderMap, HeaderName, HeaderValue};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{Method, Request, Response, StatusCode, Uri};
use mesh_proxy_core::head::known::KnownName;
use mesh_proxy_core::head::{FieldRef, Head, Kind, Version};

use super::event::{Broken, Chunk, Event};

/// Flow-control window of one stream, bytes: a whole bandwidth-delay product at 1 ms and 8 Gbit/s.
const STREAM_WINDOW: u32 = 1024 * 1024;
/// Flow-control window of a connection, bytes.
const CONNECTION_WINDOW: u32 = 4 * 1024 * 1024;
/// Streams that a client may have open on one connection (Envoy allows 2^31 - 1, Istio keeps it; 1,024 bounds memory).
const MAX_STREAMS: u32 = 1024;

/// Settings for accepting connections; heads are bounded by `max_head_bytes`.
#[must_use]
pub fn server_builder(max_head_bytes: u32) -> h2::server::Builder {
    let mut builder = h2::server::Builder::new();
    builder
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_concurrent_streams(MAX_STREAMS)
        .max_header_list_size(max_head_bytes)
        .max_pending_accept_reset_streams(64)
        .max_send_buffer_size(256 * 1024);
    builder
}

/// Settings for opening connections.
#[must_use]
pub fn client_builder(max_head_bytes: u32) -> h2::client::Builder {
    let mut builder = h2::client::Builder::new();
    builder
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_header_list_size(max_head_bytes)
        .max_send_buffer_size(256 * 1024)
        .enable_push(false);
    builder
}

/// Both directions of one stream after its heads.
#[derive(Debug)]
pub struct Stream {
    send: Option<SendStream<Bytes>>,
    recv: Option<RecvStream>,
    taken: Bytes,
    trailers: Head,
    queued: Bytes,
    /// What ends our side once `queued` is gone.
    ending: Ending,
}

#[derive(Debug)]
enum Ending {
    Open,
    Data,
    Trailers(HeaderMap),
    Done,
}

impl Stream {
    /// A stream that receives from `recv`; sending starts with [`Self::set_send`].
    #[must_use]
    pub fn new(send: Option<SendStream<Bytes>>, recv: Option<RecvStream>) -> Self {
        Self { send, recv, taken: Bytes::new(), trailers: Head::trailers(), queued: Bytes::new(), ending: Ending::Open }
    }

    /// Gives the sending half, known only after our head went out.
    pub fn set_send(&mut self, send: SendStream<Bytes>, ended: bool) {
        self.send = Some(send);
        self.ending = if ended { Ending::Done } else { Ending::Open };
    }

    /// Gives the receiving half, known only after the peer's head came in.
    pub fn set_recv(&mut self, recv: RecvStream) {
        self.recv = Some(recv);
    }

    /// Whether nothing follows the peer's head.
    #[must_use]
    pub fn is_recv_ended(&self) -> bool {
        self.recv.as_ref().is_none_or(RecvStream::is_end_stream)
    }

    /// The next event.
    ///
    /// # Errors
    /// When the stream or its connection breaks.
    pub fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<Result<Event, Broken>> {
        let Some(recv) = &mut self.recv else { return Poll::Ready(Ok(Event::End)) };
        if !self.taken.is_empty() {
            return Poll::Ready(Ok(Event::Data));
        }
        loop {
            match ready!(recv.poll_data(cx)) {
                Some(Ok(data)) if data.is_empty() => {}
                Some(Ok(data)) => {
                    self.taken = data;
                    return Poll::Ready(Ok(Event::Data));
                }
                Some(Err(error)) => return Poll::Ready(Err(broken(error))),
                None => break,
            }
        }
        let trailers = ready!(recv.poll_trailers(cx)).map_err(broken)?;
        self.recv = None;
        let Some(fields) = trailers else { return Poll::Ready(Ok(Event::End)) };
        self.trailers.reset(Kind::Trailers);
        read_fields(&fields, &mut self.trailers)?;
        Poll::Ready(Ok(Event::Trailers))
    }

    /// The bytes of [`Event::Data`]; the peer may send as many again.
    pub fn take_chunk(&mut self) -> Chunk<'_> {
        let data = std::mem::take(&mut self.taken);
        if let Some(recv) = &mut self.recv {
            // Fails only when the stream is already gone; the next event says so.
            let _ = recv.flow_control().release_capacity(data.len());
        }
        Chunk::Shared(data)
    }

    /// The fields of [`Event::Trailers`].
    pub const fn trailers(&mut self) -> &mut Head {
        &mut self.trailers
    }

    /// Queues body bytes; call only when [`Self::poll_flush`] was ready.
    pub fn send_data(&mut self, chunk: Chunk<'_>) {
        debug_assert!(self.queued.is_empty());
        self.queued = chunk.into_bytes();
        self.try_send();
    }

    /// Ends our side, with trailers if there are some.
    pub fn finish(&mut self, trailers: Option<&Head>) {
        if !matches!(self.ending, Ending::Open) {
            return;
        }
        self.ending = trailers.map_or(Ending::Data, |head| Ending::Trailers(write_fields(head)));
        self.try_send();
    }

    /// Whether our side has ended and all of it was handed over.
    #[must_use]
    pub const fn is_send_done(&self) -> bool {
        matches!(self.ending, Ending::Done)
    }

    /// Ready when everything queued was handed to the connection.
    ///
    /// # Errors
    /// When the peer reset the stream or the connection broke.
    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        loop {
            self.try_send();
            if self.queued.is_empty() {
                return Poll::Ready(Ok(()));
            }
            let Some(send) = &mut self.send else { return Poll::Ready(Err(Broken::Closed)) };
            match ready!(send.poll_capacity(cx)) {
                Some(Ok(_)) => {}
                Some(Err(error)) => return Poll::Ready(Err(broken(error))),
                None => return Poll::Ready(Err(Broken::Closed)),
            }
        }
    }

    /// Ready when the peer reset the stream or its connection went away.
    pub fn poll_broken(&mut self, cx: &mut Context<'_>) -> Poll<Broken> {
        let Some(send) = &mut self.send else { return Poll::Pending };
        match ready!(send.poll_reset(cx)) {
            Ok(reason) => Poll::Ready(reset(reason)),
            Err(error) => Poll::Ready(broken(error)),
        }
    }

    /// Resets the stream.
    pub fn reset(&mut self, cause: ResetCause) {
        if let Some(send) = &mut self.send {
            send.send_reset(cause.reason());
        }
    }

    fn try_send(&mut self) {
        let Some(send) = &mut self.send else { return };
        if !self.queued.is_empty() {
            send.reserve_capacity(self.queued.len());
            let room = send.capacity().min(self.queued.len());
            if room == 0 {
                return;
            }
            let piece = self.queued.split_to(room);
            let last = self.queued.is_empty() && matches!(self.ending, Ending::Data);
            // A stream that is gone is reported by the next poll.
            let _ = send.send_data(piece, last);
            if last {
                self.ending = Ending::Done;
            }
        }
        if self.queued.is_empty() {
            match std::mem::replace(&mut self.ending, Ending::Done) {
                Ending::Open => self.ending = Ending::Open,
                Ending::Done => {}
                Ending::Data => {
                    let _ = send.send_data(Bytes::new(), true);
                }
                Ending::Trailers(fields) => {
                    let _ = send.send_trailers(fields);
                }
            }
        }
    }
}

/// Why we reset a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResetCause {
    /// The message is no longer wanted.
    Cancel,
    /// The message could not be completed.
    Internal,
    /// The response is complete and the rest of the request is not needed (RFC 9113 section 8.1).
    NoError,
    /// The peer broke the protocol.
    Protocol,
}

impl ResetCause {
    const fn reason(self) -> Reason {
        match self {
            Self::Cancel => Reason::CANCEL,
            Self::Internal => Reason::INTERNAL_ERROR,
            Self::NoError => Reason::NO_ERROR,
            Self::Protocol => Reason::PROTOCOL_ERROR,
        }
    }
}

/// Translates the library's error.
#[must_use]
pub fn broken(error: h2::Error) -> Broken {
    if error.is_io() {
        return error.into_io().map_or(Broken::Closed, Broken::Io);
    }
    if error.is_go_away() && error.is_remote() && error.reason() == Some(Reason::NO_ERROR) {
        return Broken::Refused;
    }
    match error.reason() {
        Some(reason) => reset(reason),
        None => Broken::Protocol(error.to_string()),
    }
}

fn reset(reason: Reason) -> Broken {
    if reason == Reason::REFUSED_STREAM { Broken::Refused } else { Broken::Reset(reason.into()) }
}

/// Reads a request's head.
///
/// # Errors
/// When a part is not allowed.
pub fn read_request(parts: &http::request::Parts, head: &mut Head) -> Result<(), Broken> {
    head.reset(Kind::Request);
    head.set_version(Version::Http2);
    let refuse = |_| Broken::Protocol("malformed request head".to_owned());
    head.set_method(parts.method.as_str().as_bytes()).map_err(refuse)?;
    if let Some(scheme) = parts.uri.scheme_str() {
        head.set_scheme(scheme.as_bytes()).map_err(refuse)?;
    }
    if let Some(target) = parts.uri.path_and_query() {
        head.set_target(target.as_str().as_bytes()).map_err(refuse)?;
    }
    if let Some(protocol) = parts.extensions.get::<h2::ext::Protocol>() {
        head.set_protocol(protocol.as_str().as_bytes()).map_err(refuse)?;
    }
    if let Some(authority) = parts.uri.authority() {
        head.set_authority(authority.as_str().as_bytes()).map_err(refuse)?;
        if let Some(host) = parts.headers.get(http::header::HOST)
            && !host.as_bytes().eq_ignore_ascii_case(authority.as_str().as_bytes())
        {
            return Err(Broken::Protocol(":authority and host differ".to_owned()));
        }
    }
    read_fields(&parts.headers, head)
}

/// Reads a response's head.
///
/// # Errors
/// When a part is not allowed.
pub fn read_response(parts: &http::response::Parts, head: &mut Head) -> Result<(), Broken> {
    head.reset(Kind::Response);
    head.set_version(Version::Http2);
    head.set_status(parts.status.as_u16()).map_err(|error| Broken::Protocol(error.to_string()))?;
    read_fields(&parts.headers, head)
}

fn read_fields(fields: &HeaderMap, head: &mut Head) -> Result<(), Broken> {
    let has_authority = head.kind() == Kind::Request && !head.authority().is_empty();
    for (name, value) in fields {
        if name == http::header::HOST && has_authority {
            continue;
        }
        head.append(name.as_str().as_bytes(), value.as_bytes())
            .map_err(|error| Broken::Protocol(format!("field {name}: {error}")))?;
    }
    Ok(())
}

/// Builds a request for the wire. Fields of one hop are left out (RFC 9113 section 8.2.2).
///
/// # Errors
/// When authority, path or scheme do not form a request target.
pub fn write_request(head: &Head, scheme: &str) -> Result<Request<()>, Broken> {
    let refuse = |what: &str| Broken::Protocol(format!("cannot be sent over HTTP/2: {what}"));
    let mut request = Request::new(());
    *request.method_mut() = Method::from_bytes(head.method_text()).map_err(|_| refuse("method"))?;
    let mut parts = http::uri::Parts::default();
    parts.scheme = Some(Scheme::try_from(scheme).map_err(|_| refuse("scheme"))?);
    let authority = Bytes::copy_from_slice(head.authority());
    if !authority.is_empty() {
        parts.authority = Some(Authority::from_maybe_shared(authority).map_err(|_| refuse("authority"))?);
    }
    let target =
        if head.target().is_empty() { Bytes::from_static(b"/") } else { Bytes::copy_from_slice(head.target()) };
    parts.path_and_query = Some(PathAndQuery::from_maybe_shared(target).map_err(|_| refuse("path"))?);
    if parts.authority.is_none() {
        parts.scheme = None;
    }
    *request.uri_mut() = Uri::from_parts(parts).map_err(|_| refuse("target"))?;
    *request.version_mut() = http::Version::HTTP_2;
    if let Some(protocol) = head.protocol() {
        let protocol = std::str::from_utf8(protocol).map_err(|_| refuse("protocol"))?;
        request.extensions_mut().insert(h2::ext::Protocol::from(protocol));
    }
    *request.headers_mut() = write_fields(head);
    Ok(request)
}

/// Builds a response for the wire.
///
/// # Errors
/// When the status is not one.
pub fn write_response(head: &Head) -> Result<Response<()>, Broken> {
    let mut response = Response::new(());
    *response.status_mut() =
        StatusCode::from_u16(head.status()).map_err(|_| Broken::Protocol("status out of range".to_owned()))?;
    *response.version_mut() = http::Version::HTTP_2;
    *response.headers_mut() = write_fields(head);
    Ok(response)
}

/// All values share one allocation.
fn write_fields(head: &Head) -> HeaderMap {
    let kept = || head.iter().filter(|field| !is_hop_by_hop(field));
    let total: usize = kept().map(|field| field.value.len()).sum();
    let mut values = BytesMut::with_capacity(total);
    let mut fields = HeaderMap::with_capacity(head.len());
    for field in kept() {
        values.extend_from_slice(field.value);
    }
    let mut values = values.freeze();
    for field in kept() {
        let value = values.split_to(field.value.len());
        if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(field.name), HeaderValue::from_maybe_shared(value)) {
            fields.append(name, value);
        }
    }
    fields
}

fn is_hop_by_hop(field: &FieldRef<'_>) -> bool {
    match field.known {
        Some(
            KnownName::Host
            | KnownName::Connection
            | KnownName::KeepAlive
            | KnownName::ProxyConnection
            | KnownName::TransferEncoding
            | KnownName::Upgrade
            | KnownName::Http2Settings,
        ) => true,
        Some(KnownName::Te) => !field.value.eq_ignore_ascii_case(b"trailers"),
        _ => false,
    }
}
