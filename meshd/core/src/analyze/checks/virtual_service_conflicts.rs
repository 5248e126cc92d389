//! Two VirtualServices of sidecars for one host: which routes count is not defined.

use std::collections::{BTreeMap, BTreeSet};

use mesh_api::host::Hostname;

use super::{Check, MESH};
use crate::analyze::hosts::{full, scopes};
use crate::analyze::message::{CONFLICTING_MESH_HOSTS, Messages};
use crate::analyze::objects::{Objects, Subject};
use crate::analyze::sorts::Sort;

pub(super) const CHECK: Check = Check {
    name: "virtualservice.conflicts",
    doc: "No two VirtualServices of sidecars have one host",
    needs: &[],
    run,
};

fn run(objects: &Objects, messages: &mut Messages) {
    let mut by_host: BTreeMap<(String, String), Vec<&Subject>> = BTreeMap::new();
    for service in objects.of(Sort::VIRTUAL_SERVICE) {
        let gateways = service.texts("spec.gateways");
        if !gateways.is_empty() && !gateways.contains(&MESH) {
            continue;
        }
        for scope in scopes(service.texts("spec.exportTo"), &service.namespace) {
            for host in service.texts("spec.hosts") {
                by_host.entry((scope.clone(), full(host, &service.namespace))).or_default().push(service);
            }
        }
    }
    let mut told = BTreeSet::new();
    for ((scope, host), services) in &by_host {
        let mut all = services.clone();
        if scope != "*" {
            let wide = by_host
                .iter()
                .filter(|((other, name), _)| other == "*" && Hostname::new(host).matches(&Hostname::new(name)));
            all.extend(wide.flat_map(|(_, services)| services));
        }
        if all.len() < 2 {
            continue;
        }
        let mut names: Vec<String> = all.iter().map(|service| service.full_name()).collect();
        names.sort();
        let names = names.join(",");
        for service in all {
            if told.insert(service.index) {
                let text = format!(
                    "The VirtualServices {names} associated with mesh gateway define the same host {scope}/{host} which can \
                     lead to undefined behavior. This can be fixed by merging the conflicting VirtualServices into a \
                     single resource."
                );
                messages.tell(&CONFLICTING_MESH_HOSTS, service, "metadata.name", text);
            }
        }
    }
}
