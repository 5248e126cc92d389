//! The table of a worker's connections: facts for draining, idle reaping and re-authorization.
//!
//! A connection registers itself and looks at its entry while it waits; the worker marks entries and wakes them. No
//! connection needs a timer or a channel of its own.

use std::cell::{Cell, RefCell};
use std::ops::Deref;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use mesh_api::text::Str;
use mesh_api_xds::ir::listener::Direction;
use slab::Slab;
use tokio::time::Instant;

/// Facts of one connection.
#[derive(Debug)]
pub struct Entry {
    /// Listener that took it.
    pub listener: Str,
    /// Side of the workload.
    pub direction: Direction,
    /// When it was accepted.
    pub opened: Instant,
    /// Requests, streams or the tunnel in flight; zero means idle.
    active: Cell<u32>,
    /// Since when it has been idle.
    idle_since: Cell<Instant>,
    /// How long it may be idle; zero is for ever.
    idle_timeout: Cell<Duration>,
    /// Age at which it drains; zero is never.
    max_age: Cell<Duration>,
    /// It should end at the next opportunity.
    closing: Cell<Option<Closing>>,
    /// [`Closing::Leave`] was asked for, and counts again when an idle mark is lifted.
    leaves: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

/// Why a connection is asked to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Closing {
    /// The proxy is going to end: after the next request, whenever that comes. A connection that only rests stays open,
    /// because its client may be sending a request at this moment.
    Leave,
    /// Idle for too long.
    Idle,
    /// The proxy drains, or its listener is gone.
    Drain,
    /// Time for grace is over: end even in the middle of a request.
    Now,
}

/// All connections of a worker.
#[derive(Debug, Default)]
pub struct Connections {
    entries: RefCell<Slab<Rc<Entry>>>,
    inbound: Arc<Inbound>,
}

/// Inbound connections, over the tables of all workers.
#[derive(Debug, Default)]
pub struct Inbound {
    /// Open now.
    pub open: AtomicUsize,
    /// Opened since the start.
    pub total: AtomicU64,
}

/// A registered connection; leaves the table when dropped.
#[derive(Debug)]
pub struct Registered {
    entry: Rc<Entry>,
    table: Weak<Connections>,
    slot: usize,
}

/// Work in flight on a connection; idle again when the last is dropped.
#[derive(Debug)]
pub struct Busy(Rc<Entry>);

impl Connections {
    /// A table that adds its inbound connections to `inbound`.
    #[must_use]
    pub fn counting(inbound: Arc<Inbound>) -> Self {
        Self { inbound, ..Self::default() }
    }

    /// Adds a connection.
    pub fn register(self: &Rc<Self>, listener: Str, direction: Direction) -> Registered {
        let now = Instant::now();
        let entry = Rc::new(Entry {
            listener,
            direction,
            opened: now,
            active: Cell::new(0),
            idle_since: Cell::new(now),
            idle_timeout: Cell::new(Duration::ZERO),
            max_age: Cell::new(Duration::ZERO),
            closing: Cell::new(None),
            leaves: Cell::new(false),
            waker: RefCell::new(None),
        });
        let slot = self.entries.borrow_mut().insert(Rc::clone(&entry));
        if direction == Direction::Inbound {
            self.inbound.open.fetch_add(1, Relaxed);
            self.inbound.total.fetch_add(1, Relaxed);
        }
        Registered { entry, table: Rc::downgrade(self), slot }
    }

    /// Number of connections.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.borrow().len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Asks the connections that `which` names to end.
    pub fn close(&self, why: Closing, which: impl Fn(&Entry) -> bool) {
        for (_, entry) in self.entries.borrow().iter() {
            if which(entry) {
                entry.close(why);
            }
        }
    }

    /// Asks connections that have been idle for too long, or are too old, to end. Called once a second.
    pub fn reap(&self, now: Instant) {
        self.close(Closing::Drain, |entry| {
            let age = entry.max_age.get();
            !age.is_zero() && entry.opened + age <= now
        });
        self.close(Closing::Idle, |entry| {
            let timeout = entry.idle_timeout.get();
            !timeout.is_zero() && entry.active.get() == 0 && entry.idle_since.get() + timeout <= now
        });
    }

    /// Asks connections that have been idle for `limit` to end, whatever their own limit is.
    pub fn close_rested(&self, now: Instant, limit: Duration) {
        self.close(Closing::Idle, |entry| entry.active.get() == 0 && entry.idle_since.get() + limit <= now);
    }
}

impl Entry {
    /// Asks this connection to end; a stronger reason replaces a weaker one.
    pub fn close(&self, why: Closing) {
        if why == Closing::Leave {
            self.leaves.set(true);
        }
        if self.closing.get().is_none_or(|before| before < why) {
            self.closing.set(Some(why));
            if let Some(waker) = self.waker.borrow_mut().take() {
                waker.wake();
            }
        }
    }

    /// Whether it should end, and why. An idle mark is lifted by new work.
    #[must_use]
    pub fn closing(&self) -> Option<Closing> {
        self.closing.get()
    }

