//! `meshctl revision`: which control planes there are, and how what they compute differs.

use std::collections::BTreeSet;

use clap::Subcommand;
use k8s_openapi::api::core::v1::Pod;
use kube::core::ApiResource;
use mesh_api::names::REVISION_LABEL;
use serde_json::{Value, json};

use crate::cmd::OutputArgs;
use crate::context::Context;
use crate::effective;
use crate::error::CliError;
use crate::exit::Exit;
use crate::install::cluster::Cluster;
use crate::install::object::{Kind, Object, TAG_LABEL};
use crate::install::{apply, remove, tag, wait};
use crate::printer::{Format, Report};
use crate::table::Table;

/// What to do with revisions.
#[derive(clap::Args, Clone, Debug)]
pub struct RevisionArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: RevisionCommand,
}

/// Commands about revisions.
#[derive(Clone, Debug, Subcommand)]
pub enum RevisionCommand {
    /// List the revisions
    List(ListArgs),
    /// Show what belongs to a revision
    Describe(DescribeArgs),
    /// Show what two revisions compute otherwise for the same proxies
    Diff(DiffArgs),
}

/// How to list.
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = "Example:\n  meshctl revision list")]
pub struct ListArgs {
    /// How revisions are shown.
    #[command(flatten)]
    pub output: OutputArgs,
}

/// Which revision.
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = "Example:\n  meshctl revision describe canary")]
pub struct DescribeArgs {
    /// The revision
    pub revision: String,
    /// How it is shown.
    #[command(flatten)]
    pub output: OutputArgs,
}

/// Which revisions.
#[derive(clap::Args, Clone, Debug)]
#[command(
    after_help = "Examples:\n  meshctl revision diff default canary\n  meshctl revision diff default canary -n shop -o json\n\n\
    Exit code: 0 when both compute the same, 1 when they do not."
)]
pub struct DiffArgs {
    /// The revision that counts now
    pub from: String,
    /// The revision that is to count
    pub to: String,
    /// How changes are shown.
    #[command(flatten)]
    pub output: OutputArgs,
}

impl RevisionArgs {
    /// How the report is shown.
    #[must_use]
    pub fn output(&self) -> Format {
        match &self.command {
            RevisionCommand::List(args) => args.output.output,
            RevisionCommand::Describe(args) => args.output.output,
            RevisionCommand::Diff(args) => args.output.output,
        }
    }
}

/// Lists, or describes.
///
/// # Errors
/// When there is no such revision, or the cluster does not answer.
pub fn run(context: &Context, args: &RevisionArgs) -> Result<Report, CliError> {
    context.block_on(async {
        let cluster = Cluster { kube: context.kube().await? };
        match &args.command {
            RevisionCommand::List(_) => list(&cluster).await,
            RevisionCommand::Describe(args) => describe(&cluster, &args.revision).await,
            RevisionCommand::Diff(args) => diff(context, &cluster, args).await,
        }
    })
}

/// What is known of a revision.
struct Facts {
    control_plane: Object,
    tags: Vec<String>,
    namespaces: Vec<String>,
    proxies: usize,
}

impl Facts {
    fn ready(&self) -> String {
        wait::lacking(&self.control_plane).unwrap_or_else(|| "ready".to_owned())
    }

    fn to_json(&self) -> Value {
        json!({
            "revision": self.control_plane.revision(),
            "version": self.control_plane.label("app.kubernetes.io/version"),
            "namespace": self.control_plane.namespace(),
            "status": self.ready(),
            "tags": self.tags,
            "namespaces": self.namespaces,
            "proxies": self.proxies,
        })
    }
}

