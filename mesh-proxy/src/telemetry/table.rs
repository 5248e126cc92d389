//! A worker's series, found again without computing labels.
//!
//! What decides the labels of a request are a dozen values that most requests share: [`Seen`]. A small direct-mapped table
//! leads from them to the series; comparing them costs a few pointer comparisons, because texts are shared. Only a miss
//! computes labels and looks them up by their hash.
//!
//! The number of series is bounded. When it is reached, the coldest sixteenth is dropped and counted: its counters begin
//! again at zero should it return, which Prometheus takes for a restart.

use std::cell::{Cell, RefCell};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hashbrown::HashMap;
use mesh_api::text::Str;
use mesh_api_xds::ir::cluster::{Cluster, ServiceRef};
use mesh_api_xds::ir::endpoint::WorkloadRef;
use mesh_api_xds::ir::filter::Reporter;
use mesh_proxy_core::stats::{Context, FixedLabels, Outcome, Workload};

use super::series::{Counter, Series, SeriesKey};

/// Places of the direct-mapped table; a power of two.
const PLACES: usize = 256;

/// What decides all labels of one request or connection, borrowed.
#[derive(Clone, Copy, Debug)]
pub struct Seen<'a> {
    /// Which side reports.
    pub reporter: Reporter,
    /// The other side's workload, as it introduced itself.
    pub peer: Option<&'a Arc<Workload>>,
    /// What the endpoint's configuration says of the other side, where it did not introduce itself.
    pub endpoint: Option<&'a WorkloadRef>,
    /// We have an identity on this connection.
    pub own_identity: bool,
    /// The other side's identity.
    pub peer_principal: &'a str,
    /// The cluster that was chosen.
    pub cluster: Option<&'a Arc<Cluster>>,
    /// Name of the route, if it is one that labels depend on.
    pub route: &'static str,
    /// Host of the request, where labels fall back to it.
    pub host: &'a str,
    /// The rest.
    pub outcome: Outcome,
}

/// What was seen, owned.
#[derive(Debug)]
struct SeenBefore {
    reporter: Reporter,
    peer: Option<Arc<Workload>>,
    endpoint: Option<WorkloadRef>,
    own_identity: bool,
    peer_principal: Str,
    cluster: Option<(Str, ServiceRef)>,
    route: &'static str,
    host: Str,
    outcome: Outcome,
}

/// Who we are, for labels.
#[derive(Debug)]
pub struct Own {
    /// This proxy's workload.
    pub workload: Workload,
    /// Its SPIFFE URI.
    pub principal: Str,
}

/// A place of the direct-mapped table.
type Place = Option<(SeenBefore, Arc<Series>)>;

/// The worker's side of its series.
#[derive(Debug)]
pub struct SeriesTable {
    own: Arc<Own>,
    places: RefCell<Box<[Place]>>,
    by_labels: RefCell<HashMap<SeriesKey, Arc<Series>>>,
    shelf: Arc<Shelf>,
    budget: usize,
    /// Uses so far: the clock by which series grow cold.
    uses: Cell<u64>,
}

/// The same series, as the scrape sees them.
#[derive(Debug, Default)]
pub struct Shelf {
    series: Mutex<Vec<Arc<Series>>>,
    /// Series dropped because there were too many.
    pub evicted: Counter,
}

impl Shelf {
    /// The series now.
    #[must_use]
    pub fn series(&self) -> Vec<Arc<Series>> {
        self.lock().clone()
    }

