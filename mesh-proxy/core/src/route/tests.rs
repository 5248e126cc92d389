//! Hosts, routes, destinations and timeouts by examples; indexed == linear over random tables.

use std::collections::BTreeMap;

use mesh_api::text::Str;
use mesh_api_xds::ir::chain::ChainMatch;
use mesh_api_xds::ir::cluster::Discovery;
use mesh_api_xds::ir::http::RouteSource;
use mesh_api_xds::ir::matcher::{HeaderMatch, QueryMatch, StringMatch, StringPattern, ValueTest};
use mesh_api_xds::ir::route::{
    self as ir, Action, Forward, HeaderEdits, PathMatch, RetryOn, RetryPolicy, RetrySafety, Route, VirtualHost,
    WeightedCluster,
};
use mesh_api_xds::ir::{Origin, Resource};
use proptest::prelude::*;

use super::*;
use crate::facts::ConnFacts;
use crate::plan::listener::ServePlan;
use crate::plan::tests::{
    address, mk_cluster, mk_forward, mk_host, mk_http, mk_http_chain, mk_listener, mk_route, mk_routes, next, text,
    to_cluster, upsert,
};
use crate::testing::rng;
use crate::trace::{Recorder, Silent};

/// A plan with one listener whose routes are these, not ignoring ports when told.
fn mk_plan(hosts: Vec<VirtualHost>, ignore_port: bool) -> Plan {
    let mut routes = mk_routes("r", hosts);
    routes.ignore_port = ignore_port;
    let chain = mk_http_chain("http", ChainMatch::default(), mk_http(RouteSource::Named(text("r"))));
    let listener = mk_listener("l", "0.0.0.0:80", vec![chain]);
    let clusters = ["a", "b", "c"].map(|name| Resource::Cluster(mk_cluster(name, Discovery::Eds)));
    next(&Plan::empty(), &upsert(clusters.into_iter().chain([Resource::Routes(routes), Resource::Listener(listener)])))
}

fn http(plan: &Plan) -> &HttpPlan {
    match &plan.listener("l").unwrap().chain("http").unwrap().serve {
        ServePlan::Http(http) => http,
        ServePlan::Tcp(_) => panic!("http"),
    }
}

fn mk_conn() -> ConnFacts {
    ConnFacts::new(address("10.9.9.9:1"), address("10.0.0.1:80"))
}

fn mk_head(host: &str, target: &str, fields: &[(&str, &str)]) -> Head {
    let mut head = Head::request();
    head.set_authority(host.as_bytes()).unwrap();
    head.set_target(target.as_bytes()).unwrap();
    for (name, value) in fields {
        head.append(*name, value.as_bytes()).unwrap();
    }
    head
}

/// Name of the route, or the miss, both by index and by rule.
#[track_caller]
fn select(plan: &Plan, head: &Head) -> String {
    let conn = mk_conn();
    let facts = RequestFacts::direct(&conn);
    let say = |selected: Result<Selected<'_>, Miss<'_>>| match selected {
        Ok(selected) => format!("{}{}", selected.host.name, selected.route.name),
        Err(miss) => format!("{miss:?}"),
    };
    let indexed = say(select_route(plan, http(plan), head, &facts, &mut rng(1), &mut Silent));
    let linear = say(select_route(plan, http(plan), head, &facts, &mut rng(1), &mut Recorder::default()));
    assert_eq!(indexed, linear, "{head:?}");
    indexed
}

#[test]
fn the_most_specific_domain_wins() {
    let host = |domains: &[&str]| mk_host(domains[0], domains, vec![to_cluster("/", "a")]);
    let hosts = || {
        vec![host(&["*"]), host(&["*.io"]), host(&["*.a.io"]), host(&["www.a.io"]), host(&["web.*"]), host(&["p:81"])]
    };
    let plan = mk_plan(hosts(), true);
    let check = |plan: &Plan, authority: &str, expect: &str| {
        assert_eq!(select(plan, &mk_head(authority, "/", &[])), format!("{expect}/"), "{authority}");
    };
    check(&plan, "www.a.io", "www.a.io");
    check(&plan, "WWW.A.io:8080", "www.a.io");
    check(&plan, "x.a.io", "*.a.io");
    check(&plan, "a.io", "*.io");
    check(&plan, "web.io", "*.io");
    check(&plan, "web.shop", "web.*");
    check(&plan, "other", "*");
    check(&plan, "p:81", "*");
    let plan = mk_plan(hosts(), false);
    check(&plan, "p:81", "p:81");
    check(&plan, "www.a.io:8080", "*");
    let plan = mk_plan(vec![host(&["x"])], true);
    assert_eq!(select(&plan, &mk_head("y", "/", &[])), "Host");
}

