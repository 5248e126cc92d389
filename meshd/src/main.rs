//! The control plane daemon: reads the command line, starts the parts, waits for a signal.

use std::io::Write as _;
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use clap::Parser as _;
use mesh_api::identity::SpiffeId;
use mesh_api_rt::limits::raise_open_files;
use mesh_api_rt::listen::ListenerTable;
use mesh_api_rt::runtime::{CpuBudget, multi};
use mesh_api_rt::signal::StopSignals;
use mesh_api_rt::telemetry;
use meshd::app::App;
use meshd::args::{Cli, Command, RunArgs, TokenArgs};

/// Time for streams to end after a signal; a second signal ends them at once.
const GRACE: Duration = Duration::from_secs(10);

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Run(args) => run(*args),
        Command::Token(args) => token(&args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // The alternate form is the message with all its causes on one line.
            let _ = writeln!(std::io::stderr(), "meshd: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn run(args: RunArgs) -> anyhow::Result<()> {
    // First of all, before anything opens descriptors of its own.
    let mut sockets = ListenerTable::from_env().context("taking over listening sockets")?;
    let (format, levels) = args.logging();
    let logging = telemetry::init(format, levels)?;
    mesh_api_rt::panics::log_all();
    if let Err(error) = raise_open_files() {
        tracing::warn!(%error, "Limit of open files not raised");
    }
    let cpu = CpuBudget::detect();
    let config = args.into_config(&cpu);
    let runtime = multi(cpu.workers(None, cpu.cpus), "meshd").context("starting the runtime")?;
    runtime.block_on(async {
        let mut signals = StopSignals::install().context("installing signal handlers")?;
        let app = tokio::select! {
            app = App::start(config, &mut sockets, Some(logging)) => app?,
            stop = signals.recv() => {
                tracing::info!(signal = %stop, "Stopped before the start was complete");
                return Ok(());
            }
        };
        for address in sockets.unclaimed() {
            tracing::warn!(%address, "Inherited socket is not used by this configuration");
        }
        let stop = signals.recv().await;
        tracing::info!(signal = %stop, "Stopping");
        tokio::select! {
            drained = app.stop(GRACE) => tracing::info!(?drained, "Stopped"),
            stop = signals.recv() => tracing::warn!(signal = %stop, "Stopped at once"),
        }
        Ok(())
    })
}

fn token(args: &TokenArgs) -> anyhow::Result<()> {
    let identity = SpiffeId::new(args.trust_domain.clone(), args.namespace.as_str(), args.service_account.as_str());
    // Read back, since namespace and account came from a user.
    let identity = SpiffeId::parse(&identity.to_string())
        .with_context(|| format!("{:?} and {:?} make no identity", args.namespace, args.service_account))?;
    let token = meshd::token::mint(&args.state_dir, &identity, args.ttl, SystemTime::now())?;
    writeln!(std::io::stdout(), "{}", *token).context("writing the token")
}
