//! Scripts for the server.

use std::collections::BTreeMap;

use super::*;
use crate::ads::server::Nack;
use crate::ads::{CloseReason, MAX_NAME_BYTES, nack_status};
use crate::discovery::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse, GenerationMark,
};
use TypeUrl::{Cluster, Endpoint, Generation, Listener, RouteConfiguration, Secret, VirtualHost};

fn mk_subscribe(type_url: TypeUrl, names: &[&str]) -> DeltaDiscoveryRequest {
    DeltaDiscoveryRequest {
        type_url: type_url.as_str().into(),
        resource_names_subscribe: names.iter().map(ToString::to_string).collect(),
        ..Default::default()
    }
}

fn mk_unsubscribe(type_url: TypeUrl, names: &[&str]) -> DeltaDiscoveryRequest {
    DeltaDiscoveryRequest {
        type_url: type_url.as_str().into(),
        resource_names_unsubscribe: names.iter().map(ToString::to_string).collect(),
        ..Default::default()
    }
}

fn mk_ack(response: &DeltaDiscoveryResponse) -> DeltaDiscoveryRequest {
    DeltaDiscoveryRequest {
        type_url: response.type_url.clone(),
        response_nonce: response.nonce.clone(),
        ..Default::default()
    }
}

fn mk_nack(response: &DeltaDiscoveryResponse, reason: &str, rejected: &[&str]) -> DeltaDiscoveryRequest {
    let rejections: Vec<_> = rejected
        .iter()
        .map(|name| Rejection { name: Str::from(*name), path: Str::empty(), reason: Str::from(reason) })
        .collect();
    DeltaDiscoveryRequest { error_detail: Some(nack_status(reason, &rejections)), ..mk_ack(response) }
}

fn request(server: &mut ServerSession, request: DeltaDiscoveryRequest) -> Vec<ServerAction> {
    server.on_request(Request::Delta(request))
}

/// The messages among the actions.
fn sent(actions: &[ServerAction]) -> Vec<DeltaDiscoveryResponse> {
    let messages = actions.iter().filter_map(|action| match action {
        ServerAction::Send(Response::Delta(response)) => Some(response.clone()),
        _ => None,
    });
    messages.collect()
}

/// The only message, as `(short type, resource names, removed names)`.
#[track_caller]
fn shape(response: &DeltaDiscoveryResponse) -> (&'static str, Vec<&str>, Vec<&str>) {
    (
        TypeUrl::parse(&response.type_url).unwrap().short(),
        response.resources.iter().map(|r| r.name.as_str()).collect(),
        response.removed_resources.iter().map(String::as_str).collect(),
    )
}

#[track_caller]
fn only(actions: &[ServerAction]) -> DeltaDiscoveryResponse {
    let sent = sent(actions);
    assert_eq!(sent.len(), 1, "{actions:?}");
    sent.into_iter().next().unwrap()
}

#[test]
fn a_nack_is_recorded_keeps_the_session_and_the_next_good_state_is_sent() {
    let mut server = mk_server(Protocol::Delta, false, &mk_set(1, &[(Cluster, "a", 1), (Cluster, "b", 1)]));
    let first = only(&request(&mut server, mk_subscribe(Cluster, &[])));
    request(&mut server, mk_ack(&first));

    let bad = only(&server.on_resources(mk_set(2, &[(Cluster, "a", BAD), (Cluster, "b", 1)])));
    assert_eq!(shape(&bad), ("CDS", vec!["a"], vec![]));
    let actions = request(&mut server, mk_nack(&bad, "no such luck", &["a"]));
    let nack = Nack {
        generation: 2,
        reason: "no such luck".into(),
        rejections: vec![Rejection { name: "a".into(), path: Str::empty(), reason: "no such luck".into() }],
    };
    assert!(actions.contains(&ServerAction::Nacked { type_url: Cluster, nack: nack.clone() }));
    assert!(actions.contains(&ServerAction::Applied {
        generation: 2,
        changes: vec!["change-2".into()],
        rejected: vec![Cluster]
    }));
    assert!(sent(&actions).is_empty(), "what was rejected is not sent again");
    let status = server.status(Cluster).unwrap();
    assert_eq!((status.sent, status.acked, status.nack), (Some(2), Some(1), Some(&nack)));

    // Another resource changes and is accepted: the rejection of `a` stands, because `a` is still the bad one.
    let other = only(&server.on_resources(mk_set(3, &[(Cluster, "a", BAD), (Cluster, "b", 2)])));
    assert_eq!(shape(&other), ("CDS", vec!["b"], vec![]));
    request(&mut server, mk_ack(&other));
    assert_eq!(server.status(Cluster).unwrap().nack, Some(&nack));

    let good = only(&server.on_resources(mk_set(4, &[(Cluster, "a", 2), (Cluster, "b", 2)])));
    assert_eq!(shape(&good), ("CDS", vec!["a"], vec![]));
    let actions = request(&mut server, mk_ack(&good));
    assert_eq!(server.status(Cluster).unwrap().nack, None);
    assert!(actions.contains(&ServerAction::Applied {
        generation: 4,
        changes: vec!["change-4".into()],
        rejected: vec![]
    }));
}

