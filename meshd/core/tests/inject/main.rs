//! Golden cases of injection: one for every annotation and label that acts, and whole pods.
//!
//! A case (`cases/NAME.yaml`) is a pod and what is configured. Its golden (`cases/NAME.golden`) says what came of it: with
//! `covers`, what the covered annotations change against the same pod without them; without, the whole pod. After a change
//! that is meant: `UPDATE_GOLDEN=1 cargo test -p meshd-core --test inject`, and read the difference.

#![expect(clippy::unwrap_used, reason = "tests")]
#![expect(clippy::disallowed_methods, reason = "tests read and write their files")]

mod facts;
mod page;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use mesh_api::inject::surface::{self, Carrier, Effect};
use mesh_api::kinds::Kind;
use mesh_api::mesh_config::MeshConfig;
use mesh_api::object::AnyObject;
use meshd_core::inject::{Admission, Facts, Injected, Injector, ProxyConfigs, env_of_path};
use serde::Deserialize;
use serde_json::{Map, Value, json};

/// A case as it is written.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Case {
    /// What it shows.
    about: String,
    /// Annotations and labels that it is about.
    #[serde(default)]
    covers: Vec<String>,
    /// Key `config` of the injector.
    #[serde(default)]
    config: Value,
    /// Key `values`.
    #[serde(default)]
    values: Value,
    /// Mesh configuration.
    #[serde(default)]
    mesh: Value,
    /// Revision of the control plane.
    #[serde(default)]
    revision: String,
    /// Path of the webhook.
    #[serde(default)]
    path: String,
    /// Annotations of the namespace.
    #[serde(default)]
    namespace_annotations: BTreeMap<String, String>,
    /// ProxyConfigs of the cluster.
    #[serde(default)]
    proxy_configs: Vec<Value>,
    /// Nodes without native sidecars.
    #[serde(default)]
    classic: bool,
    /// Injected twice; the second result counts.
    #[serde(default)]
    twice: bool,
    /// Annotations to add to the pod.
    #[serde(default)]
    annotations: Map<String, Value>,
    /// Labels to add to the pod.
    #[serde(default)]
    labels: Map<String, Value>,
    /// The pod; a plain one of a Deployment when absent.
    #[serde(default)]
    pod: Value,
}

/// What came of a pod.
enum Result {
    Injected(Injected),
    Skipped(String),
    Refused(String),
}

fn folder() -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "tests/inject/cases"].iter().collect()
}

fn cases() -> Vec<(String, Case)> {
    let mut cases = Vec::new();
    for entry in std::fs::read_dir(folder()).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|ending| ending == "yaml") {
            let text = std::fs::read_to_string(&path).unwrap();
            let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
            let case = serde_yaml_ng::from_str(&text).unwrap_or_else(|error| panic!("{name}: {error}"));
            cases.push((name, case));
        }
    }
    cases.sort_by(|(a, _), (b, _)| a.cmp(b));
    cases
}

/// A pod as a Deployment makes it.
fn plain_pod() -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "generateName": "web-7d4f9-",
            "namespace": "shop",
            "labels": { "app": "web", "version": "v1", "pod-template-hash": "7d4f9" },
            "annotations": {},
            "ownerReferences": [
                { "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web-7d4f9", "controller": true, "uid": "u" },
            ],
        },
        "spec": {
            "serviceAccountName": "web",
            "initContainers": [{ "name": "migrate", "image": "shop/web:1" }],
            "containers": [{
                "name": "app",
                "image": "shop/web:1",
                "ports": [{ "name": "http", "containerPort": 8080 }],
                "readinessProbe": { "httpGet": { "path": "/ready", "port": "http" }, "timeoutSeconds": 2 },
            }],
            "volumes": [{ "name": "data", "emptyDir": {} }],
        },
    })
}

impl Case {
    fn pod(&self) -> Value {
        let mut pod = if self.pod.is_null() { plain_pod() } else { self.pod.clone() };
        for (field, more) in [("annotations", &self.annotations), ("labels", &self.labels)] {
            let metadata = pod["metadata"].as_object_mut().unwrap();
            let map = metadata.entry(field).or_insert_with(|| json!({})).as_object_mut().unwrap();
            map.extend(more.clone());
        }
        pod
    }

    fn proxy_configs(&self) -> ProxyConfigs {
        let read = |value: &Value| match AnyObject::from_value(Kind::ProxyConfig, value).unwrap() {
            AnyObject::ProxyConfig(object) => object,
            other => panic!("{other:?}"),
        };
        let all: Vec<_> = self.proxy_configs.iter().map(read).collect();
        ProxyConfigs::new(all.iter().map(|object| &**object))
    }

    fn injector(&self) -> Injector {
        let text = |value: &Value| if value.is_null() { String::new() } else { value.to_string() };
        let (mesh, findings) = MeshConfig::parse(&text(&self.mesh)).unwrap();
        assert!(findings.iter().all(|finding| !finding.is_error()), "{findings:?}");
        let injector = Injector::from_config(&text(&self.config), &text(&self.values), &mesh, &self.revision).unwrap();
        assert!(injector.findings().iter().all(|finding| !finding.is_error()), "{:?}", injector.findings());
        injector
    }

