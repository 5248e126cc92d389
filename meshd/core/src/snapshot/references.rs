//! What is wrong between objects: names that lead nowhere, hosts that two objects claim.
//!
//! Nothing is cut out here: translation leaves out what does not exist, and when it comes, the route works.

use std::collections::HashMap;

use mesh_api::codes::Code;
use mesh_api::finding::Finding;
use mesh_api::host::Hostname;
use mesh_api::ids::ObjectKey;

use super::Snapshot;
use super::destination_rules::Client;
use super::services::ExportTo;
use super::virtual_services::{GatewayRef, Target, VirtualService};

/// All findings of this kind, ordered by object.
pub(super) fn findings(snapshot: &Snapshot) -> Vec<Finding> {
    let mut all = Vec::new();
    let mut claimed: HashMap<&Hostname, &ObjectKey> = HashMap::new();
    for routes in snapshot.virtual_services.iter() {
        targets(snapshot, routes, &mut all);
        gateways(snapshot, routes, &mut all);
        // Only what everybody sees is compared: private objects may shadow public ones on purpose.
        if routes.applies_at(&GatewayRef::Mesh) && routes.export_to == ExportTo::All && !routes.http.is_empty() {
            for host in routes.hosts.iter() {
                match claimed.get(host) {
                    None => _ = claimed.insert(host, &routes.key),
                    Some(older) => {
                        let message = format!("{host} has the routes of {older}, which comes first by age and name");
                        let hint = "put the routes into one object, or order them by creation";
                        all.push(Finding::new(Code::Overlap, "spec.hosts", message).on(routes.key.clone()).hint(hint));
                    }
                }
            }
        }
    }
    for rules in snapshot.destination_rules.namespaces.values() {
        for rule in rules.rules() {
            let exact = snapshot.services.by_host.contains_key(&rule.host);
            if !exact && !snapshot.services.by_age.iter().any(|service| service.host.matches(&rule.host)) {
                let message = format!("no service has the host {}", rule.host);
                all.push(Finding::new(Code::MissingReference, "spec.host", message).on(rule.key.clone()));
            }
        }
    }
    all.sort_by(|a, b| (&a.key, &a.path, &a.message).cmp(&(&b.key, &b.path, &b.message)));
    all.dedup();
    all
}

fn targets(snapshot: &Snapshot, routes: &VirtualService, all: &mut Vec<Finding>) {
    let mut report = |message: String| {
        let finding = Finding::new(Code::MissingReference, "spec", message).on(routes.key.clone());
        all.push(finding.hint(
            "until it exists, requests go to the other destinations of the rule, or to the next rule that matches",
        ));
    };
    for Target { host, subset, port } in routes.targets() {
        let Some(service) = snapshot.services.visible(host, &routes.key.namespace) else {
            let wildcard = snapshot.services.by_age.iter().any(|service| host.subset_of(&service.host));
            if !wildcard {
                report(format!("no service has the host {host}"));
            }
            continue;
        };
        if let Some(port) = port.filter(|port| service.port(*port).is_none()) {
            report(format!("the service {host} has no port {port}"));
        }
        if !subset.is_empty() {
            let client = Client { namespace: &routes.key.namespace, labels: None };
            let root = &snapshot.mesh.root_namespace;
            let rule = snapshot.destination_rules.lookup(host, &service.namespace, &client, root);
            if rule.is_none_or(|rule| rule.subset(subset).is_none()) {
                report(format!("no DestinationRule defines the subset {subset} of {host}"));
            }
        }
    }
}

fn gateways(snapshot: &Snapshot, routes: &VirtualService, all: &mut Vec<Finding>) {
    for gateway in routes.gateways.iter() {
        let GatewayRef::Named(namespace, name) = gateway else { continue };
        if !snapshot.gateways.iter().any(|known| known.reference() == *gateway) {
            let message = format!("the Gateway {namespace}/{name} does not exist");
            all.push(Finding::new(Code::MissingReference, "spec.gateways", message).on(routes.key.clone()));
        }
    }
}
