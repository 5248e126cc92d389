//! `meshctl analyze`: what is wrong with objects together, in a cluster, in files, or in a cluster with files applied.

mod known;
mod suppress;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::SystemTime;

use meshd_core::analyze::{Input, Level, Message, analyze, checks};
use serde_json::{Value, json};

use self::suppress::Suppression;
use crate::cmd::OutputArgs;
use crate::context::Context;
use crate::error::CliError;
use crate::exit::Exit;
use crate::live::Live;
use crate::objects::{self, Found, Reading};
use crate::printer::Report;
use crate::table::Table;
use meshd_core::analyze::Sort;

/// What to analyse.
#[derive(clap::Args, Clone, Debug)]
#[command(
    after_help = "Examples:\n  meshctl analyze\n  meshctl analyze -A\n  meshctl analyze shop.yaml --use-kube=false\n  \
    meshctl analyze --suppress \"IST0102=Namespace test-*\"\n\nExit code: 0 below the threshold, 1 at it or above."
)]
pub struct AnalyzeArgs {
    /// Files and folders to look at, applied on top of what the cluster has; - for the standard input
    pub files: Vec<PathBuf>,
    /// false: only the files
    #[arg(short = 'k', long = "use-kube", default_value_t = true, action = clap::ArgAction::Set, num_args = 0..=1,
        default_missing_value = "true", require_equals = true)]
    pub use_kube: bool,
    /// Objects of all namespaces
    #[arg(short = 'A', long = "all-namespaces")]
    pub all_namespaces: bool,
    /// Leave out a code of some objects, as CODE=Kind name[.namespace]; * stands for anything; repeatable
    #[arg(short = 'S', long)]
    pub suppress: Vec<String>,
    /// From which level on the exit code is 1
    #[arg(long, value_enum, ignore_case = true, default_value = "error")]
    pub failure_threshold: Threshold,
    /// From which level on messages are shown
    #[arg(long, value_enum, ignore_case = true, default_value = "info")]
    pub output_threshold: Threshold,
    /// Only list the checks
    #[arg(short = 'L', long = "list-analyzers")]
    pub list: bool,
    /// How messages are shown.
    #[command(flatten)]
    pub output: OutputArgs,
}

/// A level, as a user names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Threshold {
    /// Worth knowing.
    Info,
    /// Probably not meant.
    Warning,
    /// Does not work.
    Error,
}

impl From<Threshold> for Level {
    fn from(threshold: Threshold) -> Self {
        match threshold {
            Threshold::Info => Self::Info,
            Threshold::Warning => Self::Warning,
            Threshold::Error => Self::Error,
        }
    }
}

/// A message as it is shown.
struct Told {
    code: String,
    level: Level,
    /// `Kind namespace/name`; empty for what is no object.
    origin: String,
    /// `file:line`; empty for objects of a cluster.
    reference: String,
    text: String,
}

/// Looks, and tells.
///
/// # Errors
/// When files or the cluster cannot be read.
pub fn run(context: &Context, args: &AnalyzeArgs) -> Result<Report, CliError> {
    if args.list {
        return Ok(list());
    }
    let suppressions: Vec<Suppression> =
        args.suppress.iter().map(|text| Suppression::parse(text)).collect::<Result<_, _>>()?;
    let Knowledge { reading, unknown, namespace, live } = read(context, args)?;
    let mut notes: Vec<String> = reading
        .hidden
        .iter()
        .map(|(sort, why)| format!("checks that need {} are left out: {why}", sort.plural))
        .collect();
    notes.extend(live.silent.iter().map(|why| format!("not known whether traffic is captured: {why}")));
    let mut told: Vec<Told> = reading.broken.iter().map(Told::broken).collect();
    let subjects = reading.found.iter().map(|found| found.subject.clone()).collect();
    let mut known = known::uncaptured(&reading, &live);
    known.extend(known::expiring(&reading, &context.kube.istio_namespace, SystemTime::now()));
    let messages = analyze(Input { subjects, root_namespace: context.kube.istio_namespace.clone(), unknown, known });
    for message in &messages {
        let Some(found) = reading.found.get(message.subject) else { continue };
        let within = namespace.as_deref().is_none_or(|namespace| is_within(found, namespace));
        if within && !suppressions.iter().any(|suppression| suppression.covers(message, &found.subject)) {
            told.push(Told::of(message, found));
        }
    }
    told.retain(|told| told.level >= args.output_threshold.into());
    if told.is_empty() {
        let place = namespace.map_or_else(|| "all namespaces".to_owned(), |namespace| format!("namespace {namespace}"));
        notes.push(format!("no validation issues found in {} objects, {place}", reading.found.len()));
    }
    Ok(report(told, notes, args.failure_threshold.into()))
}

/// What is looked at.
struct Knowledge {
    /// The objects.
    reading: Reading,
    /// Kinds of which there may be more.
    unknown: BTreeSet<Sort>,
    /// The namespace that is asked for; all without one.
    namespace: Option<String>,
    /// What no object says.
    live: Live,
}

fn read(context: &Context, args: &AnalyzeArgs) -> Result<Knowledge, CliError> {
    let default = context.kube.namespace.as_deref().unwrap_or("default");
    if !args.use_kube {
        if args.files.is_empty() {
            return Err(CliError::user("nothing to analyse").hint("name files or folders with --use-kube=false"));
        }
        let reading = objects::from_files(&args.files, default)?;
        let unknown = objects::absent(&reading.found);
        // Files are all looked at unless a namespace is asked for: who names a file means all that is in it.
        let namespace = context.kube.namespace.clone().filter(|_| !args.all_namespaces);
        return Ok(Knowledge { reading, unknown, namespace, live: Live::default() });
    }
    let (mut reading, live, namespace) = context.block_on(async {
        let kube = context.kube().await?;
        let reading = objects::from_cluster(&kube, Sort::ALL).await?;
        Ok((reading, Live::ask(&kube).await?, kube.namespace))
    })?;
    let unknown = reading.hidden.keys().copied().collect();
    if !args.files.is_empty() {
        let files = objects::from_files(&args.files, &namespace)?;
        reading.found.extend(files.found);
        reading.broken.extend(files.broken);
    }
    let namespace = Some(namespace).filter(|_| !args.all_namespaces);
    Ok(Knowledge { reading, unknown, namespace, live })
}

