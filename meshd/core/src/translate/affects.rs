//! Which changes concern which proxies, and which types of their resources.
//!
//! Two steps. [`may_affect`] is a table: what a kind can change at all for a type of proxy. [`Impact`] looks closer: whether
//! this proxy sees the objects that differ. What both let through is translated; a proxy that nothing is left for is not
//! translated for at all. Too much costs time, too little would leave a proxy with old configuration: a test changes objects
//! of every kind and compares all resources.

use std::collections::BTreeSet;
use std::sync::Arc;

use mesh_api::host::Hostname;
use mesh_api::ids::Namespace;
use mesh_api::kinds::Kind;
use mesh_api_xds::type_url::TypeUrl;

use super::view::View;
use super::{Product, Translator, Wanted, listener_inbound};
use crate::proxy::{ProxyType, ProxyView};
use crate::scope::ProxyScope;
use crate::snapshot::Snapshot;
use crate::snapshot::endpoints::ServiceEndpoints;
use crate::snapshot::services::{Registry, Resolution, Service};
use crate::snapshot::virtual_services::{Target, VirtualService};
use crate::world::ChangeSet;

const CLUSTERS: Wanted = Wanted::NOTHING.with(TypeUrl::Cluster);
const ENDPOINTS: Wanted = Wanted::NOTHING.with(TypeUrl::Endpoint);
const LISTENERS: Wanted = Wanted::NOTHING.with(TypeUrl::Listener);
const ROUTES: Wanted = Wanted::NOTHING.with(TypeUrl::RouteConfiguration).with(TypeUrl::VirtualHost);
const SECRETS: Wanted = Wanted::NOTHING.with(TypeUrl::Secret);
const NAMES: Wanted = Wanted::NOTHING.with(TypeUrl::NameTable);
const VISIBLE: Wanted = CLUSTERS.union(ENDPOINTS).union(LISTENERS).union(ROUTES).union(NAMES);

/// The table: what objects of a kind can change for a type of proxy.
#[must_use]
pub const fn may_affect(kind: Kind, proxy: ProxyType) -> Wanted {
    use ProxyType::{Router, Sidecar};
    match (kind, proxy) {
        (Kind::ConfigMap, _) => VISIBLE.union(SECRETS),
        (Kind::Service | Kind::ServiceEntry, Sidecar) => VISIBLE,
        // The port of a server follows from the gateway's own Service, and its certificates from the server.
        (Kind::Service | Kind::ServiceEntry, Router) => VISIBLE.union(SECRETS),
        // Accounts of endpoints are in clusters, addresses of headless services are listeners and names.
        (Kind::EndpointSlice | Kind::Pod | Kind::WorkloadEntry, Sidecar) => {
            CLUSTERS.union(ENDPOINTS).union(LISTENERS).union(NAMES)
        }
        (Kind::EndpointSlice | Kind::Pod | Kind::WorkloadEntry, Router) => VISIBLE.union(SECRETS),
        // What a route leads to is imported with it.
        (Kind::VirtualService, _) => VISIBLE,
        // Routes lead to subsets that exist.
        (Kind::DestinationRule, Sidecar) => VISIBLE,
        (Kind::DestinationRule, Router) => VISIBLE.union(SECRETS),
        (Kind::Gateway, Router) => LISTENERS.union(ROUTES).union(SECRETS),
        (Kind::Sidecar, Sidecar) => VISIBLE,
        (Kind::PeerAuthentication, Sidecar) => CLUSTERS.union(LISTENERS),
        (Kind::PeerAuthentication, Router) => CLUSTERS,
        (Kind::AuthorizationPolicy, _) => LISTENERS,
        (Kind::Secret, Router) => SECRETS,
        (Kind::Gateway | Kind::Secret, Sidecar) | (Kind::Sidecar, Router) => Wanted::NOTHING,
        // Where pods are decides how endpoints are grouped.
        (Kind::Node, _) => ENDPOINTS.union(CLUSTERS),
        // They become Gateways and VirtualServices of the gateway.
        (Kind::Ingress | Kind::IngressClass, Router) => VISIBLE.union(SECRETS),
        (Kind::Ingress | Kind::IngressClass, Sidecar) => Wanted::NOTHING,
        // What proxies are started with acts when pods are injected.
        (Kind::Namespace | Kind::WorkloadGroup | Kind::ProxyConfig, _) => Wanted::NOTHING,
    }
}

