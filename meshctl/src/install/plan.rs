//! What an installation would change in a cluster, and what speaks against it.

use std::fmt;

use mesh_api::names::{MANAGED_BY_LABEL, REVISION_LABEL};
use serde_json::{Value, json};

use super::cluster::{Cluster, Conflicts, Mode};
use super::diff::{self, Field};
use super::object::{COMPONENT_LABEL, KINDS, Object, PART_OF_LABEL, TAG_LABEL};
use crate::error::CliError;
use crate::table::Table;

/// What is to be done about an object.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// It is not there.
    Create,
    /// It is there, and these fields change.
    Update(Vec<Field>),
    /// It is there as it should be.
    Unchanged,
    /// It is there and stays as it is, for this reason.
    Keep(String),
    /// An earlier installation left it.
    Prune,
    /// It may not be written, for this reason.
    Blocked(String),
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Create => "create",
            Self::Update(_) => "update",
            Self::Unchanged => "unchanged",
            Self::Keep(_) => "keep",
            Self::Prune => "delete",
            Self::Blocked(_) => "blocked",
        })
    }
}

/// An object and what is to be done about it.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    /// As it should be; as it is when it is to be deleted.
    pub object: Object,
    /// What is to be done.
    pub action: Action,
}

/// Everything that is to be done, in order.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// Its steps.
    pub steps: Vec<Step>,
}

/// How an object of the cluster stands to the one that is to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Standing {
    Ours,
    /// Another's, and good as it is.
    Shared(String),
    /// Another revision's of ours, which goes on having it unless it is taken by force.
    Elsewhere(String),
    /// Another's, and in the way.
    Foreign(String),
}

/// Compares the objects with the cluster.
///
/// # Errors
/// When the cluster does not answer, or refuses an object.
pub async fn make(
    cluster: &Cluster,
    objects: &[Object],
    revision: &str,
    conflicts: Conflicts,
) -> Result<Plan, CliError> {
    let mut plan = Plan::default();
    for object in objects {
        let action = action(cluster, object, conflicts).await?;
        let mut object = object.clone();
        if let Action::Update(_) | Action::Unchanged = action
            && let Some(live) = cluster.get(&object).await?
        {
            keep_policy(&mut object, &live);
        }
        plan.steps.push(Step { object, action });
    }
    for object in left_over(cluster, objects, revision).await? {
        plan.steps.push(Step { object, action: Action::Prune });
    }
    Ok(plan)
}

async fn action(cluster: &Cluster, object: &Object, conflicts: Conflicts) -> Result<Action, CliError> {
    let Some(live) = cluster.get(object).await? else { return Ok(Action::Create) };
    match standing(&live, object) {
        Standing::Ours => {}
        Standing::Shared(why) => return Ok(Action::Keep(why)),
        Standing::Foreign(why) if conflicts == Conflicts::Refuse => return Ok(Action::Blocked(why)),
        Standing::Elsewhere(why) if conflicts == Conflicts::Refuse => return Ok(Action::Keep(why)),
        Standing::Elsewhere(_) | Standing::Foreign(_) => {}
    }
    let mut wanted = object.clone();
    keep_policy(&mut wanted, &live);
    let would_be = match cluster.apply(&wanted, conflicts, Mode::DryRun).await {
        Ok(would_be) => would_be,
        Err(error) => return Ok(Action::Blocked(error.message)),
    };
    let fields = diff::fields(&comparable(&live), &comparable(&would_be));
    Ok(if fields.is_empty() { Action::Unchanged } else { Action::Update(fields) })
}

/// The control plane turns the policy of validation from Ignore to Fail itself: an installation does not turn it back.
fn keep_policy(object: &mut Object, live: &Object) {
    if object.kind() != "ValidatingWebhookConfiguration" {
        return;
    }
    let policy = |value: &Value, name: &Value| {
        let entries = value.get("webhooks").and_then(Value::as_array)?;
        entries.iter().find(|entry| entry.get("name") == Some(name))?.get("failurePolicy").cloned()
    };
    for entry in object.value_mut().get_mut("webhooks").and_then(Value::as_array_mut).into_iter().flatten() {
        let name = entry.get("name").cloned().unwrap_or_default();
        if let (Some(policy), Some(entry)) = (policy(live.value(), &name), entry.as_object_mut()) {
            entry.insert("failurePolicy".to_owned(), policy);
        }
    }
}

/// An object without what every write changes.
fn comparable(object: &Object) -> Value {
    let mut value = object.value().clone();
    if let Some(map) = value.as_object_mut() {
        map.remove("status");
        if let Some(meta) = map.get_mut("metadata").and_then(Value::as_object_mut) {
            for field in ["managedFields", "resourceVersion", "generation", "uid", "creationTimestamp"] {
                meta.remove(field);
            }
        }
    }
    value
}

