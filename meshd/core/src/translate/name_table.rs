//! The names that a proxy answers for (NDS): those of the services it may see, with addresses that a client can use.
//!
//! As istio/istio: pkg/dns/server/name_table.go. Virtual addresses answer for their service; where clients choose endpoints
//! themselves (headless services) the endpoints do, each also under its own name when it has one.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use mesh_api::text::Str;
use mesh_api_xds::ir::matcher::Cidr;
use mesh_api_xds::ir::names::{NameEntry, NameKind, NameTable};

use super::view::View;
use crate::scope::ProxyScope;
use crate::snapshot::endpoints::{Instance, InstanceHealth};
use crate::snapshot::services::{Registry, Resolution, Service};

/// The table of a proxy that answers look-ups.
pub(super) fn name_table(view: &View<'_>) -> Option<NameTable> {
    if !view.proxy.dns_capture {
        return None;
    }
    let mut names = Names::default();
    for service in view.scope.services.iter() {
        let addresses: Vec<IpAddr> =
            service.addresses.iter().filter(|range| is_host(range)).map(|range| range.address).collect();
        if is_headless(service) {
            names.add_endpoints(view, service);
        } else if !addresses.is_empty() {
            names.add(service, addresses);
        }
    }
    Some(names.table())
}

/// Whether names in this scope lead to endpoints.
pub(super) fn has_headless(scope: &ProxyScope) -> bool {
    scope.services.iter().any(|service| is_headless(service))
}

/// A wider range has no address that a client could be told.
fn is_host(range: &Cidr) -> bool {
    Cidr::host(range.address) == *range
}

fn is_headless(service: &Service) -> bool {
    service.addresses.is_empty()
        && service.resolution == Resolution::Passthrough
        && service.registry == Registry::Kubernetes
}

#[derive(Default)]
struct Names(BTreeMap<Str, (Registry, NameEntry)>);

impl Names {
    /// Adds a service. A Kubernetes service has its host to itself; ServiceEntries of one host share it.
    fn add(&mut self, service: &Service, addresses: Vec<IpAddr>) {
        let host = Str::from(service.host.as_str());
        let entry = NameEntry { host: host.clone(), addresses: unique(addresses), kind: kind(service) };
        match self.0.get_mut(&host) {
            Some((Registry::Kubernetes, _)) => {}
            Some((known @ Registry::ServiceEntry, present)) => {
                if service.registry == Registry::Kubernetes {
                    *known = Registry::Kubernetes;
                    *present = entry;
                } else {
                    let both = present.addresses.iter().chain(&*entry.addresses).copied().collect();
                    present.addresses = unique(both);
                }
            }
            None => drop(self.0.insert(host, (service.registry, entry))),
        }
    }

    fn add_endpoints(&mut self, view: &View<'_>, service: &Service) {
        let endpoints = view.snapshot.endpoints.of(service);
        let first = service.ports.first().map(|port| port.number);
        let instances = endpoints.zip(first).map_or(&[][..], |(endpoints, port)| endpoints.of(port));
        let usable = |instance: &&Instance| service.publish_not_ready || instance.health == InstanceHealth::Ready;
        let mut addresses = Vec::new();
        let mut pods: BTreeMap<&Str, Vec<IpAddr>> = BTreeMap::new();
        for instance in instances.iter().filter(usable) {
            let Some(ip) = instance.ip() else { continue };
            addresses.push(ip);
            if !instance.hostname.is_empty() {
                pods.entry(&instance.hostname).or_default().push(ip);
            }
        }
        for (hostname, addresses) in pods {
            let host = Str::from(format!("{hostname}.{}", service.host));
            let kind = NameKind::Kubernetes {
                short_name: Str::from(format!("{hostname}.{}", service.name)),
                namespace: service.namespace.0.clone(),
                aliases: Arc::default(),
            };
            let entry = NameEntry { host: host.clone(), addresses: unique(addresses), kind };
            self.0.insert(host, (Registry::Kubernetes, entry));
        }
        if !addresses.is_empty() {
            self.add(service, addresses);
        }
    }

    fn table(self) -> NameTable {
        NameTable::new(self.0.into_values().map(|(_, entry)| entry).collect())
    }
}

fn kind(service: &Service) -> NameKind {
    match service.registry {
        Registry::Kubernetes => NameKind::Kubernetes {
            short_name: service.name.clone(),
            namespace: service.namespace.0.clone(),
            aliases: Arc::default(),
        },
        Registry::ServiceEntry => NameKind::Other,
    }
}

fn unique(mut addresses: Vec<IpAddr>) -> Arc<[IpAddr]> {
    addresses.sort_unstable();
    addresses.dedup();
    addresses.into()
}
