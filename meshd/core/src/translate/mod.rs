//! From a snapshot to the resources of one proxy. Pure: the same snapshot and proxy give the same resources on every replica.
//!
//! Work is shared in three steps, each a memo ([`memo`]): one resource for equal inputs, one list of resources for all proxies
//! that see the same, one set for equal lists. Lists are made for an *audience*: the proxy with everything blanked out that
//! must not matter, and the snapshot likewise, so that a list cannot depend on what is not in its key.

pub mod affects;
mod cluster;
mod endpoint;
mod gateway;
mod http;
mod listener_gateway;
mod listener_inbound;
mod listener_outbound;
mod memo;
mod names;
mod route;
mod secret;
mod tls;
mod vhost;

use std::cell::RefCell;
use std::fmt;
use std::hash::Hash;
use std::sync::Arc;

use mesh_api::codes::Code;
use mesh_api::finding::Finding;
use mesh_api::ids::Namespace;
use mesh_api::labels::Labels;
use mesh_api::text::Str;
use mesh_api_xds::codec;
use mesh_api_xds::encoded::{Encoded, TypeSet};
use mesh_api_xds::ir::Resource;
use mesh_api_xds::ir::endpoint::Locality;
use mesh_api_xds::ir::route::{RouteConfig, RouteHosts, VirtualHost};
use mesh_api_xds::type_url::{PerType, TypeUrl};

use self::cluster::{AutoTls, ClusterKey};
use self::endpoint::EndpointKey;
use self::memo::{ByPtr, Memo};
use self::route::{RouteTable, TableKind};
use self::vhost::HostKey;
use crate::proxy::{Flavor, ProxyType, ProxyView};
use crate::scope::ProxyScope;
use crate::snapshot::destination_rules::{Client as RuleClient, DestinationRule, DestinationRules};
use crate::snapshot::endpoints::{Endpoints, ServiceEndpoints};
use crate::snapshot::gateways::Gateway;
use crate::snapshot::mesh::Mesh;
use crate::snapshot::policies::MtlsMode;
use crate::snapshot::services::{Port, Protocol, Resolution, Service};
use crate::snapshot::sidecars::{EgressProtocol, Sidecar};
use crate::snapshot::virtual_services::VirtualService;
use crate::snapshot::{Services, Snapshot};

/// How many lists are held for the next proxy of a push. A list is a row of pointers.
const KEPT_LISTS: usize = 64;

/// Which types are to be translated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wanted(u8);

impl Wanted {
    /// Nothing: the proxy is not affected.
    pub const NOTHING: Self = Self(0);

    /// All types of configuration.
    #[must_use]
    pub fn all() -> Self {
        TypeUrl::CONFIG.into_iter().fold(Self::NOTHING, Self::with)
    }

    /// These and one more.
    #[must_use]
    pub const fn with(self, type_url: TypeUrl) -> Self {
        Self(self.0 | 1 << type_url.index())
    }

    /// These and those.
    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether a type is wanted.
    #[must_use]
    pub const fn has(self, type_url: TypeUrl) -> bool {
        self.0 & 1 << type_url.index() != 0
    }

    /// Whether nothing is wanted.
    #[must_use]
    pub const fn is_nothing(self) -> bool {
        self.0 == 0
    }
}

/// The form in which resources are handed out.
pub trait Product: Sized + Send + Sync + fmt::Debug {
    /// All of one type.
    type Set: Send + Sync + fmt::Debug;

    /// Makes the form of one resource.
    ///
    /// # Errors
    /// When the resource cannot have this form; the text names the place in it.
    fn make(resource: Resource) -> Result<Self, String>;

    /// Puts all of one type together.
    fn collect(items: &[Arc<Self>]) -> Self::Set;
}

impl Product for Encoded {
    type Set = TypeSet;

    fn make(resource: Resource) -> Result<Self, String> {
        codec::encode(&resource).map_err(|error| error.to_string())
    }

    fn collect(items: &[Arc<Self>]) -> TypeSet {
        TypeSet::new(items.iter().cloned())
    }
}

impl Product for Resource {
    type Set = Vec<Arc<Self>>;

    fn make(resource: Resource) -> Result<Self, String> {
        Ok(resource)
    }

    fn collect(items: &[Arc<Self>]) -> Vec<Arc<Self>> {
        items.to_vec()
    }
}

