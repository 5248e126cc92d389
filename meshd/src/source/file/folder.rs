//! One folder of configuration: compares what is there with what was read, and reads what may have changed.
//!
//! Blocking; the source runs it on a thread for that. A file is never taken at its worst moment: one that is gone, or empty
//! where it had objects, counts only when it has been so for a while, because many editors write that way.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime};

use mesh_api::codes::Code;
use mesh_api::finding::{Finding, Severity};
use mesh_api::text::Str;
use meshd_core::world::Change;

use super::contents::{Contents, Taken};
use super::last_good::{LastGood, Texts};
use super::walk::{MAX_FILE_BYTES, Stamp, Walk, walk};
use super::watch::{SETTLE, SETTLE_MAX};

/// How long a file must be gone, or empty where it had objects, before that counts.
const GRACE: Duration = Duration::from_millis(150);

/// How often a folder is walked again because files changed while it was walked.
const MAX_LOOKS: usize = 3;

/// What one walk found.
struct Look {
    files: BTreeMap<Str, Stamp>,
    unreadable: BTreeMap<Str, String>,
    /// A text was another one than before.
    read_any: bool,
}

/// A folder and what is known of it.
#[derive(Debug)]
pub(crate) struct Folder {
    root: PathBuf,
    contents: Contents,
    stamps: BTreeMap<Str, Stamp>,
    /// Files that are gone or empty, and since when.
    doubtful: BTreeMap<Str, Instant>,
    last_good: Option<LastGood>,
    /// Good texts that are not stored yet.
    unsaved: BTreeMap<Str, Vec<u8>>,
    /// Files that are gone, whose last good version is not removed yet.
    unremoved: Vec<Str>,
    /// The state folder refused the last write.
    store_failed: bool,
    /// Since when files wait that may be being written.
    waiting: Option<Instant>,
    scanned: bool,
}

/// What to look at.
#[derive(Debug, Default)]
pub(crate) struct Scan {
    /// Read these although their stamps are as before.
    pub(crate) forced: BTreeSet<Str>,
    /// Read everything.
    pub(crate) all: bool,
    /// Leave these for now: they are being written.
    pub(crate) held: BTreeSet<Str>,
}

/// What a scan found.
#[derive(Debug)]
pub(crate) struct Scanned {
    /// What differs.
    pub(crate) changes: Vec<Change>,
    /// Look again at this time.
    pub(crate) again: Option<Instant>,
    /// Device and inode of the folder; a watch is of these, not of the path.
    pub(crate) root: Option<(u64, u64)>,
}

impl Folder {
    /// The folder, with the last good versions of its files.
    pub(crate) fn new(root: PathBuf, mut contents: Contents, last_good: Option<(LastGood, Texts)>) -> Self {
        let last_good = last_good.map(|(store, texts)| {
            for (path, text) in texts {
                contents.restore(&path, &text);
            }
            store
        });
        Self {
            root,
            contents,
            stamps: BTreeMap::new(),
            doubtful: BTreeMap::new(),
            last_good,
            unsaved: BTreeMap::new(),
            unremoved: Vec::new(),
            store_failed: false,
            waiting: None,
            scanned: false,
        }
    }

    /// Looks at the folder.
    pub(crate) fn scan(&mut self, scan: &Scan, now: Instant) -> Scanned {
        let mut look = self.look(scan, now);
        // Files may be replaced together, by the move of a link above them, while we are between two of them. So we look
        // until a walk finds nothing new; not for ever, in a folder that never rests.
        for _ in 0..MAX_LOOKS {
            if !look.read_any {
                break;
            }
            look = self.look(&Scan { held: scan.held.clone(), ..Scan::default() }, now);
        }
        let Look { files, unreadable, .. } = look;
        for (path, why) in &unreadable {
            let path = if path.is_empty() { Str::from(self.root.to_string_lossy().as_ref()) } else { path.clone() };
            self.contents.set_unreadable(&path, why);
        }
        let root_gone = unreadable.contains_key("");
        self.forget(&files, unreadable, root_gone, now);
        self.scanned = true;
        let settle = self.waiting.map(|_| now + SETTLE);
        let again = self.doubtful.values().map(|since| *since + GRACE).chain(settle).min();
        let root = fs::metadata(&self.root).ok().map(|meta| (meta.dev(), meta.ino()));
        Scanned { changes: self.contents.changes(), again, root }
    }

