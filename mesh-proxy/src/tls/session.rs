//! A TLS session over bytes: the only place that names rustls' connections.
//!
//! It owns no socket. Ciphertext goes in through [`Session::feed`], plaintext comes out through [`Session::read`];
//! plaintext goes in through [`Session::seal`], ciphertext comes out through [`Session::poll_write`].

use std::io::{self, BufRead, IoSlice, Write};
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, Connection, ServerConfig, ServerConnection};

use crate::net::io::Io;

/// Plaintext sealed before the ciphertext is written out: bounds memory and keeps records of 16 KiB full.
pub const SEAL_BYTES: usize = 64 * 1024;

/// Plaintext at which no more ciphertext is decrypted before some is read. rustls refuses ciphertext when it holds more than
/// this (`DEFAULT_RECEIVED_PLAINTEXT_LIMIT`).
const HELD_BYTES: usize = 16 * 1024;

/// One TLS connection.
#[derive(Debug)]
pub struct Session {
    connection: Connection,
    /// Decrypted bytes, or the end of the stream, wait to be read.
    readable: bool,
    /// Ciphertext that waits until decrypted bytes are read: at most what one [`Session::feed`] brought.
    waiting: Vec<u8>,
}

impl Session {
    /// A session as server.
    ///
    /// # Errors
    /// When the configuration cannot serve.
    pub fn server(config: Arc<ServerConfig>) -> Result<Self, rustls::Error> {
        let mut connection = ServerConnection::new(config)?;
        connection.set_buffer_limit(None);
        Ok(Self { connection: Connection::Server(connection), readable: false, waiting: Vec::new() })
    }

    /// A session as client that names `server` in its ClientHello when the configuration has SNI on.
    ///
    /// # Errors
    /// When the configuration cannot connect.
    pub fn client(config: Arc<ClientConfig>, server: ServerName<'static>) -> Result<Self, rustls::Error> {
        let mut connection = ClientConnection::new(config, server)?;
        connection.set_buffer_limit(None);
        Ok(Self { connection: Connection::Client(connection), readable: false, waiting: Vec::new() })
    }

    /// Whether the handshake is still going on.
    #[must_use]
    pub fn is_handshaking(&self) -> bool {
        self.connection.is_handshaking()
    }

    /// The peer's certificates, leaf first.
    #[must_use]
    pub fn peer_certificates(&self) -> Option<&[CertificateDer<'static>]> {
        self.connection.peer_certificates()
    }

    /// The protocol agreed on.
    #[must_use]
    pub fn alpn(&self) -> Option<&[u8]> {
        self.connection.alpn_protocol()
    }

    /// The name that the client asked for (server side only).
    #[must_use]
    pub fn sni(&self) -> Option<&str> {
        match &self.connection {
            Connection::Server(server) => server.server_name(),
            Connection::Client(_) => None,
        }
    }

    /// TLS version and cipher suite, for logs.
    #[must_use]
    pub fn parameters(&self) -> (Option<rustls::ProtocolVersion>, Option<rustls::CipherSuite>) {
        (self.connection.protocol_version(), self.connection.negotiated_cipher_suite().map(|suite| suite.suite()))
    }

    /// Takes ciphertext. To be called again once [`Session::read`] says that there is nothing now.
    ///
    /// # Errors
    /// When the peer breaks the protocol or its certificate is refused; an alert is then ready to be written.
    pub fn feed(&mut self, mut ciphertext: &[u8]) -> Result<(), rustls::Error> {
        while !ciphertext.is_empty() {
            match self.connection.read_tls(&mut ciphertext) {
                Ok(0) => break,
                Ok(_) => {
                    let state = self.connection.process_new_packets()?;
                    self.readable |= state.plaintext_bytes_to_read() > 0 || state.peer_has_closed();
                    if state.plaintext_bytes_to_read() >= HELD_BYTES {
                        self.waiting.extend_from_slice(ciphertext);
                        break;
                    }
                }
                Err(error) => return Err(rustls::Error::General(error.to_string())),
            }
        }
        Ok(())
    }

    /// Whether [`Self::read`] has something without more ciphertext.
    #[must_use]
    pub const fn is_readable(&self) -> bool {
        self.readable
    }

    /// Hands up to `room` decrypted bytes to `sink`. `None`: nothing now. `Some(0)`: the peer closed cleanly.
    ///
    /// # Errors
    /// When the stream was cut without a closing alert.
    pub fn read(&mut self, room: usize, mut sink: impl FnMut(&[u8])) -> io::Result<Option<usize>> {
        let mut read = 0;
        while read < room {
            let mut reader = self.connection.reader();
            match reader.fill_buf() {
                Ok([]) if read == 0 => return Ok(Some(0)),
                Ok([]) => break,
                Ok(plain) => {
                    let piece = plain.get(..plain.len().min(room - read)).unwrap_or(plain);
                    sink(piece);
                    let count = piece.len();
                    read += count;
                    reader.consume(count);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.readable = false;
                    if !self.waiting.is_empty() {
                        let waiting = std::mem::take(&mut self.waiting);
                        self.feed(&waiting).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
                        continue;
                    }
                    return Ok((read > 0).then_some(read));
                }
                // What was read before the cut is delivered first; the next call reports it again.
                Err(_) if read > 0 => break,
                Err(error) => return Err(error),
            }
        }
        Ok(Some(read))
    }

