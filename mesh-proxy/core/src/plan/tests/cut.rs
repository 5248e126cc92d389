//! The table of what happens to invalid pieces.

use mesh_api_xds::ir::authz::{Authz, AuthzAction, AuthzPolicy, Predicate};
use mesh_api_xds::ir::matcher::{StringMatch, StringPattern};

use super::*;
use crate::authz::predicate::Subject;
use crate::authz::{Verdict, check_all};
use crate::facts::ConnFacts;
use crate::rejected::{Effect, Reason, Rejected};
use crate::trace::Silent;

fn rejected(plan: &Plan, delta: &Delta) -> (Plan, Vec<Rejected>) {
    Plan::next(plan, delta)
}

fn bad_regex() -> PathMatch {
    PathMatch::Regex(text("/a("))
}

fn route_names(plan: &Plan, table: &str) -> Vec<String> {
    let hosts = plan.routes(table).unwrap().hosts();
    hosts.iter().flat_map(|host| host.routes()).map(|route| route.name.to_string()).collect()
}

#[test]
fn a_bad_route_is_cut_and_the_rest_serves() {
    let bad = mk_route("bad", bad_regex(), Action::Forward(mk_forward("a")));
    let host = mk_host("80/b:80", &["b"], vec![to_cluster("/x", "a"), bad, to_cluster("/", "b")]);
    let (plan, rejected) = rejected(&sample(), &upsert([Resource::VirtualHost(host)]));
    assert_eq!(route_names(&plan, "80"), ["/", "/x", "/"]);
    let [one] = &rejected[..] else { panic!("{rejected:?}") };
    assert_eq!((one.type_url, one.resource.as_str(), one.effect), (TypeUrl::VirtualHost, "80/b:80", Effect::Cut));
    assert_eq!(one.path, "routes[1](bad).match.path");
    assert_eq!(one.origin, Origin(text("VirtualService/shop/bad")));
    assert_eq!(one.reason.to_string(), "regular expression does not parse: unclosed group");
}

#[test]
fn a_cut_is_reported_each_time_it_is_sent_and_ends_when_mended() {
    let host = |path| {
        let route = mk_route("r", path, Action::Forward(mk_forward("a")));
        upsert([Resource::Routes(mk_routes("gw", vec![mk_host("h", &["*"], vec![route])]))])
    };
    let (plan, first) = rejected(&sample(), &host(bad_regex()));
    let (plan, second) = rejected(&plan, &host(bad_regex()));
    assert_eq!((first.len(), &first), (1, &second));
    assert!(route_names(&plan, "gw").is_empty());
    let (plan, third) = rejected(&plan, &host(PathMatch::Prefix(text("/a"))));
    assert_eq!((third.len(), route_names(&plan, "gw")), (0, vec!["r".to_owned()]));
}

#[test]
fn every_kind_of_bad_route_is_named() {
    let check = |path: &str, edit: &dyn Fn(&mut Route)| {
        let mut route = to_cluster("/", "a");
        edit(&mut route);
        let delta = upsert([Resource::Routes(mk_routes("gw", vec![mk_host("h", &["*"], vec![route])]))]);
        let (plan, rejected) = Plan::next(&sample(), &delta);
        assert_eq!(
            rejected.iter().map(|r| r.path.as_str()).collect::<Vec<_>>(),
            [format!("virtual_hosts(h).routes[0](/).{path}")]
        );
        assert!(route_names(&plan, "gw").is_empty());
    };
    let forward = |edit: &dyn Fn(&mut Forward)| {
        let mut forward = mk_forward("a");
        edit(&mut forward);
        Action::Forward(forward)
    };
    use mesh_api_xds::ir::filter::{AbortStatus, Fault, FaultAbort, RouteFilter};
    use mesh_api_xds::ir::matcher::{HeaderMatch, ValueTest};
    use mesh_api_xds::ir::route::{Direct, Edits, Redirect, RedirectPath, RedirectPort};
    check("weighted_clusters", &|route| route.action = forward(&|f| f.to = Destination::Weighted(Arc::default())));
    check("rewrite", &|route| {
        let (pattern, substitution) = (text("("), text(""));
        route.action = forward(&|f| {
            f.rewrite = PathRewrite::Regex { pattern: pattern.clone(), substitution: substitution.clone() }
        });
    });
    check("host_rewrite", &|route| route.action = forward(&|f| f.host_rewrite = Some(text("a b"))));
    check("direct_response", &|route| route.action = Action::Direct(Direct { status: 99, body: Arc::default() }));
    check("redirect", &|route| {
        let (port, path) = (RedirectPort::Keep, RedirectPath::Keep);
        route.action = Action::Redirect(Redirect { status: 200, scheme: None, authority: None, port, path });
    });
    check("headers", &|route| {
        let set = [(text("x"), text("%NOPE%"))].into();
        route.headers.request = Edits { set, ..Edits::default() };
    });
    check("match.headers[0]", &|route| {
        let test = ValueTest::Present;
        let header = HeaderMatch { name: text("a b"), test, invert: false, missing_is_empty: false };
        route.matches.headers = [header].into();
    });
    check("fault", &|route| {
        let abort = FaultAbort { share: mesh_api_xds::ir::PerMillion::ALL, status: AbortStatus::Http(1000) };
        route.filters = [RouteFilter::Fault(Fault { delay: None, abort: Some(abort) })].into();
    });
}

