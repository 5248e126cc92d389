//! `meshctl install`: the mesh into a cluster.

use std::io::{self, BufRead as _, IsTerminal as _};
use std::time::Duration;

use mesh_api::duration;
use serde_json::{Value, json};

use crate::cmd::OutputArgs;
use crate::context::Context;
use crate::error::CliError;
use crate::exit::Exit;
use crate::install::apply::{self, Installation};
use crate::install::cluster::{Cluster, Conflicts};
use crate::install::manifest::Manifest;
use crate::install::settings::{Settings, SettingsArgs};
use crate::printer::{Format, Report};

/// How an installation is done.
#[derive(clap::Args, Clone, Debug)]
pub struct HowArgs {
    /// Do not ask
    #[arg(short = 'y', long = "skip-confirmation", alias = "yes")]
    pub yes: bool,
    /// Only show what would change
    #[arg(long)]
    pub dry_run: bool,
    /// Take over objects and fields that others manage
    #[arg(long)]
    pub force: bool,
    /// How long to wait until everything is ready
    #[arg(long = "readiness-timeout", value_name = "DURATION", default_value = "300s", value_parser = duration::parse)]
    pub timeout: Duration,
}

/// What to install, and how.
#[derive(clap::Args, Clone, Debug)]
#[command(
    after_help = "Examples:\n  meshctl install -y\n  meshctl install --set profile=demo --set hub=registry.example/mesh\n  \
    meshctl install -f overlay.yaml --dry-run\n  meshctl install --revision canary -y\n\nExit code: 0 installed, 1 what is asked for cannot be, or was not confirmed, 2 something does not become ready."
)]
pub struct InstallArgs {
    /// What to install.
    #[command(flatten)]
    pub settings: SettingsArgs,
    /// How to do it.
    #[command(flatten)]
    pub how: HowArgs,
    /// How the plan is shown.
    #[command(flatten)]
    pub output: OutputArgs,
}

/// Shows the plan, asks, installs, waits.
///
/// # Errors
/// When settings cannot be used, or the cluster refuses something.
pub fn run(context: &Context, args: &InstallArgs) -> Result<Report, CliError> {
    context.block_on(async {
        let cluster = Cluster { kube: context.kube().await? };
        let settings = Settings::load(&args.settings, &context.kube.istio_namespace, None)?;
        install(context, &cluster, settings, &args.how, "install").await
    })
}

/// Installs what the settings say; `verb` is what the user calls it.
pub(crate) async fn install(
    context: &Context,
    cluster: &Cluster,
    settings: Settings,
    how: &HowArgs,
    verb: &str,
) -> Result<Report, CliError> {
    let conflicts = if how.force { Conflicts::TakeOver } else { Conflicts::Refuse };
    let manifest = Manifest::render(settings)?;
    let installation = apply::prepare(cluster, manifest, conflicts).await?;
    let settings = &installation.manifest.settings;
    let title = format!(
        "{verb} profile {} as revision {} in {} of {}",
        settings.profile, settings.revision, settings.namespace, cluster.kube.server
    );
    let mut report = report(&installation);
    if how.dry_run {
        report.notes.push(format!("dry run: would {title}"));
        let blocked = installation.plan.check().is_err();
        return Ok(Report { exit: if blocked { Exit::User } else { Exit::Ok }, ..report });
    }
    installation.plan.check()?;
    if context.printer.format == Format::Table {
        context.printer.note(&report.table.to_string());
    }
    for note in &report.notes {
        context.printer.note(note);
    }
    confirm(context, how.yes, &title)?;
    let notes = installation.run(cluster, conflicts, how.timeout).await?;
    report.table = crate::table::Table::default();
    report.notes = notes;
    report.notes.push(format!("done: {title}"));
    Ok(report)
}

fn report(installation: &Installation) -> Report {
    let changes = installation.plan.changes().count();
    let all = installation.plan.steps.len();
    let mut notes = installation.notes.clone();
    notes.push(format!("{changes} of {all} objects change"));
    let settings = &installation.manifest.settings;
    let data: Value = json!({
        "profile": settings.profile,
        "revision": settings.revision,
        "namespace": settings.namespace,
        "plan": installation.plan.to_json(),
    });
    Report { table: installation.plan.table(), data, notes, ..Report::default() }
}

/// Asks whether to go on; the answer is no unless it is yes.
pub(crate) fn confirm(context: &Context, yes: bool, what: &str) -> Result<(), CliError> {
    if yes {
        return Ok(());
    }
    if !io::stdin().is_terminal() {
        return Err(CliError::user(format!("not confirmed: {what}")).hint("-y goes on without asking"));
    }
    context.printer.note(&format!("This will {what}. Proceed? (y/N)"));
    let mut answer = String::new();
    let read = io::stdin().lock().read_line(&mut answer);
    read.map_err(|error| CliError::internal("cannot read the answer").because(&error))?;
    match answer.trim().to_lowercase().as_str() {
        "y" | "yes" => Ok(()),
        _ => Err(CliError::user("cancelled: nothing was changed")),
    }
}
