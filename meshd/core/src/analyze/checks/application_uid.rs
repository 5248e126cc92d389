//! Applications that run as the proxy's user: their connections are not captured.

use serde_json::Value;

use super::{Check, PROXY};
use crate::analyze::message::{INVALID_UID, Messages};
use crate::analyze::objects::Objects;
use crate::analyze::sorts::Sort;
use crate::analyze::view;

pub(super) const CHECK: Check =
    Check { name: "pod.user", doc: "No application runs as the proxy's user", needs: &[], run };

/// The proxy's user.
const PROXY_UID: u64 = 1337;

fn run(objects: &Objects, messages: &mut Messages) {
    for (sort, spec) in [(Sort::POD, "spec"), (Sort::DEPLOYMENT, "spec.template.spec")] {
        for subject in objects.of(sort) {
            if subject.label("app") == Some("istiod") || subject.label("istio") == Some("pilot") {
                continue;
            }
            let Some(pod) = view::at(&subject.value, spec) else { continue };
            if user(pod) == Some(PROXY_UID) {
                told(subject, &format!("{spec}.securityContext.runAsUser"), messages);
            }
            for (index, container) in view::list(pod, "containers").iter().enumerate() {
                if view::text(container, "name") != PROXY && user(container) == Some(PROXY_UID) {
                    told(subject, &format!("{spec}.containers[{index}].securityContext.runAsUser"), messages);
                }
            }
        }
    }
}

fn told(subject: &crate::analyze::objects::Subject, path: &str, messages: &mut Messages) {
    // A pod with a proxy runs it as that user for the pod as a whole, too: gateways do.
    if subject.list("spec.containers").iter().any(|container| view::text(container, "name") == PROXY)
        && path == "spec.securityContext.runAsUser"
    {
        return;
    }
    messages.tell(&INVALID_UID, subject, path, "User ID (UID) 1337 is reserved for the sidecar proxy.");
}

fn user(value: &Value) -> Option<u64> {
    view::number(value, "securityContext.runAsUser")
}
