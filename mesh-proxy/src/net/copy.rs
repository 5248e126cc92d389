//! Copies bytes both ways between two streams, with half-close and an idle deadline.
//!
//! A direction holds a buffer only while it has bytes in hand, so idle tunnels cost no buffer.

use std::cell::Cell;
use std::io;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use mesh_proxy_core::stats::exchange::{self, Heard};
use tokio::time::{Instant, sleep_until};

use crate::buffers;
use crate::net::stream::Stream;

/// How a tunnel ended.
#[derive(Debug)]
pub enum TunnelEnd {
    /// Both sides closed.
    Closed,
    /// No byte moved for the idle time.
    Idle,
    /// Reading from or writing to the client failed.
    Downstream(io::Error),
    /// Reading from or writing to the upstream failed.
    Upstream(io::Error),
}

/// Bytes moved by a tunnel, readable while it runs.
#[derive(Debug, Default)]
pub struct TunnelBytes {
    /// From client to upstream.
    pub sent: Cell<u64>,
    /// From upstream to client.
    pub received: Cell<u64>,
}

/// Runs a tunnel to its end.
pub async fn tunnel(
    downstream: &mut Stream,
    upstream: &mut Stream,
    idle: Option<Duration>,
    bytes: &TunnelBytes,
) -> TunnelEnd {
    run(downstream, upstream, idle, bytes, [Direction::default(), Direction::default()]).await
}

/// Runs a tunnel to its end, to an upstream with which `preamble` is exchanged first: ours goes before the client's bytes,
/// the upstream's is taken off. Neither direction waits for the other.
pub async fn tunnel_with_preamble(
    downstream: &mut Stream,
    upstream: &mut Stream,
    idle: Option<Duration>,
    bytes: &TunnelBytes,
    preamble: &[u8],
) -> TunnelEnd {
    let (mut up, mut down) = (Direction::default(), Direction::default());
    (up.buffer, up.uncounted) = (preamble.to_vec(), preamble.len());
    down.awaits_preamble = true;
    run(downstream, upstream, idle, bytes, [up, down]).await
}

async fn run(
    downstream: &mut Stream,
    upstream: &mut Stream,
    idle: Option<Duration>,
    bytes: &TunnelBytes,
    [mut up, mut down]: [Direction; 2],
) -> TunnelEnd {
    let mut last_move = Instant::now();
    let mut timer = idle.map(|idle| Box::pin(sleep_until(last_move + idle)));
    std::future::poll_fn(move |cx| {
        let before = bytes.sent.get() + bytes.received.get();
        // Both directions are polled each time: a client that stops reading must not stop what it sends.
        if let Poll::Ready(Err(side)) = up.poll(cx, downstream, upstream, &bytes.sent) {
            return Poll::Ready(match side {
                Failed::Read(error) => TunnelEnd::Downstream(error),
                Failed::Write(error) => TunnelEnd::Upstream(error),
            });
        }
        if let Poll::Ready(Err(side)) = down.poll(cx, upstream, downstream, &bytes.received) {
            return Poll::Ready(match side {
                Failed::Read(error) => TunnelEnd::Upstream(error),
                Failed::Write(error) => TunnelEnd::Downstream(error),
            });
        }
        if up.done && down.done {
            return Poll::Ready(TunnelEnd::Closed);
        }
        if let (Some(timer), Some(idle)) = (&mut timer, idle) {
            if bytes.sent.get() + bytes.received.get() != before {
                last_move = Instant::now();
            }
            // The timer is moved only when it fires, not for every piece that moves.
            while timer.as_mut().poll(cx).is_ready() {
                if last_move + idle <= Instant::now() {
                    return Poll::Ready(TunnelEnd::Idle);
                }
                timer.as_mut().reset(last_move + idle);
            }
        }
        Poll::Pending
    })
    .await
}

/// Which half of a direction failed.
enum Failed {
    Read(io::Error),
    Write(io::Error),
}