#[test]
fn in_a_virtual_host_the_first_match_wins() {
    let header = |name: &str, value: &str| HeaderMatch {
        name: text(name),
        test: ValueTest::Matches(StringMatch::exact(value)),
        invert: false,
        missing_is_empty: false,
    };
    let mut jason = mk_route("jason", PathMatch::Prefix(text("/reviews")), Action::Forward(mk_forward("a")));
    jason.matches.headers = [header("end-user", "jason")].into();
    let mut paged = mk_route("paged", PathMatch::Prefix(text("/reviews")), Action::Forward(mk_forward("a")));
    let test = ValueTest::Matches(StringMatch::new(StringPattern::Regex(text("[0-9]+"))));
    paged.matches.query = [QueryMatch { name: text("page"), test }].into();
    let mut loud = mk_route("loud", PathMatch::Exact(text("/LOUD")), Action::Forward(mk_forward("a")));
    loud.matches.case_sensitive = false;
    let regex = mk_route("regex", PathMatch::Regex(text("/v[0-9]/.*")), Action::Forward(mk_forward("a")));
    let exact = mk_route("exact", PathMatch::Exact(text("/reviews/1")), Action::Forward(mk_forward("a")));
    let plain = mk_route("plain", PathMatch::SeparatedPrefix(text("/reviews")), Action::Forward(mk_forward("a")));
    let plan = mk_plan(vec![mk_host("", &["*"], vec![jason, paged, exact, regex, plain, loud])], true);
    let check = |target: &str, fields: &[(&str, &str)], expect: &str| {
        assert_eq!(select(&plan, &mk_head("x", target, fields)), expect, "{target}");
    };
    check("/reviews/1", &[("end-user", "jason")], "jason");
    check("/reviews/1?page=7", &[], "paged");
    check("/reviews/1?page=x", &[], "exact");
    check("/reviews/2", &[("end-user", "other")], "plain");
    check("/reviewsx", &[], "Route");
    check("/v2/x", &[], "regex");
    check("/loud", &[], "loud");
    check("/", &[], "Route");
}

#[test]
fn what_has_not_arrived_is_told_from_what_does_not_match() {
    let chain = mk_http_chain("http", ChainMatch::default(), mk_http(RouteSource::Named(text("late"))));
    let plan = next(&Plan::empty(), &upsert([Resource::Listener(mk_listener("l", "0.0.0.0:80", vec![chain]))]));
    assert_eq!(select(&plan, &mk_head("x", "/", &[])), "NotYet(\"late\")");

    let plan = mk_plan(vec![mk_host("h", &["*"], vec![to_cluster("/", "nowhere")])], true);
    let conn = mk_conn();
    let selected = select_route(
        &plan,
        http(&plan),
        &mk_head("x", "/", &[]),
        &RequestFacts::direct(&conn),
        &mut rng(1),
        &mut Silent,
    );
    let destination = selected.unwrap().destination.unwrap();
    assert_eq!((destination.reference.name.as_str(), destination.cluster.is_none()), ("nowhere", true));
}

#[test]
fn a_host_that_wants_tls_turns_plain_http_away() {
    let mut host = mk_host("h", &["*"], vec![to_cluster("/", "a")]);
    host.require_tls = true;
    let plan = mk_plan(vec![host], true);
    assert_eq!(select(&plan, &mk_head("x", "/", &[])), "PlainHttp");
    assert_eq!(select(&plan, &mk_head("x", "/", &[("x-forwarded-proto", "http")])), "PlainHttp");
    assert_eq!(select(&plan, &mk_head("x", "/", &[("x-forwarded-proto", "https")])), "h/");
}

