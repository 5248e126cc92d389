//! Which filter chain takes a connection.
//!
//! Envoy's rule (`envoy.config.listener.v3.FilterChainMatch`): criteria are compared in a fixed order; at each step only the
//! chains that match most specifically stay, and there is no way back. [`ChainIndex::select_linear`] is that rule by the
//! word; [`ChainIndex::select`] walks an index. Two chains that could be left at the end make the listener invalid when it
//! is built, so there never is a choice at run time.

use std::net::IpAddr;
use std::sync::Arc;

use hashbrown::HashMap;
use hashbrown::hash_map::Entry;
use mesh_api::text::Str;
use mesh_api_xds::ir::chain::{Chain, ChainMatch, TransportMatch};
use mesh_api_xds::ir::matcher::Cidr;

use crate::facts::{ConnFacts, Transport};
use crate::rejected::Reason;
use crate::trace::{ChainCriterion, Step, Trace};

/// Combinations of criteria of one chain: its lists multiplied. A gateway with a thousand names has a thousand or two.
const MAX_COMBINATIONS: usize = 1 << 16;

/// Chains by criteria.
#[derive(Default)]
pub(crate) struct ChainIndex {
    matches: Box<[ChainMatch]>,
    by_port: HashMap<u16, ByAddress>,
    any_port: ByAddress,
}

/// Values by network; the longest that holds an address counts.
#[derive(Debug)]
struct ByNetwork<T> {
    /// Single addresses, of which a listener may have thousands.
    hosts: HashMap<IpAddr, T>,
    /// The others, longest first.
    networks: Vec<(Cidr, T)>,
}

type ByAddress = ByNetwork<ByName>;

#[derive(Debug, Default)]
struct ByName {
    exact: HashMap<Str, ByTransport>,
    /// Wildcards without their `*`, longest first.
    suffixes: Vec<(Str, ByTransport)>,
    any: Option<ByTransport>,
}

#[derive(Debug, Default)]
struct ByTransport {
    raw: Option<ByProtocol>,
    tls: Option<ByProtocol>,
    any: Option<ByProtocol>,
}

#[derive(Debug, Default)]
struct ByProtocol {
    named: HashMap<Str, BySource>,
    any: Option<BySource>,
}

type BySource = ByNetwork<Option<usize>>;

impl ChainIndex {
    /// Indexes chains by position.
    ///
    /// # Errors
    /// When two chains match the same connections, or one has too many combinations.
    pub(crate) fn new(chains: &[Arc<Chain>]) -> Result<Self, Reason> {
        let matches = chains.iter().map(|chain| chain.matches.clone()).collect();
        let mut index = Self { matches, ..Self::default() };
        for (position, chain) in chains.iter().enumerate() {
            index.add(position, &chain.matches).map_err(|error| match error {
                Clash::With(other) => {
                    let first = chains.get(other).map_or_else(Str::empty, |chain| chain.name.clone());
                    Reason::AmbiguousChains { first, second: chain.name.clone() }
                }
                Clash::TooMany => Reason::TooManyCombinations(chain.name.clone()),
            })?;
        }
        Ok(index)
    }

    fn add(&mut self, position: usize, matches: &ChainMatch) -> Result<(), Clash> {
        let names: Vec<_> = if matches.server_names.is_empty() {
            vec![Name::Any]
        } else {
            matches.server_names.iter().map(Name::of).collect()
        };
        let protocols = optional(&matches.application_protocols);
        let (destinations, sources) = (networks(&matches.destinations), networks(&matches.sources));
        let combinations = [destinations.len(), names.len(), protocols.len(), sources.len()];
        if combinations.iter().try_fold(1_usize, |all, n| all.checked_mul(*n)).is_none_or(|all| all > MAX_COMBINATIONS)
        {
            return Err(Clash::TooMany);
        }
        let by_address = match matches.destination_port {
            Some(port) => self.by_port.entry(port).or_default(),
            None => &mut self.any_port,
        };
        for destination in destinations {
            let by_name = by_address.branch(destination);
            for name in &names {
                let by_protocol = by_name.branch(name).branch(matches.transport);
                for protocol in &protocols {
                    let by_source = by_protocol.branch(protocol.as_ref());
                    for source in &sources {
                        // A list that names one thing twice is no clash.
                        let place = by_source.branch(*source);
                        if let Some(other) = place.filter(|other| *other != position) {
                            return Err(Clash::With(other));
                        }
                        *place = Some(position);
                    }
                }
            }
        }
        Ok(())
    }