/// What differs between two snapshots. Made once for all proxies.
#[derive(Debug)]
pub struct Impact<'a> {
    prev: &'a Snapshot,
    next: &'a Snapshot,
    kinds: BTreeSet<Kind>,
    /// Hosts whose services differ.
    services: BTreeSet<Hostname>,
    /// Services whose endpoints differ.
    endpoints: Vec<EndpointChange>,
    /// VirtualServices that were or are there.
    routes: Vec<Arc<VirtualService>>,
    /// Namespaces of what differs, by kind, for what is looked up by namespace.
    namespaces: BTreeSet<(Kind, Namespace)>,
    /// Namespaces in which a different mode of mutual TLS is assumed.
    modes: BTreeSet<Namespace>,
}

#[derive(Debug)]
struct EndpointChange {
    host: Hostname,
    resolution: Resolution,
    registry: Registry,
    /// Accounts or, where the client chooses endpoints, their readiness for mutual TLS differ.
    accounts: bool,
}

impl<'a> Impact<'a> {
    /// What `changes` made different.
    #[must_use]
    pub fn between(prev: &'a Snapshot, next: &'a Snapshot, changes: &ChangeSet) -> Self {
        let kinds: BTreeSet<Kind> = changes.keys.iter().map(|key| key.kind).collect();
        let namespaces: BTreeSet<_> = changes.keys.iter().map(|key| (key.kind, key.namespace.clone())).collect();
        let mut impact = Self {
            prev,
            next,
            kinds,
            services: BTreeSet::new(),
            endpoints: Vec::new(),
            routes: Vec::new(),
            namespaces,
            modes: BTreeSet::new(),
        };
        if !Arc::ptr_eq(&prev.services, &next.services) {
            impact.services = different(&prev.services.by_age, &next.services.by_age)
                .iter()
                .map(|service| service.host.clone())
                .collect();
        }
        impact.compare_endpoints();
        if !Arc::ptr_eq(&prev.virtual_services, &next.virtual_services) {
            impact.routes = different(&prev.virtual_services, &next.virtual_services);
        }
        if !Arc::ptr_eq(&prev.peers, &next.peers) {
            let all = next.services.by_age.iter().chain(prev.services.by_age.iter()).map(|s| s.namespace.clone());
            let all: BTreeSet<Namespace> = all.collect();
            impact.modes = all.into_iter().filter(|ns| prev.namespace_mode(ns) != next.namespace_mode(ns)).collect();
        }
        impact
    }

    fn compare_endpoints(&mut self) {
        if Arc::ptr_eq(&self.prev.endpoints, &self.next.endpoints) {
            return;
        }
        for service in self.next.services.by_age.iter() {
            if self.prev.endpoints.same_in(&self.next.endpoints, &service.namespace) {
                continue;
            }
            let (old, new) = (self.prev.endpoints.of(service), self.next.endpoints.of(service));
            if same(old, new) {
                continue;
            }
            let accounts = match (old, new) {
                (Some(old), Some(new)) => old.accounts != new.accounts || ready(old) != ready(new),
                _ => true,
            };
            self.endpoints.push(EndpointChange {
                host: service.host.clone(),
                resolution: service.resolution.clone(),
                registry: service.registry,
                accounts,
            });
        }
    }

