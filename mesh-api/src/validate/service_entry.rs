//! Rules of ServiceEntry. istio/istio: pkg/config/validation/validation.go ValidateServiceEntry.

use std::net::IpAddr;

use super::{check::Check, gateway::protocol, workload_entry};
use crate::{
    codes::Code,
    crd::networking::service_entry::{Resolution, ServiceEntry, ServicePort},
    host::check_dns_name,
};

pub(super) fn check(namespace: &str, spec: &ServiceEntry, check: &mut Check) {
    hosts(spec, check);
    addresses(spec, check);
    if spec.ports.is_empty() {
        check.at("ports", Code::Ineffective, "is empty, so nothing can be reached");
    }
    check.each("ports", &spec.ports, port);
    check.unique("ports", "name", spec.ports.iter().map(|p| &*p.name));
    let numbers: Vec<String> = spec.ports.iter().map(|p| p.number.to_string()).collect();
    check.unique("ports", "number", numbers.iter().map(String::as_str));
    check.exclusive(&[
        ("workloadSelector", spec.workload_selector.is_some()),
        ("endpoints", !spec.endpoints.is_empty()),
    ]);
    check.some("workloadSelector", spec.workload_selector.as_ref(), |check, selector| {
        check.selector("labels", &selector.labels);
    });
    if spec.workload_selector.is_some() && spec.resolution == Resolution::None {
        check.at("workloadSelector", Code::Ineffective, "has no effect with resolution NONE");
    }
    endpoints(spec, check);
    check.export_to(namespace, &spec.export_to, true);
}

fn hosts(spec: &ServiceEntry, check: &mut Check) {
    check.required("hosts", !spec.hosts.is_empty());
    check.once("hosts", "", spec.hosts.iter().map(|h| &**h));
    for (index, text) in spec.hosts.iter().enumerate() {
        let path = format!("hosts[{index}]");
        let Some(host) = check.host(&path, text) else { continue };
        if host == "*" {
            check.at(&path, Code::InvalidHost, "'*' would stand for every service");
        }
        let resolves_host =
            matches!(spec.resolution, Resolution::Dns | Resolution::DnsRoundRobin) && spec.endpoints.is_empty();
        if host.is_wildcard() && resolves_host && spec.workload_selector.is_none() {
            let message = "a wildcard cannot be resolved by DNS";
            check.hinted(&path, Code::Conflict, message, "give endpoints, or use resolution NONE");
        }
    }
}

fn addresses(spec: &ServiceEntry, check: &mut Check) {
    let ranges_allowed = matches!(spec.resolution, Resolution::None | Resolution::Static);
    check.each("addresses", &spec.addresses, |check, address| {
        check.cidr("", address);
        if address.contains('/') && !ranges_allowed {
            check.here(Code::Conflict, "an address range needs resolution NONE or STATIC");
        }
    });
    if spec.resolution == Resolution::DynamicDns && !spec.addresses.is_empty() {
        check.at("addresses", Code::Conflict, "cannot be given with resolution DYNAMIC_DNS");
    }
    let by_name = |p: &ServicePort| {
        ["HTTP", "HTTP2", "GRPC", "GRPC-WEB", "HTTPS", "TLS"]
            .iter()
            .any(|known| known.eq_ignore_ascii_case(&p.protocol))
    };
    for (index, _) in spec.ports.iter().enumerate().filter(|(_, port)| !by_name(port)) {
        let path = format!("ports[{index}]");
        if spec.addresses.is_empty() {
            let message =
                "without addresses a port that is not HTTP or TLS takes the traffic of that port to everywhere";
            check.hinted(&path, Code::Ineffective, message, "give addresses, or the protocol if it is HTTP or TLS");
        }
        if spec.hosts.len() > 1 && spec.resolution != Resolution::None {
            let message = "several hosts can be told apart by HTTP and TLS only";
            check.hinted(&path, Code::Conflict, message, "write one ServiceEntry for each host");
        }
    }
}

fn port(check: &mut Check, port: &ServicePort) {
    check.port("number", port.number);
    if port.name.is_empty() {
        check.required("name", false);
    } else {
        check.dns_label("name", &port.name);
    }
    protocol(check, &port.protocol, false);
    if port.target_port != 0 {
        check.port("targetPort", port.target_port);
    }
}

fn endpoints(spec: &ServiceEntry, check: &mut Check) {
    let count = spec.endpoints.len();
    let forbidden = match spec.resolution {
        Resolution::None | Resolution::DynamicDns => count > 0,
        Resolution::DnsRoundRobin => count > 1,
        Resolution::Static | Resolution::Dns => false,
    };
    if forbidden {
        let text = if spec.resolution == Resolution::DnsRoundRobin { "more than one" } else { "any" };
        check.at("endpoints", Code::Conflict, format!("the resolution does not allow {text}"));
    }
    if spec.resolution == Resolution::Static && count == 0 && spec.workload_selector.is_none() {
        let message = "is empty, and there is no workloadSelector: nothing can be reached";
        check.at("endpoints", Code::Ineffective, message);
    }
    check.each("endpoints", &spec.endpoints, |check, endpoint| {
        workload_entry::check(endpoint, check, true);
        let address = &*endpoint.address;
        let is_name = address.parse::<IpAddr>().is_err() && check_dns_name(address).is_ok();
        if is_name && spec.resolution == Resolution::Static {
            let message = format!("{address:?} is a name; resolution STATIC needs addresses");
            check.hinted("address", Code::Conflict, message, "use resolution DNS");
        }
        if address.starts_with("unix://") && spec.resolution != Resolution::Static {
            check.at("address", Code::Conflict, "a UNIX socket needs resolution STATIC");
        }
        if address.starts_with("unix://") && spec.ports.len() > 1 {
            check.at("address", Code::Conflict, "a UNIX socket can serve one port only");
        }
        for name in endpoint.ports.keys() {
            if !spec.ports.iter().any(|port| port.name == *name) {
                check.at(&format!("ports.{name}"), Code::InvalidValue, "no port of the object has this name");
            }
        }
    });
}
