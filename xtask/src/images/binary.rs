//! A static binary for an image.

use anyhow::{Context, Result, bail};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use super::Profile;
use crate::workspace;

/// Program header of an ELF file that names the dynamic loader.
const PT_INTERP: u32 = 3;

/// Builds the binary of `package`, which has the package's name, and copies it to `to`.
///
/// The C library is linked in by a flag for the binary's own crate alone: which form of a library an executable takes is
/// decided when it is linked. So all other crates are those of an ordinary build, in the ordinary target folder, and an
/// image costs one more link.
pub(crate) fn build(package: &str, profile: Profile, to: &Path) -> Result<()> {
    let mut cargo = workspace::cargo();
    cargo.args(["rustc", "--locked", "--package", package, "--bin", package, "--profile", profile.name()]);
    cargo.args(["--message-format", "json-render-diagnostics"]);
    cargo.args(["--", "-C", "target-feature=+crt-static", "-C", "strip=debuginfo"]);
    eprintln!("+ building {package} ({}, static)", profile.name());
    // Cargo shows its own progress.
    let built = workspace::output(cargo.stderr(Stdio::inherit()))?;
    let executable = executable(&built).with_context(|| format!("cargo names no executable of {package}"))?;
    // The path is that of ordinary builds too. Should one of them have come between, its binary is the other kind.
    let bytes = fs::read(&executable).with_context(|| format!("reading {}", executable.display()))?;
    if needs_loader(&bytes).with_context(|| format!("{} is no ELF file", executable.display()))? {
        bail!("{} is not static: another build has replaced it, try again", executable.display());
    }
    // Unchanged, it keeps its time, and nothing is written.
    if fs::read(to).is_ok_and(|old| old == bytes) {
        return Ok(());
    }
    fs::write(to, bytes).with_context(|| format!("writing {}", to.display()))
}

/// The executable among cargo's messages, of which each line is one.
fn executable(messages: &str) -> Option<PathBuf> {
    let messages = messages.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let mut executables = messages.filter_map(|message| Some(PathBuf::from(message.get("executable")?.as_str()?)));
    executables.next_back()
}

/// Whether an ELF file (64 bit, little endian) asks for a dynamic loader; none for anything else.
pub(crate) fn needs_loader(elf: &[u8]) -> Option<bool> {
    if !elf.starts_with(b"\x7fELF\x02\x01") {
        return None;
    }
    let number = |at: usize, size: usize| {
        let bytes = elf.get(at..at.checked_add(size)?)?;
        bytes.iter().rev().try_fold(0_usize, |value, byte| value.checked_mul(256)?.checked_add(usize::from(*byte)))
    };
    let (start, size, count) = (number(32, 8)?, number(54, 2)?, number(56, 2)?);
    for header in 0..count {
        if number(start.checked_add(header * size)?, 4)? == PT_INTERP as usize {
            return Some(true);
        }
    }
    Some(false)
}
