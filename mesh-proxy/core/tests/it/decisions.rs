//! A warm worker decides without allocating: chain, path, policies, route, edits, endpoint, limits, retry, health.

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use mesh_api::text::Str;
use mesh_api_xds::ir::authz::{Authz, AuthzAction, AuthzPolicy, Predicate};
use mesh_api_xds::ir::chain::{Chain, ChainMatch, Serve, TransportMatch};
use mesh_api_xds::ir::cluster::{
    Balance, Cluster, Discovery, Limits, Outlier, ServiceRef, Transport as UpstreamTransport, UpstreamHttp,
    UpstreamProtocol,
};
use mesh_api_xds::ir::endpoint::{
    Address, Endpoint, EndpointSet, EndpointTls, Health, Locality, LocalityEndpoints, WorkloadRef,
};
use mesh_api_xds::ir::filter::HttpFilter;
use mesh_api_xds::ir::http::{
    CertDetails, Codec, Edge, EscapedSlashes, ForwardClientCert, HttpConnection, HttpLimits, PathPolicy, RouteSource,
    ServerHeader,
};
use mesh_api_xds::ir::listener::{Binding, Direction, Inspect, Listener, OriginalDst};
use mesh_api_xds::ir::matcher::{HeaderMatch, StringMatch, StringPattern, ValueTest};
use mesh_api_xds::ir::route::{
    Action, Destination, Edits, Forward, HeaderEdits, PathMatch, PathRewrite, RetryOn, RetryPolicy, RetrySafety, Route,
    RouteConfig, RouteHosts, RouteMatch, VirtualHost, WeightedCluster,
};
use mesh_api_xds::ir::{Origin, Resource};
use mesh_proxy_core::authz::Verdict;
use mesh_proxy_core::authz::predicate::Subject;
use mesh_proxy_core::endpoint::InFlight;
use mesh_proxy_core::facts::{ConnFacts, Peer, RequestFacts, Transport};
use mesh_proxy_core::fault::{Fault, FaultKind};
use mesh_proxy_core::filter::format::Context;
use mesh_proxy_core::filter::{Flow, forwarded, normalize, request_id};
use mesh_proxy_core::head::Head;
use mesh_proxy_core::health::outlier::{self, Seen};
use mesh_proxy_core::plan::listener::{FilterPlan, ServePlan};
use mesh_proxy_core::plan::{Delta, Plan};
use mesh_proxy_core::retry::policy::{Attempt, Decision, Outcome, decide, is_idempotent};
use mesh_proxy_core::route::select_route;
use mesh_proxy_core::trace::Silent;
use rand::SeedableRng;
use rand::rngs::StdRng;

use crate::counting::allocations;

fn text(text: &str) -> Str {
    Str::from(text)
}

#[expect(
    clippy::disallowed_methods,
    reason = "std offers no other way to an Instant; it is read once and never compared with the clock"
)]
fn t0() -> Instant {
    static T0: OnceLock<Instant> = OnceLock::new();
    *T0.get_or_init(Instant::now)
}

fn mk_cluster(name: &str, balance: Balance) -> Cluster {
    let endpoint = |n: u8| Endpoint {
        address: Address::Socket(SocketAddr::from(([10, 0, 0, n], 9080))),
        weight: u32::from(n),
        health: Health::Healthy,
        tls: EndpointTls::Istio,
        workload: WorkloadRef::default(),
    };
    let endpoints = (1..9).map(endpoint).collect();
    let group = LocalityEndpoints { locality: Locality::default(), priority: 0, weight: 0, endpoints };
    let set = EndpointSet { cluster: text(name), localities: [group].into() };
    let outlier = Outlier {
        consecutive_5xx: 5,
        consecutive_gateway: 0,
        consecutive_local: 5,
        split_local: false,
        interval: Duration::from_secs(10),
        base_ejection: Duration::from_secs(30),
        max_ejection: Duration::from_secs(300),
        max_ejection_percent: 50,
    };
    Cluster {
        name: text(name),
        discovery: Discovery::Static(Arc::new(set)),
        connect_timeout: Duration::from_secs(10),
        balance,
        panic_percent: 0,
        outlier: Some(outlier),
        limits: Limits::UNLIMITED,
        protocol: UpstreamProtocol::Http1,
        http: UpstreamHttp::default(),
        transport: UpstreamTransport::Plaintext,
        keepalive: None,
        source_address: None,
        service: ServiceRef::default(),
        origin: Origin::default(),
    }
}