/// What a proxy is to be served.
#[derive(Debug)]
pub struct Translation<P: Product> {
    /// A set for each wanted type; `None` for the others, which stay as they are.
    pub sets: PerType<Option<Arc<P::Set>>>,
    /// What is wrong with objects as this proxy sees them together.
    pub findings: Vec<Finding>,
}

/// Makes resources and remembers them. One for all proxies of a control plane.
pub struct Translator<P: Product> {
    scopes: Memo<ScopeKey, ProxyScope>,
    clusters: Memo<ClusterKey, P>,
    endpoints: Memo<EndpointKey, P>,
    hosts: Memo<HostKey, VirtualHost>,
    host_products: Memo<ByPtr<VirtualHost>, P>,
    tables: Memo<TableKey, P>,
    /// Resources that are made for each proxy and are often equal.
    others: Memo<Resource, P>,
    lists: Memo<ListKey, List<P>>,
    sets: Memo<(TypeUrl, Vec<ByPtr<P>>), P::Set>,
}

impl<P: Product> Default for Translator<P> {
    fn default() -> Self {
        Self {
            scopes: Memo::keeping(KEPT_LISTS),
            clusters: Memo::default(),
            endpoints: Memo::default(),
            hosts: Memo::default(),
            host_products: Memo::default(),
            tables: Memo::default(),
            others: Memo::default(),
            lists: Memo::keeping(KEPT_LISTS),
            sets: Memo::default(),
        }
    }
}

impl<P: Product> fmt::Debug for Translator<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Translator").field("counts", &self.counts()).finish_non_exhaustive()
    }
}

/// How many resources a translator made, not counting those it remembered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Outbound clusters.
    pub clusters: u64,
    /// Endpoint sets.
    pub endpoints: u64,
    /// Virtual hosts.
    pub hosts: u64,
    /// Route configurations.
    pub tables: u64,
    /// Listeners, inbound clusters, secrets.
    pub others: u64,
    /// Lists of resources for an audience.
    pub lists: u64,
}

#[derive(Clone, PartialEq, Eq, Hash)]
struct ScopeKey {
    kind: ProxyType,
    namespace: Namespace,
    sidecar: Option<ByPtr<Sidecar>>,
    services: ByPtr<Services>,
    routes: ByPtr<[Arc<VirtualService>]>,
    mesh: ByPtr<Mesh>,
}

#[derive(Clone, PartialEq, Eq, Hash)]
struct TableKey {
    name: Str,
    ignore_port: bool,
    apart: bool,
    hosts: Vec<ByPtr<VirtualHost>>,
}

/// Everything a list of resources may depend on.
#[derive(Clone, PartialEq, Eq, Hash)]
struct ListKey {
    type_url: TypeUrl,
    audience: ProxyView,
    scope: ByPtr<ProxyScope>,
    mesh: ByPtr<Mesh>,
    services: ByPtr<Services>,
    endpoints: Option<ByPtr<Endpoints>>,
    rules: Option<ByPtr<DestinationRules>>,
    peers: Option<ByPtr<crate::snapshot::Peers>>,
    gateways: Option<ByPtr<[Arc<Gateway>]>>,
}

#[derive(Debug)]
struct List<P> {
    items: Vec<Arc<P>>,
    findings: Vec<Finding>,
}

/// What translation looks at: a snapshot with a proxy's eyes.
pub(crate) struct View<'a> {
    pub(crate) snapshot: &'a Snapshot,
    pub(crate) proxy: &'a ProxyView,
    pub(crate) scope: &'a ProxyScope,
    findings: RefCell<Vec<Finding>>,
}

impl<'a> View<'a> {
    const fn new(snapshot: &'a Snapshot, proxy: &'a ProxyView, scope: &'a ProxyScope) -> Self {
        Self { snapshot, proxy, scope, findings: RefCell::new(Vec::new()) }
    }

    pub(crate) fn report(&self, finding: Finding) {
        self.findings.borrow_mut().push(finding);
    }

    pub(crate) fn mesh_ptr(&self) -> ByPtr<Mesh> {
        ByPtr(Arc::clone(&self.snapshot.mesh))
    }

