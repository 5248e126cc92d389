//! The demo's folder: configuration to edit, state, logs, certificates.

use std::fs::{self, File, OpenOptions};
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::plan::Workload;
use crate::error::CliError;

/// Where the demo keeps its files.
#[derive(Debug)]
pub struct Dirs {
    root: PathBuf,
    /// Removes the folder at the end, unless the user wants to keep it.
    _temporary: Option<TempDir>,
}

impl Dirs {
    /// Makes the folders: in `keep` when given, else in a temporary folder that vanishes at the end.
    ///
    /// # Errors
    /// When a folder cannot be made, or `keep` already holds something.
    pub fn create(keep: Option<&Path>) -> Result<Self, CliError> {
        let (root, temporary) = match keep {
            Some(folder) => {
                fs::create_dir_all(folder).map_err(failed("make", folder))?;
                if fs::read_dir(folder).map_err(failed("read", folder))?.next().is_some() {
                    return Err(CliError::user(format!("{} is not empty", folder.display()))
                        .hint("name a folder of its own with --keep-dir"));
                }
                // Processes of the demo get paths, wherever they run.
                (folder.canonicalize().map_err(failed("find", folder))?, None)
            }
            None => {
                let made = tempfile::Builder::new().prefix("lateen-demo-").tempdir();
                let made =
                    made.map_err(|error| CliError::internal("cannot make a temporary folder").because(&error))?;
                (made.path().to_owned(), Some(made))
            }
        };
        let dirs = Self { root, _temporary: temporary };
        for folder in [dirs.config(), dirs.root.join("logs"), dirs.root.join("out")] {
            fs::create_dir_all(&folder).map_err(failed("make", &folder))?;
        }
        Ok(dirs)
    }

    /// The folder of everything.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The YAML that the control plane watches.
    #[must_use]
    pub fn config(&self) -> PathBuf {
        self.root.join("config")
    }

    /// The control plane's keys.
    #[must_use]
    pub fn state(&self) -> PathBuf {
        self.root.join("state")
    }

    /// What a workload has on its disk: token and root certificate.
    #[must_use]
    pub fn workload(&self, workload: &Workload) -> PathBuf {
        self.root.join("workloads").join(&workload.name)
    }

    /// A file of the folder.
    #[must_use]
    pub fn file(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// The log of a process, opened to add to.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub fn log(&self, name: &str) -> Result<File, CliError> {
        let path = self.root.join("logs").join(format!("{name}.log"));
        OpenOptions::new().create(true).append(true).open(&path).map_err(failed("open", &path))
    }

    /// Writes a file of the folder, with its parents.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&self, path: &Path, content: &[u8]) -> Result<(), CliError> {
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).map_err(failed("make", parent))?;
        }
        fs::write(path, content).map_err(failed("write", path))
    }
}

fn failed<'a>(doing: &'a str, path: &'a Path) -> impl Fn(std::io::Error) -> CliError + 'a {
    move |error| CliError::internal(format!("cannot {doing} {}", path.display())).because(&error)
}
