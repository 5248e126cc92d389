//! Metrics that are read off the present configuration at each scrape.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{SystemTime, UNIX_EPOCH};

use mesh_api::text::Str;
use mesh_api_rt::metrics::{Declaration, DuplicateMetric, Metrics};
use mesh_api_xds::ir::endpoint::Health;
use mesh_api_xds::ir::secret::{Secret, SecretContent};
use mesh_proxy_core::health::outlier;
use mesh_proxy_core::limit::circuit::Counted;
use mesh_proxy_core::plan::Plan;
use mesh_proxy_core::plan::cluster::ClusterPlan;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use tokio::time::Instant;
use x509_parser::prelude::Pem;

use super::envoy;
use super::server_info::expires;
use crate::telemetry::{ClusterTotals, Hub};
use crate::worker::{DrainPhase, Shared};

const GENERATION: Declaration =
    gauge("mesh_proxy_config_generation", "Generation of the configuration in use, as the control plane numbers it.");
const PUBLICATIONS: Declaration =
    counter("mesh_proxy_config_publications_total", "Configurations put to use since the start.");
const EXPIRY: Declaration =
    gauge("mesh_proxy_certificate_expiry_seconds", "When a certificate ends, in seconds since 1970.");
const RESOURCES: Declaration = gauge("mesh_proxy_resources", "Resources of the configuration in use, by kind.");
const BUILD: Declaration = gauge("istio_build", "Which build this is; always 1.");
const LIVE: Declaration =
    gauge("envoy_server_live", "1 while the proxy serves, 0 while it drains, under Envoy's name.");
const STATE: Declaration =
    gauge("envoy_server_state", "0 live, 1 draining, 2 waiting for its first configuration, under Envoy's name.");
const UPTIME: Declaration = gauge("envoy_server_uptime", "Seconds since the start, under Envoy's name.");
const CONCURRENCY: Declaration = gauge("envoy_server_concurrency", "Worker threads, under Envoy's name.");
const MEMBERS: Declaration =
    gauge("envoy_cluster_membership_total", "Endpoints of a cluster in use, under Envoy's name.");
const HEALTHY: Declaration =
    gauge("envoy_cluster_membership_healthy", "Endpoints of a cluster in use that may be chosen, under Envoy's name.");
const CX_ACTIVE: Declaration =
    gauge("envoy_cluster_upstream_cx_active", "Connections to a cluster in use, under Envoy's name.");
const RQ_ACTIVE: Declaration =
    gauge("envoy_cluster_upstream_rq_active", "Requests in flight to a cluster in use, under Envoy's name.");
const OVERFLOW: Declaration = counter(
    "envoy_cluster_upstream_rq_pending_overflow",
    "Requests that a limit of the cluster refused, under Envoy's name.",
);

pub(super) const fn gauge(name: &'static str, doc: &'static str) -> Declaration {
    Declaration::new(name, MetricType::Gauge, doc)
}

pub(super) const fn counter(name: &'static str, doc: &'static str) -> Declaration {
    Declaration::new(name, MetricType::Counter, doc)
}

/// A number of a cluster.
type OfCluster = (Declaration, fn(&ClusterPlan) -> u64);

const OF_CLUSTERS: [OfCluster; 5] = [
    (MEMBERS, |cluster| cluster.all().len() as u64),
    (HEALTHY, healthy),
    (CX_ACTIVE, |cluster| u64::from(cluster.state.circuit.inside(Counted::Connections))),
    (RQ_ACTIVE, |cluster| u64::from(cluster.state.circuit.inside(Counted::Requests))),
    (OVERFLOW, |cluster| {
        let circuit = &cluster.state.circuit;
        [Counted::Connections, Counted::Pending, Counted::Requests].map(|counted| circuit.refused(counted)).iter().sum()
    }),
];

#[derive(Debug)]
struct State {
    shared: Arc<Shared>,
    hub: Hub,
    workers: usize,
    started: Instant,
}

/// Makes them part of a scrape.
///
/// # Errors
/// When a name is taken.
pub(super) fn register(
    metrics: &mut Metrics,
    shared: &Arc<Shared>,
    hub: &Hub,
    workers: usize,
    started: Instant,
) -> Result<(), DuplicateMetric> {
    let own = [GENERATION, PUBLICATIONS, EXPIRY, RESOURCES, BUILD, LIVE, STATE, UPTIME, CONCURRENCY];
    let declarations = own.into_iter().chain(OF_CLUSTERS.map(|(declaration, _)| declaration));
    let declarations: Vec<_> = declarations.chain(envoy::declarations()).collect();
    let state = State { shared: Arc::clone(shared), hub: hub.clone(), workers, started };
    metrics.register_collector(&declarations, Box::new(state))
}

