//! A Kubernetes cluster for tests: objects are applied and read as JSON, pods are asked, and what a test made goes when the
//! test ends. It calls no kubectl, and waits for what it can see, with a deadline.
//!
//! Which cluster: the one of `KUBECONFIG`. `cargo xtask e2e` starts one, loads the images and runs the tests named
//! `cluster_*`.

pub mod mesh;
pub mod node;
mod objects;
pub mod pods;

use std::collections::BTreeSet;
use std::fmt::Display;
use std::future::Future;
use std::path::PathBuf;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use kube::Client;
use serde_json::{Value, json};
use tokio::runtime::Handle;

use crate::assert::now;
use crate::process::show;

/// Long enough for a rollout on two busy CPUs.
pub const ROLLOUT: Duration = Duration::from_secs(150);
/// Longest single call.
const CALL: Duration = Duration::from_secs(60);
/// Pause between two looks at the cluster: its API server shares the machine.
const PAUSE: Duration = Duration::from_millis(250);
/// Field manager of what tests apply.
const MANAGER: &str = "lateen-e2e";
/// Set: namespaces stay when tests end.
const KEEP: &str = "MESH_E2E_KEEP";
/// Folder for what a failed test leaves.
const LOGS: &str = "MESH_E2E_LOGS";

/// A connection to the cluster of `KUBECONFIG`.
#[derive(Clone)]
pub struct Cluster {
    client: Client,
}

impl std::fmt::Debug for Cluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Cluster")
    }
}

/// A namespace that goes, with all in it, when this is dropped. If the test is failing, logs and events are kept first.
#[derive(Debug)]
pub struct Namespace {
    /// The cluster it is in.
    pub cluster: Cluster,
    /// Its name.
    pub name: String,
}

impl Cluster {
    /// Connects.
    ///
    /// # Panics
    /// Without a cluster.
    #[must_use]
    pub fn connect() -> Self {
        let made = run("reading KUBECONFIG", async {
            let config = kube::Config::infer().await.map_err(|error| error.to_string())?;
            Client::try_from(config).map_err(|error| error.to_string())
        });
        Self { client: made.unwrap_or_else(|error| panic!("no cluster: {error}")) }
    }

    /// Makes a namespace; an old one of this name goes first.
    ///
    /// # Panics
    /// When it cannot.
    #[track_caller]
    #[must_use]
    pub fn namespace(&self, name: &str, labels: &[(&str, &str)]) -> Namespace {
        self.remove_namespace(name);
        let labels: serde_json::Map<_, _> =
            labels.iter().map(|(name, value)| ((*name).to_owned(), json!(value))).collect();
        self.apply_object(
            None,
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}),
        );
        // Pods are refused before the account is there.
        wait(&format!("{name} has its service account"), || {
            self.find("v1", "ServiceAccount", Some(name), "default").ok_or("none")
        });
        Namespace { cluster: self.clone(), name: name.to_owned() }
    }

    /// Deletes a namespace and waits until nothing of it is left.
    ///
    /// # Panics
    /// When it stays.
    #[track_caller]
    pub fn remove_namespace(&self, name: &str) {
        if self.find("v1", "Namespace", None, name).is_some() {
            self.delete("v1", "Namespace", None, name);
            within(ROLLOUT, &format!("namespace {name} goes"), || {
                self.find("v1", "Namespace", None, name).map_or(Ok(()), |left| Err(left["status"].to_string()))
            });
        }
    }

    /// Waits until all replicas of a Deployment, StatefulSet or DaemonSet are those of its present template, and available.
    ///
    /// # Panics
    /// When it takes longer than [`ROLLOUT`].
    #[track_caller]
    pub fn rolled_out(&self, kind: &str, namespace: &str, name: &str) {
        within(ROLLOUT, &format!("{kind} {namespace}/{name} is rolled out"), || {
            let found = self.find("apps/v1", kind, Some(namespace), name).ok_or_else(|| "there is none".to_owned())?;
            if complete(&found) { Ok(()) } else { Err(found["status"].to_string()) }
        });
    }

    /// Replaces the pods of a Deployment one by one, as `kubectl rollout restart` does.
    ///
    /// # Panics
    /// When the restart cannot be asked for.
    #[track_caller]
    pub fn restart(&self, namespace: &str, name: &str) {
        let stamp = format!("{:?}", std::time::SystemTime::now());
        let template = json!({"metadata": {"annotations": {"kubectl.kubernetes.io/restartedAt": stamp}}});
        self.merge("apps/v1", "Deployment", Some(namespace), name, &json!({"spec": {"template": template}}));
    }
}

/// Whether a workload's rollout is over.
fn complete(workload: &Value) -> bool {
    let number = |value: &Value, or: i64| value.as_i64().unwrap_or(or);
    let status = &workload["status"];
    let seen = number(&status["observedGeneration"], 0) >= number(&workload["metadata"]["generation"], 0);
    if !status["desiredNumberScheduled"].is_null() {
        let wanted = number(&status["desiredNumberScheduled"], 0);
        return seen
            && number(&status["updatedNumberScheduled"], 0) == wanted
            && number(&status["numberAvailable"], 0) == wanted;
    }
    let wanted = number(&workload["spec"]["replicas"], 1);
    let all = ["replicas", "updatedReplicas", "readyReplicas"].map(|field| number(&status[field], 0));
    seen && all == [wanted; 3]
}

