//! Workspace automation: `cargo xtask <command>`. Depends on no product crate, so it builds in seconds.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a command line tool talks on its streams")]

mod bench;
mod checks;
mod ci;
mod cluster;
mod demo;
mod envoy;
mod floors;
mod images;
mod source;
mod tidy;
mod workspace;

use anyhow::Result;
use clap::{Parser, Subcommand};
use std::ffi::OsString;
use std::process::ExitCode;

/// Builds, checks and measures the mesh.
#[derive(Parser, Debug)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", disable_help_subcommand = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Build everything (release) and run `meshctl demo` with ARGS (try --help, --check)
    #[command(disable_help_flag = true)]
    Demo {
        /// Passed on to `meshctl demo`
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<OsString>,
    },
    /// Format, tidiness and all tests of the workspace
    Test {
        /// Passed on to `cargo test --workspace`
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<OsString>,
    },
    /// Check floors, sizes, names and imports; prints each thing out of place
    Tidy,
    /// Clippy over the workspace, warnings are errors
    Lint,
    /// Measure against Envoy: proxy CPU per request, latency, memory
    Bench(bench::Bench),
    /// Build images of static binaries on an empty base: no daemon, no registry, no network
    Images(images::Images),
    /// Run the tests on a Kubernetes cluster, started for them or existing
    E2e(cluster::E2e),
    /// Run one of the heavier suites
    Ci {
        #[command(subcommand)]
        suite: ci::Suite,
    },
    /// Write manifests/ anew from the code
    Manifests,
    /// Write docs/reference/ anew from the code
    Docs,
}

fn main() -> ExitCode {
    match run(Cli::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<()> {
    match command {
        Command::Demo { args } => demo::run(&args),
        Command::Test { args } => checks::test(&args),
        Command::Tidy => checks::tidy(),
        Command::Lint => checks::lint(),
        Command::Bench(bench) => bench::run(&bench),
        Command::Images(images) => images::run(&images),
        Command::E2e(e2e) => cluster::run(&e2e),
        Command::Ci { suite } => ci::run(&suite),
        Command::Manifests => checks::regenerate("manifests"),
        Command::Docs => checks::regenerate("docs/reference"),
    }
}