    /// The position of the chain that takes a connection.
    pub(crate) fn select(&self, facts: &ConnFacts) -> Option<usize> {
        let by_address = self.by_port.get(&facts.destination.port()).unwrap_or(&self.any_port);
        let by_name = by_address.find(facts.destination.ip())?;
        let by_transport = by_name.find(facts.server_name.as_deref().unwrap_or_default())?;
        let by_protocol = by_transport.find(facts.transport)?;
        let named = facts.protocols.iter().find_map(|protocol| by_protocol.named.get(protocol));
        named.or(by_protocol.any.as_ref())?.find(facts.source.ip()).copied().flatten()
    }

    /// The same by the word of the rule; `name` gives a chain's name for the trace.
    pub(crate) fn select_linear<'a>(
        &self,
        facts: &ConnFacts,
        name: impl Fn(usize) -> &'a str,
        trace: &mut impl Trace,
    ) -> Option<usize> {
        let mut left: Vec<usize> = (0..self.matches.len()).collect();
        for (criterion, rank) in CRITERIA {
            let ranks: Vec<_> = left.iter().map(|&at| self.matches.get(at).and_then(|m| rank(m, facts))).collect();
            let best = ranks.iter().max().copied().flatten();
            let mut ranks = ranks.into_iter();
            left.retain(|&at| {
                let stays = ranks.next().flatten().is_some_and(|rank| Some(rank) == best);
                if !stays {
                    trace.step(Step::Chain { name: name(at), lost: Some(*criterion) });
                }
                stays
            });
        }
        let found = left.first().copied()?;
        trace.step(Step::Chain { name: name(found), lost: None });
        Some(found)
    }
}

impl std::fmt::Debug for ChainIndex {
    /// The criteria; how they are indexed says nothing more, and hash maps print in any order.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("ChainIndex").field(&self.matches).finish()
    }
}

enum Clash {
    With(usize),
    TooMany,
}

/// A server name condition.
#[derive(Clone, Debug)]
enum Name {
    Exact(Str),
    Suffix(Str),
    Any,
}

impl Name {
    fn of(text: &Str) -> Self {
        let lower = text.to_ascii_lowercase();
        match lower.strip_prefix('*') {
            Some("") => Self::Any,
            Some(suffix) => Self::Suffix(Str::from(suffix)),
            None => Self::Exact(Str::from(lower)),
        }
    }

    /// How specifically it matches; `None`: not at all.
    fn rank(&self, server_name: &str) -> Option<usize> {
        match self {
            Self::Exact(name) => (server_name == &**name).then_some(usize::MAX),
            Self::Suffix(suffix) => {
                (server_name.len() > suffix.len() && server_name.ends_with(&**suffix)).then_some(suffix.len())
            }
            Self::Any => Some(0),
        }
    }
}

impl ByName {
    fn branch(&mut self, name: &Name) -> &mut ByTransport {
        match name {
            Name::Exact(name) => self.exact.entry(name.clone()).or_default(),
            Name::Any => self.any.get_or_insert_default(),
            Name::Suffix(suffix) => {
                let order = |(other, _): &(Str, ByTransport)| (suffix.len(), suffix).cmp(&(other.len(), other));
                let at = match self.suffixes.binary_search_by(order) {
                    Ok(at) => at,
                    Err(at) => {
                        self.suffixes.insert(at, (suffix.clone(), ByTransport::default()));
                        at
                    }
                };
                &mut self.suffixes[at].1
            }
        }
    }

    fn find(&self, server_name: &str) -> Option<&ByTransport> {
        let suffix =
            |(suffix, _): &&(Str, ByTransport)| server_name.len() > suffix.len() && server_name.ends_with(&**suffix);
        let exact = if server_name.is_empty() { None } else { self.exact.get(server_name) };
        exact.or_else(|| self.suffixes.iter().find(suffix).map(|(_, found)| found)).or(self.any.as_ref())
    }
}

impl ByTransport {
    fn branch(&mut self, transport: TransportMatch) -> &mut ByProtocol {
        match transport {
            TransportMatch::Any => &mut self.any,
            TransportMatch::Raw => &mut self.raw,
            TransportMatch::Tls => &mut self.tls,
        }
        .get_or_insert_default()
    }

