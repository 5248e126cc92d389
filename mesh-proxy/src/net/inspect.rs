//! Reads the first bytes of a connection, as far as its listener wants to know what they are.

use std::io;
use std::time::Duration;

use mesh_api_xds::ir::listener::Inspect;
use mesh_proxy_core::detect::{Detection, detect};
use mesh_proxy_core::hello::{ClientHello, MAX_HELLO_BYTES};

use crate::net::io::Io;

/// Room for the first read. A ClientHello with a post-quantum key share has about 1.7 KiB.
const FIRST_READ_BYTES: usize = 2 * 1024;

/// What is known before a chain is chosen.
#[derive(Debug)]
pub struct Inspected {
    /// Bytes read so far; they belong to whoever serves the connection.
    pub peeked: Vec<u8>,
    /// What they are.
    pub found: Found,
}

/// What the first bytes are.
#[derive(Debug)]
pub enum Found {
    /// Nobody looked, or the client was silent for too long, or it is some other protocol.
    Opaque,
    /// A ClientHello.
    Tls(ClientHello),
    /// HTTP/1.1.
    Http1,
    /// HTTP/2 with prior knowledge.
    Http2,
}

impl Found {
    /// Name of the sniffed application protocol, as filter chains match it.
    #[must_use]
    pub const fn application_protocol(&self) -> Option<&'static [u8]> {
        match self {
            Self::Http1 => Some(b"http/1.1"),
            Self::Http2 => Some(b"h2c"),
            Self::Opaque | Self::Tls(_) => None,
        }
    }
}

/// Looks at the first bytes of `io`, whose destination port is `port`.
///
/// # Errors
/// When the client goes away, or claims TLS and sends no valid ClientHello.
pub async fn inspect(io: &mut Io, what: &Inspect, port: u16) -> io::Result<Inspected> {
    let mut inspected = Inspected { peeked: Vec::new(), found: Found::Opaque };
    if (!what.tls && !what.http) || what.except_ports.contains(&port) {
        return Ok(inspected);
    }
    let reading = read_until_known(io, what, &mut inspected);
    if what.timeout == Duration::ZERO {
        reading.await?;
    } else if let Ok(done) = tokio::time::timeout(what.timeout, reading).await {
        done?;
    }
    Ok(inspected)
}

async fn read_until_known(io: &mut Io, what: &Inspect, inspected: &mut Inspected) -> io::Result<()> {
    loop {
        if let Some(found) = look(&inspected.peeked, what)? {
            inspected.found = found;
            return Ok(());
        }
        let peeked = &mut inspected.peeked;
        std::future::poll_fn(|cx| io.poll_read_ready(cx)).await?;
        peeked.reserve(FIRST_READ_BYTES);
        if std::future::poll_fn(|cx| io.poll_read_into(cx, peeked)).await? == 0 {
            // A client that closes before it said anything recognisable is opaque: its destination gets the bytes.
            return if peeked.is_empty() { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(()) };
        }
    }
}

/// `None`: more bytes are needed.
fn look(bytes: &[u8], what: &Inspect) -> io::Result<Option<Found>> {
    let found = match detect(bytes) {
        Detection::NeedMore if bytes.len() < MAX_HELLO_BYTES => return Ok(None),
        Detection::Tls if what.tls => match ClientHello::read(bytes) {
            Ok(Some(hello)) => Found::Tls(hello),
            Ok(None) => return Ok(None),
            Err(error) => return Err(io::Error::new(io::ErrorKind::InvalidData, error)),
        },
        Detection::Http1 if what.http => Found::Http1,
        Detection::Http2 if what.http => Found::Http2,
        _ => Found::Opaque,
    };
    Ok(Some(found))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::io::{AsyncWriteExt as _, duplex};

    use super::*;

    async fn found(chunks: &[&[u8]], what: Inspect, port: u16) -> io::Result<Inspected> {
        let (mut client, near) = duplex(4096);
        let mut io = Io::Pipe(near);
        let send = async {
            for chunk in chunks {
                client.write_all(chunk).await.unwrap();
                tokio::task::yield_now().await;
            }
            std::future::pending::<()>().await;
        };
        tokio::select! {
            inspected = inspect(&mut io, &what, port) => inspected,
            () = send => unreachable!(),
        }
    }

    fn both() -> Inspect {
        Inspect { tls: true, http: true, ..Inspect::default() }
    }

    #[tokio::test(start_paused = true)]
    async fn split_bytes_are_recognised_and_kept() {
        let inspected = found(&[b"GE", b"T / HT", b"TP/1.1\r\n"], both(), 80).await.unwrap();
        assert!(matches!(inspected.found, Found::Http1), "{inspected:?}");
        assert!(b"GET / HTTP/1.1\r\n".starts_with(&inspected.peeked[..]));
        let inspected = found(&[b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"], both(), 80).await.unwrap();
        assert!(matches!(inspected.found, Found::Http2), "{inspected:?}");
        let inspected = found(&[b"\0\0\0\x01"], both(), 80).await.unwrap();
        assert!(matches!(inspected.found, Found::Opaque), "{inspected:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_client_is_opaque_after_the_timeout_and_server_first_ports_are_not_read() {
        let what = Inspect { timeout: Duration::from_secs(5), ..both() };
        assert!(matches!(found(&[], what, 80).await.unwrap().found, Found::Opaque));
        let what = Inspect { except_ports: Arc::from([3306]), ..both() };
        let inspected = found(&[b"GET / HTTP/1.1\r\n"], what, 3306).await.unwrap();
        assert!(inspected.peeked.is_empty());
    }
}
