//! Objects of a cluster, read and written as an installation does.

use std::time::Duration;

use http::StatusCode;
use kube::Error;
use kube::api::{Api, DeleteParams, DynamicObject, Patch, PatchParams, PropagationPolicy};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::FIELD_MANAGER;
use super::object::{Kind, Object};
use crate::error::CliError;
use crate::kube::client::{Kube, failed, optional};

/// Pause between two looks at something that is awaited.
const POLL: Duration = Duration::from_secs(1);

/// Whether what is applied is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// The API server only says what would be.
    DryRun,
    /// It is kept.
    Keep,
}

/// What to do about fields that others manage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Conflicts {
    /// They are an error.
    Refuse,
    /// They become ours.
    TakeOver,
}

/// A cluster to install in.
#[derive(Clone, Debug)]
pub struct Cluster {
    /// Its client.
    pub kube: Kube,
}

impl Cluster {
    fn api(&self, kind: &Kind, namespace: &str) -> Api<DynamicObject> {
        let client = self.kube.client.clone();
        match namespace {
            "" => Api::all_with(client, &kind.resource()),
            namespace => Api::namespaced_with(client, namespace, &kind.resource()),
        }
    }

    fn api_of(&self, object: &Object) -> Result<Api<DynamicObject>, CliError> {
        let kind = Kind::find(object.kind())
            .ok_or_else(|| CliError::user(format!("{object} is of a kind that cannot be installed")))?;
        Ok(self.api(kind, object.namespace()))
    }

    /// The object as the cluster has it.
    ///
    /// # Errors
    /// When the cluster does not answer, or denies it.
    pub async fn get(&self, object: &Object) -> Result<Option<Object>, CliError> {
        let found = self.api_of(object)?.get(object.name()).await;
        let found = optional(format!("cannot read {object}"), found)?;
        Ok(found.and_then(|found| typed(found, object.kind())))
    }

    /// The object of a kind and name as the cluster has it.
    ///
    /// # Errors
    /// When the cluster does not answer, or denies it.
    pub async fn find(&self, kind: &str, namespace: &str, name: &str) -> Result<Option<Object>, CliError> {
        let object = json!({ "kind": kind, "metadata": { "name": name, "namespace": namespace } });
        match Object::new(object) {
            Some(object) => self.get(&object).await,
            None => Ok(None),
        }
    }

    /// Objects of a kind with these labels, in all namespaces.
    ///
    /// # Errors
    /// When the cluster does not answer, or denies it.
    pub async fn list(&self, kind: &Kind, selector: &str) -> Result<Vec<Object>, CliError> {
        let found = self.kube.list(&kind.resource(), None, Some(selector)).await?;
        Ok(found.into_iter().filter_map(|found| typed(found, kind.name())).collect())
    }

    /// Applies the object (server-side): what the cluster then has.
    ///
    /// # Errors
    /// When the API server refuses it; conflicts are explained.
    pub async fn apply(&self, object: &Object, conflicts: Conflicts, mode: Mode) -> Result<Object, CliError> {
        let mut params = PatchParams::apply(FIELD_MANAGER);
        params.force = conflicts == Conflicts::TakeOver;
        params.dry_run = mode == Mode::DryRun;
        let applied = self.api_of(object)?.patch(object.name(), &params, &Patch::Apply(object.value())).await;
        let applied = applied.map_err(|error| match &error {
            Error::Api(status) if status.code == StatusCode::CONFLICT => {
                CliError::user(format!("{object} has fields that others manage: {}", status.message)).hint(
                    "--force takes these fields over; kubectl get -o yaml --show-managed-fields shows whose they are",
                )
            }
            _ => failed(format!("cannot apply {object}"), &error),
        })?;
        typed(applied, object.kind())
            .ok_or_else(|| CliError::internal(format!("the answer about {object} is no object")))
    }

    /// Changes some fields of an object (merge patch).
    ///
    /// # Errors
    /// When the API server refuses it.
    pub async fn merge(&self, object: &Object, patch: &Value) -> Result<(), CliError> {
        let params = PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
        let patched = self.api_of(object)?.patch(object.name(), &params, &Patch::Merge(patch)).await;
        patched.map(drop).map_err(|error| failed(format!("cannot change {object}"), &error))
    }

    /// Deletes the object, after everything that it owns.
    ///
    /// # Errors
    /// When the API server refuses it. An object that is not there is no error.
    pub async fn delete(&self, object: &Object) -> Result<(), CliError> {
        let params =
            DeleteParams { propagation_policy: Some(PropagationPolicy::Foreground), ..DeleteParams::default() };
        let deleted = self.api_of(object)?.delete(object.name(), &params).await;
        optional(format!("cannot delete {object}"), deleted).map(drop)
    }

    /// Waits until none of the objects is there any more.
    ///
    /// # Errors
    /// When some stay, by name, or the cluster does not answer.
    pub async fn gone(&self, objects: &[Object], timeout: Duration) -> Result<(), CliError> {
        let end = Instant::now() + timeout;
        let mut left: Vec<&Object> = objects.iter().collect();
        loop {
            let mut still = Vec::new();
            for object in left {
                let uid = |object: &Object| object.value().pointer("/metadata/uid").cloned();
                // Another of the same name is another object.
                if self.get(object).await?.is_some_and(|found| uid(&found) == uid(object)) {
                    still.push(object);
                }
            }
            if still.is_empty() {
                return Ok(());
            }
            if Instant::now() >= end {
                let names: Vec<String> = still.iter().take(10).map(ToString::to_string).collect();
                return Err(CliError::internal(format!(
                    "{} objects do not go away: {}",
                    still.len(),
                    names.join(", ")
                ))
                .hint("a finalizer may hold them: kubectl get -o yaml shows metadata.finalizers"));
            }
            left = still;
            sleep(POLL).await;
        }
    }
}

/// An object of a list does not say its kind.
fn typed(found: DynamicObject, kind: &str) -> Option<Object> {
    let mut value = serde_json::to_value(found).ok()?;
    value.as_object_mut()?.insert("kind".to_owned(), kind.into());
    Object::new(value)
}
