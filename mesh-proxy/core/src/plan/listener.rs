//! Listeners, filter chains and what serves them.

use std::net::SocketAddr;
use std::sync::Arc;

use mesh_api::text::Str;
use mesh_api_xds::encoded::Version;
use mesh_api_xds::ir::Origin;
use mesh_api_xds::ir::chain::{Chain, DownstreamTls, Serve, TcpProxy};
use mesh_api_xds::ir::filter::{HttpFilter, PeerMetadata, Stats};
use mesh_api_xds::ir::http::{HttpConnection, RouteSource};
use mesh_api_xds::ir::listener::{Binding, Direction, Inspect, Listener, OriginalDst};
use mesh_api_xds::ir::route::RouteHosts;
use rand_core::Rng;

use super::cluster::ClusterRef;
use super::route::{ClusterSlots, RoutePlan, refer};
use super::routes::{ApartHosts, RouteTable};
use super::slots::{Slot, Slots};
use crate::authz::Authz;
use crate::chain::ChainIndex;
use crate::draw;
use crate::facts::ConnFacts;
use crate::filter::cors::CorsRules;
use crate::filter::{self, Needs};
use crate::rejected::{Effect, Reason, Report};
use crate::trace::Trace;

/// A listener.
#[derive(Debug)]
pub struct ListenerPlan {
    /// Resource name.
    pub name: Str,
    /// Address that is bound or compared.
    pub address: SocketAddr,
    /// Further addresses with the same chains.
    pub additional_addresses: Arc<[SocketAddr]>,
    /// Whether it owns a socket.
    pub binding: Binding,
    /// Use of the original destination.
    pub original_dst: OriginalDst,
    /// Side of the workload.
    pub direction: Direction,
    /// What is read before a chain is chosen.
    pub inspect: Inspect,
    chains: Box<[Arc<ChainPlan>]>,
    default_chain: Option<Arc<ChainPlan>>,
    index: ChainIndex,
    /// Of the IR it was made from.
    version: Version,
}

/// A filter chain. Shared by plans as long as it does not change.
#[derive(Debug)]
pub struct ChainPlan {
    /// Name, unique in its listener.
    pub name: Str,
    /// TLS termination.
    pub tls: Option<Arc<DownstreamTls>>,
    /// Connection policies, all of which must pass.
    pub authz: Box<[Authz]>,
    /// What serves the connection.
    pub serve: ServePlan,
    /// Of the IR it was made from.
    version: Version,
    /// Something of it was cut: it is compiled again to report it again.
    cut: bool,
}

/// What serves a chain's connections.
#[derive(Debug)]
pub enum ServePlan {
    /// HTTP.
    Http(Arc<HttpPlan>),
    /// Opaque bytes.
    Tcp(Arc<TcpPlan>),
}

/// HTTP on a chain.
#[derive(Debug)]
pub struct HttpPlan {
    /// As configured.
    pub settings: Arc<HttpConnection>,
    /// Filters, in order of the request.
    pub filters: Box<[FilterPlan]>,
    /// Where routes are.
    pub routes: RoutesRef,
    needs: Needs,
}

/// Where an HTTP chain finds its routes.
#[derive(Debug)]
pub enum RoutesRef {
    /// In the listener.
    Inline(Arc<RouteTable>),
    /// Sent apart; it may not have arrived.
    Named {
        /// Where to find it.
        slot: Slot,
        /// Its name.
        name: Str,
    },
}

/// A filter.
#[derive(Debug)]
pub enum FilterPlan {
    /// Exchange of peer metadata.
    PeerMetadata(PeerMetadata),
    /// Authorization.
    Authz(Authz),
    /// ALPN offered upstream follows the request's protocol.
    Alpn,
    /// Cross-origin resource sharing, where the route has settings.
    Cors,
    /// Fault injection, where the route has settings.
    Fault,
    /// Standard metrics.
    Stats(Stats),
}

/// Opaque proxying on a chain.
#[derive(Debug)]
pub struct TcpPlan {
    /// As configured.
    pub settings: Arc<TcpProxy>,
    clusters: Box<[(ClusterRef, u32)]>,
    total: u64,
}

/// Tables that chains refer to, while a plan is built.
pub(crate) struct Tables<'a> {
    pub(crate) clusters: &'a mut ClusterSlots,
    pub(crate) routes: &'a mut Slots<Arc<RouteTable>>,
}

