//! `meshctl upgrade`: a revision that is there, to this release, with the settings that it has.

use serde_json::Value;

use crate::cmd::OutputArgs;
use crate::cmd::install::{self, HowArgs};
use crate::context::Context;
use crate::error::CliError;
use crate::install::cluster::Cluster;
use crate::install::object::DEFAULT_REVISION;
use crate::install::settings::{Settings, SettingsArgs};
use crate::install::{precheck, record};
use crate::printer::Report;

/// What to upgrade, and how.
#[derive(clap::Args, Clone, Debug)]
#[command(
    after_help = "Examples:\n  meshctl upgrade -y\n  meshctl upgrade --revision canary --dry-run\n  meshctl upgrade --set meshConfig.accessLogFile=/dev/stdout\n\nWhat was asked for at the installation counts, and what is given now on top of it."
)]
pub struct UpgradeArgs {
    /// What to change of the settings.
    #[command(flatten)]
    pub settings: SettingsArgs,
    /// How to do it.
    #[command(flatten)]
    pub how: HowArgs,
    /// How the plan is shown.
    #[command(flatten)]
    pub output: OutputArgs,
}

/// Checks, shows the plan, asks, installs, waits.
///
/// # Errors
/// When there is nothing to upgrade, or the cluster refuses something.
pub fn run(context: &Context, args: &UpgradeArgs) -> Result<Report, CliError> {
    context.block_on(async {
        let cluster = Cluster { kube: context.kube().await? };
        let namespace = &context.kube.istio_namespace;
        let revision = args.settings.revision.as_deref().unwrap_or(DEFAULT_REVISION);
        let found = record::read(&cluster, revision, namespace).await?;
        let Some(found) = found else {
            return Err(CliError::user(format!("there is no installation of the revision {revision} in {namespace}"))
                .hint("meshctl install installs one; meshctl revision list shows which there are")
                .hint("what Helm installed is upgraded by helm upgrade"));
        };
        let findings = precheck::run(&cluster, namespace).await?;
        precheck::refuse(&findings)?;
        for finding in &findings {
            context.printer.note(&finding.to_string());
        }
        let asked: Value = found.user;
        let settings = Settings::load(&args.settings, namespace, Some(&asked))?;
        let verb = format!("upgrade from {} to {}:", found.version, env!("CARGO_PKG_VERSION"));
        install::install(context, &cluster, settings, &args.how, &verb).await
    })
}
