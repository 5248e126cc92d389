//! The clients: bounded load and what came of it, as JSON on stdout.

mod drive;
pub(crate) mod grpc;
mod histogram;
mod http1;
mod stats;
pub(crate) mod tcp;
mod ws;

use anyhow::{Context, Result};
use std::process::ExitCode;

use crate::cli::Client;
use crate::stop::Stop;

/// Runs one client; exit code 1 when asked to fail on errors and there were some.
pub(crate) async fn run(client: Client, stop: Stop) -> Result<ExitCode> {
    let (load, report) = match client {
        Client::Http(args) => (args.load.clone(), http1::run(args, stop).await?),
        Client::Grpc(args) => (args.load.clone(), grpc::run(args, stop).await?),
        Client::Ws(args) => (args.load.clone(), ws::run(args, stop).await?),
        Client::Tcp(args) => (args.load.clone(), tcp::run(args, stop).await?),
    };
    println!("{}", serde_json::to_string(&report).context("writing the figures")?);
    let failed = load.fail_on_error && report.failed > 0;
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}
