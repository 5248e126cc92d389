//! From a snapshot to the resources of one proxy. Pure: the same snapshot and proxy give the same resources on every replica.
//!
//! Work is shared in three steps, each a memo (`memo.rs`): one resource for equal inputs, one list of resources for all proxies
//! that see the same, one set for equal lists. Lists are made for an *audience*: the proxy with everything blanked out that
//! must not matter, and the snapshot likewise, so that a list cannot depend on what is not in its key.

pub mod affects;
mod audience;
mod cluster;
mod endpoint;
mod gateway;
mod http;
mod keys;
mod listener_gateway;
mod listener_inbound;
mod listener_outbound;
mod memo;
mod name_table;
mod names;
mod route;
mod secret;
mod tcp;
mod tls;
mod vhost;
mod view;

use std::fmt;
use std::hash::Hash;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};

use mesh_api::codes::Code;
use mesh_api::finding::Finding;
use mesh_api::ids::Namespace;
use mesh_api::text::Str;
use mesh_api_xds::codec;
use mesh_api_xds::encoded::{Encoded, TypeSet};
use mesh_api_xds::ir::Resource;
use mesh_api_xds::ir::route::{RouteConfig, RouteHosts, VirtualHost};
use mesh_api_xds::type_url::{PerType, TypeUrl};

use self::audience::audience;
use self::endpoint::EndpointKey;
use self::keys::{ClusterKey, cluster_keys, endpoint_keys};
use self::memo::{ByPtr, Memo};
use self::route::{RouteTable, TableKind};
use self::vhost::HostKey;
use self::view::View;
use crate::proxy::{Flavor, ProxyType, ProxyView};
use crate::scope::ProxyScope;
use crate::snapshot::destination_rules::DestinationRules;
use crate::snapshot::endpoints::Endpoints;
use crate::snapshot::gateways::Gateway;
use crate::snapshot::mesh::Mesh;
use crate::snapshot::sidecars::{EgressProtocol, Sidecar};
use crate::snapshot::virtual_services::VirtualService;
use crate::snapshot::{Services, Snapshot};

/// How many lists are held, at most, for the next proxy of a push. A list is a row of pointers.
const KEPT_LISTS: usize = 4096;

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
    sets: Memo<SetKey<P>, P::Set>,
}

/// A set for proxies that share a list and have the same resources besides.
type SetKey<P> = (ByPtr<List<P>>, Vec<ByPtr<P>>);

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
struct List<P: Product> {
    items: Vec<Arc<P>>,
    /// The items as a set, once somebody needs no more than them.
    set: OnceLock<Arc<P::Set>>,
    findings: Vec<Finding>,
}

impl<P: Product> Translator<P> {
    /// Translates the wanted types for a proxy.
    pub fn translate(&self, snapshot: &Snapshot, proxy: &ProxyView, wanted: Wanted) -> Translation<P> {
        self.scopes.advance(snapshot.generation);
        self.lists.advance(snapshot.generation);
        self.sets.advance(snapshot.generation);
        let mut sets: PerType<Option<Arc<P::Set>>> = PerType::from_fn(|_| None);
        let mut findings = Vec::new();
        if !wanted.is_nothing() {
            let scope = self.scope(snapshot, proxy);
            for type_url in TypeUrl::CONFIG.into_iter().filter(|type_url| wanted.has(*type_url)) {
                let list = self.list(snapshot, proxy, &scope, type_url);
                findings.extend(list.findings.iter().cloned());
                let own = self.own_items(snapshot, proxy, &scope, type_url, &mut findings);
                let set = if own.is_empty() {
                    Arc::clone(list.set.get_or_init(|| Arc::new(P::collect(&list.items))))
                } else {
                    let key = (ByPtr(list), own.into_iter().map(ByPtr).collect());
                    self.sets.get(key, |(list, own): &SetKey<P>| {
                        let own = own.iter().map(|item| Arc::clone(&item.0));
                        P::collect(&list.items.iter().cloned().chain(own).collect::<Vec<_>>())
                    })
                };
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

    /// What a proxy has besides its audience's list.
    fn own_items(
        &self,
        snapshot: &Snapshot,
        proxy: &ProxyView,
        scope: &Arc<ProxyScope>,
        type_url: TypeUrl,
        findings: &mut Vec<Finding>,
    ) -> Vec<Arc<P>> {
        let view = View::new(snapshot, proxy, scope);
        let mut items = Vec::new();
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
                let all = listeners.into_iter().map(|one| Resource::Listener(view.on_both_families(one)));
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
            TypeUrl::RouteConfiguration
            | TypeUrl::VirtualHost
            | TypeUrl::Endpoint
            | TypeUrl::NameTable
            | TypeUrl::Generation => {}
        }
        findings.append(&mut view.take_findings());
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
                    let listeners = listener_outbound::outbound_listeners(&view).into_iter();
                    let listeners = listeners.map(|one| Resource::Listener(view.on_both_families(one)));
                    listeners.filter_map(|resource| self.other(resource, &mut findings)).collect()
                }
                TypeUrl::RouteConfiguration | TypeUrl::VirtualHost if !view.is_router() => {
                    let tables = sidecar_tables(&view);
                    self.table_items(tables, view.proxy.flavor, type_url, &mut findings)
                }
                TypeUrl::NameTable => {
                    let table = name_table::name_table(&view).map(Resource::Names);
                    table.into_iter().filter_map(|resource| self.other(resource, &mut findings)).collect()
                }
                TypeUrl::Listener
                | TypeUrl::RouteConfiguration
                | TypeUrl::VirtualHost
                | TypeUrl::Secret
                | TypeUrl::Generation => Vec::new(),
            };
            findings.append(&mut view.take_findings());
            List { items, set: OnceLock::new(), findings }
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
            Some(port) if egress.spec.bound => {
                let address = SocketAddr::new(egress.spec.bind.unwrap_or_else(|| view.loopback()), port.number);
                add(route::sidecar_table(view, egress, &TableKind::Bound(address)));
            }
            // Without capture there is no listener that would ask for the others.
            _ if !view.proxy.sees_destinations() => {}
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
