//! Namespaces: whether it is said that their pods belong to the mesh, and only once.

use mesh_api::inject::values::InjectValues;
use serde_json::Value;

use super::{Check, injector_map};
use crate::analyze::message::{
    INJECTED_BY_DEFAULT, MULTIPLE_INJECTION_LABELS, Messages, NAMESPACE_NOT_INJECTED, brackets,
};
use crate::analyze::objects::Objects;
use crate::analyze::sorts::Sort;
use crate::inject::IGNORED_NAMESPACES;

pub(super) const CHECK: Check = Check {
    name: "injection.namespaces",
    doc: "Namespaces say whether their pods belong to the mesh",
    needs: &[],
    run,
};

const INJECTION: &str = "istio-injection";
const REVISION: &str = "istio.io/rev";
const MODE: &str = "istio.io/dataplane-mode";

fn run(objects: &Objects, messages: &mut Messages) {
    let values = injector_map(objects, None).and_then(|map| InjectValues::parse(map.text("data.values")).ok());
    let by_default = values.is_some_and(|(values, _)| {
        values.raw.pointer("/sidecarInjectorWebhook/enableNamespacesByDefault").and_then(Value::as_bool) == Some(true)
    });
    for namespace in objects.of(Sort::NAMESPACE) {
        if namespace.name == objects.root_namespace || IGNORED_NAMESPACES.contains(&namespace.name.as_str()) {
            continue;
        }
        let injection = namespace.label(INJECTION);
        let mut labels: Vec<String> = injection.map(|value| format!("{INJECTION}={value}")).into_iter().collect();
        if injection.is_none_or(|value| value == "enabled") {
            let more = [REVISION, MODE].into_iter();
            labels.extend(more.filter_map(|key| namespace.label(key).map(|value| format!("{key}={value}"))));
        }
        if labels.len() > 1 {
            let text = format!(
                "The namespace has more than one type of injection labels {}, which may lead to undefined behavior. Make sure \
                 only one injection label exists.",
                brackets(&labels)
            );
            messages.tell(&MULTIPLE_INJECTION_LABELS, namespace, "metadata.labels", text);
        }
        let said = injection.is_some_and(|value| !value.is_empty()) || namespace.label(REVISION).is_some();
        if !said && namespace.label(MODE) != Some("ambient") {
            if by_default {
                let text =
                    "is enabled for Istio injection, as Istio is installed with enableNamespacesByDefault as true.";
                messages.tell(&INJECTED_BY_DEFAULT, namespace, "metadata.name", text);
                continue;
            }
            let name = &namespace.name;
            let text = format!(
                "The namespace is not enabled for Istio injection. Run 'kubectl label namespace {name} \
                 istio-injection=enabled' to enable it, or 'kubectl label namespace {name} istio-injection=disabled' to \
                 explicitly mark it as not needing injection."
            );
            messages.tell(&NAMESPACE_NOT_INJECTED, namespace, "metadata.name", text);
        }
    }
}
