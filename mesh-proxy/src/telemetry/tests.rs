//! The hub as a scrape sees it, driven the way a worker drives it.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::{Duration, SystemTime};

use mesh_api_rt::metrics::Format;
use mesh_api_xds::ir::Resource;
use mesh_api_xds::ir::chain::{Chain, Serve};
use mesh_api_xds::ir::filter::{HttpFilter, PeerMetadata, Reporter, Stats};
use mesh_api_xds::ir::listener::Direction;
use mesh_api_xds::ir::telemetry::{AccessLog, LogFormat};
use mesh_proxy_core::facts::{ConnFacts, Peer};
use mesh_proxy_core::fault::FaultKind;
use mesh_proxy_core::plan::listener::ServePlan;
use mesh_proxy_core::plan::{Delta, Plan};
use tokio::time::Instant;

use super::testing::{mk_cluster, mk_http, mk_listener, mk_node};
use super::*;
use crate::conn::Secured;
use crate::connections::Connections;
use crate::telemetry::listeners::ListenerTable;

const OWN: &str = "spiffe://cluster.local/ns/shop/sa/reviews";
const CLIENT: &str = "spiffe://cluster.local/ns/shop/sa/web";

/// Istio's labels of requests (istio-surface section 8.1).
const HTTP_LABELS: &[&str] = &[
    "connection_security_policy",
    "destination_app",
    "destination_canonical_revision",
    "destination_canonical_service",
    "destination_cluster",
    "destination_principal",
    "destination_service",
    "destination_service_name",
    "destination_service_namespace",
    "destination_version",
    "destination_workload",
    "destination_workload_namespace",
    "grpc_response_status",
    "reporter",
    "request_protocol",
    "response_code",
    "response_flags",
    "source_app",
    "source_canonical_revision",
    "source_canonical_service",
    "source_cluster",
    "source_principal",
    "source_version",
    "source_workload",
    "source_workload_namespace",
];

fn mk_hub() -> Hub {
    Hub::new(&mk_node(), OWN.into(), Sinks::start().unwrap())
}

fn scrape(hub: &Hub) -> String {
    let mut metrics = Metrics::new();
    hub.register(&mut metrics).unwrap();
    metrics.encode(Format::Prometheus).unwrap()
}

fn mk_connection(direction: Direction, client: Option<&str>) -> Connection {
    let table = Rc::new(Connections::default());
    let mut facts = ConnFacts::new(([10, 0, 0, 1], 40_000).into(), ([10, 0, 0, 2], 9080).into());
    facts.peer = client.map(|uri| Arc::new(Peer { uris: vec![uri.into()], ..Peer::default() }));
    facts.local_identity = Some(OWN.into());
    Connection {
        entry: table.register("inbound".into(), direction),
        listened: ListenerTable::default().accepted(&"inbound".into()),
        id: 7,
        secured: Secured { version: "TLSv1.3", cipher: "TLS_AES_128_GCM_SHA256" },
        facts,
        listener: "inbound".into(),
        chain: "http".into(),
        direction,
    }
}

/// The HTTP plan of a chain with these filters and logs.
fn mk_plan(filters: Vec<HttpFilter>, logs: Vec<AccessLog>) -> Arc<HttpPlan> {
    let http =
        mesh_api_xds::ir::http::HttpConnection { filters: filters.into(), access_logs: logs.into(), ..mk_http("9080") };
    let mut listener = mk_listener("inbound", ([0, 0, 0, 0], 15006).into());
    let chain = Chain { serve: Serve::Http(Arc::new(http)), ..(*listener.chains[0]).clone() };
    listener.chains = [Arc::new(chain)].into_iter().collect();
    let delta = Delta { upserts: vec![Resource::Listener(listener)], ..Delta::default() };
    let (plan, rejected) = Plan::next(&Plan::empty(), &delta);
    assert!(rejected.is_empty(), "{rejected:?}");
    match &plan.listener("inbound").unwrap().chains().next().unwrap().serve {
        ServePlan::Http(http) => Arc::clone(http),
        ServePlan::Tcp(_) => panic!("not HTTP"),
    }
}

fn destination() -> Vec<HttpFilter> {
    vec![HttpFilter::PeerMetadata(PeerMetadata::Server), HttpFilter::Stats(Stats { reporter: Reporter::Destination })]
}

