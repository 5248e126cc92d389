//! A connection's byte stream: plaintext or TLS over an [`Io`], with what was peeked put back in front.

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::buffers::{self, ByteQueue};
use crate::net::io::Io;
use crate::tls::session::{SEAL_BYTES, Session};

/// A byte stream as the request path sees it.
#[derive(Debug)]
pub struct Stream {
    io: Io,
    tls: Option<Box<Session>>,
    /// Ciphertext that was read before the session was built.
    peeked: Vec<u8>,
    /// Plaintext that was read and put back; comes first.
    early: Vec<u8>,
}

impl Stream {
    /// Plaintext over `io`; `peeked` was already read from it.
    #[must_use]
    pub const fn plain(io: Io, peeked: Vec<u8>) -> Self {
        Self { io, tls: None, peeked: Vec::new(), early: peeked }
    }

    /// TLS over `io`; `peeked` is ciphertext already read from it. The handshake comes next: [`Self::handshake`].
    #[must_use]
    pub fn secured(io: Io, session: Session, peeked: Vec<u8>) -> Self {
        Self { io, tls: Some(Box::new(session)), peeked, early: Vec::new() }
    }

    /// The stream with `early`, plaintext that was read from it, put back in front.
    #[must_use]
    pub fn with_early(mut self, early: ByteQueue) -> Self {
        if !early.is_empty() {
            self.put_back(early.as_slice().to_vec());
        }
        self
    }

    /// Puts plaintext that was read from it back in front.
    pub fn put_back(&mut self, mut front: Vec<u8>) {
        front.append(&mut self.early);
        self.early = front;
    }

    /// The TLS session, when there is one.
    #[must_use]
    pub fn session(&self) -> Option<&Session> {
        self.tls.as_deref()
    }

    /// Local and peer address of the socket.
    #[must_use]
    pub fn addresses(&self) -> Option<(SocketAddr, SocketAddr)> {
        self.io.addresses()
    }

    /// Whether a connection that rests was closed, as the kernel knows it at this moment. In TLS what arrives may be of the
    /// session only: there the peers' own messages tell.
    #[must_use]
    pub fn is_closed_now(&self) -> bool {
        self.tls.is_none() && self.io.has_input_now()
    }

    /// After the end of the stream: whether what was written last came back unread. Only told of plaintext.
    #[must_use]
    pub fn was_sent_back(&self) -> bool {
        self.tls.is_none() && self.io.was_sent_back()
    }

    /// Completes the TLS handshake; nothing to do for plaintext.
    ///
    /// # Errors
    /// When the peer breaks the protocol, is not trusted or goes away.
    pub async fn handshake(&mut self) -> io::Result<()> {
        let Some(tls) = &mut self.tls else { return Ok(()) };
        let peeked = std::mem::take(&mut self.peeked);
        if let Err(error) = tls.feed(&peeked) {
            let io = &mut self.io;
            std::future::poll_fn(|cx| {
                let _ = tls.poll_write(io, cx);
                Poll::Ready(())
            })
            .await;
            return Err(io::Error::new(io::ErrorKind::InvalidData, error));
        }
        let mut scratch = buffers::take();
        let io = &mut self.io;
        let result = std::future::poll_fn(|cx| tls.poll_handshake(io, cx, &mut scratch)).await;
        buffers::give(scratch);
        result
    }

