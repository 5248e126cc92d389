//! The pages as tools read them, without a socket but for one.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use http::{Method, StatusCode};
use mesh_api::text::Str;
use mesh_api_rt::admin::{Request, Response};
use mesh_api_rt::telemetry::{LogFormat, build};
use mesh_api_xds::ads::client::{Received, Update};
use mesh_api_xds::codec;
use mesh_api_xds::ir::Resource;
use mesh_api_xds::ir::cluster::{Cluster, Discovery, Outlier};
use mesh_api_xds::ir::endpoint::{
    Address, Endpoint, EndpointSet, EndpointTls, Health, Locality, LocalityEndpoints, WorkloadRef,
};
use mesh_api_xds::ir::secret::{PrivateKey, Secret, SecretContent};
use mesh_proxy_core::health::outlier::{self, Seen};
use mesh_proxy_core::plan::{Delta, Mark, Plan};
use serde_json::Value;
use tokio::sync::watch;

use super::*;
use crate::agent::probe::ProbeSettings;
use crate::bootstrap::{Application, DrainSettings};
use crate::config::store::Store;
use crate::telemetry::access_log::Sinks;
use crate::telemetry::testing::{mk_cluster, mk_listener, mk_node};
use crate::tls::store::TlsStore;
use crate::worker::{DrainPhase, LocalMetadata};

pub(super) struct Proxy {
    pub(super) admin: Arc<Admin>,
    stop_asked: mpsc::Receiver<Event>,
}

fn mk_bootstrap() -> Bootstrap {
    let node = mk_node();
    Bootstrap {
        identity: mesh_api::identity::SpiffeId {
            trust_domain: mesh_api::identity::TrustDomain::parse("cluster.local").unwrap(),
            namespace: "shop".into(),
            service_account: "reviews".into(),
        },
        node,
        discovery_address: "istiod.istio-system.svc:15012".to_owned(),
        ca_address: "istiod.istio-system.svc:15012".to_owned(),
        plaintext_control_plane: false,
        control_plane_name: "istiod.istio-system.svc".to_owned(),
        root_cert: "root-cert.pem".into(),
        ca_root_cert: None,
        token: "istio-token".into(),
        provisioned: None,
        output_certs: None,
        key_kind: mesh_ca::key::KeyKind::EcdsaP256,
        renewal: mesh_ca::rotation::RenewalPolicy::default(),
        workers: 2,
        admin: ([127, 0, 0, 1].into(), 15000),
        status_port: 15020,
        readiness_port: 15021,
        metrics_port: 15090,
        drain: DrainSettings { duration: Duration::from_secs(5), until_idle: None },
        handover_drain: Duration::from_secs(900),
        socket_mark: None,
        cert_ttl: Duration::from_secs(3600),
        application: Application::default(),
    }
}

fn mk_context() -> (AdminContext, mpsc::Receiver<Event>) {
    let bootstrap = Arc::new(mk_bootstrap());
    let identity = Str::from(bootstrap.identity.to_string());
    let shared = Arc::new(Shared {
        store: Store::default(),
        tls: TlsStore::default(),
        socket_mark: None,
        client_mark: None,
        identity: identity.clone(),
        metadata: Arc::new(LocalMetadata::default()),
        drain: watch::Sender::new(DrainPhase::Running),
        inbound: Arc::default(),
        early: Vec::new(),
    });
    let hub = Hub::new(&bootstrap.node, identity, Sinks::start().unwrap());
    let (_, logs) = build(LogFormat::Text, "info".parse().unwrap(), std::io::sink);
    let (stop, stop_asked) = mpsc::channel(2);
    let settings = ProbeSettings {
        destination: bootstrap.node.address,
        status_port: bootstrap.status_port,
        http2: true,
        socket_mark: None,
    };
    let probers = Probers::parse(None, settings).unwrap();
    let handover = Arc::new(Status::first());
    (AdminContext { bootstrap, shared, hub, logs, stop, probers, targets: Targets::default(), handover }, stop_asked)
}

impl Proxy {
    pub(super) fn start() -> Self {
        let (context, stop_asked) = mk_context();
        Self { admin: Arc::new(Admin::new(context).unwrap()), stop_asked }
    }

