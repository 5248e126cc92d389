//! The same cases, run: `calls.yaml` says what the proxy's own code decides for a connection and a request.

use std::net::SocketAddr;
use std::sync::Arc;

use mesh_api::text::Str;
use mesh_api_xds::ir::Resource;
use mesh_proxy_core::authz::predicate::Subject;
use mesh_proxy_core::authz::{Verdict, check_all};
use mesh_proxy_core::facts::{ConnFacts, Peer, RequestFacts, Transport};
use mesh_proxy_core::head::Head;
use mesh_proxy_core::plan::listener::{ChainPlan, FilterPlan, HttpPlan, ServePlan, TcpPlan};
use mesh_proxy_core::plan::route::{ActionPlan, DestinationPlan, RoutePlan};
use mesh_proxy_core::plan::{Delta, Plan};
use mesh_proxy_core::route::{Miss, select_route};
use mesh_proxy_core::trace::Silent;
use meshd_core::snapshot::Snapshot;
use meshd_core::translate::{Translator, Wanted};
use rand::SeedableRng;
use rand::rngs::StdRng;
use serde::Deserialize;

use crate::fixture::{Case, ProxySpec, read};
use crate::golden::resources;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Call {
    proxy: String,
    /// Destination of the connection: the original one, or the listener's.
    to: SocketAddr,
    #[serde(default = "client")]
    from: SocketAddr,
    /// Captured inbound, not outbound.
    #[serde(default)]
    inbound: bool,
    /// The connection's ClientHello.
    #[serde(default)]
    tls: Option<Hello>,
    /// The request; without one the connection is not HTTP.
    #[serde(default)]
    http: Option<Request>,
    expect: String,
}

