//! HTTP/2 connections of one worker to its endpoints. Each is driven by a local task of its own.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use ::h2::client::{ResponseFuture, SendRequest};
use bytes::Bytes;
use hashbrown::HashMap;
use mesh_proxy_core::endpoint::{Endpoint, Watch};
use mesh_proxy_core::facts::Peer;
use mesh_proxy_core::head::Head;
use mesh_proxy_core::limit::concurrency::Permit;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::connect::{ConnectError, Connected};
use super::key::PoolKey;
use crate::http::event::Broken;
use crate::http::h2;

/// Largest response head accepted, bytes.
const MAX_HEAD_BYTES: u32 = 60 * 1024;

/// Limits of a connection, from its cluster.
#[derive(Clone, Copy, Debug)]
pub struct H2Limits {
    /// Streams at once; the peer's own limit applies too.
    pub streams: u32,
    /// Streams in all; zero is no limit.
    pub requests: u32,
    /// Rest after which it is closed; zero is no limit.
    pub idle: Duration,
}

/// A connection that carries streams.
#[derive(Debug)]
pub struct H2Connection {
    sender: RefCell<SendRequest<Bytes>>,
    /// The peer; `None` in plaintext.
    pub peer: Option<Arc<Peer>>,
    limits: H2Limits,
    active: Cell<u32>,
    opened_streams: Cell<u32>,
    last_used: Cell<Instant>,
    closed: Rc<Cell<bool>>,
    _permit: Option<Permit>,
    endpoint: Watch,
}

/// A place on a connection; given back when dropped.
#[derive(Debug)]
pub struct H2Slot(Rc<H2Connection>);

/// Connections by key.
#[derive(Debug, Default)]
pub struct H2Pool {
    open: RefCell<HashMap<PoolKey, Vec<Rc<H2Connection>>>>,
    /// Connections being made; requests of the same key wait for them instead of making more.
    making: RefCell<HashMap<PoolKey, Rc<Pending>>>,
}

impl H2Pool {
    /// A place on a connection of `key`, made by `connect` to `endpoint` if there is none with room.
    ///
    /// # Errors
    /// What `connect` or the HTTP/2 handshake says.
    pub async fn slot<F, E>(
        &self,
        key: &PoolKey,
        endpoint: &Endpoint,
        limits: H2Limits,
        connect: impl Fn() -> F,
    ) -> Result<H2Slot, E>
    where
        F: Future<Output = Result<(Connected, Option<Permit>), E>>,
        E: From<ConnectError> + From<Broken>,
    {
        loop {
            if let Some(slot) = self.free_slot(key) {
                return Ok(slot);
            }
            let pending = self.making.borrow().get(key).cloned();
            if let Some(pending) = pending {
                pending.done.notified().await;
                if !pending.failed.get() {
                    // One of those that waited finds no room and makes the next connection; the others wait again.
                    continue;
                }
            }
            let making = Making::begin(self, key);
            let (connected, permit) = connect().await?;
            let connection = Rc::new(open(connected, permit, limits, endpoint.watch()).await?);
            let slot = H2Slot::enter(&connection);
            self.open.borrow_mut().entry(key.clone()).or_default().push(connection);
            making.pending.failed.set(false);
            return Ok(slot);
        }
    }

    fn free_slot(&self, key: &PoolKey) -> Option<H2Slot> {
        let mut open = self.open.borrow_mut();
        let connections = open.get_mut(key)?;
        connections.retain(|connection| !connection.is_spent());
        connections.iter().find(|connection| connection.has_room()).map(H2Slot::enter)
    }

    /// Drops connections that are closed, spent, have rested too long or whose endpoint is gone; called once a second. Their
    /// streams finish.
    pub fn sweep(&self, now: Instant) {
        self.open.borrow_mut().retain(|_, connections| {
            connections.retain(|connection| {
                let idle = connection.limits.idle;
                let rested =
                    connection.active.get() == 0 && !idle.is_zero() && connection.last_used.get() + idle <= now;
                !connection.is_spent() && !rested && !connection.endpoint.is_gone()
            });
            !connections.is_empty()
        });
    }

    /// Drops the connections of keys that `keep` refuses. Their streams finish.
    pub fn retain(&self, mut keep: impl FnMut(&PoolKey) -> bool) {
        self.open.borrow_mut().retain(|key, _| keep(key));
    }

