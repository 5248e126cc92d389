//! Pods of the mesh without a proxy.

use super::{Check, PROXY};
use crate::analyze::message::{Messages, POD_MISSING_PROXY};
use crate::analyze::objects::Objects;
use crate::analyze::sorts::Sort;
use crate::analyze::view;

pub(super) const CHECK: Check = Check {
    name: "injection.pods",
    doc: "Pods of namespaces in the mesh have a proxy",
    needs: &[Sort::NAMESPACE],
    run,
};

const INJECT: &str = "sidecar.istio.io/inject";

fn run(objects: &Objects, messages: &mut Messages) {
    for pod in objects.of(Sort::POD) {
        let namespace = objects.find(Sort::NAMESPACE, "", &pod.namespace);
        let injected = namespace.is_some_and(|namespace| {
            let label = namespace.label("istio-injection");
            label == Some("enabled") || (label.is_none() && namespace.label("istio.io/rev").is_some())
        });
        let refused = pod.label(INJECT).or_else(|| pod.annotation(INJECT));
        let refused = refused.is_some_and(|value| value.eq_ignore_ascii_case("false"));
        let host_network = view::at(&pod.value, "spec.hostNetwork").and_then(serde_json::Value::as_bool);
        // A pod that is done needs none.
        let done = matches!(pod.text("status.phase"), "Succeeded" | "Failed");
        if !injected || refused || host_network == Some(true) || done {
            continue;
        }
        let has = |list: &str| pod.list(list).iter().any(|container| view::text(container, "name") == PROXY);
        if !has("spec.containers") && !has("spec.initContainers") {
            let text = format!(
                "The pod {} is missing the Istio proxy. This can often be resolved by restarting or redeploying the workload.",
                pod.full_name()
            );
            messages.tell(&POD_MISSING_PROXY, pod, "metadata.name", text);
        }
    }
}
