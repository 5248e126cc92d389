//! A folder of YAML and JSON files as a source: `--config-dir`.
//!
//! The task here only waits; [`folder`] looks, [`contents`] decides, [`watch`] says when. Besides events there is a slow
//! periodic look at everything, for file systems that report none (network mounts) and for events that were lost.

pub(crate) mod contents;
mod folder;
mod last_good;
mod walk;
mod watch;

use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use mesh_api::ids::ClusterId;
use mesh_api::text::Str;
use mesh_api_rt::drain::Watcher;
use meshd_core::world::Change;
use tokio::sync::mpsc;
use tokio::time::sleep_until;

use self::contents::Contents;
use self::folder::{Folder, Scan};
use self::last_good::LastGood;
use self::watch::Watch;
use super::{Event, Running, Source};

/// Time between two looks that no event asked for.
const RESCAN: Duration = Duration::from_secs(10);
/// The same where the system refuses a watch.
const RESCAN_UNWATCHED: Duration = Duration::from_secs(1);

/// A folder as a source.
#[derive(Debug)]
pub(crate) struct FileSource {
    root: PathBuf,
    folder: Folder,
}

impl FileSource {
    /// The source of a folder. Last good versions of its files are kept below `state`.
    ///
    /// # Errors
    /// When the folder is not there. A state folder that refuses is only reported: nothing needs it yet.
    pub(crate) fn open(root: &Path, state: &Path, cluster: ClusterId, default_namespace: Str) -> io::Result<Self> {
        // Links are not resolved: a folder that is replaced by moving a link is a folder that changes.
        let root = std::path::absolute(root)?;
        if !std::fs::metadata(&root)?.is_dir() {
            return Err(io::Error::from(io::ErrorKind::NotADirectory));
        }
        let last_good = match LastGood::open(state.join("last-good")) {
            Ok(last_good) => Some(last_good),
            Err(error) => {
                tracing::error!(folder = %state.display(), %error, "Last good versions of files cannot be kept");
                None
            }
        };
        let contents = Contents::new(cluster, default_namespace);
        Ok(Self { folder: Folder::new(root.clone(), contents, last_good), root })
    }
}

impl Source for FileSource {
    fn name(&self) -> Str {
        Str::from(format!("folder {}", self.root.display()))
    }

    fn run(self: Box<Self>, events: mpsc::Sender<Event>, drain: Watcher) -> Running {
        Box::pin(run(*self, events, drain))
    }
}

async fn run(source: FileSource, events: mpsc::Sender<Event>, mut drain: Watcher) {
    let name = source.name();
    let (mut watch, mut watched) = start_watch(&name, &source.root);
    let mut watched_root = None;
    let FileSource { mut folder, root } = source;
    let mut synced = false;
    let mut next_full = now();
    loop {
        let (pending, held, held_until) = watch.take(now());
        let full = now() >= next_full;
        if full {
            next_full = now() + if watched { RESCAN } else { RESCAN_UNWATCHED };
        }
        // With a watch the stamps are enough; without one a change within the clock's grain would stay unseen.
        let scan = Scan { forced: pending.settled, all: pending.all || (full && !watched), held };
        let received = pending.since.unwrap_or_else(now);
        let Some((back, scanned)) = blocking(folder, move |folder| folder.scan(&scan, now())).await else { return };
        folder = back;
        if !tell(&events, received, scanned.changes).await {
            return;
        }
        if scanned.root.is_some() && watched_root.replace(scanned.root).is_some_and(|before| before != scanned.root) {
            // Another folder stands in its place, which nobody watches yet.
            (watch, watched) = start_watch(&name, &root);
            next_full = now();
        }
        if !synced {
            synced = true;
            if events.send(Event::Synced { source: name.clone() }).await.is_err() {
                return;
            }
        }
        let Some((back, said)) = blocking(folder, Folder::persist).await else { return };
        folder = back;
        if !tell(&events, now(), said.into_iter().collect()).await {
            return;
        }
        let wake = [Some(next_full), held_until, scanned.again].into_iter().flatten().min().unwrap_or(next_full);
        tokio::select! {
            () = drain.graceful() => return,
            () = watch.changed() => {}
            () = sleep_until(wake.into()) => {}
        }
    }
}

/// A watch, and whether the system granted it.
fn start_watch(name: &str, root: &Path) -> (Watch, bool) {
    let (watch, refused) = Watch::start(root);
    if let Some(error) = &refused {
        tracing::warn!(source = name, %error, "Folder cannot be watched, looking every second instead");
    }
    (watch, refused.is_none())
}

/// Runs work on a thread where it may block. `None` when it panicked, which the panic hook has reported: the state is lost
/// with it, so the source ends, and what it told so far stays.
async fn blocking<T: Send + 'static>(
    mut folder: Folder,
    work: impl FnOnce(&mut Folder) -> T + Send + 'static,
) -> Option<(Folder, T)> {
    let done = tokio::task::spawn_blocking(move || {
        let result = work(&mut folder);
        (folder, result)
    });
    done.await
        .inspect_err(|_| tracing::error!("The source of the folder has failed; restart meshd to read it again"))
        .ok()
}

/// Whether somebody listens.
async fn tell(events: &mpsc::Sender<Event>, received: Instant, changes: Vec<Change>) -> bool {
    changes.is_empty() || events.send(Event::Changed { received, changes }).await.is_ok()
}

fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}
