//! Any object as JSON.

use kube::Api;
use kube::api::{DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PropagationPolicy};
use kube::core::{GroupVersion, GroupVersionKind};
use kube::discovery::{Scope, pinned_kind};
use serde::Deserialize as _;
use serde_json::Value;

use super::{Cluster, MANAGER, run, wait};

impl Cluster {
    /// Applies YAML documents by server-side apply; those that name no namespace go into `namespace`.
    ///
    /// # Panics
    /// When one is not YAML, or refused.
    #[track_caller]
    pub fn apply(&self, namespace: Option<&str>, yaml: &str) {
        for object in documents(yaml) {
            self.apply_object(namespace, object);
        }
    }

    /// As [`Self::apply`] for one object, which is returned as it is then; a refusal is an error.
    ///
    /// # Errors
    /// The API server's words.
    ///
    /// # Panics
    /// When there is no answer.
    pub fn try_apply(&self, namespace: Option<&str>, object: &Value) -> Result<Value, String> {
        let text = |field: &Value| field.as_str().unwrap_or_default().to_owned();
        let own = object["metadata"]["namespace"].as_str().or(namespace);
        let (version, kind) = (text(&object["apiVersion"]), text(&object["kind"]));
        let api = self.api(&version, &kind, own)?;
        let params = PatchParams::apply(MANAGER).force();
        let patched = run("applying", api.patch(&text(&object["metadata"]["name"]), &params, &Patch::Apply(object)));
        value(patched.map_err(|error| error.to_string())?)
    }

    /// As [`Self::apply`] for one object, which is returned as it is then.
    ///
    /// # Panics
    /// When it is refused.
    #[track_caller]
    pub fn apply_object(&self, namespace: Option<&str>, object: Value) -> Value {
        let named = format!("{} {}", object["kind"], object["metadata"]["name"]);
        self.try_apply(namespace, &object).unwrap_or_else(|error| panic!("applying {named}: {error}"))
    }

    /// An object, if there is one.
    ///
    /// # Panics
    /// When the cluster refuses to say.
    #[track_caller]
    #[must_use]
    pub fn find(&self, version: &str, kind: &str, namespace: Option<&str>, name: &str) -> Option<Value> {
        let Ok(api) = self.api(version, kind, namespace) else { return None };
        let found = run("reading an object", api.get_opt(name));
        found.unwrap_or_else(|error| panic!("reading {kind} {name}: {error}")).map(|found| value(found).unwrap())
    }

    /// Objects by label selector; all with an empty one. A kind that the cluster does not know has none.
    ///
    /// # Panics
    /// When the cluster refuses to say.
    #[track_caller]
    #[must_use]
    pub fn list(&self, version: &str, kind: &str, namespace: Option<&str>, selector: &str) -> Vec<Value> {
        let Ok(api) = self.api(version, kind, namespace) else { return Vec::new() };
        let found = run("listing objects", api.list(&ListParams::default().labels(selector)));
        let found = found.unwrap_or_else(|error| panic!("listing {kind} {selector}: {error}"));
        found.items.into_iter().map(|item| value(item).unwrap()).collect()
    }

    /// For clean-up: as [`Self::list`], but never fails.
    pub(super) fn try_list(&self, version: &str, kind: &str, namespace: Option<&str>, selector: &str) -> Vec<Value> {
        let Ok(api) = self.api(version, kind, namespace) else { return Vec::new() };
        let found = run("listing objects", api.list(&ListParams::default().labels(selector)));
        found.map_or_else(|_| Vec::new(), |found| found.items.into_iter().filter_map(|item| value(item).ok()).collect())
    }

    /// Changes an object by a merge patch.
    ///
    /// # Panics
    /// When it is refused.
    #[track_caller]
    pub fn merge(&self, version: &str, kind: &str, namespace: Option<&str>, name: &str, patch: &Value) {
        let api = self.api(version, kind, namespace).unwrap();
        let patched = run("patching", api.patch(name, &PatchParams::default(), &Patch::Merge(patch)));
        patched.unwrap_or_else(|error| panic!("patching {kind} {name}: {error}"));
    }

    /// Deletes an object; one that is not there is as good.
    ///
    /// # Panics
    /// When it is refused.
    #[track_caller]
    pub fn delete(&self, version: &str, kind: &str, namespace: Option<&str>, name: &str) {
        let deleted = self.deletion(version, kind, namespace, name);
        deleted.unwrap_or_else(|error| panic!("deleting {kind} {name}: {error}"));
    }

    /// Deletes an object and waits until it is gone.
    ///
    /// # Panics
    /// When it is refused or stays.
    #[track_caller]
    pub fn delete_and_wait(&self, version: &str, kind: &str, namespace: Option<&str>, name: &str) {
        self.delete(version, kind, namespace, name);
        wait(&format!("{kind} {name} goes"), || {
            self.find(version, kind, namespace, name).map_or(Ok(()), |left| Err(left["metadata"].to_string()))
        });
    }

    /// Ends a pod at once, without a word to its processes.
    ///
    /// # Panics
    /// When it is refused.
    #[track_caller]
    pub fn kill_pod(&self, namespace: &str, name: &str) {
        let api = self.api("v1", "Pod", Some(namespace)).unwrap();
        let params = DeleteParams { grace_period_seconds: Some(0), ..DeleteParams::default() };
        let deleted = run("killing a pod", api.delete(name, &params));
        deleted.map(drop).unwrap_or_else(|error| panic!("killing {name}: {error}"));
    }

    /// For clean-up: as [`Self::delete`], but never fails.
    pub(super) fn try_delete(&self, version: &str, kind: &str, namespace: Option<&str>, name: &str) {
        if let Err(error) = self.deletion(version, kind, namespace, name) {
            crate::process::show(&format!("deleting {kind} {name}: {error}"));
        }
    }

    fn deletion(&self, version: &str, kind: &str, namespace: Option<&str>, name: &str) -> Result<(), String> {
        let Ok(api) = self.api(version, kind, namespace) else { return Ok(()) };
        let params =
            DeleteParams { propagation_policy: Some(PropagationPolicy::Background), ..DeleteParams::default() };
        match run("deleting", api.delete(name, &params)) {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
            Err(error) => Err(error.to_string()),
        }
    }

    fn api(&self, version: &str, kind: &str, namespace: Option<&str>) -> Result<Api<DynamicObject>, String> {
        let version: GroupVersion = version.parse().map_err(|error| format!("{version}: {error}"))?;
        let asked = GroupVersionKind::gvk(&version.group, &version.version, kind);
        let known = run("asking for a kind", pinned_kind(&self.client, &asked));
        let (resource, capabilities) = known.map_err(|error| format!("{kind}: {error}"))?;
        let client = self.client.clone();
        Ok(match namespace {
            Some(namespace) if capabilities.scope == Scope::Namespaced => {
                Api::namespaced_with(client, namespace, &resource)
            }
            _ => Api::all_with(client, &resource),
        })
    }
}

fn value(object: DynamicObject) -> Result<Value, String> {
    serde_json::to_value(object).map_err(|error| error.to_string())
}

/// The documents of a text that are not empty.
fn documents(yaml: &str) -> impl Iterator<Item = Value> {
    let documents = serde_yaml_ng::Deserializer::from_str(yaml);
    documents.map(|document| Value::deserialize(document).unwrap()).filter(|document| !document.is_null())
}
