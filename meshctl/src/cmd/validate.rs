//! `meshctl validate`: what is wrong with YAML before it is applied.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use mesh_api::codes::Code;
use mesh_api::finding::{Finding, Severity};
use mesh_api::ids::ObjectKey;
use mesh_api::parse;
use mesh_api::validate::validate;
use serde_json::json;

use crate::cmd::OutputArgs;
use crate::context::Context;
use crate::error::CliError;
use crate::exit::Exit;
use crate::files;
use crate::printer::Report;
use crate::table::Table;

/// What to validate.
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = "Examples:\n  meshctl validate -f shop.yaml\n  meshctl validate -f config/ -o json\n  \
    kubectl get vs -A -o yaml | meshctl validate -f -\n\nExit code: 0 without errors, 1 with some.")]
pub struct ValidateArgs {
    /// File or folder to read, - for the standard input; repeatable
    #[arg(short = 'f', long = "filename", required = true)]
    pub files: Vec<PathBuf>,
    /// How findings are shown.
    #[command(flatten)]
    pub output: OutputArgs,
}

/// What was read.
#[derive(Default)]
struct Reading {
    findings: Vec<Finding>,
    /// Where each object was seen first.
    seen: BTreeMap<ObjectKey, String>,
}

/// Reads the files and reports every finding.
///
/// # Errors
/// When a file cannot be read.
pub fn run(context: &Context, args: &ValidateArgs) -> Result<Report, CliError> {
    let mut reading = Reading::default();
    let namespace = context.kube.namespace.as_deref().unwrap_or("default");
    let files = files::expand(&args.files)?;
    if files.is_empty() {
        return Err(CliError::user("no YAML or JSON file there")
            .hint("file names must end with .yaml, .yml or .json; - reads the standard input"));
    }
    for file in &files {
        reading.file(file, &files::read(file)?, namespace);
    }
    Ok(report(&reading, files.len()))
}

impl Reading {
    fn file(&mut self, file: &Path, text: &str, namespace: &str) {
        let name = if file.as_os_str() == "-" { "standard input".to_owned() } else { file.display().to_string() };
        let parsed = parse::parse(text, namespace);
        for finding in parsed.findings {
            let place = finding.origin.trim_start_matches("line ").to_owned();
            self.findings.push(finding.at(if place.is_empty() { name.clone() } else { format!("{name}:{place}") }));
        }
        for object in parsed.objects {
            let item = match object {
                Ok(item) => item,
                Err(error) => {
                    self.findings.push(error.to_finding().at(format!("{name}:{}", error.line)));
                    continue;
                }
            };
            let document = document(text, item.line);
            let line = |path: &str| match mesh_api::typed::line_of(document, path) {
                Some(line) => item.line + line.saturating_sub(1),
                None => item.line,
            };
            for finding in item.findings.into_iter().chain(validate(&item.object)) {
                let place = format!("{name}:{}", line(&finding.path));
                self.findings.push(finding.at(place));
            }
            let place = format!("{name}:{}", item.line);
            if let Some(first) = self.seen.get(&item.object.key()) {
                let finding = Finding::new(Code::DuplicateObject, "", format!("is defined already at {first}"));
                self.findings.push(finding.on(item.object.key()).at(place).hint("remove or rename one of them"));
            } else {
                self.seen.insert(item.object.key(), place);
            }
        }
    }
}

/// The document of `text` that begins at `line` (from 1), up to the next marker.
fn document(text: &str, line: usize) -> &str {
    let mut start = 0;
    let mut end = text.len();
    let mut offset = 0;
    for (number, content) in (1..).zip(text.split_inclusive('\n')) {
        if number == line {
            start = offset;
        } else if number > line && content.starts_with("---") {
            end = offset;
            break;
        }
        offset += content.len();
    }
    text.get(start..end).unwrap_or_default()
}

fn report(reading: &Reading, files: usize) -> Report {
    let Reading { findings, seen } = reading;
    let mut table = Table { padding: 3, ..Table::new(&["SEVERITY", "CODE", "WHERE", "OBJECT", "FIELD", "MESSAGE"]) };
    for finding in findings {
        let message = if finding.hint.is_empty() {
            finding.message.to_string()
        } else {
            format!("{} (hint: {})", finding.message, finding.hint)
        };
        table.row([
            finding.severity.to_string(),
            finding.code.to_string(),
            finding.origin.to_string(),
            finding.key.as_ref().map(ToString::to_string).unwrap_or_default(),
            finding.path.to_string(),
            message,
        ]);
    }
    let count = |severity| findings.iter().filter(|finding| finding.severity == severity).count();
    let (errors, warnings) = (count(Severity::Error), count(Severity::Warning));
    let verdict = if errors > 0 { "not valid" } else { "valid" };
    let note = format!("{verdict}: {} objects in {files} files, {errors} errors, {warnings} warnings", seen.len());
    if findings.is_empty() {
        table = Table::default();
    }
    Report {
        text: String::new(),
        table,
        data: json!({ "objects": seen.len(), "errors": errors, "warnings": warnings, "findings": findings }),
        notes: vec![note],
        exit: if errors > 0 { Exit::User } else { Exit::Ok },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "apiVersion: v1\nkind: Namespace\nmetadata:\n  name: shop\n";

    fn read(files: &[(&str, &str)]) -> Report {
        let mut reading = Reading::default();
        for (name, text) in files {
            reading.file(Path::new(name), text, "default");
        }
        report(&reading, files.len())
    }

    #[test]
    fn good_files_are_valid() {
        let report = read(&[("a.yaml", GOOD)]);
        assert_eq!((report.exit, report.table.rows.len()), (Exit::Ok, 0));
    }

    #[test]
    fn findings_name_file_line_field_and_remedy() {
        let bad = "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: web, namespace: shop}\n\
            spec:\n  hosts: [web]\n  htp: []\n";
        let report = read(&[("a.yaml", &format!("{GOOD}---\n{bad}"))]);
        assert_eq!(report.exit, Exit::User);
        let text = report.table.to_string();
        assert!(text.contains("MESH1004") && text.contains("a.yaml:11") && text.contains("hint: "), "{text}");
    }

    #[test]
    fn the_same_object_in_two_files_is_an_error() {
        let report = read(&[("a.yaml", GOOD), ("b.yaml", GOOD)]);
        assert_eq!(report.exit, Exit::User);
        assert!(report.table.to_string().contains("a.yaml:1"), "{}", report.table);
    }

    #[test]
    fn broken_text_is_reported_with_its_line() {
        let report = read(&[("a.yaml", "a: [\n")]);
        assert_eq!(report.exit, Exit::User);
        assert!(report.table.to_string().contains("MESH1001"), "{}", report.table);
    }
}
