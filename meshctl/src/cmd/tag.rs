//! `meshctl tag`: further names of revisions.

use std::collections::BTreeSet;

use clap::Subcommand;
use serde_json::{Value, json};

use crate::cmd::OutputArgs;
use crate::cmd::install::confirm;
use crate::context::Context;
use crate::effective;
use crate::error::CliError;
use crate::install::cluster::Cluster;
use crate::install::manifest::{to_value, to_yaml};
use crate::install::object::TAG_LABEL;
use crate::install::tag::{self, Extras, Wish};
use crate::printer::{Format, Report};
use crate::table::Table;

/// What to do with tags.
#[derive(clap::Args, Clone, Debug)]
pub struct TagArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: TagCommand,
}

/// Commands about tags.
#[derive(Clone, Debug, Subcommand)]
pub enum TagCommand {
    /// Let a tag stand for a revision
    Set(MoveArgs),
    /// Print what `set` would write
    Generate(SetArgs),
    /// List the tags
    #[command(visible_alias = "show")]
    List(ListArgs),
    /// Remove a tag
    #[command(visible_alias = "delete")]
    Remove(RemoveArgs),
}

/// Which tag for which revision.
#[derive(clap::Args, Clone, Debug)]
#[command(
    after_help = "Examples:\n  meshctl tag set prod --revision 1-31\n  meshctl tag set default --revision canary --overwrite"
)]
pub struct SetArgs {
    /// The tag; `default` is for those who name no revision
    pub tag: String,
    /// The revision
    #[arg(short = 'r', long, value_name = "NAME")]
    pub revision: String,
    /// Move a tag that stands for another revision
    #[arg(long)]
    pub overwrite: bool,
    /// Inject namespaces without a label, too
    #[arg(long)]
    pub auto_inject_namespaces: bool,
    /// Do not ask
    #[arg(short = 'y', long = "skip-confirmation", alias = "yes")]
    pub yes: bool,
    /// How objects are shown.
    #[command(flatten)]
    pub output: OutputArgs,
}

/// Which tag for which revision, and whether it is meant.
#[derive(clap::Args, Clone, Debug)]
#[command(
    after_help = "Examples:\n  meshctl tag set prod --revision 1-31\n  meshctl tag set default --revision canary --overwrite\n  \
    meshctl tag set prod --revision canary --overwrite --dry-run\n\nBefore a tag moves, both revisions are asked what they \
    compute for the workloads of its namespaces, and what differs is shown."
)]
pub struct MoveArgs {
    /// Which tag for which revision.
    #[command(flatten)]
    pub set: SetArgs,
    /// Only show what would change for the workloads of the tag's namespaces
    #[arg(long)]
    pub dry_run: bool,
}

/// How to list.
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = "Example:\n  meshctl tag list -o json")]
pub struct ListArgs {
    /// How tags are shown.
    #[command(flatten)]
    pub output: OutputArgs,
}

/// Which tag.
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = "Example:\n  meshctl tag remove prod")]
pub struct RemoveArgs {
    /// The tag
    pub tag: String,
    /// Do not ask, not even when namespaces use it
    #[arg(short = 'y', long = "skip-confirmation", alias = "yes")]
    pub yes: bool,
}

impl TagArgs {
    /// How the report is shown.
    #[must_use]
    pub fn output(&self) -> Format {
        match &self.command {
            TagCommand::Generate(args) if args.output.output == Format::Json => Format::Json,
            TagCommand::Generate(_) | TagCommand::Remove(_) => Format::Table,
            TagCommand::Set(args) => args.set.output.output,
            TagCommand::List(args) => args.output.output,
        }
    }
}

/// Sets, prints, lists or removes.
///
/// # Errors
/// When there is no such tag or revision, or the cluster refuses something.
pub fn run(context: &Context, args: &TagArgs) -> Result<Report, CliError> {
    context.block_on(async {
        let cluster = Cluster { kube: context.kube().await? };
        match &args.command {
            TagCommand::Set(args) => set(context, &cluster, args).await,
            TagCommand::Generate(args) => {
                let extras = Extras { auto_inject: args.auto_inject_namespaces };
                let objects = tag::objects(&cluster, &wish(context, args), Some(extras)).await?;
                if context.printer.format == Format::Json {
                    return Ok(Report { data: to_value(&objects), ..Report::default() });
                }
                super::manifest::write(&to_yaml(&objects))?;
                Ok(Report::default())
            }
            TagCommand::List(_) => list(&cluster).await,
            TagCommand::Remove(args) => remove(context, &cluster, args).await,
        }
    })
}

fn wish<'a>(context: &'a Context, args: &'a SetArgs) -> Wish<'a> {
    Wish { tag: &args.tag, revision: &args.revision, namespace: &context.kube.istio_namespace }
}

