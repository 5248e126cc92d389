//! What a proxy may see: services and routes, by its namespace and its Sidecar resource.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use mesh_api::host::Hostname;
use mesh_api::ids::Namespace;

use crate::proxy::ProxyType;
use crate::snapshot::mesh::{Mesh, OutboundPolicy};
use crate::snapshot::services::{ExportTo, Service};
use crate::snapshot::sidecars::{EgressHost, EgressNamespace, EgressProtocol, EgressSpec, Sidecar};
use crate::snapshot::virtual_services::{GatewayRef, VirtualService};
use crate::snapshot::{Services, Snapshot};

/// What proxies of one namespace and one Sidecar resource may see.
#[derive(Debug)]
pub struct ProxyScope {
    /// Namespace of the proxies.
    pub namespace: Namespace,
    /// Outbound listeners; the one for captured traffic of any port, if there is one, comes last.
    pub egress: Vec<Egress>,
    /// All services of all listeners, oldest first, one for each host.
    pub services: Arc<[Arc<Service>]>,
    by_host: HashMap<Hostname, Arc<Service>>,
    /// What happens to unknown destinations.
    pub outbound: OutboundPolicy,
    /// The Sidecar resource.
    pub sidecar: Option<Arc<Sidecar>>,
    /// A route of it depends on labels of the client.
    pub routes_by_labels: bool,
}

/// An outbound listener with what may be reached through it.
#[derive(Debug)]
pub struct Egress {
    /// What the resource says.
    pub spec: EgressSpec,
    /// Services, oldest first.
    pub services: Vec<Arc<Service>>,
    /// Routes, in order of precedence.
    pub virtual_services: Vec<Arc<VirtualService>>,
    /// Hosts of the services.
    hosts: HashSet<Hostname>,
    index: RouteIndex,
}

/// VirtualServices by host.
#[derive(Debug)]
struct RouteIndex {
    exact: HashMap<Hostname, Arc<VirtualService>>,
    /// Most specific first; of equally specific ones the first in precedence.
    wildcards: Vec<(Hostname, Arc<VirtualService>)>,
}

impl RouteIndex {
    /// The index of routes that are given in order of precedence.
    fn new(routes: &[Arc<VirtualService>]) -> Self {
        let mut index = Self { exact: HashMap::new(), wildcards: Vec::new() };
        for (host, of) in routes.iter().flat_map(|of| of.hosts.iter().map(move |host| (host.clone(), of))) {
            if host.is_wildcard() {
                index.wildcards.push((host, Arc::clone(of)));
            } else {
                index.exact.entry(host).or_insert_with(|| Arc::clone(of));
            }
        }
        // A stable sort keeps the order of precedence.
        index.wildcards.sort_by(|a, b| Hostname::by_specificity(&a.0, &b.0));
        index
    }
}

impl ProxyScope {
    /// The scope of proxies of a namespace with a Sidecar resource. Gateways have none and see everything.
    #[must_use]
    pub fn new(snapshot: &Snapshot, kind: ProxyType, namespace: &Namespace, sidecar: Option<Arc<Sidecar>>) -> Self {
        let sidecar = sidecar.filter(|_| kind == ProxyType::Sidecar);
        let all = EgressSpec {
            port: None,
            bind: None,
            bound: false,
            hosts: [EgressHost { namespace: EgressNamespace::Any, host: Hostname::new("*") }].into(),
            excluded: [].into(),
        };
        let specs = sidecar.as_ref().map_or_else(|| vec![all], |sidecar| sidecar.egress.to_vec());
        let mut routes = visible_routes(snapshot, namespace, kind);
        routes.sort_by(|a, b| VirtualService::by_age(a, b));
        routes.sort_by_key(|route| privacy(&route.export_to));
        let visible = visible_services(&snapshot.services, namespace);
        let egress: Vec<Egress> =
            specs.into_iter().map(|spec| Egress::new(spec, snapshot, namespace, &visible, &routes)).collect();
        let mut services: Vec<Arc<Service>> =
            egress.iter().flat_map(|egress| egress.services.iter().cloned()).collect();
        services.sort_by(|a, b| Service::by_age(a, b));
        services.dedup_by(|a, b| Arc::ptr_eq(a, b));
        let by_host = services.iter().map(|service| (service.host.clone(), Arc::clone(service))).collect();
        let mesh: &Mesh = &snapshot.mesh;
        let routes_by_labels = egress.iter().flat_map(|egress| &egress.virtual_services).any(|route| by_labels(route));
        Self {
            namespace: namespace.clone(),
            egress,
            services: services.into(),
            by_host,
            outbound: sidecar.as_ref().and_then(|sidecar| sidecar.outbound).unwrap_or(mesh.outbound),
            sidecar,
            routes_by_labels,
        }
    }