#[test]
fn weighted_destinations_are_drawn_by_weight() {
    let choice =
        |cluster: &str, weight| WeightedCluster { cluster: text(cluster), weight, headers: HeaderEdits::default() };
    let weighted = ir::Destination::Weighted([choice("a", 90), choice("c", 0), choice("b", 10)].into());
    let route =
        mk_route("w", PathMatch::Prefix(text("/")), Action::Forward(Forward { to: weighted, ..mk_forward("") }));
    let plan = mk_plan(vec![mk_host("h", &["*"], vec![route])], true);
    let (conn, head, mut rng) = (mk_conn(), mk_head("x", "/", &[]), rng(9));
    let mut shares = BTreeMap::<Str, u32>::new();
    for _ in 0..10_000 {
        let selected =
            select_route(&plan, http(&plan), &head, &RequestFacts::direct(&conn), &mut rng, &mut Silent).unwrap();
        let destination = selected.destination.unwrap();
        assert_eq!(destination.cluster.unwrap().settings.name, destination.reference.name);
        *shares.entry(destination.reference.name.clone()).or_default() += 1;
    }
    // Four standard deviations of a binomial of 10,000 and 10 %.
    assert!((880..=1_120).contains(&shares[&text("b")]) && shares.len() == 2, "{shares:?}");
}

#[test]
fn timeouts_come_from_the_route_or_from_headers() {
    let seconds = Duration::from_secs;
    let retry = |per_try| RetryPolicy {
        on: RetryOn::default(),
        attempts: 2,
        per_try_timeout: per_try,
        statuses: Default::default(),
        avoid_previous: true,
        backoff: Duration::from_millis(25),
        safety: RetrySafety::Safe,
        origin: Origin::default(),
    };
    let check = |timeout, max_grpc_timeout, per_try, fields: &[(&str, &str)], whole, per_try_expected| {
        let forward = Forward { timeout, max_grpc_timeout, retry: Some(Arc::new(retry(per_try))), ..mk_forward("a") };
        let route = mk_route("", PathMatch::Prefix(text("/")), Action::Forward(forward));
        let plan = mk_plan(vec![mk_host("h", &["*"], vec![route])], true);
        let (conn, mut head) = (mk_conn(), mk_head("x", "/", fields));
        head.append("content-type", b"application/grpc+proto").unwrap();
        let selected =
            select_route(&plan, http(&plan), &head, &RequestFacts::direct(&conn), &mut rng(1), &mut Silent).unwrap();
        assert_eq!(selected.timeouts(&head), Timeouts { whole, per_try: per_try_expected }, "{fields:?}");
    };
    let some = |n| Some(seconds(n));
    check(None, None, None, &[], None, None);
    check(some(0), None, some(0), &[], None, None);
    check(some(10), None, some(2), &[], some(10), some(2));
    check(some(2), None, some(2), &[], some(2), None);
    check(some(10), None, None, &[("grpc-timeout", "1S")], some(10), None);
    check(some(10), some(0), None, &[("grpc-timeout", "1M")], some(60), None);
    check(some(10), some(5), None, &[("grpc-timeout", "1H")], some(5), None);
    check(some(10), some(5), None, &[("grpc-timeout", "1x")], some(10), None);
    check(some(10), some(5), None, &[("grpc-timeout", "123456789S")], some(10), None);
    check(some(10), None, some(2), &[("x-envoy-upstream-rq-timeout-ms", "3000")], some(3), some(2));
    check(some(10), None, some(2), &[("x-envoy-upstream-rq-per-try-timeout-ms", "1000")], some(10), some(1));
    check(some(10), None, None, &[("x-envoy-upstream-rq-timeout-ms", "junk")], some(10), None);
}

#[test]
fn the_trace_says_why_each_candidate_lost() {
    let plan = mk_plan(
        vec![mk_host("h", &["*.io", "*"], vec![to_cluster("/x", "a"), to_cluster("/", "a"), to_cluster("/y", "a")])],
        true,
    );
    let mut recorder = Recorder::default();
    let conn = mk_conn();
    let _ = select_route(
        &plan,
        http(&plan),
        &mk_head("a.io", "/y", &[]),
        &RequestFacts::direct(&conn),
        &mut rng(1),
        &mut recorder,
    );
    let domain = |domain, lost| format!("{:?}", Step::Domain { host: "h", domain, lost });
    let route = |position, name, lost| format!("{:?}", Step::Route { position, name, lost });
    assert_eq!(
        recorder.lines,
        [
            domain("*.io", None),
            domain("*", Some(DomainLost::LessSpecific)),
            route(0, "/x", Some(RouteLost::Path)),
            route(1, "/", None),
            route(2, "/y", Some(RouteLost::Later)),
        ]
    );
}

