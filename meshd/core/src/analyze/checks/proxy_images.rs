//! Pods whose proxy is of another image than injection would give them now, as after an upgrade.

use std::collections::BTreeMap;

use mesh_api::inject::values::InjectValues;

use super::{Check, PROXY, injector_map};
use crate::analyze::message::{IMAGE_MISMATCH, Messages, brackets};
use crate::analyze::objects::{Objects, Subject};
use crate::analyze::sorts::Sort;
use crate::analyze::view;

pub(super) const CHECK: Check = Check {
    name: "injection.images",
    doc: "Proxies of pods have the image that injection gives",
    needs: &[Sort::NAMESPACE, Sort::CONFIG_MAP],
    run,
};

fn run(objects: &Objects, messages: &mut Messages) {
    for namespace in objects.of(Sort::NAMESPACE) {
        let revision = namespace.label("istio.io/rev");
        if revision.is_none() && namespace.label("istio-injection") != Some("enabled") {
            continue;
        }
        let Some(values) = injector_map(objects, revision).map(values) else { continue };
        let expected = expected(&values);
        let mut others: BTreeMap<&str, ()> = BTreeMap::new();
        for pod in objects.of(Sort::POD).filter(|pod| pod.namespace == namespace.name) {
            // Who names an image wants it, whatever is configured.
            if pod.annotation("sidecar.istio.io/proxyImage").is_some_and(|image| !image.is_empty()) {
                continue;
            }
            let containers = pod.list("spec.containers").iter().chain(pod.list("spec.initContainers"));
            let mut images = containers
                .filter(|container| view::text(container, "name") == PROXY)
                .map(|container| view::text(container, "image"));
            if images.any(|image| !is_expected(image, &expected)) {
                others.insert(&pod.name, ());
            }
        }
        if !others.is_empty() {
            let text = format!(
                "The Istio proxy images of the pods running in the namespace do not match the image defined in the injection \
                 configuration (pod names: {}). This often happens after upgrading the Istio control-plane and can be fixed \
                 by redeploying the pods.",
                brackets(others.into_keys())
            );
            messages.tell(&IMAGE_MISMATCH, namespace, "metadata.name", text);
        }
    }
}

fn values(map: &Subject) -> InjectValues {
    InjectValues::parse(map.text("data.values")).map(|(values, _)| values).unwrap_or_default()
}

fn expected(values: &InjectValues) -> String {
    let image = &values.proxy.image;
    if image.contains('/') { image.clone() } else { format!("{}/{image}:{}", values.hub, values.tag) }
}

/// Whether an image is the expected one, in whichever variant.
fn is_expected(image: &str, expected: &str) -> bool {
    image.strip_prefix(expected).is_some_and(|rest| matches!(rest, "" | "-distroless" | "-debug"))
}
