//! Finding the pods that a user means: `web-1`, `web-1.shop`, `deploy/web`, `svc/web.shop`, or a label selector.

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::ResourceExt as _;
use kube::api::{Api, DynamicObject, ListParams};
use kube::core::{ApiResource, GroupVersionKind};
use serde_json::Value;

use super::client::{Kube, failed, optional};
use crate::error::CliError;

/// What a user means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Its kind; pods without one.
    pub kind: Workload,
    /// Its name.
    pub name: String,
    /// Its namespace, when it is said.
    pub namespace: Option<String>,
}

/// A kind of object that has pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Workload {
    /// The kind.
    pub kind: &'static str,
    /// Its group.
    pub group: &'static str,
    /// Its version.
    pub version: &'static str,
    /// Other names of it.
    names: &'static [&'static str],
}

const fn workload(kind: &'static str, group: &'static str, names: &'static [&'static str]) -> Workload {
    Workload { kind, group, version: "v1", names }
}

/// What can be named, with the names that kubectl takes.
const WORKLOADS: [Workload; 8] = [
    workload("Pod", "", &["pod", "pods", "po"]),
    workload("Deployment", "apps", &["deployment", "deployments", "deploy"]),
    workload("StatefulSet", "apps", &["statefulset", "statefulsets", "sts"]),
    workload("DaemonSet", "apps", &["daemonset", "daemonsets", "ds"]),
    workload("ReplicaSet", "apps", &["replicaset", "replicasets", "rs"]),
    workload("Job", "batch", &["job", "jobs"]),
    workload("Service", "", &["service", "services", "svc"]),
    workload("Gateway", "gateway.networking.k8s.io", &["gateway", "gateways", "gtw", "gw"]),
];

/// The label by which pods of a Gateway API gateway are found.
const GATEWAY_LABEL: &str = "gateway.networking.k8s.io/gateway-name";

impl Target {
    /// Reads `[kind/]name[.namespace]`.
    ///
    /// # Errors
    /// When it is empty, or of a kind that has no pods.
    pub fn parse(text: &str) -> Result<Self, CliError> {
        let (kind, name) = text.split_once('/').unwrap_or(("pod", text));
        // `deployment.apps/web` is a way to write it, too.
        let kind = kind.split('.').next().unwrap_or_default();
        let known = WORKLOADS.iter().find(|known| known.names.iter().any(|name| name.eq_ignore_ascii_case(kind)));
        let kind = *known.ok_or_else(|| {
            let names: Vec<&str> = WORKLOADS.iter().filter_map(|known| known.names.first().copied()).collect();
            CliError::user(format!("{kind} is nothing that has pods")).hint(format!("one of {}", names.join(", ")))
        })?;
        let (name, namespace) = match name.rsplit_once('.') {
            Some((name, namespace)) => (name, Some(namespace.to_owned())),
            None => (name, None),
        };
        if name.is_empty() || namespace.as_deref() == Some("") {
            return Err(
                CliError::user(format!("{text:?} names nothing")).hint("[kind/]name[.namespace], as deploy/web.shop")
            );
        }
        Ok(Self { kind, name: name.to_owned(), namespace })
    }
}

/// The pods that `text` names, those first that kubectl would take for logs.
///
/// # Errors
/// When there are none.
pub async fn pods(kube: &Kube, text: &str) -> Result<Vec<Pod>, CliError> {
    let target = Target::parse(text)?;
    let namespace = target.namespace.clone().unwrap_or_else(|| kube.namespace.clone());
    let what = format!("{}/{} in {namespace}", target.kind.kind.to_lowercase(), target.name);
    let api: Api<Pod> = Api::namespaced(kube.client.clone(), &namespace);
    if target.kind.kind == "Pod" {
        return match optional(format!("cannot read {what}"), api.get(&target.name).await)? {
            Some(pod) => Ok(vec![pod]),
            None => Err(absent(&what, &namespace)),
        };
    }
    let selector = match target.kind.kind {
        "Gateway" => format!("{GATEWAY_LABEL}={}", target.name),
        _ => {
            let Workload { group, version, kind, .. } = target.kind;
            let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind));
            let objects: Api<DynamicObject> = Api::namespaced_with(kube.client.clone(), &namespace, &resource);
            let object = optional(format!("cannot read {what}"), objects.get(&target.name).await)?;
            let object = object.ok_or_else(|| absent(&what, &namespace))?;
            selector(&object.data, kind).ok_or_else(|| CliError::user(format!("{what} selects no pods")))?
        }
    };
    let found = selected(kube, Some(&namespace), &selector).await?;
    if found.is_empty() { Err(CliError::user(format!("{what} has no pods"))) } else { Ok(found) }
}

