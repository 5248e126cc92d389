//! Accepting: one loop per listening socket; each connection goes to the least busy worker before a byte is read.

use std::io;
use std::net::TcpListener as StdListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use mesh_api::text::Str;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};

/// Connections that wait for a worker to pick them up; beyond it they wait in the kernel's queue.
const HANDOVER_QUEUE: usize = 1024;

/// Pause after running out of descriptors or memory, so that the loop does not spin while nothing can improve.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(50);

/// An accepted connection on its way to a worker.
#[derive(Debug)]
pub struct Accepted {
    /// The socket, non-blocking.
    pub socket: std::net::TcpStream,
    /// Name of the listener that it arrived on.
    pub listener: Str,
}

/// The workers, as the accept loops see them.
#[derive(Clone, Debug)]
pub struct Dispatcher {
    workers: Arc<[Slot]>,
}

/// One worker's inbox.
#[derive(Debug)]
struct Slot {
    sender: mpsc::Sender<Accepted>,
    load: Arc<AtomicUsize>,
}

/// A worker's end of its inbox.
#[derive(Debug)]
pub struct Inbox {
    /// Connections to serve.
    pub receiver: mpsc::Receiver<Accepted>,
    /// Connections under way, kept by the worker through [`Load`].
    pub load: Arc<AtomicUsize>,
}

/// Counts a connection as its worker's load until dropped.
#[derive(Debug)]
pub struct Load(Arc<AtomicUsize>);

impl Load {
    /// Takes over a connection that the dispatcher counted.
    #[must_use]
    pub const fn of(load: Arc<AtomicUsize>) -> Self {
        Self(load)
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

impl Dispatcher {
    /// Inboxes for `workers` workers (at least one).
    #[must_use]
    pub fn new(workers: usize) -> (Self, Vec<Inbox>) {
        let (mut slots, mut inboxes) = (Vec::new(), Vec::new());
        for _ in 0..workers.max(1) {
            let (sender, receiver) = mpsc::channel(HANDOVER_QUEUE);
            let load = Arc::new(AtomicUsize::new(0));
            slots.push(Slot { sender, load: Arc::clone(&load) });
            inboxes.push(Inbox { receiver, load });
        }
        (Self { workers: slots.into() }, inboxes)
    }

    /// Connections under way over all workers.
    #[must_use]
    pub fn load(&self) -> usize {
        self.workers.iter().map(|slot| slot.load.load(Relaxed)).sum()
    }

    /// Hands a connection to the worker with the fewest.
    async fn hand(&self, accepted: Accepted) {
        if let Some(slot) = self.workers.iter().min_by_key(|slot| slot.load.load(Relaxed)) {
            slot.load.fetch_add(1, Relaxed);
            if slot.sender.send(accepted).await.is_err() {
                // The worker is gone: the proxy is stopping, and the connection closes by being dropped.
                slot.load.fetch_sub(1, Relaxed);
            }
        }
    }
}

/// Accepts on `socket` until `stop` is told or dropped: only between two connections, so that none is accepted and lost.
///
/// # Errors
/// When the socket cannot be watched; never for a failed accept.
pub async fn accept_loop(
    socket: StdListener,
    listener: Str,
    dispatcher: Dispatcher,
    mut stop: oneshot::Receiver<()>,
) -> io::Result<()> {
    socket.set_nonblocking(true)?;
    let socket = TcpListener::from_std(socket)?;
    let mut exhausted = false;
    loop {
        let accepted = tokio::select! {
            biased;
            _ = &mut stop => return Ok(()),
            accepted = socket.accept() => accepted,
        };
        match accepted {
            Ok((stream, _)) => {
                exhausted = false;
                match stream.into_std() {
                    Ok(socket) => dispatcher.hand(Accepted { socket, listener: listener.clone() }).await,
                    Err(error) => tracing::debug!(%listener, %error, "Accepted socket was lost"),
                }
            }
            Err(error) if is_exhaustion(&error) => {
                if !exhausted {
                    tracing::error!(%listener, %error, "Out of descriptors or memory, connections wait");
                }
                exhausted = true;
                tokio::time::sleep(EXHAUSTED_PAUSE).await;
            }
            // The peer gave up before it was accepted; nothing is wrong with the listener.
            Err(error) => tracing::debug!(%listener, %error, "Accept failed"),
        }
    }
}

/// Whether an accept failed because this process or machine has run out of something.
fn is_exhaustion(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM))
}

#[cfg(test)]
mod tests {
    use std::net::{SocketAddr, TcpListener as StdListener, TcpStream};

    use tokio::sync::oneshot;

    use super::{Dispatcher, Load, accept_loop};

    #[tokio::test]
    async fn connections_spread_over_workers_by_load() {
        let socket = StdListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        let address = socket.local_addr().unwrap();
        let (dispatcher, mut inboxes) = Dispatcher::new(2);
        let (stop, stopped) = oneshot::channel();
        let loop_task = tokio::spawn(accept_loop(socket, "test".into(), dispatcher.clone(), stopped));
        let clients: Vec<_> = (0..4).map(|_| TcpStream::connect(address).unwrap()).collect();
        let mut held = Vec::new();
        for inbox in &mut inboxes {
            for _ in 0..2 {
                let accepted = inbox.receiver.recv().await.unwrap();
                held.push((accepted, Load::of(inbox.load.clone())));
            }
        }
        assert_eq!(dispatcher.load(), 4);
        drop(held);
        assert_eq!(dispatcher.load(), 0);
        drop((clients, stop));
        loop_task.await.unwrap().unwrap();
    }
}
