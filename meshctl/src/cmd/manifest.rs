//! `meshctl manifest`: what would be installed.

use std::path::PathBuf;

use clap::Subcommand;
use serde_json::{Value, json};

use crate::cmd::OutputArgs;
use crate::context::Context;
use crate::error::CliError;
use crate::exit::Exit;
use crate::install::diff;
use crate::install::manifest::{self, Manifest};
use crate::install::object::Object;
use crate::install::settings::{Settings, SettingsArgs};
use crate::printer::{self, Format, Report};
use crate::table::Table;

/// What to do with manifests.
#[derive(clap::Args, Clone, Debug)]
pub struct ManifestArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: ManifestCommand,
}

/// Commands about manifests.
#[derive(Clone, Debug, Subcommand)]
pub enum ManifestCommand {
    /// Print the objects that an installation consists of
    Generate(GenerateArgs),
    /// Compare the objects of two files
    Diff(DiffArgs),
}

/// What to generate.
#[derive(clap::Args, Clone, Debug)]
#[command(
    after_help = "Examples:\n  meshctl manifest generate > mesh.yaml\n  meshctl manifest generate --set profile=demo --set hub=registry.example/mesh\n  \
    meshctl manifest generate -f overlay.yaml --revision canary -o json"
)]
pub struct GenerateArgs {
    /// What to install.
    #[command(flatten)]
    pub settings: SettingsArgs,
    /// How objects are shown: YAML documents unless json is asked for
    #[command(flatten)]
    pub output: OutputArgs,
}

/// What to compare.
#[derive(clap::Args, Clone, Debug)]
#[command(
    after_help = "Example:\n  meshctl manifest diff mesh-before.yaml mesh.yaml\n\nExit code: 0 when the same, 1 when not."
)]
pub struct DiffArgs {
    /// The one
    pub before: PathBuf,
    /// The other
    pub after: PathBuf,
    /// How differences are shown.
    #[command(flatten)]
    pub output: OutputArgs,
}

/// Renders, or compares.
///
/// # Errors
/// When settings or files cannot be used.
pub fn run(context: &Context, args: &ManifestArgs) -> Result<Report, CliError> {
    match &args.command {
        ManifestCommand::Generate(args) => {
            let settings = Settings::load(&args.settings, &context.kube.istio_namespace, None)?;
            let manifest = Manifest::render(settings)?;
            let notes = manifest.settings.notes.clone();
            if context.printer.format == Format::Json {
                return Ok(Report { data: manifest::to_value(&manifest.objects), notes, ..Report::default() });
            }
            write(&manifest.to_yaml())?;
            Ok(Report { notes, ..Report::default() })
        }
        ManifestCommand::Diff(args) => compare(context, args),
    }
}

impl ManifestArgs {
    /// How the report is shown.
    #[must_use]
    pub fn output(&self) -> Format {
        match &self.command {
            // YAML is what it is; only names and JSON are other shapes of it.
            ManifestCommand::Generate(args) if args.output.output == Format::Json => Format::Json,
            ManifestCommand::Generate(_) => Format::Table,
            ManifestCommand::Diff(args) => args.output.output,
        }
    }
}

pub(crate) fn write(text: &str) -> Result<(), CliError> {
    printer::out(text).map_err(|error| CliError::internal("cannot write the result").because(&error))
}

fn read(path: &std::path::Path) -> Result<Vec<Object>, CliError> {
    let text = crate::files::read(path)?;
    let documents = mesh_api_gotmpl::yaml::documents(&text)
        .map_err(|error| CliError::user(format!("{} is no YAML: {error}", path.display())))?;
    let mut objects = Vec::new();
    for document in documents {
        // `kubectl get -o yaml` gives lists.
        match document.get("items").and_then(Value::as_array) {
            Some(items) => objects.extend(items.iter().cloned().filter_map(Object::new)),
            None => objects.extend(Object::new(document)),
        }
    }
    objects.sort_by(Object::order);
    Ok(objects)
}

fn compare(context: &Context, args: &DiffArgs) -> Result<Report, CliError> {
    let (before, after) = (read(&args.before)?, read(&args.after)?);
    let changes = diff::objects(&before, &after);
    let mut table = Table::new(&["OBJECT", "CHANGE", "FIELD", "BEFORE", "AFTER"]);
    for change in &changes {
        for row in change.rows() {
            table.row(row);
        }
    }
    let data: Vec<Value> = changes.iter().map(diff::Change::to_json).collect();
    let exit = if changes.is_empty() { Exit::Ok } else { Exit::User };
    let note = format!("{} objects differ", changes.len());
    if changes.is_empty() && context.printer.format == Format::Table {
        return Ok(Report { notes: vec!["the objects are the same".to_owned()], ..Report::default() });
    }
    Ok(Report { table, data: json!(data), notes: vec![note], exit, ..Report::default() })
}
