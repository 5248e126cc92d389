//! HTTP/1.1 calls over kept connections.

use anyhow::Result;
use bytes::Bytes;
use http::header::HOST;
use http::uri::{PathAndQuery, Uri};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use std::fmt;
use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::target::{self, Target};

/// Connections kept for later.
const KEPT: usize = 1024;
/// Bytes of an answer that a caller reads.
const ANSWER_BYTES: usize = 64 << 20;

/// Headers that a service passes on so that one request can be followed and routed through all of them.
pub(crate) const PASSED_ON: [&str; 15] = [
    "x-request-id",
    "traceparent",
    "tracestate",
    "baggage",
    "b3",
    "x-b3-traceid",
    "x-b3-spanid",
    "x-b3-parentspanid",
    "x-b3-sampled",
    "x-b3-flags",
    "x-ot-span-context",
    "x-cloud-trace-context",
    "grpc-trace-bin",
    "end-user",
    "cookie",
];

/// One upstream with its kept connections.
#[derive(Debug)]
pub(crate) struct Upstream {
    target: Target,
    proxy: Option<SocketAddr>,
    keep: bool,
    timeout: Duration,
    kept: Mutex<Vec<SendRequest<Full<Bytes>>>>,
}

/// A whole answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

/// Why there is no answer.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) kind: FailureKind,
    /// In words, for people.
    pub(crate) text: String,
}

/// The names that figures count failures by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FailureKind {
    /// Nobody listens there, or something says so.
    Refused,
    /// No connection for another reason.
    Connect,
    /// No whole answer in time.
    Timeout,
    /// The connection ended before the whole answer.
    Closed,
    /// Not what the protocol allows.
    Protocol,
}

impl FailureKind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::Connect => "connect",
            Self::Timeout => "timeout",
            Self::Closed => "closed",
            Self::Protocol => "protocol",
        }
    }
}

impl Failure {
    pub(crate) fn new(kind: FailureKind, text: impl fmt::Display) -> Self {
        Self { kind, text: text.to_string() }
    }

    /// Of a connection that could not be made.
    pub(crate) fn connecting(error: &std::io::Error) -> Self {
        let refused = error.kind() == std::io::ErrorKind::ConnectionRefused;
        Self::new(if refused { FailureKind::Refused } else { FailureKind::Connect }, error)
    }

    /// Of a connection that broke.
    pub(crate) fn broken(error: &std::io::Error) -> Self {
        Self::new(FailureKind::Closed, error)
    }
}

impl From<hyper::Error> for Failure {
    fn from(error: hyper::Error) -> Self {
        let kind = if error.is_parse() { FailureKind::Protocol } else { FailureKind::Closed };
        // hyper's text names the step, its source the reason.
        let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}")).unwrap_or_default();
        Self::new(kind, format!("{error}{cause}"))
    }
}

impl Upstream {
    /// `keep` false makes a new connection for each call; `proxy` gets every request with the whole URL in it.
    pub(crate) fn new(target: Target, proxy: Option<SocketAddr>, keep: bool, timeout: Duration) -> Self {
        Self { target, proxy, keep, timeout, kept: Mutex::default() }
    }

    /// Sends one request. `path` none means the target's own. A kept connection that turns out closed before any byte of
    /// the request went out is replaced; nothing is ever sent twice.
    ///
    /// # Errors
    /// When there is no whole answer within the upstream's timeout.
    pub(crate) async fn call(
        &self,
        method: Method,
        path: Option<&str>,
        headers: &HeaderMap,
        body: Bytes,
    ) -> Result<Answer, Failure> {
        let request = self.request(method, path, headers, body)?;
        let sent = tokio::time::timeout(self.timeout, self.exchange(request)).await;
        sent.unwrap_or_else(|_| Err(Failure::new(FailureKind::Timeout, format!("no answer in {:?}", self.timeout))))
    }

