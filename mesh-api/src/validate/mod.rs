//! Rules of single objects. Everything wrong is collected; nothing stops at the first.
//!
//! The rules are those of Istio's webhook (istio/istio: pkg/config/validation) plus a finding for each field that does
//! not act yet. What needs a second object to decide is for the analysers, not here.

mod authorization_policy;
mod check;
mod core;
mod destination_rule;
mod gateway;
pub mod http_route;
mod load_balancer;
mod meta;
mod peer_authentication;
mod proxy_config;
pub mod regex;
mod route_parts;
mod service_entry;
mod sidecar;
mod virtual_service;
mod workload_entry;
mod workload_group;

use self::check::Check;
use crate::{
    finding::{Finding, MAX_PER_OBJECT},
    not_acting,
    object::AnyObject,
};

/// Everything there is to say about one object by itself, [`MAX_PER_OBJECT`] findings at most: broken rules in the order
/// of the fields, then what does not act yet.
#[must_use]
pub fn validate(object: &AnyObject) -> Vec<Finding> {
    let mut findings = rules(object);
    findings.extend(not_acting::annotations(object.kind(), object.meta()));
    findings.extend(not_acting::fields(object.kind(), object));
    if findings.len() > MAX_PER_OBJECT {
        // Errors first, lest a hundred warnings hide one.
        findings.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
        findings.truncate(MAX_PER_OBJECT);
    }
    let key = object.key();
    for finding in &mut findings {
        finding.key = Some(key.clone());
    }
    findings
}

fn rules(object: &AnyObject) -> Vec<Finding> {
    let mut check = Check::default();
    meta::check(object.kind(), object.meta(), &mut check);
    content(object, &mut check);
    check.into_findings()
}

fn content(object: &AnyObject, check: &mut Check) {
    let namespace = &object.meta().namespace;
    check.field("spec", |check| match object {
        AnyObject::Service(o) => core::service(&o.spec, check),
        AnyObject::VirtualService(o) => virtual_service::check(namespace, &o.spec, check),
        AnyObject::DestinationRule(o) => destination_rule::check(namespace, &o.spec, check),
        AnyObject::Gateway(o) => gateway::check(&o.spec, check),
        AnyObject::ServiceEntry(o) => service_entry::check(namespace, &o.spec, check),
        AnyObject::WorkloadEntry(o) => workload_entry::check(&o.spec, check, true),
        AnyObject::WorkloadGroup(o) => workload_group::check(&o.spec, check),
        AnyObject::Sidecar(o) => sidecar::check(&o.spec, check),
        AnyObject::ProxyConfig(o) => proxy_config::check(&o.spec, check),
        AnyObject::PeerAuthentication(o) => peer_authentication::check(&o.spec, check),
        AnyObject::AuthorizationPolicy(o) => authorization_policy::check(namespace, &o.spec, check),
        AnyObject::EndpointSlice(_)
        | AnyObject::Pod(_)
        | AnyObject::Namespace(_)
        | AnyObject::Node(_)
        | AnyObject::Ingress(_)
        | AnyObject::IngressClass(_)
        | AnyObject::Secret(_)
        | AnyObject::ConfigMap(_) => {}
    });
    // Kinds whose content is not below `spec`.
    if let AnyObject::EndpointSlice(o) = object {
        core::endpoint_slice(&o.spec, check);
    }
    if let AnyObject::Pod(o) = object {
        check.some("status", o.status.as_ref(), |check, status| core::pod_status(status, check));
    }
}

#[cfg(test)]
mod tests;
