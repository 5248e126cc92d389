//! Runs one kind of request within the bounds of the command line.

use anyhow::{Context, Result};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::call::{Failure, FailureKind};
use crate::cli::Load;
use crate::client::stats::{Outcome, Report, Stats};
use crate::stop::Stop;

/// One worker's way to do requests, with what it keeps between them. A request that is dropped half way (its time is
/// over) must leave nothing that spoils the next.
pub(crate) trait Work: Send + 'static {
    /// Does request `number` (from 0, over all workers).
    fn once(&mut self, number: u64) -> impl Future<Output = Result<Outcome, Failure>> + Send;
}

struct Shared {
    load: Load,
    start: Instant,
    next: AtomicU64,
    stats: Mutex<Stats>,
}

impl Shared {
    /// The number of the next request and when it is due; none when all are given out.
    fn next(&self) -> Option<(u64, Instant)> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        if self.load.count > 0 && number >= self.load.count {
            return None;
        }
        let due = match self.load.rate {
            #[expect(clippy::cast_precision_loss, reason = "exact up to 2^53 requests")]
            Some(rate) => {
                let after = Duration::try_from_secs_f64(number as f64 / rate).ok()?;
                self.start.checked_add(after)?
            }
            None => Instant::now(),
        };
        Some((number, due))
    }

    fn report(&self) -> Report {
        self.stats.lock().unwrap_or_else(PoisonError::into_inner).report(self.start.elapsed())
    }
}

/// Runs `load.concurrency` workers until the first bound or the order to stop, then lets requests in flight end.
///
/// # Errors
/// When the rate is no positive number or a worker panics.
pub(crate) async fn drive<W: Work>(load: &Load, stop: &Stop, mut worker: impl FnMut(u32) -> W) -> Result<Report> {
    if load.rate.is_some_and(|rate| !rate.is_finite() || rate <= 0.0) {
        anyhow::bail!("--rate must be more than 0");
    }
    let start = Instant::now();
    let shared = Arc::new(Shared { load: load.clone(), start, next: AtomicU64::new(0), stats: Mutex::default() });
    let (end, ended) = watch::channel(false);
    let mut workers = JoinSet::new();
    for index in 0..load.concurrency {
        workers.spawn(run(worker(index), Arc::clone(&shared), ended.clone()));
    }
    let mut every = tokio::time::interval(load.every.unwrap_or(load.duration).max(Duration::from_millis(1)));
    every.reset();
    let deadline = start + load.duration;
    loop {
        tokio::select! {
            joined = workers.join_next() => match joined {
                Some(result) => result.context("a worker panicked")?,
                None => return Ok(shared.report()),
            },
            _ = every.tick(), if load.every.is_some() => println!("{}", serde_json::to_string(&shared.report())?),
            () = tokio::time::sleep_until(deadline), if !*end.borrow() => { end.send_replace(true); }
            () = stop.wait(), if !*end.borrow() => { end.send_replace(true); }
        }
    }
}

async fn run(mut work: impl Work, shared: Arc<Shared>, mut ended: watch::Receiver<bool>) {
    while let Some((number, due)) = shared.next() {
        tokio::select! {
            biased;
            _ = ended.wait_for(|ended| *ended) => return,
            () = tokio::time::sleep_until(due) => {}
        }
        let limit = shared.load.timeout;
        let result = tokio::time::timeout(limit, work.once(number)).await;
        let result =
            result.unwrap_or_else(|_| Err(Failure::new(FailureKind::Timeout, format!("no answer in {limit:?}"))));
        let latency = due.elapsed();
        shared.stats.lock().unwrap_or_else(PoisonError::into_inner).record(result, latency);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes a second for each request; those with an odd number never end.
    struct Slow;

    impl Work for Slow {
        async fn once(&mut self, number: u64) -> Result<Outcome, Failure> {
            if number % 2 == 1 {
                std::future::pending::<()>().await;
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
            Ok(Outcome { status: "200".to_owned(), fine: true, group: None, instance: None })
        }
    }

    fn load() -> Load {
        let (duration, timeout) = (Duration::from_secs(60), Duration::from_secs(3));
        Load { count: 4, concurrency: 2, rate: None, duration, timeout, every: None, fail_on_error: false }
    }

    #[tokio::test(start_paused = true)]
    async fn all_requests_end_in_an_answer_or_a_timeout() {
        let (_order, stop) = Stop::manual();
        let report = drive(&load(), &stop, |_| Slow).await.unwrap();
        assert_eq!((report.requests, report.failed), (4, 2));
        assert_eq!(report.errors["timeout"], 2);
        assert_eq!(report.latency_ms.max, 1000.0);
    }

    #[tokio::test(start_paused = true)]
    async fn time_bounds_an_endless_run() {
        let (_order, stop) = Stop::manual();
        let load = Load { count: 0, ..load() };
        let report = drive(&load, &stop, |_| Slow).await.unwrap();
        assert!((60.0..=63.0).contains(&report.seconds), "{report:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn the_order_to_stop_ends_an_endless_run() {
        let (order, stop) = Stop::manual();
        let load = Load { count: 0, ..load() };
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_secs(5)).await;
            order.send_replace(true);
            order.closed().await;
        });
        let report = drive(&load, &stop, |_| Slow).await.unwrap();
        assert!((5.0..=8.0).contains(&report.seconds), "{report:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_rate_sets_when_requests_are_due() {
        let (_order, stop) = Stop::manual();
        let load = Load { count: 5, concurrency: 5, rate: Some(0.5), ..load() };
        let report = drive(&load, &stop, |_| Slow).await.unwrap();
        // The last is due after 8 seconds and takes one.
        assert!((9.0..9.1).contains(&report.seconds), "{report:?}");
        assert!(drive(&Load { rate: Some(0.0), ..load }, &stop, |_| Slow).await.is_err());
    }
}