    /// The DestinationRule that the proxy applies to a service.
    pub(crate) fn rule(&self, service: &Service) -> Option<Arc<DestinationRule>> {
        let client = RuleClient { namespace: &self.proxy.namespace, labels: Some(&self.proxy.labels) };
        self.lookup(service, &client)
    }

    /// The rule that a service's own proxies apply to traffic for it: never one for some clients.
    pub(crate) fn server_rule(&self, service: &Service) -> Option<Arc<DestinationRule>> {
        self.lookup(service, &RuleClient { namespace: &self.proxy.namespace, labels: None })
    }

    fn lookup(&self, service: &Service, client: &RuleClient<'_>) -> Option<Arc<DestinationRule>> {
        let root = &self.snapshot.mesh.root_namespace;
        self.snapshot.destination_rules.lookup(&service.host, &service.namespace, client, root)
    }
}

impl<P: Product> Translator<P> {
    /// Translates the wanted types for a proxy.
    pub fn translate(&self, snapshot: &Snapshot, proxy: &ProxyView, wanted: Wanted) -> Translation<P> {
        let mut sets: PerType<Option<Arc<P::Set>>> = PerType::from_fn(|_| None);
        let mut findings = Vec::new();
        if !wanted.is_nothing() {
            let scope = self.scope(snapshot, proxy);
            for type_url in TypeUrl::CONFIG.into_iter().filter(|type_url| wanted.has(*type_url)) {
                let items = self.items(snapshot, proxy, &scope, type_url, &mut findings);
                let key = items.iter().cloned().map(ByPtr).collect();
                let set = self.sets.get((type_url, key), |_| P::collect(&items));
                *sets.of_mut(type_url) = Some(set);
            }
        }
        findings.sort_by(|a, b| (&a.key, &a.path, &a.message).cmp(&(&b.key, &b.path, &b.message)));
        findings.dedup();
        Translation { sets, findings }
    }

    /// What was made so far.
    #[must_use]
    pub fn counts(&self) -> Counts {
        Counts {
            clusters: self.clusters.made(),
            endpoints: self.endpoints.made(),
            hosts: self.hosts.made(),
            tables: self.tables.made(),
            others: self.others.made(),
            lists: self.lists.made(),
        }
    }

    /// What a proxy may see.
    pub fn scope(&self, snapshot: &Snapshot, proxy: &ProxyView) -> Arc<ProxyScope> {
        let sidecar = match proxy.kind {
            ProxyType::Sidecar => snapshot.sidecar(&proxy.namespace, &proxy.labels),
            ProxyType::Router => None,
        };
        let key = ScopeKey {
            kind: proxy.kind,
            namespace: proxy.namespace.clone(),
            sidecar: sidecar.clone().map(ByPtr),
            services: ByPtr(Arc::clone(&snapshot.services)),
            routes: ByPtr(Arc::clone(&snapshot.virtual_services)),
            mesh: ByPtr(Arc::clone(&snapshot.mesh)),
        };
        self.scopes.get(key, |key| ProxyScope::new(snapshot, key.kind, &key.namespace, sidecar))
    }

    fn items(
        &self,
        snapshot: &Snapshot,
        proxy: &ProxyView,
        scope: &Arc<ProxyScope>,
        type_url: TypeUrl,
        findings: &mut Vec<Finding>,
    ) -> Vec<Arc<P>> {
        let shared = self.list(snapshot, proxy, scope, type_url);
        findings.extend(shared.findings.iter().cloned());
        let view = View::new(snapshot, proxy, scope);
        let mut items = shared.items.clone();
        match type_url {
            TypeUrl::Cluster => {
                let fixed = cluster::fixed(&snapshot.mesh, proxy.kind, proxy.ipv6_only());
                let ports = listener_inbound::inbound_ports(&view);
                let inbound = listener_inbound::inbound_clusters(&view, &ports);
                let all = fixed.into_iter().chain(inbound).map(Resource::Cluster);
                items.extend(all.filter_map(|resource| self.other(resource, findings)));
            }
            TypeUrl::Listener => {
                let listeners = match proxy.kind {
                    ProxyType::Sidecar => {
                        listener_inbound::inbound_listeners(&view, &listener_inbound::inbound_ports(&view))
                    }
                    ProxyType::Router => listener_gateway::gateway_listeners(&view, &gateway::sockets(&view)),
                };
                let all = listeners.into_iter().map(Resource::Listener);
                items.extend(all.filter_map(|resource| self.other(resource, findings)));
            }
            TypeUrl::Secret => {
                let secrets = secret::secrets(&view, &gateway::sockets(&view)).into_iter().map(Resource::Secret);
                items.extend(secrets.filter_map(|resource| self.other(resource, findings)));
            }
            TypeUrl::RouteConfiguration | TypeUrl::VirtualHost if proxy.kind == ProxyType::Router => {
                let tables = listener_gateway::gateway_tables(&view, &gateway::sockets(&view));
                items.extend(self.table_items(tables, proxy.flavor, type_url, findings));
            }
            TypeUrl::RouteConfiguration | TypeUrl::VirtualHost | TypeUrl::Endpoint | TypeUrl::Generation => {}
        }
        findings.append(&mut view.findings.borrow_mut());
        items
    }

