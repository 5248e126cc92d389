//! What is to be installed: a profile, files on top of it, `--set` on top of those.

use std::path::PathBuf;

use mesh_api::finding::Severity;
use mesh_api::mesh_config::MeshConfig;
use mesh_api_gotmpl::yaml;
use serde_json::{Map, Value, json};

use super::files::Files;
use super::object::DEFAULT_REVISION;
use super::{known, set};
use crate::error::CliError;
use crate::files as user_files;

/// What to install; the same for all commands that render.
#[derive(clap::Args, Clone, Debug, Default)]
pub struct SettingsArgs {
    /// IstioOperator or Helm values file, - for the standard input; repeatable, later ones count
    #[arg(short = 'f', long = "filename", value_name = "FILE")]
    pub filenames: Vec<PathBuf>,
    /// A setting, such as profile=demo, meshConfig.accessLogFile=/dev/stdout or values.global.hub=HUB; repeatable
    #[arg(short = 's', long = "set", value_name = "PATH=VALUE")]
    pub sets: Vec<String>,
    /// Profile to begin with (default: default)
    #[arg(long, value_name = "NAME")]
    pub profile: Option<String>,
    /// Revision of the control plane
    #[arg(short = 'r', long, value_name = "NAME")]
    pub revision: Option<String>,
    /// Folder of charts and profiles, instead of those of this binary
    #[arg(short = 'd', long = "manifests", alias = "charts", value_name = "DIR")]
    pub manifests: Option<PathBuf>,
}

/// Settings, all layers in one.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The specification, complete.
    pub spec: Value,
    /// What the user asked for, without the profile.
    pub user: Value,
    /// The profile's name.
    pub profile: String,
    /// The revision's name, `default` for the one without a suffix.
    pub revision: String,
    /// Namespace of the control plane.
    pub namespace: String,
    /// The charts.
    pub files: Files,
    /// What is worth knowing of the mesh configuration.
    pub notes: Vec<String>,
}

impl Settings {
    /// Reads profile, files and flags. `earlier` is what was asked for before, below all of them.
    ///
    /// # Errors
    /// When something cannot be read, is not known, or cannot be.
    pub fn load(args: &SettingsArgs, namespace: &str, earlier: Option<&Value>) -> Result<Self, CliError> {
        let files = args.manifests.as_deref().map_or_else(|| Ok(Files::embedded()), Files::folder)?;
        let mut user = earlier.cloned().unwrap_or_else(|| json!({}));
        for path in &args.filenames {
            let text = user_files::read(path)?;
            set::overlay(&mut user, document(&path.display().to_string(), &text)?);
        }
        for text in &args.sets {
            let (path, value) = set::parse(text)?;
            set::put(&mut user, &known::rooted(path), value);
        }
        if let Some(profile) = &args.profile {
            set::overlay(&mut user, json!({ "profile": profile }));
        }
        if let Some(revision) = &args.revision {
            set::overlay(&mut user, json!({ "revision": revision }));
        }
        Self::of(user, namespace, files)
    }

    fn of(user: Value, namespace: &str, files: Files) -> Result<Self, CliError> {
        let profile = text(&user, "/profile").unwrap_or("default").to_owned();
        let mut spec = profile_spec(&files, &profile)?;
        set::overlay(&mut spec, user.clone());
        known::check(&spec, &files)?;
        let revision = text(&spec, "/revision").or_else(|| text(&spec, "/values/revision")).unwrap_or_default();
        let revision = if revision.is_empty() { DEFAULT_REVISION } else { revision }.to_owned();
        check_name("revision", &revision)?;
        let said = text(&spec, "/namespace").or_else(|| text(&spec, "/values/global/istioNamespace"));
        let namespace = said.unwrap_or(namespace).to_owned();
        check_name("namespace", &namespace)?;
        complete(&mut spec, &revision, &namespace);
        let notes = check_mesh(spec.pointer("/values/meshConfig"))?;
        Ok(Self { spec, user, profile, revision, namespace, files, notes })
    }

    /// The Helm values.
    #[must_use]
    pub fn values(&self) -> Value {
        self.spec.get("values").cloned().unwrap_or_else(|| json!({}))
    }
}

fn text<'a>(value: &'a Value, pointer: &str) -> Option<&'a str> {
    value.pointer(pointer).and_then(Value::as_str).filter(|text| !text.is_empty())
}

/// The specification of a profile.
///
/// # Errors
/// When there is none of that name.
pub fn profile_spec(files: &Files, profile: &str) -> Result<Value, CliError> {
    let path = format!("profiles/{profile}.yaml");
    let Some(found) = files.get(&path) else {
        let all = files.profiles();
        let error = CliError::user(format!("there is no profile {profile}"));
        let near = mesh_api::near::nearest(profile, all.iter().copied());
        return Err(match near {
            Some(near) => error.hint(format!("did you mean {near}?")),
            None => error.hint(format!("there are {}", all.join(", "))),
        });
    };
    document(&path, found)
}

/// The specification in a file: of an IstioOperator, or what plain Helm values stand for.
fn document(name: &str, content: &str) -> Result<Value, CliError> {
    let documents = yaml::documents(content).map_err(|error| CliError::user(format!("{name} is no YAML: {error}")))?;
    let mut documents = documents.into_iter();
    let (Some(document), None) = (documents.next(), documents.next()) else {
        return Err(CliError::user(format!("{name} must hold one document")));
    };
    match document.get("kind").and_then(Value::as_str) {
        Some("IstioOperator") => Ok(document.get("spec").cloned().unwrap_or_else(|| json!({}))),
        Some(kind) => Err(CliError::user(format!("{name} is a {kind}"))
            .hint("settings are an IstioOperator, or plain Helm values without a kind")),
        None if document.is_object() => Ok(json!({ "values": document })),
        None => Err(CliError::user(format!("{name} is no dictionary"))),
    }
}

