//! Route configurations: virtual hosts with their routes, and the index by host.

use std::collections::BTreeMap;
use std::sync::Arc;

use mesh_api::text::Str;
use mesh_api_xds::encoded::Version;
use mesh_api_xds::ir::Origin;
use mesh_api_xds::ir::route::{RouteConfig, RouteHosts, VirtualHost};
use mesh_api_xds::type_url::TypeUrl;

use super::route::{ClusterSlots, RoutePlan};
use super::slots::Slot;
use crate::matcher::host::{Domain, HostIndex};
use crate::matcher::path::PathIndex;
use crate::rejected::{Effect, Reason, Rejected, Report};

/// A route configuration.
#[derive(Clone, Debug)]
pub struct RouteTable {
    /// Resource name.
    pub name: Str,
    /// A port in the request's authority is ignored when hosts are compared.
    pub ignore_port: bool,
    /// Virtual hosts are resources of their own.
    pub(crate) apart: bool,
    hosts: Box<[Arc<HostPlan>]>,
    /// Shared by the plans in which the same virtual hosts have the same domains, whatever their routes are.
    index: Arc<HostIndexed>,
    /// No domain was refused, so there is nothing to report again where the index is shared.
    is_clean: bool,
}

/// A virtual host. Shared by plans as long as it does not change.
#[derive(Debug)]
pub struct HostPlan {
    /// Its name.
    pub name: Str,
    /// Plain HTTP is redirected to HTTPS.
    pub require_tls: bool,
    /// Upstream requests carry `x-envoy-attempt-count`.
    pub attempt_count: bool,
    /// Lower-case domains.
    domains: Box<[Str]>,
    routes: Box<[Arc<RoutePlan>]>,
    index: PathIndexed,
    /// Of the IR it was made from: an equal one is not compiled again.
    version: Version,
}

/// Indexes say nothing that the rest does not say, so they do not print.
#[derive(Clone, Default)]
pub(crate) struct HostIndexed(HostIndex);

#[derive(Clone, Default)]
struct PathIndexed(PathIndex);

/// Virtual hosts that were sent apart, by name.
pub(crate) type ApartHosts = BTreeMap<Str, Arc<HostPlan>>;

impl HostPlan {
    /// Compiles a virtual host, or shares `previous` if nothing changed. Invalid routes are cut.
    pub(crate) fn build(
        host: &VirtualHost,
        previous: Option<&Arc<Self>>,
        clusters: &mut ClusterSlots,
        report: &mut Report<'_>,
        path: &str,
    ) -> Arc<Self> {
        let version = Version::of(host);
        if let Some(previous) = previous.filter(|previous| previous.version == version && !previous.was_cut(host)) {
            return Arc::clone(previous);
        }
        let mut routes = Vec::with_capacity(host.routes.len());
        for (position, route) in host.routes.iter().enumerate() {
            match RoutePlan::compile(route, clusters) {
                Ok(route) => routes.push(Arc::new(route)),
                Err((inside, reason)) => {
                    let path = format!("{path}routes[{position}]({}).{inside}", route.name);
                    report.add(path, reason, Effect::Cut, &route.origin);
                }
            }
        }
        let index = PathIndexed(PathIndex::new(routes.iter().map(|route| route.path())));
        Arc::new(Self {
            name: host.name.clone(),
            require_tls: host.require_tls,
            attempt_count: host.attempt_count,
            domains: host.domains.iter().map(lower).collect(),
            routes: routes.into(),
            index,
            version,
        })
    }

    /// Whether routes of `host`, from which this was made, were cut: then it is compiled again to report them again.
    fn was_cut(&self, host: &VirtualHost) -> bool {
        self.routes.len() < host.routes.len()
    }

    /// Domains in lower case.
    #[must_use]
    pub fn domains(&self) -> &[Str] {
        &self.domains
    }

    /// Routes in the order in which they are tried.
    #[must_use]
    pub fn routes(&self) -> &[Arc<RoutePlan>] {
        &self.routes
    }

    /// Routes whose path condition may hold, in the order in which they are tried, with their position.
    pub(crate) fn candidates<'a>(&'a self, path: &[u8]) -> impl Iterator<Item = &'a Arc<RoutePlan>> + 'a {
        self.index.0.candidates(path).filter_map(|position| self.routes.get(position as usize))
    }

    pub(crate) fn slots(&self) -> impl Iterator<Item = Slot> {
        self.routes.iter().flat_map(|route| route.slots())
    }
}

