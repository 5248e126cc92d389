//! Waiting until what was applied works.

use std::time::Duration;

use http::StatusCode;
use k8s_openapi::api::core::v1::Pod;
use kube::Error;
use kube::api::{Api, ListParams, PostParams};
use mesh_api::names::REVISION_LABEL;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::cluster::Cluster;
use super::object::{Object, is_default, suffix};
use super::progress::Progress;
use crate::error::CliError;
use crate::kube::client::failed;

/// Pause between two looks.
const POLL: Duration = Duration::from_secs(1);
/// The container that injection adds.
const PROXY_CONTAINER: &str = "istio-proxy";

/// What a workload lacks to be ready; `None` when it lacks nothing.
#[must_use]
pub fn lacking(workload: &Object) -> Option<String> {
    let value = workload.value();
    let number = |pointer: &str| value.pointer(pointer).and_then(Value::as_i64).unwrap_or_default();
    if number("/status/observedGeneration") < number("/metadata/generation") {
        return Some("is not looked at yet".to_owned());
    }
    let (wanted, updated, ready) = match workload.kind() {
        "DaemonSet" => (
            number("/status/desiredNumberScheduled"),
            number("/status/updatedNumberScheduled"),
            number("/status/numberAvailable"),
        ),
        _ => {
            let wanted = value.pointer("/spec/replicas").and_then(Value::as_i64).unwrap_or(1);
            (wanted, number("/status/updatedReplicas"), number("/status/availableReplicas"))
        }
    };
    if updated < wanted {
        return Some(format!("{updated} of {wanted} replicas are up to date"));
    }
    (ready < wanted).then(|| format!("{ready} of {wanted} replicas are ready"))
}

/// Waits until all pods of the workloads are ready.
///
/// # Errors
/// When some are not in time: which, and what their pods say.
pub async fn workloads(cluster: &Cluster, objects: &[&Object], timeout: Duration) -> Result<(), CliError> {
    let mut progress = Progress::default();
    let end = Instant::now() + timeout;
    for object in objects {
        loop {
            let live = cluster.get(object).await?;
            let lack = live.as_ref().map_or_else(|| Some("is not there".to_owned()), lacking);
            let Some(lack) = lack else {
                progress.done(format!("{object} is ready"));
                break;
            };
            progress.now(format!("waiting: {object}: {lack}"));
            if Instant::now() >= end {
                drop(progress);
                let error = CliError::internal(format!("{object} is not ready: {lack}"));
                return Err(reasons(cluster, object).await.into_iter().fold(error, CliError::hint).hint(format!(
                    "kubectl -n {} describe {} {}",
                    object.namespace(),
                    object.kind().to_lowercase(),
                    object.name()
                )));
            }
            sleep(POLL).await;
        }
    }
    Ok(())
}

/// What the containers of a workload's pods wait for. Best effort: it explains an error.
async fn reasons(cluster: &Cluster, workload: &Object) -> Vec<String> {
    let labels = workload.value().pointer("/spec/selector/matchLabels").and_then(Value::as_object);
    let selector: Vec<String> =
        labels.into_iter().flatten().filter_map(|(name, value)| Some(format!("{name}={}", value.as_str()?))).collect();
    let pods: Api<Pod> = Api::namespaced(cluster.kube.client.clone(), workload.namespace());
    let listed = pods.list(&ListParams::default().labels(&selector.join(",")).limit(50)).await;
    let mut found = Vec::new();
    for pod in listed.into_iter().flat_map(|list| list.items) {
        let name = pod.metadata.name.unwrap_or_default();
        let status = pod.status.unwrap_or_default();
        for condition in status.conditions.unwrap_or_default() {
            if condition.type_ == "PodScheduled" && condition.status == "False" {
                found.push(format!("pod {name} has no node: {}", condition.message.unwrap_or_default()));
            }
        }
        for container in status.container_statuses.unwrap_or_default() {
            let state = container.state.unwrap_or_default();
            if let Some(waiting) = state.waiting {
                let (reason, message) = (waiting.reason.unwrap_or_default(), waiting.message.unwrap_or_default());
                found.push(format!("pod {name}: {reason} {message}").trim_end().to_owned());
            } else if !container.ready {
                found.push(format!(
                    "pod {name}: {} runs and is not ready (restarts: {})",
                    container.name, container.restart_count
                ));
            }
        }
    }
    found.sort();
    found.truncate(5);
    found
}

/// Name of the revision's injection webhook.
#[must_use]
pub fn injector(revision: &str, namespace: &str) -> String {
    let place = if namespace == mesh_api::names::ROOT_NAMESPACE { String::new() } else { format!("-{namespace}") };
    format!("istio-sidecar-injector{}{place}", suffix(revision))
}