    /// The types whose resources may differ for a proxy.
    pub fn wanted<P: Product>(&self, proxy: &ProxyView, translator: &Translator<P>) -> Wanted {
        let possible = self.kinds.iter().fold(Wanted::NOTHING, |sum, kind| sum.union(may_affect(*kind, proxy.kind)));
        if possible.is_nothing() {
            return possible;
        }
        if !Arc::ptr_eq(&self.prev.mesh, &self.next.mesh) {
            return may_affect(Kind::ConfigMap, proxy.kind);
        }
        let (before, after) = (translator.scope(self.prev, proxy), translator.scope(self.next, proxy));
        let look = Look {
            impact: self,
            proxy,
            before: View::new(self.prev, proxy, &before),
            after: View::new(self.next, proxy, &after),
        };
        look.wanted().intersection(possible)
    }

    fn touches(&self, kind: Kind, namespace: &Namespace) -> bool {
        self.namespaces.contains(&(kind, namespace.clone()))
    }
}

impl Wanted {
    /// Types that are in both.
    #[must_use]
    pub const fn intersection(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }
}

/// Two snapshots with one proxy's eyes.
struct Look<'a> {
    impact: &'a Impact<'a>,
    proxy: &'a ProxyView,
    before: View<'a>,
    after: View<'a>,
}

