//! Stopping in two steps: first gracefully, then by force.
//!
//! The owner of the process holds the [`Trigger`]; everything that must end well (accept loops, connections, streams)
//! holds a [`Watcher`] and drops it when it is done. That drop *is* the report: there is no separate counter that could
//! disagree with what is still alive.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::timeout;

/// How far the stop has come. It only ever moves forward.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Not stopping.
    Running,
    /// Accept nothing new, finish what is under way, tell peers to go elsewhere.
    Graceful,
    /// The time for grace is over: close now.
    Forced,
}

/// How a drain ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drained {
    /// All watchers were gone within the time for grace.
    Gracefully,
    /// All were gone after they had been told to close at once.
    ByForce,
    /// This many watchers were still there when even that time was over.
    Unfinished(usize),
}

/// Starts the drain, and sees its end.
#[derive(Debug)]
pub struct Trigger(watch::Sender<Phase>);

/// Sees the drain begin. Clone it for each piece of work that has to end.
#[derive(Clone, Debug)]
pub struct Watcher(watch::Receiver<Phase>);

/// A connected pair in [`Phase::Running`].
#[must_use]
pub fn channel() -> (Trigger, Watcher) {
    let (sender, receiver) = watch::channel(Phase::Running);
    (Trigger(sender), Watcher(receiver))
}

impl Trigger {
    /// One more watcher; for work that starts after the pair was made.
    #[must_use]
    pub fn watcher(&self) -> Watcher {
        Watcher(self.0.subscribe())
    }

    /// How many watchers are alive.
    #[must_use]
    pub fn pending(&self) -> usize {
        self.0.receiver_count()
    }

    /// Moves to `phase`, never backwards.
    pub fn advance(&self, phase: Phase) {
        self.0.send_if_modified(|now| {
            let forward = *now < phase;
            if forward {
                *now = phase;
            }
            forward
        });
    }

    /// The whole stop: graceful for at most `grace`, then forced for at most `force`. Returns as soon as the last
    /// watcher is gone. Cancel-safe: a caller that gives up (a second signal) may [`advance`](Self::advance) and call it
    /// again.
    pub async fn drain(&self, grace: Duration, force: Duration) -> Drained {
        self.advance(Phase::Graceful);
        if timeout(grace, self.0.closed()).await.is_ok() {
            return Drained::Gracefully;
        }
        self.advance(Phase::Forced);
        match timeout(force, self.0.closed()).await {
            Ok(()) => Drained::ByForce,
            Err(_) => Drained::Unfinished(self.pending()),
        }
    }
}

impl Watcher {
    /// The present phase; a load under a short read lock. A trigger that is gone counts as forced.
    #[must_use]
    pub fn phase(&self) -> Phase {
        if self.0.has_changed().is_err() { Phase::Forced } else { *self.0.borrow() }
    }

    /// Waits until the drain has begun. Cancel-safe.
    pub async fn graceful(&mut self) {
        self.at_least(Phase::Graceful).await;
    }

    /// Waits until grace is over. Cancel-safe.
    pub async fn forced(&mut self) {
        self.at_least(Phase::Forced).await;
    }

    async fn at_least(&mut self, phase: Phase) {
        // An error means that the trigger is gone: nobody is left who could end this work in an orderly way.
        let _ = self.0.wait_for(|now| *now >= phase).await;
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::{Instant, sleep};

    use super::*;

    const GRACE: Duration = Duration::from_secs(30);
    const FORCE: Duration = Duration::from_secs(5);

    #[tokio::test(start_paused = true)]
    async fn ends_as_soon_as_the_last_watcher_is_gone() {
        let (trigger, mut watcher) = channel();
        let start = Instant::now();
        let work = tokio::spawn(async move {
            watcher.graceful().await;
            sleep(Duration::from_secs(3)).await;
            assert_eq!(watcher.phase(), Phase::Graceful);
        });
        assert_eq!(trigger.drain(GRACE, FORCE).await, Drained::Gracefully);
        assert_eq!(start.elapsed(), Duration::from_secs(3));
        work.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn slow_work_is_told_to_close_after_the_grace() {
        let (trigger, mut watcher) = channel();
        let start = Instant::now();
        tokio::spawn(async move {
            watcher.forced().await;
            drop(watcher);
        });
        assert_eq!(trigger.drain(GRACE, FORCE).await, Drained::ByForce);
        assert_eq!(start.elapsed(), GRACE);
    }

    #[tokio::test(start_paused = true)]
    async fn work_that_never_ends_is_counted() {
        let (trigger, watcher) = channel();
        let other = watcher.clone();
        assert_eq!(trigger.drain(GRACE, FORCE).await, Drained::Unfinished(2));
        drop((watcher, other));
        assert_eq!(trigger.drain(GRACE, FORCE).await, Drained::Gracefully);
    }

    #[tokio::test(start_paused = true)]
    async fn phases_never_go_backwards_and_late_watchers_see_the_present_one() {
        let (trigger, watcher) = channel();
        trigger.advance(Phase::Forced);
        trigger.advance(Phase::Graceful);
        assert_eq!(watcher.phase(), Phase::Forced);
        let mut late = trigger.watcher();
        late.forced().await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_lost_trigger_counts_as_forced() {
        let (trigger, mut watcher) = channel();
        drop(trigger);
        watcher.forced().await;
        assert_eq!(watcher.phase(), Phase::Forced);
    }
}
