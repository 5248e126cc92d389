//! Events of the file system, reduced to what the scan needs to know: which files changed, and which are still being written.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use mesh_api::text::Str;
use notify::event::{AccessKind, AccessMode, ModifyKind};
use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::sync::Notify;

/// A file that was written and not closed counts as finished after this time without a further write. Source: our judgement;
/// writers close within a millisecond of their last write, and this is only for those that keep a file open.
pub(super) const SETTLE: Duration = Duration::from_millis(30);
/// A file that is written all the time is read after this time at the latest.
pub(super) const SETTLE_MAX: Duration = Duration::from_secs(1);
/// Most paths remembered between two scans; with more, everything is read again.
const MAX_PENDING: usize = 10_000;

/// The watch of a folder and all below it.
#[derive(Debug)]
pub(crate) struct Watch {
    pending: Arc<Shared>,
    /// Held, not used: dropping it ends the watch. `None` when the system refused one.
    _watcher: Option<RecommendedWatcher>,
}

#[derive(Debug, Default)]
struct Shared {
    pending: Mutex<Pending>,
    changed: Notify,
}

/// What happened since the last scan.
#[derive(Debug, Default)]
pub(crate) struct Pending {
    /// Files that changed and are complete.
    pub(crate) settled: BTreeSet<Str>,
    /// Files that are being written: when that began, and when it was last seen.
    held: BTreeMap<Str, (Instant, Instant)>,
    /// Events were lost: everything is read again.
    pub(crate) all: bool,
    /// When the first of these events came.
    pub(crate) since: Option<Instant>,
}

impl Watch {
    /// Begins to watch.
    ///
    /// # Errors
    /// What the system said, with a watch that never reports anything.
    pub(crate) fn start(root: &Path) -> (Self, Option<notify::Error>) {
        let pending = Arc::new(Shared::default());
        let (shared, below) = (Arc::clone(&pending), root.to_owned());
        let handler = move |event: notify::Result<Event>| shared.on_event(&below, event, now());
        let started = notify::recommended_watcher(handler).and_then(|mut watcher| {
            watcher.watch(root, RecursiveMode::Recursive)?;
            Ok(watcher)
        });
        match started {
            Ok(watcher) => (Self { pending, _watcher: Some(watcher) }, None),
            Err(error) => (Self { pending, _watcher: None }, Some(error)),
        }
    }

    /// Waits for the next event. Cancel-safe: an event between two calls is reported by the second.
    pub(crate) async fn changed(&self) {
        self.pending.changed.notified().await;
    }

    /// Takes what happened; files still being written are left, and named, with the time at which to look again.
    pub(crate) fn take(&self, now: Instant) -> (Pending, BTreeSet<Str>, Option<Instant>) {
        self.pending.lock().take(now)
    }
}