/// The first pod of [`pods`].
///
/// # Errors
/// When there is none.
pub async fn pod(kube: &Kube, text: &str) -> Result<Pod, CliError> {
    pods(kube, text).await?.into_iter().next().ok_or_else(|| CliError::user(format!("{text} has no pods")))
}

/// The pods with some labels, in a namespace or in all, those first that kubectl would take for logs.
///
/// # Errors
/// When they cannot be listed.
pub async fn selected(kube: &Kube, namespace: Option<&str>, selector: &str) -> Result<Vec<Pod>, CliError> {
    let api: Api<Pod> = match namespace {
        Some(namespace) => Api::namespaced(kube.client.clone(), namespace),
        None => Api::all(kube.client.clone()),
    };
    let list = api.list(&ListParams::default().labels(selector)).await;
    let mut found = list.map_err(|error| failed(format!("cannot list pods with {selector}"), &error))?.items;
    found.sort_by_cached_key(|pod| (!is_running(pod), !is_ready(pod), pod.name_any()));
    Ok(found)
}

fn absent(what: &str, namespace: &str) -> CliError {
    CliError::user(format!("there is no {what}"))
        .hint(format!("kubectl get all -n {namespace}; -n names another namespace"))
}

/// Whether its containers run.
#[must_use]
pub fn is_running(pod: &Pod) -> bool {
    let running = pod.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Running");
    running && pod.metadata.deletion_timestamp.is_none()
}

/// Whether its condition `Ready` is true.
#[must_use]
pub fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.into_iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

/// The label selector of an object, as text.
fn selector(object: &Value, kind: &str) -> Option<String> {
    let spec = object.pointer("/spec/selector")?;
    let selector: LabelSelector = if kind == "Service" {
        LabelSelector { match_labels: serde_json::from_value(spec.clone()).ok()?, match_expressions: None }
    } else {
        serde_json::from_value(spec.clone()).ok()?
    };
    text(&selector)
}

/// `a=b,c in (d,e)`; `None` for a selector without a term, which must not become one that takes everything.
fn text(selector: &LabelSelector) -> Option<String> {
    let labels = selector.match_labels.iter().flatten().map(|(key, value)| format!("{key}={value}"));
    let expressions = selector.match_expressions.iter().flatten().map(|term| {
        let values = term.values.as_deref().unwrap_or_default().join(",");
        match term.operator.as_str() {
            "In" => format!("{} in ({values})", term.key),
            "NotIn" => format!("{} notin ({values})", term.key),
            "DoesNotExist" => format!("!{}", term.key),
            _ => term.key.clone(),
        }
    });
    let terms: Vec<String> = labels.chain(expressions).collect();
    (!terms.is_empty()).then(|| terms.join(","))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[track_caller]
    fn check(text: &str, kind: &str, name: &str, namespace: Option<&str>) {
        let target = Target::parse(text).unwrap();
        assert_eq!((target.kind.kind, target.name.as_str(), target.namespace.as_deref()), (kind, name, namespace));
    }

    #[test]
    fn names_are_kubectls() {
        check("web-1", "Pod", "web-1", None);
        check("web-1.shop", "Pod", "web-1", Some("shop"));
        check("deploy/web", "Deployment", "web", None);
        check("deployment.apps/web.shop", "Deployment", "web", Some("shop"));
        check("SVC/web", "Service", "web", None);
        assert!(Target::parse("configmap/x").unwrap_err().to_string().contains("one of pod, deployment"));
        for empty in ["", "pod/", "web.", ".shop"] {
            assert!(Target::parse(empty).is_err(), "{empty}");
        }
    }

    #[test]
    fn selectors_of_workloads_and_services_are_read() {
        let workload = json!({ "spec": { "selector": { "matchLabels": { "app": "web" },
            "matchExpressions": [{ "key": "tier", "operator": "In", "values": ["a", "b"] },
                                 { "key": "old", "operator": "DoesNotExist" }] } } });
        assert_eq!(selector(&workload, "Deployment").as_deref(), Some("app=web,tier in (a,b),!old"));
        let service = json!({ "spec": { "selector": { "app": "web", "tier": "a" } } });
        assert_eq!(selector(&service, "Service").as_deref(), Some("app=web,tier=a"));
        assert_eq!(selector(&json!({ "spec": {} }), "Service"), None);
        assert_eq!(selector(&json!({ "spec": { "selector": {} } }), "Service"), None, "nothing is not everything");
    }

    #[test]
    fn a_running_and_ready_pod_comes_first() {
        let pod = |phase: &str, ready: &str| -> Pod {
            serde_json::from_value(json!({ "metadata": { "name": "a" },
                "status": { "phase": phase, "conditions": [{ "type": "Ready", "status": ready }] } }))
            .unwrap()
        };
        assert!(is_running(&pod("Running", "False")) && !is_ready(&pod("Running", "False")));
        assert!(!is_running(&pod("Pending", "False")) && is_ready(&pod("Running", "True")));
    }
}