    fn find(&self, transport: Transport) -> Option<&ByProtocol> {
        let exact = match transport {
            Transport::Raw => &self.raw,
            Transport::Tls => &self.tls,
        };
        exact.as_ref().or(self.any.as_ref())
    }
}

impl ByProtocol {
    fn branch(&mut self, protocol: Option<&Str>) -> &mut BySource {
        match protocol {
            None => self.any.get_or_insert_default(),
            Some(protocol) => match self.named.entry(protocol.clone()) {
                Entry::Occupied(entry) => entry.into_mut(),
                Entry::Vacant(entry) => entry.insert(BySource::default()),
            },
        }
    }
}

/// Longest networks first, then by address.
fn order(a: &Cidr, b: &Cidr) -> std::cmp::Ordering {
    b.bits.cmp(&a.bits).then(a.address.cmp(&b.address))
}

impl<T: Default> ByNetwork<T> {
    fn branch(&mut self, network: Cidr) -> &mut T {
        if network == Cidr::host(network.address) {
            return self.hosts.entry(network.address).or_default();
        }
        let at = match self.networks.binary_search_by(|(other, _)| order(other, &network)) {
            Ok(at) => at,
            Err(at) => {
                self.networks.insert(at, (network, T::default()));
                at
            }
        };
        &mut self.networks[at].1
    }

    fn find(&self, ip: IpAddr) -> Option<&T> {
        let ip = ip.to_canonical();
        let longest = || self.networks.iter().find(|(network, _)| network.contains(ip)).map(|(_, found)| found);
        self.hosts.get(&ip).or_else(longest)
    }
}

impl<T> Default for ByNetwork<T> {
    fn default() -> Self {
        Self { hosts: HashMap::new(), networks: Vec::new() }
    }
}

/// No condition is the network of all addresses, so that an explicit `0.0.0.0/0` is as specific as none.
fn networks(cidrs: &[Cidr]) -> Vec<Cidr> {
    if cidrs.is_empty() { ANYWHERE.to_vec() } else { cidrs.to_vec() }
}

fn optional(texts: &[Str]) -> Vec<Option<Str>> {
    if texts.is_empty() { vec![None] } else { texts.iter().cloned().map(Some).collect() }
}

const ANYWHERE: [Cidr; 2] = [
    Cidr { address: IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED), bits: 0 },
    Cidr { address: IpAddr::V6(std::net::Ipv6Addr::UNSPECIFIED), bits: 0 },
];

/// How specifically a chain matches in one criterion; `None`: not at all.
type Rank = fn(&ChainMatch, &ConnFacts) -> Option<usize>;

const CRITERIA: &[(ChainCriterion, Rank)] = &[
    (ChainCriterion::DestinationPort, |matches, facts| match matches.destination_port {
        None => Some(0),
        Some(port) => (port == facts.destination.port()).then_some(1),
    }),
    (ChainCriterion::DestinationAddress, |matches, facts| rank_network(&matches.destinations, facts.destination.ip())),
    (ChainCriterion::ServerName, |matches, facts| {
        let server_name = facts.server_name.as_deref().unwrap_or_default();
        if matches.server_names.is_empty() {
            return Some(0);
        }
        matches.server_names.iter().filter_map(|name| Name::of(name).rank(server_name)).max()
    }),
    (ChainCriterion::Transport, |matches, facts| match (matches.transport, facts.transport) {
        (TransportMatch::Any, _) => Some(0),
        (TransportMatch::Raw, Transport::Raw) | (TransportMatch::Tls, Transport::Tls) => Some(1),
        (TransportMatch::Raw, Transport::Tls) | (TransportMatch::Tls, Transport::Raw) => None,
    }),
    (ChainCriterion::ApplicationProtocol, |matches, facts| {
        let wanted = &matches.application_protocols;
        if wanted.is_empty() {
            return Some(0);
        }
        // The client's first choice counts most.
        facts.protocols.iter().position(|protocol| wanted.contains(protocol)).map(|at| facts.protocols.len() - at)
    }),
    (ChainCriterion::SourceAddress, |matches, facts| rank_network(&matches.sources, facts.source.ip())),
];

fn rank_network(cidrs: &[Cidr], ip: IpAddr) -> Option<usize> {
    let ip = ip.to_canonical();
    if cidrs.is_empty() {
        return Some(0);
    }
    cidrs.iter().filter(|cidr| cidr.contains(ip)).map(|cidr| usize::from(cidr.bits)).max()
}

#[cfg(test)]
mod tests;
