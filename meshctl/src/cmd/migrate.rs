//! `meshctl migrate check`: what would behave otherwise here than under Istio, in a live cluster or in files.
//!
//! Everything comes from tables that also decide what happens: fields and kinds that do not act
//! (`mesh_api::validate::not_acting`), rules that objects break, and annotations that injection refuses or names
//! (`mesh_api::inject::surface`).

use std::collections::BTreeSet;
use std::path::PathBuf;

use mesh_api::codes::Code;
use mesh_api::finding::{Finding, Severity};
use mesh_api::inject::surface::{self, Effect};
use mesh_api::mesh_config::MeshConfig;
use mesh_api::names;
use meshd_core::analyze::{Sort, Subject};
use serde_json::{Value, json};

use crate::cmd::OutputArgs;
use crate::context::Context;
use crate::error::CliError;
use crate::exit::Exit;
use crate::objects::{self, Found, Reading};
use crate::printer::Report;
use crate::table::Table;

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
    let mut rows: Vec<Row> = reading.broken.iter().map(broken).collect();
    for found in &reading.found {
        if within.is_none_or(|namespace| found.subject.namespace == namespace) {
            rows.extend(found.subject.findings.iter().filter_map(|finding| of_finding(found, finding)));
            rows.extend(annotations(found));
            rows.extend(mesh_config(found));
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

fn value(row: &Row) -> Value {
    json!({ "blocks": row.weight == Weight::Blocks, "object": row.object, "where": row.place, "field": row.field,
        "what": row.what, "toDo": row.todo })
}

fn broken(finding: &Finding) -> Row {
    Row {
        weight: Weight::Blocks,
        object: String::new(),
        place: finding.origin.to_string(),
        field: finding.path.to_string(),
        what: finding.message.to_string(),
        todo: "mend the text".to_owned(),
    }
}

fn row(found: &Found, weight: Weight, field: &str, what: impl Into<String>, todo: impl Into<String>) -> Row {
    Row {
        weight,
        object: format!("{} {}", found.subject.kind, found.subject.full_name()),
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

/// Annotations of pods, and of what makes pods.
fn annotations(found: &Found) -> Vec<Row> {
    let subject = &found.subject;
    // A pod was injected already, with what its own mesh made of it; what is made next comes from the template.
    let places: &[&str] = match subject.kind.as_str() {
        "Pod" => &["/metadata/annotations"],
        _ => &["/spec/template/metadata/annotations", "/spec/jobTemplate/spec/template/metadata/annotations"],
    };
    let mut rows = Vec::new();
    for place in places {
        let all = subject.value.pointer(place).and_then(Value::as_object);
        for name in all.into_iter().flatten().map(|(name, _)| name) {
            let Some(known) = surface::pod_annotation(name) else { continue };
            let field = format!("{}.{name}", place.trim_start_matches('/').replace('/', "."));
            match known.effect {
                Effect::Refused(why) => {
                    rows.push(row(found, Weight::Blocks, &field, "pods with it are refused", why));
                }
                Effect::Named(why) => rows.push(row(found, Weight::Differs, &field, "it has no effect", why)),
                Effect::NotYet(why) => rows.push(row(found, Weight::Differs, &field, "nobody reads it yet", why)),
                Effect::Acts | Effect::Written | Effect::Elsewhere(_) => {}
            }
        }
    }
    rows
}

/// Fields of the mesh configuration that do not act, or cannot be read.
fn mesh_config(found: &Found) -> Vec<Row> {
    let subject = &found.subject;
    let Some(text) = mesh_config_of(subject) else { return Vec::new() };
    let field = |path: &str| format!("data.{}.{path}", names::MESH_CONFIG_KEY);
    match MeshConfig::parse(text) {
        Ok((_, findings)) => {
            let mut seen = BTreeSet::new();
            findings
                .iter()
                .filter(|finding| seen.insert(finding.path.clone()))
                .filter_map(|finding| {
                    let mut row = of_finding(found, finding)?;
                    row.field = field(&finding.path);
                    Some(row)
                })
                .collect()
        }
        Err(error) => vec![row(found, Weight::Blocks, &field(&error.path), error.message.as_str(), "mend the field")],
    }
}

/// The text, if it is the mesh configuration of some revision.
fn mesh_config_of(subject: &Subject) -> Option<&str> {
    let named = subject.name == names::MESH_CONFIG_MAP
        || subject.name.strip_prefix(names::MESH_CONFIG_MAP).is_some_and(|rest| rest.starts_with('-'));
    if subject.sort != Some(Sort::CONFIG_MAP) || !named {
        return None;
    }
    subject.value.get("data")?.get(names::MESH_CONFIG_KEY)?.as_str()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(text: &str) -> Report {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.yaml");
        std::fs::write(&path, text).unwrap();
        report(&objects::from_files(&[path], "shop").unwrap(), None)
    }

    #[test]
    fn filters_annotations_and_fields_are_listed_with_what_to_do() {
        let refused = surface::rows()
            .find(|row| row.carrier == surface::Carrier::PodAnnotation && matches!(row.effect, Effect::Refused(_)))
            .unwrap();
        let text = format!(
            "apiVersion: networking.istio.io/v1alpha3\nkind: EnvoyFilter\nmetadata: {{name: lua}}\nspec: {{}}\n---\n\
             apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: web}}\nspec:\n  template:\n    metadata:\n      \
             annotations: {{{}: x}}\n",
            refused.name
        );
        let report = checked(&text);
        assert_eq!(report.exit, Exit::User);
        let rows = &report.table.rows;
        assert!(rows.iter().any(|row| row[0] == "blocks" && row[1] == "EnvoyFilter shop/lua"), "{rows:?}");
        let of_deployment = rows.iter().find(|row| row[1] == "Deployment shop/web").unwrap();
        assert!(of_deployment[0] == "blocks" && of_deployment[3].ends_with(refused.name), "{of_deployment:?}");
        assert!(rows.iter().all(|row| !row[5].is_empty()), "each says what to do: {rows:?}");
    }

    #[test]
    fn what_behaves_the_same_is_not_listed() {
        let report = checked(
            "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: web}\n\
             spec: {hosts: [web], http: [{route: [{destination: {host: web}}]}]}\n",
        );
        assert_eq!((report.exit, report.table.rows.len()), (Exit::Ok, 0));
    }

    #[test]
    fn the_mesh_configuration_is_looked_at() {
        let report = checked(
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: istio-canary, namespace: istio-system}\n\
             data:\n  mesh: |\n    caCertificates: []\n    noSuchField: 1\n",
        );
        assert!(report.table.rows.iter().any(|row| row[3] == "data.mesh.noSuchField"), "{:?}", report.table.rows);
    }
}