#[test]
fn a_nack_without_details_is_cleared_by_the_next_ack() {
    let mut server = mk_server(Protocol::Delta, false, &mk_set(1, &[(Cluster, "a", BAD)]));
    let bad = only(&request(&mut server, mk_subscribe(Cluster, &[])));
    request(&mut server, mk_nack(&bad, "Envoy says no", &[]));
    assert_eq!(server.status(Cluster).unwrap().nack.unwrap().reason, "Envoy says no");
    let good = only(&server.on_resources(mk_set(2, &[(Cluster, "a", 1)])));
    request(&mut server, mk_ack(&good));
    assert_eq!(server.status(Cluster).unwrap().nack, None);
}

#[test]
fn a_stale_nonce_answers_nothing_but_its_names_count() {
    let mut server = mk_server(Protocol::Delta, false, &mk_set(1, &[(Endpoint, "a", 1), (Endpoint, "b", 1)]));
    let first = only(&request(&mut server, mk_subscribe(Endpoint, &["a"])));
    for nonce in ["", "zzz", "999", "00"] {
        let stale = DeltaDiscoveryRequest { response_nonce: nonce.into(), ..mk_ack(&first) };
        assert_eq!(request(&mut server, stale), vec![]);
        assert_eq!(server.status(Endpoint).unwrap().acked, None);
    }
    let stale = DeltaDiscoveryRequest { response_nonce: "999".into(), ..mk_subscribe(Endpoint, &["b"]) };
    assert_eq!(request(&mut server, stale), vec![], "a response is in flight");
    let second = only(&request(&mut server, mk_ack(&first)));
    assert_eq!(shape(&second), ("EDS", vec!["b"], vec![]));
    // The nonce of a response that was answered is stale too, and a late NACK with it is not believed.
    let late = mk_nack(&first, "late", &[]);
    assert_eq!(request(&mut server, late), vec![]);
    assert_eq!(server.status(Endpoint).unwrap().nack, None);
}

#[test]
fn one_response_is_in_flight_and_changes_meanwhile_are_coalesced() {
    let mut server = mk_server(Protocol::Delta, false, &mk_set(1, &[(Cluster, "a", 1)]));
    let first = only(&request(&mut server, mk_subscribe(Cluster, &[])));
    for generation in 2..6 {
        let value = u32::try_from(generation).unwrap();
        assert_eq!(server.on_resources(mk_set(generation, &[(Cluster, "a", value), (Cluster, "b", 1)])), vec![]);
    }
    let actions = request(&mut server, mk_ack(&first));
    let newest = only(&actions);
    assert_eq!(shape(&newest), ("CDS", vec!["a", "b"], vec![]));
    assert_eq!(newest.resources.first().unwrap().version, Version::of(&("a", 5u32)).to_string());
    let actions = request(&mut server, mk_ack(&newest));
    let changes = (1..6).map(|g| Str::from(format!("change-{g}"))).collect();
    assert!(actions.contains(&ServerAction::Applied { generation: 5, changes, rejected: vec![] }));
}

