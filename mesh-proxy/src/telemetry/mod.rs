//! What the proxy tells of its traffic: metrics, access logs, trace context.
//!
//! Each worker has a [`Telemetry`] that only its thread uses; the process has one [`Hub`] that adds the workers up when it
//! is scraped. Nothing here waits, and nothing on a warm request's path hashes labels or allocates.

pub mod access_log;
pub mod clusters;
pub mod counters;
pub mod listeners;
pub mod metadata;
pub mod record;
mod scrape;
pub mod series;
mod sides;
pub mod table;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
pub mod trace;
mod tunnels;

use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

use mesh_api::text::Str;
use mesh_api_rt::metrics::{DuplicateMetric, Metrics};
use mesh_api_xds::node::{NodeInfo, ProxyKind};
use mesh_proxy_core::fault::{Fault, FaultKind};
use mesh_proxy_core::flags::Flags;
use mesh_proxy_core::plan::listener::HttpPlan;
use mesh_proxy_core::stats::Workload;

use self::access_log::{Sinks, Writer};
use self::clusters::{ClusterShelf, ClusterTable};
use self::counters::{Count, Counters};
use self::listeners::{Listened, ListenerShelf, ListenerTable};
use self::metadata::PeerCache;
use self::record::TcpRecord;
use self::series::Numbers;
use self::table::{Own, SeriesTable, Shelf};
use self::tunnels::{Reported, Tunnels};
use crate::conn::Connection;
use crate::http::exchange::Scratch;
use crate::net::copy::TunnelBytes;

/// Series of Istio's metrics per worker. One takes about 1 KiB with its labels.
const SERIES_BUDGET: usize = 4096;

/// The process's telemetry: makes the workers', and adds them up. Clones are the same hub.
#[derive(Clone, Debug)]
pub struct Hub(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    own: Arc<Own>,
    kind: ProxyKind,
    hostname: Str,
    sinks: Sinks,
    budget: usize,
    workers: Mutex<Vec<Arc<Shared>>>,
}

/// What the scrape sees of one worker.
#[derive(Debug, Default)]
struct Shared {
    series: Arc<Shelf>,
    clusters: Arc<ClusterShelf>,
    listeners: Arc<ListenerShelf>,
    counters: Counters,
    gauges: Gauges,
}

/// Numbers that go up and down, as the worker saw them last.
#[derive(Debug, Default)]
struct Gauges {
    connections: AtomicU64,
    idle_http1: AtomicU64,
    open_http2: AtomicU64,
}

/// Numbers that a worker looks at once a second.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sample {
    /// Connections from clients.
    pub connections: usize,
    /// Resting HTTP/1.1 connections to upstreams.
    pub idle_http1: usize,
    /// HTTP/2 connections to upstreams.
    pub open_http2: usize,
}

/// A worker's telemetry. Lives on the worker's thread.
#[derive(Debug)]
pub struct Telemetry {
    peers: PeerCache,
    own: Arc<Own>,
    kind: ProxyKind,
    hostname: Str,
    series: SeriesTable,
    clusters: ClusterTable,
    listeners: ListenerTable,
    tunnels: Tunnels,
    logs: Writer,
    shared: Arc<Shared>,
}

impl Hub {
    /// Telemetry of the proxy that `node` describes, whose identity is `principal` (a SPIFFE URI).
    #[must_use]
    pub fn new(node: &NodeInfo, principal: Str, sinks: Sinks) -> Self {
        let own = Own { workload: Workload::of_node(&node.metadata), principal };
        Self(Arc::new(Inner {
            own: Arc::new(own),
            kind: node.kind,
            hostname: node.name.clone(),
            sinks,
            budget: SERIES_BUDGET,
            workers: Mutex::default(),
        }))
    }

