//! `meshctl uninstall`: the mesh out of a cluster.

use std::time::Duration;

use mesh_api::duration;
use serde_json::json;

use crate::cmd::OutputArgs;
use crate::cmd::install::confirm;
use crate::context::Context;
use crate::error::CliError;
use crate::install::cluster::Cluster;
use crate::install::remove::{self, Scope};
use crate::printer::{Format, Report};
use crate::table::Table;

/// What to remove, and how.
#[derive(clap::Args, Clone, Debug)]
#[command(
    after_help = "Examples:\n  meshctl uninstall --revision canary\n  meshctl uninstall --purge -y\n\nA revision leaves definitions, what users wrote, and the mesh's keys; --purge leaves nothing of ours."
)]
#[group(skip)]
pub struct UninstallArgs {
    /// Remove one revision: control plane, gateways, webhooks and tags
    #[arg(short = 'r', long, value_name = "NAME", required_unless_present = "purge", conflicts_with = "purge")]
    pub revision: Option<String>,
    /// Remove everything of ours: all revisions, definitions with all that users wrote, keys, root certificates
    #[arg(long)]
    pub purge: bool,
    /// Do not ask
    #[arg(short = 'y', long = "skip-confirmation", alias = "yes")]
    pub yes: bool,
    /// Only show what would go
    #[arg(long)]
    pub dry_run: bool,
    /// How long to wait until everything is gone
    #[arg(long, value_name = "DURATION", default_value = "300s", value_parser = duration::parse)]
    pub timeout: Duration,
    /// How the plan is shown.
    #[command(flatten)]
    pub output: OutputArgs,
}

/// Shows the plan, asks, removes, waits.
///
/// # Errors
/// When there is nothing of the kind, or the cluster refuses something.
pub fn run(context: &Context, args: &UninstallArgs) -> Result<Report, CliError> {
    context.block_on(async {
        let cluster = Cluster { kube: context.kube().await? };
        let namespace = &context.kube.istio_namespace;
        let scope = args.revision.clone().map_or(Scope::Purge, Scope::Revision);
        let removal = remove::plan(&cluster, &scope, namespace).await?;
        if removal.objects.is_empty() {
            return Err(match &scope {
                Scope::Revision(revision) => CliError::user(format!("there is no revision {revision}"))
                    .hint("meshctl revision list shows which there are"),
                Scope::Purge => CliError::user("there is nothing of ours"),
            }
            .hint("what Helm installed is removed by helm uninstall"));
        }
        let mut table = Table { padding: 3, ..Table::new(&["ACTION", "OBJECT"]) };
        for object in &removal.objects {
            table.row(["delete".to_owned(), object.to_string()]);
        }
        let names: Vec<String> = removal.objects.iter().map(ToString::to_string).collect();
        let data = json!({ "delete": names, "warnings": removal.warnings });
        let warnings = removal.warnings.iter().map(|warning| format!("warning: {warning}"));
        let mut notes: Vec<String> = warnings.collect();
        notes.push(format!("{} objects go", removal.objects.len()));
        if args.dry_run {
            return Ok(Report { table, data, notes, ..Report::default() });
        }
        if context.printer.format == Format::Table {
            context.printer.note(&table.to_string());
        }
        notes.iter().for_each(|note| context.printer.note(note));
        let what = match &scope {
            Scope::Revision(revision) => format!("remove the revision {revision} from {}", cluster.kube.server),
            Scope::Purge => format!("remove everything of the mesh from {}", cluster.kube.server),
        };
        confirm(context, args.yes, &what)?;
        remove::run(&cluster, &scope, &removal, namespace, args.timeout).await?;
        Ok(Report { data, notes: vec![format!("done: {what}")], ..Report::default() })
    })
}