/// What an answer of the injection webhook says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It injects.
    Injects,
    /// Nobody asked it: the namespace of the test is not one for it.
    NotAsked,
    /// It cannot be asked, for this reason.
    No(String),
}

/// Asks the revision's webhook about a pod that is never made (dry run).
///
/// # Errors
/// When the cluster does not answer.
pub async fn ask_injector(cluster: &Cluster, revision: &str, namespace: &str) -> Result<Answer, CliError> {
    let name = injector(revision, namespace);
    let Some(hook) = cluster.find("MutatingWebhookConfiguration", "", &name).await? else {
        return Ok(Answer::No(format!("there is no MutatingWebhookConfiguration {name}")));
    };
    let entries = hook.value().get("webhooks").and_then(Value::as_array);
    let unsigned =
        |entry: &Value| entry.pointer("/clientConfig/caBundle").and_then(Value::as_str).is_none_or(str::is_empty);
    if entries.into_iter().flatten().any(unsigned) {
        return Ok(Answer::No(format!("{name} has no certificate of the control plane yet")));
    }
    let mut labels = json!({ "sidecar.istio.io/inject": "true" });
    if let (false, Some(map)) = (is_default(revision), labels.as_object_mut()) {
        map.insert(REVISION_LABEL.to_owned(), revision.into());
    }
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": { "generateName": "lateen-install-check-", "labels": labels },
        "spec": { "containers": [{ "name": "app", "image": "none.invalid/none" }] },
    });
    let Ok(pod) = serde_json::from_value::<Pod>(pod) else { return Ok(Answer::NotAsked) };
    let pods: Api<Pod> = Api::namespaced(cluster.kube.client.clone(), "default");
    match pods.create(&PostParams { dry_run: true, ..PostParams::default() }, &pod).await {
        Ok(made) => {
            let spec = made.spec.unwrap_or_default();
            let all = spec.containers.iter().chain(spec.init_containers.iter().flatten());
            let injected = all.into_iter().any(|container| container.name == PROXY_CONTAINER);
            Ok(if injected { Answer::Injects } else { Answer::NotAsked })
        }
        // The API server says here that a webhook does not answer.
        Err(Error::Api(status)) if status.code != StatusCode::UNAUTHORIZED => Ok(Answer::No(status.message.clone())),
        Err(error) => Err(failed("cannot try injection", &error)),
    }
}

/// Waits until the webhook injects (promise D8: ready is who answers).
///
/// # Errors
/// When it does not in time, and why.
pub async fn webhook(
    cluster: &Cluster,
    revision: &str,
    namespace: &str,
    timeout: Duration,
) -> Result<Option<String>, CliError> {
    let mut progress = Progress::default();
    let end = Instant::now() + timeout;
    loop {
        match ask_injector(cluster, revision, namespace).await? {
            Answer::Injects => {
                progress.done("the injection webhook answers");
                return Ok(None);
            }
            Answer::NotAsked => {
                return Ok(Some(
                    "warning: injection was not tried: the namespace default is not one that asks for it".to_owned(),
                ));
            }
            Answer::No(why) => {
                progress.now(format!("waiting: the injection webhook: {why}"));
                if Instant::now() >= end {
                    return Err(CliError::internal(format!("the injection webhook does not answer: {why}"))
                        .hint(format!("kubectl -n {namespace} logs deploy/istiod{}", suffix(revision))));
                }
            }
        }
        sleep(POLL).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_workload_is_ready_when_its_new_pods_are() {
        let deployment = |generation: i64, observed: i64, updated: i64, available: i64| {
            Object::new(json!({
                "kind": "Deployment", "metadata": { "name": "x", "generation": generation }, "spec": { "replicas": 2 },
                "status": { "observedGeneration": observed, "updatedReplicas": updated, "availableReplicas": available },
            }))
            .unwrap()
        };
        assert_eq!(lacking(&deployment(2, 2, 2, 2)), None);
        assert_eq!(lacking(&deployment(2, 1, 2, 2)).as_deref(), Some("is not looked at yet"));
        assert_eq!(lacking(&deployment(2, 2, 1, 2)).as_deref(), Some("1 of 2 replicas are up to date"));
        assert_eq!(lacking(&deployment(2, 2, 2, 1)).as_deref(), Some("1 of 2 replicas are ready"));
    }

    #[test]
    fn the_webhook_of_a_revision_has_its_name() {
        assert_eq!(injector("default", "istio-system"), "istio-sidecar-injector");
        assert_eq!(injector("canary", "mesh"), "istio-sidecar-injector-canary-mesh");
    }
}
