//! Scripts for the client, against a server where that is shorter.

use super::*;
use crate::ads::CloseReason;
use crate::ads::client::{Absence, Interest};
use crate::discovery::{DeltaDiscoveryRequest, DeltaDiscoveryResponse, Resource};
use TypeUrl::{Cluster, Endpoint, Generation, Listener, VirtualHost};

fn requests(actions: &[ClientAction]) -> Vec<DeltaDiscoveryRequest> {
    let messages = actions.iter().filter_map(|action| match action {
        ClientAction::Send(Request::Delta(request)) => Some(request.clone()),
        _ => None,
    });
    messages.collect()
}

fn mk_response(type_url: TypeUrl, nonce: &str, upserts: &[(&str, u32)], removed: &[&str]) -> Response {
    let resource = |(name, value): &(&str, u32)| {
        let encoded = mk_resource(name, *value);
        Resource {
            version: value.to_string(),
            resource: Some(crate::discovery::Any { type_url: type_url.as_str().into(), value: encoded.bytes.clone() }),
            name: name.to_string(),
            aliases: vec![],
        }
    };
    Response::Delta(DeltaDiscoveryResponse {
        resources: upserts.iter().map(resource).collect(),
        type_url: type_url.as_str().into(),
        nonce: nonce.into(),
        removed_resources: removed.iter().map(ToString::to_string).collect(),
        ..Default::default()
    })
}

fn held(client: &ClientSession, type_url: TypeUrl) -> Vec<(&str, &str)> {
    client.held(type_url).iter().map(|(name, version)| (name.as_str(), version.as_str())).collect()
}

#[test]
fn the_node_goes_with_the_first_request_of_a_stream_and_the_mark_is_asked_for_last() {
    let mut client = mk_client(Protocol::Delta);
    assert_eq!(client.subscribe(Generation, Interest::All), vec![]);
    client.subscribe(Cluster, Interest::All);
    client.subscribe(Endpoint, Interest::All);
    for _ in 0..2 {
        let sent = requests(&client.on_connected());
        let shape: Vec<_> = sent.iter().map(|r| (TypeUrl::parse(&r.type_url).unwrap().short(), r.node.len())).collect();
        assert_eq!(shape, [("CDS", 4), ("EDS", 0), ("MARK", 0)]);
        assert_eq!(sent.get(1).unwrap().resource_names_subscribe, ["*"]);
    }
}

#[test]
fn what_is_rejected_is_not_held_and_the_last_good_version_is() {
    let mut client = mk_client(Protocol::Delta);
    client.subscribe(Cluster, Interest::All);
    client.on_connected();
    client.on_response(mk_response(Cluster, "1", &[("a", 1), ("b", 1)], &[]));
    assert_eq!(held(&client, Cluster), [], "nothing is held before it is accepted");
    let answer = requests(&client.ack(Cluster));
    assert_eq!((answer.len(), answer.first().unwrap().response_nonce.as_str()), (1, "1"));
    assert_eq!(held(&client, Cluster), [("a", "1"), ("b", "1")]);

    client.on_response(mk_response(Cluster, "2", &[("a", 2), ("b", 2), ("new", 2)], &[]));
    let rejections = ["a", "new"].map(|name| Rejection { name: name.into(), path: "x".into(), reason: "no".into() });
    let answer = requests(&client.nack(Cluster, "no", &rejections));
    let error = answer.first().unwrap().error_detail.clone().unwrap();
    assert_eq!((error.code, error.message.as_str()), (3, "no"));
    assert_eq!(crate::ads::rejections_of(&error), rejections);
    assert_eq!(held(&client, Cluster), [("a", "1"), ("b", "2")]);

    let again = requests(&client.on_connected());
    let reported: Vec<_> = again.first().unwrap().initial_resource_versions.clone().into_iter().collect();
    assert_eq!(reported, [("a".to_owned(), "1".to_owned()), ("b".to_owned(), "2".to_owned())]);
}