fn mk_route(n: usize, path: PathMatch) -> Route {
    let choice =
        |cluster: &str, weight| WeightedCluster { cluster: text(cluster), weight, headers: HeaderEdits::default() };
    let retry = RetryPolicy {
        on: RetryOn::CONNECT_FAILURE,
        attempts: 2,
        per_try_timeout: Some(Duration::from_secs(1)),
        statuses: [503].into(),
        avoid_previous: true,
        backoff: Duration::from_millis(25),
        safety: RetrySafety::Safe,
        origin: Origin::default(),
    };
    let forward = Forward {
        to: Destination::Weighted([choice("least", 2), choice("turns", 1), choice("random", 1)].into()),
        timeout: Some(Duration::from_secs(15)),
        max_grpc_timeout: None,
        retry: Some(Arc::new(retry)),
        rewrite: PathRewrite::Prefix(text("/rewritten/")),
        host_rewrite: None,
        mirrors: Arc::default(),
    };
    let test = ValueTest::Matches(StringMatch::new(StringPattern::Regex(text("v[0-9]+"))));
    let header = HeaderMatch { name: text("x-version"), test, invert: false, missing_is_empty: false };
    let set = [(text("x-client"), text("%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT% %REQ(user-agent)%"))].into();
    Route {
        name: text(&n.to_string()),
        matches: RouteMatch { path, case_sensitive: true, headers: [header].into(), query: Arc::default() },
        action: Action::Forward(forward),
        headers: HeaderEdits { request: Edits { set, ..Edits::default() }, response: Edits::default() },
        filters: Arc::default(),
        origin: Origin::default(),
    }
}

/// A sidecar's inbound chain with a policy, over fifty virtual hosts with a hundred routes each.
fn mk_plan() -> Plan {
    let host = |n: usize| {
        let routes = (0..100).map(|m| mk_route(m, PathMatch::Prefix(text(&format!("/api/{m:02}/"))))).collect();
        let domains = [text(&format!("h{n}.shop")), text(&format!("*.h{n}.shop"))].into();
        Arc::new(VirtualHost { name: text(&n.to_string()), domains, routes, require_tls: false, attempt_count: true })
    };
    let routes =
        RouteConfig { name: text("80"), hosts: RouteHosts::Inline((0..50).map(host).collect()), ignore_port: true };
    let who = Predicate::PeerIdentity(StringMatch::new(StringPattern::Prefix(text("spiffe://td/ns/shop/"))));
    let what = Predicate::Path(StringMatch::new(StringPattern::Prefix(text("/api/"))));
    let policy = AuthzPolicy { name: text("p"), permission: what, principal: who };
    let http = HttpConnection {
        stat_prefix: text("x"),
        codec: Codec::Auto,
        routes: RouteSource::Named(text("80")),
        filters: [HttpFilter::Authz(Authz { action: AuthzAction::Allow, policies: [policy].into() })].into(),
        upgrades: Arc::default(),
        server_header: ServerHeader::PassThrough,
        edge: Edge::Internal,
        client_cert: ForwardClientCert::AppendForward(CertDetails { subject: true, uri: true, dns: true, cert: false }),
        path: PathPolicy { normalize: true, merge_slashes: true, escaped_slashes: EscapedSlashes::Keep },
        limits: HttpLimits::default(),
        request_id: true,
        http10: false,
        tracing: None,
        access_logs: Arc::default(),
    };
    let matches = ChainMatch {
        destination_port: Some(80),
        transport: TransportMatch::Tls,
        application_protocols: [text("istio-http/1.1")].into(),
        ..ChainMatch::default()
    };
    let chain =
        Chain { name: text("in"), matches, tls: None, authz: Arc::default(), serve: Serve::Http(Arc::new(http)) };
    let listener = Listener {
        name: text("virtualInbound"),
        address: SocketAddr::from(([0, 0, 0, 0], 15006)),
        additional_addresses: Arc::default(),
        binding: Binding::Socket,
        original_dst: OriginalDst::Recover,
        direction: Direction::Inbound,
        inspect: Inspect::default(),
        chains: [Arc::new(chain)].into(),
        default_chain: None,
    };
    let clusters = [("least", Balance::LeastRequest), ("turns", Balance::RoundRobin), ("random", Balance::Random)];
    let mut upserts = clusters.map(|(name, balance)| Resource::Cluster(mk_cluster(name, balance))).to_vec();
    upserts.extend([Resource::Routes(routes), Resource::Listener(listener)]);
    let (plan, rejected) = Plan::next(&Plan::empty(), &Delta { upserts, ..Delta::default() });
    assert_eq!(rejected, []);
    plan
}

