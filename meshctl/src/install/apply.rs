//! Making a cluster what a manifest says.

use std::time::Duration;

use mesh_api::names::{MANAGED_BY, MANAGED_BY_LABEL, REVISION_LABEL};
use serde_json::{Value, json};

use super::cluster::{Cluster, Conflicts, Mode};
use super::manifest::Manifest;
use super::object::{Object, PART_OF_LABEL, is_default};
use super::plan::{self, Action, Plan, Step};
use super::progress::Progress;
use super::{record, tag, wait};
use crate::error::CliError;

/// An installation that is ready to be done.
#[derive(Clone, Debug)]
pub struct Installation {
    /// What is installed.
    pub manifest: Manifest,
    /// What changes.
    pub plan: Plan,
    /// Whether this revision becomes the default, as there is none.
    pub becomes_default: bool,
    /// What is worth knowing.
    pub notes: Vec<String>,
}

/// Renders and compares.
///
/// # Errors
/// When the cluster does not answer.
pub async fn prepare(
    cluster: &Cluster,
    mut manifest: Manifest,
    conflicts: Conflicts,
) -> Result<Installation, CliError> {
    let mut notes = manifest.settings.notes.clone();
    let default = tag::default_revision(cluster).await?;
    let revision = manifest.settings.revision.clone();
    match &default {
        // The default is elsewhere: this installation does not take it back.
        Some(default) if is_default(&revision) && !is_default(default) => {
            notes.push(format!(
                "the default tag stays with the revision {default}; meshctl tag set default --revision default moves it"
            ));
            spare_default(&mut manifest.objects);
        }
        _ => {}
    }
    let mut objects = Vec::new();
    if cluster.find("Namespace", "", &manifest.settings.namespace).await?.is_none() {
        objects.extend(namespace(&manifest.settings.namespace));
    }
    let mut named: Vec<&str> = manifest.objects.iter().map(Object::namespace).collect();
    named.sort_unstable();
    named.dedup();
    for other in named.into_iter().filter(|name| !name.is_empty() && *name != manifest.settings.namespace) {
        if cluster.find("Namespace", "", other).await?.is_none() {
            return Err(CliError::user(format!("there is no namespace {other}"))
                .hint(format!("kubectl create namespace {other}")));
        }
    }
    objects.extend(manifest.objects.iter().cloned());
    let plan = plan::make(cluster, &objects, &revision, conflicts).await?;
    // Who says which revision is the default, `values.defaultRevision=""` for none, has said all.
    let said = manifest.settings.user.pointer("/values/defaultRevision").is_some();
    let becomes_default = default.is_none() && !is_default(&revision) && !said;
    if becomes_default {
        notes.push(format!("the revision {revision} becomes the default, as there is none yet"));
    }
    Ok(Installation { manifest, plan, becomes_default, notes })
}

/// Leaves out what makes this revision the default.
fn spare_default(objects: &mut Vec<Object>) {
    objects.retain(|object| object.name() != tag::DEFAULT_VALIDATOR);
    for object in objects.iter_mut().filter(|object| object.kind() == "MutatingWebhookConfiguration") {
        let webhooks = object.value_mut().get_mut("webhooks").and_then(Value::as_array_mut);
        if let Some(webhooks) = webhooks {
            webhooks.retain(|entry| !tag::is_default_entry(entry));
        }
    }
}

fn namespace(name: &str) -> Option<Object> {
    Object::new(json!({
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": { "name": name, "labels": { MANAGED_BY_LABEL: MANAGED_BY, PART_OF_LABEL: "lateen" } },
    }))
}

impl Installation {
    /// Does it: first all but webhooks, then, when the control plane answers, those.
    ///
    /// # Errors
    /// When the cluster refuses something, or something does not become ready in time.
    pub async fn run(
        &self,
        cluster: &Cluster,
        conflicts: Conflicts,
        timeout: Duration,
    ) -> Result<Vec<String>, CliError> {
        let mut notes = Vec::new();
        let (webhooks, others): (Vec<&Step>, Vec<&Step>) =
            self.plan.changes().filter(|step| step.action != Action::Prune).partition(|step| step.object.is_webhook());
        apply_all(cluster, &others, conflicts, "objects").await?;
        self.definitions(cluster, timeout).await?;
        let workloads: Vec<&Object> = self.manifest.objects.iter().filter(|object| object.is_workload()).collect();
        wait::workloads(cluster, &workloads, timeout).await?;
        apply_all(cluster, &webhooks, conflicts, "webhooks").await?;
        let settings = &self.manifest.settings;
        if self.manifest.components.iter().any(|component| component.chart == "istiod") {
            notes.extend(wait::webhook(cluster, &settings.revision, &settings.namespace, timeout).await?);
        }
        if self.becomes_default {
            let wish = tag::Wish { tag: "default", revision: &settings.revision, namespace: &settings.namespace };
            let made = tag::objects(cluster, &wish, None).await?;
            tag::set(cluster, &wish, &made).await?;
        }
        for step in self.plan.steps.iter().filter(|step| step.action == Action::Prune) {
            cluster.delete(&step.object).await?;
        }
        record::write(cluster, settings).await?;
        Ok(notes)
    }

    /// Waits until the API server serves the custom resources.
    async fn definitions(&self, cluster: &Cluster, timeout: Duration) -> Result<(), CliError> {
        let end = tokio::time::Instant::now() + timeout;
        let made = self.plan.changes().filter(|step| step.object.kind() == "CustomResourceDefinition");
        for step in made {
            loop {
                let live = cluster.get(&step.object).await?;
                let conditions = live.as_ref().and_then(|live| live.value().pointer("/status/conditions")?.as_array());
                let established = conditions.into_iter().flatten().any(|condition| {
                    condition.get("type") == Some(&json!("Established"))
                        && condition.get("status") == Some(&json!("True"))
                });
                if established {
                    break;
                }
                if tokio::time::Instant::now() >= end {
                    return Err(CliError::internal(format!(
                        "the API server does not serve {} yet",
                        step.object.name()
                    )));
                }
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        }
        Ok(())
    }
}

async fn apply_all(cluster: &Cluster, steps: &[&Step], conflicts: Conflicts, what: &str) -> Result<(), CliError> {
    let mut progress = Progress::default();
    let all = steps.len();
    for (number, step) in (1..).zip(steps) {
        if all > 1 {
            progress.now(format!("applying {what}: {number} of {all}: {}", step.object));
        }
        cluster.apply(&step.object, conflicts, Mode::Keep).await?;
    }
    if all > 0 {
        progress.done(format!("{all} {what} applied"));
    }
    Ok(())
}

/// Whether the revision of any control plane of ours is there.
///
/// # Errors
/// When the cluster does not answer.
pub async fn revisions(cluster: &Cluster) -> Result<Vec<Object>, CliError> {
    let Some(kind) = super::object::Kind::find("Deployment") else { return Ok(Vec::new()) };
    let mut found = cluster.list(kind, &format!("app=istiod,{REVISION_LABEL},{PART_OF_LABEL}=lateen")).await?;
    found.sort_by(Object::order);
    Ok(found)
}
