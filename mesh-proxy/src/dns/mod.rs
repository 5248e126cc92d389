//! Answers the workload's look-ups of names (`ISTIO_META_DNS_CAPTURE`).
//!
//! What the control plane's table knows is answered here ([`mesh_proxy_core::dns`]); everything else goes on to the name
//! servers of `resolv.conf` ([`upstream`]). The server has a thread of its own, so that look-ups and requests do not wait for
//! each other.

pub mod resolv;
pub mod server;
pub mod settings;
#[cfg(test)]
mod tests;
pub mod upstream;

use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwapOption;
use mesh_api_rt::metrics::{Declaration, DuplicateMetric, Metrics};
use mesh_api_xds::ir::names::{NameKind, NameTable};
use mesh_proxy_core::dns::table::{Place, Table};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::histogram::Histogram;
use serde_json::{Map, Value, json};

/// What becomes of look-ups, under the names of Istio's agent.
#[derive(Clone, Debug)]
pub struct DnsMetrics {
    /// Look-ups that arrived.
    pub requests: Counter,
    /// Look-ups that went on to name servers.
    pub upstream: Counter,
    /// Look-ups that no name server answered.
    pub failures: Counter,
    /// Look-ups that were refused because too many were under way.
    pub refused: Counter,
    /// Time that name servers take, in seconds.
    pub upstream_time: Histogram,
}

const REQUESTS: Declaration = counter("istio_agent_dns_requests_total", "Look-ups of names that arrived.");
const UPSTREAM: Declaration =
    counter("istio_agent_dns_upstream_requests_total", "Look-ups of names that went on to name servers.");
const FAILURES: Declaration =
    counter("istio_agent_dns_upstream_failures_total", "Look-ups of names that no name server answered.");
const REFUSED: Declaration = counter(
    "mesh_proxy_dns_refused_total",
    "Look-ups of names that were refused because too many waited for name servers.",
);
const UPSTREAM_TIME: Declaration = Declaration::new(
    "istio_agent_dns_upstream_request_duration_seconds",
    MetricType::Histogram,
    "Time that name servers took for a look-up, in seconds.",
);

const fn counter(name: &'static str, doc: &'static str) -> Declaration {
    Declaration::new(name, MetricType::Counter, doc)
}

impl Default for DnsMetrics {
    fn default() -> Self {
        Self {
            requests: Counter::default(),
            upstream: Counter::default(),
            failures: Counter::default(),
            refused: Counter::default(),
            // Bounds as in istio/istio: pkg/dns/client/monitoring.go.
            upstream_time: Histogram::new([0.001, 0.005, 0.01, 0.1, 1.0, 5.0]),
        }
    }
}

impl DnsMetrics {
    fn register(&self, metrics: &mut Metrics) -> Result<(), DuplicateMetric> {
        metrics.register_one(&REQUESTS, self.requests.clone())?;
        metrics.register_one(&UPSTREAM, self.upstream.clone())?;
        metrics.register_one(&FAILURES, self.failures.clone())?;
        metrics.register_one(&REFUSED, self.refused.clone())?;
        metrics.register_one(&UPSTREAM_TIME, self.upstream_time.clone())
    }
}

/// The names that the mesh knows, replaced as a whole. Not in use until [`Names::enable`].
#[derive(Debug, Default)]
pub struct Names {
    place: OnceLock<Place>,
    current: ArcSwapOption<Current>,
    /// What becomes of look-ups.
    pub metrics: DnsMetrics,
}

/// One table, and what it was made from.
#[derive(Debug)]
pub struct Current {
    /// Answers look-ups.
    pub table: Table,
    /// As the control plane sent it, for dumps.
    pub names: NameTable,
}

impl Names {
    /// Look-ups are captured; names are meant as at `place`.
    pub fn enable(&self, place: Place) {
        // Settings do not change: a second call says the same.
        let _ = self.place.set(place);
    }

    /// Whether look-ups are captured.
    #[must_use]
    pub fn is_enabled(&self) -> bool {
        self.place.get().is_some()
    }

    /// Whether look-ups are captured and cannot be answered yet.
    #[must_use]
    pub fn are_missing(&self) -> bool {
        self.is_enabled() && self.current.load().is_none()
    }

    /// Puts a table in place of the one before.
    pub fn replace(&self, names: NameTable) {
        let Some(place) = self.place.get() else { return };
        let table = Table::new(&names, place.clone());
        tracing::debug!(hosts = table.hosts(), "Table of names replaced");
        self.current.store(Some(Arc::new(Current { table, names })));
    }

    /// The present table, once one has arrived.
    #[must_use]
    pub fn current(&self) -> Option<Arc<Current>> {
        self.current.load_full()
    }

    /// Makes the numbers part of a scrape, if look-ups are captured.
    ///
    /// # Errors
    /// When a name is taken.
    pub fn register(&self, metrics: &mut Metrics) -> Result<(), DuplicateMetric> {
        if self.is_enabled() { self.metrics.register(metrics) } else { Ok(()) }
    }

    /// The table in the form of Istio's `/debug/ndsz`.
    #[must_use]
    pub fn dump(&self) -> Value {
        let Some(current) = self.current() else { return json!({}) };
        let entry = |entry: &mesh_api_xds::ir::names::NameEntry| {
            let mut info = Map::new();
            info.insert("ips".to_owned(), json!(entry.addresses));
            match &entry.kind {
                NameKind::Kubernetes { short_name, namespace, aliases } => {
                    info.insert("registry".to_owned(), json!("Kubernetes"));
                    info.insert("shortname".to_owned(), json!(short_name));
                    info.insert("namespace".to_owned(), json!(namespace));
                    if !aliases.is_empty() {
                        info.insert("altHosts".to_owned(), json!(aliases));
                    }
                }
                NameKind::Other => drop(info.insert("registry".to_owned(), json!("External"))),
            }
            (entry.host.to_string(), Value::Object(info))
        };
        json!({ "table": current.names.entries.iter().map(entry).collect::<Map<_, _>>() })
    }
}