fn mk_conn() -> ConnFacts {
    let address = |n, port| SocketAddr::from(([10, 0, 1, n], port));
    let mut conn = ConnFacts::new(address(1, 4000), address(2, 80));
    conn.transport = Transport::Tls;
    conn.protocols = [text("istio-http/1.1"), text("istio")].into();
    let uris = vec![text("spiffe://td/ns/shop/sa/web")];
    conn.peer = Some(Arc::new(Peer { uris, sha256: text("ab"), subject: text("CN=web"), ..Peer::default() }));
    conn.local_identity = Some(text("spiffe://td/ns/shop/sa/api"));
    conn
}

fn fill(head: &mut Head) {
    head.clear();
    head.set_method(b"GET").unwrap();
    head.set_target(b"/api//77/./items/%41?q=1").unwrap();
    head.set_authority(b"Www.H42.Shop:8080").unwrap();
    head.append("user-agent", b"curl/8").unwrap();
    head.append("x-version", b"v12").unwrap();
    head.append("x-forwarded-for", b"192.0.2.7").unwrap();
}

/// Everything that is decided for one request that fails to connect once.
fn decide_all(plan: &Plan, conn: &ConnFacts, head: &mut Head, rng: &mut StdRng) {
    fill(head);
    let chain = plan.listener("virtualInbound").unwrap().select(conn).unwrap();
    let ServePlan::Http(http) = &chain.serve else { panic!("http") };
    let settings = &http.settings;
    assert_eq!(normalize::normalize(&settings.path, head), Ok(Flow::Continue));
    let client = forwarded::apply(settings.edge, conn, head).unwrap();
    forwarded::client_cert(settings.client_cert, conn, head).unwrap();
    request_id::apply(settings.edge, settings.request_id, settings.tracing.as_ref(), head, rng).unwrap();
    let facts = RequestFacts { conn, client };
    for filter in &http.filters {
        let FilterPlan::Authz(authz) = filter else { panic!("authz") };
        assert_eq!(authz.check(&Subject::Request(facts, head), &mut Silent), Verdict::Allow);
    }
    let selected = select_route(plan, http, head, &facts, rng, &mut Silent).unwrap();
    assert_eq!((selected.host.name.as_str(), selected.route.name.as_str()), ("42", "77"));
    assert_eq!(selected.timeouts(head).whole, Some(Duration::from_secs(15)));
    let destination = selected.destination.unwrap();
    let cluster = destination.cluster.unwrap();
    let context = Context {
        facts,
        route: &selected.route.name,
        cluster: &destination.reference.name,
        upstream: None,
        start_time: std::time::SystemTime::UNIX_EPOCH,
    };
    selected.route.headers.request.apply_request(head, &context).unwrap();
    destination.forward.rewrite.apply(head).unwrap();

    let now = t0();
    let _request = cluster.state.circuit.request(&cluster.settings.limits).unwrap();
    let first = InFlight::new(cluster.pick(rng, &[], now).unwrap());
    assert_eq!(outlier::report(cluster, first.endpoint(), Seen::ConnectFailed, now), None);
    let fault = Fault::new(FaultKind::ConnectFailed);
    let attempt = Attempt {
        retries: 0,
        idempotent: is_idempotent(head.method()),
        bytes_sent: false,
        replayable: true,
        reused_connection: false,
        time_left: None,
    };
    let again = decide(selected.retry().map(|retry| &**retry), &Outcome::Failed(&fault), &attempt, rng);
    assert!(matches!(again, Decision::Again { counts: true, .. }));
    let _retry = cluster.state.circuit.retry(&cluster.settings.limits).unwrap();
    let second = InFlight::new(cluster.pick(rng, &[first.endpoint().id()], now).unwrap());
    assert_ne!(first.endpoint().id(), second.endpoint().id());
    for endpoint in [first.endpoint(), second.endpoint()] {
        assert_eq!(outlier::report(cluster, endpoint, Seen::Status(200), now), None);
    }
}

#[test]
fn a_thousand_warm_decisions_allocate_nothing() {
    let (plan, conn, mut head) = (mk_plan(), mk_conn(), Head::request());
    let mut rng = StdRng::seed_from_u64(1);
    decide_all(&plan, &conn, &mut head, &mut rng);
    assert_eq!(head.target(), b"/rewritten/items/A?q=1");
    assert_eq!(head.get("x-client"), Some(&b"192.0.2.7 curl/8"[..]));
    let count = allocations(|| (0..1_000).for_each(|_| decide_all(&plan, &conn, &mut head, &mut rng)));
    assert_eq!(count, 0);
}
