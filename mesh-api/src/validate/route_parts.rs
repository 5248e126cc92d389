//! Rules of what HTTP, TLS and TCP routes have in common.

use super::check::{Check, is_dns_subdomain};
use crate::{
    codes::Code, crd::networking::virtual_service::Destination, host::is_dns_label, labels::Selector, text::Str,
};

/// Names of gateways: `mesh`, `name`, `namespace/name` or the old `name.namespace.svc.domain`.
pub(super) fn gateways(check: &mut Check, gateways: &[Str]) {
    for (index, gateway) in gateways.iter().enumerate() {
        let (namespace, name) = gateway.split_once('/').map_or((None, &**gateway), |(ns, name)| (Some(ns), name));
        if namespace.is_some_and(|ns| !is_dns_label(ns)) || !is_dns_subdomain(name) {
            let message = format!("{gateway:?} is not the name of a gateway: [namespace/]name, or mesh");
            check.at(&format!("gateways[{index}]"), Code::InvalidName, message);
        }
    }
}

/// Conditions on the client and on the port that it addressed.
pub(super) fn source(check: &mut Check, port: u32, labels: &Selector, in_gateways: &[Str], namespace: &str) {
    if port != 0 {
        check.port("port", port);
    }
    check.field("sourceLabels", |check| check.labels(&labels.0));
    gateways(check, in_gateways);
    if !namespace.is_empty() {
        check.dns_label("sourceNamespace", namespace);
    }
}

/// Weights are relative to each other; they need not add up to 100.
pub(super) fn weights(check: &mut Check, weights: Vec<i32>) {
    for (index, weight) in weights.iter().enumerate() {
        check.not_negative(&format!("route[{index}].weight"), *weight);
    }
    if weights.len() > 1 && weights.iter().all(|w| *w == 0) {
        let message = "no destination has a weight, so none would get anything";
        check.at("route", Code::InvalidValue, message);
    }
    let total: i64 = weights.iter().map(|w| i64::from(*w)).sum();
    if total > i64::from(u32::MAX) {
        check.at("route", Code::InvalidValue, format!("the weights add up to {total}, more than {}", u32::MAX));
    }
}

pub(super) fn destination(check: &mut Check, destination: &Destination) {
    if destination.host.is_empty() {
        check.required("host", false);
    } else if destination.host == "*" {
        check.at("host", Code::InvalidHost, "'*' names no service");
    } else if check.host("host", &destination.host).is_some_and(|host| host.is_wildcard()) {
        check.at("host", Code::Ineffective, "a wildcard names no single service; requests to it fail");
    }
    if !destination.subset.is_empty() {
        check.dns_label("subset", &destination.subset);
    }
    check.some("port", destination.port.as_ref(), |check, port| check.port("number", port.number));
}