fn client() -> SocketAddr {
    SocketAddr::from(([10, 1, 0, 50], 40000))
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Hello {
    sni: String,
    alpn: Vec<String>,
    /// The client certificate's identity.
    peer: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Request {
    host: String,
    #[serde(default = "root")]
    path: String,
    #[serde(default = "get")]
    method: String,
    #[serde(default)]
    headers: std::collections::BTreeMap<String, String>,
}

fn root() -> String {
    "/".to_owned()
}

fn get() -> String {
    "GET".to_owned()
}

/// The plan of a proxy. Nothing that the control plane makes may be refused by the proxy.
fn mk_plan(case: &Case, proxy: &ProxySpec, snapshot: &Snapshot) -> Plan {
    let translation = Translator::<Resource>::default().translate(snapshot, &proxy.view(), Wanted::all());
    let upserts = resources(&translation).iter().map(|resource| Resource::clone(resource)).collect();
    let (plan, rejected) = Plan::next(&Plan::empty(), &Delta { upserts, ..Delta::default() });
    assert!(rejected.is_empty(), "{}, {}: {rejected:#?}", case.name(), proxy.name);
    plan
}

#[test]
fn the_proxy_refuses_nothing() {
    for case in Case::all() {
        let snapshot = Snapshot::build(&case.world(), 1);
        for proxy in case.proxies.iter().filter(|proxy| proxy.flavor != "envoy") {
            mk_plan(&case, proxy, &snapshot);
        }
    }
}

#[test]
fn every_call_goes_where_it_should() {
    let mut failures = Vec::new();
    let mut count = 0;
    for case in Case::all() {
        let path = case.path.join("calls.yaml");
        if !path.exists() {
            continue;
        }
        let calls: Vec<Call> =
            serde_yaml_ng::from_str(&read(&path)).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let snapshot = Snapshot::build(&case.world(), 1);
        for call in calls {
            count += 1;
            let proxy = case.proxies.iter().find(|proxy| proxy.name == call.proxy);
            let proxy = proxy.unwrap_or_else(|| panic!("{}: no proxy {}", case.name(), call.proxy));
            let found = simulate(&mk_plan(&case, proxy, &snapshot), &call);
            if found != call.expect {
                failures.push(format!("{}: {call:?}\n  expected {}\n  found    {found}", case.name(), call.expect));
            }
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    assert!(count > 50, "only {count} calls");
}

/// What becomes of a call.
fn simulate(plan: &Plan, call: &Call) -> String {
    let facts = facts(call);
    let listener = if call.inbound { plan.listener("virtualInbound") } else { plan.hand_off(call.to) };
    let Some(listener) = listener.or_else(|| plan.listener("virtualOutbound")) else { return "refused".to_owned() };
    let Some(chain) = listener.select(&facts) else { return "closed: no chain".to_owned() };
    let mut plain = facts.clone();
    let peer = call.tls.as_ref().map(|hello| hello.peer.as_str()).filter(|peer| !peer.is_empty());
    if chain.tls.is_some() {
        let uris = peer.map(Str::from).into_iter().collect();
        plain.peer = peer.map(|_| Arc::new(Peer { uris, ..Peer::default() }));
    }
    let security = if chain.tls.is_some() { "tls " } else { "" };
    let subject = Subject::Connection(&plain);
    if let Verdict::Deny { policy } = check_all(chain.authz.iter(), &subject, &mut Silent) {
        return format!("{security}denied by {}", policy.as_deref().unwrap_or("no ALLOW policy"));
    }
    let outcome = match (&chain.serve, &call.http) {
        (ServePlan::Tcp(tcp), _) => format!("bytes to {}", tcp_clusters(tcp)),
        (ServePlan::Http(_), None) => "not HTTP".to_owned(),
        (ServePlan::Http(http), Some(request)) => answer(plan, chain, http, &plain, request),
    };
    format!("{security}{outcome}")
}

fn facts(call: &Call) -> ConnFacts {
    let mut facts = ConnFacts::new(call.from, call.to);
    match (&call.tls, &call.http) {
        (Some(hello), _) => {
            facts.transport = Transport::Tls;
            facts.server_name = (!hello.sni.is_empty()).then(|| Str::from(hello.sni.as_str()));
            facts.protocols = hello.alpn.iter().map(|word| Str::from(word.as_str())).collect();
        }
        (None, Some(_)) => facts.protocols.push(Str::from("http/1.1")),
        (None, None) => {}
    }
    facts
}

fn tcp_clusters(tcp: &TcpPlan) -> String {
    let shares = tcp.settings.clusters.iter();
    shares.map(|share| format!("{}={}", share.cluster, share.weight)).collect::<Vec<_>>().join(" ")
}

fn answer(plan: &Plan, chain: &ChainPlan, http: &HttpPlan, conn: &ConnFacts, request: &Request) -> String {
    let mut head = Head::request();
    head.set_method(request.method.as_bytes()).unwrap();
    head.set_target(request.path.as_bytes()).unwrap();
    head.set_scheme(if chain.tls.is_some() { b"https" } else { b"http" }).unwrap();
    head.set_authority(request.host.as_bytes()).unwrap();
    for (name, value) in &request.headers {
        head.append(name.as_str(), value.as_bytes()).unwrap();
    }
    let facts = RequestFacts { conn, client: conn.source };
    let sets = http.filters.iter().filter_map(|filter| match filter {
        FilterPlan::Authz(authz) => Some(authz),
        _ => None,
    });
    let subject = Subject::Request(facts, &head);
    if let Verdict::Deny { policy } = check_all(sets, &subject, &mut Silent) {
        return format!("denied by {}", policy.as_deref().unwrap_or("no ALLOW policy"));
    }
    let mut rng = StdRng::seed_from_u64(1);
    match select_route(plan, http, &head, &facts, &mut rng, &mut Silent) {
        Ok(selected) => format!("{} {}", selected.route.name, describe(plan, selected.route)).trim().to_owned(),
        Err(Miss::Host) => "404: no host".to_owned(),
        Err(Miss::Route) => "404: no route".to_owned(),
        Err(Miss::PlainHttp) => "redirect to https".to_owned(),
        Err(Miss::NotYet(name)) => format!("no routes {name}"),
    }
}

fn describe(plan: &Plan, route: &RoutePlan) -> String {
    match &route.action {
        ActionPlan::Redirect(redirect) => format!("redirect {}", redirect.status),
        ActionPlan::Direct(direct) => format!("answer {}", direct.status),
        ActionPlan::Forward(forward) => {
            let known = |name: &Str| if plan.cluster(name).is_some() { "" } else { " (missing)" };
            let to = match &forward.to {
                DestinationPlan::One(cluster) => format!("{}{}", cluster.name, known(&cluster.name)),
                DestinationPlan::Weighted { choices, .. } => choices
                    .iter()
                    .map(|choice| format!("{}={}{}", choice.cluster.name, choice.weight, known(&choice.cluster.name)))
                    .collect::<Vec<_>>()
                    .join(" "),
            };
            let timeout = forward.timeout.map(|time| format!(" in {}s", time.as_secs())).unwrap_or_default();
            format!("-> {to}{timeout}")
        }
    }
}
