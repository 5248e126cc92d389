//! `image: auto`, for which injection puts the proxy's image: without injection the pod cannot start.

use serde_json::Value;

use super::{Check, PROXY};
use crate::analyze::message::{IMAGE_AUTO_DEPLOYMENT, IMAGE_AUTO_POD, Messages};
use crate::analyze::objects::Objects;
use crate::analyze::sorts::Sort;
use crate::analyze::view;

pub(super) const PODS: Check = Check {
    name: "injection.image-auto-pods",
    doc: "No pod is left with `image: auto`",
    needs: &[],
    run: |objects, messages| {
        for pod in objects.of(Sort::POD).filter(|pod| is_auto(pod.list("spec.containers"))) {
            messages.tell(&IMAGE_AUTO_POD, pod, "spec.containers", text("Pod", &pod.name));
        }
    },
};

pub(super) const DEPLOYMENTS: Check = Check {
    name: "injection.image-auto-deployments",
    doc: "Deployments with `image: auto` are injected",
    needs: &[Sort::NAMESPACE, Sort::MUTATING_WEBHOOK],
    run: deployments,
};

fn deployments(objects: &Objects, messages: &mut Messages) {
    let webhooks: Vec<&Value> = objects
        .of(Sort::MUTATING_WEBHOOK)
        .flat_map(|configuration| configuration.list("webhooks"))
        .filter(|webhook| view::text(webhook, "name").ends_with("istio.io"))
        .collect();
    for deployment in objects.of(Sort::DEPLOYMENT) {
        if !is_auto(deployment.list("spec.template.spec.containers")) {
            continue;
        }
        let namespace = objects.find(Sort::NAMESPACE, "", &deployment.namespace);
        let namespace = namespace.map(|namespace| namespace.labels()).unwrap_or_default();
        let labels = deployment.pairs("spec.template.metadata.labels");
        let takes = |webhook: &&Value| {
            view::fits(view::at(webhook, "namespaceSelector"), &namespace)
                && view::fits(view::at(webhook, "objectSelector"), &labels)
        };
        if !webhooks.iter().any(takes) {
            let text = text("Deployment", &deployment.name);
            messages.tell(&IMAGE_AUTO_DEPLOYMENT, deployment, "spec.template.spec.containers", text);
        }
    }
}

fn is_auto(containers: &[Value]) -> bool {
    containers
        .iter()
        .any(|container| view::text(container, "name") == PROXY && view::text(container, "image") == "auto")
}

fn text(kind: &str, name: &str) -> String {
    format!("{kind} {name} contains `image: auto` but does not match any Istio injection webhook selectors.")
}