    /// Ready when the connection should end; registers the task to be woken for it.
    pub fn poll_closing(&self, cx: &mut Context<'_>, at_least: Closing) -> Poll<Closing> {
        match self.closing.get() {
            Some(why) if why >= at_least => Poll::Ready(why),
            _ => {
                let mut waker = self.waker.borrow_mut();
                if waker.as_ref().is_none_or(|known| !known.will_wake(cx.waker())) {
                    *waker = Some(cx.waker().clone());
                }
                Poll::Pending
            }
        }
    }

    /// Sets the age at which the connection drains; zero is never.
    pub fn set_max_age(&self, age: Duration) {
        self.max_age.set(age);
    }

    /// Sets how long the connection may be idle; zero is for ever.
    pub fn set_idle_timeout(&self, timeout: Duration) {
        self.idle_timeout.set(timeout);
    }
}

impl Registered {
    /// Marks work in flight.
    #[must_use]
    pub fn busy(&self) -> Busy {
        self.entry.active.set(self.entry.active.get() + 1);
        if self.entry.closing.get() == Some(Closing::Idle) {
            self.entry.closing.set(self.entry.leaves.get().then_some(Closing::Leave));
        }
        Busy(Rc::clone(&self.entry))
    }
}

impl Deref for Registered {
    type Target = Entry;

    fn deref(&self) -> &Entry {
        &self.entry
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        if let Some(table) = self.table.upgrade() {
            table.entries.borrow_mut().try_remove(self.slot);
            if self.entry.direction == Direction::Inbound {
                table.inbound.open.fetch_sub(1, Relaxed);
            }
        }
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.active.set(self.0.active.get().saturating_sub(1));
        self.0.idle_since.set(Instant::now());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn only_idle_connections_are_reaped_and_work_lifts_the_mark() {
        let inbound: Arc<Inbound> = Arc::default();
        let table = Rc::new(Connections::counting(Arc::clone(&inbound)));
        let idle = table.register("a".into(), Direction::Inbound);
        let busy = table.register("b".into(), Direction::Inbound);
        let outbound = table.register("c".into(), Direction::Outbound);
        assert_eq!(inbound.open.load(Relaxed), 2);
        for entry in [&idle, &busy] {
            entry.set_idle_timeout(Duration::from_secs(60));
        }
        let work = busy.busy();
        tokio::time::advance(Duration::from_secs(61)).await;
        table.reap(Instant::now());
        assert_eq!((idle.closing(), busy.closing()), (Some(Closing::Idle), None));
        drop(idle.busy());
        assert_eq!(idle.closing(), None);
        drop(work);
        table.close(Closing::Drain, |entry| &*entry.listener == "b");
        table.close(Closing::Idle, |_| true);
        assert_eq!((idle.closing(), busy.closing()), (Some(Closing::Idle), Some(Closing::Drain)));
        drop((idle, busy, outbound));
        assert!(table.is_empty());
        assert_eq!((inbound.open.load(Relaxed), inbound.total.load(Relaxed)), (0, 2));
    }

    #[tokio::test(start_paused = true)]
    async fn a_resting_connection_leaves_only_after_its_next_request() {
        let table = Rc::new(Connections::default());
        let entry = table.register("a".into(), Direction::Inbound);
        table.close(Closing::Leave, |_| true);
        assert_eq!(entry.closing(), Some(Closing::Leave));
        let mut context = Context::from_waker(Waker::noop());
        assert!(entry.poll_closing(&mut context, Closing::Idle).is_pending());
        assert!(entry.poll_closing(&mut context, Closing::Leave).is_ready());
        table.close(Closing::Idle, |_| true);
        drop(entry.busy());
        assert_eq!(entry.closing(), Some(Closing::Leave));
    }

    #[tokio::test(start_paused = true)]
    async fn an_old_connection_drains_even_while_busy() {
        let table = Rc::new(Connections::default());
        let entry = table.register("a".into(), Direction::Inbound);
        entry.set_max_age(Duration::from_secs(60));
        let _busy = entry.busy();
        table.reap(Instant::now());
        assert_eq!(entry.closing(), None);
        tokio::time::advance(Duration::from_secs(60)).await;
        table.reap(Instant::now());
        assert_eq!(entry.closing(), Some(Closing::Drain));
    }

    #[tokio::test(start_paused = true)]
    async fn what_rested_for_long_is_closed_and_what_works_is_not() {
        let table = Rc::new(Connections::default());
        let (resting, working) =
            (table.register("a".into(), Direction::Inbound), table.register("a".into(), Direction::Outbound));
        let _busy = working.busy();
        let limit = Duration::from_secs(60);
        tokio::time::advance(limit / 2).await;
        table.close_rested(Instant::now(), limit);
        assert_eq!(resting.closing(), None);
        tokio::time::advance(limit / 2).await;
        table.close_rested(Instant::now(), limit);
        assert_eq!((resting.closing(), working.closing()), (Some(Closing::Idle), None));
    }

    #[tokio::test(start_paused = true)]
    async fn a_waiting_connection_is_woken() {
        let table = Rc::new(Connections::default());
        let entry = table.register("a".into(), Direction::Outbound);
        let wait = std::future::poll_fn(|cx| entry.poll_closing(cx, Closing::Drain));
        let close = async {
            tokio::task::yield_now().await;
            table.close(Closing::Idle, |_| true);
            tokio::task::yield_now().await;
            table.close(Closing::Now, |_| true);
        };
        assert_eq!(tokio::join!(wait, close).0, Closing::Now);
    }
}
