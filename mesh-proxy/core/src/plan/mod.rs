//! The plan: everything the proxy's workers look at, compiled from the IR, immutable, shared.
//!
//! [`Plan::next`] makes the following plan from a delta. What did not change is shared by pointer, down to one listener's
//! chain, one virtual host, one cluster, one endpoint set; counters of endpoints and clusters are carried over. The property
//! that keeps this honest: the next plan prints the same as one built from nothing.
//!
//! Not here: sockets, TLS configurations (the shell makes them from [`Plan::secret`]), the wire.

pub mod cluster;
pub mod listener;
mod next;
pub mod route;
pub mod routes;
pub mod slots;

#[cfg(test)]
pub(crate) mod tests;

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use mesh_api::text::Str;
use mesh_api_xds::ir::Resource;
use mesh_api_xds::ir::cluster::Discovery;
use mesh_api_xds::ir::endpoint::Address;
use mesh_api_xds::ir::secret::Secret;
use mesh_api_xds::type_url::TypeUrl;

use crate::balance::set::{EndpointSet, Resolved};
use crate::rejected::Rejected;
use cluster::{ClusterPlan, ClusterRef};
use listener::ListenerPlan;
use routes::{ApartHosts, RouteTable};
use slots::{Slot, Slots};

/// The configuration that workers run. `Send + Sync`; shared as `Arc<Plan>`.
#[derive(Clone)]
pub struct Plan {
    mark: Mark,
    listeners: Arc<Listeners>,
    routes: Slots<Arc<RouteTable>>,
    /// Virtual hosts that were sent apart, by route configuration.
    apart: Arc<BTreeMap<Str, Arc<ApartHosts>>>,
    clusters: Slots<Arc<ClusterPlan>>,
    /// Endpoint sets that were sent apart. Their clusters hold them too, but may come later.
    endpoints: Slots<Arc<EndpointSet>>,
    secrets: Arc<BTreeMap<Str, Arc<Secret>>>,
    resolved: Arc<Resolved>,
}

/// A consistent set: its generation, and the changes that led to it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mark {
    /// Number of the generation; 0 before the first.
    pub generation: u64,
    /// Ids of the changes since the generation before.
    pub changes: Arc<[Str]>,
}

/// What changes between two plans. Order has no meaning; a name that is both set and removed is set.
#[derive(Clone, Debug, Default)]
pub struct Delta {
    /// The set that the plan stands for afterwards.
    pub mark: Mark,
    /// New or changed resources.
    pub upserts: Vec<Resource>,
    /// Resources that are gone.
    pub removals: Vec<(TypeUrl, Str)>,
    /// Addresses of names, for clusters with `Discovery::Dns`. An empty list forgets a name.
    pub resolved: Vec<(Str, Arc<[IpAddr]>)>,
}

#[derive(Debug, Default)]
struct Listeners {
    by_name: BTreeMap<Str, Arc<ListenerPlan>>,
    by_address: HashMap<SocketAddr, Arc<ListenerPlan>>,
}

impl Plan {
    /// A plan without anything.
    #[must_use]
    pub fn empty() -> Self {
        Self {
            mark: Mark::default(),
            listeners: Arc::default(),
            routes: Slots::new(),
            apart: Arc::default(),
            clusters: Slots::new(),
            endpoints: Slots::new(),
            secrets: Arc::default(),
            resolved: Arc::default(),
        }
    }

    /// The plan after a delta, and the pieces of the delta that are not used as they were sent.
    #[must_use]
    pub fn next(previous: &Self, delta: &Delta) -> (Self, Vec<Rejected>) {
        next::next(previous, delta)
    }

    /// The consistent set that this plan stands for.
    #[must_use]
    pub const fn mark(&self) -> &Mark {
        &self.mark
    }

    /// All listeners, by name.
    pub fn listeners(&self) -> impl Iterator<Item = &Arc<ListenerPlan>> {
        self.listeners.by_name.values()
    }

    /// The listener with this name.
    #[must_use]
    pub fn listener(&self, name: &str) -> Option<&Arc<ListenerPlan>> {
        self.listeners.by_name.get(name)
    }