    fn request(
        &self,
        method: Method,
        path: Option<&str>,
        headers: &HeaderMap,
        body: Bytes,
    ) -> Result<Request<Full<Bytes>>, Failure> {
        let mut parts = self.target.uri.clone().into_parts();
        if let Some(path) = path {
            let path = PathAndQuery::try_from(path).map_err(|error| Failure::new(FailureKind::Protocol, error))?;
            parts.path_and_query = Some(path);
        }
        if self.proxy.is_none() {
            parts.scheme = None;
            parts.authority = None;
        }
        let uri = Uri::from_parts(parts).map_err(|error| Failure::new(FailureKind::Protocol, error))?;
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = method;
        *request.uri_mut() = uri;
        if let Ok(host) = HeaderValue::from_str(self.target.authority()) {
            request.headers_mut().insert(HOST, host);
        }
        if !self.keep {
            request.headers_mut().insert(http::header::CONNECTION, HeaderValue::from_static("close"));
        }
        for name in headers.keys() {
            request.headers_mut().remove(name);
        }
        request.headers_mut().extend(headers.iter().map(|(name, value)| (name.clone(), value.clone())));
        Ok(request)
    }

    async fn exchange(&self, mut request: Request<Full<Bytes>>) -> Result<Answer, Failure> {
        while let Some(mut sender) = self.take() {
            if sender.ready().await.is_err() {
                continue;
            }
            match sender.try_send_request(request).await {
                Ok(response) => return self.finish(sender, response).await,
                Err(mut error) => match error.take_message() {
                    Some(unsent) => request = unsent,
                    None => return Err(error.into_error().into()),
                },
            }
        }
        let mut sender = self.open().await?;
        let response = sender.send_request(request).await?;
        self.finish(sender, response).await
    }

    async fn open(&self) -> Result<SendRequest<Full<Bytes>>, Failure> {
        let stream = match self.proxy {
            Some(proxy) => target::connect(&proxy.to_string()).await,
            None => self.target.connect().await,
        };
        let stream = stream.map_err(|error| Failure::connecting(&error))?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(async move {
            // Its errors reach the request that is under way, if any.
            _ = connection.await;
        });
        Ok(sender)
    }

    async fn finish(
        &self,
        sender: SendRequest<Full<Bytes>>,
        response: http::Response<hyper::body::Incoming>,
    ) -> Result<Answer, Failure> {
        let (head, body) = response.into_parts();
        let body = Limited::new(body, ANSWER_BYTES).collect().await;
        let body = body.map_err(|error| match error.downcast::<hyper::Error>() {
            Ok(error) => Failure::from(*error),
            Err(error) => Failure::new(FailureKind::Protocol, error),
        })?;
        self.put(sender);
        Ok(Answer { status: head.status, headers: head.headers, body: body.to_bytes() })
    }

    fn take(&self) -> Option<SendRequest<Full<Bytes>>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).pop()
    }

    fn put(&self, sender: SendRequest<Full<Bytes>>) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if self.keep && !sender.is_closed() && kept.len() < KEPT {
            kept.push(sender);
        }
    }
}

/// Those of `headers` that travel on.
pub(crate) fn passed_on(headers: &HeaderMap) -> HeaderMap {
    let mut onward = HeaderMap::new();
    for name in PASSED_ON {
        for value in headers.get_all(name) {
            onward.append(HeaderName::from_static(name), value.clone());
        }
    }
    onward
}

/// Parses `NAME:VALUE` flags.
///
/// # Errors
/// Names the text that is no header.
pub(crate) fn headers(flags: &[String]) -> Result<HeaderMap> {
    let mut headers = HeaderMap::new();
    for flag in flags {
        let (name, value) = flag.split_once(':').ok_or_else(|| anyhow::anyhow!("{flag:?} is not NAME:VALUE"))?;
        headers.append(HeaderName::try_from(name.trim())?, HeaderValue::try_from(value.trim())?);
    }
    Ok(headers)
}

#[cfg(test)]
mod tests;
