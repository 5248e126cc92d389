//! `meshctl inject`: manifests go in, the same manifests with proxies come out. Also `kube-inject`.

mod configs;
mod documents;
mod sources;
mod workload;

use std::path::PathBuf;
use std::sync::Arc;

use mesh_api::inject::values::NativeSidecars;
use meshd_core::inject::{Injector, Owner, ProxyConfigs};

use self::documents::Outcome;
use self::sources::Source;
use crate::context::Context;
use crate::error::CliError;
use crate::exit::Exit;
use crate::files;
use crate::printer::{self, Report};

/// What to inject, and by what.
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = "Examples:\n  meshctl inject -f deployment.yaml | kubectl apply -f -\n  \
    kubectl get deploy web -o yaml | meshctl inject -f - | kubectl apply -f -\n  \
    meshctl inject -f shop/ -o injected.yaml --offline\n\nDocuments without pods pass through unchanged, byte for byte; a ProxyConfig\namong them counts as if it were applied. \
    Exit code: 0 when all is done, 1 when a\npod is refused; then nothing is written.")]
pub struct InjectArgs {
    /// File or folder to read, - for the standard input; repeatable
    #[arg(short = 'f', long = "filename", required = true)]
    pub files: Vec<PathBuf>,
    /// File to write instead of the standard output
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// File with the injector's configuration (key config of its ConfigMap), or with one template
    #[arg(long = "injectConfigFile", alias = "inject-config-file", value_name = "FILE")]
    pub inject_config_file: Option<PathBuf>,
    /// File with Helm values, JSON or YAML (key values of the injector's ConfigMap)
    #[arg(long = "valuesFile", alias = "values-file", value_name = "FILE")]
    pub values_file: Option<PathBuf>,
    /// File with the mesh configuration
    #[arg(long = "meshConfigFile", alias = "mesh-config-file", value_name = "FILE")]
    pub mesh_config_file: Option<PathBuf>,
    /// ConfigMap of the injector (default: that of the revision)
    #[arg(long = "injectConfigMapName", alias = "inject-config-map-name", value_name = "NAME")]
    pub inject_config_map: Option<String>,
    /// ConfigMap of the mesh configuration (default: that of the revision)
    #[arg(long = "meshConfigMapName", alias = "mesh-config-map-name", value_name = "NAME")]
    pub mesh_config_map: Option<String>,
    /// Revision of the control plane
    #[arg(short = 'r', long, default_value = "")]
    pub revision: String,
    /// Do not ask the cluster: what no file says is as in a new installation
    #[arg(long)]
    pub offline: bool,
    /// Whether proxies are native sidecars: auto asks the cluster's nodes, and means true without a cluster
    #[arg(long = "nativeSidecar", alias = "native-sidecar", value_enum, default_value_t)]
    pub native_sidecar: Native,
}

/// Whether proxies are native sidecars.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Native {
    /// As the configuration says, else where all nodes have them.
    #[default]
    Auto,
    /// Yes.
    True,
    /// No.
    False,
}

/// What all pods of a run share.
#[derive(Debug)]
struct Run {
    injector: Injector,
    /// Namespace of objects that name none.
    namespace: String,
    native_sidecar: bool,
    /// ProxyConfigs of the cluster and of the files.
    proxy_configs: Arc<ProxyConfigs>,
}

/// Injects all files, and writes the result at once.
///
/// # Errors
/// When something cannot be read or written, or a pod is refused.
pub fn run(context: &Context, args: &InjectArgs) -> Result<Report, CliError> {
    let files = files::expand(&args.files)?;
    if files.is_empty() {
        return Err(CliError::user("no YAML or JSON file there")
            .hint("file names must end with .yaml, .yml or .json; - reads the standard input"));
    }
    let texts: Vec<(String, String)> = files
        .iter()
        .map(|file| {
            let input = file.as_os_str() == "-";
            let name = if input { "standard input".to_owned() } else { file.display().to_string() };
            Ok((name, files::read(file)?))
        })
        .collect::<Result<_, CliError>>()?;
    let source = sources::read(context, args)?;
    let mut notes = source.notes.clone();
    let run = prepare(context, args, source, &texts)?;
    let (mut text, mut refused) = (String::new(), Vec::new());
    for (name, content) in &texts {
        let done = documents::inject(&run, name, content);
        documents::join(&mut text, &done.text);
        for outcome in done.outcomes {
            match outcome {
                Outcome::Note(note) => notes.push(note),
                Outcome::Refused(why) => refused.push(why),
            }
        }
    }
    if !refused.is_empty() {
        let message = format!("{} cannot be injected", if refused.len() == 1 { "a pod" } else { "some pods" });
        refused.iter().for_each(|why| context.printer.note(&format!("refused: {why}")));
        return Err(CliError::user(message).hint("correct what is named above; nothing was written"));
    }
    match &args.output {
        None => printer::out(&text),
        Some(path) => std::fs::write(path, &text),
    }
    .map_err(|error| CliError::internal("cannot write the result").because(&error))?;
    Ok(Report { notes, exit: Exit::Ok, ..Report::default() })
}

fn prepare(context: &Context, args: &InjectArgs, source: Source, texts: &[(String, String)]) -> Result<Run, CliError> {
    let injector = source.injector(&args.revision)?.on_demand();
    let native_sidecar = match (args.native_sidecar, injector.values().native_sidecars) {
        (Native::True, _) | (Native::Auto, NativeSidecars::Enabled) => true,
        (Native::False, _) | (Native::Auto, NativeSidecars::Disabled) => false,
        // Every Kubernetes that is still supported has them; an older one would never start such a pod, so it is said.
        (Native::Auto, NativeSidecars::Auto) => source.nodes_have_native.unwrap_or(true),
    };
    let namespace = context.kube.namespace.clone().unwrap_or(source.namespace);
    let proxy_configs = configs::of(source.proxy_configs, texts, &namespace);
    Ok(Run { injector, namespace, native_sidecar, proxy_configs: Arc::new(proxy_configs) })
}

/// The workload of an object that holds a pod template.
fn owner(object: &serde_json::Value, namespace: &str) -> Owner {
    let text =
        |pointer: &str| object.pointer(pointer).and_then(serde_json::Value::as_str).unwrap_or_default().to_owned();
    let own = text("/metadata/namespace");
    Owner {
        api_version: text("/apiVersion"),
        kind: text("/kind"),
        name: text("/metadata/name"),
        namespace: if own.is_empty() { namespace.to_owned() } else { own },
    }
}
