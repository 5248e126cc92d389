//! Rules of WorkloadEntry and of the endpoints of a ServiceEntry.

use std::net::IpAddr;

use super::check::{Check, is_dns_subdomain};
use crate::{codes::Code, crd::networking::workload_entry::WorkloadEntry, host::check_dns_name};

/// `needs_address`: false for the template of a group.
pub(super) fn check(spec: &WorkloadEntry, check: &mut Check, needs_address: bool) {
    let address = &*spec.address;
    if let Some(path) = address.strip_prefix("unix://") {
        let is_absolute = path.starts_with('/') || path.starts_with('@');
        if !is_absolute || path.ends_with('/') {
            check.at("address", Code::InvalidValue, "is not the absolute path of a UNIX socket: unix:///path");
        }
        if !spec.ports.is_empty() {
            check.at("ports", Code::Conflict, "a UNIX socket has no ports");
        }
    } else if address.is_empty() {
        // An endpoint in another network is reached through that network's gateway.
        check.required("address", !needs_address || !spec.network.is_empty());
    } else if address.parse::<IpAddr>().is_err()
        && let Err(error) = check_dns_name(address)
    {
        check.at("address", Code::InvalidHost, format!("{address:?} is not an address, and as a name it {error}"));
    }
    for (name, port) in &spec.ports {
        check.field(&format!("ports.{name}"), |check| {
            check.dns_label("", name);
            check.port("", *port);
        });
    }
    check.field("labels", |check| check.labels(&spec.labels));
    if spec.locality.split('/').count() > 3 {
        check.at("locality", Code::Ineffective, "has more parts than region/zone/subzone");
    }
    if !spec.service_account.is_empty() && !is_dns_subdomain(&spec.service_account) {
        let message = format!("{:?} is not the name of a service account, so nobody has it", &*spec.service_account);
        check.at("serviceAccount", Code::Ineffective, message);
    }
}
