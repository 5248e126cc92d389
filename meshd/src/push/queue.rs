//! Who waits for a translation: each proxy at most once, first come, first served.
//!
//! What changes while a proxy waits, or while it is being translated, is merged into its next turn: however fast changes
//! come, a proxy has one translation under way and one waiting.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use meshd_core::rollout::ChangeId;
use meshd_core::translate::Wanted;
use tokio::sync::Notify;

use super::registry::{Connection, lock};
use super::slot::Pending;
use crate::metrics::{PushMetrics, seconds};

/// The queue.
#[derive(Debug)]
pub(crate) struct Queue {
    ready: Mutex<VecDeque<Arc<Connection>>>,
    available: Notify,
    metrics: PushMetrics,
}

/// Most change ids of one turn; more are counted but not named.
const MAX_CHANGES: usize = 256;

impl Queue {
    /// Nobody waits.
    pub(crate) fn new(metrics: PushMetrics) -> Arc<Self> {
        Arc::new(Self { ready: Mutex::default(), available: Notify::new(), metrics })
    }

    /// These types are to be translated for a proxy, because of these changes (none: it has just connected).
    pub(crate) fn push(&self, connection: &Arc<Connection>, wanted: Wanted, changes: &[ChangeId], now: Instant) {
        let mut slot = lock(&connection.slot);
        if let Some(pending) = &mut slot.pending {
            pending.wanted = pending.wanted.union(wanted);
            pending.changes.extend_from_slice(changes);
            let excess = pending.changes.len().saturating_sub(MAX_CHANGES);
            pending.changes.drain(..excess);
            self.metrics.merged.inc();
            return;
        }
        slot.pending = Some(Pending { wanted, changes: changes.to_vec(), since: now });
        if !slot.running {
            self.enqueue(connection);
        }
    }

    /// Waits for a proxy whose turn it is. Cancel-safe. The caller must call [`Queue::done`] for it.
    pub(crate) async fn next(&self, now: fn() -> Instant) -> (Arc<Connection>, Pending) {
        loop {
            let first = lock(&self.ready).pop_front();
            let Some(connection) = first else {
                self.available.notified().await;
                continue;
            };
            self.metrics.queued.dec();
            // One wake-up stands for any number of entries: hand it on.
            if !lock(&self.ready).is_empty() {
                self.available.notify_one();
            }
            let mut slot = lock(&connection.slot);
            let Some(pending) = slot.pending.take() else { continue };
            slot.running = true;
            drop(slot);
            self.metrics.queue_time.observe(seconds(now().saturating_duration_since(pending.since)));
            return (connection, pending);
        }
    }

    /// The turn of a proxy is over; what came meanwhile gets it another one.
    pub(crate) fn done(&self, connection: &Arc<Connection>) {
        let mut slot = lock(&connection.slot);
        slot.running = false;
        if slot.pending.is_some() {
            self.enqueue(connection);
        }
    }

    fn enqueue(&self, connection: &Arc<Connection>) {
        lock(&self.ready).push_back(Arc::clone(connection));
        self.metrics.queued.inc();
        self.available.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use mesh_api_xds::type_url::TypeUrl;

    use super::super::registry::Registry;
    use super::super::registry::tests::{mk_metrics, mk_registered};
    use super::*;

    const CDS: Wanted = Wanted::NOTHING.with(TypeUrl::Cluster);
    const EDS: Wanted = Wanted::NOTHING.with(TypeUrl::Endpoint);

    fn now() -> Instant {
        tokio::time::Instant::now().into_std()
    }

    #[tokio::test(start_paused = true)]
    async fn changes_merge_into_the_turn_that_waits_and_into_the_next_one_while_one_runs() {
        let metrics = mk_metrics();
        let registry = Registry::new(metrics.clone());
        let queue = Queue::new(metrics.clone());
        let (a, b) = (mk_registered(&registry, "a"), mk_registered(&registry, "b"));
        queue.push(a.connection(), CDS, &[ChangeId(1)], now());
        queue.push(b.connection(), CDS, &[ChangeId(1)], now());
        queue.push(a.connection(), EDS, &[ChangeId(2)], now());
        assert_eq!((metrics.queued.get(), metrics.merged.get()), (2, 1));
        let (first, pending) = queue.next(now).await;
        assert_eq!((&first.key, pending.changes), (&a.connection().key, vec![ChangeId(1), ChangeId(2)]));
        assert_eq!(pending.wanted, CDS.union(EDS));
        queue.push(a.connection(), CDS, &[ChangeId(3)], now());
        let (second, _) = queue.next(now).await;
        assert_eq!(second.key, b.connection().key);
        // The proxy under way does not get a second worker.
        assert_eq!(metrics.queued.get(), 0);
        queue.done(&first);
        let (again, pending) = queue.next(now).await;
        assert_eq!((&again.key, pending.changes), (&first.key, vec![ChangeId(3)]));
        queue.done(&again);
        queue.done(&second);
        assert_eq!(metrics.queued.get(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn one_wake_up_serves_all_workers() {
        let metrics = mk_metrics();
        let registry = Registry::new(metrics.clone());
        let queue = Queue::new(metrics);
        let all: Vec<_> = (0..3).map(|n| mk_registered(&registry, &n.to_string())).collect();
        let workers: Vec<_> = (0..3)
            .map(|_| {
                let queue = Arc::clone(&queue);
                tokio::spawn(async move { queue.next(now).await.0.key.clone() })
            })
            .collect();
        tokio::task::yield_now().await;
        for registered in &all {
            queue.push(registered.connection(), CDS, &[], now());
        }
        let mut keys = Vec::new();
        for worker in workers {
            keys.push(worker.await.unwrap());
        }
        keys.sort();
        assert_eq!(keys, registry.connections().iter().map(|c| c.key.clone()).collect::<Vec<_>>());
    }
}
