//! The workload that a pod belongs to. istio/istio: pkg/kube/util.go GetDeployMetaFromPod.

use serde_json::Value;

use super::view;

/// A workload: what telemetry names, and what `ISTIO_META_OWNER` says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Owner {
    /// Its apiVersion, e.g. `apps/v1`.
    pub api_version: String,
    /// Its kind, e.g. `Deployment`.
    pub kind: String,
    /// Its name; empty where a pod will be named by the API server and has no controller.
    pub name: String,
    /// Its namespace; may be empty in a manifest.
    pub namespace: String,
}

impl Owner {
    /// Finds the workload of a pod from its controller, and the controller's own controller from names and labels: the
    /// API server is not asked.
    #[must_use]
    pub fn of_pod(pod: &Value, namespace: &str) -> Self {
        let text = |pointer| view::text(pod, pointer).unwrap_or_default();
        let own = Self {
            api_version: "v1".to_owned(),
            kind: "Pod".to_owned(),
            name: text("/metadata/name").to_owned(),
            namespace: match text("/metadata/namespace") {
                "" => namespace.to_owned(),
                named => named.to_owned(),
            },
        };
        // A pod that was named by hand stands for itself, whatever it says of owners.
        if text("/metadata/generateName").is_empty() {
            return own;
        }
        let references =
            pod.pointer("/metadata/ownerReferences").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        let controller = references.iter().find(|owner| owner.get("controller").and_then(Value::as_bool) == Some(true));
        let Some(controller) = controller else { return own };
        let field = |name: &str| controller.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        let found = Self { api_version: field("apiVersion"), kind: field("kind"), name: field("name"), ..own };
        found.controller_of_controller(pod)
    }

    fn controller_of_controller(self, pod: &Value) -> Self {
        let stem = |hash_label: &str| {
            let hash = view::filled_label(pod, hash_label)?;
            Some(self.name.strip_suffix(hash)?.trim_end_matches('-').to_owned())
        };
        match self.kind.as_str() {
            "ReplicaSet" => {
                if let Some(name) = stem("pod-template-hash") {
                    return Self { kind: "Deployment".to_owned(), name, ..self };
                }
                if let Some(name) = stem("rollouts-pod-template-hash") {
                    return Self { kind: "Rollout".to_owned(), api_version: "v1alpha1".to_owned(), name, ..self };
                }
                self
            }
            "ReplicationController" => match view::filled_label(pod, "deploymentconfig") {
                Some(name) => Self { kind: "DeploymentConfig".to_owned(), name: name.to_owned(), ..self },
                None => self,
            },
            "Job" => match cron_job(&self.name) {
                Some(name) => {
                    let name = name.to_owned();
                    Self { kind: "CronJob".to_owned(), api_version: "batch/v1".to_owned(), name, ..self }
                }
                None => self,
            },
            _ => self,
        }
    }

    /// The value of `ISTIO_META_OWNER`, where it is known.
    pub(super) fn reference(&self) -> Option<String> {
        if self.api_version.is_empty() || self.name.is_empty() {
            return None;
        }
        let namespace = if self.namespace.is_empty() { "default" } else { &self.namespace };
        let kind = self.kind.to_lowercase();
        Some(format!("kubernetes://apis/{}/namespaces/{namespace}/{kind}s/{}", self.api_version, self.name))
    }
}

/// The name of the CronJob whose Job is called so: the Job's name ends with the minutes, or seconds, of its time.
fn cron_job(job: &str) -> Option<&str> {
    let (name, time) = job.rsplit_once('-')?;
    let is_time = (8..=10).contains(&time.len()) && time.bytes().all(|byte| byte.is_ascii_digit());
    (is_time && !name.is_empty()).then_some(name)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[track_caller]
    fn check(kind: &str, name: &str, labels: &Value, expected: &str) {
        let pod = json!({"metadata": {"generateName": "x-", "labels": labels, "ownerReferences": [
            {"apiVersion": "a/v1", "kind": kind, "name": name, "controller": true}]}});
        let owner = Owner::of_pod(&pod, "shop");
        assert_eq!(format!("{} {} {} {}", owner.api_version, owner.kind, owner.namespace, owner.name), expected);
    }

    #[test]
    fn the_controller_of_the_controller_is_found() {
        check("ReplicaSet", "web-7d4", &json!({"pod-template-hash": "7d4"}), "a/v1 Deployment shop web");
        check("ReplicaSet", "web-7d4", &json!({"rollouts-pod-template-hash": "7d4"}), "v1alpha1 Rollout shop web");
        check("ReplicaSet", "web-7d4", &json!({}), "a/v1 ReplicaSet shop web-7d4");
        check("ReplicationController", "web-1", &json!({"deploymentconfig": "web"}), "a/v1 DeploymentConfig shop web");
        check("Job", "nightly-28512345", &json!({}), "batch/v1 CronJob shop nightly");
        check("Job", "nightly-1", &json!({}), "a/v1 Job shop nightly-1");
        check("StatefulSet", "db", &json!({}), "a/v1 StatefulSet shop db");
    }

    #[test]
    fn a_pod_named_by_hand_stands_for_itself() {
        let pod = json!({"metadata": {"name": "web", "namespace": "front"}});
        assert_eq!(Owner::of_pod(&pod, "shop").reference().unwrap(), "kubernetes://apis/v1/namespaces/front/pods/web");
    }
}