    /// Held for a push, a swap or a copy of pointers, when a series is made or dropped and by a scrape; never per request.
    fn lock(&self) -> MutexGuard<'_, Vec<Arc<Series>>> {
        self.series.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl SeriesTable {
    /// A table of at most `budget` series (at least 16).
    #[must_use]
    pub fn new(own: Arc<Own>, shelf: Arc<Shelf>, budget: usize) -> Self {
        Self {
            own,
            places: RefCell::new((0..PLACES).map(|_| None).collect()),
            by_labels: RefCell::default(),
            shelf,
            budget: budget.max(16),
            uses: Cell::new(0),
        }
    }

    /// Runs `record` on the series of what was seen, made if there is none.
    pub fn with<T>(&self, seen: &Seen<'_>, record: impl FnOnce(&Series) -> T) -> T {
        let now = self.tick();
        let at = seen.place();
        if let Some(Some((before, series))) = self.places.borrow().get(at)
            && before.is(seen)
        {
            series.used.store(now, Relaxed);
            return record(series);
        }
        let series = self.find(seen, now);
        let result = record(&series);
        if let Some(place) = self.places.borrow_mut().get_mut(at) {
            *place = Some((SeenBefore::from(seen), series));
        }
        result
    }

    /// The series of what was seen, to be kept by something that lasts.
    pub fn get(&self, seen: &Seen<'_>) -> Arc<Series> {
        self.find(seen, self.tick())
    }

    /// Notes that a series is in use.
    pub fn touch(&self, series: &Series) {
        series.used.store(self.tick(), Relaxed);
    }

    fn tick(&self) -> u64 {
        let now = self.uses.get() + 1;
        self.uses.set(now);
        now
    }

    /// Number of series.
    #[must_use]
    pub fn len(&self) -> usize {
        self.by_labels.borrow().len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The slow way: by labels.
    fn find(&self, seen: &Seen<'_>, now: u64) -> Arc<Series> {
        let key = SeriesKey { labels: self.labels(seen), outcome: seen.outcome };
        if let Some(series) = self.by_labels.borrow().get(&key) {
            series.used.store(now, Relaxed);
            return Arc::clone(series);
        }
        if self.len() >= self.budget {
            self.evict();
        }
        let series = Arc::new(Series::new(key.clone()));
        series.used.store(now, Relaxed);
        self.by_labels.borrow_mut().insert(key, Arc::clone(&series));
        self.shelf.lock().push(Arc::clone(&series));
        series
    }

    fn labels(&self, seen: &Seen<'_>) -> FixedLabels {
        let configured = seen.endpoint.map(Workload::from);
        FixedLabels::new(&Context {
            reporter: seen.reporter,
            own: &self.own.workload,
            peer: seen.peer.map(|peer| &**peer).or(configured.as_ref()),
            own_principal: if seen.own_identity { &self.own.principal } else { "" },
            peer_principal: seen.peer_principal,
            service: seen.cluster.map(|cluster| &cluster.service),
            cluster: seen.cluster.map_or("", |cluster| &cluster.name),
            route: seen.route,
            host: seen.host,
        })
    }

    /// Drops the coldest sixteenth. The direct-mapped table is emptied: it must not keep what is no longer scraped.
    fn evict(&self) {
        let mut by_labels = self.by_labels.borrow_mut();
        let mut uses: Vec<u64> = by_labels.values().map(|series| series.used.load(Relaxed)).collect();
        let count = (uses.len() / 16).max(1);
        let Some(place) = uses.len().checked_sub(1).map(|last| last.min(count - 1)) else { return };
        let (_, coldest, _) = uses.select_nth_unstable(place);
        let coldest = *coldest;
        let before = by_labels.len();
        by_labels.retain(|_, series| series.used.load(Relaxed) > coldest);
        self.shelf.evicted.add((before - by_labels.len()) as u64);
        self.shelf.lock().retain(|series| series.used.load(Relaxed) > coldest);
        self.places.borrow_mut().fill_with(|| None);
    }
}

impl Seen<'_> {
    /// Where it is looked for. Addresses of shared texts stand for the texts: a text that is equal but not shared only costs
    /// a second place.
    fn place(&self) -> usize {
        let address = |text: &str| text.as_ptr().addr() ^ text.len();
        // Principals are made anew for each connection: their last bytes tell them apart.
        let tail = self.peer_principal.as_bytes().last_chunk::<8>().map_or(0, |tail| u64::from_le_bytes(*tail));
        let (code, flags) = match self.outcome {
            Outcome::Http { grpc, response_code, grpc_status, flags } => {
                (u64::from(response_code) << 8 | u64::from(grpc_status.unwrap_or(0xff)) << 1 | u64::from(grpc), flags)
            }
            Outcome::Tcp { flags } => (1 << 40, flags),
        };
        let mut hash = code ^ tail ^ self.host.len() as u64;
        for part in [
            self.cluster.map_or(0, |cluster| address(&cluster.name)) as u64,
            self.peer.map_or(0, |peer| Arc::as_ptr(peer).addr()) as u64,
            self.endpoint.map_or(0, |endpoint| address(&endpoint.name)) as u64,
            u64::from(!flags.is_empty()),
            self.peer_principal.len() as u64,
        ] {
            hash = (hash.rotate_left(23) ^ part).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        }
        usize::try_from(hash >> 40).unwrap_or_default() % PLACES
    }
}

impl SeenBefore {
    fn is(&self, seen: &Seen<'_>) -> bool {
        let same_peer = match (&self.peer, seen.peer) {
            (Some(before), Some(now)) => Arc::ptr_eq(before, now) || before == now,
            (None, None) => true,
            _ => false,
        };
        let same_cluster = match (&self.cluster, seen.cluster) {
            (Some((name, service)), Some(now)) => *name == now.name && *service == now.service,
            (None, None) => true,
            _ => false,
        };
        same_peer
            && same_cluster
            && self.outcome == seen.outcome
            && self.reporter == seen.reporter
            && self.own_identity == seen.own_identity
            && self.endpoint.as_ref() == seen.endpoint
            && self.peer_principal == *seen.peer_principal
            && self.route == seen.route
            && self.host == *seen.host
    }
}

impl From<&Seen<'_>> for SeenBefore {
    fn from(seen: &Seen<'_>) -> Self {
        Self {
            reporter: seen.reporter,
            peer: seen.peer.cloned(),
            endpoint: seen.endpoint.cloned(),
            own_identity: seen.own_identity,
            peer_principal: seen.peer_principal.into(),
            cluster: seen.cluster.map(|cluster| (cluster.name.clone(), cluster.service.clone())),
            route: seen.route,
            host: seen.host.into(),
            outcome: seen.outcome,
        }
    }
}

