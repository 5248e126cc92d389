//! Finding and reading the files that a user names.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use crate::error::CliError;

/// Endings of files that are read in a folder.
const ENDINGS: [&str; 3] = ["yaml", "yml", "json"];
/// Largest file read (bytes), as for the control plane's folder.
const MAX_FILE_BYTES: u64 = 16 << 20;
/// Most files read.
const MAX_FILES: usize = 20_000;
/// Deepest folder.
const MAX_DEPTH: usize = 32;

/// The files that `paths` name: a file itself, of a folder everything that looks like YAML or JSON, `-` as it is.
///
/// # Errors
/// Names the path that cannot be read.
pub fn expand(paths: &[PathBuf]) -> Result<Vec<PathBuf>, CliError> {
    let mut files = Vec::new();
    for path in paths {
        if path.as_os_str() == "-" {
            files.push(path.clone());
        } else {
            walk(path, 0, &mut files)?;
        }
    }
    files.dedup();
    Ok(files)
}

fn walk(path: &Path, depth: usize, files: &mut Vec<PathBuf>) -> Result<(), CliError> {
    let failed = |error: std::io::Error| CliError::user(format!("cannot read {}", path.display())).because(&error);
    if !fs::metadata(path).map_err(failed)?.is_dir() {
        files.push(path.to_owned());
        return Ok(());
    }
    let mut inside = Vec::new();
    for entry in fs::read_dir(path).map_err(failed)? {
        inside.push(entry.map_err(failed)?.path());
    }
    inside.sort();
    for entry in inside {
        let hidden = entry.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        let wanted = entry.extension().is_some_and(|ending| ENDINGS.iter().any(|known| ending == *known));
        if hidden {
            continue;
        }
        if entry.is_dir() {
            if depth == MAX_DEPTH {
                return Err(CliError::user(format!("{} is nested too deeply", entry.display())));
            }
            walk(&entry, depth + 1, files)?;
        } else if wanted {
            files.push(entry);
        }
        if files.len() > MAX_FILES {
            return Err(CliError::user(format!("more than {MAX_FILES} files")).hint("name a smaller folder with -f"));
        }
    }
    Ok(())
}

/// The content of a file, `-` being the standard input.
///
/// # Errors
/// Names the file that cannot be read, is too large, or is no text.
pub fn read(path: &Path) -> Result<String, CliError> {
    let failed = |error: std::io::Error| CliError::user(format!("cannot read {}", path.display())).because(&error);
    let mut bytes = Vec::new();
    let limit = MAX_FILE_BYTES + 1;
    if path.as_os_str() == "-" {
        std::io::stdin().lock().take(limit).read_to_end(&mut bytes).map_err(failed)?;
    } else {
        fs::File::open(path).map_err(failed)?.take(limit).read_to_end(&mut bytes).map_err(failed)?;
    }
    if bytes.len() as u64 >= limit {
        return Err(CliError::user(format!("{} is larger than {MAX_FILE_BYTES} bytes", path.display())));
    }
    String::from_utf8(bytes).map_err(|error| {
        CliError::user(format!("{} is not UTF-8", path.display())).because(&error).hint("save it as UTF-8")
    })
}
