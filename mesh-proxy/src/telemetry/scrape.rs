//! Adds the workers up when metrics are scraped.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use hashbrown::HashMap;
use mesh_api::text::Str;
use mesh_api_rt::metrics::Declaration;
use mesh_proxy_core::fault::FaultKind;
use mesh_proxy_core::stats::Outcome;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{
    DescriptorEncoder, EncodeLabel, EncodeLabelSet, LabelSetEncoder, MetricEncoder, NoLabelSet,
};
use prometheus_client::metrics::MetricType;

use super::counters::Count;
use super::series::{Counter, HistogramTotals, Numbers, SeriesKey};
use super::{Hub, Shared};

/// Sum of one series over all workers.
#[derive(Debug, Default)]
struct Totals {
    requests: u64,
    duration: HistogramTotals,
    request_bytes: HistogramTotals,
    response_bytes: HistogramTotals,
    opened: u64,
    closed: u64,
    sent: u64,
    received: u64,
}

/// Sum of one cluster over all workers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClusterTotals {
    /// Attempts sent to it.
    pub attempts: u64,
    /// Attempts after the first.
    pub retries: u64,
    /// Connections opened to it.
    pub opened: u64,
    /// Connections to it that could not be opened or secured.
    pub failed: u64,
    /// Requests that it did not answer in time.
    pub timeouts: u64,
    /// Responses by hundreds of their status: 1xx to 5xx.
    pub classes: [u64; 5],
}

/// Sum of one listener over all workers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ListenerTotals {
    /// Connections taken.
    pub opened: u64,
    /// Of these, those that have ended.
    pub closed: u64,
    /// Requests by hundreds of their status: 1xx to 5xx.
    pub classes: [u64; 5],
}

/// A metric of requests or connections: its declaration, and which number of a series it shows.
type OfSeries = (Declaration, fn(&Totals) -> u64);
/// The same for a histogram.
type HistogramOf = (Declaration, fn(&Totals) -> &HistogramTotals);

const REQUEST_COUNTS: [OfSeries; 1] = [(
    counter("istio_requests_total", "Requests that this proxy took part in, by what is known of both sides."),
    |totals| totals.requests,
)];

const REQUEST_HISTOGRAMS: [HistogramOf; 3] = [
    (
        histogram(
            "istio_request_duration_milliseconds",
            "Time from the first byte of requests to the last of responses.",
        ),
        |totals| &totals.duration,
    ),
    (histogram("istio_request_bytes", "Body bytes of requests."), |totals| &totals.request_bytes),
    (histogram("istio_response_bytes", "Body bytes of responses."), |totals| &totals.response_bytes),
];

const TCP_COUNTS: [OfSeries; 4] = [
    (counter("istio_tcp_connections_opened_total", "TCP connections opened."), |totals| totals.opened),
    (counter("istio_tcp_connections_closed_total", "TCP connections closed."), |totals| totals.closed),
    (counter("istio_tcp_sent_bytes_total", "Bytes sent to clients of TCP connections."), |totals| totals.sent),
    (counter("istio_tcp_received_bytes_total", "Bytes received from clients of TCP connections."), |totals| {
        totals.received
    }),
];

const CLUSTER_ATTEMPTS: Declaration =
    counter("envoy_cluster_upstream_rq_total", "Attempts sent to a cluster, under Envoy's name.");
const CLUSTER_RETRIES: Declaration =
    counter("envoy_cluster_upstream_rq_retry", "Attempts after the first, by cluster, under Envoy's name.");
const CLUSTER_TIMEOUTS: Declaration =
    counter("envoy_cluster_upstream_rq_timeout", "Requests that a cluster did not answer in time, under Envoy's name.");
const CLUSTER_CLASSES: Declaration =
    counter("envoy_cluster_upstream_rq_xx", "Responses by cluster and class of status, under Envoy's name.");
const REPLIES: Declaration =
    counter("mesh_proxy_local_replies_total", "Answers of the proxy's own and failures that cut a response, by code.");
const REFUSALS: Declaration = counter(
    "mesh_proxy_refused_total",
    "Connections that no chain served and requests that could not be understood, by code.",
);
const LOG_DROPPED: Declaration = counter(
    "mesh_proxy_access_log_dropped_total",
    "Access log lines that were dropped, because the writer was behind or the file could not be written.",
);
const EVICTED: Declaration = counter(
    "mesh_proxy_series_evicted_total",
    "Series of Istio's metrics that were dropped because there were too many.",
);
const SERIES: Declaration = gauge("mesh_proxy_series", "Series of Istio's metrics, added up over workers.");
const CONNECTIONS: Declaration = gauge("mesh_proxy_connections", "Connections from clients that are open.");
const IDLE_HTTP1: Declaration =
    gauge("mesh_proxy_upstream_idle_connections", "HTTP/1.1 connections to upstreams that rest in pools.");
