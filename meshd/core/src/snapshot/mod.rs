//! The world as translation sees it: immutable, compiled, indexed, shared.
//!
//! A snapshot is a function of the world alone; [`Snapshot::next`] only saves work. Its parts are compared by address: what a
//! change did not touch is the very same in the next snapshot.

mod compile;
pub mod destination_rules;
pub mod endpoints;
pub mod gateways;
mod ingress;
pub mod mesh;
pub mod policies;
mod references;
pub mod secrets;
pub mod services;
pub(crate) mod shard;
pub mod sidecars;
pub mod virtual_services;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use mesh_api::crd::core::secret::Secret as SecretSpec;
use mesh_api::crd::core::service::Service as KubeSpec;
use mesh_api::crd::networking::destination_rule::DestinationRule as RuleSpec;
use mesh_api::crd::networking::gateway::Gateway as GatewaySpec;
use mesh_api::crd::networking::service_entry::ServiceEntry as EntrySpec;
use mesh_api::crd::networking::sidecar::Sidecar as SidecarSpec;
use mesh_api::crd::networking::virtual_service::VirtualService as RouteSpec;
use mesh_api::crd::security::authorization_policy::AuthorizationPolicy as AuthzSpec;
use mesh_api::crd::security::peer_authentication::PeerAuthentication as PeerSpec;
use mesh_api::finding::Finding;
use mesh_api::host::Hostname;
use mesh_api::ids::{Namespace, ObjectKey};
use mesh_api::kinds::Kind;
use mesh_api::labels::Labels;
use mesh_api::object::{Object, Spec};
use mesh_api::text::Str;

use self::destination_rules::{DestinationRule, DestinationRules, NamespaceRules};
use self::endpoints::{Endpoints, NamespaceEndpoints};
use self::gateways::Gateway;
use self::ingress::{Differs, Ingresses};
use self::mesh::Mesh;
use self::policies::{AuthorizationPolicy, MtlsMode, MtlsModes, PeerAuthentication, WorkloadAuthz};
use self::secrets::Credential;
use self::services::{Registry, Service};
use self::shard::{Compiled, Dirty, Part};
use self::sidecars::Sidecar;
use self::virtual_services::VirtualService;
use crate::inject::ProxyConfigs;
use crate::world::{ChangeSet, Table, World};

/// PeerAuthentications.
pub(crate) type Peers = Part<PeerSpec, PeerAuthentication>;

/// The world, compiled.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// Counts snapshots of one hub.
    pub generation: u64,
    /// Mesh-wide configuration.
    pub mesh: Arc<Mesh>,
    mesh_findings: Arc<[Finding]>,
    kube_services: Part<KubeSpec, Service>,
    service_entries: Part<EntrySpec, Service>,
    /// All services.
    pub services: Arc<Services>,
    /// All endpoints.
    pub endpoints: Arc<Endpoints>,
    routes: Part<RouteSpec, VirtualService>,
    /// All VirtualServices, oldest first.
    pub virtual_services: Arc<[Arc<VirtualService>]>,
    rules: Part<RuleSpec, DestinationRule>,
    /// All DestinationRules.
    pub destination_rules: Arc<DestinationRules>,
    gateway_part: Part<GatewaySpec, Gateway>,
    /// All Gateways, oldest first.
    pub gateways: Arc<[Arc<Gateway>]>,
    ingresses: Ingresses,
    sidecars: Part<SidecarSpec, Sidecar>,
    pub(crate) peers: Arc<Peers>,
    pub(crate) authz: Arc<Part<AuthzSpec, AuthorizationPolicy>>,
    credentials: Part<SecretSpec, Credential>,
    /// What proxies are started with, for injection.
    pub proxy_configs: Arc<ProxyConfigs>,
}

/// All services, indexed.
#[derive(Clone, Debug, Default)]
pub struct Services {
    /// Oldest first.
    pub by_age: Arc<[Arc<Service>]>,
    /// Those of one host, in order of precedence.
    pub by_host: HashMap<Hostname, Vec<Arc<Service>>>,
    /// Names that a ServiceEntry adds to a Kubernetes Service of its host.
    added_sans: HashMap<Hostname, Arc<[Str]>>,
}