    /// Ready when [`Self::poll_read_into`] would give something; takes no buffer.
    ///
    /// # Errors
    /// When the runtime is shutting down.
    pub fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.early.is_empty() || self.tls.as_ref().is_some_and(|tls| tls.is_readable()) {
            return Poll::Ready(Ok(()));
        }
        self.io.poll_read_ready(cx)
    }

    /// Appends bytes to `buffer` within its capacity; 0 is the end of the stream.
    ///
    /// # Errors
    /// As the socket or the TLS session reports.
    pub fn poll_read_into(&mut self, cx: &mut Context<'_>, buffer: &mut Vec<u8>) -> Poll<io::Result<usize>> {
        let room = buffer.capacity() - buffer.len();
        if !self.early.is_empty() {
            return Poll::Ready(Ok(self.take_early(room, |bytes| buffer.extend_from_slice(bytes))));
        }
        if self.tls.is_some() {
            return self.poll_decrypt(cx, room, |plain| buffer.extend_from_slice(plain));
        }
        self.io.poll_read_into(cx, buffer)
    }

    /// Hands up to `room` bytes that were put back to `sink`.
    fn take_early(&mut self, room: usize, mut sink: impl FnMut(&[u8])) -> usize {
        let count = self.early.len().min(room);
        sink(self.early.get(..count).unwrap_or_default());
        self.early.drain(..count);
        if self.early.is_empty() {
            self.early = Vec::new();
        }
        count
    }

    /// Hands up to `room` decrypted bytes to `sink`.
    fn poll_decrypt(
        &mut self,
        cx: &mut Context<'_>,
        room: usize,
        mut sink: impl FnMut(&[u8]),
    ) -> Poll<io::Result<usize>> {
        let Some(tls) = &mut self.tls else { return Poll::Ready(Ok(0)) };
        loop {
            if let Some(count) = tls.read(room, &mut sink).or_else(eof_is_end)? {
                return Poll::Ready(Ok(count));
            }
            ready!(self.io.poll_read_ready(cx))?;
            let mut scratch = buffers::take();
            let polled = self.io.poll_read_into(cx, &mut scratch);
            let fed = tls.feed(&scratch);
            buffers::give(scratch);
            if ready!(polled)? == 0 {
                return Poll::Ready(Ok(0));
            }
            if let Err(error) = fed {
                let _ = tls.poll_write(&mut self.io, cx);
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, error)));
            }
            if tls.wants_write() {
                // Answers to key updates and the like; what does not go out now goes with the next write.
                if let Poll::Ready(Err(error)) = tls.poll_write(&mut self.io, cx) {
                    return Poll::Ready(Err(error));
                }
            }
        }
    }

    /// Writes `bytes` from `*sent` on and advances it; ready when all is handed to the kernel.
    ///
    /// # Errors
    /// As the socket reports.
    pub fn poll_write_all(&mut self, cx: &mut Context<'_>, bytes: &[u8], sent: &mut usize) -> Poll<io::Result<()>> {
        let Some(tls) = &mut self.tls else {
            while let Some(rest) = bytes.get(*sent..)
                && !rest.is_empty()
            {
                let count = ready!(self.io.poll_write(cx, rest))?;
                if count == 0 {
                    return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
                }
                *sent += count;
            }
            return Poll::Ready(Ok(()));
        };
        loop {
            let rest = bytes.get(*sent..).unwrap_or_default();
            if !rest.is_empty() && !tls.wants_write() {
                let piece = rest.get(..rest.len().min(SEAL_BYTES)).unwrap_or_default();
                tls.seal(piece)?;
                *sent += piece.len();
            }
            ready!(tls.poll_write(&mut self.io, cx))?;
            if *sent >= bytes.len() {
                return Poll::Ready(Ok(()));
            }
        }
    }

    /// Closes the writing side, with a closing alert on TLS.
    ///
    /// # Errors
    /// As the socket reports.
    pub fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Some(tls) = &mut self.tls {
            tls.close();
            ready!(tls.poll_write(&mut self.io, cx))?;
        }
        self.io.poll_shutdown(cx)
    }
}

/// A connection cut without a TLS closing alert ends the stream; HTTP and opaque framing tell whether that loses data.
fn eof_is_end(error: io::Error) -> io::Result<Option<usize>> {
    if error.kind() == io::ErrorKind::UnexpectedEof { Ok(Some(0)) } else { Err(error) }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.early.is_empty() {
            this.take_early(into.remaining(), |bytes| into.put_slice(bytes));
            return Poll::Ready(Ok(()));
        }
        if this.tls.is_some() {
            return this.poll_decrypt(cx, into.remaining(), |plain| into.put_slice(plain)).map_ok(drop);
        }
        this.io.poll_read(cx, into)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let Some(tls) = &mut this.tls else {
            return this.io.poll_write(cx, bytes);
        };
        // Earlier ciphertext first; then what is accepted now is sealed and sent as far as the socket takes it.
        ready!(tls.poll_write(&mut this.io, cx))?;
        let piece = bytes.get(..bytes.len().min(SEAL_BYTES)).unwrap_or_default();
        tls.seal(piece)?;
        if let Poll::Ready(Err(error)) = tls.poll_write(&mut this.io, cx) {
            return Poll::Ready(Err(error));
        }
        Poll::Ready(Ok(piece.len()))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let Some(tls) = &mut this.tls else {
            return this.io.poll_write_vectored(cx, slices);
        };
        ready!(tls.poll_write(&mut this.io, cx))?;
        let mut accepted = 0;
        for slice in slices {
            if accepted >= SEAL_BYTES {
                break;
            }
            tls.seal(slice)?;
            accepted += slice.len();
        }
        if let Poll::Ready(Err(error)) = tls.poll_write(&mut this.io, cx) {
            return Poll::Ready(Err(error));
        }
        Poll::Ready(Ok(accepted))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        match &mut this.tls {
            Some(tls) => tls.poll_write(&mut this.io, cx),
            None => Poll::Ready(Ok(())),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().poll_close(cx)
    }
}
