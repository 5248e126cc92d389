//! Applications that run as the proxy's user or group: their connections are not captured.

use serde_json::Value;

use super::{Check, PROXY};
use crate::analyze::message::{INVALID_UID, Messages};
use crate::analyze::objects::Objects;
use crate::analyze::sorts::Sort;
use crate::analyze::view;

pub(super) const CHECK: Check =
    Check { name: "pod.user", doc: "No application runs as the proxy's user or group", needs: &[], run };

/// The proxy's user and group.
const PROXY_ID: u64 = 1337;
/// Fields, and what is told of each. Istio looks at users only.
const IDS: [(&str, &str); 2] = [
    ("runAsUser", "User ID (UID) 1337 is reserved for the sidecar proxy."),
    ("runAsGroup", "Group ID (GID) 1337 is reserved for the sidecar proxy."),
];

fn run(objects: &Objects, messages: &mut Messages) {
    for (sort, spec) in [(Sort::POD, "spec"), (Sort::DEPLOYMENT, "spec.template.spec")] {
        for subject in objects.of(sort) {
            if subject.label("app") == Some("istiod") || subject.label("istio") == Some("pilot") {
                continue;
            }
            let Some(pod) = view::at(&subject.value, spec) else { continue };
            let is_proxy = |container: &Value| view::text(container, "name") == PROXY;
            let only_proxy = view::list(pod, "containers").iter().all(is_proxy);
            for (field, text) in IDS {
                // A gateway runs its proxy as that user for the pod as a whole.
                if id(pod, field) == Some(PROXY_ID) && !only_proxy {
                    messages.tell(&INVALID_UID, subject, format!("{spec}.securityContext.{field}"), text);
                }
                for (index, container) in view::list(pod, "containers").iter().enumerate() {
                    if !is_proxy(container) && id(container, field) == Some(PROXY_ID) {
                        let path = format!("{spec}.containers[{index}].securityContext.{field}");
                        messages.tell(&INVALID_UID, subject, path, text);
                    }
                }
            }
        }
    }
}

fn id(value: &Value, field: &str) -> Option<u64> {
    view::number(value, &format!("securityContext.{field}"))
}
