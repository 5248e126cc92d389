//! `meshctl profile`: what an installation can begin with.

use clap::Subcommand;
use mesh_api_gotmpl::yaml;
use serde_json::{Value, json};

use crate::cmd::OutputArgs;
use crate::context::Context;
use crate::error::CliError;
use crate::install::files::Files;
use crate::install::settings::{Settings, SettingsArgs, profile_spec};
use crate::printer::{Format, Report};
use crate::table::Table;

/// What to do with profiles.
#[derive(clap::Args, Clone, Debug)]
pub struct ProfileArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: ProfileCommand,
}

/// Commands about profiles.
#[derive(Clone, Debug, Subcommand)]
pub enum ProfileCommand {
    /// List the profiles
    List(ListArgs),
    /// Print a profile's whole specification
    Dump(DumpArgs),
}

/// How to list.
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = "Example:\n  meshctl profile list")]
pub struct ListArgs {
    /// Folder of charts and profiles, instead of those of this binary
    #[arg(short = 'd', long = "manifests", alias = "charts", value_name = "DIR")]
    pub manifests: Option<std::path::PathBuf>,
    /// How profiles are shown.
    #[command(flatten)]
    pub output: OutputArgs,
}

/// What to dump.
#[derive(clap::Args, Clone, Debug)]
#[command(
    after_help = "Examples:\n  meshctl profile dump demo\n  meshctl profile dump --set meshConfig.accessLogFile=/dev/stdout"
)]
pub struct DumpArgs {
    /// The profile (default: default)
    pub name: Option<String>,
    /// What to install.
    #[command(flatten)]
    pub settings: SettingsArgs,
    /// How the specification is shown: YAML unless json is asked for
    #[command(flatten)]
    pub output: OutputArgs,
}

impl ProfileArgs {
    /// How the report is shown.
    #[must_use]
    pub fn output(&self) -> Format {
        match &self.command {
            ProfileCommand::List(args) => args.output.output,
            ProfileCommand::Dump(args) if args.output.output == Format::Json => Format::Json,
            ProfileCommand::Dump(_) => Format::Table,
        }
    }
}

/// Lists, or dumps.
///
/// # Errors
/// When there is no such profile, or settings cannot be used.
pub fn run(context: &Context, args: &ProfileArgs) -> Result<Report, CliError> {
    match &args.command {
        ProfileCommand::List(args) => {
            let files = args.manifests.as_deref().map_or_else(|| Ok(Files::embedded()), Files::folder)?;
            list(&files)
        }
        ProfileCommand::Dump(args) => {
            let mut settings = args.settings.clone();
            settings.profile = args.name.clone().or(settings.profile);
            let settings = Settings::load(&settings, &context.kube.istio_namespace, None)?;
            let data = json!({
                "apiVersion": "install.istio.io/v1alpha1", "kind": "IstioOperator", "spec": settings.spec,
            });
            if context.printer.format == Format::Json {
                return Ok(Report { data, ..Report::default() });
            }
            super::manifest::write(&yaml::to_string(&data))?;
            Ok(Report { notes: settings.notes, ..Report::default() })
        }
    }
}

fn list(files: &Files) -> Result<Report, CliError> {
    let mut table = Table::new(&["PROFILE", "COMPONENTS"]);
    let mut data = Vec::new();
    for name in files.profiles() {
        let spec = profile_spec(files, name)?;
        let components = enabled(spec.get("components").unwrap_or(&Value::Null));
        table.row([name.to_owned(), components.join(", ")]);
        data.push(json!({ "name": name, "components": components }));
    }
    Ok(Report { table, data: json!(data), ..Report::default() })
}

/// Names of the components that are on.
fn enabled(components: &Value) -> Vec<String> {
    let on = |value: &Value| value.get("enabled") == Some(&Value::Bool(true));
    let mut names = Vec::new();
    for (name, value) in components.as_object().into_iter().flatten() {
        match value {
            Value::Array(items) => {
                let named = items.iter().filter(|item| on(item)).filter_map(|item| item.get("name")?.as_str());
                names.extend(named.map(str::to_owned));
            }
            value if on(value) => names.push(name.clone()),
            _ => {}
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn profiles_are_listed_with_what_they_have() {
        let text = list(&Files::embedded()).unwrap().table.to_string();
        assert!(text.contains("demo        base, istio-egressgateway, istio-ingressgateway, pilot"), "{text}");
        assert!(text.contains("minimal     base, pilot"), "{text}");
    }
}
