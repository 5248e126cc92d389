//! Sharing, carrying over, cutting, and: the next plan is the plan built from nothing.

mod cut;
mod property;
mod share;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use mesh_api::text::Str;
use mesh_api_xds::ir::chain::{Chain, ChainMatch, Serve, TcpProxy, WeightedTcp};
use mesh_api_xds::ir::cluster::{
    Balance, Cluster, Discovery, Limits, ServiceRef, Transport, UpstreamHttp, UpstreamProtocol,
};
use mesh_api_xds::ir::endpoint::{self, Address, EndpointTls, Health, Locality, LocalityEndpoints, WorkloadRef};
use mesh_api_xds::ir::http::{
    Codec, Edge, EscapedSlashes, ForwardClientCert, HttpConnection, HttpLimits, PathPolicy, RouteSource, ServerHeader,
};
use mesh_api_xds::ir::listener::{Binding, Direction, Inspect, Listener, OriginalDst};
use mesh_api_xds::ir::route::{
    Action, Destination, Forward, HeaderEdits, PathMatch, PathRewrite, Route, RouteConfig, RouteHosts, RouteMatch,
    VirtualHost,
};
use mesh_api_xds::ir::{Origin, Resource};
use mesh_api_xds::type_url::TypeUrl;

use super::{Delta, Plan};

pub(crate) fn text(text: &str) -> Str {
    Str::from(text)
}

pub(crate) fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

pub(crate) fn mk_cluster(name: &str, discovery: Discovery) -> Cluster {
    Cluster {
        name: text(name),
        discovery,
        connect_timeout: Duration::from_secs(10),
        balance: Balance::LeastRequest,
        panic_percent: 0,
        outlier: None,
        limits: Limits::UNLIMITED,
        protocol: UpstreamProtocol::Http1,
        http: UpstreamHttp::default(),
        transport: Transport::Plaintext,
        keepalive: None,
        source_address: None,
        service: ServiceRef::default(),
        origin: Origin::default(),
    }
}

pub(crate) fn mk_endpoints(cluster: &str, endpoints: &[(&str, u32)]) -> endpoint::EndpointSet {
    let endpoint = |(at, weight): &(&str, u32)| endpoint::Endpoint {
        address: match at.parse() {
            Ok(socket) => Address::Socket(socket),
            Err(_) => Address::Name(text(at), 80),
        },
        weight: *weight,
        health: Health::Healthy,
        tls: EndpointTls::Disabled,
        workload: WorkloadRef::default(),
    };
    let endpoints = endpoints.iter().map(endpoint).collect();
    let group = LocalityEndpoints { locality: Locality::default(), priority: 0, weight: 0, endpoints };
    endpoint::EndpointSet { cluster: text(cluster), localities: [group].into() }
}

pub(crate) fn mk_forward(cluster: &str) -> Forward {
    Forward {
        to: Destination::Cluster(text(cluster)),
        timeout: None,
        max_grpc_timeout: None,
        retry: None,
        rewrite: PathRewrite::Keep,
        host_rewrite: None,
        mirrors: Arc::default(),
    }
}

pub(crate) fn mk_route(name: &str, path: PathMatch, action: Action) -> Route {
    Route {
        name: text(name),
        matches: RouteMatch { path, case_sensitive: true, headers: Arc::default(), query: Arc::default() },
        action,
        headers: HeaderEdits::default(),
        filters: Arc::default(),
        origin: Origin(text(&format!("VirtualService/shop/{name}"))),
    }
}

pub(crate) fn to_cluster(path: &str, cluster: &str) -> Route {
    mk_route(path, PathMatch::Prefix(text(path)), Action::Forward(mk_forward(cluster)))
}

pub(crate) fn mk_host(name: &str, domains: &[&str], routes: Vec<Route>) -> VirtualHost {
    VirtualHost {
        name: text(name),
        domains: domains.iter().map(|domain| text(domain)).collect(),
        routes: routes.into(),
        require_tls: false,
        attempt_count: false,
    }
}

pub(crate) fn mk_routes(name: &str, hosts: Vec<VirtualHost>) -> RouteConfig {
    let hosts = RouteHosts::Inline(hosts.into_iter().map(Arc::new).collect());
    RouteConfig { name: text(name), hosts, ignore_port: true }
}

pub(crate) fn mk_apart(name: &str) -> RouteConfig {
    RouteConfig { name: text(name), hosts: RouteHosts::Apart, ignore_port: true }
}

pub(crate) fn mk_http(routes: RouteSource) -> HttpConnection {
    HttpConnection {
        stat_prefix: text("x"),
        codec: Codec::Auto,
        routes,
        filters: Arc::default(),
        upgrades: Arc::default(),
        server_header: ServerHeader::PassThrough,
        edge: Edge::Internal,
        client_cert: ForwardClientCert::Sanitize,
        path: PathPolicy { normalize: true, merge_slashes: false, escaped_slashes: EscapedSlashes::Keep },
        limits: HttpLimits::default(),
        request_id: true,
        http10: false,
        tracing: None,
        access_logs: Arc::default(),
    }
}