    /// The listener that takes over a captured connection to `destination`: that of the address, else of its port on the
    /// wildcard address.
    #[must_use]
    pub fn hand_off(&self, destination: SocketAddr) -> Option<&Arc<ListenerPlan>> {
        let (ip, port) = (destination.ip().to_canonical(), destination.port());
        let find = |ip| self.listeners.by_address.get(&SocketAddr::new(ip, port));
        let v6_any = || find(IpAddr::V6(Ipv6Addr::UNSPECIFIED));
        let v4_any = || if ip.is_ipv4() { find(IpAddr::V4(Ipv4Addr::UNSPECIFIED)) } else { None };
        find(ip).or_else(v4_any).or_else(v6_any)
    }

    /// The cluster with this name. Requests use [`Plan::cluster_at`].
    #[must_use]
    pub fn cluster(&self, name: &str) -> Option<&Arc<ClusterPlan>> {
        self.clusters.by_name(name)
    }

    /// The cluster of a route's reference; `None` when it does not exist (yet).
    #[must_use]
    pub fn cluster_at(&self, slot: Slot) -> Option<&Arc<ClusterPlan>> {
        self.clusters.get(slot)
    }

    /// All clusters, by name.
    pub fn clusters(&self) -> impl Iterator<Item = &Arc<ClusterPlan>> {
        self.clusters.iter().map(|(_, cluster)| cluster)
    }

    /// A reference to a cluster by name, if the plan knows the name.
    #[must_use]
    pub fn reference(&self, name: &str) -> Option<ClusterRef> {
        Some(ClusterRef { slot: self.clusters.find(name)?, name: Str::from(name) })
    }

    /// The route configuration with this name.
    #[must_use]
    pub fn routes(&self, name: &str) -> Option<&Arc<RouteTable>> {
        self.routes.by_name(name)
    }

    /// The route configuration of a chain's reference; `None` when it has not arrived.
    #[must_use]
    pub fn routes_at(&self, slot: Slot) -> Option<&Arc<RouteTable>> {
        self.routes.get(slot)
    }

    /// All route configurations that were sent apart, by name.
    pub fn route_tables(&self) -> impl Iterator<Item = &Arc<RouteTable>> {
        self.routes.iter().map(|(_, table)| table)
    }

    /// The secret with this name.
    #[must_use]
    pub fn secret(&self, name: &str) -> Option<&Arc<Secret>> {
        self.secrets.get(name)
    }

    /// All secrets, by name.
    pub fn secrets(&self) -> impl Iterator<Item = &Arc<Secret>> {
        self.secrets.values()
    }

    /// Names that the shell is to resolve, with the time between look-ups: the shortest that any cluster asks for.
    #[must_use]
    pub fn names_to_resolve(&self) -> BTreeMap<Str, Duration> {
        let mut names = BTreeMap::new();
        for cluster in self.clusters() {
            let Discovery::Dns { endpoints, refresh } = &cluster.settings.discovery else { continue };
            for endpoint in endpoints.localities.iter().flat_map(|group| group.endpoints.iter()) {
                if let Address::Name(name, _) = &endpoint.address {
                    names
                        .entry(name.clone())
                        .and_modify(|least: &mut Duration| *least = (*least).min(*refresh))
                        .or_insert(*refresh);
                }
            }
        }
        names
    }
}

impl fmt::Debug for Plan {
    /// Everything that configuration decides and nothing that depends on history.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let addresses: BTreeMap<_, _> =
            self.listeners.by_address.iter().map(|(address, listener)| (address, &listener.name)).collect();
        f.debug_struct("Plan")
            .field("mark", &self.mark)
            .field("listeners", &self.listeners.by_name)
            .field("addresses", &addresses)
            .field("routes", &self.routes)
            .field("apart", &self.apart)
            .field("clusters", &self.clusters)
            .field("endpoints", &self.endpoints)
            .field("secrets", &self.secrets)
            .field("resolved", &self.resolved)
            .finish()
    }
}

impl Default for Plan {
    fn default() -> Self {
        Self::empty()
    }
}
