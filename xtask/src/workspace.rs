//! The workspace as cargo sees it, and running commands in it.

use anyhow::{Context, Result, bail};
use cargo_metadata::{Metadata, MetadataCommand};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

/// The workspace's folder: where this package was built from, one level up.
pub(crate) fn root() -> PathBuf {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    own.parent().unwrap_or(own).to_owned()
}

/// All packages with the resolved graph, from the lock file as it is.
pub(crate) fn metadata() -> Result<Metadata> {
    MetadataCommand::new()
        .current_dir(root())
        .other_options(["--locked".to_owned()])
        .exec()
        .context("reading `cargo metadata --locked`")
}

/// The folder for build output, honouring `CARGO_TARGET_DIR`.
pub(crate) fn target_dir() -> Result<PathBuf> {
    let metadata =
        MetadataCommand::new().current_dir(root()).no_deps().exec().context("reading `cargo metadata --no-deps`")?;
    Ok(metadata.target_directory.into_std_path_buf())
}

/// The folder of what `e2e/cluster` builds, and of its clusters' state; `e2e/cluster/lib.sh` says the same.
pub(crate) fn cluster_home() -> Result<PathBuf> {
    let variable = |name: &str| std::env::var_os(name).map(PathBuf::from);
    let cache = variable("XDG_CACHE_HOME").or_else(|| Some(std::env::home_dir()?.join(".cache")));
    let home = variable("CLUSTER_HOME").or_else(|| Some(cache?.join("lateen-cluster")));
    home.context("no home folder, and CLUSTER_HOME is not set")
}

/// The wall clock: commands take the time they take.
#[expect(clippy::disallowed_methods, reason = "no tokio here, and no test of time")]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// The cargo that runs us, set to work in the workspace's folder.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root());
    command
}

/// Runs to the end with our own output streams; anything but success is an error that names the command.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let text = shown(command);
    eprintln!("+ {text}");
    let status = command.status().with_context(|| format!("starting `{text}`"))?;
    if !status.success() {
        bail!("`{text}` failed ({status})");
    }
    Ok(())
}

/// Runs to the end and returns what it wrote to stdout.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let text = shown(command);
    let output = command.output().with_context(|| format!("starting `{text}`"))?;
    if !output.status.success() {
        bail!("`{text}` failed ({}):\n{}", output.status, String::from_utf8_lossy(&output.stderr));
    }
    String::from_utf8(output.stdout).with_context(|| format!("`{text}` wrote text that is not UTF-8"))
}

fn shown(command: &Command) -> String {
    let program = Path::new(command.get_program()).file_name().unwrap_or_else(|| command.get_program());
    std::iter::once(program).chain(command.get_args()).map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}
