//! Gateways that open one port for one host in one pod.

use std::collections::BTreeSet;

use serde_json::Value;

use super::Check;
use crate::analyze::message::{CONFLICTING_GATEWAYS, Messages};
use crate::analyze::objects::{Objects, Subject};
use crate::analyze::sorts::Sort;
use crate::analyze::view;

pub(super) const CHECK: Check = Check {
    name: "gateway.conflicts",
    doc: "No two Gateways open one port for one host in the same pods",
    needs: &[],
    run,
};

fn run(objects: &Objects, messages: &mut Messages) {
    let gateways: Vec<&Subject> = objects.of(Sort::GATEWAY).collect();
    for gateway in &gateways {
        let selector = gateway.pairs("spec.selector");
        let others: Vec<&&Subject> = gateways
            .iter()
            .filter(|other| other.index != gateway.index && share_pods(objects, gateway, other))
            .collect();
        for (index, server) in gateway.list("spec.servers").iter().enumerate() {
            let clashes = |other: &Subject| other.list("spec.servers").iter().any(|theirs| conflict(server, theirs));
            let names: BTreeSet<String> =
                others.iter().filter(|other| clashes(other)).map(|other| other.full_name()).collect();
            if names.is_empty() {
                continue;
            }
            let names: Vec<String> = names.into_iter().collect();
            let text = format!(
                "Conflict with gateways {} (workload selector {}, port {}, hosts {}).",
                names.join(","),
                view::written(&selector),
                view::number(server, "port.number").unwrap_or_default(),
                view::texts(server, "hosts").join(",")
            );
            messages.tell(&CONFLICTING_GATEWAYS, gateway, format!("spec.servers[{index}]"), text);
        }
    }
}

/// Whether they select the same pods: by the same labels, or by labels of which one set holds the other and a pod has all.
fn share_pods(objects: &Objects, one: &Subject, other: &Subject) -> bool {
    let (one, other) = (one.pairs("spec.selector"), other.pairs("spec.selector"));
    if one == other {
        return true;
    }
    let nested = view::selects(&one, &other) || view::selects(&other, &one);
    let takes = |pod: &Subject| view::selects(&one, &pod.labels()) && view::selects(&other, &pod.labels());
    nested && objects.of(Sort::POD).any(takes)
}

fn conflict(one: &Value, other: &Value) -> bool {
    let port = |server| view::number(server, "port.number");
    let (mine, theirs) = (view::texts(one, "hosts"), view::texts(other, "hosts"));
    port(one) == port(other)
        && view::text(one, "bind") == view::text(other, "bind")
        && mine.iter().any(|host| theirs.contains(host))
}