fn standing(live: &Object, wanted: &Object) -> Standing {
    let manager = live.label(MANAGED_BY_LABEL);
    let base = wanted.label(COMPONENT_LABEL) == "base";
    if live.is_ours() {
        if live.kind() == "CustomResourceDefinition" && is_newer(live, wanted) {
            return Standing::Shared("a newer release brought it".to_owned());
        }
        let gateway = wanted.label(COMPONENT_LABEL).ends_with("gateway");
        let moves = live.revision() != wanted.revision() && !base && wanted.kind() != "Namespace";
        // Gateways have one name whatever the revision. A revision that is only tried must not take them: with it they
        // would go.
        if moves && gateway {
            return Standing::Elsewhere(format!("the revision {} has it; --force moves it here", live.revision()));
        }
        if moves {
            return Standing::Foreign(format!("it belongs to the revision {}", live.revision()));
        }
        return Standing::Ours;
    }
    if wanted.kind() == "Namespace" {
        return Standing::Shared("it was there before".to_owned());
    }
    let who = match manager {
        "" => "somebody else".to_owned(),
        "Helm" if live.label(PART_OF_LABEL) == "lateen" => {
            return Standing::Foreign("Helm installed it, and helm upgrade changes it".to_owned());
        }
        other => other.to_owned(),
    };
    if live.kind() == "CustomResourceDefinition" {
        return match missing_version(live, wanted) {
            None => Standing::Shared(format!("{who} looks after it, and it serves what we read")),
            Some(version) => Standing::Foreign(format!("{who} looks after it, and it does not serve {version}")),
        };
    }
    if base {
        return Standing::Shared(format!("{who} looks after it, and revisions share it"));
    }
    Standing::Foreign(format!("{who} looks after it"))
}

/// Whether a later release of ours wrote the object.
fn is_newer(live: &Object, wanted: &Object) -> bool {
    let numbers = |object: &Object| -> Vec<u64> {
        object.label("app.kubernetes.io/version").split(['.', '-', '+']).map_while(|part| part.parse().ok()).collect()
    };
    numbers(live) > numbers(wanted)
}

/// A version of a custom resource that is wanted and not served.
fn missing_version(live: &Object, wanted: &Object) -> Option<String> {
    let served = |object: &Object| -> Vec<String> {
        let versions = object.value().pointer("/spec/versions").and_then(Value::as_array).into_iter().flatten();
        let served = versions.filter(|version| version.get("served") == Some(&Value::Bool(true)));
        served.filter_map(|version| version.get("name")?.as_str().map(str::to_owned)).collect()
    };
    let there = served(live);
    served(wanted).into_iter().find(|version| !there.contains(version))
}

/// What an earlier installation of the revision made and this one does not. Tags are no part of it: they have commands of
/// their own.
async fn left_over(cluster: &Cluster, objects: &[Object], revision: &str) -> Result<Vec<Object>, CliError> {
    let selector = format!("{MANAGED_BY_LABEL}=lateen,{REVISION_LABEL}={revision},{COMPONENT_LABEL}");
    let mut found = Vec::new();
    for kind in KINDS.iter().filter(|kind| !matches!(kind.name(), "Namespace" | "CustomResourceDefinition" | "Lease")) {
        for object in cluster.list(kind, &selector).await? {
            let wanted = objects.iter().any(|wanted| wanted.order(&object).is_eq());
            let kept = object.label(COMPONENT_LABEL) == "base" || !object.label(TAG_LABEL).is_empty();
            if !wanted && !kept {
                found.push(object);
            }
        }
    }
    found.reverse();
    Ok(found)
}

impl Plan {
    /// Steps that change something.
    pub fn changes(&self) -> impl Iterator<Item = &Step> {
        self.steps.iter().filter(|step| !matches!(step.action, Action::Unchanged | Action::Keep(_)))
    }

    /// Why the plan cannot be followed.
    ///
    /// # Errors
    /// Names every object that may not be written.
    pub fn check(&self) -> Result<(), CliError> {
        let mut blocked = self.steps.iter().filter_map(|step| match &step.action {
            Action::Blocked(why) => Some(format!("{}: {why}", step.object)),
            _ => None,
        });
        let Some(first) = blocked.next() else { return Ok(()) };
        let error = CliError::user(format!("the installation would write what is not ours: {first}"))
            .hint("--revision NAME installs beside what is there; --force takes it over");
        Err(blocked.fold(error, |error, next| error.hint(format!("also {next}"))))
    }

    /// The plan for people.
    #[must_use]
    pub fn table(&self) -> Table {
        let mut table = Table { padding: 3, ..Table::new(&["ACTION", "OBJECT", "WHY"]) };
        for (step, alike) in self.grouped() {
            let why = match &step.action {
                Action::Keep(why) | Action::Blocked(why) => why.clone(),
                Action::Update(fields) => {
                    let paths: Vec<&str> = fields.iter().take(3).map(|field| field.path.as_str()).collect();
                    let more = if fields.len() > 3 { format!(" and {} more", fields.len() - 3) } else { String::new() };
                    format!("{}{more}", paths.join(", "))
                }
                Action::Prune => "no part of the installation any more".to_owned(),
                Action::Create => String::new(),
                Action::Unchanged => continue,
            };
            let object = if alike > 1 { format!("{alike} {}s", step.object.kind()) } else { step.object.to_string() };
            table.row([step.action.to_string(), object, why]);
        }
        table
    }

