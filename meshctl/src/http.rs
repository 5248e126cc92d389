//! A small HTTP/1.1 client for admin and debug pages, and for asking the ingress.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

/// Largest answer read (bytes): a configuration dump of a large mesh.
pub const MAX_ANSWER_BYTES: usize = 512 << 20;
/// Time for one request, from connecting to the last byte.
pub const TIMEOUT: Duration = Duration::from_secs(10);
/// Time that a reason has to come after its failure.
pub const GRACE: Duration = Duration::from_millis(200);

/// An answer.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Its status.
    pub status: StatusCode,
    /// Its header fields.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Bytes,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// Nobody answers there.
    #[error("cannot connect to {address}")]
    Connect {
        /// The address.
        address: String,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// What came is no answer.
    #[error("{address} did not answer {path} as HTTP")]
    Protocol {
        /// The address.
        address: String,
        /// The path asked for.
        path: String,
        /// What is wrong.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// It took too long.
    #[error("{address} did not answer {path} within {TIMEOUT:?}")]
    Timeout {
        /// The address.
        address: String,
        /// The path asked for.
        path: String,
    },
    /// The answer is an error.
    #[error("{address} answered {path} with {status}")]
    Status {
        /// The address.
        address: String,
        /// The path asked for.
        path: String,
        /// The status.
        status: StatusCode,
    },
}

/// Asks once, over a connection of its own.
///
/// # Errors
/// When there is no answer. One with an error status is an answer.
pub async fn ask(address: SocketAddr, path: &str, headers: &[(&str, &str)]) -> Result<Answer, HttpError> {
    let name = address.to_string();
    let asked = async {
        let request = request(&name, Method::GET, path, headers, Bytes::new())?;
        let stream = TcpStream::connect(address).await;
        let stream = stream.map_err(|source| HttpError::Connect { address: name.clone(), source })?;
        exchange(stream, &name, path, request).await
    };
    match tokio::time::timeout(TIMEOUT, asked).await {
        Ok(result) => result,
        Err(_) => Err(HttpError::Timeout { address: name, path: path.to_owned() }),
    }
}

/// Asks once over a connection that there is already, to what is called `name` in errors. The caller limits the time.
///
/// # Errors
/// When there is no answer. One with an error status is an answer.
pub async fn over(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    name: &str,
    method: Method,
    path: &str,
    body: Bytes,
) -> Result<Answer, HttpError> {
    // Admin interfaces answer to their own name only, lest a browser be led to them.
    let request = request(name, method, path, &[("host", "localhost")], body)?;
    exchange(stream, name, path, request).await
}

/// The body of a page.
///
/// # Errors
/// When there is no answer, and when its status is no success.
pub async fn page(address: SocketAddr, path: &str) -> Result<Bytes, HttpError> {
    let answer = ask(address, path, &[]).await?;
    if answer.status.is_success() {
        Ok(answer.body)
    } else {
        Err(HttpError::Status { address: address.to_string(), path: path.to_owned(), status: answer.status })
    }
}

fn request(
    name: &str,
    method: Method,
    path: &str,
    headers: &[(&str, &str)],
    body: Bytes,
) -> Result<Request<Full<Bytes>>, HttpError> {
    let mut request = Request::builder().method(method).uri(path).header("connection", "close");
    if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
        request = request.header("host", name);
    }
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(Full::new(body)).map_err(|error| protocol(name, path, error.into()))
}

fn protocol(name: &str, path: &str, source: Box<dyn std::error::Error + Send + Sync>) -> HttpError {
    HttpError::Protocol { address: name.to_owned(), path: path.to_owned(), source }
}

async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    name: &str,
    path: &str,
    request: Request<Full<Bytes>>,
) -> Result<Answer, HttpError> {
    let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = handshake.map_err(|error| protocol(name, path, error.into()))?;
    let driver = tokio::spawn(connection);
    let answered = async {
        let (head, body) = sender.send_request(request).await?.into_parts();
        let body = Limited::new(body, MAX_ANSWER_BYTES).collect().await?.to_bytes();
        Ok(Answer { status: head.status, headers: head.headers, body })
    };
    let answer = answered.await.map_err(|error| protocol(name, path, error));
    driver.abort();
    answer
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    async fn answered(text: &'static str) -> Result<Bytes, HttpError> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut seen = Vec::new();
            while !seen.ends_with(b"\r\n\r\n") {
                seen.push(stream.read_u8().await.unwrap());
            }
            stream.write_all(text.as_bytes()).await.unwrap();
        });
        page(address, "/").await
    }

    #[tokio::test]
    async fn pages_are_read_and_errors_named() {
        assert_eq!(answered("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi").await.unwrap(), "hi");
        let refused = answered("HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n").await.unwrap_err();
        assert!(refused.to_string().ends_with("answered / with 404 Not Found"), "{refused}");
        assert!(matches!(answered("no HTTP").await, Err(HttpError::Protocol { .. })));
    }
}