pub(crate) fn mk_http_chain(name: &str, matches: ChainMatch, http: HttpConnection) -> Arc<Chain> {
    Arc::new(Chain { name: text(name), matches, tls: None, authz: Arc::default(), serve: Serve::Http(Arc::new(http)) })
}

pub(crate) fn mk_tcp_chain(name: &str, matches: ChainMatch, clusters: &[(&str, u32)]) -> Arc<Chain> {
    let weighted = |(cluster, weight): &(&str, u32)| WeightedTcp { cluster: text(cluster), weight: *weight };
    let tcp = TcpProxy {
        stat_prefix: text("x"),
        clusters: clusters.iter().map(weighted).collect(),
        idle_timeout: None,
        access_logs: Arc::default(),
        origin: Origin::default(),
    };
    Arc::new(Chain { name: text(name), matches, tls: None, authz: Arc::default(), serve: Serve::Tcp(Arc::new(tcp)) })
}

pub(crate) fn mk_listener(name: &str, at: &str, chains: Vec<Arc<Chain>>) -> Listener {
    Listener {
        name: text(name),
        address: address(at),
        additional_addresses: Arc::default(),
        binding: Binding::HandedOver,
        original_dst: OriginalDst::Ignore,
        direction: Direction::Outbound,
        inspect: Inspect::default(),
        chains: chains.into(),
        default_chain: None,
    }
}

pub(crate) fn upsert(resources: impl IntoIterator<Item = Resource>) -> Delta {
    Delta { upserts: resources.into_iter().collect(), ..Delta::default() }
}

pub(crate) fn remove(type_url: TypeUrl, name: &str) -> Delta {
    Delta { removals: vec![(type_url, text(name))], ..Delta::default() }
}

/// The next plan; nothing may be rejected.
#[track_caller]
pub(crate) fn next(plan: &Plan, delta: &Delta) -> Plan {
    let (plan, rejected) = Plan::next(plan, delta);
    assert_eq!(rejected, [], "{delta:?}");
    plan
}

/// Two clusters, a route configuration with virtual hosts apart, an inline one, and listeners for both.
pub(crate) fn sample() -> Plan {
    let named = |name| mk_http(RouteSource::Named(text(name)));
    next(
        &Plan::empty(),
        &upsert([
            Resource::Cluster(mk_cluster("a", Discovery::Eds)),
            Resource::Cluster(mk_cluster("b", Discovery::Eds)),
            Resource::Endpoints(mk_endpoints("a", &[("10.0.0.1:80", 1), ("10.0.0.2:80", 1)])),
            Resource::Endpoints(mk_endpoints("b", &[("10.0.1.1:80", 1)])),
            Resource::Routes(mk_apart("80")),
            Resource::VirtualHost(mk_host("80/a:80", &["a", "a.shop"], vec![to_cluster("/", "a")])),
            Resource::VirtualHost(mk_host("80/b:80", &["b"], vec![to_cluster("/x", "a"), to_cluster("/", "b")])),
            Resource::Routes(mk_routes("gw", vec![mk_host("all", &["*"], vec![to_cluster("/", "b")])])),
            Resource::Listener(mk_listener(
                "80",
                "0.0.0.0:80",
                vec![mk_http_chain("http", ChainMatch::default(), named("80"))],
            )),
            Resource::Listener(mk_listener(
                "gw",
                "10.0.9.9:8080",
                vec![mk_http_chain("http", ChainMatch::default(), named("gw"))],
            )),
        ]),
    )
}

#[test]
fn a_plan_is_shared_by_threads() {
    fn shared<T: Send + Sync>(_: &T) {}
    shared(&Plan::empty());
}

#[test]
fn captured_connections_find_the_exact_then_the_wildcard_address() {
    let mut off = mk_listener("virtualOutbound", "0.0.0.0:15001", vec![]);
    off.original_dst = OriginalDst::HandOff;
    let plan =
        next(&sample(), &upsert([Resource::Listener(off), Resource::Listener(mk_listener("v6", "[::]:81", vec![]))]));
    let check = |destination: &str, expect: Option<&str>| {
        let found = plan.hand_off(address(destination)).map(|listener| listener.name.as_str());
        assert_eq!(found, expect, "{destination}");
    };
    check("10.0.9.9:8080", Some("gw"));
    check("10.0.9.8:8080", None);
    check("10.0.9.8:80", Some("80"));
    check("[::ffff:10.0.9.8]:80", Some("80"));
    check("[fd00::1]:80", None);
    check("[fd00::1]:81", Some("v6"));
    check("10.0.0.1:81", Some("v6"));
    check("10.0.0.1:15001", None);
}

