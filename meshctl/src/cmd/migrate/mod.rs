//! `meshctl migrate check`: what would behave otherwise here than under Istio, in a live cluster or in files.
//!
//! Everything comes from tables that also decide what happens: fields and kinds that do not act
//! (`mesh_api::not_acting`), rules that objects break, annotations and labels that are refused or named
//! (`mesh_api::inject::surface`), variables with which a proxy does not start (`mesh_api::inject::variables`), and settings
//! that an installation refuses.

use std::path::PathBuf;

use mesh_api::codes::Code;
use mesh_api::finding::{Finding, Severity};
use meshd_core::analyze::Sort;
use serde_json::{Value, json};

use crate::cmd::OutputArgs;
use crate::context::Context;
use crate::error::CliError;
use crate::exit::Exit;
use crate::objects::{self, Found, Reading};
use crate::printer::Report;
use crate::table::Table;

mod control;
mod marks;
mod settings;
mod workloads;

/// Coming from Istio.
#[derive(clap::Args, Clone, Debug)]
pub struct MigrateArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(clap::Subcommand, Clone, Debug)]
enum What {
    /// List every field, filter and annotation that would behave otherwise, and what to do
    Check(CheckArgs),
}

/// What is looked at.
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = "Examples:\n  meshctl migrate check\n  meshctl migrate check -f manifests/ -o json\n\n\
    Exit code: 0 when nothing stands in the way, 1 when something does.")]
struct CheckArgs {
    /// Files and folders to look at instead of a cluster, - for the standard input
    #[arg(short = 'f', long = "filename")]
    files: Vec<PathBuf>,
    #[command(flatten)]
    output: OutputArgs,
}

/// How much a difference matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Weight {
    /// The mesh would refuse it, leave it out, or serve less than is asked for: mend it first.
    Blocks,
    /// It is taken, and does less, or does it another way.
    Differs,
}

/// A difference.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Row {
    weight: Weight,
    object: String,
    place: String,
    field: String,
    what: String,
    todo: String,
}

impl MigrateArgs {
    /// How the report is shown.
    #[must_use]
    pub const fn output(&self) -> OutputArgs {
        let What::Check(args) = &self.what;
        args.output
    }
}

/// Looks, and lists.
///
/// # Errors
/// When files or the cluster cannot be read.
pub fn run(context: &Context, args: &MigrateArgs) -> Result<Report, CliError> {
    let What::Check(args) = &args.what;
    let reading = if args.files.is_empty() {
        let sorts: Vec<Sort> = Sort::ALL.iter().copied().filter(|sort| *sort != Sort::SECRET).collect();
        context.block_on(async { objects::from_cluster(&context.kube().await?, &sorts).await })?
    } else {
        objects::from_files(&args.files, context.kube.namespace.as_deref().unwrap_or("default"))?
    };
    Ok(report(&reading, context.kube.namespace.as_deref().filter(|_| args.files.is_empty())))
}

fn report(reading: &Reading, within: Option<&str>) -> Report {
    // A folder also has values, data and pages, which no cluster would be given.
    let (strange, broken): (Vec<_>, Vec<_>) =
        reading.broken.iter().partition(|finding| finding.code == Code::NotAnObject);
    let mut rows: Vec<Row> = broken.into_iter().map(unreadable).collect();
    for found in &reading.found {
        if within.is_none_or(|namespace| is_of(found, namespace)) {
            rows.extend(found.subject.findings.iter().filter_map(|finding| of_finding(found, finding)));
            rows.extend(marks::rows(found));
            rows.extend(workloads::rows(found));
            rows.extend(settings::rows(found));
            rows.extend(control::rows(found));
        }
    }
    rows.sort();
    rows.dedup();
    let mut table = Table { padding: 3, ..Table::new(&["WEIGHT", "OBJECT", "WHERE", "FIELD", "WHAT", "TO DO"]) };
    for row in &rows {
        let weight = if row.weight == Weight::Blocks { "blocks" } else { "differs" };
        let Row { object, place, field, what, todo, .. } = row.clone();
        table.row([weight.to_owned(), object, place, field, what, todo]);
    }
    let blocks = rows.iter().filter(|row| row.weight == Weight::Blocks).count();
    let mut notes: Vec<String> = reading.hidden.values().map(|why| format!("not looked at: {why}")).collect();
    if !strange.is_empty() {
        let few: Vec<String> = strange.iter().take(NAMED).map(|finding| finding.origin.to_string()).collect();
        let more = if strange.len() > NAMED { ", …" } else { "" };
        notes.push(format!("not looked at: {} documents are no objects: {}{more}", strange.len(), few.join(", ")));
    }
    let objects = reading.found.len();
    notes.push(format!("{objects} objects: {blocks} differences stand in the way, {} do not", rows.len() - blocks));
    notes.push("differences by design are listed in docs/deviations.md".to_owned());
    let data: Vec<Value> = rows.iter().map(value).collect();
    if rows.is_empty() {
        table = Table::default();
    }
    let exit = if blocks > 0 { Exit::User } else { Exit::Ok };
    Report { table, data: Value::Array(data), notes, exit, ..Report::default() }
}

/// Most places that a note names.
const NAMED: usize = 5;

/// Whether a namespace holds an object, or is it.
fn is_of(found: &Found, namespace: &str) -> bool {
    let subject = &found.subject;
    subject.namespace == namespace || subject.kind == "Namespace" && subject.name == namespace
}

fn value(row: &Row) -> Value {
    json!({ "blocks": row.weight == Weight::Blocks, "object": row.object, "where": row.place, "field": row.field,
        "what": row.what, "toDo": row.todo })
}

fn unreadable(finding: &Finding) -> Row {
    Row {
        weight: Weight::Blocks,
        object: String::new(),
        place: finding.origin.to_string(),
        field: finding.path.to_string(),
        what: finding.message.to_string(),
        todo: "mend the text; if it is a template of a chart, look at what `helm template` makes of it".to_owned(),
    }
}

fn row(found: &Found, weight: Weight, field: &str, what: impl Into<String>, todo: impl Into<String>) -> Row {
    let subject = &found.subject;
    // Settings of an installation need no name.
    let object = if subject.name.is_empty() {
        subject.kind.clone()
    } else {
        format!("{} {}", subject.kind, subject.full_name())
    };
    Row {
        weight,
        object,
        place: found.place.as_ref().map(|place| place.of(field)).unwrap_or_default(),
        field: field.to_owned(),
        what: what.into(),
        todo: todo.into(),
    }
}

/// What the rules say that Istio's would not, or would say otherwise.
fn of_finding(found: &Found, finding: &Finding) -> Option<Row> {
    let hint = finding.hint.as_str();
    let or = |other: &str| if hint.is_empty() { other.to_owned() } else { hint.to_owned() };
    let (weight, todo) = match (finding.code, finding.severity) {
        // A policy that does not act would open, or shut, a door.
        (Code::KindNotActing, _) => (Weight::Blocks, or("do without it, or leave its workloads with Istio for now")),
        (Code::NotActing, _) => (Weight::Differs, or("do without it, or leave its workloads with Istio for now")),
        (_, Severity::Error) => (Weight::Blocks, or("mend the field")),
        (Code::UnknownKind, _) => (Weight::Differs, or("the object has no effect here")),
        _ => return None,
    };
    Some(row(found, weight, &finding.path, finding.message.as_str(), todo))
}

#[cfg(test)]
mod tests;