#[test]
fn a_reconnect_with_what_is_held_is_sent_nothing_but_differences() {
    let set = mk_set(7, &[(Cluster, "a", 1), (Cluster, "b", 2), (Cluster, "c", 3)]);
    let held = |pairs: &[(&str, u32)]| -> BTreeMap<String, String> {
        pairs.iter().map(|(name, value)| (name.to_string(), Version::of(&(*name, *value)).to_string())).collect()
    };
    let check = |initial: BTreeMap<String, String>, expect: Option<(Vec<&str>, Vec<&str>)>| {
        let mut server = mk_server(Protocol::Delta, false, &set);
        let first = DeltaDiscoveryRequest { initial_resource_versions: initial, ..mk_subscribe(Cluster, &[]) };
        let actions = request(&mut server, first);
        let sent = sent(&actions);
        let shapes: Vec<_> = sent.iter().map(|response| (shape(response).1, shape(response).2)).collect();
        assert_eq!(shapes, expect.into_iter().collect::<Vec<_>>());
        // With nothing to send, the state is applied as it stands.
        assert_eq!(actions.iter().any(|a| matches!(a, ServerAction::Applied { .. })), sent.is_empty());
    };
    check(held(&[("a", 1), ("b", 2), ("c", 3)]), None);
    check(held(&[("a", 1), ("b", 9), ("c", 3)]), Some((vec!["b"], vec![])));
    check(held(&[("a", 1), ("b", 2), ("c", 3), ("gone", 1)]), Some((vec![], vec!["gone"])));
    check(held(&[("a", 1)]), Some((vec!["b", "c"], vec![])));
    let foreign = [("a", "1"), ("b", "v2"), ("c", "")].map(|(name, version)| (name.to_owned(), version.to_owned()));
    check(foreign.into(), Some((vec!["a", "b", "c"], vec![])));
}

#[test]
fn names_come_and_go() {
    let set = mk_set(1, &[(Endpoint, "a", 1), (Endpoint, "b", 1)]);
    let mut server = mk_server(Protocol::Delta, false, &set);
    let first = only(&request(&mut server, mk_subscribe(Endpoint, &["a", "missing"])));
    assert_eq!(shape(&first), ("EDS", vec!["a"], vec!["missing"]), "a name that does not exist is answered");
    request(&mut server, mk_ack(&first));
    assert_eq!(request(&mut server, mk_unsubscribe(Endpoint, &["a"])), vec![]);
    let next = mk_set(2, &[(Endpoint, "a", 2), (Endpoint, "b", 2), (Endpoint, "missing", 1)]);
    let second = only(&server.on_resources(next));
    assert_eq!(shape(&second), ("EDS", vec!["missing"], vec![]), "only what is subscribed to, and it appeared");
    request(&mut server, mk_ack(&second));
    let third = only(&request(&mut server, mk_subscribe(Endpoint, &["a"])));
    assert_eq!(shape(&third), ("EDS", vec!["a"], vec![]), "subscribed to again, sent again");
    request(&mut server, mk_ack(&third));
    let gone = only(&server.on_resources(mk_set(3, &[(Endpoint, "b", 3)])));
    assert_eq!(shape(&gone), ("EDS", vec![], vec!["a", "missing"]));
}

#[test]
fn the_wildcard_can_be_narrowed_and_widened() {
    let set = mk_set(1, &[(Cluster, "a", 1), (Cluster, "b", 1)]);
    let mut server = mk_server(Protocol::Delta, false, &set);
    let first = only(&request(&mut server, mk_subscribe(Cluster, &[])));
    assert_eq!(shape(&first), ("CDS", vec!["a", "b"], vec![]));
    request(&mut server, mk_ack(&first));
    // To explicit names.
    let narrowed =
        DeltaDiscoveryRequest { resource_names_subscribe: vec!["a".into()], ..mk_unsubscribe(Cluster, &["*"]) };
    let again = only(&request(&mut server, narrowed));
    assert_eq!(shape(&again), ("CDS", vec!["a"], vec![]));
    request(&mut server, mk_ack(&again));
    let actions = server.on_resources(mk_set(2, &[(Cluster, "a", 1), (Cluster, "b", 2)]));
    assert!(sent(&actions).is_empty(), "`b` is not subscribed to");
    // And back: `a` was sent and did not change.
    let widened = only(&request(&mut server, mk_subscribe(Cluster, &["*"])));
    assert_eq!(shape(&widened), ("CDS", vec!["b"], vec![]));
    request(&mut server, mk_ack(&widened));
    // An explicit name ends while the wildcard still has it: the client is told so.
    let kept = only(&request(&mut server, mk_unsubscribe(Cluster, &["a"])));
    assert_eq!(shape(&kept), ("CDS", vec!["a"], vec![]));
}