#[test]
fn a_domain_of_two_hosts_stays_with_the_first() {
    let host = mk_host("80/z:80", &["z", "a"], vec![to_cluster("/", "b")]);
    let (plan, rejected) = rejected(&sample(), &upsert([Resource::VirtualHost(host)]));
    let [one] = &rejected[..] else { panic!("{rejected:?}") };
    assert_eq!(one.reason, Reason::DuplicateDomain { domain: text("a"), owner: text("80/a:80") });
    let owner = |host: &str| plan.routes("80").unwrap().find_host(host.as_bytes()).unwrap().name.to_string();
    assert_eq!((owner("a"), owner("z")), ("80/a:80".to_owned(), "80/z:80".to_owned()));
    // Another edit of routes reports it again: nobody mended it.
    let edited = mk_host("80/b:80", &["b"], vec![to_cluster("/", "a")]);
    let (_, again) = Plan::next(&plan, &upsert([Resource::VirtualHost(edited)]));
    assert_eq!(again.iter().map(|one| &one.reason).collect::<Vec<_>>(), [&one.reason]);
}

#[test]
fn an_ambiguous_listener_keeps_its_last_version() {
    let listener = |names: &[&str]| {
        let chains = names.iter().map(|name| mk_tcp_chain(name, ChainMatch::default(), &[("a", 1)])).collect();
        upsert([Resource::Listener(mk_listener("tcp", "0.0.0.0:9000", chains))])
    };
    let plan = next(&sample(), &listener(&["one"]));
    let (after, rejected) = rejected(&plan, &listener(&["two", "three"]));
    assert_eq!(rejected[0].reason, Reason::AmbiguousChains { first: text("two"), second: text("three") });
    assert_eq!(rejected[0].effect, Effect::KeptPrevious);
    assert!(Arc::ptr_eq(plan.listener("tcp").unwrap(), after.listener("tcp").unwrap()));
    assert!(after.hand_off(address("10.0.0.1:9000")).is_some());
    let (fresh, _) = self::rejected(&Plan::empty(), &listener(&["two", "three"]));
    assert!(fresh.listener("tcp").is_none());
    let (plan, rejected) = self::rejected(
        &plan,
        &upsert([Resource::Listener(mk_listener(
            "tcp",
            "0.0.0.0:9000",
            vec![mk_tcp_chain("x", ChainMatch::default(), &[("a", 0)])],
        ))]),
    );
    assert_eq!(rejected[0].reason, Reason::NoWeight);
    assert!(plan.listener("tcp").unwrap().chain("one").is_some());
}

#[test]
fn two_listeners_of_one_address_are_reported_and_the_first_by_name_gets_it() {
    let (plan, rejected) = rejected(&sample(), &upsert([Resource::Listener(mk_listener("zz", "0.0.0.0:80", vec![]))]));
    assert_eq!(rejected[0].reason, Reason::DuplicateAddress { address: address("0.0.0.0:80"), owner: text("80") });
    assert_eq!(plan.hand_off(address("10.0.0.1:80")).unwrap().name, "80");
}

#[test]
fn a_virtual_host_without_configuration_in_its_name_is_refused() {
    let (_, rejected) = rejected(&sample(), &upsert([Resource::VirtualHost(mk_host("a:80", &["a"], vec![]))]));
    assert_eq!(rejected[0].reason, Reason::HostName);
}

/// A listener whose chain has one policy set of one policy that does not compile, and maybe a good one.
fn verdict(action: AuthzAction, with_good: bool) -> (Verdict, Vec<Effect>) {
    let bad = StringMatch::new(StringPattern::Regex(text("(")));
    let policy = |name: &str, principal| AuthzPolicy { name: text(name), permission: Predicate::Any, principal };
    let mut policies = vec![policy("bad", Predicate::PeerIdentity(bad))];
    if with_good {
        policies
            .push(policy("good", Predicate::PeerAddress(mesh_api_xds::ir::matcher::Cidr::parse("10.0.0.1").unwrap())));
    }
    let mut chain = (*mk_tcp_chain("c", ChainMatch::default(), &[("a", 1)])).clone();
    chain.authz = [Authz { action, policies: policies.into() }].into();
    let (plan, rejected) =
        rejected(&Plan::empty(), &upsert([Resource::Listener(mk_listener("l", "0.0.0.0:1", vec![Arc::new(chain)]))]));
    let facts = ConnFacts::new(address("10.0.0.1:5"), address("10.0.0.2:1"));
    let chain = plan.listener("l").unwrap().select(&facts).unwrap();
    let verdict = check_all(&chain.authz, &Subject::Connection(&facts), &mut Silent);
    (verdict, rejected.into_iter().map(|rejected| rejected.effect).collect())
}

#[test]
fn invalid_policies_never_open_a_door() {
    use AuthzAction::{Allow, Deny};
    let denied_by = |name: &str| Verdict::Deny { policy: Some(text(name)) };
    assert_eq!(verdict(Allow, false), (Verdict::Deny { policy: None }, vec![Effect::Cut]));
    assert_eq!(verdict(Allow, true), (Verdict::Allow, vec![Effect::Cut]));
    assert_eq!(verdict(Deny, false), (denied_by("bad"), vec![Effect::Denies]));
    assert_eq!(verdict(Deny, true), (denied_by("bad"), vec![Effect::Denies]));
}
