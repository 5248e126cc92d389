//! Routes by claims of tokens that nobody verifies.

use serde_json::Value;

use super::{Check, MESH};
use crate::analyze::message::{CLAIM_WITHOUT_AUTHN, Messages};
use crate::analyze::objects::{Objects, Subject};
use crate::analyze::sorts::Sort;
use crate::analyze::view;

pub(super) const CHECK: Check = Check {
    name: "virtualservice.claims",
    doc: "Gateways that route by claims of tokens verify them",
    needs: &[Sort::POD],
    run,
};

/// How a header is called that stands for a claim.
const CLAIM: &str = "@request.auth.claims";

fn run(objects: &Objects, messages: &mut Messages) {
    for service in objects.of(Sort::VIRTUAL_SERVICE) {
        let Some(key) = claim(service) else { continue };
        for name in service.texts("spec.gateways").into_iter().filter(|name| *name != MESH) {
            let (namespace, bare) = super::qualified(name, &service.namespace);
            let Some(gateway) = objects.find(Sort::GATEWAY, namespace, bare) else { continue };
            let selector = gateway.pairs("spec.selector");
            for pod in objects.of(Sort::POD).filter(|pod| view::selects(&selector, &pod.labels())) {
                if !verifies(objects, pod) {
                    let text = format!(
                        "The virtual service uses the JWT claim based routing (key: {key}) but found no request \
                         authentication for the gateway ({namespace}/{bare}) pod ({}). The request authentication must \
                         first be applied for the gateway pods to validate the JWT token and make the claims available \
                         for routing.",
                        pod.name
                    );
                    messages.tell(&CLAIM_WITHOUT_AUTHN, service, "spec.http", text);
                }
            }
        }
    }
}

fn claim(service: &Subject) -> Option<&str> {
    let matches = service.list("spec.http").iter().flat_map(|route| view::list(route, "match"));
    let headers = matches.flat_map(|one| ["headers", "withoutHeaders"].map(|field| view::at(one, field)));
    let keys = headers.flatten().filter_map(Value::as_object).flat_map(|fields| fields.keys());
    keys.into_iter().find(|key| key.to_ascii_lowercase().starts_with(CLAIM)).map(String::as_str)
}

fn verifies(objects: &Objects, pod: &Subject) -> bool {
    objects.of(Sort::REQUEST_AUTHENTICATION).any(|policy| {
        (policy.namespace == objects.root_namespace || policy.namespace == pod.namespace)
            && view::selects(&policy.pairs("spec.selector.matchLabels"), &pod.labels())
    })
}