impl Services {
    fn new(services: Vec<Arc<Service>>) -> Self {
        let mut by_age = services;
        by_age.sort_by(|a, b| Service::by_age(a, b));
        let mut by_host: HashMap<Hostname, Vec<Arc<Service>>> = HashMap::new();
        for service in &by_age {
            by_host.entry(service.host.clone()).or_default().push(Arc::clone(service));
        }
        for same in by_host.values_mut() {
            same.sort_by(|a, b| Service::by_precedence(a, b));
        }
        let mut added_sans = HashMap::new();
        for (host, same) in &by_host {
            let [first, others @ ..] = same.as_slice() else { continue };
            let mut sans: Vec<Str> = others.iter().flat_map(|service| service.sans.iter().cloned()).collect();
            if first.registry == Registry::Kubernetes && !sans.is_empty() {
                sans.sort();
                sans.dedup();
                added_sans.insert(host.clone(), sans.into());
            }
        }
        Self { by_age: by_age.into(), by_host, added_sans }
    }

    /// Names besides its own that the endpoints of a service may present: those of a ServiceEntry for a Kubernetes Service's
    /// host, which decorates it.
    #[must_use]
    pub fn added_sans(&self, host: &Hostname) -> Arc<[Str]> {
        self.added_sans.get(host).cloned().unwrap_or_default()
    }

    /// The service of a host that a namespace sees.
    #[must_use]
    pub fn visible(&self, host: &Hostname, namespace: &Namespace) -> Option<&Arc<Service>> {
        self.by_host.get(host)?.iter().find(|service| service.export_to.reaches(namespace))
    }
}

impl Default for Snapshot {
    /// The snapshot of an empty world.
    fn default() -> Self {
        Self {
            generation: 0,
            mesh: Arc::default(),
            mesh_findings: Arc::default(),
            kube_services: Part::default(),
            service_entries: Part::default(),
            services: Arc::default(),
            endpoints: Arc::default(),
            routes: Part::default(),
            virtual_services: Arc::default(),
            rules: Part::default(),
            destination_rules: Arc::default(),
            gateway_part: Part::default(),
            gateways: Arc::default(),
            ingresses: Ingresses::default(),
            sidecars: Part::default(),
            peers: Arc::default(),
            authz: Arc::default(),
            credentials: Part::default(),
            proxy_configs: Arc::default(),
        }
    }
}

/// What a step to the next snapshot works with.
struct Step<'a> {
    world: &'a World,
    changes: &'a ChangeSet,
    mesh: Arc<Mesh>,
    /// Everything is compiled again.
    all: bool,
}

impl Step<'_> {
    fn touches(&self, kind: Kind) -> bool {
        self.all || self.changes.of(kind).next().is_some()
    }

    fn namespaces(&self, kinds: &[Kind]) -> BTreeSet<Namespace> {
        let keys = self.changes.keys.iter().filter(|key| kinds.contains(&key.kind));
        keys.map(|key| key.namespace.clone()).collect()
    }

    /// Brings a part up to date; whether a value of it differs.
    fn part<S: Spec, T: PartialEq>(
        &self,
        part: &mut Part<S, T>,
        table: &Table<S>,
        compile: fn(&Mesh, &Object<S>, &mesh_api::ids::ClusterId) -> Compiled<T>,
    ) -> bool {
        let namespaces = self.namespaces(&[S::KIND]);
        if namespaces.is_empty() && !self.all {
            return false;
        }
        let dirty = if self.all { Dirty::All } else { Dirty::Only(&namespaces) };
        match part.next(table, dirty, &|object, cluster| compile(&self.mesh, object, cluster)) {
            Some(next) => {
                *part = next;
                true
            }
            None => false,
        }
    }
}

impl Snapshot {
    /// The snapshot of a world, from nothing.
    #[must_use]
    pub fn build(world: &World, generation: u64) -> Self {
        Self::step(&Self::default(), world, &ChangeSet::default(), generation, true)
    }

    /// The snapshot of a world that differs by `changes` from the one that `prev` was made of.
    #[must_use]
    pub fn next(prev: &Self, world: &World, changes: &ChangeSet) -> Self {
        Self::step(prev, world, changes, prev.generation + 1, false)
    }