#[test]
fn an_empty_wildcard_is_answered_once() {
    let mut server = mk_server(Protocol::Delta, false, &mk_set(1, &[]));
    let first = only(&request(&mut server, mk_subscribe(Listener, &[])));
    assert_eq!(shape(&first), ("LDS", vec![], vec![]));
    let actions = request(&mut server, mk_ack(&first));
    assert!(sent(&actions).is_empty());
}

#[test]
fn types_go_out_in_order_and_the_mark_ends_the_state() {
    let all = |value| {
        [(Secret, "s", value), (VirtualHost, "r/v", value), (RouteConfiguration, "r", value), (Listener, "l", value)]
            .into_iter()
            .chain([(Endpoint, "c", value), (Cluster, "c", value)])
            .collect::<Vec<_>>()
    };
    let mut server = mk_server(Protocol::Delta, true, &mk_set(1, &all(1)));
    for type_url in TypeUrl::CONFIG {
        assert_eq!(
            request(&mut server, mk_subscribe(type_url, &["*"])),
            vec![],
            "nothing before the mark is asked for"
        );
    }
    let first = sent(&request(&mut server, mk_subscribe(Generation, &[])));
    let order: Vec<_> = first.iter().map(|response| shape(response).0).collect();
    assert_eq!(order, ["CDS", "EDS", "LDS", "RDS", "VHDS", "SDS", "NDS", "MARK"]);
    let mark = first.last().unwrap().resources.first().unwrap();
    let mark = GenerationMark::decode(mark.resource.clone().unwrap().value).unwrap();
    assert_eq!(mark, GenerationMark { generation: 1, changes: vec!["change-1".into()] });

    // The next state waits for all answers, then goes out whole.
    assert_eq!(server.on_resources(mk_set(2, &all(2))), vec![]);
    let (last, but_last) = first.split_last().unwrap();
    for response in but_last {
        assert!(sent(&request(&mut server, mk_ack(response))).is_empty());
    }
    let second = sent(&request(&mut server, mk_ack(last)));
    let order: Vec<_> = second.iter().map(|response| shape(response).0).collect();
    assert_eq!(order, ["CDS", "EDS", "LDS", "RDS", "VHDS", "SDS", "MARK"]);

    // A change of one type: that type and the mark.
    for response in &second {
        request(&mut server, mk_ack(response));
    }
    assert_eq!(server.applied(), Some(2));
    let mut third: Vec<_> = all(2);
    third.push((Endpoint, "d", 1));
    let third = sent(&server.on_resources(mk_set(3, &third)));
    assert_eq!(
        third.iter().map(shape).collect::<Vec<_>>(),
        [("EDS", vec!["d"], vec![]), ("MARK", vec!["generation"], vec![])]
    );
}

#[test]
fn a_state_without_differences_is_only_marked() {
    let resources = [(Cluster, "a", 1)];
    let mut server = mk_server(Protocol::Delta, true, &mk_set(1, &resources));
    request(&mut server, mk_subscribe(Cluster, &[]));
    for response in sent(&request(&mut server, mk_subscribe(Generation, &[]))) {
        request(&mut server, mk_ack(&response));
    }
    let actions = server.on_resources(mk_set(2, &resources));
    assert_eq!(shape(&only(&actions)).0, "MARK");
    assert_eq!(server.applied(), Some(1), "not before the mark is answered");
    let actions = request(&mut server, mk_ack(&only(&actions)));
    assert!(actions.contains(&ServerAction::Applied {
        generation: 2,
        changes: vec!["change-2".into()],
        rejected: vec![]
    }));
}

#[test]
fn a_virtual_host_on_demand_is_found_by_host_and_followed_by_a_mark() {
    let set = mk_set(1, &[(VirtualHost, "80/reviews", 1), (VirtualHost, "80/ratings", 1)]);
    let mut server = mk_server(Protocol::Delta, true, &set);
    let mark = only(&request(&mut server, mk_subscribe(Generation, &[])));
    request(&mut server, mk_ack(&mark));
    let actions = request(&mut server, mk_subscribe(VirtualHost, &["80/reviews.alias", "80/unknown"]));
    let [hosts, mark] = sent(&actions).try_into().unwrap();
    assert_eq!(shape(&hosts), ("VHDS", vec!["80/reviews"], vec!["80/unknown"]));
    assert_eq!(hosts.resources.first().unwrap().aliases, ["80/reviews.alias"]);
    assert_eq!(shape(&mark).0, "MARK");
    request(&mut server, mk_ack(&hosts));
    request(&mut server, mk_ack(&mark));
    // A host that is not on demand changes: only the mark.
    let actions = server.on_resources(mk_set(2, &[(VirtualHost, "80/reviews", 1), (VirtualHost, "80/ratings", 2)]));
    let mark = only(&actions);
    request(&mut server, mk_ack(&mark));
    // The one on demand goes.
    let actions = server.on_resources(mk_set(3, &[(VirtualHost, "80/ratings", 2)]));
    assert_eq!(shape(sent(&actions).first().unwrap()), ("VHDS", vec![], vec!["80/reviews.alias"]));
}

