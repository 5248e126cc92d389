//! The step from one plan to the next.
//!
//! Order inside a step: endpoint sets and clusters, virtual hosts, route configurations, listeners, secrets. What refers goes
//! after what is referred to, but nothing depends on it: references are slots.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::Arc;

use mesh_api::text::Str;
use mesh_api_xds::ir::cluster::{Cluster, Discovery};
use mesh_api_xds::ir::listener::{Listener, OriginalDst};
use mesh_api_xds::ir::route::{RouteConfig, VirtualHost};
use mesh_api_xds::ir::{Origin, Resource};
use mesh_api_xds::type_url::TypeUrl;

use super::cluster::{ClusterPlan, ClusterState};
use super::listener::{ListenerPlan, Tables};
use super::routes::{ApartHosts, HostPlan, RouteTable};
use super::slots::Slot;
use super::{Delta, Listeners, Plan};
use crate::balance::set::{EndpointSet, Resolved};
use crate::rejected::{Effect, Reason, Rejected, Report};

/// Empty slots are looked for when there are more than this many, and more than half of the clusters.
const SWEEP_FROM: usize = 64;

pub(super) fn next(previous: &Plan, delta: &Delta) -> (Plan, Vec<Rejected>) {
    let mut step = StepTo { plan: previous.clone(), rejected: Vec::new() };
    step.plan.mark = delta.mark.clone();
    let upserts = ByKind::of(&delta.upserts);
    let removed = |type_url: TypeUrl| {
        let names = delta.removals.iter().filter(move |(removed, _)| *removed == type_url).map(|(_, name)| name);
        names.filter(|name| !upserts.names.contains(&(type_url, *name))).collect::<Vec<_>>()
    };
    let resolved = step.resolve(delta);
    step.endpoints(&upserts.endpoints, &removed(TypeUrl::Endpoint));
    step.clusters(&upserts.clusters, &removed(TypeUrl::Cluster));
    step.re_resolve(&resolved);
    let changed = step.hosts(&upserts.hosts, &removed(TypeUrl::VirtualHost));
    step.routes(&upserts.routes, &removed(TypeUrl::RouteConfiguration), &changed);
    step.listeners(&upserts.listeners, &removed(TypeUrl::Listener));
    step.secrets(delta, &removed(TypeUrl::Secret));
    step.sweep();
    (step.plan, step.rejected)
}

/// Upserts by kind, the last of each name, ordered by name so that nothing depends on the order of arrival.
#[derive(Default)]
struct ByKind<'a> {
    clusters: BTreeMap<&'a Str, &'a Cluster>,
    endpoints: BTreeMap<&'a Str, &'a mesh_api_xds::ir::endpoint::EndpointSet>,
    listeners: BTreeMap<&'a Str, &'a Listener>,
    routes: BTreeMap<&'a Str, &'a RouteConfig>,
    hosts: BTreeMap<&'a Str, &'a VirtualHost>,
    names: HashSet<(TypeUrl, &'a Str)>,
}

impl<'a> ByKind<'a> {
    fn of(resources: &'a [Resource]) -> Self {
        let mut all = Self::default();
        for resource in resources {
            let name = resource.name();
            all.names.insert((type_of(resource), name));
            match resource {
                Resource::Cluster(cluster) => drop(all.clusters.insert(name, cluster)),
                Resource::Endpoints(endpoints) => drop(all.endpoints.insert(name, endpoints)),
                Resource::Listener(listener) => drop(all.listeners.insert(name, listener)),
                Resource::Routes(routes) => drop(all.routes.insert(name, routes)),
                Resource::VirtualHost(host) => drop(all.hosts.insert(name, host)),
                // Secrets are taken over as they are; names are not the plan's.
                Resource::Secret(_) | Resource::Names(_) => {}
            }
        }
        all
    }
}

const fn type_of(resource: &Resource) -> TypeUrl {
    match resource {
        Resource::Cluster(_) => TypeUrl::Cluster,
        Resource::Endpoints(_) => TypeUrl::Endpoint,
        Resource::Listener(_) => TypeUrl::Listener,
        Resource::Routes(_) => TypeUrl::RouteConfiguration,
        Resource::VirtualHost(_) => TypeUrl::VirtualHost,
        Resource::Secret(_) => TypeUrl::Secret,
        Resource::Names(_) => TypeUrl::NameTable,
    }
}