    /// Injects a pod as the webhook does, and holds the patch to the pod it stands for.
    fn admit(&self, pod: &Value) -> Result {
        let facts = Facts {
            namespace: "shop".to_owned(),
            namespace_annotations: self.namespace_annotations.clone(),
            env: env_of_path(&self.path),
            native_sidecar: !self.classic,
            proxy_configs: Arc::new(self.proxy_configs()),
            ..Facts::default()
        };
        let injector = self.injector();
        match injector.admit(pod, &facts) {
            Err(refusal) => Result::Refused(refusal.message),
            Ok(Admission::Skipped(reason)) => Result::Skipped(reason.to_string()),
            Ok(Admission::Patched { patch, warnings }) => {
                let injected = injector.inject(pod, &facts).unwrap();
                assert_eq!(meshd_core::inject::apply(pod, &patch).as_ref(), Ok(&injected.pod), "the patch is wrong");
                assert_eq!(injected.warnings, warnings);
                Result::Injected(injected)
            }
        }
    }

    fn result(&self, pod: &Value) -> Result {
        match self.admit(pod) {
            Result::Injected(first) if self.twice => self.admit(&first.pod),
            other => other,
        }
    }

    /// The pod without what the case is about.
    fn without(&self) -> Value {
        let mut pod = self.pod();
        for field in ["annotations", "labels"] {
            if let Some(map) = pod["metadata"].get_mut(field).and_then(Value::as_object_mut) {
                map.retain(|name, _| !self.covers.contains(name));
            }
        }
        pod
    }

    fn golden(&self) -> String {
        let pod = self.pod();
        let mut text = format!("# {}\n", self.about);
        let after = self.result(&pod);
        if self.covers.is_empty() {
            tell(&mut text, "", &after);
            if let Result::Injected(injected) = &after {
                text += &serde_yaml_ng::to_string(&injected.pod).unwrap();
            }
            return text;
        }
        let before = self.result(&self.without());
        tell(&mut text, "without: ", &before);
        tell(&mut text, "with: ", &after);
        if let (Result::Injected(before), Result::Injected(after)) = (before, after) {
            text += &facts::difference(&facts::of(&before.pod), &facts::of(&after.pod));
        }
        text
    }
}

fn tell(text: &mut String, when: &str, result: &Result) {
    let _ = match result {
        Result::Skipped(reason) => writeln!(text, "# {when}not injected: {reason}"),
        Result::Refused(why) => writeln!(text, "# {when}refused: {why}"),
        Result::Injected(injected) => {
            let _ = writeln!(text, "# {when}injected");
            injected.warnings.iter().try_for_each(|warning| writeln!(text, "# warning: {warning}"))
        }
    };
}

#[track_caller]
fn check(path: &Path, text: &str) {
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(path, text).unwrap();
    }
    let stored = std::fs::read_to_string(path).unwrap_or_default();
    assert!(stored == text, "{} is not up to date; now:\n{text}", path.display());
}

#[test]
fn golden_cases() {
    for (name, case) in cases() {
        // The version of the release is no matter of a case.
        let text = case.golden().replace(concat!("mesh-proxy:", env!("CARGO_PKG_VERSION")), "mesh-proxy:RELEASE");
        check(&folder().join(format!("{name}.golden")), &text);
    }
}

#[test]
fn every_golden_has_a_case() {
    let names: Vec<String> = cases().into_iter().map(|(name, _)| name).collect();
    for entry in std::fs::read_dir(folder()).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap();
        assert!(names.iter().any(|known| known == name), "{} has no case", path.display());
    }
}

/// A second injection gives the same pod, in every case.
#[test]
fn injecting_twice_is_injecting_once() {
    for (name, case) in cases() {
        if let Result::Injected(once) = case.admit(&case.pod()) {
            let Result::Injected(twice) = case.admit(&once.pod) else { panic!("{name}: not injected again") };
            let difference = facts::difference(&facts::of(&once.pod), &facts::of(&twice.pod));
            assert!(once.pod == twice.pod, "{name}:\n{difference}");
        }
    }
}

/// What the table says acts, changes something in a case that is about it; what it says is refused or named, is.
#[test]
fn every_annotation_and_label_has_a_case() {
    let cases = cases();
    let mut missing = Vec::new();
    for row in surface::rows().filter(|row| matches!(row.carrier, Carrier::PodAnnotation | Carrier::PodLabel)) {
        let field = if row.carrier == Carrier::PodLabel { "labels" } else { "annotations" };
        let about = cases.iter().filter(|(_, case)| {
            let pod = case.pod();
            case.covers.iter().any(|name| row.covers(name) && pod["metadata"][field].get(name).is_some())
        });
        let shown = about.into_iter().any(|(_, case)| {
            let (before, after) = (case.result(&case.without()), case.result(&case.pod()));
            match (row.effect, before, after) {
                (Effect::Acts, Result::Injected(before), Result::Injected(after)) => {
                    let difference = facts::difference(&facts::of(&before.pod), &facts::of(&after.pod));
                    let own = format!("{field}.{}", row.name.trim_end_matches('*'));
                    // The annotation itself is no effect of it.
                    difference.lines().any(|line| !line.contains(&own)) || line_removed(&difference, &own)
                }
                (Effect::Acts, Result::Injected(_), _) | (Effect::Acts, _, Result::Injected(_)) => true,
                (Effect::Refused(why), _, Result::Refused(message)) => {
                    message.contains(row.name) && message.contains(why)
                }
                (Effect::Named(why), _, Result::Injected(after)) => {
                    after.warnings.iter().any(|warning| warning.contains(row.name) && warning.contains(why))
                }
                _ => false,
            }
        });
        if !shown && !matches!(row.effect, Effect::Written | Effect::Elsewhere(_)) {
            missing.push(format!("{field} {}", row.name));
        }
    }
    assert!(missing.is_empty(), "no case shows what becomes of {missing:#?}");
}

/// Whether a value that injection would have written is another one.
fn line_removed(difference: &str, own: &str) -> bool {
    difference.lines().any(|line| line.starts_with('-') && line.contains(own))
}
