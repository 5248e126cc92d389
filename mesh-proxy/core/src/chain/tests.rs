//! The order of criteria by examples, and index == rule over random listeners.

use std::net::SocketAddr;

use mesh_api_xds::ir::Origin;
use mesh_api_xds::ir::chain::{Serve, TcpProxy, WeightedTcp};
use proptest::prelude::*;

use super::*;
use crate::trace::{Recorder, Silent};

fn text(text: &str) -> Str {
    Str::from(text)
}

fn texts(list: &[&str]) -> Arc<[Str]> {
    list.iter().map(|t| text(t)).collect()
}

fn cidrs(list: &[&str]) -> Arc<[Cidr]> {
    list.iter().map(|cidr| Cidr::parse(cidr).unwrap()).collect()
}

fn mk_chain(name: &str, matches: ChainMatch) -> Arc<Chain> {
    let tcp = TcpProxy {
        stat_prefix: text("x"),
        clusters: [WeightedTcp { cluster: text("c"), weight: 1 }].into(),
        idle_timeout: None,
        access_logs: Arc::default(),
        origin: Origin::default(),
    };
    Arc::new(Chain { name: text(name), matches, tls: None, authz: Arc::default(), serve: Serve::Tcp(Arc::new(tcp)) })
}

fn mk_facts(destination: &str, source: &str) -> ConnFacts {
    let address = |text: &str| text.parse::<SocketAddr>().unwrap();
    ConnFacts::new(address(source), address(destination))
}

/// Chains as `sidecar inbound` has them: mutual TLS by ALPN, plaintext by sniffed protocol, one port of its own.
fn inbound() -> Vec<Arc<Chain>> {
    let tls = |alpn: &[&str]| ChainMatch {
        destination_port: Some(9080),
        transport: TransportMatch::Tls,
        application_protocols: texts(alpn),
        ..ChainMatch::default()
    };
    let raw = |alpn: &[&str]| ChainMatch { transport: TransportMatch::Raw, ..tls(alpn) };
    vec![
        mk_chain("mtls-http", tls(&["istio-http/1.1", "istio-h2"])),
        mk_chain("mtls-tcp", tls(&["istio", "istio-peer-exchange"])),
        mk_chain("tls", tls(&[])),
        mk_chain("http", raw(&["http/1.1", "h2c"])),
        mk_chain("raw", raw(&[])),
        mk_chain("passthrough", ChainMatch::default()),
        mk_chain("v6", ChainMatch { destinations: cidrs(&["fd00::/8"]), ..ChainMatch::default() }),
    ]
}

#[track_caller]
fn check(chains: &[Arc<Chain>], facts: &ConnFacts, expect: Option<&str>) {
    let index = ChainIndex::new(chains).unwrap();
    let name = |at: usize| chains[at].name.as_str();
    assert_eq!(index.select(facts).map(name), expect, "index: {facts:?}");
    assert_eq!(index.select_linear(facts, name, &mut Silent).map(name), expect, "rule: {facts:?}");
}

#[test]
fn inbound_chains_are_chosen_as_istio_means_them() {
    let facts = |transport, protocols: &[&str]| ConnFacts {
        transport,
        protocols: protocols.iter().map(|p| text(p)).collect(),
        ..mk_facts("10.0.0.1:9080", "10.9.9.9:1")
    };
    let chains = inbound();
    check(&chains, &facts(Transport::Tls, &["istio-http/1.1", "istio"]), Some("mtls-http"));
    check(&chains, &facts(Transport::Tls, &["istio-peer-exchange", "istio"]), Some("mtls-tcp"));
    check(&chains, &facts(Transport::Tls, &["h2", "http/1.1"]), Some("tls"));
    check(&chains, &facts(Transport::Tls, &[]), Some("tls"));
    check(&chains, &facts(Transport::Raw, &["http/1.1"]), Some("http"));
    check(&chains, &facts(Transport::Raw, &[]), Some("raw"));
    check(&chains, &mk_facts("10.0.0.1:9999", "10.9.9.9:1"), Some("passthrough"));
    check(&chains, &mk_facts("[fd00::1]:9999", "[fd00::2]:1"), Some("v6"));
    check(&chains, &mk_facts("[::ffff:10.0.0.1]:9080", "10.9.9.9:1"), Some("raw"));
}

#[test]
fn there_is_no_way_back_from_a_more_specific_step() {
    let by_port = ChainMatch { destination_port: Some(80), server_names: texts(&["a.io"]), ..ChainMatch::default() };
    let chains = [mk_chain("by-port", by_port), mk_chain("any", ChainMatch::default())];
    let facts = |port: u16, name: &str| ConnFacts {
        transport: Transport::Tls,
        server_name: Some(text(name)),
        ..mk_facts(&format!("10.0.0.1:{port}"), "10.9.9.9:1")
    };
    check(&chains, &facts(80, "a.io"), Some("by-port"));
    check(&chains, &facts(80, "b.io"), None);
    check(&chains, &facts(81, "b.io"), Some("any"));
}

#[test]
fn names_and_networks_prefer_the_longest() {
    let names = |list: &[&str]| ChainMatch { server_names: texts(list), ..ChainMatch::default() };
    let chains = [
        mk_chain("a", names(&["www.a.io"])),
        mk_chain("b", names(&["*.a.io"])),
        mk_chain("c", names(&["*.io"])),
        mk_chain("d", names(&[])),
    ];
    let facts = |name: &str| ConnFacts { server_name: Some(text(name)), ..mk_facts("10.0.0.1:1", "10.9.9.9:1") };
    for (name, expect) in [("www.a.io", "a"), ("x.a.io", "b"), ("x.y.a.io", "b"), ("a.io", "c"), ("io", "d"), ("", "d")]
    {
        check(&chains, &facts(name), Some(expect));
    }
    let nets = |list: &[&str]| ChainMatch { destinations: cidrs(list), ..ChainMatch::default() };
    let chains = [mk_chain("8", nets(&["10.0.0.0/8"])), mk_chain("16", nets(&["10.1.0.0/16", "11.0.0.0/8"]))];
    for (ip, expect) in
        [("10.1.2.3", Some("16")), ("10.2.2.3", Some("8")), ("11.0.0.1", Some("16")), ("12.0.0.1", None)]
    {
        check(&chains, &mk_facts(&format!("{ip}:1"), "10.9.9.9:1"), expect);
    }
}

