//! Subsets that a VirtualService names: whether a DestinationRule defines them.

use std::collections::BTreeSet;

use super::Check;
use super::routes::{Place, routes};
use crate::analyze::hosts::service_name;
use crate::analyze::message::Messages;
use crate::analyze::objects::Objects;
use crate::analyze::sorts::Sort;
use crate::analyze::view;

pub(super) const CHECK: Check = Check {
    name: "virtualservice.subsets",
    doc: "Subsets that VirtualServices name are defined by a DestinationRule",
    needs: &[],
    run,
};

fn run(objects: &Objects, messages: &mut Messages) {
    let mut known = BTreeSet::new();
    for rule in objects.of(Sort::DESTINATION_RULE) {
        let host = service_name(rule.text("spec.host"), &rule.namespace);
        for subset in rule.list("spec.subsets") {
            known.insert((host.clone(), view::text(subset, "name").to_owned()));
        }
    }
    for service in objects.of(Sort::VIRTUAL_SERVICE) {
        for route in routes(service) {
            let (host, subset) = (view::text(route.destination, "host"), view::text(route.destination, "subset"));
            let name = (service_name(host, &service.namespace), subset.to_owned());
            if subset.is_empty() || known.contains(&name) {
                continue;
            }
            let what = match route.place {
                Place::Mirror => "mirror+subset in destinationrule",
                Place::Tcp | Place::Tls | Place::Http => "host+subset in destinationrule",
            };
            messages.not_found(service, format!("{}.host", route.path), what, &format!("{host}+{subset}"));
        }
    }
}