    /// Number of connections.
    #[must_use]
    pub fn len(&self) -> usize {
        self.open.borrow().values().map(Vec::len).sum()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Marks a connection as being made, until dropped, however that ends.
struct Making<'a> {
    pool: &'a H2Pool,
    key: PoolKey,
    pending: Rc<Pending>,
}

/// A connection that is being made.
#[derive(Debug)]
struct Pending {
    done: Notify,
    /// No connection came of it, as far as is known.
    failed: Cell<bool>,
}

impl<'a> Making<'a> {
    fn begin(pool: &'a H2Pool, key: &PoolKey) -> Self {
        let pending = Rc::new(Pending { done: Notify::new(), failed: Cell::new(true) });
        pool.making.borrow_mut().insert(key.clone(), Rc::clone(&pending));
        Self { pool, key: key.clone(), pending }
    }
}

impl Drop for Making<'_> {
    fn drop(&mut self) {
        let mut making = self.pool.making.borrow_mut();
        if making.get(&self.key).is_some_and(|present| Rc::ptr_eq(present, &self.pending)) {
            making.remove(&self.key);
        }
        self.pending.done.notify_waiters();
    }
}

async fn open(
    connected: Connected,
    permit: Option<Permit>,
    limits: H2Limits,
    endpoint: Watch,
) -> Result<H2Connection, Broken> {
    let Connected { stream, peer } = connected;
    let (sender, connection) =
        h2::client_builder(MAX_HEAD_BYTES).handshake::<_, Bytes>(stream).await.map_err(h2::broken)?;
    let closed = Rc::new(Cell::new(false));
    let flag = Rc::clone(&closed);
    tokio::task::spawn_local(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "Upstream HTTP/2 connection ended");
        }
        flag.set(true);
    });
    Ok(H2Connection {
        sender: RefCell::new(sender),
        peer,
        limits,
        active: Cell::new(0),
        opened_streams: Cell::new(0),
        last_used: Cell::new(Instant::now()),
        closed,
        _permit: permit,
        endpoint,
    })
}

impl H2Connection {
    fn is_spent(&self) -> bool {
        self.closed.get() || (self.limits.requests > 0 && self.opened_streams.get() >= self.limits.requests)
    }

    fn has_room(&self) -> bool {
        let peer_limit = u32::try_from(self.sender.borrow().current_max_send_streams()).unwrap_or(u32::MAX);
        self.active.get() < self.limits.streams.min(peer_limit)
    }
}

impl H2Slot {
    fn enter(connection: &Rc<H2Connection>) -> Self {
        connection.active.set(connection.active.get() + 1);
        connection.opened_streams.set(connection.opened_streams.get().saturating_add(1));
        Self(Rc::clone(connection))
    }

    /// The peer; `None` in plaintext.
    #[must_use]
    pub fn peer(&self) -> Option<&Arc<Peer>> {
        self.0.peer.as_ref()
    }

    /// Sends a request's head and gives the stream.
    ///
    /// # Errors
    /// When the connection takes no more streams; nothing was sent then.
    pub async fn send(&self, head: &Head, scheme: &str, ended: bool) -> Result<H2Call, Broken> {
        let request = h2::write_request(head, scheme)?;
        let sender = self.0.sender.borrow().clone();
        // A connection that went away before the stream existed has processed nothing of it.
        let refused = |_| {
            self.0.closed.set(true);
            Broken::Refused
        };
        let mut sender = sender.ready().await.map_err(refused)?;
        let (response, send) = sender.send_request(request, ended).map_err(refused)?;
        let mut stream = h2::Stream::new(None, None);
        stream.set_send(send, ended);
        Ok(H2Call { stream, response })
    }
}

impl Drop for H2Slot {
    fn drop(&mut self) {
        self.0.active.set(self.0.active.get().saturating_sub(1));
        self.0.last_used.set(Instant::now());
    }
}

/// A stream whose response has not begun.
#[derive(Debug)]
pub struct H2Call {
    /// The stream: the request's body goes here; the response's body comes from here after its head.
    pub stream: h2::Stream,
    response: ResponseFuture,
}

impl H2Call {
    /// Reads the response's head; the stream then receives its body.
    ///
    /// # Errors
    /// When the stream is reset or the connection breaks.
    pub fn poll_response(&mut self, cx: &mut Context<'_>, head: &mut Head) -> Poll<Result<(), Broken>> {
        let response = ready!(std::pin::Pin::new(&mut self.response).poll(cx)).map_err(h2::broken)?;
        let (parts, body) = response.into_parts();
        h2::read_response(&parts, head)?;
        self.stream.set_recv(body);
        Poll::Ready(Ok(()))
    }
}
