//! The command: start everything, let the user play or drive the scenario, end everything.

use std::path::PathBuf;

use mesh_api_rt::signal::StopSignals;

use super::check;
use super::client::Client;
use super::dirs::Dirs;
use super::mesh::Mesh;
use super::place::{Binaries, make_host};
use super::plan::{Capture, SHOPPER, service_named};
use super::{watch, yaml};
use crate::context::Context;
use crate::error::CliError;
use crate::exit::Exit;
use crate::printer::Report;

/// What the demo does.
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = "Examples:\n  meshctl demo\n  meshctl demo --check\n  meshctl demo --keep-dir /tmp/mesh")]
pub struct DemoArgs {
    /// Folder of meshd, mesh-proxy and e2e-shop (default: that of this program)
    #[arg(long, value_name = "DIR")]
    bin_dir: Option<PathBuf>,
    /// Drive the scenario unattended: one line a step; fails when a step fails
    #[arg(long)]
    check: bool,
    /// How traffic gets into the proxies
    #[arg(long, value_enum, default_value_t)]
    capture: CaptureArg,
    /// Leave YAML, logs and certificates in this folder, which must be empty or new
    #[arg(long, value_name = "DIR")]
    keep_dir: Option<PathBuf>,
    /// Requests of the check of shares
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(100..=10_000_000))]
    requests: u64,
    /// Seed of what --check does in random order (default: by chance; it is printed)
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Run only the steps of --check whose names contain one of these words
    #[arg(long, value_name = "WORD", requires = "check")]
    only: Vec<String>,
}

/// How traffic gets into the proxies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
enum CaptureArg {
    /// Redirect where this machine gives network namespaces without root, else none
    #[default]
    Auto,
    /// Redirection rules in network namespaces
    Redirect,
    /// No capture: addresses of the sidecars' own on loopback
    None,
}

/// Why the demo ends.
enum End {
    Interrupted,
    Done(Exit),
}

/// Runs the demo until it is interrupted, or until the check is through.
///
/// # Errors
/// When the mesh cannot be started, or a part of it dies.
pub fn run(context: &Context, args: &DemoArgs) -> Result<Report, CliError> {
    let binaries = Binaries::find(args.bin_dir.as_deref())?;
    let dirs = Dirs::create(args.keep_dir.as_deref())?;
    let wanted = match args.capture {
        CaptureArg::Auto => None,
        CaptureArg::Redirect => Some(Capture::Redirect),
        CaptureArg::None => Some(Capture::None),
    };
    let (host, why_not) = make_host(wanted, &dirs)?;
    if let Some(reason) = why_not {
        context.printer.note(&format!("No transparent capture here: {reason}"));
        context.printer.note("Going on with --capture none: sidecars listen on addresses of their own.");
    }
    let exit = context.block_on(async {
        let mut mesh = Mesh::prepare(host, dirs, binaries)?;
        let result = guarded(context, &mut mesh, args).await;
        context.printer.note("Stopping …");
        mesh.stop().await;
        result
    })?;
    let exit = match exit {
        End::Interrupted if args.check => Exit::Interrupted,
        End::Interrupted => Exit::Ok,
        End::Done(exit) => exit,
    };
    Ok(Report { exit, ..Report::default() })
}

/// Everything between the first start and the stop; ends early when the user says so.
async fn guarded(context: &Context, mesh: &mut Mesh, args: &DemoArgs) -> Result<End, CliError> {
    let install = StopSignals::install();
    let mut signals = install.map_err(|error| CliError::internal("cannot watch for Ctrl-C").because(&error))?;
    tokio::select! {
        result = play(context, mesh, args) => result,
        _ = signals.recv() => Ok(End::Interrupted),
    }
}

async fn play(context: &Context, mesh: &mut Mesh, args: &DemoArgs) -> Result<End, CliError> {
    let note = |text: &str| context.printer.note(text);
    note(&format!("Files: {}", mesh.dirs.root().display()));
    if args.check {
        // So that a rotation comes within the time of a check.
        mesh.short_lived = Some(check::SHORT_LIVED);
    }
    note("Starting the control plane …");
    mesh.start_meshd().await?;
    note(&format!("Starting {} proxies and the shop …", mesh.plan.proxied().count()));
    mesh.start_workloads().await?;
    mesh.wait_for_shop().await?;
    if args.keep_dir.is_some() {
        mesh.save_certificates().await?;
    }
    if args.check {
        let seed = args.seed.unwrap_or_else(rand::random);
        return check::run(mesh, args.requests, seed, &args.only).await.map(End::Done);
    }
    let head = welcome(mesh);
    note(&head);
    let _visitors = visitors(mesh)?;
    watch::run(mesh, &head).await?;
    Ok(End::Done(Exit::Ok))
}

/// What to try.
fn welcome(mesh: &Mesh) -> String {
    let ingress = mesh.ingress;
    let file = mesh.dirs.config().join(yaml::REVIEWS);
    let folder = mesh.dirs.root().display();
    // As the user started it: it may not be in the shell's path.
    let meshctl = std::env::args().next().unwrap_or_else(|| "meshctl".to_owned());
    format!(
        "\n\
The shop is open at http://{ingress}/

Try in another shell:
  curl -s http://{ingress}/api/reviews -i           # x-reviews-version tells who answered
  curl -s http://{ingress}/api/reviews -i -H 'end-user: ada'
  sed -i 's/weight: 90/weight: 50/; s/weight: 10$/weight: 50/' {}
  {meshctl} proxy-status --mesh-dir {folder}
  {meshctl} proxy-config route web-1 --mesh-dir {folder}

Ctrl-C stops everything.\n",
        file.display()
    )
}

/// Some traffic of every kind, so that there is something to see.
fn visitors(mesh: &mut Mesh) -> Result<Vec<Client>, CliError> {
    let shopper = mesh.plan.workload(SHOPPER).cloned();
    let page = format!("http://{}/", mesh.ingress);
    let reviews = format!("http://{}/api/reviews", mesh.ingress);
    let long = ["--count", "0", "--duration", "86400s"];
    let mut clients = Vec::new();
    for (url, rate) in [(page, "10"), (reviews, "10")] {
        let args = [&["http", "--url", &url, "--rate", rate, "--concurrency", "4"], long.as_slice()].concat();
        clients.push(Client::start(mesh, None, &args)?);
    }
    let Some(shopper) = shopper else { return Ok(clients) };
    for (kind, name) in [("grpc", "orders"), ("ws", "feed"), ("tcp", "tcp-echo")] {
        let Some(service) = service_named(name) else { continue };
        let url = mesh.plan.url_of(&shopper, service, if kind == "ws" { "/feed" } else { "" });
        let endpoint = mesh.plan.endpoint(&shopper, service);
        let target = match kind {
            "tcp" => vec!["--addr", &endpoint, "--banner"],
            _ => vec!["--url", &url],
        };
        let args = [&[kind, "--rate", "2"], target.as_slice(), long.as_slice()].concat();
        clients.push(Client::start(mesh, Some(SHOPPER), &args)?);
    }
    Ok(clients)
}
