//! `meshctl verify-install`: whether what is installed is there, as it should be, and works.

use serde_json::{Value, json};

use crate::cmd::OutputArgs;
use crate::context::Context;
use crate::error::CliError;
use crate::exit::Exit;
use crate::install::apply;
use crate::install::cluster::{Cluster, Conflicts};
use crate::install::manifest::Manifest;
use crate::install::object::{DEFAULT_REVISION, is_default};
use crate::install::plan::Action;
use crate::install::settings::{Settings, SettingsArgs};
use crate::install::{record, wait};
use crate::printer::Report;
use crate::table::Table;

/// What to verify.
#[derive(clap::Args, Clone, Debug)]
#[command(
    after_help = "Examples:\n  meshctl verify-install\n  meshctl verify-install --revision canary\n  meshctl verify-install -f overlay.yaml\n\nExit code: 0 all is as it should be, 1 not."
)]
pub struct VerifyArgs {
    /// What should be installed; what was asked for at the installation when nothing is given.
    #[command(flatten)]
    pub settings: SettingsArgs,
    /// How findings are shown.
    #[command(flatten)]
    pub output: OutputArgs,
}

/// Compares, and asks the webhook.
///
/// # Errors
/// When settings cannot be used, or the cluster does not answer.
pub fn run(context: &Context, args: &VerifyArgs) -> Result<Report, CliError> {
    context.block_on(async {
        let cluster = Cluster { kube: context.kube().await? };
        let namespace = &context.kube.istio_namespace;
        let revision = args.settings.revision.as_deref().unwrap_or(DEFAULT_REVISION);
        let asked = record::read(&cluster, revision, namespace).await?;
        let given = !(args.settings.filenames.is_empty() && args.settings.sets.is_empty());
        if asked.is_none() && !given {
            return Err(CliError::user(format!("there is no installation of the revision {revision} in {namespace}"))
                .hint("meshctl revision list shows which there are")
                .hint("-f FILE or --set says what should be there"));
        }
        let settings = Settings::load(&args.settings, namespace, asked.as_ref().map(|asked| &asked.user))?;
        let manifest = Manifest::render(settings)?;
        let installation = apply::prepare(&cluster, manifest, Conflicts::Refuse).await?;
        let mut rows = Vec::new();
        for step in &installation.plan.steps {
            let (good, says) = verdict(&cluster, step).await?;
            rows.push((step.object.to_string(), good, says));
        }
        let settings = &installation.manifest.settings;
        if installation.manifest.components.iter().any(|component| component.chart == "istiod") {
            let name = format!("injection of revision {}", settings.revision);
            let (good, says) = match wait::ask_injector(&cluster, &settings.revision, &settings.namespace).await? {
                wait::Answer::Injects => (true, "answers".to_owned()),
                wait::Answer::NotAsked => (true, "was not tried: the namespace default does not ask for it".to_owned()),
                wait::Answer::No(why) => (false, why),
            };
            rows.push((name, good, says));
        }
        Ok(report(&rows, is_default(&settings.revision), &settings.revision))
    })
}

async fn verdict(cluster: &Cluster, step: &crate::install::plan::Step) -> Result<(bool, String), CliError> {
    Ok(match &step.action {
        Action::Create => (false, "is not there".to_owned()),
        Action::Update(fields) => {
            let paths: Vec<&str> = fields.iter().take(3).map(|field| field.path.as_str()).collect();
            (false, format!("differs: {}", paths.join(", ")))
        }
        Action::Blocked(why) => (false, why.clone()),
        Action::Prune => (false, "is left from an earlier installation".to_owned()),
        Action::Keep(why) => (true, format!("is there: {why}")),
        Action::Unchanged if step.object.is_workload() => {
            match cluster.get(&step.object).await?.as_ref().and_then(wait::lacking) {
                Some(lack) => (false, lack),
                None => (true, "is ready".to_owned()),
            }
        }
        Action::Unchanged => (true, "is as it should be".to_owned()),
    })
}

fn report(rows: &[(String, bool, String)], default: bool, revision: &str) -> Report {
    let mut table = Table { padding: 3, ..Table::new(&["OBJECT", "RESULT", "WHAT"]) };
    let mut data = Vec::new();
    for (object, good, says) in rows {
        let result = if *good { "ok" } else { "wrong" };
        table.row([object.clone(), result.to_owned(), says.clone()]);
        data.push(json!({ "object": object, "ok": good, "what": says }));
    }
    let wrong = rows.iter().filter(|(_, good, _)| !good).count();
    let (exit, mut notes) = match wrong {
        0 => (Exit::Ok, vec![format!("revision {revision}: all {} checks passed", rows.len())]),
        _ => (Exit::User, vec![format!("revision {revision}: {wrong} of {} checks failed", rows.len())]),
    };
    if wrong > 0 {
        let revision = if default { String::new() } else { format!(" --revision {revision}") };
        notes.push(format!("hint: meshctl upgrade{revision} puts it right"));
    }
    Report { table, data: Value::Array(data), notes, exit, ..Report::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_wrong_object_makes_the_whole_wrong() {
        let row = |good| ("Service a/b".to_owned(), good, "x".to_owned());
        assert_eq!(report(&[row(true)], true, "default").exit, Exit::Ok);
        let bad = report(&[row(true), row(false)], false, "canary");
        assert_eq!(bad.exit, Exit::User);
        assert!(bad.notes[1].contains("upgrade --revision canary"), "{:?}", bad.notes);
    }
}