#[test]
fn demands_that_are_held_under_another_name_are_not_sent_again_after_a_reconnect() {
    let mut server = mk_server(Protocol::Delta, false, &mk_set(1, &[(VirtualHost, "80/reviews", 1)]));
    let version = Version::of(&("80/reviews", 1u32)).to_string();
    let first = DeltaDiscoveryRequest {
        initial_resource_versions: [("80/reviews".to_owned(), version)].into(),
        ..mk_subscribe(VirtualHost, &["80/reviews.alias"])
    };
    assert!(sent(&request(&mut server, first)).is_empty());
}

#[test]
fn envoy_gets_the_endpoints_of_changed_clusters_again() {
    let set = mk_set(1, &[(Cluster, "a", 1), (Cluster, "b", 1), (Endpoint, "a", 1), (Endpoint, "b", 1)]);
    let mut server = mk_server(Protocol::Delta, false, &set);
    let clusters = only(&request(&mut server, mk_subscribe(Cluster, &[])));
    let endpoints = only(&request(&mut server, mk_subscribe(Endpoint, &["a", "b"])));
    request(&mut server, mk_ack(&clusters));
    request(&mut server, mk_ack(&endpoints));
    let next = mk_set(2, &[(Cluster, "a", 2), (Cluster, "b", 1), (Endpoint, "a", 1), (Endpoint, "b", 1)]);
    let sent = sent(&server.on_resources(next));
    assert_eq!(sent.iter().map(shape).collect::<Vec<_>>(), [("CDS", vec!["a"], vec![]), ("EDS", vec!["a"], vec![])]);
}

#[test]
fn routes_wait_for_clusters_that_are_held_up_but_endpoints_do_not() {
    let set = |value| {
        mk_set(
            u64::from(value),
            &[(Cluster, "a", value), (Endpoint, "a", value), (Listener, "l", value), (RouteConfiguration, "r", value)],
        )
    };
    let mut server = mk_server(Protocol::Delta, false, &set(1));
    let clusters = only(&request(&mut server, mk_subscribe(Cluster, &[])));
    for (type_url, names) in [(Endpoint, &["a"][..]), (Listener, &[]), (RouteConfiguration, &["r"])] {
        let response = only(&request(&mut server, mk_subscribe(type_url, names)));
        request(&mut server, mk_ack(&response));
    }
    let sent_now = sent(&server.on_resources(set(2)));
    assert_eq!(sent_now.iter().map(|r| shape(r).0).collect::<Vec<_>>(), ["EDS"]);
    let sent_then = sent(&request(&mut server, mk_ack(&clusters)));
    assert_eq!(sent_then.iter().map(|r| shape(r).0).collect::<Vec<_>>(), ["CDS", "LDS", "RDS"]);
}