impl Collector for State {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let live = self.shared.store.live();
        let plan = &live.plan;
        let draining = *self.shared.drain.borrow() > DrainPhase::Running;
        let state: u64 = match (draining, live.is_configured()) {
            (true, _) => 1,
            (false, true) => 0,
            (false, false) => 2,
        };
        for (declaration, value) in [
            (GENERATION, plan.mark().generation),
            (LIVE, u64::from(state == 0)),
            (STATE, state),
            (UPTIME, self.started.elapsed().as_secs()),
            (CONCURRENCY, self.workers as u64),
        ] {
            put(&mut encoder, &declaration, |metric| metric.encode_gauge(&value))?;
        }
        put(&mut encoder, &PUBLICATIONS, |metric| {
            metric.encode_counter::<NoLabelSet, u64, f64>(&live.generation, None)
        })?;
        put(&mut encoder, &BUILD, |metric| {
            let labels = [("component", "proxy"), ("tag", env!("CARGO_PKG_VERSION"))];
            metric.encode_family(&labels)?.encode_gauge(&1_u64)
        })?;
        resources(plan, &mut encoder)?;
        expiries(plan, &mut encoder)?;
        let link = self.shared.store.link.active.load(Relaxed);
        clusters(plan, &self.hub.cluster_totals(), link, &mut encoder)?;
        envoy::encode(&self.shared.store, &live, &self.hub, &mut encoder)
    }
}

fn resources(plan: &Plan, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let routes = plan.route_tables().count();
    let numbers = [
        ("cluster", plan.clusters().count()),
        ("listener", plan.listeners().count()),
        ("route_configuration", routes),
        ("virtual_host", plan.route_tables().map(|table| table.hosts().len()).sum()),
        ("endpoint", plan.clusters().map(|cluster| cluster.all().len()).sum()),
        ("secret", plan.secrets().count()),
    ];
    put(encoder, &RESOURCES, |metric| {
        numbers
            .iter()
            .try_for_each(|(kind, number)| metric.encode_family(&[("kind", *kind)])?.encode_gauge(&(*number as u64)))
    })
}

/// The first certificate of each secret to end: a chain is as good as its weakest link, a bundle as its first gap.
fn expiries(plan: &Plan, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    put(encoder, &EXPIRY, |metric| {
        for secret in plan.secrets() {
            if let Some(at) = first_expiry(secret) {
                let seconds = at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
                metric.encode_family(&[("secret", secret.name.as_str())])?.encode_gauge(&seconds)?;
            }
        }
        Ok(())
    })
}

/// When a secret's first certificate ends.
pub(super) fn first_expiry(secret: &Secret) -> Option<SystemTime> {
    let pem = match &secret.content {
        SecretContent::Certificate { chain, .. } => chain,
        SecretContent::Trust(pem) => pem,
    };
    let blocks = Pem::iter_from_buffer(pem).filter_map(Result::ok);
    blocks.filter_map(|block| block.parse_x509().ok().map(|certificate| expires(&certificate))).min()
}

/// Only clusters that were used: of a thousand that a sidecar is told of, it talks to a few. `link` connections lead to the
/// control plane.
fn clusters(
    plan: &Plan,
    used: &BTreeMap<Str, ClusterTotals>,
    link: u64,
    encoder: &mut DescriptorEncoder<'_>,
) -> fmt::Result {
    let open = |cluster: &ClusterPlan| cluster.state.circuit.inside(Counted::Connections) > 0;
    let is_used = |cluster: &&Arc<ClusterPlan>| used.contains_key(&cluster.settings.name) || open(cluster);
    let used: Vec<_> = plan.clusters().filter(is_used).collect();
    for (declaration, value) in &OF_CLUSTERS {
        put(encoder, declaration, |metric| {
            if declaration.name == CX_ACTIVE.name {
                metric.encode_family(&[("cluster_name", envoy::CONTROL_PLANE)])?.encode_gauge(&link)?;
            }
            used.iter().try_for_each(|cluster| {
                let labels = [("cluster_name", cluster.settings.name.as_str())];
                let mut metric = metric.encode_family(&labels)?;
                match declaration.kind {
                    MetricType::Counter => metric.encode_counter::<NoLabelSet, u64, f64>(&value(cluster), None),
                    _ => metric.encode_gauge(&value(cluster)),
                }
            })
        })?;
    }
    Ok(())
}

fn healthy(cluster: &ClusterPlan) -> u64 {
    let out: BTreeSet<_> =
        outlier::ejected(cluster, Instant::now().into_std()).iter().map(|(endpoint, _)| endpoint.id()).collect();
    let may_be_chosen = |endpoint: &&Arc<mesh_proxy_core::endpoint::Endpoint>| {
        endpoint.health == Health::Healthy && !out.contains(&endpoint.id())
    };
    cluster.all().iter().filter(may_be_chosen).count() as u64
}

pub(super) fn put(
    encoder: &mut DescriptorEncoder<'_>,
    declaration: &Declaration,
    fill: impl FnOnce(&mut MetricEncoder<'_>) -> fmt::Result,
) -> fmt::Result {
    let help = declaration.help();
    fill(&mut encoder.encode_descriptor(declaration.family(), &help, None, declaration.kind)?)
}