#[test]
fn ties_are_refused_by_name() {
    let alpn = |list: &[&str]| ChainMatch { application_protocols: texts(list), ..ChainMatch::default() };
    let refused = |a: ChainMatch, b: ChainMatch| ChainIndex::new(&[mk_chain("a", a), mk_chain("b", b)]).err();
    let clash = Some(Reason::AmbiguousChains { first: text("a"), second: text("b") });
    assert_eq!(refused(alpn(&["h2", "http/1.1"]), alpn(&["x", "h2"])), clash);
    assert_eq!(refused(alpn(&["h2"]), alpn(&["http/1.1"])), None);
    let anywhere = ChainMatch { destinations: cidrs(&["0.0.0.0/0"]), ..ChainMatch::default() };
    assert_eq!(refused(anywhere, ChainMatch::default()), clash);
    assert_eq!(refused(alpn(&["h2", "h2"]), alpn(&[])), None);
    let many: Vec<String> = (0..300).map(|n| n.to_string()).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let huge = ChainMatch { server_names: texts(&many), ..alpn(&many) };
    assert_eq!(refused(huge, alpn(&[])), Some(Reason::TooManyCombinations(text("a"))));
}

#[test]
fn the_trace_says_why_each_other_chain_lost() {
    let chains = inbound();
    let index = ChainIndex::new(&chains).unwrap();
    let mut recorder = Recorder::default();
    let facts = ConnFacts { transport: Transport::Tls, ..mk_facts("10.0.0.1:9080", "10.9.9.9:1") };
    index.select_linear(&facts, |at| chains[at].name.as_str(), &mut recorder);
    let lost = |name: &str, criterion| format!("{:?}", Step::Chain { name, lost: criterion });
    assert_eq!(
        recorder.lines,
        [
            lost("passthrough", Some(ChainCriterion::DestinationPort)),
            lost("v6", Some(ChainCriterion::DestinationPort)),
            lost("http", Some(ChainCriterion::Transport)),
            lost("raw", Some(ChainCriterion::Transport)),
            lost("mtls-http", Some(ChainCriterion::ApplicationProtocol)),
            lost("mtls-tcp", Some(ChainCriterion::ApplicationProtocol)),
            lost("tls", None),
        ]
    );
}

fn some_of(list: &'static [&'static str]) -> impl Strategy<Value = Vec<&'static str>> {
    prop_oneof![2 => Just(vec![]), 3 => prop::sample::subsequence(list, 0..=list.len().min(2))]
}

const NETWORKS: &[&str] = &["0.0.0.0/0", "10.0.0.0/8", "10.1.0.0/16", "10.1.1.1/32", "::/0", "fd00::/8"];

fn any_match() -> impl Strategy<Value = ChainMatch> {
    let transport = prop_oneof![Just(TransportMatch::Any), Just(TransportMatch::Raw), Just(TransportMatch::Tls)];
    let names = some_of(&["a.io", "*.a.io", "*.io", "b.a.io", "*", "A.IO"]);
    let port = prop::option::of(80..82_u16);
    (port, some_of(NETWORKS), names, transport, some_of(&["h2", "http/1.1", "istio"]), some_of(NETWORKS)).prop_map(
        |(destination_port, destinations, names, transport, protocols, sources)| ChainMatch {
            destination_port,
            destinations: cidrs(&destinations),
            server_names: texts(&names),
            transport,
            application_protocols: texts(&protocols),
            sources: cidrs(&sources),
        },
    )
}

fn any_facts() -> impl Strategy<Value = ConnFacts> {
    let ip = prop::sample::select(vec!["10.1.1.1", "10.1.2.2", "10.2.2.2", "11.1.1.1", "[fd00::1]", "[2001::1]"]);
    let name = prop::option::of(prop::sample::select(vec!["a.io", "b.a.io", "c.b.a.io", "io", "x"]));
    let transport = prop_oneof![Just(Transport::Raw), Just(Transport::Tls)];
    let protocols = prop::sample::subsequence(vec!["istio", "h2", "http/1.1"], 0..=3);
    (ip.clone(), 80..83_u16, ip, name, transport, protocols).prop_map(|(to, port, from, name, transport, protocols)| {
        ConnFacts {
            transport,
            server_name: name.map(text),
            protocols: protocols.into_iter().map(text).collect(),
            ..mk_facts(&format!("{to}:{port}"), &format!("{from}:1"))
        }
    })
}

proptest! {
    #[test]
    fn the_index_is_the_rule(matches in prop::collection::vec(any_match(), 0..8), facts in prop::collection::vec(any_facts(), 1..12)) {
        // Chains that clash with earlier ones are left out, as a valid listener has none.
        let mut chains: Vec<Arc<Chain>> = Vec::new();
        for (n, matches) in matches.into_iter().enumerate() {
            chains.push(mk_chain(&n.to_string(), matches));
            if ChainIndex::new(&chains).is_err() {
                chains.pop();
            }
        }
        let index = ChainIndex::new(&chains).unwrap();
        for facts in facts {
            prop_assert_eq!(index.select(&facts), index.select_linear(&facts, |_| "", &mut Silent));
        }
    }
}
