//! Policies that select the pods of a Gateway API gateway by labels, which has no effect there.

use super::Check;
use crate::analyze::message::{INEFFECTIVE_SELECTOR, Messages};
use crate::analyze::objects::Objects;
use crate::analyze::sorts::Sort;
use crate::analyze::view;

pub(super) const CHECK: Check =
    Check { name: "k8sgateway.selectors", doc: "No policy selects Gateway API gateways by labels", needs: &[], run };

const POLICIES: [Sort; 4] =
    [Sort::AUTHORIZATION_POLICY, Sort::REQUEST_AUTHENTICATION, Sort::TELEMETRY, Sort::WASM_PLUGIN];
const GATEWAY: &str = "gateway.networking.k8s.io/gateway-name";

fn run(objects: &Objects, messages: &mut Messages) {
    for policy in POLICIES.into_iter().flat_map(|sort| objects.of(sort)) {
        if view::at(&policy.value, "spec.targetRef").is_some() || view::at(&policy.value, "spec.selector").is_none() {
            continue;
        }
        let selector = policy.pairs("spec.selector.matchLabels");
        for pod in objects.of(Sort::POD).filter(|pod| pod.namespace == policy.namespace) {
            let labels = pod.labels();
            if let Some(gateway) = labels.get(GATEWAY).filter(|_| view::selects(&selector, &labels)) {
                let text =
                    format!("Ineffective selector on Kubernetes Gateway {gateway}. Use the TargetRef field instead.");
                messages.tell(&INEFFECTIVE_SELECTOR, policy, "spec.selector", text);
            }
        }
    }
}
