//! Gateways without pods, and gateway ports that the gateway's Service does not have.

use std::collections::BTreeSet;

use super::Check;
use crate::analyze::message::{GATEWAY_PORT, Messages};
use crate::analyze::objects::{Objects, Subject};
use crate::analyze::sorts::Sort;
use crate::analyze::view;

pub(super) const CHECK: Check = Check {
    name: "gateway.workloads",
    doc: "Gateways select pods, whose Services have the gateway's ports",
    needs: &[Sort::POD],
    run,
};

fn run(objects: &Objects, messages: &mut Messages) {
    for gateway in objects.of(Sort::GATEWAY) {
        let selector = gateway.pairs("spec.selector");
        let path = selector.keys().next().map_or_else(|| "spec".to_owned(), |key| format!("spec.selector.{key}"));
        let pods: Vec<&Subject> = objects.of(Sort::POD).filter(|pod| view::selects(&selector, &pod.labels())).collect();
        if pods.is_empty() {
            messages.not_found(gateway, path, "selector", &view::written(&selector));
            continue;
        }
        let open = open_ports(objects, &pods);
        for server in gateway.list("spec.servers") {
            let Some(port) = view::number(server, "port.number") else { continue };
            if !open.contains(&port) {
                let text = format!(
                    "The gateway is listening on a target port (port {port}) that is not defined in the Service associated \
                     with its workload instances (Pod selector {}). If you need to access the gateway port through the \
                     gateway Service, it will not be available.",
                    view::written(&selector)
                );
                messages.tell(&GATEWAY_PORT, gateway, path.clone(), text);
            }
        }
    }
}

/// TCP ports at which Services reach the pods: the pods' own, and the Services'.
fn open_ports(objects: &Objects, pods: &[&Subject]) -> BTreeSet<u64> {
    let mut open = BTreeSet::new();
    for service in objects.of(Sort::SERVICE) {
        let selector = service.pairs("spec.selector");
        let selects = |pod: &&&Subject| pod.namespace == service.namespace && view::selects(&selector, &pod.labels());
        if pods.iter().find(selects).is_none() {
            continue;
        }
        for port in service.list("spec.ports").iter().filter(|port| matches!(view::text(port, "protocol"), "" | "TCP"))
        {
            open.extend(view::number(port, "port"));
            open.extend(view::number(port, "targetPort"));
        }
    }
    open
}
