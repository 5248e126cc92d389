//! The files of a folder: which there are, and what tells that one may have changed.

use std::collections::BTreeMap;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use mesh_api::text::Str;

/// Most files read. Source: our judgement; a mesh of 10,000 services with a file each.
pub(crate) const MAX_FILES: usize = 20_000;
/// Largest file, in bytes. Source: our judgement; four documents of the largest size.
pub(crate) const MAX_FILE_BYTES: u64 = 16 << 20;
/// Most bytes of all files together.
pub(crate) const MAX_TOTAL_BYTES: u64 = 512 << 20;
/// Deepest folder.
const MAX_DEPTH: usize = 32;
/// Endings of the files that are read.
const ENDINGS: [&str; 3] = ["yaml", "yml", "json"];

/// What tells that a file may have changed. Cheap to get; equal stamps are no proof, as clocks of file systems are coarse.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    modified: (i64, i64),
    len: u64,
    inode: (u64, u64),
}

/// What a walk found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Walk {
    /// Files by their path below the root.
    pub(crate) files: BTreeMap<Str, Stamp>,
    /// Files and folders that cannot be examined, with the reason. What was known below them is still to be believed.
    pub(crate) unreadable: BTreeMap<Str, String>,
}

/// Walks a folder. Names that begin with a dot are left out: editors' temporary files, and the generations of a mounted
/// ConfigMap, whose files are reached by the links beside them.
///
/// # Errors
/// When the folder itself cannot be read.
pub(crate) fn walk(root: &Path) -> io::Result<Walk> {
    let mut walk = Walk::default();
    let mut step = Step { walk: &mut walk, bytes: 0, ancestors: Vec::new() };
    let meta = fs::metadata(root)?;
    step.folder(root, "", &meta)?;
    Ok(walk)
}

struct Step<'a> {
    walk: &'a mut Walk,
    bytes: u64,
    /// Device and inode of the folders above, so that a link to one of them is not followed for ever.
    ancestors: Vec<(u64, u64)>,
}

impl Step<'_> {
    fn folder(&mut self, path: &Path, below: &str, meta: &Metadata) -> io::Result<()> {
        let mut names = Vec::new();
        for entry in fs::read_dir(path)? {
            names.push(entry?.file_name());
        }
        self.ancestors.push((meta.dev(), meta.ino()));
        for name in names {
            let Some(name) = name.to_str() else {
                let shown = Str::from(join(below, &name.to_string_lossy()));
                self.walk.unreadable.insert(shown, "its name is not UTF-8".to_owned());
                continue;
            };
            if !name.starts_with('.') {
                self.entry(&path.join(name), Str::from(join(below, name)));
            }
        }
        self.ancestors.pop();
        Ok(())
    }

    fn entry(&mut self, path: &Path, shown: Str) {
        // Follows links.
        let meta = match fs::metadata(path) {
            Ok(meta) => meta,
            // Gone since the folder was listed, or a link to nothing: as good as not there.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return,
            Err(error) => return self.unreadable(shown, error.to_string()),
        };
        if meta.is_dir() {
            if self.ancestors.contains(&(meta.dev(), meta.ino())) {
                return self.unreadable(shown, "it is a link to a folder above it".to_owned());
            }
            if self.ancestors.len() >= MAX_DEPTH {
                return self.unreadable(shown, format!("it is more than {MAX_DEPTH} folders deep"));
            }
            if let Err(error) = self.folder(path, &shown, &meta) {
                self.unreadable(shown, error.to_string());
            }
            return;
        }
        let ending = Path::new(shown.as_str()).extension().and_then(|ending| ending.to_str());
        if !meta.is_file() || !ending.is_some_and(|ending| ENDINGS.contains(&ending)) {
            return;
        }
        if meta.len() > MAX_FILE_BYTES {
            return self.unreadable(shown, format!("it has {} bytes, more than {MAX_FILE_BYTES}", meta.len()));
        }
        if self.walk.files.len() >= MAX_FILES {
            return self.unreadable(shown, format!("there are more than {MAX_FILES} files"));
        }
        self.bytes = self.bytes.saturating_add(meta.len());
        if self.bytes > MAX_TOTAL_BYTES {
            return self.unreadable(shown, format!("all files together have more than {MAX_TOTAL_BYTES} bytes"));
        }
        self.walk.files.insert(shown, Stamp::of(&meta));
    }

    fn unreadable(&mut self, shown: Str, why: String) {
        // Bounded as the files are: a folder of broken links must not fill the memory.
        if self.walk.unreadable.len() < MAX_FILES {
            self.walk.unreadable.insert(shown, why);
        }
    }
}