fn any_route() -> impl Strategy<Value = Route> {
    let path = prop_oneof![
        3 => "(/[ab]{0,2}){1,2}".prop_map(|t| PathMatch::Prefix(text(&t))),
        2 => "(/[ab]{1,2}){1,2}".prop_map(|t| PathMatch::SeparatedPrefix(text(&t))),
        2 => "(/[ab]{0,2}){1,2}".prop_map(|t| PathMatch::Exact(text(&t))),
        1 => "(/[ab]{0,2}){1,2}".prop_map(|t| PathMatch::Regex(text(&format!("{t}.?")))),
    ];
    let header =
        prop::option::of((prop::sample::select(&["x", "y", ":method"][..]), "[12]?", any::<bool>(), any::<bool>()));
    let query = prop::option::of((prop::sample::select(&["p", "q"][..]), prop::option::of("[12]?")));
    let value = |value: Option<String>| {
        value.map_or(ValueTest::Present, |value| ValueTest::Matches(StringMatch::exact(&value)))
    };
    (path, any::<bool>(), header, query).prop_map(move |(path, case_sensitive, header, query)| {
        let mut route = mk_route("", path, Action::Forward(mk_forward("a")));
        route.matches.case_sensitive = case_sensitive;
        let header = header.map(|(name, exact, invert, missing_is_empty)| HeaderMatch {
            name: text(name),
            test: value(Some(exact)),
            invert,
            missing_is_empty,
        });
        route.matches.headers = header.into_iter().collect();
        let query = query.map(|(name, exact)| QueryMatch { name: text(name), test: value(exact) });
        route.matches.query = query.into_iter().collect();
        route
    })
}

fn any_host() -> impl Strategy<Value = VirtualHost> {
    let domains = prop::sample::subsequence(vec!["a.io", "*.io", "*.a.io", "web.*", "*", "B.io", "a.io:81"], 1..4);
    (domains, prop::collection::vec(any_route(), 0..10)).prop_map(|(domains, mut routes)| {
        for (position, route) in routes.iter_mut().enumerate() {
            route.name = text(&position.to_string());
        }
        mk_host("", &domains, routes)
    })
}

fn any_head() -> impl Strategy<Value = Head> {
    let host = prop::sample::select(&["a.io", "b.a.io", "A.IO:81", "web.x", "b.io", "x:1", "[::1]:80"][..]);
    let target = ("(/[abAB]{0,2}){1,3}", prop::option::of("([pq](=[12])?&?){0,2}"));
    let fields = prop::collection::vec((prop::sample::select(&["x", "y"][..]), "[12]?"), 0..3);
    (host, target, fields).prop_map(|(host, (path, query), fields)| {
        let target = query.map_or_else(|| path.clone(), |query| format!("{path}?{query}"));
        let fields: Vec<_> = fields.iter().map(|(name, value)| (*name, value.as_str())).collect();
        mk_head(host, &target, &fields)
    })
}

proptest! {
    #[test]
    fn the_index_is_the_rule(hosts in prop::collection::vec(any_host(), 0..5), ignore_port: bool, heads in prop::collection::vec(any_head(), 1..10)) {
        let hosts = hosts.into_iter().enumerate().map(|(n, host)| VirtualHost { name: text(&format!("{n}-")), ..host }).collect();
        let mut routes = mk_routes("r", hosts);
        routes.ignore_port = ignore_port;
        let chain = mk_http_chain("http", ChainMatch::default(), mk_http(RouteSource::Named(text("r"))));
        // Domains that two hosts have are cut, which is not what is tested here.
        let (plan, _) = Plan::next(&Plan::empty(), &upsert([Resource::Routes(routes), Resource::Listener(mk_listener("l", "0.0.0.0:80", vec![chain]))]));
        for head in heads {
            select(&plan, &head);
        }
    }
}

#[test]
fn ten_thousand_routes_are_not_walked() {
    let routes =
        (0..10_000).map(|n| to_cluster(&format!("/route-{n:05}/"), "a")).chain([to_cluster("/", "b")]).collect();
    let plan = mk_plan(vec![mk_host("h", &["*"], routes)], true);
    let host = &plan.routes("r").unwrap().hosts()[0];
    let head = mk_head("x", "/route-09999/x", &[]);
    assert_eq!(host.candidates(head.path()).count(), 2);
    assert_eq!(select(&plan, &head), "h/route-09999/");
}
