//! An endpoint set, arranged for choosing.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use mesh_api::text::Str;
use mesh_api_xds::ir::endpoint::{self as ir, Address, Health};

use super::pool::Pool;
use super::priority::Count;
use crate::endpoint::Endpoint;

/// The endpoints of one cluster. Immutable; the handles inside are carried over to the next set.
#[derive(Debug)]
pub struct EndpointSet {
    /// Every endpoint, draining ones too, by address.
    all: Box<[Arc<Endpoint>]>,
    /// By priority; those without a usable endpoint are kept, since their emptiness counts.
    levels: Box<[Level]>,
}

/// Endpoints of one priority.
#[derive(Debug)]
pub struct Level {
    healthy: Pool,
    /// Healthy and unhealthy ones; `None` when all are healthy.
    every: Option<Pool>,
    /// Empty when localities have no weights.
    localities: Box<[LocalityPool]>,
}

/// Healthy endpoints of a locality with a weight.
#[derive(Debug)]
pub(crate) struct LocalityPool {
    weight: u32,
    /// Healthy or not.
    total: usize,
    healthy: Pool,
}

/// Endpoints of a locality, with its weight.
type Group = (u32, Vec<Arc<Endpoint>>);

/// Addresses of names, as the shell resolved them.
pub type Resolved = BTreeMap<Str, Arc<[IpAddr]>>;

impl EndpointSet {
    /// A set without endpoints.
    #[must_use]
    pub fn empty() -> Self {
        Self { all: Box::default(), levels: Box::default() }
    }

    /// Arranges `set`, taking handles over from `previous` by address. Names become the addresses in `resolved`; those
    /// that are not there yet give no endpoint. Of two endpoints with one address the first stays.
    #[must_use]
    pub fn build(set: &ir::EndpointSet, resolved: &Resolved, previous: Option<&Self>) -> Self {
        let mut hosts: BTreeMap<SocketAddr, Arc<Endpoint>> = BTreeMap::new();
        let mut levels: BTreeMap<u32, Vec<Group>> = BTreeMap::new();
        for group in set.localities.iter() {
            let mut members = Vec::with_capacity(group.endpoints.len());
            for endpoint in group.endpoints.iter() {
                for (address, hostname) in addresses(endpoint, resolved) {
                    if hosts.contains_key(&address) {
                        continue;
                    }
                    let made = make(endpoint, address, hostname, &group.locality, previous);
                    hosts.insert(address, Arc::clone(&made));
                    members.push(made);
                }
            }
            levels.entry(group.priority).or_default().push((group.weight, members));
        }
        Self { all: hosts.into_values().collect(), levels: levels.into_values().map(Level::new).collect() }
    }

    /// Every endpoint, by address; draining ones too.
    #[must_use]
    pub fn all(&self) -> &[Arc<Endpoint>] {
        &self.all
    }

    /// The endpoint with this address.
    #[must_use]
    pub fn find(&self, address: SocketAddr) -> Option<&Arc<Endpoint>> {
        let at = self.all.binary_search_by(|endpoint| endpoint.address.cmp(&address)).ok()?;
        self.all.get(at)
    }

    /// Whether no endpoint takes new requests, healthy or not.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.levels.iter().all(|level| level.every().len() == 0)
    }

    pub(crate) const fn levels(&self) -> &[Level] {
        &self.levels
    }
}

impl Level {
    fn new(groups: Vec<Group>) -> Self {
        let weighted = groups.iter().any(|(weight, _)| *weight > 0);
        let mut every = Vec::new();
        let mut localities = Vec::new();
        for (weight, members) in groups {
            let taking: Vec<_> = members.into_iter().filter(|host| host.health != Health::Draining).collect();
            if weighted {
                localities.push(LocalityPool { weight, total: taking.len(), healthy: Pool::new(healthy(&taking)) });
            }
            every.extend(taking);
        }
        let healthy = healthy(&every);
        let every = (healthy.len() < every.len()).then(|| Pool::new(every.into()));
        Self { healthy: Pool::new(healthy), every, localities: localities.into() }
    }

    pub(crate) const fn healthy(&self) -> &Pool {
        &self.healthy
    }

    pub(crate) fn every(&self) -> &Pool {
        self.every.as_ref().unwrap_or(&self.healthy)
    }

    pub(crate) const fn localities(&self) -> &[LocalityPool] {
        &self.localities
    }

    pub(crate) fn count(&self, some_ejected: bool, usable: &impl Fn(&Endpoint) -> bool) -> Count {
        Count { healthy: usable_in(&self.healthy, some_ejected, usable), total: self.every().len() }
    }
}

impl LocalityPool {
    pub(crate) const fn healthy(&self) -> &Pool {
        &self.healthy
    }

    /// Envoy's effective locality weight: the weight, reduced once fewer than 1/1.4 of the endpoints are usable.
    /// Scaled by 100.
    pub(crate) fn effective_weight(&self, some_ejected: bool, usable: &impl Fn(&Endpoint) -> bool) -> u64 {
        if self.total == 0 {
            return 0;
        }
        let healthy = usable_in(&self.healthy, some_ejected, usable);
        let wide = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
        u64::from(self.weight) * (140 * wide(healthy) / wide(self.total)).min(100)
    }
}

fn usable_in(pool: &Pool, some_ejected: bool, usable: &impl Fn(&Endpoint) -> bool) -> usize {
    if some_ejected { pool.iter().filter(|host| usable(host)).count() } else { pool.len() }
}

fn healthy(hosts: &[Arc<Endpoint>]) -> Box<[Arc<Endpoint>]> {
    hosts.iter().filter(|host| host.health == Health::Healthy).cloned().collect()
}

fn addresses<'a>(
    endpoint: &'a ir::Endpoint,
    resolved: &'a Resolved,
) -> impl Iterator<Item = (SocketAddr, Option<&'a Str>)> {
    let (socket, named) = match &endpoint.address {
        Address::Socket(address) => (Some((*address, None)), None),
        Address::Name(name, port) => (None, resolved.get(name).map(|ips| (name, *port, ips))),
    };
    let named = named
        .into_iter()
        .flat_map(|(name, port, ips)| ips.iter().map(move |ip| (SocketAddr::new(*ip, port), Some(name))));
    socket.into_iter().chain(named)
}

fn make(
    endpoint: &ir::Endpoint,
    address: SocketAddr,
    hostname: Option<&Str>,
    locality: &ir::Locality,
    previous: Option<&EndpointSet>,
) -> Arc<Endpoint> {
    let mut made = Endpoint::new(address);
    made.hostname = hostname.cloned();
    made.weight = endpoint.weight.max(1);
    made.health = endpoint.health;
    made.tls = endpoint.tls;
    made.workload = endpoint.workload.clone();
    made.locality = locality.clone();
    match previous.and_then(|set| set.find(address)) {
        Some(old) if old.same_settings(&made) => Arc::clone(old),
        Some(old) => Arc::new(made.carry(old)),
        None => Arc::new(made),
    }
}
