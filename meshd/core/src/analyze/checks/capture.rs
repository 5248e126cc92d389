//! Sidecars to which nothing leads their pod's traffic.

use serde_json::Value;

use super::{Check, PROXY};
use crate::analyze::message::{Messages, NO_CAPTURE};
use crate::analyze::objects::{Objects, Subject};
use crate::analyze::sorts::Sort;
use crate::analyze::view;

pub(super) const CHECK: Check = Check {
    name: "pod.capture",
    doc: "Where there is a sidecar, the pod's traffic is led through it",
    needs: &[],
    run,
};

/// Init containers of which one writes the rules, or checks those of the node's CNI plugin.
const CAPTURES: [&str; 2] = ["istio-init", "istio-validation"];
const MODE_ANNOTATION: &str = "sidecar.istio.io/interceptionMode";
const MODE_VARIABLE: &str = "ISTIO_META_INTERCEPTION_MODE";

fn run(objects: &Objects, messages: &mut Messages) {
    for (sort, at) in [(Sort::POD, ""), (Sort::DEPLOYMENT, "spec.template")] {
        for subject in objects.of(sort) {
            let pod = if at.is_empty() { Some(&subject.value) } else { view::at(&subject.value, at) };
            if pod.is_some_and(is_passed_by) {
                let path = format!("{at}{}spec.initContainers", if at.is_empty() { "" } else { "." });
                told(subject, path, messages);
            }
        }
    }
}

/// Whether there is a sidecar that nothing leads traffic to, though it waits for some.
fn is_passed_by(pod: &Value) -> bool {
    let (own, init) = (view::list(pod, "spec.containers"), view::list(pod, "spec.initContainers"));
    let name = |container: &Value| view::text(container, "name").to_owned();
    let Some(proxy) = own.iter().chain(init).find(|container| name(container) == PROXY) else { return false };
    // A gateway's proxy is reached by its own ports.
    let is_sidecar = own.iter().any(|container| name(container) != PROXY);
    let annotation = view::pairs(pod, "metadata.annotations").get(MODE_ANNOTATION).copied();
    let variables = view::list(proxy, "env").iter();
    let variable = variables.filter(|variable| view::text(variable, "name") == MODE_VARIABLE);
    let mut modes = variable.map(|variable| view::text(variable, "value")).chain(annotation);
    let captured = init.iter().any(|container| CAPTURES.contains(&name(container).as_str()));
    is_sidecar && !captured && !modes.any(|mode| mode == "NONE")
}

fn told(subject: &Subject, path: String, messages: &mut Messages) {
    let text = "The pod has a sidecar, but neither istio-init nor istio-validation: nothing makes sure that its traffic is led \
                through the sidecar.";
    messages.tell(&NO_CAPTURE, subject, path, text);
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(containers: &[&str], init: &[&str], mode: &str) -> Value {
        let named = |names: &[&str]| -> Vec<Value> {
            names
                .iter()
                .map(|name| json!({ "name": name, "env": [{ "name": MODE_VARIABLE, "value": mode }] }))
                .collect()
        };
        json!({ "spec": { "containers": named(containers), "initContainers": named(init) } })
    }

    #[test]
    fn a_sidecar_needs_rules_and_a_gateway_none() {
        assert!(is_passed_by(&pod(&["web", PROXY], &[], "REDIRECT")));
        assert!(is_passed_by(&pod(&["web"], &[PROXY], "REDIRECT")), "a native sidecar");
        assert!(!is_passed_by(&pod(&["web"], &["istio-init", PROXY], "REDIRECT")));
        assert!(
            !is_passed_by(&pod(&["web", PROXY], &["istio-validation"], "REDIRECT")),
            "the node's CNI plugin writes them"
        );
        assert!(!is_passed_by(&pod(&["web", PROXY], &[], "NONE")));
        assert!(!is_passed_by(&pod(&[PROXY], &[], "REDIRECT")));
        assert!(!is_passed_by(&pod(&["web"], &[], "")));
        let mut annotated = pod(&["web", PROXY], &[], "");
        annotated["metadata"] = json!({ "annotations": { MODE_ANNOTATION: "NONE" } });
        assert!(!is_passed_by(&annotated));
    }
}
