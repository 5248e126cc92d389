//! What clusters and endpoint sets are made of: gathered here, and nothing else reaches those who make them.

use std::sync::Arc;

use mesh_api::ids::{Name, Namespace};
use mesh_api::text::Str;
use mesh_api_xds::ir::endpoint::Locality;

use super::endpoint::{self, EndpointKey, Near};
use super::memo::ByPtr;
use super::names;
use super::view::View;
use crate::proxy::{Flavor, ProxyType};
use crate::snapshot::destination_rules::DestinationRule;
use crate::snapshot::endpoints::{Instance, ServiceEndpoints};
use crate::snapshot::mesh::Mesh;
use crate::snapshot::policies::MtlsMode;
use crate::snapshot::services::{Distribution, Port, Protocol, Resolution, Service};

/// Everything an outbound cluster is made of.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct ClusterKey {
    pub(crate) mesh: ByPtr<Mesh>,
    pub(crate) service: ByPtr<Service>,
    pub(crate) port: Port,
    /// Subset; empty is the whole service.
    pub(crate) subset: Str,
    pub(crate) rule: Option<ByPtr<DestinationRule>>,
    /// Service accounts of the endpoints.
    pub(crate) accounts: ByPtr<[(Namespace, Name)]>,
    /// Names that the endpoints may present besides the service's.
    pub(crate) added_sans: Arc<[Str]>,
    /// Mutual TLS without being told.
    pub(crate) auto: AutoTls,
    /// Endpoints with names, for clusters that resolve them.
    pub(crate) names: Option<ByPtr<[Instance]>>,
    pub(crate) kind: ProxyType,
    /// Clients may choose endpoints themselves.
    pub(crate) sees_destinations: bool,
    pub(crate) flavor: Flavor,
}

/// Mutual TLS without being told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum AutoTls {
    /// Never.
    Off,
    /// With endpoints that announce it.
    PerEndpoint,
    /// Always: all endpoints announce it, and the client does not choose among them.
    All,
}

/// Clusters of a service: one for each port, and one for each of its subsets.
pub(crate) fn cluster_keys(view: &View<'_>, service: &Arc<Service>) -> Vec<ClusterKey> {
    if matches!(service.resolution, Resolution::Alias(_)) {
        return Vec::new();
    }
    let endpoints = view.snapshot.endpoints.of(service).cloned().unwrap_or_default();
    let rule = view.rule(service);
    let mut keys = Vec::new();
    for port in service.ports.iter().filter(|port| port.protocol != Protocol::Udp) {
        let auto = auto_tls(view, service, port, &endpoints);
        // A cluster that resolves names and has none would be refused.
        let names = (service.resolution == Resolution::Dns).then(|| ByPtr(instances(&endpoints, port.number)));
        if names.as_ref().is_some_and(|names| names.is_empty()) {
            continue;
        }
        let subsets = rule.iter().flat_map(|rule| rule.subsets.iter().map(|subset| subset.name.clone()));
        for subset in std::iter::once(Str::empty()).chain(subsets) {
            keys.push(ClusterKey {
                mesh: view.mesh_ptr(),
                service: ByPtr(Arc::clone(service)),
                port: port.clone(),
                subset,
                rule: rule.clone().map(ByPtr),
                accounts: ByPtr(Arc::clone(&endpoints.accounts)),
                added_sans: view.snapshot.services.added_sans(&service.host),
                auto,
                names: names.clone(),
                kind: view.proxy.kind,
                sees_destinations: view.proxy.sees_destinations(),
                flavor: view.proxy.flavor,
            });
        }
    }
    keys
}

fn instances(endpoints: &ServiceEndpoints, port: u16) -> Arc<[Instance]> {
    let found = endpoints.ports.iter().find(|(number, _)| *number == port);
    found.map_or_else(endpoint::no_instances, |(_, instances)| Arc::clone(instances))
}

fn auto_tls(view: &View<'_>, service: &Service, port: &Port, endpoints: &ServiceEndpoints) -> AutoTls {
    let plaintext = view.snapshot.namespace_mode(&service.namespace) == MtlsMode::Disable;
    if service.external || !view.snapshot.mesh.auto_mtls || plaintext {
        return AutoTls::Off;
    }
    let by_client = service.resolution == Resolution::Passthrough && view.proxy.sees_destinations();
    if !by_client {
        return AutoTls::PerEndpoint;
    }
    // The client chooses the endpoint, so that all of them or none must take mutual TLS.
    let instances = endpoints.of(port.number);
    if !instances.is_empty() && instances.iter().all(|instance| instance.mesh_tls) {
        AutoTls::All
    } else {
        AutoTls::Off
    }
}

/// Endpoint sets of a service: those that its clusters ask for.
pub(crate) fn endpoint_keys(view: &View<'_>, service: &Arc<Service>) -> Vec<EndpointKey> {
    let listed = match service.resolution {
        Resolution::Registry => true,
        Resolution::Passthrough => !view.proxy.sees_destinations(),
        Resolution::Dns | Resolution::Alias(_) => false,
    };
    if !listed {
        return Vec::new();
    }
    let endpoints = view.snapshot.endpoints.of(service).cloned().unwrap_or_default();
    let rule = view.rule(service);
    let mut keys = Vec::new();
    for port in service.ports.iter().filter(|port| port.protocol != Protocol::Udp) {
        let instances = ByPtr(instances(&endpoints, port.number));
        let subsets = rule.iter().flat_map(|rule| rule.subsets.iter().map(Some));
        for subset in std::iter::once(None).chain(subsets) {
            let outlier = rule.as_ref().is_some_and(|rule| rule.blocks(subset, port.number).outlier.is_some());
            // Without outlier detection nobody would fail over to another place, so that nearness must not count.
            let near = match service.distribution {
                Distribution::Unset => (outlier && view.snapshot.mesh.locality_balancing).then_some(true),
                // Who asks for it at the Service means it without more ado: endpoints that are not ready are told by health.
                Distribution::SameZone => Some(false),
                Distribution::SameSubzone => Some(true),
            };
            let near = near.map(|subzones| Near { place: view.proxy.locality.clone(), subzones });
            let name = subset.map(|subset| subset.name.clone()).unwrap_or_default();
            keys.push(EndpointKey {
                cluster: names::outbound(port.number, &name, &service.host),
                instances: instances.clone(),
                subset: subset.map(|subset| subset.labels.clone()),
                near: near.filter(|near| near.place != Locality::default()),
            });
        }
    }
    keys
}