/// A plan on its way to be the next.
struct StepTo {
    plan: Plan,
    rejected: Vec<Rejected>,
}

impl StepTo {
    /// Takes over look-up results; returns the names whose addresses changed.
    fn resolve(&mut self, delta: &Delta) -> BTreeSet<Str> {
        let mut changed = BTreeSet::new();
        for (name, addresses) in &delta.resolved {
            if self.plan.resolved.get(name).map_or(&[][..], |old| old) == &**addresses {
                continue;
            }
            changed.insert(name.clone());
            let resolved = Arc::make_mut(&mut self.plan.resolved);
            if addresses.is_empty() {
                resolved.remove(name);
            } else {
                resolved.insert(name.clone(), Arc::clone(addresses));
            }
        }
        changed
    }

    fn endpoints(&mut self, upserts: &BTreeMap<&Str, &mesh_api_xds::ir::endpoint::EndpointSet>, removed: &[&Str]) {
        for (name, set) in upserts {
            let slot = self.plan.endpoints.slot(name);
            let old = self.plan.endpoints.get(slot);
            let built = Arc::new(EndpointSet::build(set, &Resolved::new(), old.map(|old| &**old)));
            self.plan.endpoints.set(slot, Some(built));
            self.refresh(name);
        }
        for name in removed {
            if let Some(slot) = self.plan.endpoints.find(name) {
                self.plan.endpoints.set(slot, None);
                self.refresh(name);
            }
        }
    }

    /// Gives a cluster that has its endpoints sent apart the present ones.
    fn refresh(&mut self, name: &Str) {
        let Some(cluster) = self.plan.cluster(name).filter(|cluster| cluster.settings.discovery == Discovery::Eds)
        else {
            return;
        };
        let cluster = Arc::clone(cluster);
        self.place(Arc::clone(&cluster.settings), Some(cluster));
    }

    fn clusters(&mut self, upserts: &BTreeMap<&Str, &Cluster>, removed: &[&Str]) {
        for (name, settings) in upserts {
            let old = self.plan.cluster(name).cloned();
            if old.as_ref().is_some_and(|old| *old.settings == **settings) {
                continue;
            }
            self.place(Arc::new((*settings).clone()), old);
        }
        for name in removed {
            if let Some(slot) = self.plan.clusters.find(name) {
                self.plan.clusters.set(slot, None);
            }
        }
    }

    /// Rebuilds the clusters that resolve one of these names.
    fn re_resolve(&mut self, names: &BTreeSet<Str>) {
        if names.is_empty() {
            return;
        }
        let uses = |cluster: &ClusterPlan| match &cluster.settings.discovery {
            Discovery::Dns { endpoints, .. } => {
                let mut all = endpoints.localities.iter().flat_map(|group| group.endpoints.iter());
                all.any(|endpoint| match &endpoint.address {
                    mesh_api_xds::ir::endpoint::Address::Name(name, _) => names.contains(name),
                    mesh_api_xds::ir::endpoint::Address::Socket(_) => false,
                })
            }
            Discovery::Eds | Discovery::Static(_) | Discovery::OriginalDst => false,
        };
        let affected: Vec<_> = self.plan.clusters().filter(|cluster| uses(cluster)).cloned().collect();
        for cluster in affected {
            self.place(Arc::clone(&cluster.settings), Some(cluster));
        }
    }