    /// Sends resources through the codec, as the control plane would, and commits them.
    pub(super) fn apply(&self, resources: Vec<Resource>) {
        let store = &self.admin.context.shared.store;
        for resource in &resources {
            let encoded = codec::encode(resource).unwrap();
            let received = Received {
                name: encoded.name,
                aliases: encoded.aliases.to_vec(),
                version: encoded.version.to_string().into(),
                bytes: encoded.bytes,
            };
            let update = Update { type_url: codec::type_of(resource), upserts: vec![received], removals: Vec::new() };
            store.held.apply(&update, SystemTime::UNIX_EPOCH);
        }
        let before = store.live();
        let mark = Mark { generation: before.plan.mark().generation + 1, changes: Arc::default() };
        let delta = Delta { mark, upserts: resources, ..Delta::default() };
        let (plan, rejected) = Plan::next(&before.plan, &delta);
        assert!(rejected.is_empty(), "{rejected:?}");
        store.publish(Arc::new(plan), true);
    }

    async fn send(&self, router: Router, method: Method, uri: &str, peer: [u8; 4]) -> Response {
        let (head, ()) = http::Request::builder().method(method).uri(uri).body(()).unwrap().into_parts();
        router.dispatch(Request::new(head, bytes::Bytes::new(), SocketAddr::from((peer, 4000)))).await
    }

    pub(super) async fn get(&self, uri: &str) -> String {
        let response = self.send(self.admin.pages(), Method::GET, uri, [127, 0, 0, 1]).await;
        let text = String::from_utf8(response.body().to_vec()).unwrap();
        assert_eq!(response.status(), StatusCode::OK, "{uri}: {text}");
        text
    }

    pub(super) async fn json(&self, uri: &str) -> Value {
        serde_json::from_str(&self.get(uri).await).unwrap()
    }

    async fn post(&self, uri: &str) -> StatusCode {
        self.send(self.admin.pages(), Method::POST, uri, [127, 0, 0, 1]).await.status()
    }

    async fn ready(&self) -> StatusCode {
        self.send(self.admin.readiness_pages(), Method::GET, "/healthz/ready", [10, 0, 0, 9]).await.status()
    }
}

pub(super) fn mk_certificate(name: &str) -> Resource {
    let made = rcgen::generate_simple_self_signed(["reviews.shop".to_owned()]).unwrap();
    let content = SecretContent::Certificate {
        chain: made.cert.pem().into_bytes().into(),
        key: PrivateKey(made.signing_key.serialize_pem().into_bytes().into()),
    };
    Resource::Secret(Secret { name: name.into(), content })
}

pub(super) fn mk_endpoints(cluster: &str, last_octets: &[u8]) -> Resource {
    let endpoint = |octet: &u8| Endpoint {
        address: Address::Socket(([10, 1, 0, *octet], 9080).into()),
        weight: 1,
        health: if *octet == 9 { Health::Draining } else { Health::Healthy },
        tls: EndpointTls::Istio,
        workload: WorkloadRef { name: "reviews-v1".into(), namespace: "shop".into(), ..WorkloadRef::default() },
    };
    let locality = Locality { region: "r1".into(), zone: "z1".into(), subzone: Str::empty() };
    let endpoints = last_octets.iter().map(endpoint).collect();
    let group = LocalityEndpoints { locality, priority: 0, weight: 0, endpoints };
    Resource::Endpoints(EndpointSet { cluster: cluster.into(), localities: [group].into_iter().collect() })
}

const REVIEWS: &str = "outbound|9080||reviews.shop.svc.cluster.local";

fn mk_ejecting() -> Resource {
    let outlier = Outlier {
        consecutive_5xx: 1,
        consecutive_gateway: 0,
        consecutive_local: 0,
        split_local: false,
        interval: Duration::from_secs(10),
        base_ejection: Duration::from_secs(30),
        max_ejection: Duration::from_secs(300),
        max_ejection_percent: 100,
    };
    Resource::Cluster(Cluster { outlier: Some(outlier), discovery: Discovery::Eds, ..mk_cluster(REVIEWS) })
}