    fn step(prev: &Self, world: &World, changes: &ChangeSet, generation: u64, from_nothing: bool) -> Self {
        let mut next = Self { generation, ..prev.clone() };
        let mut all = from_nothing;
        if from_nothing || changes.of(Kind::ConfigMap).next().is_some() {
            let (mesh, findings) = compile::mesh(world);
            next.mesh_findings = findings.into();
            if mesh != *next.mesh {
                next.mesh = Arc::new(mesh);
                all = true;
            }
        }
        let step = Step { world, changes, mesh: Arc::clone(&next.mesh), all };
        let kube = step.part(&mut next.kube_services, &world.services, compile::kube_service);
        let entries = step.part(&mut next.service_entries, &world.service_entries, compile::service_entry);
        if kube || entries {
            let services = next.kube_services.values().chain(next.service_entries.values()).cloned().collect();
            next.services = Arc::new(Services::new(services));
        }
        next.step_endpoints(&step);
        let ingress = next.step_ingresses(&step);
        if step.part(&mut next.routes, &world.virtual_services, compile::virtual_service) || ingress.routes {
            let mut routes: Vec<_> = next.routes.values().chain(next.ingresses.routes.values()).cloned().collect();
            routes.sort_by(|a, b| VirtualService::by_age(a, b));
            next.virtual_services = routes.into();
        }
        next.step_rules(&step);
        if step.part(&mut next.gateway_part, &world.gateways, compile::gateway) || ingress.gateways {
            let mut gateways: Vec<_> =
                next.gateway_part.values().chain(next.ingresses.gateways.values()).cloned().collect();
            gateways.sort_by(|a, b| Gateway::by_age(a, b));
            next.gateways = gateways.into();
        }
        step.part(&mut next.sidecars, &world.sidecars, compile::sidecar);
        // The map of shards is copied, not the shards; what stays the same keeps its address.
        if step.touches(Kind::PeerAuthentication) {
            let mut peers = Part::clone(&next.peers);
            if step.part(&mut peers, &world.peer_authentications, compile::peer_authentication) {
                next.peers = Arc::new(peers);
            }
        }
        if step.touches(Kind::AuthorizationPolicy) {
            let mut authz = Part::clone(&next.authz);
            if step.part(&mut authz, &world.authorization_policies, compile::authorization_policy) {
                next.authz = Arc::new(authz);
            }
        }
        step.part(&mut next.credentials, &world.secrets, compile::secret);
        if step.touches(Kind::ProxyConfig) {
            next.proxy_configs = Arc::new(ProxyConfigs::new(world.proxy_configs.iter().map(|object| &**object)));
        }
        next
    }

    fn step_endpoints(&mut self, step: &Step<'_>) {
        let kinds = [Kind::Service, Kind::ServiceEntry, Kind::EndpointSlice, Kind::Pod, Kind::WorkloadEntry];
        let mut namespaces = step.namespaces(&kinds);
        if step.all {
            namespaces.extend(self.endpoints.namespaces.keys().cloned());
            namespaces.extend(self.services.by_age.iter().map(|service| service.namespace.clone()));
        }
        if step.touches(Kind::Node) {
            namespaces.extend(step.world.pods.namespaces().cloned());
        }
        if namespaces.is_empty() {
            return;
        }
        let mut all: BTreeMap<Namespace, Arc<NamespaceEndpoints>> = self.endpoints.namespaces.clone();
        let mut changed = false;
        for namespace in namespaces {
            let services =
                self.kube_services.in_namespace(&namespace).chain(self.service_entries.in_namespace(&namespace));
            let prev = all.get(&namespace);
            let made = compile::endpoints(step.world, &namespace, services, prev.map(|prev| &**prev));
            if prev.is_some_and(|prev| **prev == made) {
                continue;
            }
            if made.services.is_empty() && made.findings.is_empty() {
                changed |= all.remove(&namespace).is_some();
            } else {
                all.insert(namespace, Arc::new(made));
                changed = true;
            }
        }
        if changed {
            self.endpoints = Arc::new(Endpoints { namespaces: all });
        }
    }

    fn step_ingresses(&mut self, step: &Step<'_>) -> Differs {
        // Ports of Services may be named.
        let services = step.touches(Kind::Service) && !self.ingresses.served.is_empty();
        if step.touches(Kind::Ingress) || step.touches(Kind::IngressClass) || services {
            self.ingresses.step(step.world, &step.mesh, step.all)
        } else {
            Differs { gateways: false, routes: false }
        }
    }

