//! Hosts that routes of a VirtualService lead to: whether there is such a service, and which of its ports is meant.

use super::Check;
use super::routes::{Place, Route, routes};
use crate::analyze::hosts::Hosts;
use crate::analyze::message::{INGRESS_RULES, Messages, PORT_REQUIRED, brackets};
use crate::analyze::objects::{Objects, Subject};
use crate::analyze::sorts::Sort;
use crate::analyze::view;

pub(super) const CHECK: Check = Check {
    name: "virtualservice.destinations",
    doc: "Hosts that VirtualServices route to exist, and have the port that is named",
    needs: &[Sort::SERVICE],
    run,
};

fn run(objects: &Objects, messages: &mut Messages) {
    let hosts = Hosts::new(objects);
    for service in objects.of(Sort::VIRTUAL_SERVICE) {
        for route in routes(service) {
            destination(&hosts, service, &route, messages);
        }
        ingress(objects, service, messages);
    }
}

fn destination(hosts: &Hosts<'_>, service: &Subject, route: &Route<'_>, messages: &mut Messages) {
    let host = view::text(route.destination, "host");
    let path = format!("{}.host", route.path);
    let Some(known) = hosts.find(&service.namespace, &service.texts("spec.exportTo"), host) else {
        let what = if route.place == Place::Mirror { "mirror host" } else { "host" };
        messages.not_found(service, path, what, host);
        return;
    };
    match view::number(route.destination, "port.number") {
        None if known.ports.len() > 1 => {
            let text = format!(
                "This VirtualService routes to a service {host:?} that exposes multiple ports {}. Specifying a port in the \
                 destination is required to disambiguate.",
                brackets(&known.ports)
            );
            messages.tell(&PORT_REQUIRED, service, path, text);
        }
        Some(port) if !known.ports.contains(&port) => {
            messages.not_found(service, path, "host:port", &format!("{host}:{port}"));
        }
        _ => {}
    }
}

/// Rules of a gateway that lead to a host whose subsets another VirtualService chooses: that other one has no effect here.
fn ingress(objects: &Objects, service: &Subject, messages: &mut Messages) {
    if service.texts("spec.gateways").is_empty() {
        return;
    }
    for route in routes(service).into_iter().filter(|route| route.place == Place::Http) {
        if !view::text(route.destination, "subset").is_empty() {
            continue;
        }
        let host = view::text(route.destination, "host");
        for other in objects.of(Sort::VIRTUAL_SERVICE) {
            let own = other.texts("spec.hosts").contains(&host);
            let of_other = routes(other).into_iter().filter(|other| other.place == Place::Http);
            let splits = of_other.filter(|route| {
                view::text(route.destination, "host") == host && !view::text(route.destination, "subset").is_empty()
            });
            if own && splits.count() > 0 {
                let text = format!(
                    "Subset in virtual service {} has no effect on ingress gateway {} requests",
                    other.full_name(),
                    service.full_name()
                );
                messages.tell(&INGRESS_RULES, service, format!("{}.host", route.path), text);
            }
        }
    }
}