fn mk_scratch(status: u16) -> Scratch {
    let mut scratch = Scratch::default();
    scratch.request.set(":method", b"GET").unwrap();
    scratch.request.set(":path", b"/reviews/0").unwrap();
    scratch.request.set(":authority", b"reviews:9080").unwrap();
    scratch.record.begin(SystemTime::UNIX_EPOCH, Instant::now(), &scratch.request);
    if status > 0 {
        scratch.response.reset(mesh_proxy_core::head::Kind::Response);
        scratch.response.set_status(status).unwrap();
    }
    scratch.record.status = status;
    scratch.record.cluster = Some(Arc::new(mk_cluster("inbound|9080||")));
    scratch.record.attempts = 1;
    scratch.progress.received = 10;
    scratch.progress.sent = 2_000;
    scratch
}

/// Samples of one metric: labels and value.
fn samples(text: &str, name: &str) -> Vec<(BTreeMap<String, String>, f64)> {
    let prefix = format!("{name}{{");
    let parse = |line: &str| {
        let (labels, value) = line.strip_prefix(&prefix)?.rsplit_once("} ")?;
        let labels = labels.split("\",").map(|pair| {
            let (name, value) = pair.split_once("=\"").unwrap();
            (name.to_owned(), value.trim_end_matches('"').to_owned())
        });
        Some((labels.collect(), value.parse().unwrap()))
    };
    text.lines().filter_map(parse).collect()
}

fn value(text: &str, sample: &str) -> Option<f64> {
    text.lines().find_map(|line| line.strip_prefix(sample)?.strip_prefix(' ')?.parse().ok())
}

#[tokio::test(start_paused = true)]
async fn a_request_has_exactly_istios_labels() {
    let hub = mk_hub();
    let worker = hub.worker();
    let peer = Workload {
        name: "web-v1".into(),
        namespace: "shop".into(),
        cluster: "Kubernetes".into(),
        service: "web".into(),
        app: "web".into(),
        version: "v1".into(),
        ..Workload::default()
    };
    let mut scratch = mk_scratch(200);
    scratch.record.peer = worker.decode_peer(peer.to_header().as_bytes());
    tokio::time::advance(Duration::from_millis(12)).await;
    scratch.record.end(Instant::now());
    let connection = mk_connection(Direction::Inbound, Some(CLIENT));
    worker.http_finished(&connection, Some(&mk_plan(destination(), Vec::new())), &scratch);

    let text = scrape(&hub);
    let requests = samples(&text, "istio_requests_total");
    let [(labels, count)] = requests.as_slice() else { panic!("{text}") };
    assert_eq!(*count, 1.0);
    assert_eq!(labels.keys().map(String::as_str).collect::<Vec<_>>(), HTTP_LABELS);
    for (label, expect) in [
        ("reporter", "destination"),
        ("source_workload", "web-v1"),
        ("source_principal", CLIENT),
        ("source_canonical_service", "web"),
        ("source_canonical_revision", "latest"),
        ("destination_principal", OWN),
        ("destination_workload", "reviews-v1"),
        ("destination_service", "reviews.shop.svc.cluster.local"),
        ("destination_service_name", "reviews"),
        ("request_protocol", "http"),
        ("response_code", "200"),
        ("grpc_response_status", ""),
        ("response_flags", "-"),
        ("connection_security_policy", "mutual_tls"),
    ] {
        assert_eq!(labels.get(label).map(String::as_str), Some(expect), "{label}");
    }
    let duration = samples(&text, "istio_request_duration_milliseconds_sum");
    assert_eq!(duration[0].1, 12.0);
    let buckets = samples(&text, "istio_response_bytes_bucket");
    let at = |bound: &str| buckets.iter().find(|(labels, _)| labels["le"].parse() == bound.parse::<f64>()).unwrap().1;
    assert_eq!((buckets.len(), at("1000"), at("2500"), at("inf")), (20, 0.0, 1.0, 1.0));
    assert_eq!(samples(&text, "istio_request_bytes_count")[0].1, 1.0);
}