impl Shared {
    fn on_event(&self, root: &Path, event: notify::Result<Event>, now: Instant) {
        let relevant = match event {
            Ok(event) => self.lock().on_event(root, &event, now),
            Err(_) => {
                self.lock().lost(now);
                true
            }
        };
        if relevant {
            self.changed.notify_one();
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Pending> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pending {
    /// Whether the event says anything.
    fn on_event(&mut self, root: &Path, event: &Event, now: Instant) -> bool {
        if event.need_rescan() {
            self.lost(now);
            return true;
        }
        let complete = match event.kind {
            // Our own reading is among these.
            EventKind::Access(AccessKind::Close(AccessMode::Write)) => true,
            EventKind::Access(_) => return false,
            EventKind::Create(_) | EventKind::Modify(ModifyKind::Data(_) | ModifyKind::Any) => false,
            EventKind::Modify(_) | EventKind::Remove(_) | EventKind::Any | EventKind::Other => true,
        };
        self.since.get_or_insert(now);
        for path in event.paths.iter().filter_map(|path| below(root, path)) {
            if self.settled.len() + self.held.len() >= MAX_PENDING {
                self.lost(now);
            } else if complete {
                self.held.remove(&path);
                self.settled.insert(path);
            } else {
                self.held.entry(path).or_insert((now, now)).1 = now;
            }
        }
        true
    }

    fn lost(&mut self, now: Instant) {
        self.since.get_or_insert(now);
        *self = Self { all: true, since: self.since, ..Self::default() };
    }

    fn take(&mut self, now: Instant) -> (Self, BTreeSet<Str>, Option<Instant>) {
        let due = |(first, last): &(Instant, Instant)| (*last + SETTLE).min(*first + SETTLE_MAX);
        let (done, held): (BTreeMap<_, _>, BTreeMap<_, _>) =
            std::mem::take(&mut self.held).into_iter().partition(|(_, times)| due(times) <= now);
        let next = held.values().map(due).min();
        let names = held.keys().cloned().collect();
        let mut taken = std::mem::take(self);
        taken.settled.extend(done.into_keys());
        self.held = held;
        (taken, names, next)
    }
}

fn below(root: &Path, path: &Path) -> Option<Str> {
    path.strip_prefix(root).ok()?.to_str().map(Str::from)
}

/// The clock of the watcher's own thread, where there is no runtime whose clock a test could pause.
#[expect(clippy::disallowed_methods, reason = "the thread of the watcher has no tokio clock")]
fn now() -> Instant {
    Instant::now()
}

#[cfg(test)]
mod tests {
    use notify::event::{CreateKind, DataChange, RemoveKind, RenameMode};

    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn mk_event(kind: EventKind, name: &str) -> Event {
        Event::new(kind).add_path(Path::new("/c").join(name))
    }

    fn feed(pending: &mut Pending, kind: EventKind, name: &str, at: Instant) -> bool {
        pending.on_event(Path::new("/c"), &mk_event(kind, name), at)
    }

    const WRITE: EventKind = EventKind::Modify(ModifyKind::Data(DataChange::Any));
    const CLOSE: EventKind = EventKind::Access(AccessKind::Close(AccessMode::Write));

    fn names(set: &BTreeSet<Str>) -> Vec<&str> {
        set.iter().map(Str::as_str).collect()
    }

    #[test]
    fn a_file_is_read_when_it_is_closed_not_while_it_is_written() {
        let t0 = now();
        let mut pending = Pending::default();
        assert!(feed(&mut pending, EventKind::Create(CreateKind::File), "a.yaml", t0));
        feed(&mut pending, WRITE, "a.yaml", t0 + MS);
        feed(&mut pending, EventKind::Modify(ModifyKind::Name(RenameMode::To)), "b.yaml", t0 + MS);
        let (taken, held, next) = pending.take(t0 + 2 * MS);
        assert_eq!((names(&taken.settled), names(&held)), (vec!["b.yaml"], vec!["a.yaml"]));
        assert_eq!((taken.since, next), (Some(t0), Some(t0 + MS + SETTLE)));
        feed(&mut pending, CLOSE, "a.yaml", t0 + 3 * MS);
        let (taken, held, next) = pending.take(t0 + 3 * MS);
        assert_eq!((names(&taken.settled), held.is_empty(), next), (vec!["a.yaml"], true, None));
    }

    #[test]
    fn a_file_that_stays_open_is_read_after_a_quiet_time_and_at_last_anyway() {
        let t0 = now();
        let mut pending = Pending::default();
        feed(&mut pending, WRITE, "a.yaml", t0);
        assert_eq!(pending.take(t0 + SETTLE - MS).1.len(), 1);
        assert_eq!(names(&pending.take(t0 + SETTLE).0.settled), ["a.yaml"]);
        let mut at = t0;
        while at < t0 + SETTLE_MAX {
            feed(&mut pending, WRITE, "a.yaml", at);
            at += 10 * MS;
        }
        assert_eq!(names(&pending.take(at).0.settled), ["a.yaml"]);
    }

    #[test]
    fn reading_is_no_news_and_lost_events_mean_everything() {
        let t0 = now();
        let mut pending = Pending::default();
        assert!(!feed(&mut pending, EventKind::Access(AccessKind::Open(AccessMode::Any)), "a.yaml", t0));
        for number in 0..=MAX_PENDING {
            feed(&mut pending, EventKind::Remove(RemoveKind::File), &format!("{number}.yaml"), t0);
        }
        let (taken, ..) = pending.take(t0);
        assert!(taken.all);
    }
}