#[cfg(test)]
mod tests {
    use mesh_proxy_core::flags::Flags;

    use super::*;
    use crate::telemetry::series::Numbers;

    fn mk_table(budget: usize) -> SeriesTable {
        let own = Own { workload: Workload::default(), principal: "spiffe://cluster.local/ns/shop/sa/web".into() };
        SeriesTable::new(Arc::new(own), Arc::default(), budget)
    }

    fn mk_seen(host: &str, response_code: u16) -> Seen<'_> {
        Seen {
            reporter: Reporter::Source,
            peer: None,
            endpoint: None,
            own_identity: false,
            peer_principal: "",
            cluster: None,
            route: "",
            host,
            outcome: Outcome::Http { grpc: false, response_code, grpc_status: None, flags: Flags::EMPTY },
        }
    }

    fn count(table: &SeriesTable, seen: &Seen<'_>) -> u64 {
        table.with(seen, |series| match &series.numbers {
            Numbers::Http(numbers) => {
                numbers.requests.add(1);
                numbers.requests.get()
            }
            Numbers::Tcp(_) => 0,
        })
    }

    #[test]
    fn equal_things_share_a_series_and_different_ones_do_not() {
        let table = mk_table(100);
        assert_eq!(count(&table, &mk_seen("a", 200)), 1);
        let elsewhere = String::from("a");
        assert_eq!(count(&table, &mk_seen(&elsewhere, 200)), 2);
        let mut others = vec![mk_seen("b", 200), mk_seen("a", 404)];
        others.push(Seen { peer_principal: "spiffe://cluster.local/ns/x/sa/y", ..mk_seen("a", 200) });
        others.push(Seen { own_identity: true, ..mk_seen("a", 200) });
        others.push(Seen { reporter: Reporter::Destination, ..mk_seen("a", 200) });
        others.push(Seen { route: "block_all", ..mk_seen("a", 200) });
        for other in &others {
            assert_eq!(count(&table, other), 1, "{other:?}");
            assert_eq!(count(&table, other), 2, "{other:?}");
        }
        assert_eq!(table.len(), others.len() + 1);
        assert_eq!(count(&table, &mk_seen("a", 200)), 3);
    }

    #[test]
    fn a_peer_is_the_same_whether_shared_or_equal() {
        let table = mk_table(100);
        let peer = || Arc::new(Workload { name: "web".into(), ..Workload::default() });
        for _ in 0..2 {
            let peer = peer();
            count(&table, &Seen { peer: Some(&peer), ..mk_seen("a", 200) });
        }
        assert_eq!((table.len(), table.shelf.series().len()), (1, 1));
    }

    #[test]
    fn the_coldest_series_make_room() {
        let table = mk_table(64);
        let hosts: Vec<String> = (0..1000).map(|host| format!("host{host}")).collect();
        for host in &hosts {
            count(&table, &mk_seen("always", 200));
            count(&table, &mk_seen(host, 200));
            assert!(table.len() <= 64 && table.shelf.series().len() == table.len());
        }
        assert_eq!(count(&table, &mk_seen("always", 200)), 1001);
        assert_eq!(count(&table, &mk_seen("host999", 200)), 2);
        assert_eq!(count(&table, &mk_seen("host0", 200)), 1);
        assert!(table.shelf.evicted.get() >= 1000 - 64, "{}", table.shelf.evicted.get());
    }
}