impl Look<'_> {
    fn wanted(&self) -> Wanted {
        let mut wanted = Wanted::NOTHING;
        if !same(self.before.scope.sidecar.as_ref(), self.after.scope.sidecar.as_ref()) {
            return VISIBLE;
        }
        wanted = wanted
            .union(self.services())
            .union(self.endpoints())
            .union(self.routes())
            .union(self.rules())
            .union(self.targets());
        wanted = wanted.union(self.workload());
        match self.proxy.kind {
            ProxyType::Sidecar => wanted,
            ProxyType::Router => wanted.union(self.gateway()),
        }
    }

    fn services(&self) -> Wanted {
        let (before, after) = (self.before.scope, self.after.scope);
        let mut wanted = Wanted::NOTHING;
        // What routes import changes with the routes, so that the whole lists are compared, not only what differs.
        // So are those of each egress listener: what one imports another may have had already.
        let differ = |before: &[Arc<Service>], after: &[Arc<Service>]| {
            before.len() != after.len() || before.iter().zip(after).any(|(a, b)| !Arc::ptr_eq(a, b))
        };
        let lists = differ(&before.services, &after.services)
            || before.egress.len() != after.egress.len()
            || before.egress.iter().zip(after.egress.iter()).any(|(a, b)| differ(&a.services, &b.services));
        if lists {
            wanted = VISIBLE;
        }
        // A ServiceEntry that is not seen itself may add names to the Service of its host.
        if self.impact.services.iter().any(|host| after.service(host).is_some()) {
            wanted = wanted.union(CLUSTERS);
        }
        // A destination outside of the scope still says by its ports where a route without a port leads.
        let named = |scope: &ProxyScope| {
            let routes = scope.egress.iter().flat_map(|egress| &egress.virtual_services);
            let mut targets = routes.flat_map(|routes| routes.targets());
            targets.any(|target| self.impact.services.contains(&target.host))
        };
        if !self.impact.services.is_empty() && (named(before) || named(after)) {
            wanted = wanted.union(ROUTES).union(LISTENERS);
        }
        wanted
    }

    fn endpoints(&self) -> Wanted {
        let mut wanted = Wanted::NOTHING;
        for change in &self.impact.endpoints {
            let seen = self.after.scope.service(&change.host);
            if seen.is_none_or(|service| service.registry != change.registry) {
                continue;
            }
            wanted = wanted.union(match change.resolution {
                Resolution::Registry => ENDPOINTS,
                Resolution::Passthrough if !self.proxy.sees_destinations() => ENDPOINTS.union(NAMES),
                Resolution::Passthrough => LISTENERS.union(NAMES),
                Resolution::Dns => CLUSTERS,
                Resolution::Alias(_) => Wanted::NOTHING,
            });
            if change.accounts {
                wanted = wanted.union(CLUSTERS);
            }
        }
        wanted
    }

    fn routes(&self) -> Wanted {
        let imports = |scope: &ProxyScope| {
            let mut routes = scope.egress.iter().flat_map(|egress| &egress.virtual_services);
            routes.any(|known| self.impact.routes.iter().any(|changed| Arc::ptr_eq(changed, known)))
        };
        if self.impact.routes.is_empty() || !(imports(self.before.scope) || imports(self.after.scope)) {
            return Wanted::NOTHING;
        }
        // A route without any for connections may still take its host from one that has some, or give it back.
        let both = self.before.scope.egress.iter().chain(&self.after.scope.egress);
        let mut both = both.flat_map(|egress| &egress.virtual_services);
        let layer4 = both.any(|routes| !routes.tcp.is_empty() || !routes.tls.is_empty());
        if layer4 { ROUTES.union(LISTENERS) } else { ROUTES }
    }

    /// Targets of routes have come into being or have ceased to exist.
    fn targets(&self) -> Wanted {
        let kinds = [Kind::Service, Kind::ServiceEntry, Kind::DestinationRule];
        if !kinds.iter().any(|kind| self.impact.kinds.contains(kind)) {
            return Wanted::NOTHING;
        }
        let mut routes = self.after.scope.egress.iter().flat_map(|egress| &egress.virtual_services);
        let differs = |target: &Target| {
            // Any port of the service will do: when its ports change, its routes are looked at anyway.
            let ports = self.after.service(&target.host);
            let port = ports.and_then(|service| service.ports.first().map(|port| port.number)).unwrap_or_default();
            self.before.exists(target, port) != self.after.exists(target, port)
        };
        if routes.any(|routes| routes.targets().any(differs)) { ROUTES.union(LISTENERS) } else { Wanted::NOTHING }
    }

    fn rules(&self) -> Wanted {
        if !self.impact.kinds.contains(&Kind::DestinationRule) {
            return Wanted::NOTHING;
        }
        let differs =
            |service: &Arc<Service>| !same(self.before.rule(service).as_ref(), self.after.rule(service).as_ref());
        let mut wanted = Wanted::NOTHING;
        if self.after.scope.services.iter().any(differs) {
            wanted = CLUSTERS.union(ENDPOINTS).union(LISTENERS);
        }
        let own = |service: &&Arc<Service>| service.namespace == self.proxy.namespace;
        let server = |service: &Arc<Service>| {
            !same(self.before.server_rule(service).as_ref(), self.after.server_rule(service).as_ref())
        };
        if self.impact.next.services.by_age.iter().filter(own).any(server) {
            wanted = wanted.union(CLUSTERS);
        }
        wanted
    }

    /// What a proxy does for its own workload.
    fn workload(&self) -> Wanted {
        let mut wanted = Wanted::NOTHING;
        if self.after.scope.services.iter().any(|service| self.impact.modes.contains(&service.namespace)) {
            wanted = wanted.union(CLUSTERS);
        }
        let (namespace, labels) = (&self.proxy.namespace, &self.proxy.labels);
        let root = &self.impact.next.mesh.root_namespace;
        let touched = |kind| self.impact.touches(kind, namespace) || self.impact.touches(kind, root);
        let (prev, next) = (self.impact.prev, self.impact.next);
        let peers = touched(Kind::PeerAuthentication)
            && prev.workload_modes(namespace, labels) != next.workload_modes(namespace, labels);
        let authz = touched(Kind::AuthorizationPolicy)
            && prev.workload_authz(namespace, labels) != next.workload_authz(namespace, labels);
        if peers || authz {
            wanted = wanted.union(LISTENERS);
        }
        let kinds = [
            Kind::Service,
            Kind::ServiceEntry,
            Kind::EndpointSlice,
            Kind::Pod,
            Kind::WorkloadEntry,
            Kind::DestinationRule,
        ];
        if kinds.into_iter().any(|kind| self.impact.touches(kind, namespace)) && self.serves_differently() {
            wanted = wanted.union(CLUSTERS).union(LISTENERS);
        }
        wanted
    }

    fn serves_differently(&self) -> bool {
        let (prev, next) = (self.impact.prev, self.impact.next);
        // Most changes of endpoints are somebody else's: what is served at the proxy's own addresses says so quickly.
        let same_services = Arc::ptr_eq(&prev.services, &next.services);
        let served = |snapshot: &Snapshot, ip| snapshot.endpoints.served(&self.proxy.namespace, ip).to_vec();
        let same_rules = Arc::ptr_eq(&prev.destination_rules, &next.destination_rules);
        if same_services && same_rules && self.proxy.ips.iter().all(|ip| served(prev, *ip) == served(next, *ip)) {
            return false;
        }
        match self.proxy.kind {
            ProxyType::Sidecar => {
                listener_inbound::inbound_ports(&self.before) != listener_inbound::inbound_ports(&self.after)
            }
            ProxyType::Router => listener_inbound::served(&self.before) != listener_inbound::served(&self.after),
        }
    }

    /// What only gateways have.
    fn gateway(&self) -> Wanted {
        let mut wanted = Wanted::NOTHING;
        let (prev, next) = (self.impact.prev, self.impact.next);
        let selects = |snapshot: &Snapshot| {
            let gateways = snapshot.gateways.iter().filter(|gateway| gateway.selector.matches(&self.proxy.labels));
            gateways.cloned().collect::<Vec<_>>()
        };
        if !Arc::ptr_eq(&prev.gateways, &next.gateways) && selects(prev) != selects(next) {
            wanted = wanted.union(LISTENERS).union(ROUTES).union(SECRETS);
        }
        let own = [Kind::Service, Kind::ServiceEntry, Kind::EndpointSlice, Kind::Pod, Kind::WorkloadEntry];
        if own.into_iter().any(|kind| self.impact.touches(kind, &self.proxy.namespace)) && self.serves_differently() {
            wanted = wanted.union(LISTENERS).union(ROUTES).union(SECRETS);
        }
        if self.impact.touches(Kind::Secret, &self.proxy.namespace) {
            wanted = wanted.union(SECRETS);
        }
        // Any rule may name a credential.
        if self.impact.kinds.contains(&Kind::DestinationRule) {
            wanted = wanted.union(SECRETS);
        }
        // A server for bytes exists only with a route.
        if !self.impact.routes.is_empty() && self.routes() != Wanted::NOTHING {
            wanted = wanted.union(LISTENERS);
        }
        wanted
    }
}

/// Whether all endpoints take mutual TLS.
fn ready(endpoints: &ServiceEndpoints) -> Vec<(u16, bool)> {
    endpoints.ports.iter().map(|(port, instances)| (*port, instances.iter().all(|i| i.mesh_tls))).collect()
}

/// Both absent, or the very same.
fn same<T>(a: Option<&Arc<T>>, b: Option<&Arc<T>>) -> bool {
    match (a, b) {
        (None, None) => true,
        (Some(a), Some(b)) => Arc::ptr_eq(a, b),
        _ => false,
    }
}

/// What is in one list and not in the other.
fn different<T>(old: &[Arc<T>], new: &[Arc<T>]) -> Vec<Arc<T>> {
    let addresses = |list: &[Arc<T>]| list.iter().map(Arc::as_ptr).collect::<BTreeSet<_>>();
    let (in_old, in_new) = (addresses(old), addresses(new));
    let gone = old.iter().filter(|item| !in_new.contains(&Arc::as_ptr(item)));
    gone.chain(new.iter().filter(|item| !in_old.contains(&Arc::as_ptr(item)))).cloned().collect()
}