    /// The service of a host.
    #[must_use]
    pub fn service(&self, host: &Hostname) -> Option<&Arc<Service>> {
        self.by_host.get(host)
    }

    /// The listener for captured traffic of any port.
    #[must_use]
    pub fn catch_all(&self) -> Option<&Egress> {
        self.egress.iter().find(|egress| egress.spec.port.is_none())
    }
}

impl Egress {
    fn new(
        spec: EgressSpec,
        snapshot: &Snapshot,
        namespace: &Namespace,
        visible: &[Arc<Service>],
        routes: &[Arc<VirtualService>],
    ) -> Self {
        let admits = |of: &Namespace, host: &Hostname| spec.admits(of, host, namespace);
        let everything = spec.admits_everything();
        let virtual_services: Vec<_> = routes
            .iter()
            .filter(|route| everything || route.hosts.iter().any(|host| admits(&route.key.namespace, host)))
            .cloned()
            .collect();
        let mut services: Vec<_> =
            visible.iter().filter(|service| everything || admits(&service.namespace, &service.host)).cloned().collect();
        if !everything {
            // What imported routes lead to is imported with them.
            let mut added = Vec::new();
            for target in virtual_services.iter().flat_map(|route| route.targets()) {
                let there = |known: &Arc<Service>| known.host == target.host;
                if let Some(service) = snapshot.services.visible(&target.host, namespace)
                    && !services.iter().chain(&added).any(there)
                {
                    added.push(Arc::clone(service));
                }
            }
            services.extend(added);
            services.sort_by(|a, b| Service::by_age(a, b));
        }
        if let Some(port) = spec.port.as_ref().filter(|port| port.protocol != EgressProtocol::HttpProxy) {
            services.retain(|service| service.port(port.number).is_some());
        }
        let hosts = services.iter().map(|service| service.host.clone()).collect();
        let index = RouteIndex::new(&virtual_services);
        Self { spec, services, virtual_services, hosts, index }
    }

    /// The VirtualService of a service: the one of its exact host, else of the most specific wildcard.
    #[must_use]
    pub fn route_of(&self, host: &Hostname) -> Option<&Arc<VirtualService>> {
        let wildcard = || self.index.wildcards.iter().find(|(known, _)| host.subset_of(known)).map(|(_, of)| of);
        self.index.exact.get(host).or_else(wildcard)
    }

    /// Whether a service here has this host, or one that the wildcard covers.
    #[must_use]
    pub fn has_service(&self, host: &Hostname) -> bool {
        self.hosts.contains(host) || (host.is_wildcard() && self.hosts.iter().any(|known| known.subset_of(host)))
    }
}

/// For each host the service that a namespace sees, oldest first.
fn visible_services(services: &Services, namespace: &Namespace) -> Vec<Arc<Service>> {
    let first = |service: &&Arc<Service>| {
        services.visible(&service.host, namespace).is_some_and(|chosen| Arc::ptr_eq(chosen, service))
    };
    services.by_age.iter().filter(first).cloned().collect()
}

fn visible_routes(snapshot: &Snapshot, namespace: &Namespace, kind: ProxyType) -> Vec<Arc<VirtualService>> {
    let here = |route: &&Arc<VirtualService>| {
        let mesh = route.applies_at(&GatewayRef::Mesh);
        let applies = match kind {
            ProxyType::Sidecar => mesh,
            ProxyType::Router => route.gateways.iter().any(|gateway| *gateway != GatewayRef::Mesh),
        };
        applies && route.export_to.reaches(namespace)
    };
    snapshot.virtual_services.iter().filter(here).cloned().collect()
}

/// Private routes come before those exported by name, and those before public ones.
fn privacy(export: &ExportTo) -> u8 {
    match export {
        ExportTo::Only(namespaces) if namespaces.len() == 1 => 0,
        ExportTo::Only(_) | ExportTo::None => 1,
        ExportTo::All => 2,
    }
}

fn by_labels(route: &VirtualService) -> bool {
    let http = route.http.iter().flat_map(|rule| rule.cases.iter().map(|case| &case.on));
    let tls = route.tls.iter().flat_map(|rule| rule.cases.iter().map(|case| &case.on));
    let tcp = route.tcp.iter().flat_map(|rule| rule.cases.iter().map(|case| &case.on));
    http.chain(tls).chain(tcp).any(|on| !on.source_labels.is_empty())
}
