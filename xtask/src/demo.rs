//! `cargo xtask demo`: build what the demo needs, then become `meshctl demo`.

use anyhow::{Context, Result};
use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::process::Command;

use crate::workspace;

/// The packages whose binaries the demo starts.
pub(crate) const PACKAGES: [&str; 4] = ["meshd", "mesh-proxy", "meshctl", "e2e-shop"];

/// Builds in release and replaces this process, so that signals and the exit code are the demo's own.
pub(crate) fn run(args: &[OsString]) -> Result<()> {
    let folder = build()?;
    let meshctl = folder.join("meshctl");
    let error = Command::new(&meshctl).arg("demo").arg("--bin-dir").arg(&folder).args(args).exec();
    Err(error).with_context(|| format!("starting {}", meshctl.display()))
}

/// Builds the demo's binaries and returns their folder. Cargo shows the progress.
pub(crate) fn build() -> Result<std::path::PathBuf> {
    let packages = PACKAGES.iter().flat_map(|package| ["--package", *package]);
    workspace::run(workspace::cargo().args(["build", "--release", "--locked"]).args(packages))?;
    Ok(workspace::target_dir()?.join("release"))
}