/// Whether an object is in a namespace, or is that namespace.
fn is_within(found: &Found, namespace: &str) -> bool {
    let subject = &found.subject;
    subject.namespace == namespace || (subject.sort == Some(Sort::NAMESPACE) && subject.name == namespace)
}

impl Told {
    fn of(message: &Message, found: &Found) -> Self {
        Self {
            code: message.code.to_string(),
            level: message.code.level,
            origin: format!("{} {}", found.subject.kind, found.subject.full_name()),
            reference: found.place.as_ref().map(|place| place.of(&message.path)).unwrap_or_default(),
            text: message.text.clone(),
        }
    }

    fn broken(finding: &mesh_api::finding::Finding) -> Self {
        Self {
            code: finding.code.to_string(),
            level: Level::Error,
            origin: String::new(),
            reference: finding.origin.to_string(),
            text: finding.message.to_string(),
        }
    }

    /// istioctl's line.
    fn line(&self) -> String {
        let place: Vec<&str> =
            [self.origin.as_str(), self.reference.as_str()].into_iter().filter(|part| !part.is_empty()).collect();
        format!("{} [{}] ({}) {}\n", self.level, self.code, place.join(" "), self.text)
    }

    /// istioctl's object. Our own codes have no page of Istio's.
    fn value(&self) -> Value {
        let mut value = json!({ "code": self.code, "level": self.level.to_string(), "message": self.text,
            "origin": self.origin, "reference": self.reference });
        if let (Some(fields), Some(number)) = (value.as_object_mut(), self.code.strip_prefix("IST")) {
            let page = format!("https://istio.io/latest/docs/reference/config/analysis/ist{number}/");
            fields.insert("documentationUrl".to_owned(), json!(page));
        }
        value
    }
}

fn report(told: Vec<Told>, notes: Vec<String>, threshold: Level) -> Report {
    let exit = if told.iter().any(|told| told.level >= threshold) { Exit::User } else { Exit::Ok };
    let text = told.iter().map(Told::line).collect();
    Report { text, data: told.iter().map(Told::value).collect(), notes, exit, ..Report::default() }
}

fn list() -> Report {
    let mut table = Table { padding: 3, ..Table::new(&["CHECK", "HOLDS WHEN"]) };
    for check in checks::ALL {
        table.row([check.name.to_owned(), check.doc.to_owned()]);
    }
    let data = checks::ALL.iter().map(|check| json!({ "name": check.name, "doc": check.doc })).collect();
    Report { table, data, ..Report::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn analysed(text: &str, more: &[&str]) -> Report {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.yaml");
        std::fs::write(&path, text).unwrap();
        let arguments = ["meshctl", "analyze", "--use-kube=false", path.to_str().unwrap()];
        let cli = <crate::cli::Cli as clap::Parser>::try_parse_from(arguments.iter().chain(more)).unwrap();
        let context = Context { printer: crate::printer::Printer { format: cli.command.format() }, kube: cli.kube };
        let crate::cli::Command::Analyze(args) = cli.command else { panic!("another command") };
        run(&context, &args).unwrap()
    }

    const TEXT: &str = "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata:\n  name: web\n  namespace: shop\n\
        spec:\n  hosts: [web]\n  gateways: [none]\n  http:\n  - route:\n    - destination: {host: web}\n";

    #[test]
    fn messages_are_istioctls_lines_and_objects() {
        let report = analysed(TEXT, &[]);
        assert_eq!(report.exit, Exit::User);
        let first = report.text.lines().next().unwrap();
        assert!(first.starts_with("Error [IST0101] (VirtualService shop/web "), "{first}");
        assert!(first.ends_with("a.yaml:8) Referenced gateway not found: \"none\""), "{first}");
        let value = &report.data[0];
        assert_eq!(
            (value["code"].as_str(), value["origin"].as_str()),
            (Some("IST0101"), Some("VirtualService shop/web"))
        );
        assert!(value["documentationUrl"].as_str().unwrap().ends_with("/ist0101/"));
    }

    #[test]
    fn suppressed_messages_thresholds_and_namespaces_count() {
        assert_eq!(analysed(TEXT, &["-S", "IST0101=VirtualService *.shop"]).exit, Exit::Ok);
        assert_eq!(analysed(TEXT, &["-S", "IST0101=VirtualService *.other"]).exit, Exit::User);
        assert!(!analysed(TEXT, &["--output-threshold", "Error"]).text.contains("IST0132"));
        assert_eq!(analysed(TEXT, &["-S", "IST0101=*", "--failure-threshold", "Warning"]).exit, Exit::User);
        assert_eq!(analysed(TEXT, &["-n", "other"]).text, "");
        assert_ne!(analysed(TEXT, &["-n", "other", "-A"]).text, "");
    }

    #[test]
    fn what_is_no_yaml_is_an_error_with_its_line() {
        let report = analysed("a: b\n---\na: [\n", &[]);
        assert_eq!(report.exit, Exit::User);
        assert!(report.text.contains("a.yaml:") && report.text.contains("MESH1001"), "{}", report.text);
    }
}