/// Revisions and namespaces become parts of names.
fn check_name(what: &str, name: &str) -> Result<(), CliError> {
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let edge = |byte: Option<&u8>| byte.is_some_and(|byte| *byte != b'-');
    let bytes = name.as_bytes();
    if bytes.len() <= 63 && bytes.iter().copied().all(inner) && edge(bytes.first()) && edge(bytes.last()) {
        return Ok(());
    }
    Err(CliError::user(format!("{name:?} is no name for a {what}"))
        .hint("lower-case letters, digits and - between them, 63 at most; such as 1-31-0 or canary"))
}

/// Copies what stands at the top of a specification to the values that charts read.
fn complete(spec: &mut Value, revision: &str, namespace: &str) {
    let top = |name: &str| spec.get(name).filter(|value| !value.is_null()).cloned();
    let mut layer = json!({ "global": { "istioNamespace": namespace }, "revision": revision });
    if revision == DEFAULT_REVISION {
        set::overlay(&mut layer, json!({ "revision": "" }));
    }
    for name in ["hub", "tag"] {
        if let Some(value) = top(name) {
            // A tag may look like a number.
            let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            set::overlay(&mut layer, json!({ "global": { name: value } }));
        }
    }
    if let Some(mesh) = top("meshConfig") {
        set::overlay(&mut layer, json!({ "meshConfig": mesh }));
    }
    if spec.pointer("/values/defaultRevision").is_none_or(Value::is_null) {
        let default = if revision == DEFAULT_REVISION { DEFAULT_REVISION } else { "" };
        set::overlay(&mut layer, json!({ "defaultRevision": default }));
    }
    set::overlay(spec, json!({ "values": layer }));
}

/// A mesh configuration that the control plane would not take is not installed.
fn check_mesh(mesh: Option<&Value>) -> Result<Vec<String>, CliError> {
    let empty = Value::Object(Map::new());
    let (_, findings) = MeshConfig::parse(&yaml::to_string(mesh.unwrap_or(&empty)))
        .map_err(|error| CliError::user("meshConfig cannot be read").because(&*error))?;
    let (bad, odd): (Vec<_>, Vec<_>) = findings.into_iter().partition(|finding| {
        finding.severity == Severity::Error || finding.code == mesh_api::codes::Code::UnknownField
    });
    let line = |finding: &mesh_api::finding::Finding| format!("meshConfig.{}: {}", finding.path, finding.message);
    if let Some(first) = bad.first() {
        let error = bad.iter().skip(1).fold(CliError::user(line(first)), |error, next| error.hint(line(next)));
        return Err(if first.hint.is_empty() { error } else { error.hint(first.hint.to_string()) });
    }
    Ok(odd.iter().map(|finding| format!("warning: {}", line(finding))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(sets: &[&str]) -> Result<Settings, CliError> {
        let sets = sets.iter().map(|set| (*set).to_owned()).collect();
        Settings::load(&SettingsArgs { sets, ..SettingsArgs::default() }, "istio-system", None)
    }

    #[track_caller]
    fn refused(sets: &[&str], expected: &str) {
        let error = load(sets).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }

    #[test]
    fn the_top_of_a_specification_becomes_values() {
        let settings = load(&["hub=h", "tag=007", "revision=canary", "meshConfig.accessLogFile=/dev/stdout"]).unwrap();
        let values = settings.values();
        assert_eq!(values["global"]["hub"], "h");
        assert_eq!(values["global"]["tag"], "007");
        assert_eq!((values["revision"].as_str(), values["defaultRevision"].as_str()), (Some("canary"), Some("")));
        assert_eq!(values["meshConfig"]["accessLogFile"], "/dev/stdout");
        assert_eq!((settings.revision.as_str(), settings.profile.as_str()), ("canary", "default"));
        assert_eq!(load(&[]).unwrap().values()["defaultRevision"], "default");
    }

    #[test]
    fn names_without_a_root_are_values() {
        let values = load(&["global.hub=h", "pilot.env.A=b"]).unwrap().values();
        assert_eq!((&values["global"]["hub"], &values["pilot"]["env"]["A"]), (&json!("h"), &json!("b")));
    }

    #[test]
    fn what_is_not_known_is_refused_with_the_near_name() {
        refused(&["values.global.hubb=x"], "did you mean values.global.hub?");
        refused(&["components.pilott.enabled=true"], "did you mean components.pilot?");
        refused(&["values.pilot.autoscaleMinn=2"], "did you mean values.pilot.autoscaleMin?");
        refused(&["profile=dmeo"], "did you mean demo?");
        refused(&["meshConfig.accessLogFil=x"], "accessLogFil");
        refused(&["revision=A_b"], "no name for a revision");
        refused(&["values.global.hub.x=1"], "values.global.hub");
    }

    #[test]
    fn plain_values_and_operators_are_told_apart() {
        assert_eq!(document("f", "global: {hub: h}").unwrap(), json!({ "values": { "global": { "hub": "h" } } }));
        let operator = "apiVersion: install.istio.io/v1alpha1\nkind: IstioOperator\nspec: {hub: h}\n";
        assert_eq!(document("f", operator).unwrap(), json!({ "hub": "h" }));
        assert!(document("f", &format!("{operator}---\n{operator}")).is_err());
        assert!(document("f", "kind: Pod\n").unwrap_err().to_string().contains("is a Pod"));
    }
}