impl ListenerPlan {
    /// Compiles a listener, sharing the chains of `previous` that did not change.
    ///
    /// # Errors
    /// The piece that makes the whole listener unusable.
    pub(crate) fn build(
        listener: &Listener,
        previous: Option<&Self>,
        tables: &mut Tables<'_>,
        report: &mut Report<'_>,
    ) -> Result<Self, (String, Reason)> {
        let index = ChainIndex::new(&listener.chains).map_err(|reason| ("filter_chains".to_owned(), reason))?;
        let mut build = |chain: &Chain| {
            let old = previous.and_then(|plan| plan.chain(&chain.name));
            ChainPlan::build(chain, old, tables, report)
        };
        let chains = listener.chains.iter().map(|chain| build(chain)).collect::<Result<_, _>>()?;
        let default_chain = listener.default_chain.as_ref().map(|chain| build(chain)).transpose()?;
        Ok(Self {
            name: listener.name.clone(),
            address: listener.address,
            additional_addresses: Arc::clone(&listener.additional_addresses),
            binding: listener.binding,
            original_dst: listener.original_dst,
            direction: listener.direction,
            inspect: listener.inspect.clone(),
            chains,
            default_chain,
            index,
            version: Version::of(listener),
        })
    }

    /// Whether it is what `listener` gives, with nothing cut that would have to be reported again.
    pub(crate) fn is(&self, listener: &Listener) -> bool {
        self.version == Version::of(listener) && !self.chains().any(|chain| chain.cut)
    }

    /// The chain of a connection: the most specific match, else the default chain.
    #[must_use]
    pub fn select(&self, facts: &ConnFacts) -> Option<&Arc<ChainPlan>> {
        let found = self.index.select(facts).and_then(|position| self.chains.get(position));
        found.or(self.default_chain.as_ref())
    }

    /// As [`Self::select`], by the linear specification, saying why each other chain lost.
    #[must_use]
    pub fn explain(&self, facts: &ConnFacts, trace: &mut impl Trace) -> Option<&Arc<ChainPlan>> {
        let names = |position: usize| self.chains.get(position).map_or("", |chain| chain.name.as_str());
        let found = self.index.select_linear(facts, names, trace).and_then(|position| self.chains.get(position));
        found.or(self.default_chain.as_ref())
    }

    /// The chain with this name; the default chain counts too.
    #[must_use]
    pub fn chain(&self, name: &str) -> Option<&Arc<ChainPlan>> {
        self.chains().find(|chain| chain.name == *name)
    }

    /// All chains, the default chain last.
    pub fn chains(&self) -> impl Iterator<Item = &Arc<ChainPlan>> {
        self.chains.iter().chain(&self.default_chain)
    }

    /// All addresses.
    pub fn addresses(&self) -> impl Iterator<Item = SocketAddr> {
        std::iter::once(self.address).chain(self.additional_addresses.iter().copied())
    }
}

impl ChainPlan {
    fn build(
        chain: &Chain,
        previous: Option<&Arc<Self>>,
        tables: &mut Tables<'_>,
        report: &mut Report<'_>,
    ) -> Result<Arc<Self>, (String, Reason)> {
        let version = Version::of(chain);
        if let Some(previous) = previous.filter(|previous| previous.version == version && !previous.cut) {
            return Ok(Arc::clone(previous));
        }
        let before = report.len();
        let path = format!("filter_chains({})", chain.name);
        let compile = |(position, authz)| Authz::compile(authz, &format!("{path}.authz[{position}]"), report);
        let authz = chain.authz.iter().enumerate().map(compile).collect();
        let serve = match &chain.serve {
            Serve::Http(http) => {
                let old = previous.and_then(|previous| match &previous.serve {
                    ServePlan::Http(http) => Some(http),
                    ServePlan::Tcp(_) => None,
                });
                ServePlan::Http(Arc::new(HttpPlan::build(http, old.map(|old| &**old), tables, report, &path)))
            }
            Serve::Tcp(tcp) => {
                let plan = TcpPlan::build(tcp, tables.clusters).map_err(|reason| (format!("{path}.tcp"), reason))?;
                ServePlan::Tcp(Arc::new(plan))
            }
        };
        let cut = report.len() > before;
        Ok(Arc::new(Self { name: chain.name.clone(), tls: chain.tls.clone(), authz, serve, version, cut }))
    }

    pub(crate) fn cluster_slots(&self) -> Vec<Slot> {
        match &self.serve {
            ServePlan::Tcp(tcp) => tcp.clusters.iter().map(|(cluster, _)| cluster.slot).collect(),
            ServePlan::Http(http) => match &http.routes {
                RoutesRef::Inline(table) => table.slots().collect(),
                RoutesRef::Named { .. } => Vec::new(),
            },
        }
    }

