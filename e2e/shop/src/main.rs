//! The demo shop: real services for a mesh to carry, and the clients that put load on them. Links no mesh crate.
//!
//! One binary, a service or client by subcommand. Every answer names the service, version and instance that gave it.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a service tells its address, a client its figures")]

mod call;
mod cli;
mod client;
mod duration;
mod identity;
mod knobs;
mod proto;
mod reply;
mod serve;
mod service;
mod stop;
mod target;

use anyhow::{Context, Result};
use clap::Parser;
use std::process::ExitCode;

fn main() -> ExitCode {
    let cli = cli::Cli::parse();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("starting the runtime");
    match runtime.and_then(|runtime| runtime.block_on(run(cli.command))) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(2)
        }
    }
}

async fn run(command: cli::Command) -> Result<ExitCode> {
    use cli::Command;
    let stop = stop::Stop::on_signal()?;
    match command {
        Command::Web(args) => service::web::run(*args, stop).await?,
        Command::Catalogue(args) => service::catalogue::run(args, stop).await?,
        Command::Reviews(args) => service::reviews::run(args, stop).await?,
        Command::Ratings(args) => service::ratings::run(args, stop).await?,
        Command::Orders(args) => service::orders::run(args, stop).await?,
        Command::TcpEcho(args) => service::tcp_echo::run(args, stop).await?,
        Command::Feed(args) => service::feed::run(args, stop).await?,
        Command::Client(client) => return client::run(client, stop).await,
    }
    Ok(ExitCode::SUCCESS)
}