    fn step_rules(&mut self, step: &Step<'_>) {
        if !step.part(&mut self.rules, &step.world.destination_rules, compile::destination_rule) {
            return;
        }
        let mut namespaces = step.namespaces(&[Kind::DestinationRule]);
        if step.all {
            namespaces.extend(self.destination_rules.namespaces.keys().cloned());
            namespaces.extend(step.world.destination_rules.namespaces().cloned());
        }
        let mut all = self.destination_rules.namespaces.clone();
        for namespace in namespaces {
            let prev = all.get(&namespace).cloned();
            let merged = NamespaceRules::merge(self.rules.in_namespace(&namespace), prev.as_deref());
            if merged.rules().next().is_some() {
                all.insert(namespace, Arc::new(merged));
            } else {
                all.remove(&namespace);
            }
        }
        self.destination_rules = Arc::new(DestinationRules { namespaces: all });
    }

    /// Empties what a translation must not look at, and everything that decides about single proxies only.
    pub(crate) fn blank(&mut self, endpoints: bool, rules: bool, peers: bool) {
        if !endpoints {
            self.endpoints = Arc::default();
        }
        if !rules {
            self.destination_rules = Arc::default();
        }
        if !peers {
            self.peers = Arc::default();
        }
        self.gateways = Arc::default();
        self.ingresses = Ingresses::default();
        self.authz = Arc::default();
        self.credentials = Part::default();
        self.proxy_configs = Arc::default();
        self.sidecars = Part::default();
        self.virtual_services = Arc::default();
    }

    /// The Sidecar resource that applies to a workload.
    #[must_use]
    pub fn sidecar(&self, namespace: &Namespace, labels: &Labels) -> Option<Arc<Sidecar>> {
        let root = self.sidecars.in_namespace(&self.mesh.root_namespace);
        sidecars::choose(self.sidecars.in_namespace(namespace), root, labels)
    }

    /// Whether clients must take services of a namespace to speak plaintext only, or may try mutual TLS.
    #[must_use]
    pub fn namespace_mode(&self, namespace: &Namespace) -> MtlsMode {
        let root = self.peers.in_namespace(&self.mesh.root_namespace);
        policies::namespace_mode(self.peers.in_namespace(namespace), root)
    }

    /// The modes of mutual TLS of a workload.
    #[must_use]
    pub fn workload_modes(&self, namespace: &Namespace, labels: &Labels) -> MtlsModes {
        policies::workload_modes(self.peers.in_namespace(namespace), labels, self.namespace_mode(namespace))
    }

    /// The access rules of a workload.
    #[must_use]
    pub fn workload_authz(&self, namespace: &Namespace, labels: &Labels) -> WorkloadAuthz {
        let root = &self.mesh.root_namespace;
        let own = (namespace != root).then(|| self.authz.in_namespace(namespace)).into_iter().flatten();
        policies::workload_authz(self.authz.in_namespace(root).chain(own), labels)
    }

    /// The credential of a namespace and name.
    #[must_use]
    pub fn credential(&self, namespace: &Namespace, name: &str) -> Option<&Arc<Credential>> {
        self.credentials.in_namespace(namespace).find(|credential| credential.key.name == *name)
    }

    /// The Ingresses that are served here, whose status says where; ordered.
    #[must_use]
    pub fn served_ingresses(&self) -> &[ObjectKey] {
        &self.ingresses.served
    }

    /// Everything that is wrong with objects and between them, each kind ordered by namespace and name.
    #[must_use]
    pub fn findings(&self) -> Vec<Finding> {
        let endpoints = self.endpoints.namespaces.values().flat_map(|namespace| &namespace.findings);
        let all = self
            .mesh_findings
            .iter()
            .chain(self.kube_services.findings())
            .chain(self.service_entries.findings())
            .chain(endpoints)
            .chain(self.routes.findings())
            .chain(self.rules.findings())
            .chain(self.gateway_part.findings())
            .chain(self.ingresses.findings())
            .chain(self.sidecars.findings())
            .chain(self.peers.findings())
            .chain(self.authz.findings())
            .chain(self.credentials.findings());
        all.cloned().chain(references::findings(self)).collect()
    }
}