    /// Encrypts `plain`.
    ///
    /// # Errors
    /// Never while the buffer limit is off; kept because rustls says so.
    pub fn seal(&mut self, plain: &[u8]) -> io::Result<()> {
        self.connection.writer().write_all(plain)
    }

    /// Queues the closing alert.
    pub fn close(&mut self) {
        self.connection.send_close_notify();
    }

    /// Whether ciphertext waits to be written.
    #[must_use]
    pub fn wants_write(&self) -> bool {
        self.connection.wants_write()
    }

    /// Writes all waiting ciphertext.
    ///
    /// # Errors
    /// As the socket reports.
    pub fn poll_write(&mut self, io: &mut Io, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.connection.wants_write() {
            let mut adapter = Adapter { io, cx };
            match self.connection.write_tls(&mut adapter) {
                Ok(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Poll::Pending,
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Drives the handshake to its end.
    ///
    /// # Errors
    /// When the peer breaks the protocol, is not trusted or goes away; our alert is sent first where it can be.
    pub fn poll_handshake(&mut self, io: &mut Io, cx: &mut Context<'_>, scratch: &mut Vec<u8>) -> Poll<io::Result<()>> {
        loop {
            ready!(self.poll_write(io, cx))?;
            if !self.connection.is_handshaking() {
                return Poll::Ready(Ok(()));
            }
            ready!(io.poll_read_ready(cx))?;
            scratch.clear();
            let count = ready!(io.poll_read_into(cx, scratch))?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
            }
            if let Err(error) = self.feed(scratch) {
                let _ = self.poll_write(io, cx);
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, error)));
            }
        }
    }
}

/// Lets rustls write to an [`Io`] from within a poll.
struct Adapter<'a, 'b> {
    io: &'a mut Io,
    cx: &'a mut Context<'b>,
}

impl Adapter<'_, '_> {
    fn write_slices(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let polled = match slices {
            [only] => self.io.poll_write(self.cx, only),
            several => self.io.poll_write_vectored(self.cx, several),
        };
        match polled {
            Poll::Ready(result) => result,
            Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
        }
    }
}

impl Write for Adapter<'_, '_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_slices(&[IoSlice::new(bytes)])
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        self.write_slices(slices)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use mesh_ca::testing::TestCa;
    use rustls::RootCertStore;
    use rustls::pki_types::PrivatePkcs8KeyDer;

    use super::*;
    use crate::tls::provider::provider;

    /// A client and a server whose handshake is done.
    fn mk_pair() -> (Session, Session) {
        let ca = TestCa::new(SystemTime::now());
        let identity = ca.identity("shop", "web");
        let credential = ca.credential_for(&identity, &["web"], std::time::Duration::from_secs(600), SystemTime::now());
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(credential.bundle.ders().cloned());
        let client = ClientConfig::builder_with_provider(provider().clone())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let key = PrivatePkcs8KeyDer::from(credential.key().pkcs8_der().to_vec()).into();
        let server = ServerConfig::builder_with_provider(provider().clone())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(credential.chain(), key)
            .unwrap();
        let mut client = Session::client(Arc::new(client), "web".try_into().unwrap()).unwrap();
        let mut server = Session::server(Arc::new(server)).unwrap();
        while client.is_handshaking() || server.is_handshaking() {
            server.feed(&written(&mut client)).unwrap();
            client.feed(&written(&mut server)).unwrap();
        }
        (client, server)
    }

    fn written(session: &mut Session) -> Vec<u8> {
        let mut bytes = Vec::new();
        while session.wants_write() {
            session.connection.write_tls(&mut bytes).unwrap();
        }
        bytes
    }

    #[test]
    fn several_records_fed_at_once_are_all_read() {
        let (mut client, mut server) = mk_pair();
        let sent: Vec<u8> = (0..SEAL_BYTES).map(|number| u8::try_from(number % 251).unwrap()).collect();
        client.seal(&sent).unwrap();
        client.close();
        server.feed(&written(&mut client)).unwrap();
        let mut read = Vec::new();
        // In pieces that fit neither records nor the limit.
        while let Some(count) = server.read(10_000, |plain| read.extend_from_slice(plain)).unwrap() {
            if count == 0 {
                break;
            }
            assert!(server.is_readable() || read.len() == sent.len());
        }
        assert!(read == sent, "{} of {} bytes", read.len(), sent.len());
        assert_eq!(server.read(10, |_| {}).unwrap(), Some(0), "the closing alert is seen");
    }
}