impl RouteTable {
    /// Builds a table from its own message or from virtual hosts that were sent apart.
    pub(crate) fn build(
        config: &RouteConfig,
        apart: &ApartHosts,
        previous: Option<&Self>,
        clusters: &mut ClusterSlots,
        report: &mut Report<'_>,
    ) -> Self {
        let (hosts, is_apart) = match &config.hosts {
            RouteHosts::Apart => (apart.values().cloned().collect(), true),
            RouteHosts::Inline(hosts) => {
                let build = |host: &Arc<VirtualHost>| {
                    let previous = previous.and_then(|table| table.hosts.iter().find(|old| old.name == host.name));
                    HostPlan::build(host, previous, clusters, report, &format!("virtual_hosts({}).", host.name))
                };
                (hosts.iter().map(build).collect(), false)
            }
        };
        let table = Self::empty(config.name.clone());
        Self { ignore_port: config.ignore_port, apart: is_apart, ..table }.with_hosts(hosts, previous, report)
    }

    /// The same table over other virtual hosts that were sent apart.
    pub(crate) fn with_apart(&self, apart: &ApartHosts, out: &mut Vec<Rejected>) -> Self {
        let mut report = Report::new(TypeUrl::RouteConfiguration, self.name.clone(), out);
        let table = Self { apart: true, ..self.clone() };
        table.with_hosts(apart.values().cloned().collect(), Some(self), &mut report)
    }

    /// The table over `hosts`; shares the index of `previous` where it would be the same.
    fn with_hosts(self, hosts: Box<[Arc<HostPlan>]>, previous: Option<&Self>, report: &mut Report<'_>) -> Self {
        if let Some(previous) = previous.filter(|previous| previous.is_clean && same_domains(&previous.hosts, &hosts)) {
            return Self { hosts, index: Arc::clone(&previous.index), is_clean: true, ..self };
        }
        let mut index = HostIndex::with_capacity(hosts.iter().map(|host| host.domains.len()).sum());
        let mut is_clean = true;
        for (position, host) in (0..).zip(&hosts) {
            for domain in &host.domains {
                let reason = match Domain::parse(domain) {
                    None => Reason::Domain(domain.clone()),
                    Some(parsed) if index.add(parsed, position) => continue,
                    Some(_) => {
                        let owner = hosts.iter().find(|other| other.domains.contains(domain));
                        let owner = owner.map_or_else(Str::empty, |owner| owner.name.clone());
                        Reason::DuplicateDomain { domain: domain.clone(), owner }
                    }
                };
                report.add(format!("virtual_hosts({}).domains", host.name), reason, Effect::Cut, &Origin::default());
                is_clean = false;
            }
        }
        Self { hosts, index: Arc::new(HostIndexed(index)), is_clean, ..self }
    }

    /// A table that matches nothing.
    pub(crate) fn empty(name: Str) -> Self {
        let (hosts, index) = (Box::default(), Arc::default());
        Self { name, ignore_port: false, apart: false, hosts, index, is_clean: true }
    }

    /// Virtual hosts in the order of configuration.
    #[must_use]
    pub fn hosts(&self) -> &[Arc<HostPlan>] {
        &self.hosts
    }

    /// The virtual host of a lower-case authority without port, if one covers it.
    pub(crate) fn find_host(&self, host: &[u8]) -> Option<&Arc<HostPlan>> {
        self.hosts.get(self.index.0.find(host)? as usize)
    }

    pub(crate) fn slots(&self) -> impl Iterator<Item = Slot> {
        self.hosts.iter().flat_map(|host| host.slots())
    }

    #[cfg(test)]
    pub(crate) fn index_address(&self) -> *const HostIndexed {
        Arc::as_ptr(&self.index)
    }
}

impl std::fmt::Debug for HostIndexed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("HostIndex")
    }
}

impl std::fmt::Debug for PathIndexed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PathIndex")
    }
}

/// Whether an index by domain gives the same positions for both.
fn same_domains(some: &[Arc<HostPlan>], others: &[Arc<HostPlan>]) -> bool {
    let same =
        |(host, other): (&Arc<HostPlan>, &Arc<HostPlan>)| Arc::ptr_eq(host, other) || host.domains == other.domains;
    some.len() == others.len() && some.iter().zip(others).all(same)
}

fn lower(domain: &Str) -> Str {
    if domain.bytes().any(|byte| byte.is_ascii_uppercase()) {
        Str::from(domain.to_ascii_lowercase())
    } else {
        domain.clone()
    }
}