#[tokio::test(start_paused = true)]
async fn workers_are_added_up() {
    let hub = mk_hub();
    let workers = [hub.worker(), hub.worker()];
    let plan = mk_plan(destination(), Vec::new());
    for (worker, status) in [(0, 200), (1, 200), (1, 200), (1, 503)] {
        // Every connection has facts of its own, equal or not.
        let connection = mk_connection(Direction::Inbound, Some(CLIENT));
        workers[worker].http_finished(&connection, Some(&plan), &mk_scratch(status));
    }
    let text = scrape(&hub);
    let counts: Vec<_> = samples(&text, "istio_requests_total")
        .into_iter()
        .map(|(labels, count)| (labels["response_code"].clone(), count))
        .collect();
    assert_eq!(counts, [("200".to_owned(), 3.0), ("503".to_owned(), 1.0)]);
    assert_eq!(value(&text, r#"envoy_cluster_upstream_rq_total{cluster_name="inbound|9080||"}"#), Some(4.0));
    assert_eq!(value(&text, "mesh_proxy_requests_total"), Some(4.0));
    assert_eq!(value(&text, "mesh_proxy_series"), Some(3.0));
}

#[tokio::test(start_paused = true)]
async fn failures_are_counted_by_code() {
    let hub = mk_hub();
    let worker = hub.worker();
    let mut scratch = mk_scratch(503);
    scratch.record.fail(&Fault::new(FaultKind::ConnectFailed));
    scratch.record.attempts = 3;
    let connection = mk_connection(Direction::Inbound, None);
    worker.http_finished(&connection, Some(&mk_plan(destination(), Vec::new())), &scratch);
    worker.connection_refused(&"inbound".into(), &Fault::new(FaultKind::AccessDenied));
    let text = scrape(&hub);
    let code = FaultKind::ConnectFailed.code();
    assert_eq!(
        value(&text, &format!(r#"mesh_proxy_local_replies_total{{code="{code}",kind="ConnectFailed"}}"#)),
        Some(1.0)
    );
    let code = FaultKind::AccessDenied.code();
    assert_eq!(value(&text, &format!(r#"mesh_proxy_refused_total{{code="{code}",kind="AccessDenied"}}"#)), Some(1.0));
    assert_eq!(value(&text, "mesh_proxy_retries_total"), Some(2.0));
    let (labels, _) = &samples(&text, "istio_requests_total")[0];
    assert_eq!((labels["response_flags"].as_str(), labels["connection_security_policy"].as_str()), ("UF", "none"));
}

#[tokio::test(start_paused = true)]
async fn a_chain_without_the_filter_reports_nothing_to_istio() {
    let hub = mk_hub();
    let worker = hub.worker();
    let plan = mk_plan(vec![HttpFilter::Alpn], Vec::new());
    worker.http_finished(&mk_connection(Direction::Inbound, None), Some(&plan), &mk_scratch(200));
    worker.http_finished(&mk_connection(Direction::Inbound, None), None, &mk_scratch(200));
    let text = scrape(&hub);
    assert!(samples(&text, "istio_requests_total").is_empty());
    assert_eq!(value(&text, "mesh_proxy_requests_total"), Some(2.0));
}

#[tokio::test(start_paused = true)]
async fn hosts_become_labels_on_outbound_sidecar_requests_only() {
    let hub = mk_hub();
    let worker = hub.worker();
    let plan = mk_plan(vec![HttpFilter::Stats(Stats { reporter: Reporter::Source })], Vec::new());
    let mut scratch = mk_scratch(200);
    scratch.record.cluster = Some(Arc::new(mesh_api_xds::ir::cluster::Cluster {
        service: mesh_api_xds::ir::cluster::ServiceRef::default(),
        ..mk_cluster("PassthroughCluster")
    }));
    for direction in [Direction::Outbound, Direction::Inbound] {
        worker.http_finished(&mk_connection(direction, None), Some(&plan), &scratch);
    }
    let services: Vec<_> = samples(&scrape(&hub), "istio_requests_total")
        .into_iter()
        .map(|(labels, _)| (labels["destination_service"].clone(), labels["destination_service_name"].clone()))
        .collect();
    let passthrough = "PassthroughCluster".to_owned();
    assert_eq!(services, [("reviews".to_owned(), passthrough.clone()), ("unknown".to_owned(), passthrough)]);
}

#[tokio::test(start_paused = true)]
async fn tunnels_are_counted_once_each_way() {
    let hub = mk_hub();
    let worker = hub.worker();
    let connection = mk_connection(Direction::Inbound, Some(CLIENT));
    let mut record = TcpRecord::new(&connection, SystemTime::UNIX_EPOCH);
    record.cluster = Some(Arc::new(mk_cluster("inbound|9080||")));
    let bytes = Rc::new(TunnelBytes::default());
    worker.tcp_opened(&connection, &record, &bytes);
    bytes.sent.set(4);
    bytes.received.set(7);
    worker.tick(Sample::default());
    let while_open = scrape(&hub);
    assert_eq!(samples(&while_open, "istio_tcp_received_bytes_total")[0].1, 4.0);
    assert_eq!(samples(&while_open, "istio_tcp_sent_bytes_total")[0].1, 7.0);
    assert_eq!(samples(&while_open, "istio_tcp_connections_closed_total")[0].1, 0.0);
    (record.received, record.sent) = (11, 22);
    worker.tcp_closed(&connection, &record);
    worker.tick(Sample::default());
    let mut failed = TcpRecord::new(&connection, SystemTime::UNIX_EPOCH);
    failed.fault = Some(Fault::new(FaultKind::ConnectFailed));
    worker.tcp_closed(&connection, &failed);

    let text = scrape(&hub);
    let numbers = |name: &str| -> Vec<(String, f64)> {
        let of = |(labels, value): (BTreeMap<String, String>, f64)| (labels["response_flags"].clone(), value);
        samples(&text, name).into_iter().map(of).collect()
    };
    let both = |ok, bad| vec![("-".to_owned(), ok), ("UF".to_owned(), bad)];
    assert_eq!(numbers("istio_tcp_connections_opened_total"), both(1.0, 1.0));
    assert_eq!(numbers("istio_tcp_connections_closed_total"), both(1.0, 1.0));
    assert_eq!(numbers("istio_tcp_received_bytes_total"), both(11.0, 0.0));
    assert_eq!(numbers("istio_tcp_sent_bytes_total"), both(22.0, 0.0));
    let (labels, _) = &samples(&text, "istio_tcp_sent_bytes_total")[0];
    let without_codes: Vec<_> =
        HTTP_LABELS.iter().filter(|label| !["response_code", "grpc_response_status"].contains(label)).collect();
    assert_eq!(labels.keys().collect::<Vec<_>>(), without_codes);
    assert_eq!(labels["request_protocol"], "tcp");
}

#[tokio::test(start_paused = true)]
async fn a_request_leaves_a_line_in_the_log() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("access.log");
    let log = AccessLog {
        path: path.to_str().unwrap().into(),
        format: LogFormat::Text(mesh_proxy_core::log_format::DEFAULT_TEXT.into()),
    };
    let hub = mk_hub();
    let worker = hub.worker();
    let mut scratch = mk_scratch(200);
    scratch.record.details = "via_upstream".into();
    let connection = mk_connection(Direction::Inbound, Some(CLIENT));
    worker.http_finished(&connection, Some(&mk_plan(destination(), vec![log])), &scratch);
    assert_eq!(hub.count(Count::LogLines), 1);
    worker.tick(Sample { connections: 7, ..Sample::default() });
    assert_eq!(hub.connections(), 7);
    let line = wait_for_line(&path);
    assert!(line.starts_with("[1970-01-01T00:00:00.000Z] \"GET /reviews/0 HTTP/1.1\" 200 - via_upstream"), "{line}");
    assert!(line.contains(" 10 2000 ") && line.contains("inbound|9080||") && line.contains("10.0.0.1:40000"), "{line}");
}

/// The writer is another thread; what it waits for is on its way already.
fn wait_for_line(path: &std::path::Path) -> String {
    for _ in 0..1_000_000 {
        match std::fs::read_to_string(path) {
            Ok(line) if line.ends_with('\n') => return line,
            _ => std::thread::yield_now(),
        }
    }
    panic!("no line was written");
}

#[test]
fn every_metric_is_declared_once_and_explained() {
    let mut metrics = Metrics::new();
    mk_hub().register(&mut metrics).unwrap();
    assert!(metrics.declarations().all(|declaration| !declaration.help().is_empty()));
    assert!(mk_hub().register(&mut metrics).is_err());
}

#[test]
fn a_log_line_tells_its_connection_and_how_it_is_secured() {
    let connection = mk_connection(Direction::Inbound, Some(CLIENT));
    let scratch = Scratch::default();
    let names = sides::Names { hostname: "reviews-1", principal: OWN };
    let line = sides::http_line(&connection, &scratch, names);
    assert_eq!(
        (line.connection_id, line.downstream_tls_version, line.downstream_tls_cipher),
        (7, "TLSv1.3", "TLS_AES_128_GCM_SHA256")
    );
}
