//! Deployments behind several Services that do not agree about a port.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::{Check, PROXY};
use crate::analyze::message::{CONFLICTING_PORTS, MULTIPLE_SERVICES, Messages, brackets};
use crate::analyze::objects::{Objects, Subject};
use crate::analyze::sorts::Sort;
use crate::analyze::view;

pub(super) const CHECK: Check = Check {
    name: "deployment.services",
    doc: "Services of one Deployment agree about its ports",
    needs: &[Sort::SERVICE],
    run,
};

const TEMPLATE: &str = "spec.template.metadata";

fn run(objects: &Objects, messages: &mut Messages) {
    for deployment in objects.of(Sort::DEPLOYMENT).filter(|deployment| in_mesh(objects, deployment)) {
        let labels = deployment.pairs(&format!("{TEMPLATE}.labels"));
        let selects = |service: &&Subject| {
            let selector = service.pairs("spec.selector");
            service.namespace == deployment.namespace && !selector.is_empty() && view::selects(&selector, &labels)
        };
        let services: Vec<&Subject> = objects.of(Sort::SERVICE).filter(selects).collect();
        protocols(deployment, &services, messages);
        targets(deployment, &services, messages);
    }
}

fn in_mesh(objects: &Objects, deployment: &Subject) -> bool {
    const INJECT: &str = "sidecar.istio.io/inject";
    let containers = deployment.list("spec.template.spec.containers");
    if containers.iter().any(|container| view::text(container, "name") == PROXY) {
        return true;
    }
    let said = |place: &str| deployment.pairs(&format!("{TEMPLATE}.{place}")).get(INJECT).map(|value| *value == "true");
    said("labels").or_else(|| said("annotations")).unwrap_or_else(|| {
        let namespace = objects.find(Sort::NAMESPACE, "", &deployment.namespace);
        namespace.is_some_and(|namespace| namespace.label("istio-injection") == Some("enabled"))
    })
}

fn protocols(deployment: &Subject, services: &[&Subject], messages: &mut Messages) {
    let mut by_port: BTreeMap<u64, BTreeMap<&str, Vec<String>>> = BTreeMap::new();
    for service in services {
        for port in service.list("spec.ports") {
            let protocol = match view::text(port, "protocol") {
                "" => "TCP",
                protocol => protocol,
            };
            let number = view::number(port, "port").unwrap_or_default();
            by_port.entry(number).or_default().entry(protocol).or_default().push(service.full_name());
        }
    }
    for (port, protocols) in by_port.into_iter().filter(|(_, protocols)| protocols.len() > 1) {
        let mut names: Vec<String> = protocols.into_values().flatten().collect();
        names.sort();
        let text = format!(
            "This deployment {} is associated with multiple services using port {port} but different protocols: {}",
            deployment.name,
            brackets(names)
        );
        messages.tell(&MULTIPLE_SERVICES, deployment, "metadata.name", text);
    }
}

fn targets(deployment: &Subject, services: &[&Subject], messages: &mut Messages) {
    let mut by_target: BTreeMap<String, BTreeMap<u64, String>> = BTreeMap::new();
    for service in services {
        for port in service.list("spec.ports") {
            let number = view::number(port, "port").unwrap_or_default();
            let target = match view::at(port, "targetPort") {
                Some(Value::String(name)) => name.clone(),
                Some(Value::Number(target)) => target.to_string(),
                _ => number.to_string(),
            };
            by_target.entry(target).or_default().insert(number, service.full_name());
        }
    }
    for (target, ports) in by_target.into_iter().filter(|(_, ports)| ports.len() > 1) {
        let names: BTreeSet<&String> = ports.values().collect();
        let mut all: Vec<&String> =
            if names.len() == ports.len() { names.into_iter().collect() } else { ports.values().collect() };
        all.sort();
        let text = format!(
            "This deployment {} is associated with multiple services {} using targetPort {target:?} but different ports: {}.",
            deployment.name,
            brackets(all),
            brackets(ports.keys())
        );
        messages.tell(&CONFLICTING_PORTS, deployment, "metadata.name", text);
    }
}
