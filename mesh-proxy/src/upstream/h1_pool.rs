//! Resting HTTP/1.1 connections of one worker, last in first out.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context, Waker};
use std::time::Duration;

use hashbrown::HashMap;
use mesh_proxy_core::endpoint::Watch;
use mesh_proxy_core::facts::Peer;
use mesh_proxy_core::limit::concurrency::Permit;
use tokio::time::Instant;

use super::key::PoolKey;
use crate::http::h1::Wire;

/// Connections kept for one key; a burst's surplus is closed instead of held.
const MAX_IDLE: usize = 1024;

/// An HTTP/1.1 connection to an endpoint.
#[derive(Debug)]
pub struct Pooled {
    /// The connection.
    pub wire: Wire,
    /// Its peer; `None` in plaintext.
    pub peer: Option<Arc<Peer>>,
    /// Its own address, kept because asking the kernel for each request costs a system call.
    pub local: Option<SocketAddr>,
    /// Requests sent on it so far.
    pub requests: u32,
    /// When it was opened.
    pub opened: Instant,
    /// When it was put to rest last.
    pub rested: Instant,
    /// When resting must end: the sooner of the cluster's idle timeout and what the peer announced.
    pub expires: Option<Instant>,
    /// Its place under the cluster's connection limit.
    pub permit: Option<Permit>,
    /// Whether its endpoint is still there.
    pub endpoint: Watch,
}

/// Resting connections by key.
#[derive(Debug, Default)]
pub struct H1Pool {
    idle: RefCell<HashMap<PoolKey, Vec<Pooled>>>,
}

/// Shortest rest before its end at which a connection is still given out: a peer that closes at the same moment would race
/// with the request.
const MARGIN: Duration = Duration::from_millis(500);

impl H1Pool {
    /// Takes the connection that rested last and is still usable.
    pub fn take(&self, key: &PoolKey, now: Instant) -> Option<Pooled> {
        let mut idle = self.idle.borrow_mut();
        let resting = idle.get_mut(key)?;
        while let Some(mut pooled) = resting.pop() {
            let fresh = pooled.expires.is_none_or(|expires| now + MARGIN < expires);
            if fresh && is_alive(&mut pooled.wire) {
                return Some(pooled);
            }
        }
        None
    }

    /// Puts a connection to rest for at most `idle_timeout` (zero: as long as the peer keeps it).
    pub fn give(
        &self,
        key: &PoolKey,
        mut pooled: Pooled,
        idle_timeout: Duration,
        announced: Option<Duration>,
        now: Instant,
    ) {
        let limit = [Some(idle_timeout).filter(|limit| !limit.is_zero()), announced].into_iter().flatten().min();
        pooled.rested = now;
        pooled.expires = limit.map(|limit| now + limit);
        let mut idle = self.idle.borrow_mut();
        if !idle.contains_key(key) {
            idle.insert(key.clone(), Vec::new());
        }
        if let Some(resting) = idle.get_mut(key).filter(|resting| resting.len() < MAX_IDLE) {
            resting.push(pooled);
        }
    }

    /// Drops connections that expired, that their peers closed, or whose endpoint is gone; called once a second. A server
    /// that ends waits for the latter: as long as they are open, a request may come.
    pub fn sweep(&self, now: Instant) {
        let is_wanted =
            |pooled: &Pooled| pooled.expires.is_none_or(|expires| now < expires) && !pooled.endpoint.is_gone();
        self.idle.borrow_mut().retain(|_, resting| {
            resting.retain_mut(|pooled| is_wanted(pooled) && is_alive(&mut pooled.wire));
            !resting.is_empty()
        });
    }

    /// Drops the connections of keys that `keep` refuses.
    pub fn retain(&self, mut keep: impl FnMut(&PoolKey) -> bool) {
        self.idle.borrow_mut().retain(|key, _| keep(key));
    }

    /// Number of resting connections.
    #[must_use]
    pub fn len(&self) -> usize {
        self.idle.borrow().values().map(Vec::len).sum()
    }

    /// Whether none rests.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A resting connection that turns readable has been closed or is out of step; the event loop has noted that already, so
/// asking costs no system call on a quiet one.
fn is_alive(wire: &mut Wire) -> bool {
    wire.poll_stale(&mut Context::from_waker(Waker::noop())).is_pending()
}

#[cfg(test)]
mod tests;