#[test]
fn a_whole_rejection_changes_nothing() {
    let mut client = mk_client(Protocol::Delta);
    client.subscribe(Cluster, Interest::All);
    client.on_connected();
    client.on_response(mk_response(Cluster, "1", &[("a", 1)], &[]));
    client.ack(Cluster);
    client.on_response(mk_response(Cluster, "2", &[("b", 1)], &["a"]));
    client.nack(Cluster, "does not parse", &[]);
    assert_eq!(held(&client, Cluster), [("a", "1")]);
}

#[test]
fn answers_are_given_for_each_response_and_never_twice() {
    let mut client = mk_client(Protocol::Delta);
    client.subscribe(Cluster, Interest::All);
    client.on_connected();
    client.on_response(mk_response(Cluster, "1", &[("a", 1)], &[]));
    client.on_response(mk_response(Cluster, "2", &[("b", BAD)], &[]));
    let rejection = Rejection { name: "b".into(), path: Str::empty(), reason: "no".into() };
    let answers = requests(&client.nack(Cluster, "no", &[rejection]));
    let shape: Vec<_> = answers.iter().map(|a| (a.response_nonce.as_str(), a.error_detail.is_some())).collect();
    assert_eq!(shape, [("1", false), ("2", true)]);
    assert_eq!(client.ack(Cluster), vec![]);
    // A response of a stream that ended is not answered on the next one.
    client.on_response(mk_response(Cluster, "3", &[("c", 1)], &[]));
    client.on_connected();
    assert_eq!(client.ack(Cluster), vec![]);
    assert_eq!(held(&client, Cluster), [("a", "1")]);
}

#[test]
fn a_demand_is_asked_once_and_ends_with_the_resource_or_its_absence() {
    let now = epoch();
    let mut client = mk_client(Protocol::Delta);
    client.on_connected();
    let name = Str::from("80/a");
    let actions = client.demand(VirtualHost, &name, now);
    assert_eq!(requests(&actions).first().unwrap().resource_names_subscribe, ["80/a"]);
    let until = now + Duration::from_secs(2);
    assert_eq!(actions.last(), Some(&ClientAction::WakeAt(until)));
    assert_eq!(client.demand(VirtualHost, &name, now), vec![], "asked for already");
    client.on_response(mk_response(VirtualHost, "1", &[("80/a", 1)], &[]));
    client.ack(VirtualHost);
    assert!(client.holds(VirtualHost, "80/a"));
    assert_eq!(client.demand(VirtualHost, &name, now), vec![], "held");
    assert_eq!(client.on_wake(until), vec![], "answered in time");

    let name = Str::from("80/b");
    client.demand(VirtualHost, &name, now);
    let absent = |reason| ClientAction::Absent { type_url: VirtualHost, name: Str::from("80/b"), reason };
    assert_eq!(client.on_wake(until), vec![absent(Absence::TimedOut)]);
    assert_eq!(requests(&client.demand(VirtualHost, &name, until)).len(), 1, "asked again after the time ran out");
    let actions = client.on_response(mk_response(VirtualHost, "2", &[], &["80/b"]));
    assert!(actions.contains(&absent(Absence::Unknown)));
    client.ack(VirtualHost);
    let released = requests(&client.unsubscribe(VirtualHost, &[name]));
    assert_eq!(released.first().unwrap().resource_names_unsubscribe, ["80/b"]);
}

#[test]
fn demands_are_bounded() {
    let now = epoch();
    let mut client = mk_client(Protocol::Delta);
    for number in 0..8 {
        assert_eq!(client.demand(VirtualHost, &Str::from(format!("80/{number}")), now).len(), usize::from(number == 0));
    }
    let name = Str::from("80/one-too-many");
    let refused = ClientAction::Absent { type_url: VirtualHost, name: name.clone(), reason: Absence::Refused };
    assert_eq!(client.demand(VirtualHost, &name, now), vec![refused]);
}