impl Stamp {
    /// The stamp in a file's metadata.
    pub(crate) fn of(meta: &Metadata) -> Self {
        Self { modified: (meta.mtime(), meta.mtime_nsec()), len: meta.len(), inode: (meta.dev(), meta.ino()) }
    }

    /// Whether the file was written less than `time` ago. A file from the future was not.
    pub(crate) fn is_younger(&self, time: Duration, now: SystemTime) -> bool {
        let (Ok(seconds), Ok(nanos)) = (u64::try_from(self.modified.0), u32::try_from(self.modified.1)) else {
            return false;
        };
        let modified = UNIX_EPOCH.checked_add(Duration::new(seconds, nanos));
        modified.and_then(|modified| now.duration_since(modified).ok()).is_some_and(|age| age < time)
    }
}

fn join(below: &str, name: &str) -> String {
    if below.is_empty() { name.to_owned() } else { format!("{below}/{name}") }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[track_caller]
    fn names(root: &Path) -> Vec<String> {
        walk(root).unwrap().files.keys().map(ToString::to_string).collect()
    }

    #[test]
    fn files_of_all_folders_are_found_in_order() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("b/c")).unwrap();
        for name in ["z.yaml", "b/c/y.yml", "b/x.json", "notes.txt", ".swap.yaml", "README"] {
            fs::write(root.path().join(name), "").unwrap();
        }
        assert_eq!(names(root.path()), ["b/c/y.yml", "b/x.json", "z.yaml"]);
    }

    #[test]
    fn a_mounted_config_map_is_read_through_its_links() {
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join(name);
        fs::create_dir(at("..1")).unwrap();
        fs::write(at("..1/mesh.yaml"), "a: 1").unwrap();
        symlink("..1", at("..data")).unwrap();
        symlink("..data/mesh.yaml", at("mesh.yaml")).unwrap();
        let before = walk(root.path()).unwrap();
        assert_eq!(before.files.keys().map(Str::as_str).collect::<Vec<_>>(), ["mesh.yaml"]);
        fs::create_dir(at("..2")).unwrap();
        fs::write(at("..2/mesh.yaml"), "a: 2").unwrap();
        symlink("..2", at("..new")).unwrap();
        fs::rename(at("..new"), at("..data")).unwrap();
        assert_ne!(walk(root.path()).unwrap(), before);
    }

    #[test]
    fn links_in_circles_and_to_nothing_do_no_harm() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("a")).unwrap();
        symlink("..", root.path().join("a/up")).unwrap();
        symlink("nowhere", root.path().join("b.yaml")).unwrap();
        let walk = walk(root.path()).unwrap();
        assert!(walk.files.is_empty());
        assert_eq!(walk.unreadable.keys().map(Str::as_str).collect::<Vec<_>>(), ["a/up"]);
    }

    #[test]
    fn a_file_that_is_too_large_is_named() {
        let root = tempfile::tempdir().unwrap();
        fs::File::create(root.path().join("a.yaml")).unwrap().set_len(MAX_FILE_BYTES + 1).unwrap();
        let walk = walk(root.path()).unwrap();
        assert!(walk.files.is_empty() && walk.unreadable.contains_key("a.yaml"));
    }
}