const OPEN_HTTP2: Declaration = gauge("mesh_proxy_upstream_http2_connections", "HTTP/2 connections to upstreams.");

const fn counter(name: &'static str, doc: &'static str) -> Declaration {
    Declaration::new(name, MetricType::Counter, doc)
}

const fn gauge(name: &'static str, doc: &'static str) -> Declaration {
    Declaration::new(name, MetricType::Gauge, doc)
}

const fn histogram(name: &'static str, doc: &'static str) -> Declaration {
    Declaration::new(name, MetricType::Histogram, doc)
}

/// Everything that the hub encodes.
pub(super) fn declarations() -> Vec<Declaration> {
    let counts = Count::ALL.iter().map(|count| counter(count.name(), count.doc()));
    let rest = [
        CLUSTER_ATTEMPTS,
        CLUSTER_RETRIES,
        CLUSTER_TIMEOUTS,
        CLUSTER_CLASSES,
        REPLIES,
        REFUSALS,
        LOG_DROPPED,
        EVICTED,
        SERIES,
        CONNECTIONS,
        IDLE_HTTP1,
        OPEN_HTTP2,
    ];
    let requests = REQUEST_COUNTS.iter().map(|(declaration, _)| *declaration);
    let histograms = REQUEST_HISTOGRAMS.iter().map(|(declaration, _)| *declaration);
    let tcp = TCP_COUNTS.iter().map(|(declaration, _)| *declaration);
    requests.chain(histograms).chain(tcp).chain(counts).chain(rest).collect()
}

impl Collector for Hub {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let workers = self.each();
        encode_series(&workers, &mut encoder)?;
        encode_clusters(&cluster_totals(&workers), &mut encoder)?;
        for count in Count::ALL {
            let value: u64 = workers.iter().map(|worker| worker.counters.get(*count)).sum();
            put(&mut encoder, &counter(count.name(), count.doc()), |metric| put_counter(metric, value))?;
        }
        encode_codes(&mut encoder, &REPLIES, &workers, |worker| worker.counters.replies().collect())?;
        encode_codes(&mut encoder, &REFUSALS, &workers, |worker| worker.counters.refusals().collect())?;
        put(&mut encoder, &LOG_DROPPED, |metric| put_counter(metric, self.sinks().dropped()))?;
        let evicted: u64 = workers.iter().map(|worker| worker.series.evicted.get()).sum();
        put(&mut encoder, &EVICTED, |metric| put_counter(metric, evicted))?;
        let sum = |of: fn(&Shared) -> u64| workers.iter().map(|worker| of(worker)).sum::<u64>();
        for (declaration, value) in [
            (SERIES, sum(|worker| worker.series.series().len() as u64)),
            (CONNECTIONS, sum(|worker| worker.gauges.connections.load(Relaxed))),
            (IDLE_HTTP1, sum(|worker| worker.gauges.idle_http1.load(Relaxed))),
            (OPEN_HTTP2, sum(|worker| worker.gauges.open_http2.load(Relaxed))),
        ] {
            put(&mut encoder, &declaration, |metric| metric.encode_gauge(&value))?;
        }
        Ok(())
    }
}

fn encode_series(workers: &[Arc<Shared>], encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let series: Vec<_> = workers.iter().flat_map(|worker| worker.series.series()).collect();
    // In the order in which they were made first, so that a scrape looks like the one before.
    let mut order: Vec<(&SeriesKey, Totals)> = Vec::new();
    let mut places: HashMap<&SeriesKey, usize> = HashMap::new();
    for series in &series {
        let place = *places.entry(&series.key).or_insert_with(|| {
            order.push((&series.key, Totals::default()));
            order.len() - 1
        });
        if let Some((_, totals)) = order.get_mut(place) {
            totals.add(&series.numbers);
        }
    }
    let (http, tcp): (Vec<_>, Vec<_>) =
        order.into_iter().partition(|(key, _)| matches!(key.outcome, Outcome::Http { .. }));
    for (declaration, value) in &REQUEST_COUNTS {
        family(encoder, declaration, &http, |metric, totals| put_counter(metric, value(totals)))?;
    }
    for (declaration, value) in &REQUEST_HISTOGRAMS {
        family(encoder, declaration, &http, |metric, totals| {
            let histogram = value(totals);
            metric.encode_histogram::<NoLabelSet>(histogram.sum, histogram.count(), &histogram.bounded(), None)
        })?;
    }
    for (declaration, value) in &TCP_COUNTS {
        family(encoder, declaration, &tcp, |metric, totals| put_counter(metric, value(totals)))?;
    }
    Ok(())
}

