//! The one kind of byte stream that connections run over.

use std::io::{self, ErrorKind, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use rustix::io::Errno;
use rustix::net::RecvFlags;
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};
use tokio::net::TcpStream;

/// A byte stream: a socket, or an in-memory pipe in simulations and tests.
#[derive(Debug)]
pub enum Io {
    /// A TCP socket.
    Tcp(TcpStream),
    /// An in-memory pipe.
    Pipe(DuplexStream),
}

impl Io {
    /// Ready when a read would not block; takes no buffer, so that idle connections need none.
    ///
    /// # Errors
    /// When the runtime is shutting down.
    pub fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(tcp) => tcp.poll_read_ready(cx),
            Self::Pipe(_) => Poll::Ready(Ok(())),
        }
    }

    /// One read.
    ///
    /// # Errors
    /// As the socket reports.
    pub fn poll_read(&mut self, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(tcp) => Pin::new(tcp).poll_read(cx, into),
            Self::Pipe(pipe) => Pin::new(pipe).poll_read(cx, into),
        }
    }

    /// Appends what one read gives to `buffer` within its capacity; 0 is the end of the stream.
    ///
    /// # Errors
    /// As the socket reports.
    pub fn poll_read_into(&mut self, cx: &mut Context<'_>, buffer: &mut Vec<u8>) -> Poll<io::Result<usize>> {
        let before = buffer.len();
        let filled = {
            let mut read = ReadBuf::uninit(buffer.spare_capacity_mut());
            ready!(self.poll_read(cx, &mut read))?;
            read.filled().len()
        };
        set_filled(buffer, before + filled);
        Poll::Ready(Ok(filled))
    }

    /// Writes some of `bytes`. Cheaper than a vectored write of one slice.
    ///
    /// # Errors
    /// As the socket reports.
    pub fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self {
            Self::Tcp(tcp) => Pin::new(tcp).poll_write(cx, bytes),
            Self::Pipe(pipe) => Pin::new(pipe).poll_write(cx, bytes),
        }
    }

    /// Writes some of `slices`.
    ///
    /// # Errors
    /// As the socket reports.
    pub fn poll_write_vectored(&mut self, cx: &mut Context<'_>, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        match self {
            Self::Tcp(tcp) => Pin::new(tcp).poll_write_vectored(cx, slices),
            Self::Pipe(pipe) => Pin::new(pipe).poll_write_vectored(cx, slices),
        }
    }

    /// Closes the writing side.
    ///
    /// # Errors
    /// As the socket reports.
    pub fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(tcp) => Pin::new(tcp).poll_shutdown(cx),
            Self::Pipe(pipe) => Pin::new(pipe).poll_shutdown(cx),
        }
    }

    /// Asks the kernel itself whether the peer has sent or closed, which the event loop may not have noted yet.
    #[must_use]
    pub fn has_input_now(&self) -> bool {
        match self {
            Self::Tcp(tcp) => {
                let mut byte = [0];
                let looked = rustix::net::recv(tcp, &mut byte[..], RecvFlags::PEEK | RecvFlags::DONTWAIT);
                !matches!(looked, Err(Errno::AGAIN))
            }
            Self::Pipe(_) => false,
        }
    }

    /// After the end of the stream: whether the peer's kernel sent back what was written, because its socket was closed when
    /// the bytes came (RFC 9293 section 3.10.7.4). What came before it closed would have been acknowledged.
    #[must_use]
    pub fn was_sent_back(&self) -> bool {
        match self {
            // A reset behind the peer's FIN is this error; one without a FIN is another, and was read instead of an end.
            Self::Tcp(tcp) => {
                tcp.take_error().ok().flatten().is_some_and(|error| error.kind() == ErrorKind::BrokenPipe)
            }
            Self::Pipe(_) => false,
        }
    }

    /// Both addresses of a socket, local first; `None` for a pipe or a socket that is already gone.
    #[must_use]
    pub fn addresses(&self) -> Option<(SocketAddr, SocketAddr)> {
        match self {
            Self::Tcp(tcp) => Some((tcp.local_addr().ok()?, tcp.peer_addr().ok()?)),
            Self::Pipe(_) => None,
        }
    }
}

/// Marks the first `len` bytes of `buffer` as filled.
///
// JUSTIFICATION: reading into spare capacity saves zeroing 32 KiB for every read.
#[expect(unsafe_code, reason = "reading into spare capacity")]
fn set_filled(buffer: &mut Vec<u8>, len: usize) {
    debug_assert!(len <= buffer.capacity());
    // SAFETY: `ReadBuf::filled` counts bytes that the read has initialised, directly after the old length and within
    // the capacity whose spare part it was given; `len` is that old length plus the count.
    unsafe { buffer.set_len(len) }
}
