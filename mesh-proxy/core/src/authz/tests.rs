//! Verdicts on connections and requests.

use std::net::SocketAddr;
use std::sync::Arc;

use mesh_api_xds::ir::authz::{self as ir, AuthzPolicy, Predicate as P};
use mesh_api_xds::ir::matcher::{Cidr, HeaderMatch, StringMatch, StringPattern, ValueTest};
use mesh_api_xds::type_url::TypeUrl;
use proptest::prelude::*;

use super::*;
use crate::facts::{ConnFacts, Peer, RequestFacts};
use crate::head::Head;
use crate::trace::{Recorder, Silent};

fn text(text: &str) -> Str {
    Str::from(text)
}

fn mk_conn(identity: Option<&str>) -> ConnFacts {
    let address = |n| SocketAddr::from(([10, 0, 0, n], 8080));
    let mut conn = ConnFacts::new(address(1), address(2));
    conn.server_name = Some(text("web"));
    conn.peer = identity.map(|id| Arc::new(Peer { uris: vec![text(id)], ..Peer::default() }));
    conn
}

fn mk_head() -> Head {
    let mut head = Head::request();
    head.set_method(b"POST").unwrap();
    head.set_target(b"/admin/x?y=/public").unwrap();
    head.append("x-token", b"t").unwrap();
    head
}

fn mk_authz(action: AuthzAction, policies: Vec<(&str, P, P)>) -> Authz {
    let policy = |(name, permission, principal)| AuthzPolicy { name: text(name), permission, principal };
    let authz = ir::Authz { action, policies: policies.into_iter().map(policy).collect() };
    let mut rejected = Vec::new();
    let compiled = Authz::compile(&authz, "authz", &mut Report::new(TypeUrl::Listener, text("l"), &mut rejected));
    assert_eq!(rejected, []);
    compiled
}

fn exact(value: &str) -> StringMatch {
    StringMatch::exact(value)
}

const WEB: &str = "spiffe://cluster.local/ns/shop/sa/web";

#[track_caller]
fn check(predicate: P, on_request: bool, on_connection: bool) {
    let (conn, head) = (mk_conn(Some(WEB)), mk_head());
    let facts = RequestFacts { conn: &conn, client: SocketAddr::from(([192, 168, 0, 7], 1)) };
    let compiled = Predicate::compile(&predicate).unwrap();
    assert_eq!(compiled.holds(&Subject::Request(facts, &head)), on_request, "request: {predicate:?}");
    assert_eq!(compiled.holds(&Subject::Connection(&conn)), on_connection, "connection: {predicate:?}");
}

#[test]
fn predicates_ask_what_they_name() {
    let cidr = |text| Cidr::parse(text).unwrap();
    check(P::Any, true, true);
    check(P::All(Arc::default()), true, true);
    check(P::OneOf(Arc::default()), false, false);
    check(P::Not(Arc::new(P::Any)), false, false);
    check(P::PeerIdentity(exact(WEB)), true, true);
    check(P::PeerIdentity(exact("spiffe://cluster.local/ns/shop/sa/other")), false, false);
    check(P::PeerIdentity(StringMatch::new(StringPattern::Regex(text(".*/ns/shop/.*")))), true, true);
    check(P::Authenticated, true, true);
    check(P::PeerAddress(cidr("10.0.0.0/31")), true, true);
    check(P::PeerAddress(cidr("10.0.0.2")), false, false);
    check(P::RemoteAddress(cidr("192.168.0.0/16")), true, false);
    check(P::DestinationAddress(cidr("10.0.0.2")), true, true);
    check(P::DestinationPort(8080), true, true);
    check(P::DestinationPort(80), false, false);
    check(P::ServerName(exact("web")), true, true);
    check(P::Path(StringMatch::new(StringPattern::Prefix(text("/admin")))), true, false);
    check(P::Path(StringMatch::new(StringPattern::Contains(text("public")))), false, false);
    let header = |name: &str, value: &str| {
        let test = ValueTest::Matches(exact(value));
        P::Header(HeaderMatch { name: text(name), test, invert: false, missing_is_empty: false })
    };
    check(header(":method", "POST"), true, false);
    check(header("x-token", "t"), true, false);
    check(header("x-token", "u"), false, false);
    check(P::All([P::Any, P::DestinationPort(8080)].into()), true, true);
    check(P::All([P::Any, P::DestinationPort(1)].into()), false, false);
    check(P::OneOf([P::DestinationPort(1), P::Authenticated].into()), true, true);
}