/// One metric of many series.
fn family(
    encoder: &mut DescriptorEncoder<'_>,
    declaration: &Declaration,
    series: &[(&SeriesKey, Totals)],
    mut one: impl FnMut(&mut MetricEncoder<'_>, &Totals) -> fmt::Result,
) -> fmt::Result {
    put(encoder, declaration, |metric| {
        series.iter().try_for_each(|(key, totals)| one(&mut metric.encode_family(*key)?, totals))
    })
}

impl Totals {
    fn add(&mut self, numbers: &Numbers) {
        match numbers {
            Numbers::Http(numbers) => {
                self.requests += numbers.requests.get();
                numbers.duration.add_to(&mut self.duration);
                numbers.request_bytes.add_to(&mut self.request_bytes);
                numbers.response_bytes.add_to(&mut self.response_bytes);
            }
            Numbers::Tcp(numbers) => {
                self.opened += numbers.opened.get();
                self.closed += numbers.closed.get();
                self.sent += numbers.sent.get();
                self.received += numbers.received.get();
            }
        }
    }
}

/// Clusters that requests were sent to.
pub(super) fn cluster_totals(workers: &[Arc<Shared>]) -> BTreeMap<Str, ClusterTotals> {
    let mut all: BTreeMap<Str, ClusterTotals> = BTreeMap::new();
    for cluster in workers.iter().flat_map(|worker| worker.clusters.clusters()) {
        let totals = all.entry(cluster.name.clone()).or_default();
        totals.attempts += cluster.attempts.get();
        totals.retries += cluster.retries.get();
        totals.opened += cluster.opened.get();
        totals.failed += cluster.failed.get();
        totals.timeouts += cluster.timeouts.get();
        for (total, class) in totals.classes.iter_mut().zip(cluster.classes.iter().map(Counter::get)) {
            *total += class;
        }
    }
    all
}

/// Listeners that have taken connections.
pub(super) fn listener_totals(workers: &[Arc<Shared>]) -> BTreeMap<Str, ListenerTotals> {
    let mut all: BTreeMap<Str, ListenerTotals> = BTreeMap::new();
    for listener in workers.iter().flat_map(|worker| worker.listeners.listeners()) {
        let totals = all.entry(listener.name.clone()).or_default();
        totals.opened += listener.opened.get();
        totals.closed += listener.closed.get();
        for (total, class) in totals.classes.iter_mut().zip(listener.classes.iter().map(Counter::get)) {
            *total += class;
        }
    }
    all
}

fn encode_clusters(clusters: &BTreeMap<Str, ClusterTotals>, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    for (declaration, value) in [
        (CLUSTER_ATTEMPTS, (|totals| totals.attempts) as fn(&ClusterTotals) -> u64),
        (CLUSTER_RETRIES, |totals| totals.retries),
        (CLUSTER_TIMEOUTS, |totals| totals.timeouts),
    ] {
        put(encoder, &declaration, |metric| {
            clusters.iter().try_for_each(|(name, totals)| {
                put_counter(&mut metric.encode_family(&[("cluster_name", name.as_str())])?, value(totals))
            })
        })?;
    }
    put(encoder, &CLUSTER_CLASSES, |metric| {
        for (name, totals) in clusters {
            for (class, number) in ["1", "2", "3", "4", "5"].into_iter().zip(totals.classes) {
                if number > 0 {
                    let labels = [("cluster_name", name.as_str()), ("response_code_class", class)];
                    put_counter(&mut metric.encode_family(&labels)?, number)?;
                }
            }
        }
        Ok(())
    })
}

fn encode_codes(
    encoder: &mut DescriptorEncoder<'_>,
    declaration: &Declaration,
    workers: &[Arc<Shared>],
    of: impl Fn(&Shared) -> Vec<(FaultKind, u64)>,
) -> fmt::Result {
    let mut sums: BTreeMap<FaultKind, u64> = BTreeMap::new();
    for (kind, number) in workers.iter().flat_map(|worker| of(worker)) {
        *sums.entry(kind).or_default() += number;
    }
    put(encoder, declaration, |metric| {
        sums.iter().try_for_each(|(kind, number)| {
            let code = kind.code().to_string();
            let labels = [("code", code.as_str()), ("kind", kind.meaning().name)];
            put_counter(&mut metric.encode_family(&labels)?, *number)
        })
    })
}

fn put(
    encoder: &mut DescriptorEncoder<'_>,
    declaration: &Declaration,
    fill: impl FnOnce(&mut MetricEncoder<'_>) -> fmt::Result,
) -> fmt::Result {
    let help = declaration.help();
    fill(&mut encoder.encode_descriptor(declaration.family(), &help, None, declaration.kind)?)
}

fn put_counter(metric: &mut MetricEncoder<'_>, value: u64) -> fmt::Result {
    metric.encode_counter::<NoLabelSet, u64, f64>(&value, None)
}

impl EncodeLabelSet for SeriesKey {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> fmt::Result {
        let mut result = Ok(());
        self.labels.visit(&self.outcome, |name, value| {
            if result.is_ok() {
                result = (name, value).encode(encoder.encode_label());
            }
        });
        result
    }
}
