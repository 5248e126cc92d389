//! `cargo xtask ci`: the suites that take longer than `cargo xtask test` or need more of the machine.

use anyhow::{Result, bail};
use clap::Subcommand;
use std::path::Path;
use std::process::Command;

use crate::{demo, envoy, workspace};

#[derive(Subcommand, Debug)]
pub(crate) enum Suite {
    /// Each crate alone, so that none leans on features that another turns on
    Alone,
    /// Tests of the codec and of e2e against a real Envoy (names with `interop_`)
    Interop,
    /// Tests of e2e in network namespaces (names with `netns_`)
    Namespaces,
    /// The demo's scenario, unattended, in both capture modes
    Demo,
}

/// Runs one suite. A suite that would run nothing fails.
pub(crate) fn run(suite: &Suite) -> Result<()> {
    match suite {
        Suite::Alone => alone(),
        Suite::Interop => {
            let envoy = envoy::ensure()?;
            codec(&envoy)?;
            ignored(&["interop_", "loop_"], Some(&envoy))
        }
        Suite::Namespaces => ignored(&["netns_"], None),
        Suite::Demo => demo_check(),
    }
}

fn alone() -> Result<()> {
    for package in workspace::metadata()?.workspace_packages() {
        workspace::run(workspace::cargo().args(["check", "--locked", "--package", &package.name]))?;
    }
    Ok(())
}

/// Shows what the codec makes to a real Envoy, and drives one over the discovery protocol.
fn codec(envoy: &Path) -> Result<()> {
    let mut test = workspace::cargo();
    test.args(["test", "--locked", "--package", "mesh-api-xds", "--lib", "--", "--ignored", "interop_"]);
    workspace::run(test.env("MESH_ENVOY", envoy))
}

/// Runs those tests of e2e that plain `cargo test` leaves out (`#[ignore]`) and whose names hold one of `families`. They
/// find the binaries in `MESH_BIN_DIR` and Envoy in `MESH_ENVOY`.
fn ignored(families: &[&str], envoy: Option<&Path>) -> Result<()> {
    let binaries = demo::build()?;
    let test = |more: &[&str]| {
        let mut command = workspace::cargo();
        command
            .args(["test", "--locked", "--package", "e2e", "--test", "it", "--", "--ignored"])
            .args(families)
            .args(more);
        command.env("MESH_BIN_DIR", &binaries);
        if let Some(envoy) = envoy {
            command.env("MESH_ENVOY", envoy);
        }
        command
    };
    let listed = workspace::output(&mut test(&["--list"]))?;
    let tests: Vec<&str> = listed.lines().filter_map(|line| line.strip_suffix(": test")).collect();
    if let Some(family) = families.iter().find(|family| !tests.iter().any(|name| name.contains(**family))) {
        bail!("no test of e2e has {family} in its name: a suite that runs nothing shows nothing");
    }
    workspace::run(&mut test(&["--test-threads", "1"]))
}

fn demo_check() -> Result<()> {
    let binaries = demo::build()?;
    for capture in ["redirect", "none"] {
        let mut check = Command::new(binaries.join("meshctl"));
        check
            .current_dir(workspace::root())
            .args(["demo", "--check", "--capture", capture, "--bin-dir"])
            .arg(&binaries);
        workspace::run(&mut check)?;
    }
    Ok(())
}
