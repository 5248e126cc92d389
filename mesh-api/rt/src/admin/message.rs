//! Requests and responses of the admin server: whole bodies, no streams.

use std::borrow::Cow;
use std::net::SocketAddr;

use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use http::request::Parts;
use http::{HeaderMap, Method, StatusCode};
use http_body_util::Full;
use hyper::body::Bytes;
use percent_encoding::percent_decode_str;
use serde::Serialize;

/// A request with its whole body (at most [`MAX_REQUEST_BODY_BYTES`](super::MAX_REQUEST_BODY_BYTES)).
#[derive(Debug)]
pub struct Request {
    head: Parts,
    body: Bytes,
    peer: SocketAddr,
    /// Length of the part of the path that the route matched.
    pub(super) matched: usize,
}

/// An answer with its whole body.
#[derive(Clone, Debug)]
pub struct Response {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

impl Request {
    /// A request made of its parts; tests of handlers build theirs with it.
    #[must_use]
    pub fn new(head: Parts, body: Bytes, peer: SocketAddr) -> Self {
        Self { head, body, peer, matched: 0 }
    }

    /// The method; `GET` also for a `HEAD` request, whose body the server leaves out.
    #[must_use]
    pub fn method(&self) -> &Method {
        if self.head.method == Method::HEAD { &Method::GET } else { &self.head.method }
    }

    /// The path as sent: not decoded, without the query.
    #[must_use]
    pub fn path(&self) -> &str {
        self.head.uri.path()
    }

    /// What follows the prefix of a [`prefix`](super::Router::prefix) route; empty for an exact one.
    #[must_use]
    pub fn tail(&self) -> &str {
        self.path().get(self.matched..).unwrap_or_default()
    }

    /// All parameters of the query, decoded, in order. What is no UTF-8 after decoding is replaced.
    pub fn query(&self) -> impl Iterator<Item = (Cow<'_, str>, Cow<'_, str>)> {
        let pairs = self.head.uri.query().unwrap_or_default().split('&').filter(|pair| !pair.is_empty());
        pairs.map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decode(key), decode(value))
        })
    }

    /// The first parameter of this name. A parameter without `=` has an empty value.
    #[must_use]
    pub fn param(&self, name: &str) -> Option<Cow<'_, str>> {
        self.query().find(|(key, _)| key == name).map(|(_, value)| value)
    }

    /// A header as text; `None` when it is absent or no visible ASCII.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.headers.get(name)?.to_str().ok()
    }

    /// All headers.
    #[must_use]
    pub fn headers(&self) -> &HeaderMap {
        &self.head.headers
    }

    /// The whole body.
    #[must_use]
    pub fn body(&self) -> &Bytes {
        &self.body
    }

    /// Who connected.
    #[must_use]
    pub fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// Whether the caller is on this host: what changes state asks for it (Istio: `/quitquitquit` from localhost only).
    #[must_use]
    pub fn is_local(&self) -> bool {
        self.peer.ip().to_canonical().is_loopback()
    }
}

fn decode(text: &str) -> Cow<'_, str> {
    if !text.contains(['%', '+']) {
        return Cow::Borrowed(text);
    }
    let spaced = text.replace('+', " ");
    Cow::Owned(percent_decode_str(&spaced).decode_utf8_lossy().into_owned())
}

impl Response {
    /// An answer of this content type.
    #[must_use]
    pub fn new(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Self {
        let mut headers = HeaderMap::with_capacity(3);
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        // What is shown here is the present state: an answer from a cache would be a lie (Envoy's admin does the same).
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache, max-age=0"));
        Self { status, headers, body: body.into() }
    }

    /// Plain text.
    #[must_use]
    pub fn text(status: StatusCode, body: impl Into<Bytes>) -> Self {
        Self::new(status, "text/plain; charset=UTF-8", body)
    }

    /// Plain text with status 200.
    #[must_use]
    pub fn ok(body: impl Into<Bytes>) -> Self {
        Self::text(StatusCode::OK, body)
    }

    /// Indented JSON with status 200; 500 with the reason when the value cannot be written as JSON.
    #[must_use]
    pub fn json(value: &impl Serialize) -> Self {
        match serde_json::to_vec_pretty(value) {
            Ok(mut body) => {
                body.push(b'\n');
                Self::new(StatusCode::OK, "application/json", body)
            }
            Err(error) => {
                Self::text(StatusCode::INTERNAL_SERVER_ERROR, format!("cannot be written as JSON: {error}\n"))
            }
        }
    }

    /// The same answer with one more header, replacing one of that name.
    #[must_use]
    pub fn with_header(mut self, name: http::HeaderName, value: HeaderValue) -> Self {
        self.headers.insert(name, value);
        self
    }

    /// 405 naming the methods that work.
    pub(super) fn method_not_allowed(allowed: &str) -> Self {
        let response = Self::text(StatusCode::METHOD_NOT_ALLOWED, format!("use {allowed}\n"));
        match HeaderValue::from_str(allowed) {
            Ok(value) => response.with_header(ALLOW, value),
            Err(_) => response,
        }
    }

    /// Status of the answer.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// Headers of the answer.
    #[must_use]
    pub fn headers(&self) -> &HeaderMap {
        &self.headers
    }

    /// Body of the answer.
    #[must_use]
    pub fn body(&self) -> &Bytes {
        &self.body
    }

    pub(super) fn into_http(self) -> hyper::Response<Full<Bytes>> {
        let mut response = hyper::Response::new(Full::new(self.body));
        *response.status_mut() = self.status;
        *response.headers_mut() = self.headers;
        response
    }
}
