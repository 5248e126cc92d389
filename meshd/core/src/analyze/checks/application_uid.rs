//! Applications that run as the proxy's user: their connections are not captured.

use serde_json::Value;

use super::{Check, PROXY};
use crate::analyze::message::{INVALID_UID, Messages};
use crate::analyze::objects::{Objects, Subject};
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
            let is_proxy = |container: &Value| view::text(container, "name") == PROXY;
            let only_proxy = view::list(pod, "containers").iter().all(is_proxy);
            // A gateway runs its proxy as that user for the pod as a whole.
            if user(pod) == Some(PROXY_UID) && !only_proxy {
                told(subject, &format!("{spec}.securityContext.runAsUser"), messages);
            }
            for (index, container) in view::list(pod, "containers").iter().enumerate() {
                if !is_proxy(container) && user(container) == Some(PROXY_UID) {
                    told(subject, &format!("{spec}.containers[{index}].securityContext.runAsUser"), messages);
                }
            }
        }
    }
}

fn told(subject: &Subject, path: &str, messages: &mut Messages) {
    messages.tell(&INVALID_UID, subject, path, "User ID (UID) 1337 is reserved for the sidecar proxy.");
}

fn user(value: &Value) -> Option<u64> {
    view::number(value, "securityContext.runAsUser")
}