impl Namespace {
    /// Applies YAML documents; those that name no namespace go into this one.
    ///
    /// # Panics
    /// When one is refused.
    #[track_caller]
    pub fn apply(&self, yaml: &str) {
        self.cluster.apply(Some(&self.name), yaml);
    }

    /// See [`Cluster::rolled_out`].
    ///
    /// # Panics
    /// As that.
    #[track_caller]
    pub fn rolled_out(&self, kind: &str, name: &str) {
        self.cluster.rolled_out(kind, &self.name, name);
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.cluster.keep_logs(&self.name);
        }
        if std::env::var_os(KEEP).is_none() {
            // Not waited for: the next test need not, and one that takes the same name does.
            self.cluster.try_delete("v1", "Namespace", None, &self.name);
        }
    }
}

impl Cluster {
    /// Keeps events, pods and logs of a namespace in the folder of `MESH_E2E_LOGS`, once for each namespace.
    pub fn keep_logs(&self, namespace: &str) {
        static KEPT: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());
        let Some(folder) = std::env::var_os(LOGS).map(PathBuf::from) else { return };
        if !KEPT.lock().unwrap_or_else(PoisonError::into_inner).insert(namespace.to_owned()) {
            return;
        }
        let folder = folder.join(namespace);
        let write = |name: String, text: String| {
            let written = std::fs::create_dir_all(&folder).and_then(|()| std::fs::write(folder.join(&name), text));
            if let Err(error) = written {
                show(&format!("{}/{name}: {error}", folder.display()));
            }
        };
        let events = self.try_list("v1", "Event", Some(namespace), "");
        let lines = events.iter().map(|event| {
            let (object, reason) = (&event["involvedObject"]["name"], &event["reason"]);
            format!("{} {object} {reason}: {}\n", event["lastTimestamp"], event["message"])
        });
        write("events.txt".to_owned(), lines.collect());
        for pod in self.try_list("v1", "Pod", Some(namespace), "") {
            let name = pod["metadata"]["name"].as_str().unwrap_or_default();
            write(format!("{name}.yaml"), serde_yaml_ng::to_string(&pod).unwrap_or_default());
            for container in pods::containers(&pod) {
                for previous in [false, true] {
                    if let Ok(text) = self.try_logs(namespace, name, &container, previous) {
                        let suffix = if previous { ".previous" } else { "" };
                        write(format!("{name}.{container}{suffix}.log"), text);
                    }
                }
            }
        }
        show(&format!("logs of {namespace}: {}", folder.display()));
    }
}

/// Looks at the cluster until there is an answer, for at most [`crate::assert::PATIENCE`].
///
/// # Panics
/// With the last reason when there is none in time.
#[track_caller]
pub fn wait<T, E: Display>(what: &str, look: impl FnMut() -> Result<T, E>) -> T {
    within(crate::assert::PATIENCE, what, look)
}

/// Looks at the cluster until there is an answer, for at most `limit`.
///
/// # Panics
/// With the last reason when there is none in time.
#[track_caller]
#[expect(clippy::disallowed_methods, reason = "a real cluster can only be looked at again")]
pub fn within<T, E: Display>(limit: Duration, what: &str, mut look: impl FnMut() -> Result<T, E>) -> T {
    let started = now();
    loop {
        match look() {
            Ok(found) => return found,
            Err(reason) if started.elapsed() > limit => panic!("{what}: not within {limit:?}; last: {reason}"),
            Err(_) => std::thread::sleep(PAUSE),
        }
    }
}

/// Runs a call to the cluster to its end, on the one thread that drives all of them.
///
/// # Panics
/// When it takes longer than a minute.
#[track_caller]
fn run<T>(what: &str, call: impl Future<Output = T>) -> T {
    run_for(CALL, what, call)
}

#[track_caller]
fn run_for<T>(limit: Duration, what: &str, call: impl Future<Output = T>) -> T {
    static RUNTIME: OnceLock<Handle> = OnceLock::new();
    let runtime = RUNTIME.get_or_init(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let handle = runtime.handle().clone();
        std::thread::Builder::new()
            .name("cluster".to_owned())
            .spawn(move || runtime.block_on(std::future::pending::<()>()))
            .unwrap();
        handle
    });
    let ended = runtime.block_on(async { tokio::time::timeout(limit, call).await });
    ended.unwrap_or_else(|_| panic!("{what}: no answer within {limit:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rollout_is_over_when_all_replicas_are_new_and_available() {
        let deployment = |generation: i64, updated: i64, all: i64| {
            json!({
                "metadata": {"generation": 2},
                "spec": {"replicas": 2},
                "status": {
                    "observedGeneration": generation, "replicas": all, "updatedReplicas": updated, "readyReplicas": 2,
                },
            })
        };
        assert!(complete(&deployment(2, 2, 2)));
        assert!(!complete(&deployment(1, 2, 2)), "the controller has not seen the change");
        assert!(!complete(&deployment(2, 1, 2)), "an old pod counts no more");
        assert!(!complete(&deployment(2, 2, 3)), "an old pod is still there");
        assert!(!complete(&json!({"metadata": {"generation": 1}, "spec": {"replicas": 1}})));
    }
}
