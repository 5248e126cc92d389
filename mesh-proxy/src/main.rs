//! Sidecar and gateway proxy.

use std::process::ExitCode;

use clap::Parser as _;
use mesh_proxy::args::{Cli, Command};
use mesh_proxy::{app, capture};

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Proxy(args) => app::run(&args),
        Command::Init(args) => capture::run(&args).map_err(Into::into).map(|outcome| print(&outcome)),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&error);
            ExitCode::from(2)
        }
    }
}

#[expect(clippy::print_stdout, reason = "the command's output")]
fn print(outcome: &capture::Outcome) {
    println!("{outcome}");
}

#[expect(clippy::print_stderr, reason = "the process ends with it, and logs may not have started")]
fn complain(error: &anyhow::Error) {
    eprintln!("mesh-proxy: {error:#}");
}