    /// Puts a cluster into its slot, with its endpoints, and with the counters of its predecessor.
    fn place(&mut self, settings: Arc<Cluster>, old: Option<Arc<ClusterPlan>>) {
        let old_set = old.as_ref().and_then(|old| old.endpoints());
        let unresolved = Resolved::new();
        let build = |set, resolved| Arc::new(EndpointSet::build(set, resolved, old_set.map(|old| &**old)));
        let endpoints = match &settings.discovery {
            Discovery::OriginalDst => None,
            Discovery::Eds => self.plan.endpoints.by_name(&settings.name).cloned(),
            Discovery::Static(set) => {
                let same = old.as_ref().is_some_and(|old| old.settings.discovery == settings.discovery);
                let shared = old_set.filter(|_| same).cloned();
                Some(shared.unwrap_or_else(|| build(set, &unresolved)))
            }
            // Until one of the names is resolved there is nothing to say.
            Discovery::Dns { endpoints: set, .. } => {
                Some(build(set, &self.plan.resolved)).filter(|built| !built.all().is_empty())
            }
        };
        let state = old.as_ref().map_or_else(|| Arc::new(ClusterState::new()), |old| Arc::clone(&old.state));
        if let Some(old_set) = old_set {
            let empty = EndpointSet::empty();
            state.ejections.forget(old_set, endpoints.as_deref().unwrap_or(&empty));
        }
        let slot = self.plan.clusters.slot(&settings.name);
        self.plan.clusters.set(slot, Some(Arc::new(ClusterPlan::new(settings, state, endpoints))));
    }

    /// Takes over virtual hosts that were sent apart; returns the route configurations that they change.
    fn hosts(&mut self, upserts: &BTreeMap<&Str, &VirtualHost>, removed: &[&Str]) -> BTreeSet<Str> {
        let mut changed = BTreeSet::new();
        for (name, host) in upserts {
            let mut report = Report::new(TypeUrl::VirtualHost, (*name).clone(), &mut self.rejected);
            let Some(config) = config_of(name) else {
                report.add("name".to_owned(), Reason::HostName, Effect::KeptPrevious, &Origin::default());
                continue;
            };
            let old = self.plan.apart.get(&config).and_then(|hosts| hosts.get(*name));
            let built = HostPlan::build(host, old, &mut self.plan.clusters, &mut report, "");
            let hosts = Arc::make_mut(&mut self.plan.apart).entry(config.clone()).or_default();
            Arc::make_mut(hosts).insert((*name).clone(), built);
            changed.insert(config);
        }
        for name in removed {
            let Some(config) = config_of(name).filter(|config| self.plan.apart.contains_key(config)) else { continue };
            let apart = Arc::make_mut(&mut self.plan.apart);
            if let Some(hosts) = apart.get_mut(&config) {
                Arc::make_mut(hosts).remove(*name);
                if hosts.is_empty() {
                    apart.remove(&config);
                }
            }
            changed.insert(config);
        }
        changed
    }

    fn routes(&mut self, upserts: &BTreeMap<&Str, &RouteConfig>, removed: &[&Str], changed: &BTreeSet<Str>) {
        let none = Arc::new(ApartHosts::new());
        for (name, config) in upserts {
            let slot = self.plan.routes.slot(name);
            let apart = Arc::clone(self.plan.apart.get(*name).unwrap_or(&none));
            let old = self.plan.routes.get(slot).cloned();
            let mut report = Report::new(TypeUrl::RouteConfiguration, (*name).clone(), &mut self.rejected);
            let table = RouteTable::build(config, &apart, old.as_deref(), &mut self.plan.clusters, &mut report);
            self.plan.routes.set(slot, Some(Arc::new(table)));
        }
        for name in removed {
            if let Some(slot) = self.plan.routes.find(name) {
                self.plan.routes.set(slot, None);
            }
        }
        for name in changed.iter().filter(|name| !upserts.contains_key(name)) {
            let Some(slot) = self.plan.routes.find(name) else { continue };
            let Some(table) = self.plan.routes.get(slot).filter(|table| table.apart) else { continue };
            let apart = Arc::clone(self.plan.apart.get(name).unwrap_or(&none));
            let table = table.with_apart(&apart, &mut self.rejected);
            self.plan.routes.set(slot, Some(Arc::new(table)));
        }
    }

