//! The last good version of each file, kept in the state folder, so that a file broken before a restart does not take down
//! what it described.
//!
//! One file an entry, written beside its place and moved there. Entries are not synced to the disk one by one: after a loss of
//! power an entry may be missing or torn, which its checksum shows, and then there simply is no last good version.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use mesh_api::text::Str;
use mesh_api_xds::encoded::Version;
use serde::{Deserialize, Serialize};

use super::walk::{MAX_FILE_BYTES, MAX_FILES};

/// Ending of entries. None of those that are read as configuration, in case the state folder lies within the other.
const ENDING: &str = "good";
/// Room for the first line of an entry, in bytes.
const MAX_HEAD_BYTES: u64 = 16 << 10;

/// The entries.
#[derive(Debug)]
pub(crate) struct LastGood {
    folder: PathBuf,
    /// Hashes of the stored texts, by path.
    stored: BTreeMap<Str, Version>,
}

/// Texts by path.
pub(crate) type Texts = Vec<(Str, Vec<u8>)>;

/// First line of an entry.
#[derive(Serialize, Deserialize)]
struct Head {
    path: Str,
    hash: String,
}

impl LastGood {
    /// Opens the folder, makes it if it is not there (only its owner can enter: files may hold secrets), and reads all
    /// entries. Entries that are damaged are left out.
    ///
    /// # Errors
    /// When the folder cannot be made or read.
    pub(crate) fn open(folder: PathBuf) -> io::Result<(Self, Texts)> {
        DirBuilder::new().recursive(true).mode(0o700).create(&folder)?;
        let mut this = Self { folder, stored: BTreeMap::new() };
        let mut texts = Vec::new();
        for entry in fs::read_dir(&this.folder)?.take(MAX_FILES) {
            let path = entry?.path();
            if let Some((path, text)) = read(&path) {
                this.stored.insert(path.clone(), Version::of(text.as_slice()));
                texts.push((path, text));
            }
        }
        Ok((this, texts))
    }

    /// Stores the good text of a file.
    ///
    /// # Errors
    /// When it cannot be written; the entry is then as before.
    pub(crate) fn save(&mut self, path: &Str, text: &[u8]) -> io::Result<()> {
        let hash = Version::of(text);
        if self.stored.get(path) == Some(&hash) {
            return Ok(());
        }
        let place = self.place(path);
        let beside = place.with_extension("new");
        let written = self.write(&beside, path, hash, text).and_then(|()| fs::rename(&beside, &place));
        if let Err(error) = written {
            // The half-written file is of no use and, on a full disk, in the way.
            let _ = fs::remove_file(&beside);
            return Err(error);
        }
        self.stored.insert(path.clone(), hash);
        Ok(())
    }

    /// Forgets a file.
    ///
    /// # Errors
    /// When the entry is there and cannot be removed.
    pub(crate) fn remove(&mut self, path: &str) -> io::Result<()> {
        if self.stored.remove(path).is_none() {
            return Ok(());
        }
        match fs::remove_file(self.place(path)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    fn write(&self, beside: &Path, path: &Str, hash: Version, text: &[u8]) -> io::Result<()> {
        let head = serde_json::to_string(&Head { path: path.clone(), hash: hash.to_string() })?;
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(beside)?;
        file.write_all(head.as_bytes())?;
        file.write_all(b"\n")?;
        file.write_all(text)
    }

    fn place(&self, path: &str) -> PathBuf {
        self.folder.join(format!("{}.{ENDING}", Version::of(path)))
    }
}

fn read(place: &Path) -> Option<(Str, Vec<u8>)> {
    if place.extension()? != ENDING || fs::metadata(place).ok()?.len() > MAX_FILE_BYTES + MAX_HEAD_BYTES {
        return None;
    }
    let content = fs::read(place).ok()?;
    let end = content.iter().position(|byte| *byte == b'\n')?;
    let (head, text) = content.split_at_checked(end)?;
    let head: Head = serde_json::from_slice(head).ok()?;
    let text = text.get(1..)?;
    (Version::of(text).to_string() == head.hash).then(|| (head.path, text.to_vec()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use super::*;

    #[test]
    fn entries_come_back_after_a_restart() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("last-good");
        let (mut store, texts) = LastGood::open(folder.clone()).unwrap();
        assert!(texts.is_empty());
        let (a, b) = (Str::from("x/a.yaml"), Str::from("b.yaml"));
        store.save(&a, b"one").unwrap();
        store.save(&a, b"two").unwrap();
        store.save(&b, b"").unwrap();
        store.remove(&b).unwrap();
        assert_eq!(LastGood::open(folder.clone()).unwrap().1, [(a, b"two".to_vec())]);
        assert_eq!(fs::metadata(&folder).unwrap().mode() & 0o777, 0o700);
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 1);
    }

    #[test]
    fn a_damaged_entry_is_left_out() {
        let root = tempfile::tempdir().unwrap();
        let (mut store, _) = LastGood::open(root.path().to_owned()).unwrap();
        let path = Str::from("a.yaml");
        store.save(&path, b"text").unwrap();
        let place = store.place(&path);
        let mut content = fs::read(&place).unwrap();
        content.truncate(content.len() - 1);
        fs::write(&place, content).unwrap();
        fs::write(root.path().join("foreign.good"), "no head").unwrap();
        assert!(LastGood::open(root.path().to_owned()).unwrap().1.is_empty());
    }

    #[test]
    fn a_failed_write_leaves_the_old_entry() {
        let root = tempfile::tempdir().unwrap();
        let (mut store, _) = LastGood::open(root.path().join("s")).unwrap();
        let path = Str::from("a.yaml");
        store.save(&path, b"old").unwrap();
        // A folder in the way of the file that is written first.
        let beside = store.place(&path).with_extension("new");
        fs::create_dir(&beside).unwrap();
        assert!(store.save(&path, b"new").is_err());
        fs::remove_dir(&beside).unwrap();
        assert_eq!(LastGood::open(root.path().join("s")).unwrap().1, [(path, b"old".to_vec())]);
    }
}
