//! The few rules of Kubernetes' own kinds that we depend on. A cluster's API server has checked them already; a folder
//! of files has not.

use std::net::IpAddr;

use super::check::Check;
use crate::{
    codes::Code,
    crd::core::{endpoint_slice::EndpointSlice, pod::PodStatus, service::Service},
};

pub(super) fn service(spec: &Service, check: &mut Check) {
    check.each("ports", &spec.ports, |check, port| {
        check.port("port", port.port);
        if spec.ports.len() > 1 {
            check.required("name", !port.name.is_empty());
        }
    });
    check.unique("ports", "name", spec.ports.iter().map(|p| &*p.name));
    if !["", "None"].contains(&&*spec.cluster_ip) {
        address(check, "clusterIP", &spec.cluster_ip);
    }
    check.each("clusterIPs", spec.cluster_ips.iter().filter(|ip| **ip != "None"), |check, ip| address(check, "", ip));
    if spec.kind == "ExternalName" {
        check.plain_host("externalName", &spec.external_name);
    }
}

pub(super) fn endpoint_slice(spec: &EndpointSlice, check: &mut Check) {
    check.each("endpoints", &spec.endpoints, |check, endpoint| {
        check.required("addresses", !endpoint.addresses.is_empty());
        if spec.address_type != "FQDN" {
            check.each("addresses", &endpoint.addresses, |check, ip| address(check, "", ip));
        }
    });
    check.each("ports", &spec.ports, |check, port| {
        if let Some(number) = port.port {
            check.port("port", number);
        }
    });
}

pub(super) fn pod_status(status: &PodStatus, check: &mut Check) {
    if !status.pod_ip.is_empty() {
        address(check, "podIP", &status.pod_ip);
    }
}

fn address(check: &mut Check, path: &str, text: &str) {
    if text.parse::<IpAddr>().is_err() {
        check.at(path, Code::InvalidValue, format!("{text:?} is not an address"));
    }
}