    fn listeners(&mut self, upserts: &BTreeMap<&Str, &Listener>, removed: &[&Str]) {
        if upserts.is_empty() && removed.is_empty() {
            return;
        }
        let mut by_name = self.plan.listeners.by_name.clone();
        for (name, listener) in upserts {
            let old = by_name.get(*name).cloned();
            if old.as_ref().is_some_and(|old| old.is(listener)) {
                continue;
            }
            let mut report = Report::new(TypeUrl::Listener, (*name).clone(), &mut self.rejected);
            let mut tables = Tables { clusters: &mut self.plan.clusters, routes: &mut self.plan.routes };
            match ListenerPlan::build(listener, old.as_deref(), &mut tables, &mut report) {
                Ok(plan) => drop(by_name.insert((*name).clone(), Arc::new(plan))),
                Err((path, reason)) => report.add(path, reason, Effect::KeptPrevious, &Origin::default()),
            }
        }
        for name in removed {
            by_name.remove(*name);
        }
        let by_address = self.by_address(&by_name);
        self.plan.listeners = Arc::new(Listeners { by_name, by_address });
    }

    /// Listeners that a captured connection can be handed to. Of two with one address the first by name gets it.
    fn by_address(&mut self, by_name: &BTreeMap<Str, Arc<ListenerPlan>>) -> HashMap<SocketAddr, Arc<ListenerPlan>> {
        let mut by_address: HashMap<SocketAddr, Arc<ListenerPlan>> = HashMap::new();
        // A listener that hands off is where such a connection comes from.
        for listener in by_name.values().filter(|listener| listener.original_dst != OriginalDst::HandOff) {
            for address in listener.addresses() {
                match by_address.get(&address) {
                    None => drop(by_address.insert(address, Arc::clone(listener))),
                    Some(owner) if owner.name == listener.name => {}
                    Some(owner) => {
                        let reason = Reason::DuplicateAddress { address, owner: owner.name.clone() };
                        let mut report = Report::new(TypeUrl::Listener, listener.name.clone(), &mut self.rejected);
                        report.add("address".to_owned(), reason, Effect::Cut, &Origin::default());
                    }
                }
            }
        }
        by_address
    }

    fn secrets(&mut self, delta: &Delta, removed: &[&Str]) {
        for resource in &delta.upserts {
            let Resource::Secret(secret) = resource else { continue };
            if self.plan.secrets.get(&secret.name).is_some_and(|old| **old == *secret) {
                continue;
            }
            Arc::make_mut(&mut self.plan.secrets).insert(secret.name.clone(), Arc::new(secret.clone()));
        }
        for name in removed {
            if self.plan.secrets.contains_key(*name) {
                Arc::make_mut(&mut self.plan.secrets).remove(*name);
            }
        }
    }

    /// Gives back slots that nothing stands in and nothing refers to, when there are many.
    fn sweep(&mut self) {
        let many = |vacant: usize, all: usize| vacant > SWEEP_FROM && vacant > all;
        if many(self.plan.clusters.vacant(), self.plan.clusters.filled()) {
            let used = self.used_clusters();
            self.plan.clusters.sweep(|slot| used.contains(&slot));
        }
        if many(self.plan.endpoints.vacant(), self.plan.endpoints.filled()) {
            // Only names lead to endpoint sets.
            self.plan.endpoints.sweep(|_| false);
        }
        if many(self.plan.routes.vacant(), self.plan.routes.filled()) {
            let chains = self.plan.listeners().flat_map(|listener| listener.chains());
            let used: HashSet<_> = chains.filter_map(|chain| chain.route_slot()).collect();
            self.plan.routes.sweep(|slot| used.contains(&slot));
        }
    }

    fn used_clusters(&self) -> HashSet<Slot> {
        let mut used: HashSet<Slot> = self.plan.route_tables().flat_map(|table| table.slots()).collect();
        used.extend(self.plan.apart.values().flat_map(|hosts| hosts.values()).flat_map(|host| host.slots()));
        let chains = self.plan.listeners().flat_map(|listener| listener.chains());
        used.extend(chains.flat_map(|chain| chain.cluster_slots()));
        used
    }
}

/// The route configuration of a virtual host that was sent apart.
fn config_of(name: &str) -> Option<Str> {
    name.rsplit_once('/').map(|(config, _)| Str::from(config))
}