    pub(crate) fn route_slot(&self) -> Option<Slot> {
        match &self.serve {
            ServePlan::Http(http) => match &http.routes {
                RoutesRef::Named { slot, .. } => Some(*slot),
                RoutesRef::Inline(_) => None,
            },
            ServePlan::Tcp(_) => None,
        }
    }
}

impl HttpPlan {
    fn build(
        settings: &Arc<HttpConnection>,
        previous: Option<&Self>,
        tables: &mut Tables<'_>,
        report: &mut Report<'_>,
        path: &str,
    ) -> Self {
        let routes = match &settings.routes {
            RouteSource::Named(name) => RoutesRef::Named { slot: tables.routes.slot(name), name: name.clone() },
            RouteSource::Inline(config) if config.hosts == RouteHosts::Apart => {
                report.add(format!("{path}.routes"), Reason::ApartInline, Effect::Cut, &Origin::default());
                RoutesRef::Inline(Arc::new(RouteTable::empty(config.name.clone())))
            }
            RouteSource::Inline(config) => {
                let old = previous.and_then(|previous| match &previous.routes {
                    RoutesRef::Inline(table) => Some(&**table),
                    RoutesRef::Named { .. } => None,
                });
                let table = RouteTable::build(config, &ApartHosts::new(), old, tables.clusters, report);
                RoutesRef::Inline(Arc::new(table))
            }
        };
        let compile = |(position, filter): (usize, &HttpFilter)| match filter {
            HttpFilter::PeerMetadata(side) => FilterPlan::PeerMetadata(*side),
            HttpFilter::Authz(authz) => {
                FilterPlan::Authz(Authz::compile(authz, &format!("{path}.http_filters[{position}]"), report))
            }
            HttpFilter::Alpn => FilterPlan::Alpn,
            HttpFilter::Cors => FilterPlan::Cors,
            HttpFilter::Fault => FilterPlan::Fault,
            HttpFilter::Stats(stats) => FilterPlan::Stats(*stats),
        };
        let filters: Box<[_]> = settings.filters.iter().enumerate().map(compile).collect();
        let needs = filters.iter().map(FilterPlan::needs).fold(Needs::NONE, Needs::union);
        Self { settings: Arc::clone(settings), filters, routes, needs }
    }

    /// Parts of messages that any filter looks at for this route: the stage mask. A route's settings act only where the chain
    /// has the filter.
    #[must_use]
    pub fn needs(&self, route: &RoutePlan) -> Needs {
        let of = |filter: &FilterPlan| match filter {
            FilterPlan::Cors if route.cors.is_some() => CorsRules::NEEDS,
            FilterPlan::Fault if route.fault.is_some() => filter::fault::NEEDS,
            FilterPlan::Cors
            | FilterPlan::Fault
            | FilterPlan::PeerMetadata(_)
            | FilterPlan::Authz(_)
            | FilterPlan::Alpn
            | FilterPlan::Stats(_) => Needs::NONE,
        };
        self.filters.iter().map(of).fold(self.needs, Needs::union)
    }
}

impl FilterPlan {
    /// What it looks at on every route.
    #[must_use]
    pub const fn needs(&self) -> Needs {
        match self {
            Self::PeerMetadata(_) | Self::Stats(_) => Needs::REQUEST_HEAD.union(Needs::RESPONSE_HEAD),
            Self::Authz(_) | Self::Alpn => Needs::REQUEST_HEAD,
            // Only where a route has settings.
            Self::Cors | Self::Fault => Needs::NONE,
        }
    }
}

impl TcpPlan {
    fn build(settings: &Arc<TcpProxy>, slots: &mut ClusterSlots) -> Result<Self, Reason> {
        let weighted = settings.clusters.iter().filter(|choice| choice.weight > 0);
        let clusters: Box<[_]> = weighted.map(|choice| (refer(&choice.cluster, slots), choice.weight)).collect();
        let total = clusters.iter().map(|(_, weight)| u64::from(*weight)).sum();
        if total == 0 { Err(Reason::NoWeight) } else { Ok(Self { settings: Arc::clone(settings), clusters, total }) }
    }

    /// Chooses a cluster by weight; there always is one.
    #[must_use]
    pub fn choose(&self, rng: &mut impl Rng) -> Option<&ClusterRef> {
        let mut at = if self.clusters.len() > 1 { draw::below(rng, self.total) } else { 0 };
        self.clusters.iter().find_map(|(cluster, weight)| {
            let weight = u64::from(*weight);
            if at < weight {
                return Some(cluster);
            }
            at -= weight;
            None
        })
    }
}
