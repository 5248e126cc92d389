//! A small HTTP/1.1 client for admin and debug pages, and for asking the ingress.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// Largest answer read (bytes): a configuration dump of a large mesh.
const MAX_ANSWER_BYTES: usize = 512 << 20;
/// Time for one request, from connecting to the last byte.
const TIMEOUT: Duration = Duration::from_secs(10);

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
        address: SocketAddr,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// What came is no answer.
    #[error("{address} did not answer {path} as HTTP")]
    Protocol {
        /// The address.
        address: SocketAddr,
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
        address: SocketAddr,
        /// The path asked for.
        path: String,
    },
    /// The answer is an error.
    #[error("{address} answered {path} with {status}")]
    Status {
        /// The address.
        address: SocketAddr,
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
    match tokio::time::timeout(TIMEOUT, exchange(address, path, headers)).await {
        Ok(result) => result,
        Err(_) => Err(HttpError::Timeout { address, path: path.to_owned() }),
    }
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
        Err(HttpError::Status { address, path: path.to_owned(), status: answer.status })
    }
}

async fn exchange(address: SocketAddr, path: &str, headers: &[(&str, &str)]) -> Result<Answer, HttpError> {
    let wrong = |source: Box<dyn std::error::Error + Send + Sync>| HttpError::Protocol {
        address,
        path: path.to_owned(),
        source,
    };
    let mut request = Request::builder().method(Method::GET).uri(path).header("connection", "close");
    if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
        request = request.header("host", address.to_string());
    }
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(Full::new(Bytes::new())).map_err(|error| wrong(error.into()))?;
    let stream = TcpStream::connect(address).await.map_err(|source| HttpError::Connect { address, source })?;
    let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = handshake.map_err(|error| wrong(error.into()))?;
    let driver = tokio::spawn(connection);
    let answered = async {
        let (head, body) = sender.send_request(request).await?.into_parts();
        let body = Limited::new(body, MAX_ANSWER_BYTES).collect().await?.to_bytes();
        Ok(Answer { status: head.status, headers: head.headers, body })
    };
    let answer = answered.await.map_err(wrong);
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