/// One direction of a tunnel.
#[derive(Default)]
struct Direction {
    buffer: Vec<u8>,
    written: usize,
    /// Bytes at the start of `buffer` that are ours.
    uncounted: usize,
    /// What comes first is the peer's preamble.
    awaits_preamble: bool,
    source_ended: bool,
    done: bool,
}

impl Direction {
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut Stream,
        to: &mut Stream,
        moved: &Cell<u64>,
    ) -> Poll<Result<(), Failed>> {
        // One task must not starve its worker while both sockets stay ready.
        for _ in 0..16 {
            if self.done {
                return Poll::Ready(Ok(()));
            }
            if !self.buffer.is_empty() && !self.awaits_preamble {
                ready!(to.poll_write_all(cx, &self.buffer, &mut self.written)).map_err(Failed::Write)?;
                moved.set(moved.get() + self.buffer.len().saturating_sub(self.uncounted) as u64);
                (self.written, self.uncounted) = (0, 0);
                buffers::give(std::mem::take(&mut self.buffer));
            }
            if self.source_ended {
                // A peer that is already gone does not make the other direction fail.
                let _ = ready!(to.poll_close(cx));
                self.done = true;
                return Poll::Ready(Ok(()));
            }
            ready!(from.poll_read_ready(cx)).map_err(Failed::Read)?;
            // Empty but for the beginning of a preamble.
            let mut buffer = if self.buffer.is_empty() { buffers::take() } else { std::mem::take(&mut self.buffer) };
            match from.poll_read_into(cx, &mut buffer) {
                Poll::Ready(Ok(0)) => {
                    self.keep(buffer);
                    self.awaits_preamble = false;
                    self.source_ended = true;
                }
                Poll::Ready(Ok(_)) => {
                    self.buffer = buffer;
                    if self.awaits_preamble {
                        self.take_preamble();
                    }
                }
                Poll::Ready(Err(error)) => {
                    buffers::give(buffer);
                    return Poll::Ready(Err(Failed::Read(error)));
                }
                Poll::Pending => {
                    self.keep(buffer);
                    return Poll::Pending;
                }
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Keeps a buffer only for bytes that are in it.
    fn keep(&mut self, buffer: Vec<u8>) {
        if buffer.is_empty() { buffers::give(buffer) } else { self.buffer = buffer }
    }

    /// Takes the peer's preamble off, as soon as it is whole. What it says is not used: the endpoint's own description is
    /// what metrics name it by, from the first byte on.
    fn take_preamble(&mut self) {
        match exchange::hear(&self.buffer) {
            Heard::More => return,
            Heard::Payload => {}
            Heard::Preamble(length, _) => drop(self.buffer.drain(..length)),
        }
        self.awaits_preamble = false;
        if self.buffer.is_empty() {
            buffers::give(std::mem::take(&mut self.buffer));
        }
    }
}

impl Drop for Direction {
    fn drop(&mut self) {
        buffers::give(std::mem::take(&mut self.buffer));
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};

    use mesh_proxy_core::stats::Workload;
    use mesh_proxy_core::stats::exchange::{Heard, hear, preamble};

    use super::{TunnelBytes, TunnelEnd, tunnel, tunnel_with_preamble};
    use crate::net::io::Io;
    use crate::net::stream::Stream;

    #[tokio::test(start_paused = true)]
    async fn bytes_half_close_and_counts() {
        let (client, near) = duplex(1000);
        let (far, mut server) = duplex(1000);
        let (mut client_reads, mut client_writes) = tokio::io::split(client);
        let (mut near, mut far) =
            (Stream::plain(Io::Pipe(near), b"pee".to_vec()), Stream::plain(Io::Pipe(far), vec![]));
        let bytes = TunnelBytes::default();
        let client = async {
            client_writes.write_all(b"ked").await.unwrap();
            client_writes.shutdown().await.unwrap();
            let mut seen = Vec::new();
            client_reads.read_to_end(&mut seen).await.unwrap();
            assert_eq!(seen, [7; 5000]);
        };
        let server = async {
            let mut seen = String::new();
            server.read_to_string(&mut seen).await.unwrap();
            assert_eq!(seen, "peeked");
            // The other direction lives on after the half-close.
            server.write_all(&[7; 5000]).await.unwrap();
            server.shutdown().await.unwrap();
        };
        let (end, (), ()) = tokio::join!(tunnel(&mut near, &mut far, None, &bytes), client, server);
        assert!(matches!(end, TunnelEnd::Closed), "{end:?}");
        assert_eq!((bytes.sent.get(), bytes.received.get()), (6, 5000));
    }

    #[tokio::test(start_paused = true)]
    async fn preambles_go_first_and_are_not_counted() {
        let (mut client, near) = duplex(1000);
        // Smaller than a preamble, so that it comes in pieces.
        let (far, mut server) = duplex(16);
        let (mut near, mut far) = (Stream::plain(Io::Pipe(near), vec![]), Stream::plain(Io::Pipe(far), vec![]));
        let (bytes, own) = (TunnelBytes::default(), preamble("client", &Workload::default()));
        let tunnel = tunnel_with_preamble(&mut near, &mut far, None, &bytes, &own);
        let client = async {
            client.write_all(b"question").await.unwrap();
            client.shutdown().await.unwrap();
            let mut answer = String::new();
            client.read_to_string(&mut answer).await.unwrap();
            assert_eq!(answer, "answer");
        };
        let server = async {
            let mut seen = Vec::new();
            // Ours comes before the peer has said anything.
            while !matches!(hear(&seen), Heard::Preamble(..)) {
                assert_ne!(server.read_buf(&mut seen).await.unwrap(), 0);
            }
            server.write_all(&preamble("server", &Workload::default())).await.unwrap();
            server.write_all(b"answer").await.unwrap();
            server.shutdown().await.unwrap();
            server.read_to_end(&mut seen).await.unwrap();
            assert_eq!(seen, [&own[..], b"question"].concat());
        };
        let (end, (), ()) = tokio::join!(tunnel, client, server);
        assert!(matches!(end, TunnelEnd::Closed), "{end:?}");
        assert_eq!((bytes.sent.get(), bytes.received.get()), (8, 6));
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_without_preamble_is_heard_as_it_is() {
        for said in ["", "=", "payload"] {
            let (mut client, near) = duplex(1000);
            let (far, mut server) = duplex(1000);
            let (mut near, mut far) = (Stream::plain(Io::Pipe(near), vec![]), Stream::plain(Io::Pipe(far), vec![]));
            let bytes = TunnelBytes::default();
            server.write_all(said.as_bytes()).await.unwrap();
            server.shutdown().await.unwrap();
            client.shutdown().await.unwrap();
            let end = tunnel_with_preamble(&mut near, &mut far, None, &bytes, b"").await;
            assert!(matches!(end, TunnelEnd::Closed), "{end:?}");
            let mut seen = String::new();
            client.read_to_string(&mut seen).await.unwrap();
            assert_eq!((seen.as_str(), bytes.received.get()), (said, said.len() as u64));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn silence_ends_a_tunnel_only_when_asked() {
        let (_client, near) = duplex(1000);
        let (far, _server) = duplex(1000);
        let (mut near, mut far) = (Stream::plain(Io::Pipe(near), vec![]), Stream::plain(Io::Pipe(far), vec![]));
        let bytes = TunnelBytes::default();
        let start = tokio::time::Instant::now();
        let end = tunnel(&mut near, &mut far, Some(Duration::from_secs(60)), &bytes).await;
        assert!(matches!(end, TunnelEnd::Idle), "{end:?}");
        assert_eq!(start.elapsed().as_secs(), 60);
        let endless = tunnel(&mut near, &mut far, None, &bytes);
        assert!(tokio::time::timeout(Duration::from_secs(100_000), endless).await.is_err());
    }
}