    /// The part that all proxies of an audience share.
    fn list(&self, snapshot: &Snapshot, proxy: &ProxyView, scope: &Arc<ProxyScope>, type_url: TypeUrl) -> Arc<List<P>> {
        let (audience, facet) = audience(snapshot, proxy, scope, type_url);
        let key = ListKey {
            type_url,
            audience,
            scope: ByPtr(Arc::clone(scope)),
            mesh: ByPtr(Arc::clone(&facet.mesh)),
            services: ByPtr(Arc::clone(&facet.services)),
            endpoints: facet.uses.endpoints.then(|| ByPtr(Arc::clone(&facet.endpoints))),
            rules: facet.uses.rules.then(|| ByPtr(Arc::clone(&facet.destination_rules))),
            peers: facet.uses.peers.then(|| ByPtr(Arc::clone(&facet.peers))),
            gateways: None,
        };
        self.lists.get(key, |key| {
            let view = View::new(&facet.snapshot, &key.audience, scope);
            let mut findings = Vec::new();
            let items = match type_url {
                TypeUrl::Cluster => self.outbound_clusters(&view, &mut findings),
                TypeUrl::Endpoint => self.endpoint_sets(&view, &mut findings),
                TypeUrl::Listener if !view.is_router() => {
                    let listeners = listener_outbound::outbound_listeners(&view).into_iter().map(Resource::Listener);
                    listeners.filter_map(|resource| self.other(resource, &mut findings)).collect()
                }
                TypeUrl::RouteConfiguration | TypeUrl::VirtualHost if !view.is_router() => {
                    let tables = sidecar_tables(&view);
                    self.table_items(tables, view.proxy.flavor, type_url, &mut findings)
                }
                TypeUrl::Listener
                | TypeUrl::RouteConfiguration
                | TypeUrl::VirtualHost
                | TypeUrl::Secret
                | TypeUrl::Generation => Vec::new(),
            };
            findings.append(&mut view.findings.borrow_mut());
            List { items, findings }
        })
    }

    /// A resource that is looked up by its own value.
    fn other(&self, resource: Resource, findings: &mut Vec<Finding>) -> Option<Arc<P>> {
        keep(self.others.try_get(resource, |resource| P::make(resource.clone())), findings)
    }

    fn outbound_clusters(&self, view: &View<'_>, findings: &mut Vec<Finding>) -> Vec<Arc<P>> {
        let keys = view.scope.services.iter().flat_map(|service| cluster_keys(view, service));
        let made = keys.filter_map(|key| {
            let cluster = self.clusters.try_get(key, |key| P::make(Resource::Cluster(cluster::outbound(key))));
            keep(cluster, findings)
        });
        made.collect()
    }

    fn endpoint_sets(&self, view: &View<'_>, findings: &mut Vec<Finding>) -> Vec<Arc<P>> {
        let keys = view.scope.services.iter().flat_map(|service| endpoint_keys(view, service));
        let made = keys.filter_map(|key| {
            let set = self.endpoints.try_get(key, |key| P::make(Resource::Endpoints(endpoint::endpoint_set(key))));
            keep(set, findings)
        });
        made.collect()
    }

