//! The files that are ours to keep tidy.

use anyhow::{Context, Result};
use std::fs;
use std::path::Path;

/// A text file.
#[derive(Debug)]
pub(crate) struct File {
    /// Below the root, `/` between its parts.
    pub(crate) path: String,
    pub(crate) text: String,
}

/// Build output and other tools' folders.
const SKIPPED: [&str; 4] = ["target", ".git", "__pycache__", "node_modules"];
/// No source of ours is larger; what is, is data (bytes).
const LARGEST_BYTES: u64 = 4 << 20;

/// Every text file below `root` in the order of its path.
pub(crate) fn read(root: &Path) -> Result<Vec<File>> {
    let mut files = Vec::new();
    folder(root, root, &mut files)?;
    files.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(files)
}

fn folder(root: &Path, at: &Path, files: &mut Vec<File>) -> Result<()> {
    let entries = fs::read_dir(at).with_context(|| format!("reading folder {}", at.display()))?;
    for entry in entries {
        let entry = entry.with_context(|| format!("reading folder {}", at.display()))?;
        let kind = entry.file_type().with_context(|| format!("reading {}", entry.path().display()))?;
        if kind.is_dir() && !SKIPPED.iter().any(|name| entry.file_name() == *name) {
            folder(root, &entry.path(), files)?;
        } else if kind.is_file() {
            files.extend(file(root, &entry.path()));
        }
    }
    Ok(())
}

/// None for what is not text, too large, or gone since the folder was listed.
fn file(root: &Path, path: &Path) -> Option<File> {
    if fs::metadata(path).ok()?.len() > LARGEST_BYTES {
        return None;
    }
    let text = String::from_utf8(fs::read(path).ok()?).ok()?;
    let path = path.strip_prefix(root).ok()?.to_string_lossy().replace('\\', "/");
    Some(File { path, text })
}