#[tokio::test]
async fn ready_means_configured_certified_and_not_draining() {
    let proxy = Proxy::start();
    assert_eq!(proxy.ready().await, StatusCode::SERVICE_UNAVAILABLE);
    proxy.apply(vec![Resource::Listener(mk_listener("virtualInbound", ([0, 0, 0, 0], 15006).into()))]);
    assert_eq!(proxy.ready().await, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(proxy.json("/server_info").await["state"], "INITIALIZING");
    proxy.apply(vec![mk_certificate("default")]);
    assert_eq!(proxy.ready().await, StatusCode::OK);
    assert_eq!(proxy.json("/server_info").await["state"], "LIVE");
    assert_eq!(proxy.post("/healthcheck/fail").await, StatusCode::OK);
    assert_eq!(proxy.ready().await, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(proxy.post("/healthcheck/ok").await, StatusCode::OK);
    assert_eq!(proxy.ready().await, StatusCode::OK);
    assert_eq!(proxy.post("/drain_listeners?graceful&inboundonly").await, StatusCode::OK);
    assert_eq!(proxy.ready().await, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(proxy.json("/server_info").await["state"], "DRAINING");
}

#[tokio::test]
async fn draining_moves_forward_only() {
    let proxy = Proxy::start();
    let phase = || *proxy.admin.context.shared.drain.borrow();
    assert_eq!(proxy.post("/drain_listeners?later").await, StatusCode::BAD_REQUEST);
    assert_eq!(phase(), DrainPhase::Running);
    for (uri, expect) in [
        ("/drain_listeners?graceful&inboundonly&skip_exit", DrainPhase::Inbound),
        ("/drain_listeners?inboundonly", DrainPhase::InboundClosed),
        // What was closed is not opened again.
        ("/drain_listeners?graceful", DrainPhase::Closed),
        ("/drain_listeners?inboundonly", DrainPhase::Closed),
    ] {
        proxy.post(uri).await;
        assert_eq!(phase(), expect, "{uri}");
    }
}

#[tokio::test]
async fn state_is_changed_from_this_host_by_post_only() {
    let mut proxy = Proxy::start();
    let far = proxy.send(proxy.admin.status_pages(), Method::POST, "/quitquitquit", [10, 0, 0, 9]).await;
    assert_eq!(far.status(), StatusCode::FORBIDDEN);
    for uri in ["/quitquitquit", "/drain_listeners", "/healthcheck/fail"] {
        let read = proxy.send(proxy.admin.pages(), Method::GET, uri, [127, 0, 0, 1]).await;
        assert_eq!(read.status(), StatusCode::METHOD_NOT_ALLOWED, "{uri}");
    }
    assert!(proxy.stop_asked.try_recv().is_err());
    let near = proxy.send(proxy.admin.status_pages(), Method::POST, "/quitquitquit", [127, 0, 0, 1]).await;
    assert_eq!((near.status(), proxy.stop_asked.try_recv()), (StatusCode::OK, Ok(Event::Quit)));
    proxy.send(proxy.admin.status_pages(), Method::POST, "/drain", [127, 0, 0, 1]).await;
    assert_eq!(proxy.stop_asked.try_recv(), Ok(Event::Drain));
}

#[tokio::test]
async fn clusters_show_health_as_istioctl_reads_it() {
    let proxy = Proxy::start();
    proxy.apply(vec![mk_ejecting(), mk_endpoints(REVIEWS, &[1, 2, 9])]);
    let live = proxy.admin.context.shared.store.live();
    let cluster = live.plan.cluster(REVIEWS).unwrap();
    outlier::report(cluster, &cluster.all()[0], Seen::Status(503), Instant::now().into_std()).unwrap();

    let found = proxy.json("/clusters?format=json").await;
    let status = &found["cluster_statuses"][0];
    assert_eq!(status["name"], REVIEWS);
    let hosts: Vec<_> = status["host_statuses"]
        .as_array()
        .unwrap()
        .iter()
        .map(|host| {
            let address = &host["address"]["socket_address"];
            let health = &host["health_status"];
            (
                format!("{}:{}", address["address"].as_str().unwrap(), address["port_value"]),
                health["eds_health_status"].as_str().unwrap().to_owned(),
                health["failed_outlier_check"].as_bool().unwrap_or_default(),
            )
        })
        .collect();
    let expect = [("10.1.0.1", "HEALTHY", true), ("10.1.0.2", "HEALTHY", false), ("10.1.0.9", "DRAINING", false)];
    assert_eq!(hosts, expect.map(|(ip, health, out)| (format!("{ip}:9080"), health.to_owned(), out)));

    let text = proxy.get("/clusters").await;
    for line in [
        "10.1.0.1:9080::health_flags::/failed_outlier_check",
        "10.1.0.2:9080::health_flags::healthy",
        "10.1.0.9:9080::health_flags::/eds_status_draining",
        "10.1.0.2:9080::region::r1",
        "added_via_api::true",
    ] {
        assert!(text.lines().any(|found| found == format!("{REVIEWS}::{line}")), "{line}\n{text}");
    }
}

#[tokio::test]
async fn stats_can_be_filtered() {
    let proxy = Proxy::start();
    proxy.apply(vec![mk_certificate("default"), mk_ejecting()]);
    let filter = "/stats?usedonly&filter=%5E(server%5C.state%7Ccluster_manager%5C.cds.update_success)$";
    assert_eq!(proxy.get(filter).await, "cluster_manager.cds.update_success: 1\n");
    let found = proxy.json("/stats?format=json&filter=%5Eserver.concurrency").await;
    assert_eq!(found, serde_json::json!({ "stats": [{ "name": "server.concurrency", "value": 2 }] }));
    let bad = proxy.send(proxy.admin.pages(), Method::GET, "/stats?filter=%5B", [127, 0, 0, 1]).await;
    assert_eq!(bad.status(), StatusCode::BAD_REQUEST);
    let scrape = proxy.get("/stats/prometheus").await;
    let value = |name: &str| scrape.lines().find_map(|line| line.strip_prefix(name)?.trim().parse::<f64>().ok());
    assert_eq!((value("envoy_server_state "), value("mesh_proxy_config_generation ")), (Some(0.0), Some(1.0)));
    assert_eq!(value("mesh_proxy_resources{kind=\"cluster\"} "), Some(1.0));
    let expiry = value("mesh_proxy_certificate_expiry_seconds{secret=\"default\"} ").unwrap();
    assert!(expiry > 1_700_000_000.0, "{expiry}");
}

#[tokio::test]
async fn certificates_are_listed_without_keys() {
    let proxy = Proxy::start();
    proxy.apply(vec![mk_certificate("default")]);
    let text = proxy.get("/certs").await;
    let certs: Value = serde_json::from_str(&text).unwrap();
    let chain = &certs["certificates"][0]["cert_chain"][0];
    assert_eq!(chain["subject_alt_names"][0]["dns"], "reviews.shop");
    assert!(chain["days_until_expiration"].as_str().unwrap().parse::<u64>().unwrap() > 0);
    assert!(!text.contains("PRIVATE"));
}

#[tokio::test]
async fn listeners_are_listed() {
    let proxy = Proxy::start();
    proxy.apply(vec![Resource::Listener(mk_listener("virtualInbound", ([0, 0, 0, 0], 15006).into()))]);
    assert_eq!(proxy.get("/listeners").await, "virtualInbound::0.0.0.0:15006\n");
    let found = proxy.json("/listeners?format=json").await;
    assert_eq!(found["listener_statuses"][0]["local_address"]["socket_address"]["port_value"], 15006);
}

#[test]
fn the_interface_listens_where_the_settings_say() {
    let (mut context, _stop) = mk_context();
    let local = || std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    // Sockets of this test's own stand for the well-known ports.
    let sockets: Vec<_> = [15000, 15020, 15021]
        .map(|port| (port, local()))
        .into_iter()
        .map(|(port, socket)| {
            let ip = if port == 15000 { [127, 0, 0, 1] } else { [0, 0, 0, 0] };
            (SocketAddr::from((ip, port)), socket)
        })
        .collect();
    let mut bootstrap = (*context.bootstrap).clone();
    bootstrap.metrics_port = 0;
    context.bootstrap = Arc::new(bootstrap);
    let mut table = ListenerTable::seeded(sockets);
    let desk = Desk::new(context).unwrap();
    desk.open(&mut table).unwrap();
    let addresses = desk.addresses();
    let ask = |place: usize, path: &str| {
        let mut stream = TcpStream::connect(addresses[place]).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    };
    assert_eq!(addresses.len(), 3);
    assert!(ask(0, "/server_info").contains("INITIALIZING"));
    assert!(ask(1, "/stats/prometheus").contains("# TYPE istio_requests_total counter"));
    assert!(ask(1, "/metrics").starts_with("HTTP/1.1 200"));
    assert!(ask(2, "/healthz/ready").starts_with("HTTP/1.1 503"));
    assert!(ask(2, "/config_dump").starts_with("HTTP/1.1 404"));
    // Closed, its sockets still take connections; open again, it answers them.
    desk.close();
    let mut waiting = TcpStream::connect(addresses[0]).unwrap();
    desk.open(&mut table).unwrap();
    write!(waiting, "GET /server_info HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    waiting.read_to_string(&mut answer).unwrap();
    assert!(answer.contains("INITIALIZING"), "{answer}");
    desk.close();
}
