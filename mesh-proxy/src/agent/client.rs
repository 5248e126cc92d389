//! A small HTTP client for what is near: the pages of this process, probes and metrics of the application. One request on
//! one connection, everything bounded; never used for users' traffic.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::header::HOST;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// No connection.
    #[error("cannot connect to {address}")]
    Connect {
        /// Where to.
        address: String,
        /// What happened.
        #[source]
        source: io::Error,
    },
    /// TLS failed.
    #[error("the TLS handshake with {address} failed")]
    Tls {
        /// With whom.
        address: String,
        /// What happened.
        #[source]
        source: io::Error,
    },
    /// The address, method, path or a header cannot be used.
    #[error("the request cannot be made")]
    Request(#[source] http::Error),
    /// The connection broke, or the answer is not HTTP.
    #[error("no answer")]
    Http(#[source] hyper::Error),
    /// The body broke.
    #[error("the answer was cut")]
    Body,
    /// The body is larger than wanted.
    #[error("the answer is larger than {0} bytes")]
    TooLarge(usize),
    /// No answer in time.
    #[error("no answer within {0:?}")]
    Timeout(Duration),
}

/// Sends a request to a name and port, and takes the whole answer of at most `most` bytes within `limit`.
///
/// # Errors
/// When there is no whole answer in time.
pub async fn call(
    authority: &str,
    request: Request<Full<Bytes>>,
    most: usize,
    limit: Duration,
) -> Result<Response<Bytes>, CallError> {
    let whole = async {
        let connect = |source| CallError::Connect { address: authority.to_owned(), source };
        let stream = TcpStream::connect(authority).await.map_err(connect)?;
        exchange(stream, authority, request, most).await
    };
    tokio::time::timeout(limit, whole).await.map_err(|_| CallError::Timeout(limit))?
}

/// One HTTP/1.1 request over a connection that is there. The caller bounds the time.
///
/// # Errors
/// When there is no whole answer.
pub async fn exchange<S>(
    stream: S,
    authority: &str,
    mut request: Request<Full<Bytes>>,
    most: usize,
) -> Result<Response<Bytes>, CallError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    add_host(request.headers_mut(), authority)?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(CallError::Http)?;
    // The connection is driven beside the request and dropped with it: nothing is left running.
    let answer = async {
        let (head, body) = sender.send_request(request).await.map_err(CallError::Http)?.into_parts();
        Ok(Response::from_parts(head, collect(body, most).await?))
    };
    tokio::pin!(answer, connection);
    let mut driving = true;
    loop {
        tokio::select! {
            biased;
            answer = &mut answer => return answer,
            _ = &mut connection, if driving => driving = false,
        }
    }
}

fn add_host(headers: &mut HeaderMap, authority: &str) -> Result<(), CallError> {
    if !headers.contains_key(HOST) {
        let value = HeaderValue::try_from(authority).map_err(|error| CallError::Request(error.into()))?;
        headers.insert(HOST, value);
    }
    Ok(())
}

/// The whole body, if it is not larger.
pub(super) async fn collect(body: hyper::body::Incoming, most: usize) -> Result<Bytes, CallError> {
    match Limited::new(body, most).collect().await {
        Ok(whole) => Ok(whole.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(CallError::TooLarge(most)),
        Err(_) => Err(CallError::Body),
    }
}

/// `host:port` as an authority, with the brackets of IPv6.
#[must_use]
pub fn authority(address: SocketAddr) -> String {
    address.to_string()
}