    /// Route configurations, or the virtual hosts that are sent apart from them.
    fn table_items(
        &self,
        tables: Vec<RouteTable>,
        flavor: Flavor,
        type_url: TypeUrl,
        findings: &mut Vec<Finding>,
    ) -> Vec<Arc<P>> {
        let apart = flavor == Flavor::Lateen;
        let mut items = Vec::new();
        for RouteTable { name, ignore_port, hosts } in tables {
            if apart && type_url == TypeUrl::RouteConfiguration {
                let key = TableKey { name, ignore_port, apart, hosts: Vec::new() };
                items.extend(keep(self.tables.try_get(key, |key| P::make(Resource::Routes(table(key)))), findings));
                continue;
            }
            let prefixed = |mut key: HostKey| {
                if apart {
                    key.name = Str::from(format!("{name}/{}", key.name));
                }
                ByPtr(self.hosts.get(key, vhost::virtual_host))
            };
            let hosts: Vec<_> = hosts.into_iter().map(prefixed).collect();
            match (apart, type_url) {
                (true, _) => items.extend(hosts.into_iter().filter_map(|host| {
                    let product = self
                        .host_products
                        .try_get(host, |host| P::make(Resource::VirtualHost(VirtualHost::clone(host))));
                    keep(product, findings)
                })),
                (false, TypeUrl::RouteConfiguration) => {
                    let key = TableKey { name, ignore_port, apart, hosts };
                    items.extend(keep(self.tables.try_get(key, |key| P::make(Resource::Routes(table(key)))), findings));
                }
                (false, _) => {}
            }
        }
        items
    }
}

/// A resource that was made; one that cannot be sent is a finding, and the others go out.
fn keep<P>(made: Result<Arc<P>, String>, findings: &mut Vec<Finding>) -> Option<Arc<P>> {
    match made {
        Ok(product) => Some(product),
        Err(reason) => {
            findings.push(Finding::new(Code::InvalidValue, "", format!("a resource cannot be sent: {reason}")));
            None
        }
    }
}

fn table(key: &TableKey) -> RouteConfig {
    let hosts = if key.apart {
        RouteHosts::Apart
    } else {
        RouteHosts::Inline(key.hosts.iter().map(|host| Arc::clone(&host.0)).collect())
    };
    RouteConfig { name: key.name.clone(), hosts, ignore_port: key.ignore_port }
}

/// All route tables of a sidecar's outbound listeners; of equal names the first one counts, as with listeners.
fn sidecar_tables(view: &View<'_>) -> Vec<RouteTable> {
    let mut tables: Vec<RouteTable> = Vec::new();
    let mut add = |table: RouteTable| {
        if tables.iter().all(|known| known.name != table.name) {
            tables.push(table);
        }
    };
    for egress in &view.scope.egress {
        match &egress.spec.port {
            Some(port) if port.protocol == EgressProtocol::HttpProxy => {
                add(route::sidecar_table(view, egress, &TableKind::Proxy));
            }
            Some(port) => add(route::sidecar_table(view, egress, &TableKind::Port(port.number))),
            None => {
                for kind in route::captured_tables(egress) {
                    add(route::sidecar_table(view, egress, &kind));
                }
            }
        }
    }
    let proxy_port = view.proxy.http_proxy_port.or(view.snapshot.mesh.http_proxy_port);
    if let (Some(_), Some(egress)) = (proxy_port, view.scope.catch_all().or_else(|| view.scope.egress.first())) {
        add(route::sidecar_table(view, egress, &TableKind::Proxy));
    }
    tables
}

/// Clusters of a service: one for each port, and one for each of its subsets.
fn cluster_keys(view: &View<'_>, service: &Arc<Service>) -> Vec<ClusterKey> {
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
                auto,
                names: names.clone(),
                kind: view.proxy.kind,
                flavor: view.proxy.flavor,
            });
        }
    }
    keys
}

fn instances(endpoints: &ServiceEndpoints, port: u16) -> Arc<[crate::snapshot::endpoints::Instance]> {
    let found = endpoints.ports.iter().find(|(number, _)| *number == port);
    found.map_or_else(endpoint::no_instances, |(_, instances)| Arc::clone(instances))
}