#[test]
fn a_mapped_address_is_the_address() {
    let mut conn = mk_conn(None);
    conn.source = "[::ffff:10.0.0.1]:1".parse().unwrap();
    let predicate = Predicate::compile(&P::PeerAddress(Cidr::parse("10.0.0.0/8").unwrap())).unwrap();
    assert!(predicate.holds(&Subject::Connection(&conn)));
}

#[test]
fn a_stranger_has_no_identity() {
    let conn = mk_conn(None);
    let holds = |predicate| Predicate::compile(&predicate).unwrap().holds(&Subject::Connection(&conn));
    assert!(!holds(P::Authenticated));
    assert!(!holds(P::PeerIdentity(StringMatch::new(StringPattern::Regex(text(".*"))))));
}

#[test]
fn allow_needs_a_match_and_deny_needs_none() {
    use AuthzAction::{Allow, Deny};
    let conn = mk_conn(Some(WEB));
    let subject = Subject::Connection(&conn);
    let verdict = |authz: &Authz| authz.check(&subject, &mut Silent);
    let no = || P::DestinationPort(1);
    assert_eq!(verdict(&mk_authz(Allow, vec![])), Verdict::Deny { policy: None });
    assert_eq!(verdict(&mk_authz(Deny, vec![])), Verdict::Allow);
    assert_eq!(verdict(&mk_authz(Allow, vec![("a", no(), P::Any), ("b", P::Any, P::Any)])), Verdict::Allow);
    assert_eq!(verdict(&mk_authz(Allow, vec![("a", P::Any, no())])), Verdict::Deny { policy: None });
    let denied = Verdict::Deny { policy: Some(text("b")) };
    assert_eq!(verdict(&mk_authz(Deny, vec![("a", P::Any, no()), ("b", P::Any, P::Any)])), denied);
    // Deny comes first in the list and wins over allow.
    let sets = [mk_authz(Deny, vec![("b", P::Any, P::Any)]), mk_authz(Allow, vec![("a", P::Any, P::Any)])];
    assert_eq!(check_all(&sets, &subject, &mut Silent), denied);
    assert_eq!(check_all(&[], &subject, &mut Silent), Verdict::Allow);
}

#[test]
fn the_trace_names_every_policy_asked() {
    let conn = mk_conn(None);
    let authz =
        mk_authz(AuthzAction::Allow, vec![("port", P::DestinationPort(1), P::Any), ("who", P::Any, P::Authenticated)]);
    let mut recorder = Recorder::default();
    assert_eq!(authz.check(&Subject::Connection(&conn), &mut recorder), Verdict::Deny { policy: None });
    let step = |name, permission, principal| {
        format!("{:?}", Step::Policy { name, action: AuthzAction::Allow, permission, principal })
    };
    assert_eq!(recorder.lines, [step("port", false, None), step("who", true, Some(false))]);
}

fn any_predicate() -> impl Strategy<Value = P> {
    let leaf = prop_oneof![Just(P::Any), Just(P::Authenticated), (8079..8082_u16).prop_map(P::DestinationPort)];
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(|list| P::All(list.into())),
            prop::collection::vec(inner.clone(), 0..4).prop_map(|list| P::OneOf(list.into())),
            inner.prop_map(|inner| P::Not(Arc::new(inner))),
        ]
    })
}

/// The meaning of the tree, written down once more over the IR.
fn meaning(predicate: &P, authenticated: bool) -> bool {
    match predicate {
        P::Any => true,
        P::Authenticated => authenticated,
        P::DestinationPort(port) => *port == 8080,
        P::All(list) => !list.iter().any(|inner| !meaning(inner, authenticated)),
        P::OneOf(list) => list.iter().filter(|inner| meaning(inner, authenticated)).count() > 0,
        P::Not(inner) => !meaning(inner, authenticated),
        other => panic!("not generated: {other:?}"),
    }
}

proptest! {
    #[test]
    fn trees_mean_what_their_words_say(predicate in any_predicate(), authenticated: bool) {
        let conn = mk_conn(authenticated.then_some(WEB));
        let holds = Predicate::compile(&predicate).unwrap().holds(&Subject::Connection(&conn));
        prop_assert_eq!(holds, meaning(&predicate, authenticated));
    }
}