async fn set(context: &Context, cluster: &Cluster, args: &MoveArgs) -> Result<Report, CliError> {
    let MoveArgs { set: args, dry_run } = args;
    let wish = wish(context, args);
    let extras = Extras { auto_inject: args.auto_inject_namespaces };
    let objects = tag::objects(cluster, &wish, Some(extras)).await?;
    let known = tag::hooks(cluster).await?;
    let known = known.iter().find(|hook| hook.label(TAG_LABEL) == args.tag).map(|hook| hook.revision().to_owned());
    if let Some(known) = known.as_ref().filter(|known| **known != args.revision && !args.overwrite && !dry_run) {
        return Err(CliError::user(format!("the tag {} stands for the revision {known}", args.tag))
            .hint(format!("meshctl tag set {} --revision {} --overwrite", args.tag, args.revision)));
    }
    let default = match args.tag.as_str() {
        tag::DEFAULT_TAG => tag::default_revision(cluster).await?,
        _ => None,
    };
    let before = known.or_else(|| default.clone()).filter(|before| *before != args.revision);
    let switch = switch(cluster, args, before.as_deref()).await?;
    if *dry_run {
        let note = format!("dry run: the tag {} would stand for the revision {}", args.tag, args.revision);
        let Report { table, data, mut notes, .. } = switch;
        notes.push(note);
        return Ok(Report { table, data, notes, ..Report::default() });
    }
    if context.printer.format == Format::Table && !switch.table.rows.is_empty() {
        context.printer.note(&switch.table.to_string());
    }
    for note in &switch.notes {
        context.printer.note(note);
    }
    if let Some(before) = default.filter(|before| *before != args.revision) {
        let what = format!("make {} the default revision instead of {before}", args.revision);
        confirm(context, args.yes || args.overwrite, &what)?;
    }
    tag::set(cluster, &wish, &objects).await?;
    let note = format!(
        "the tag {} stands for the revision {}; pods of namespaces with istio.io/rev={} get its proxies when they start anew",
        args.tag, args.revision, args.tag
    );
    let data = json!({ "tag": args.tag, "revision": args.revision, "switch": switch.data });
    Ok(Report { data, notes: vec![note], ..Report::default() })
}

/// What the switch from another revision changes for the workloads of the tag's namespaces. That it cannot be found out is
/// told and keeps nobody from switching: the old revision may be the one that does not work.
async fn switch(cluster: &Cluster, args: &SetArgs, before: Option<&str>) -> Result<Report, CliError> {
    let Some(before) = before else { return Ok(Report::default()) };
    let namespaces: BTreeSet<String> = tag::namespaces(cluster, &args.tag).await?.into_iter().collect();
    if namespaces.is_empty() {
        return Ok(Report { notes: vec![format!("no namespace uses the tag {} yet", args.tag)], ..Report::default() });
    }
    match effective::compare(&cluster.kube, before, &args.revision, Some(&namespaces)).await {
        Ok(found) => {
            let table = if found.differences.is_empty() { Table::default() } else { found.table() };
            let mut notes = found.notes.clone();
            notes.push(found.summary(before, &args.revision));
            Ok(Report { table, data: found.to_json(before, &args.revision), notes, ..Report::default() })
        }
        Err(error) => {
            let note = format!("not known what the switch from {before} changes: {}", error.message);
            Ok(Report { notes: vec![note], ..Report::default() })
        }
    }
}

async fn list(cluster: &Cluster) -> Result<Report, CliError> {
    let mut table = Table { padding: 1, ..Table::new(&["TAG", "REVISION", "NAMESPACES"]) };
    let mut data = Vec::new();
    let mut hooks = tag::hooks(cluster).await?;
    hooks.sort_by(|a, b| a.label(TAG_LABEL).cmp(b.label(TAG_LABEL)));
    for hook in hooks {
        let (name, revision) = (hook.label(TAG_LABEL), hook.revision());
        let namespaces = tag::namespaces(cluster, name).await?;
        table.row([name.to_owned(), revision.to_owned(), namespaces.join(",")]);
        data.push(json!({ "tag": name, "revision": revision, "namespaces": namespaces }));
    }
    let notes = if data.is_empty() { vec!["there are no tags".to_owned()] } else { Vec::new() };
    Ok(Report { table, data: Value::Array(data), notes, ..Report::default() })
}

async fn remove(context: &Context, cluster: &Cluster, args: &RemoveArgs) -> Result<Report, CliError> {
    let objects = tag::find(cluster, &args.tag).await?;
    if objects.is_empty() {
        return Err(CliError::user(format!("there is no tag {} of ours", args.tag)).hint("meshctl tag list"));
    }
    let users = tag::namespaces(cluster, &args.tag).await?;
    if !users.is_empty() {
        let what = format!("remove the tag {}, which namespaces use: {}", args.tag, users.join(", "));
        confirm(context, args.yes, &what)?;
    }
    for object in &objects {
        cluster.delete(object).await?;
    }
    let mut notes = vec![format!("the tag {} is removed", args.tag)];
    if args.tag == tag::DEFAULT_TAG {
        notes.push(
            "no revision is the default now: namespaces with istio-injection=enabled are not injected".to_owned(),
        );
    }
    Ok(Report { data: json!({ "removed": args.tag }), notes, ..Report::default() })
}