#[test]
fn demands_by_alias_follow_their_virtual_host() {
    let set = mk_set(1, &[(VirtualHost, "80/a", 1)]);
    let mut pair = Pair::new(Protocol::Delta, false, &set);
    pair.connect(Protocol::Delta, &set);
    for name in ["80/a.alias", "80/a"] {
        let actions = pair.client.demand(VirtualHost, &Str::from(name), epoch());
        pair.obey(actions);
        pair.settle();
    }
    assert_eq!(pair.live_of(VirtualHost).len(), 1);
    assert!(pair.client.holds(VirtualHost, "80/a.alias"));
    // One of the two names is released: the host stays for the other.
    let actions = pair.client.unsubscribe(VirtualHost, &[Str::from("80/a")]);
    pair.obey(actions);
    pair.settle();
    assert!(pair.client.holds(VirtualHost, "80/a.alias"));
    pair.publish(&mk_set(2, &[]));
    pair.settle();
    assert_eq!(pair.live_of(VirtualHost).len(), 0);
    assert!(!pair.client.holds(VirtualHost, "80/a.alias"));
}

#[test]
fn a_restarted_server_sends_nothing_that_is_held() {
    let resources = [(Cluster, "a", 1), (Endpoint, "a", 1), (Listener, "l", 1), (VirtualHost, "80/a", 1)];
    for marks in [false, true] {
        let set = mk_set(5, &resources);
        let mut pair = Pair::new(Protocol::Delta, marks, &set);
        for type_url in [Cluster, Endpoint, Listener] {
            pair.client.subscribe(type_url, Interest::All);
        }
        if marks {
            pair.client.subscribe(Generation, Interest::All);
        }
        pair.client.demand(VirtualHost, &Str::from("80/a.alias"), epoch());
        pair.connect(Protocol::Delta, &set);
        pair.settle();
        assert_eq!(pair.resources_sent, 4);
        // The new server counts its generations from the start.
        let set = mk_set(1, &resources);
        pair.connect(Protocol::Delta, &set);
        pair.settle();
        assert_eq!(pair.resources_sent, 4, "marks: {marks}");
        assert_eq!(pair.applied.last(), Some(&(1, vec![])));
        // And what changed while they were apart is sent, and only that.
        let set = mk_set(2, &[(Cluster, "a", 2), (Endpoint, "a", 1), (Listener, "l", 1)]);
        pair.connect(Protocol::Delta, &set);
        pair.settle();
        // An Envoy-like client gets the endpoints of the changed cluster again.
        assert_eq!(pair.resources_sent, if marks { 6 } else { 7 });
        assert_eq!(pair.live_of(Cluster), [("a", 2)].into());
        assert_eq!(pair.live_of(VirtualHost), [].into());
    }
}

#[test]
fn a_flood_of_responses_closes_the_stream() {
    let mut client = mk_client(Protocol::Delta);
    client.subscribe(Cluster, Interest::All);
    client.on_connected();
    for nonce in 0..crate::ads::MAX_UNANSWERED {
        client.on_response(mk_response(Cluster, &nonce.to_string(), &[], &[]));
    }
    let actions = client.on_response(mk_response(Cluster, "x", &[], &[]));
    assert_eq!(actions, vec![ClientAction::Close(CloseReason::TooManyResponses(Cluster))]);
}

#[test]
fn an_unreadable_whole_state_is_rejected() {
    let mut client = mk_client(Protocol::Sotw);
    client.subscribe(Cluster, Interest::All);
    client.on_connected();
    let response = crate::discovery::DiscoveryResponse {
        resources: vec![crate::discovery::Any { type_url: String::new(), value: Bytes::from_static(&[0xff]) }],
        type_url: Cluster.as_str().into(),
        nonce: "1".into(),
        ..Default::default()
    };
    let actions = client.on_response(Response::Sotw(response));
    let [ClientAction::Send(Request::Sotw(answer))] = actions.as_slice() else { panic!("{actions:?}") };
    assert!(answer.error_detail.is_some());
}