    /// The telemetry of one more worker.
    #[must_use]
    pub fn worker(&self) -> Telemetry {
        let Self(hub) = self;
        let shared = Arc::<Shared>::default();
        hub.workers.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::clone(&shared));
        Telemetry {
            peers: PeerCache::default(),
            own: Arc::clone(&hub.own),
            kind: hub.kind,
            hostname: hub.hostname.clone(),
            series: SeriesTable::new(Arc::clone(&hub.own), Arc::clone(&shared.series), hub.budget),
            clusters: ClusterTable::new(Arc::clone(&shared.clusters)),
            listeners: ListenerTable::new(Arc::clone(&shared.listeners)),
            tunnels: Tunnels::default(),
            logs: hub.sinks.writer(),
            shared,
        }
    }

    /// Makes the sums of all workers part of a scrape.
    ///
    /// # Errors
    /// When a name is taken.
    pub fn register(&self, metrics: &mut Metrics) -> Result<(), DuplicateMetric> {
        metrics.register_collector(&scrape::declarations(), Box::new(self.clone()))
    }

    /// The access logs of the process.
    #[must_use]
    pub fn sinks(&self) -> &Sinks {
        &self.0.sinks
    }

    /// Connections from clients, as the workers saw them last.
    #[must_use]
    pub fn connections(&self) -> u64 {
        self.each().iter().map(|worker| worker.gauges.connections.load(Relaxed)).sum()
    }

    /// Sum of a counter over all workers.
    #[must_use]
    pub fn count(&self, count: Count) -> u64 {
        self.each().iter().map(|worker| worker.counters.get(count)).sum()
    }

    /// Attempts and retries sent to each cluster.
    #[must_use]
    pub fn cluster_totals(&self) -> std::collections::BTreeMap<Str, scrape::ClusterTotals> {
        scrape::cluster_totals(&self.each())
    }

    /// Connections and requests of each listener.
    #[must_use]
    pub fn listener_totals(&self) -> std::collections::BTreeMap<Str, scrape::ListenerTotals> {
        scrape::listener_totals(&self.each())
    }

    /// Held for a push at start and a copy of pointers in a scrape.
    fn each(&self) -> Vec<Arc<Shared>> {
        self.0.workers.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

pub use self::scrape::{ClusterTotals, ListenerTotals};

impl Telemetry {
    /// Reports a request that ended: metrics where the chain has the filter, and the access log. To be called once per
    /// request, after [`record::Record::end`].
    pub fn http_finished(&self, connection: &Connection, http: Option<&Arc<HttpPlan>>, scratch: &Scratch) {
        let record = &scratch.record;
        let counters = &self.shared.counters;
        counters.add(Count::Requests, 1);
        connection.listened.request(record.status);
        if let Some(code) = record.code {
            counters.reply(code);
            if [FaultKind::ResponseTimeout.code(), FaultKind::PerTryTimeout.code()].contains(&code)
                && let Some(cluster) = &record.cluster
            {
                self.clusters.timeout(&cluster.name);
            }
        }
        if let Some(cluster) = record.cluster.as_ref().filter(|_| record.attempts > 0) {
            counters.add(Count::Retries, u64::from(record.attempts - 1));
            self.clusters.request(&cluster.name, record.attempts, record.status);
        }
        let Some(http) = http else { return };
        for reporter in sides::reporters(http) {
            let seen = sides::http(reporter, self.kind, connection, scratch);
            self.series.with(&seen, |series| {
                let Numbers::Http(numbers) = &series.numbers else { return };
                numbers.requests.add(1);
                numbers.duration.observe(record.duration.as_secs_f64() * 1e3);
                numbers.request_bytes.observe(series::float(scratch.progress.received));
                numbers.response_bytes.observe(series::float(scratch.progress.sent));
            });
        }
        if !http.settings.access_logs.is_empty() {
            let line = sides::http_line(connection, scratch, self.names());
            counters.add(Count::LogLines, self.logs.write(&http.settings.access_logs, &line));
        }
    }

    /// Reports a tunnel that was established. What it moves is read off `bytes` while it runs.
    pub fn tcp_opened(&self, connection: &Connection, record: &TcpRecord, bytes: &Rc<TunnelBytes>) {
        // Flags are those of the end, which are not known yet.
        let seen = sides::tcp(connection, record, Flags::EMPTY);
        let series = self.series.get(&seen);
        if let Numbers::Tcp(numbers) = &series.numbers {
            numbers.opened.add(1);
        }
        record.place.set(Some(self.tunnels.open(Rc::clone(bytes), series)));
    }

    /// Reports a tunnel that ended, or could not be established.
    pub fn tcp_closed(&self, connection: &Connection, record: &TcpRecord) {
        if let Some(fault) = &record.fault {
            self.shared.counters.reply(fault.code());
        }
        let place = record.place.take();
        let before = place.map_or_else(Reported::default, |place| self.tunnels.close(place));
        self.series.with(&sides::tcp(connection, record, record.flags()), |series| {
            let Numbers::Tcp(numbers) = &series.numbers else { return };
            numbers.opened.add(u64::from(place.is_none()));
            numbers.closed.add(1);
            before.add_rest(Reported { received: record.received, sent: record.sent }, numbers);
        });
        let Some(settings) = record.settings.as_ref().filter(|settings| !settings.access_logs.is_empty()) else {
            return;
        };
        let line = sides::tcp_line(connection, record, self.names());
        self.shared.counters.add(Count::LogLines, self.logs.write(&settings.access_logs, &line));
    }

    /// Reports a connection that no chain could serve. The listener is in the debug log, not in a label.
    pub fn connection_refused(&self, _listener: &Str, fault: &Fault) {
        self.shared.counters.refusal(fault.code());
    }

    /// Reports a request that could not be understood.
    pub fn request_refused(&self, _connection: &Connection, fault: &Fault) {
        self.shared.counters.refusal(fault.code());
    }

    /// Reports a request that found a pooled connection.
    pub fn pool_reused(&self) {
        self.count(Count::PoolReused);
    }

    /// Reports a connection that was accepted.
    pub fn accepted(&self) {
        self.count(Count::Connections);
    }

    /// Reports a connection that a listener has taken; it counts as open until what is returned is dropped.
    pub fn listened(&self, listener: &Str) -> Listened {
        self.listeners.accepted(listener)
    }

    /// Reports a connection that waits for the first configuration.
    pub fn parked(&self) {
        self.count(Count::Parked);
    }

    /// Reports a connection or stream that ended in a panic.
    pub fn panicked(&self) {
        self.count(Count::Panics);
    }

    /// Reports an attempt to connect to an endpoint of a cluster.
    pub fn connected(&self, cluster: &Str, succeeded: bool) {
        self.clusters.connected(cluster, succeeded);
        self.count(if succeeded { Count::UpstreamOpened } else { Count::UpstreamFailed });
    }

    /// The workload that a value of `x-envoy-peer-metadata` describes; `None` when it is not one.
    pub fn decode_peer(&self, value: &[u8]) -> Option<Arc<Workload>> {
        self.peers.decode(value)
    }

    fn count(&self, count: Count) {
        self.shared.counters.add(count, 1);
    }

    /// Takes what the worker sees once a second; reports bytes of open tunnels, hands over log lines that are that old.
    pub fn tick(&self, sample: Sample) {
        let gauges = &self.shared.gauges;
        for (gauge, value) in [
            (&gauges.connections, sample.connections),
            (&gauges.idle_http1, sample.idle_http1),
            (&gauges.open_http2, sample.open_http2),
        ] {
            gauge.store(value as u64, Relaxed);
        }
        self.tunnels.report(|series| self.series.touch(series));
        self.logs.flush();
    }

    /// Forgets what configuration no longer has.
    pub fn config_changed(&self, is_cluster: impl Fn(&str) -> bool, is_listener: impl Fn(&str) -> bool) {
        self.clusters.retain(is_cluster);
        self.listeners.retain(is_listener);
    }

    fn names(&self) -> sides::Names<'_> {
        sides::Names { hostname: &self.hostname, principal: &self.own.principal }
    }
}
