//! DestinationRules for hosts that are not there, and subsets without pods.

use super::Check;
use crate::analyze::hosts::Hosts;
use crate::analyze::message::{Messages, SUBSET_WITHOUT_PODS, UNKNOWN_RULE_HOST};
use crate::analyze::objects::Objects;
use crate::analyze::sorts::Sort;
use crate::analyze::view;

pub(super) const CHECK: Check = Check {
    name: "destinationrule.subsets",
    doc: "Hosts of DestinationRules exist, and subsets select pods",
    needs: &[Sort::SERVICE, Sort::POD],
    run,
};

fn run(objects: &Objects, messages: &mut Messages) {
    let hosts = Hosts::new(objects);
    for rule in objects.of(Sort::DESTINATION_RULE) {
        let host = rule.text("spec.host");
        let Some(known) = hosts.find(&rule.namespace, &rule.texts("spec.exportTo"), host) else {
            let text =
                format!("The host {host} defined in the DestinationRule does not match any services in the mesh.");
            messages.tell(&UNKNOWN_RULE_HOST, rule, "spec.host", text);
            continue;
        };
        let selector = known.subject.pairs("spec.workloadSelector.labels");
        for (index, subset) in rule.list("spec.subsets").iter().enumerate() {
            let mut wanted = selector.clone();
            wanted.extend(view::pairs(subset, "labels"));
            let node = |name: &str| objects.find(Sort::NODE, "", name).map(|node| node.labels()).unwrap_or_default();
            // Labels of the node are those of its pods, too, where they name a place.
            let any = objects.of(Sort::POD).any(|pod| {
                let mut labels = node(pod.text("spec.nodeName"));
                labels.retain(|key, _| key.starts_with("topology.") || *key == "kubernetes.io/hostname");
                labels.extend(pod.labels());
                view::selects(&wanted, &labels)
            });
            if !any {
                let text = format!(
                    "The Subset {} defined in the DestinationRule does not select any pods. Which may lead to 503 UH \
                     (NoHealthyUpstream).",
                    view::text(subset, "name")
                );
                messages.tell(&SUBSET_WITHOUT_PODS, rule, format!("spec.subsets[{index}]"), text);
            }
        }
    }
}