#[test]
fn names_are_resolved_by_the_shell_and_come_back_as_endpoints() {
    let dns = |endpoints: &[(&str, u32)], refresh| Discovery::Dns {
        endpoints: Arc::new(mk_endpoints("d", endpoints)),
        refresh: Duration::from_secs(refresh),
    };
    let plan = next(
        &Plan::empty(),
        &upsert([
            Resource::Cluster(mk_cluster("d", dns(&[("db.example", 1)], 60))),
            Resource::Cluster(mk_cluster("e", dns(&[("db.example", 1), ("other", 1)], 5))),
        ]),
    );
    let refresh = Duration::from_secs(5);
    assert_eq!(plan.names_to_resolve(), [(text("db.example"), refresh), (text("other"), refresh)].into());
    assert!(plan.cluster("d").unwrap().endpoints().is_none());
    let resolved = |ips: &[[u8; 4]]| Delta {
        resolved: vec![(text("db.example"), ips.iter().map(|&ip| ip.into()).collect())],
        ..Delta::default()
    };
    let all = |plan: &Plan, name: &str| {
        plan.cluster(name).unwrap().all().iter().map(|e| e.address.to_string()).collect::<Vec<_>>()
    };
    let once = next(&plan, &resolved(&[[10, 0, 0, 2], [10, 0, 0, 1]]));
    assert_eq!(all(&once, "d"), ["10.0.0.1:80", "10.0.0.2:80"]);
    assert_eq!(all(&once, "e"), ["10.0.0.1:80", "10.0.0.2:80"]);
    let twice = next(&once, &resolved(&[[10, 0, 0, 1]]));
    assert_eq!(all(&twice, "d"), ["10.0.0.1:80"]);
    assert!(Arc::ptr_eq(&once.cluster("d").unwrap().all()[0], &twice.cluster("d").unwrap().all()[0]));
    assert!(next(&twice, &resolved(&[])).cluster("d").unwrap().endpoints().is_none());
}

/// A mesh has thousands of each; what one costs is decided here, not discovered later. Bytes without what they point to.
#[test]
fn what_a_mesh_has_thousands_of_stays_small() {
    let sizes = [
        ("route", size_of::<super::route::RoutePlan>(), 448),
        ("virtual host", size_of::<super::routes::HostPlan>(), 144),
        ("cluster", size_of::<super::cluster::ClusterPlan>() + size_of::<Cluster>(), 368),
        ("cluster's counters", size_of::<super::cluster::ClusterState>(), 80),
        ("endpoint", size_of::<crate::endpoint::Endpoint>() + size_of::<crate::endpoint::Live>(), 256),
    ];
    for (what, bytes, budget) in sizes {
        assert!(bytes <= budget, "{what}: {bytes} bytes of {budget}");
    }
}

#[test]
fn a_stage_mask_holds_what_filters_and_routes_need() {
    use crate::filter::Needs;
    use crate::plan::listener::ServePlan;
    use mesh_api_xds::ir::filter::{AbortStatus, Cors, Fault, FaultAbort, HttpFilter, RouteFilter};
    let abort = FaultAbort { share: mesh_api_xds::ir::PerMillion::ALL, status: AbortStatus::Http(503) };
    let fault = RouteFilter::Fault(Fault { delay: None, abort: Some(abort) });
    let cors = RouteFilter::Cors(Cors {
        origins: Arc::default(),
        methods: text(""),
        headers: text(""),
        expose: text(""),
        max_age: None,
        credentials: false,
        forward_unmatched: true,
    });
    let needs = |chain: &[HttpFilter], route: &[RouteFilter]| {
        let mut configured = to_cluster("/", "a");
        configured.filters = route.to_vec().into();
        let mut http = mk_http(RouteSource::Named(text("r")));
        http.filters = chain.to_vec().into();
        let chain = mk_http_chain("http", ChainMatch::default(), http);
        let plan = next(
            &Plan::empty(),
            &upsert([
                Resource::Routes(mk_routes("r", vec![mk_host("h", &["*"], vec![configured])])),
                Resource::Listener(mk_listener("l", "0.0.0.0:1", vec![chain])),
            ]),
        );
        let ServePlan::Http(http) = &plan.listener("l").unwrap().chain("http").unwrap().serve else { panic!("http") };
        http.needs(&plan.routes("r").unwrap().hosts()[0].routes()[0])
    };
    let both = Needs::REQUEST_HEAD.union(Needs::RESPONSE_HEAD);
    assert_eq!(needs(&[], &[]), Needs::NONE);
    assert_eq!(needs(&[HttpFilter::Alpn], &[]), Needs::REQUEST_HEAD);
    assert_eq!(needs(&[HttpFilter::Fault, HttpFilter::Cors], &[]), Needs::NONE);
    assert_eq!(needs(&[HttpFilter::Fault, HttpFilter::Cors], std::slice::from_ref(&fault)), Needs::REQUEST_HEAD);
    assert_eq!(needs(&[HttpFilter::Fault], std::slice::from_ref(&cors)), Needs::NONE);
    assert_eq!(needs(&[HttpFilter::Fault, HttpFilter::Cors], std::slice::from_ref(&cors)), both);
    assert_eq!(needs(&[HttpFilter::Fault], &[fault, cors]), Needs::REQUEST_HEAD);
    assert!(!both.contains(Needs::REQUEST_BODY) && both.contains(Needs::RESPONSE_HEAD));
}