#[test]
fn a_cluster_goes_after_the_routes_that_led_to_it() {
    let mut server = mk_server(
        Protocol::Delta,
        false,
        &mk_set(1, &[(Cluster, "old", 1), (Endpoint, "old", 1), (RouteConfiguration, "r", 1)]),
    );
    for (type_url, names) in [(Cluster, &[][..]), (Endpoint, &["old"]), (RouteConfiguration, &["r"])] {
        let response = only(&request(&mut server, mk_subscribe(type_url, names)));
        request(&mut server, mk_ack(&response));
    }
    let moved = |generation, route| {
        mk_set(generation, &[(Cluster, "new", 1), (Endpoint, "new", 1), (RouteConfiguration, "r", route)])
    };
    let [clusters, routes] = sent(&server.on_resources(moved(2, BAD))).try_into().unwrap();
    assert_eq!(shape(&clusters), ("CDS", vec!["new"], vec![]));
    assert_eq!(shape(&routes), ("RDS", vec!["r"], vec![]));
    assert_eq!(sent(&request(&mut server, mk_ack(&clusters))), vec![]);
    // The client keeps its old route, and with it the old cluster.
    assert_eq!(sent(&request(&mut server, mk_nack(&routes, "no", &[]))), vec![]);
    let routes = only(&server.on_resources(moved(3, 2)));
    assert_eq!(shape(&routes), ("RDS", vec!["r"], vec![]));
    let [clusters, endpoints] = sent(&request(&mut server, mk_ack(&routes))).try_into().unwrap();
    assert_eq!(shape(&clusters), ("CDS", vec![], vec!["old"]));
    assert_eq!(shape(&endpoints), ("EDS", vec![], vec!["old"]));
    request(&mut server, mk_ack(&clusters));
    assert_eq!(server.applied(), Some(2), "as far as that goes: with a rejection");
    request(&mut server, mk_ack(&endpoints));
    assert_eq!(server.applied(), Some(3));
}

#[test]
fn one_endpoint_change_costs_each_proxy_one_resource_and_one_mark() {
    let names: Vec<_> = (0..1000).map(|number| format!("outbound|80||s{number}.default.svc.cluster.local")).collect();
    let resources: Vec<_> =
        names.iter().flat_map(|name| [(Cluster, name.as_str(), 1), (Endpoint, name.as_str(), 1)]).collect();
    let set = mk_set(1, &resources);
    let mut proxies: Vec<_> = (0..100).map(|_| mk_server(Protocol::Delta, true, &set)).collect();
    for proxy in &mut proxies {
        request(proxy, mk_subscribe(Cluster, &["*"]));
        request(proxy, mk_subscribe(Endpoint, &["*"]));
        for response in sent(&request(proxy, mk_subscribe(Generation, &[]))) {
            request(proxy, mk_ack(&response));
        }
    }
    let name = names.get(500).unwrap();
    let changed = set.of(Endpoint).edited([mk_resource(name, 2)], &[]);
    let next = Arc::new(set.next(2, ["edit-1".into()]).with(Endpoint, changed));
    let mut bytes = 0;
    for proxy in &mut proxies {
        let [endpoints, mark] = sent(&proxy.on_resources(Arc::clone(&next))).try_into().unwrap();
        assert_eq!(shape(&endpoints), ("EDS", vec![name.as_str()], vec![]));
        assert_eq!(shape(&mark).0, "MARK");
        // The content is one allocation for all proxies.
        let content = endpoints.resources.first().unwrap().resource.clone().unwrap().value;
        assert_eq!(content.as_ptr(), next.of(Endpoint).get(name).unwrap().bytes.as_ptr());
        bytes += endpoints.encoded_len() + mark.encoded_len();
    }
    assert_eq!(bytes, 100 * 380);
}

#[test]
fn an_unknown_type_is_answered_empty_and_the_stream_goes_on() {
    let mut server = mk_server(Protocol::Delta, false, &mk_set(1, &[(Cluster, "a", 1)]));
    let strange = DeltaDiscoveryRequest {
        type_url: "type.googleapis.com/envoy.config.route.v3.ScopedRouteConfiguration".into(),
        resource_names_subscribe: vec!["*".into(), "x".into()],
        ..Default::default()
    };
    let answer = only(&request(&mut server, strange.clone()));
    assert_eq!(answer.type_url, strange.type_url);
    assert_eq!((answer.resources.len(), answer.removed_resources), (0, vec!["x".to_owned()]));
    let ack = DeltaDiscoveryRequest { response_nonce: answer.nonce, resource_names_subscribe: vec![], ..strange };
    assert_eq!(request(&mut server, ack), vec![]);
    assert_eq!(shape(&only(&request(&mut server, mk_subscribe(Cluster, &[])))).1, ["a"]);
}

#[test]
fn misuse_closes_the_stream() {
    let set = mk_set(1, &[]);
    let check = |server: &mut ServerSession, request: Request, expect: CloseReason| {
        assert_eq!(server.on_request(request), vec![ServerAction::Close(expect)]);
    };
    let mut server = mk_server(Protocol::Delta, false, &set);
    check(&mut server, Request::Sotw(DiscoveryRequest::default()), CloseReason::WrongProtocol);
    let long = "x".repeat(MAX_NAME_BYTES + 1);
    check(&mut server, Request::Delta(mk_subscribe(Secret, &[&long])), CloseReason::NameTooLong(Secret));
    let many: Vec<_> = (0..=crate::ads::MAX_NAMES).map(|n| n.to_string()).collect();
    let many: Vec<_> = many.iter().map(String::as_str).collect();
    check(&mut server, Request::Delta(mk_subscribe(Endpoint, &many)), CloseReason::TooManyNames(Endpoint));
}

