//! AuthorizationPolicies that no workload has, and namespaces that they name and nobody made.

use super::{Check, PROXY};
use crate::analyze::message::{Messages, NO_WORKLOADS};
use crate::analyze::objects::{Objects, Subject};
use crate::analyze::sorts::Sort;
use crate::analyze::view;

pub(super) const WORKLOADS: Check = Check {
    name: "authorizationpolicy.workloads",
    doc: "AuthorizationPolicies apply to some pod of the mesh",
    needs: &[Sort::POD],
    run: workloads,
};

pub(super) const NAMESPACES: Check = Check {
    name: "authorizationpolicy.namespaces",
    doc: "Namespaces that AuthorizationPolicies name exist",
    needs: &[Sort::NAMESPACE],
    run: namespaces,
};

fn workloads(objects: &Objects, messages: &mut Messages) {
    let pods: Vec<&Subject> = objects.of(Sort::POD).filter(|pod| in_mesh(objects, pod)).collect();
    for policy in objects.of(Sort::AUTHORIZATION_POLICY) {
        if !policy.list("spec.targetRefs").is_empty() || view::at(&policy.value, "spec.targetRef").is_some() {
            continue;
        }
        let mesh_wide = policy.namespace == objects.root_namespace;
        let selected = view::at(&policy.value, "spec.selector").is_some();
        if mesh_wide && !selected {
            continue;
        }
        let selector = policy.pairs("spec.selector.matchLabels");
        let applies = |pod: &&&Subject| {
            (mesh_wide || pod.namespace == policy.namespace) && view::selects(&selector, &pod.labels())
        };
        if pods.iter().find(applies).is_none() {
            let text = format!(
                "No matching workloads for this resource with the following labels: {}",
                view::written(&selector)
            );
            messages.tell(&NO_WORKLOADS, policy, "spec.selector", text);
        }
    }
}

/// Whether a pod has a proxy, or would have one if it were made now.
fn in_mesh(objects: &Objects, pod: &Subject) -> bool {
    const INJECT: &str = "sidecar.istio.io/inject";
    let has = |list: &str| pod.list(list).iter().any(|container| view::text(container, "name") == PROXY);
    if has("spec.containers") || has("spec.initContainers") {
        return true;
    }
    match pod.label(INJECT).or_else(|| pod.annotation(INJECT)) {
        Some(value) => value == "true",
        None => {
            let namespace = objects.find(Sort::NAMESPACE, "", &pod.namespace);
            namespace.is_some_and(|namespace| namespace.label("istio-injection") == Some("enabled"))
        }
    }
}

fn namespaces(objects: &Objects, messages: &mut Messages) {
    for policy in objects.of(Sort::AUTHORIZATION_POLICY) {
        for (rule, value) in policy.list("spec.rules").iter().enumerate() {
            for (from, value) in view::list(value, "from").iter().enumerate() {
                for field in ["namespaces", "notNamespaces"] {
                    for (index, name) in view::texts(value, &format!("source.{field}")).into_iter().enumerate() {
                        if !objects.of(Sort::NAMESPACE).any(|namespace| fits(&namespace.name, name)) {
                            let path = format!("spec.rules[{rule}].from[{from}].source.{field}[{index}]");
                            messages.not_found(policy, path, "namespace", name);
                        }
                    }
                }
            }
        }
    }
}

/// Whether a name fits a value that may begin or end with `*`.
fn fits(name: &str, value: &str) -> bool {
    match (value.strip_prefix('*'), value.strip_suffix('*')) {
        (Some(end), _) => name.ends_with(end),
        (None, Some(start)) => name.starts_with(start),
        (None, None) => name.eq_ignore_ascii_case(value),
    }
}