    /// Walks once, and reads what may have changed.
    fn look(&mut self, scan: &Scan, now: Instant) -> Look {
        let found = match walk(&self.root) {
            Ok(found) => found,
            // The folder itself is gone or closed to us: everything known below it stays.
            Err(error) => Walk { unreadable: BTreeMap::from([(Str::default(), error.to_string())]), ..Walk::default() },
        };
        let Walk { files, mut unreadable } = found;
        let mut read_any = false;
        for path in &self.due(scan, &files, now) {
            match self.read(path) {
                Ok((text, stamp)) => read_any |= self.take(path, stamp, &text, now),
                // Gone since the walk: the next scan sees that.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => {
                    unreadable.insert(path.clone(), error.to_string());
                }
            }
        }
        Look { files, unreadable, read_any }
    }

    /// The files that are to be read now.
    fn due(&mut self, scan: &Scan, files: &BTreeMap<Str, Stamp>, now: Instant) -> Vec<Str> {
        let complete = |path: &Str| scan.all || !self.scanned || scan.forced.contains(path);
        let mut due = Vec::new();
        let mut doubted = Vec::new();
        for (path, stamp) in files.iter().filter(|(path, _)| !scan.held.contains(*path)) {
            if complete(path) {
                due.push(path.clone());
            } else if self.stamps.get(path) != Some(stamp) {
                doubted.push(path.clone());
            }
        }
        // Nobody said that these are complete: they may be being written. All wait for the youngest, because they may have
        // come together.
        let system = SystemTime::now();
        let young = |path: &Str| files.get(path).is_some_and(|stamp| stamp.is_younger(SETTLE, system));
        let waited = self.waiting.is_some_and(|since| now.saturating_duration_since(since) >= SETTLE_MAX);
        if doubted.iter().any(young) && !waited {
            self.waiting.get_or_insert(now);
        } else {
            self.waiting = None;
            due.append(&mut doubted);
        }
        due
    }

    fn read(&self, path: &str) -> io::Result<(Vec<u8>, Stamp)> {
        let mut file = File::open(self.root.join(path))?;
        let stamp = Stamp::of(&file.metadata()?);
        let mut text = Vec::new();
        io::Read::by_ref(&mut file).take(MAX_FILE_BYTES + 1).read_to_end(&mut text)?;
        if u64::try_from(text.len()).is_ok_and(|len| len > MAX_FILE_BYTES) {
            return Err(io::Error::new(
                io::ErrorKind::FileTooLarge,
                format!("it has more than {MAX_FILE_BYTES} bytes"),
            ));
        }
        Ok((text, stamp))
    }

    /// Whether the text is another one than before.
    fn take(&mut self, path: &Str, stamp: Stamp, text: &[u8], now: Instant) -> bool {
        if text.trim_ascii().is_empty() && self.contents.has_objects(path) && self.scanned {
            let since = *self.doubtful.entry(path.clone()).or_insert(now);
            if now < since + GRACE {
                return false;
            }
        }
        self.doubtful.remove(path);
        self.stamps.insert(path.clone(), stamp);
        let taken = self.contents.set(path, text);
        if taken == Taken::Good {
            self.unsaved.insert(path.clone(), text.to_vec());
        }
        taken != Taken::Same
    }

    /// Takes note of files that are gone.
    fn forget(
        &mut self,
        files: &BTreeMap<Str, Stamp>,
        unreadable: BTreeMap<Str, String>,
        root_gone: bool,
        now: Instant,
    ) {
        if root_gone {
            return;
        }
        let missing = self.stamps.keys().filter(|path| !files.contains_key(*path));
        for path in missing {
            self.doubtful.entry(path.clone()).or_insert(now);
        }
        let expired = |path: &str| self.doubtful.get(path).is_none_or(|since| now >= *since + GRACE);
        let present = |path: &str| files.contains_key(path) || !expired(path);
        let unreadable = unreadable.into_keys().collect();
        let gone = self.contents.retain(&present, &unreadable);
        // What is neither there nor known any more has no place in the tables.
        let kept: BTreeSet<Str> = self.doubtful.keys().filter(|path| present(path)).cloned().collect();
        self.doubtful.retain(|path, _| kept.contains(path));
        self.stamps.retain(|path, _| files.contains_key(path) || kept.contains(path));
        for path in gone {
            self.unsaved.remove(&path);
            self.unremoved.push(path);
        }
    }

    /// Stores what is not stored yet. Says so, once, when the state folder begins or ceases to refuse.
    pub(crate) fn persist(&mut self) -> Option<Change> {
        let store = self.last_good.as_mut()?;
        let mut failure = None;
        for path in std::mem::take(&mut self.unremoved) {
            if let Err(error) = store.remove(&path) {
                tracing::debug!(%path, %error, "Last good version not removed");
            }
        }
        let mut unsaved = std::mem::take(&mut self.unsaved);
        while let Some((path, text)) = unsaved.pop_first() {
            if let Err(error) = store.save(&path, &text) {
                failure = Some(error);
                // The rest would fare no better: tried again after the next scan.
                unsaved.insert(path, text);
                break;
            }
        }
        self.unsaved = unsaved;
        match (failure, self.store_failed) {
            (Some(error), false) => {
                self.store_failed = true;
                Some(store_finding(vec![refused(&error)]))
            }
            (None, true) => {
                self.store_failed = false;
                Some(store_finding(Vec::new()))
            }
            _ => None,
        }
    }
}

/// Where findings about the state folder come from.
const STATE_ORIGIN: &str = "state folder";

fn store_finding(findings: Vec<Finding>) -> Change {
    Change::Findings { origin: Str::from(STATE_ORIGIN), findings }
}

fn refused(error: &io::Error) -> Finding {
    let message = format!(
        "last good versions of files cannot be kept: {error}; everything works on, but a file that is broken before a restart has no last good version after it"
    );
    let mut finding = Finding::new(Code::Unreadable, "", message).at(STATE_ORIGIN);
    finding.severity = Severity::Warning;
    finding.hint("free space in the state folder, or let it belong to the user that runs meshd")
}

#[cfg(test)]
mod tests;