async fn facts(cluster: &Cluster) -> Result<Vec<Facts>, CliError> {
    let hooks = tag::hooks(cluster).await?;
    let default = tag::default_revision(cluster).await?;
    let pods = cluster.kube.list(&ApiResource::erase::<Pod>(&()), None, None).await?;
    let mut found = Vec::new();
    for control_plane in apply::revisions(cluster).await? {
        let revision = control_plane.revision().to_owned();
        let own = hooks.iter().filter(|hook| hook.revision() == revision);
        let mut tags: Vec<String> = own.map(|hook| hook.label(TAG_LABEL).to_owned()).collect();
        if default.as_ref() == Some(&revision) && !tags.iter().any(|tag| tag == tag::DEFAULT_TAG) {
            tags.push(tag::DEFAULT_TAG.to_owned());
        }
        let mut namespaces = Vec::new();
        for name in tags.iter().chain([&revision]) {
            namespaces.extend(tag::namespaces(cluster, name).await?);
        }
        namespaces.sort();
        namespaces.dedup();
        let proxies = pods.iter().filter(|pod| {
            let annotations = pod.metadata.annotations.as_ref();
            let injected = annotations.is_some_and(|all| all.contains_key("sidecar.istio.io/status"));
            injected && annotations.and_then(|all| all.get(REVISION_LABEL)) == Some(&revision)
        });
        let proxies = proxies.count();
        found.push(Facts { control_plane, tags, namespaces, proxies });
    }
    Ok(found)
}

async fn list(cluster: &Cluster) -> Result<Report, CliError> {
    let all = facts(cluster).await?;
    let headers = ["REVISION", "VERSION", "NAMESPACE", "STATUS", "TAGS", "INJECTED NAMESPACES", "PROXIES"];
    let mut table = Table { padding: 3, ..Table::new(&headers) };
    for facts in &all {
        table.row([
            facts.control_plane.revision().to_owned(),
            facts.control_plane.label("app.kubernetes.io/version").to_owned(),
            facts.control_plane.namespace().to_owned(),
            facts.ready(),
            facts.tags.join(","),
            facts.namespaces.join(","),
            facts.proxies.to_string(),
        ]);
    }
    let notes = if all.is_empty() { vec!["there are no revisions of ours".to_owned()] } else { Vec::new() };
    Ok(Report { table, data: all.iter().map(Facts::to_json).collect(), notes, ..Report::default() })
}

async fn diff(context: &Context, cluster: &Cluster, args: &DiffArgs) -> Result<Report, CliError> {
    let wanted = context.kube.namespace.clone().map(|namespace| BTreeSet::from([namespace]));
    let found = effective::compare(&cluster.kube, &args.from, &args.to, wanted.as_ref()).await?;
    let mut notes = found.notes.clone();
    notes.push(found.summary(&args.from, &args.to));
    let exit = if found.differences.is_empty() { Exit::Ok } else { Exit::User };
    let data = found.to_json(&args.from, &args.to);
    let table = if found.differences.is_empty() { Table::default() } else { found.table() };
    Ok(Report { table, data, notes, exit, ..Report::default() })
}

async fn describe(cluster: &Cluster, revision: &str) -> Result<Report, CliError> {
    let all = facts(cluster).await?;
    let Some(facts) = all.iter().find(|facts| facts.control_plane.revision() == revision) else {
        let known: Vec<&str> = all.iter().map(|facts| facts.control_plane.revision()).collect();
        let error = CliError::user(format!("there is no revision {revision}"));
        return Err(if known.is_empty() { error } else { error.hint(format!("there are {}", known.join(", "))) });
    };
    let scope = remove::Scope::Revision(revision.to_owned());
    let removal = remove::plan(cluster, &scope, facts.control_plane.namespace()).await?;
    let mut table = Table { padding: 3, ..Table::new(&["", ""]) };
    let mut line = |name: &str, value: String| table.row([name.to_owned(), value]);
    line("Revision:", revision.to_owned());
    line("Version:", facts.control_plane.label("app.kubernetes.io/version").to_owned());
    line("Control plane:", format!("{} ({})", facts.control_plane, facts.ready()));
    line("Tags:", facts.tags.join(", "));
    line("Namespaces:", facts.namespaces.join(", "));
    line("Proxies:", facts.proxies.to_string());
    let mut objects: Vec<&Object> =
        removal.objects.iter().filter(|object| Kind::find(object.kind()).is_some()).collect();
    objects.sort_by(|a, b| a.order(b));
    for (at, object) in objects.iter().enumerate() {
        line(if at == 0 { "Objects:" } else { "" }, object.to_string());
    }
    let mut data = facts.to_json();
    if let Some(map) = data.as_object_mut() {
        map.insert("objects".to_owned(), objects.iter().map(ToString::to_string).collect());
    }
    Ok(Report { table, data, ..Report::default() })
}