fn sotw(server: &mut ServerSession, request: DiscoveryRequest) -> Vec<DiscoveryResponse> {
    let actions = server.on_request(Request::Sotw(request));
    whole(&actions)
}

fn whole(actions: &[ServerAction]) -> Vec<DiscoveryResponse> {
    let messages = actions.iter().filter_map(|action| match action {
        ServerAction::Send(Response::Sotw(response)) => Some(response.clone()),
        _ => None,
    });
    messages.collect()
}

fn mk_whole_ack(response: &DiscoveryResponse, names: &[&str]) -> DiscoveryRequest {
    DiscoveryRequest {
        version_info: response.version_info.clone(),
        resource_names: names.iter().map(ToString::to_string).collect(),
        type_url: response.type_url.clone(),
        response_nonce: response.nonce.clone(),
        ..Default::default()
    }
}

#[test]
fn whole_states_are_sent_when_anything_changes() {
    let mut server = mk_server(Protocol::Sotw, false, &mk_set(1, &[(Cluster, "a", 1), (Cluster, "b", 1)]));
    let first = DiscoveryRequest { type_url: Cluster.as_str().into(), ..Default::default() };
    let [response] = sotw(&mut server, first.clone()).try_into().unwrap();
    assert_eq!(response.resources.len(), 2);
    assert!(sotw(&mut server, mk_whole_ack(&response, &[])).is_empty());
    assert!(
        server
            .on_resources(mk_set(2, &[(Cluster, "a", 1), (Cluster, "b", 1)]))
            .iter()
            .all(|a| !matches!(a, ServerAction::Send(_)))
    );
    let [next] = whole(&server.on_resources(mk_set(3, &[(Cluster, "a", 2), (Cluster, "b", 1)]))).try_into().unwrap();
    assert_eq!(next.resources.len(), 2, "all of them, though one changed");
    // Stale nonce: ignored, names and all.
    let stale = mk_whole_ack(&response, &["a"]);
    assert!(sotw(&mut server, stale).is_empty());
    assert!(server.status(Cluster).unwrap().wildcard);
    // A reconnect with the version of what is served is sent nothing; with another one, everything.
    let set = Arc::clone(server.resources());
    let mut server = mk_server(Protocol::Sotw, false, &set);
    let held = DiscoveryRequest { version_info: next.version_info.clone(), ..first.clone() };
    assert!(sotw(&mut server, held).is_empty());
    let mut server = mk_server(Protocol::Sotw, false, &set);
    let held = DiscoveryRequest { version_info: response.version_info, ..first };
    assert_eq!(sotw(&mut server, held).len(), 1);
}

#[test]
fn whole_states_follow_the_names() {
    let set = mk_set(1, &[(Endpoint, "a", 1), (Endpoint, "b", 1)]);
    let mut server = mk_server(Protocol::Sotw, false, &set);
    let first =
        DiscoveryRequest { type_url: Endpoint.as_str().into(), resource_names: vec!["a".into()], ..Default::default() };
    let [response] = sotw(&mut server, first).try_into().unwrap();
    assert_eq!(response.resources.len(), 1);
    let [response] = sotw(&mut server, mk_whole_ack(&response, &["a", "b"])).try_into().unwrap();
    assert_eq!(response.resources.len(), 2);
    let nack = DiscoveryRequest { error_detail: Some(nack_status("no", &[])), ..mk_whole_ack(&response, &["a", "b"]) };
    assert!(sotw(&mut server, nack).is_empty(), "the same is not sent again after a NACK");
    assert_eq!(server.status(Endpoint).unwrap().nack.unwrap().reason, "no");
    let [response] =
        whole(&server.on_resources(mk_set(2, &[(Endpoint, "a", 1), (Endpoint, "b", 2)]))).try_into().unwrap();
    sotw(&mut server, mk_whole_ack(&response, &["a", "b"]));
    assert_eq!(server.status(Endpoint).unwrap().nack, None);
}
