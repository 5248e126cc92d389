//! `test`, `tidy`, `lint` and the commands that write generated files.

use anyhow::{Context, Result, bail};
use std::ffi::OsString;
use std::fs;

use crate::{floors, tidy, workspace};

/// Format, tidiness, then every test with one feature set. Cargo's own lines close the output.
pub(crate) fn test(args: &[OsString]) -> Result<()> {
    workspace::run(workspace::cargo().args(["fmt", "--all", "--check"]))?;
    tidy()?;
    workspace::run(workspace::cargo().args(["test", "--workspace", "--locked"]).args(args))
}

/// Floors and the tree's shape; prints every line before it fails.
pub(crate) fn tidy() -> Result<()> {
    let mut found = tidy::check(&workspace::root())?;
    found.extend(floors::check()?);
    for line in &found {
        println!("{line}");
    }
    match found.len() {
        0 => Ok(()),
        1 => bail!("1 thing is out of place"),
        count => bail!("{count} things are out of place"),
    }
}

/// Clippy with every warning an error.
pub(crate) fn lint() -> Result<()> {
    let clippy = ["clippy", "--workspace", "--all-targets", "--locked", "--", "-D", "warnings"];
    workspace::run(workspace::cargo().args(clippy))
}

/// Runs the tests that hold generated files and code equal, told to write instead of to compare, and says what changed
/// below `folder`. Those tests have `golden` in their names.
pub(crate) fn regenerate(folder: &str) -> Result<()> {
    let path = workspace::root().join(folder);
    fs::create_dir_all(&path).with_context(|| format!("creating {}", path.display()))?;
    workspace::run(workspace::cargo().args(["test", "--workspace", "--locked", "golden"]).env("UPDATE_GOLDEN", "1"))?;
    let status = workspace::output(
        std::process::Command::new("git").current_dir(workspace::root()).args(["status", "--short", "--", folder]),
    )?;
    print!("{}", if status.is_empty() { format!("{folder} is up to date\n") } else { status });
    Ok(())
}