fn auto_tls(view: &View<'_>, service: &Service, port: &Port, endpoints: &ServiceEndpoints) -> AutoTls {
    let plaintext = view.snapshot.namespace_mode(&service.namespace) == MtlsMode::Disable;
    if service.external || !view.snapshot.mesh.auto_mtls || plaintext {
        return AutoTls::Off;
    }
    let by_client = service.resolution == Resolution::Passthrough && view.proxy.kind == ProxyType::Sidecar;
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
fn endpoint_keys(view: &View<'_>, service: &Arc<Service>) -> Vec<EndpointKey> {
    let listed = match service.resolution {
        Resolution::Registry => true,
        Resolution::Passthrough => view.is_router(),
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
            let near = (outlier && view.snapshot.mesh.locality_balancing).then(|| view.proxy.locality.clone());
            let name = subset.map(|subset| subset.name.clone()).unwrap_or_default();
            keys.push(EndpointKey {
                cluster: names::outbound(port.number, &name, &service.host),
                instances: instances.clone(),
                subset: subset.map(|subset| subset.labels.clone()),
                near: near.filter(|near| *near != Locality::default()),
            });
        }
    }
    keys
}

/// A snapshot without what a list must not depend on.
struct Facet {
    snapshot: Snapshot,
    uses: Uses,
}

#[derive(Clone, Copy, Default)]
struct Uses {
    endpoints: bool,
    rules: bool,
    peers: bool,
}

impl std::ops::Deref for Facet {
    type Target = Snapshot;

    fn deref(&self) -> &Snapshot {
        &self.snapshot
    }
}

/// The proxy and the snapshot with everything blanked out that must not matter to the shared part of a type.
fn audience(snapshot: &Snapshot, proxy: &ProxyView, scope: &ProxyScope, type_url: TypeUrl) -> (ProxyView, Facet) {
    let selects = snapshot.destination_rules.selects_by_labels(&proxy.namespace);
    let headless = type_url == TypeUrl::Listener && has_headless_listeners(scope);
    let (uses, labels) = match type_url {
        TypeUrl::Cluster => (Uses { endpoints: true, rules: true, peers: true }, selects),
        TypeUrl::Endpoint => (Uses { endpoints: true, rules: true, peers: false }, selects),
        TypeUrl::Listener => {
            (Uses { endpoints: headless, rules: true, peers: false }, selects || scope.routes_by_labels)
        }
        TypeUrl::RouteConfiguration | TypeUrl::VirtualHost => (Uses::default(), scope.routes_by_labels),
        TypeUrl::Secret | TypeUrl::Generation => (Uses::default(), false),
    };
    let listener = type_url == TypeUrl::Listener;
    // Only the family of its addresses matters, unless its own endpoints are left out.
    let family = || proxy.ips.first().map(|ip| if ip.is_ipv4() { V4 } else { V6 });
    let ips = match (listener, headless) {
        (true, true) => Arc::clone(&proxy.ips),
        (true, false) if proxy.ipv6_only() => [V6].into(),
        (true, false) => family().map(|_| V4).into_iter().collect(),
        (false, _) => Arc::default(),
    };
    let audience = ProxyView {
        id: Str::empty(),
        kind: proxy.kind,
        flavor: proxy.flavor,
        ips,
        name: mesh_api::ids::Name::default(),
        namespace: proxy.namespace.clone(),
        service_account: mesh_api::ids::Name::default(),
        labels: if labels { proxy.labels.clone() } else { Labels::default() },
        workload: Str::empty(),
        cluster: mesh_api::ids::ClusterId::default(),
        domain: proxy.domain.clone(),
        locality: if type_url == TypeUrl::Endpoint { proxy.locality.clone() } else { Locality::default() },
        interception: if listener { proxy.interception } else { crate::proxy::Interception::default() },
        http_proxy_port: proxy.http_proxy_port,
        idle_timeout: if listener { proxy.idle_timeout } else { None },
        http10: listener && proxy.http10,
        unprivileged: false,
    };
    let mut facet = snapshot.clone();
    facet.blank(uses.endpoints, uses.rules, uses.peers);
    (audience, Facet { snapshot: facet, uses })
}

const V4: std::net::IpAddr = std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);
const V6: std::net::IpAddr = std::net::IpAddr::V6(std::net::Ipv6Addr::LOCALHOST);

/// Whether an outbound listener is made for each endpoint of some service.
fn has_headless_listeners(scope: &ProxyScope) -> bool {
    let headless = |service: &Arc<Service>| {
        service.resolution == Resolution::Passthrough
            && service.registry == crate::snapshot::services::Registry::Kubernetes
            && service.ports.iter().any(|port| !port.protocol.is_http())
    };
    scope.services.iter().any(headless)
}
