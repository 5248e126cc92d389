//! Sidecar and gateway proxy.

use std::process::ExitCode;

use clap::Parser as _;
use mesh_proxy::agent::commands;
use mesh_proxy::app;
use mesh_proxy::args::{Cli, Command, VersionArgs, VersionOutput};
use mesh_proxy::capture::{self, CaptureError};
use mesh_proxy::handover::{replace, supervise};

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Proxy(args) => app::run(&args),
        Command::Init(args) => {
            let outcome = capture::run(&args);
            let failed = outcome.as_ref().err().map_or(2, CaptureError::exit_code);
            return status(outcome.map_err(Into::into).map(|outcome| print(&outcome)), failed);
        }
        // As in Istio's agent, both end with 1: scripts look whether it worked, not at the number.
        Command::Wait(args) => return status(run(commands::wait(&args)), 1),
        Command::Request(args) => return status(run(commands::request_to_stdout(&args)), 1),
        Command::Replace(args) => {
            return status(run(async { replace::run(&args).await.map(|text| print(&text)) }), 1);
        }
        Command::Supervise => match supervise::run() {
            Ok(code) => return ExitCode::from(code),
            Err(error) => Err(error),
        },
        Command::Version(args) => version(args).map(|text| print(&text)),
    };
    status(result, 2)
}

fn run(work: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    mesh_api_rt::runtime::single()?.block_on(work)
}

fn status(result: anyhow::Result<()>, failed: u8) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&error);
            ExitCode::from(failed)
        }
    }
}

fn version(args: VersionArgs) -> anyhow::Result<String> {
    let build = mesh_api_rt::build_info!("mesh-proxy");
    Ok(match args.output {
        Some(VersionOutput::Json) => serde_json::to_string_pretty(&build)?,
        Some(VersionOutput::Yaml) => serde_yaml_ng::to_string(&build)?.trim_end().to_owned(),
        None if args.short => build.version.to_owned(),
        None => format!("{} {} ({})", build.name, build.version, build.revision),
    })
}

#[expect(clippy::print_stdout, reason = "the command's output")]
fn print(outcome: &impl std::fmt::Display) {
    println!("{outcome}");
}

#[expect(clippy::print_stderr, reason = "the process ends with it, and logs may not have started")]
fn complain(error: &anyhow::Error) {
    eprintln!("mesh-proxy: {error:#}");
}