    /// Steps, of which those that keep objects of one kind for one reason are one, and how many they are.
    fn grouped(&self) -> Vec<(&Step, usize)> {
        let mut found: Vec<(&Step, usize)> = Vec::new();
        for step in &self.steps {
            let alike = |last: &Step| {
                matches!(step.action, Action::Keep(_))
                    && last.action == step.action
                    && last.object.kind() == step.object.kind()
            };
            match found.last_mut() {
                Some((last, count)) if alike(last) => *count += 1,
                _ => found.push((step, 1)),
            }
        }
        found
    }

    /// The plan for programs.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let step = |step: &Step| {
            let mut value = json!({ "action": step.action.to_string(), "object": step.object.to_string() });
            let more = match &step.action {
                Action::Keep(why) | Action::Blocked(why) => Some(("why", json!(why))),
                Action::Update(fields) => {
                    let field = |f: &Field| json!({ "path": f.path, "before": f.before, "after": f.after });
                    Some(("fields", fields.iter().map(field).collect()))
                }
                Action::Create | Action::Unchanged | Action::Prune => None,
            };
            if let (Some((name, more)), Some(map)) = (more, value.as_object_mut()) {
                map.insert(name.to_owned(), more);
            }
            value
        };
        self.steps.iter().map(step).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mk_object(kind: &str, labels: &[(&str, &str)]) -> Object {
        let labels: serde_json::Map<String, Value> =
            labels.iter().map(|(name, value)| ((*name).to_owned(), json!(value))).collect();
        Object::new(json!({ "kind": kind, "metadata": { "name": "x", "labels": labels } })).unwrap()
    }

    const OURS: (&str, &str) = (MANAGED_BY_LABEL, "lateen");

    #[test]
    fn what_others_look_after_is_left_alone() {
        let wanted = mk_object("ConfigMap", &[OURS, (REVISION_LABEL, "default")]);
        let foreign = |live: &Object| matches!(standing(live, &wanted), Standing::Foreign(_));
        assert!(foreign(&mk_object("ConfigMap", &[])));
        assert!(foreign(&mk_object("ConfigMap", &[(MANAGED_BY_LABEL, "Helm")])));
        assert!(foreign(&mk_object("ConfigMap", &[OURS, (REVISION_LABEL, "canary")])));
        assert_eq!(standing(&wanted, &wanted), Standing::Ours);
    }

    #[test]
    fn gateways_stay_with_their_revision() {
        let gateway = |revision| {
            mk_object("Deployment", &[OURS, (REVISION_LABEL, revision), (COMPONENT_LABEL, "ingress-gateway")])
        };
        assert_eq!(standing(&gateway("a"), &gateway("a")), Standing::Ours);
        assert!(matches!(standing(&gateway("a"), &gateway("b")), Standing::Elsewhere(_)));
    }

    #[test]
    fn definitions_are_shared_when_they_serve_what_we_read_and_never_made_older() {
        let definition = |labels: &[(&str, &str)], versions: &[&str]| {
            let mut object = mk_object("CustomResourceDefinition", labels);
            let versions: Vec<Value> =
                versions.iter().map(|name| json!({ "name": name, "served": true, "schema": {} })).collect();
            object.value_mut()["spec"] = json!({ "versions": versions });
            object
        };
        let version = "app.kubernetes.io/version";
        let wanted = definition(&[OURS, (version, "0.2.0")], &["v1", "v1beta1"]);
        assert!(matches!(standing(&definition(&[], &["v1", "v1beta1", "v2"]), &wanted), Standing::Shared(_)));
        assert!(matches!(standing(&definition(&[], &["v1beta1"]), &wanted), Standing::Foreign(_)));
        assert!(matches!(standing(&definition(&[OURS, (version, "0.10.0")], &["v1"]), &wanted), Standing::Shared(_)));
        assert_eq!(standing(&definition(&[OURS, (version, "0.1.9")], &["v1"]), &wanted), Standing::Ours);
    }

    #[test]
    fn what_is_kept_for_one_reason_is_one_row() {
        let step = |kind, action| Step { object: mk_object(kind, &[]), action };
        let keep = || Action::Keep("why".to_owned());
        let kind = "CustomResourceDefinition";
        let plan = Plan {
            steps: vec![step(kind, keep()), step(kind, keep()), step("Secret", keep()), step(kind, Action::Create)],
        };
        let rows: Vec<String> = plan.table().rows.iter().map(|row| row.join(" ")).collect();
        let expected =
            ["keep 2 CustomResourceDefinitions why", "keep Secret x why", "create CustomResourceDefinition x "];
        assert_eq!(rows, expected);
    }

    #[test]
    fn a_policy_that_the_control_plane_set_stays() {
        let hook = |policy: &str| {
            let entry = json!({ "name": "v", "failurePolicy": policy });
            let value =
                json!({ "kind": "ValidatingWebhookConfiguration", "metadata": { "name": "x" }, "webhooks": [entry] });
            Object::new(value).unwrap()
        };
        let mut wanted = hook("Ignore");
        keep_policy(&mut wanted, &hook("Fail"));
        assert_eq!(wanted, hook("Fail"));
    }
}
