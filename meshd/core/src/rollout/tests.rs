use mesh_api::kinds::Kind;

use super::*;

const MS: Duration = Duration::from_millis(1);

#[expect(clippy::disallowed_methods, reason = "an origin of made-up time")]
fn origin() -> Instant {
    Instant::now()
}

fn mk_proxy(name: &str) -> ProxyKey {
    ProxyKey(Str::from(name))
}

fn mk_object() -> ObjectKey {
    ObjectKey::new(Kind::VirtualService, "shop", "web")
}

#[test]
fn a_change_is_done_when_every_expected_proxy_confirmed_it() {
    let t0 = origin();
    let (a, b) = (mk_proxy("a"), mk_proxy("b"));
    let mut rollout = Rollout::default();
    rollout.connected(a.clone(), t0);
    rollout.connected(b.clone(), t0);
    rollout.received(ChangeId(1), vec![mk_object()], t0);
    rollout.expect(&a, [ChangeId(1)]);
    rollout.expect(&b, [ChangeId(1)]);
    rollout.published(ChangeId(1));
    rollout.sent(&a, TypeUrl::Cluster, "n1", "v1", t0 + MS);
    rollout.acked(&a, TypeUrl::Cluster, "n1", t0 + 3 * MS);
    rollout.settled(&a, ChangeId(1), t0 + 3 * MS);
    let status = rollout.change_status(ChangeId(1)).unwrap();
    assert_eq!((status.expected, status.confirmed, status.done), (2, 1, false));
    assert_eq!(status.waiting.as_slice(), std::slice::from_ref(&b));
    rollout.settled(&b, ChangeId(1), t0 + 9 * MS);
    let status = rollout.change_status(ChangeId(1)).unwrap();
    assert_eq!((status.confirmed, status.done, status.took), (2, true, Some(9 * MS)));
    let times = rollout.convergence();
    assert_eq!((times.count, times.p50, times.p99, times.max), (2, 3 * MS, 9 * MS, 9 * MS));
    assert_eq!(rollout.last_change_of(&mk_object()), Some(ChangeId(1)));
}

#[test]
fn a_rejection_stands_until_something_newer_is_accepted() {
    let t0 = origin();
    let a = mk_proxy("a");
    let mut rollout = Rollout::default();
    rollout.connected(a.clone(), t0);
    rollout.received(ChangeId(1), vec![mk_object()], t0);
    rollout.expect(&a, [ChangeId(1)]);
    rollout.published(ChangeId(1));
    rollout.sent(&a, TypeUrl::Listener, "n1", "v1", t0);
    rollout.nacked(&a, TypeUrl::Listener, "n1", "bad address", t0 + MS);
    rollout.settled(&a, ChangeId(1), t0 + MS);
    let status = rollout.change_status(ChangeId(1)).unwrap();
    assert_eq!((status.nacked.as_slice(), status.confirmed), ([a.clone()].as_slice(), 0));
    let SyncState::Error(nack) = rollout.proxy_status(&a).unwrap().of(TypeUrl::Listener).clone() else {
        panic!("a rejection is an error");
    };
    assert_eq!((nack.reason.as_str(), nack.since), ("bad address", t0 + MS));
    rollout.sent(&a, TypeUrl::Listener, "n2", "v2", t0 + 2 * MS);
    rollout.nacked(&a, TypeUrl::Listener, "n2", "still bad", t0 + 3 * MS);
    let SyncState::Error(nack) = rollout.proxy_status(&a).unwrap().of(TypeUrl::Listener).clone() else {
        panic!("a rejection is an error");
    };
    assert_eq!(nack.since, t0 + MS, "the first time is kept");
    rollout.sent(&a, TypeUrl::Listener, "n3", "v3", t0 + 4 * MS);
    rollout.acked(&a, TypeUrl::Listener, "n3", t0 + 5 * MS);
    rollout.settled(&a, ChangeId(1), t0 + 5 * MS);
    assert!(rollout.change_status(ChangeId(1)).unwrap().done);
}

#[test]
fn types_read_as_synced_stale_or_not_sent() {
    let t0 = origin();
    let a = mk_proxy("a");
    let mut rollout = Rollout::default();
    rollout.connected(a.clone(), t0);
    let state = |rollout: &Rollout| rollout.proxy_status(&mk_proxy("a")).unwrap().of(TypeUrl::Endpoint).clone();
    assert_eq!(state(&rollout), SyncState::NotSent);
    rollout.sent(&a, TypeUrl::Endpoint, "1", "v1", t0);
    assert_eq!(state(&rollout), SyncState::Stale { sent: Str::from("v1"), acked: None, since: t0 });
    rollout.acked(&a, TypeUrl::Endpoint, "stale nonce", t0);
    assert!(matches!(state(&rollout), SyncState::Stale { .. }));
    rollout.sent(&a, TypeUrl::Endpoint, "2", "v2", t0 + MS);
    rollout.acked(&a, TypeUrl::Endpoint, "1", t0 + 2 * MS);
    let stale = SyncState::Stale { sent: Str::from("v2"), acked: Some(Str::from("v1")), since: t0 + MS };
    assert_eq!(state(&rollout), stale);
    rollout.acked(&a, TypeUrl::Endpoint, "2", t0 + 3 * MS);
    assert_eq!(state(&rollout), SyncState::Synced { version: Str::from("v2"), at: t0 + 3 * MS });
    assert_eq!(rollout.proxy_status(&mk_proxy("b")), None);
}

#[test]
fn a_proxy_that_leaves_does_not_hold_a_change_open() {
    let t0 = origin();
    let a = mk_proxy("a");
    let mut rollout = Rollout::default();
    rollout.connected(a.clone(), t0);
    rollout.received(ChangeId(7), vec![], t0);
    rollout.expect(&a, [ChangeId(7)]);
    rollout.published(ChangeId(7));
    rollout.disconnected(&a);
    let status = rollout.change_status(ChangeId(7)).unwrap();
    assert_eq!((status.expected, status.confirmed, status.lost, status.done), (1, 0, 1, true));
}

#[test]
fn memory_is_bounded() {
    let t0 = origin();
    let a = mk_proxy("a");
    let mut rollout = Rollout::default();
    rollout.connected(a.clone(), t0);
    for id in 0..3000 {
        rollout.received(ChangeId(id), vec![], t0);
        rollout.expect(&a, [ChangeId(id)]);
        rollout.sent(&a, TypeUrl::Cluster, &id.to_string(), "v", t0);
    }
    assert_eq!(rollout.changes().count(), MAX_CHANGES);
    rollout.settled(&a, ChangeId(u64::MAX), t0 + MS);
    assert_eq!(rollout.convergence().count, MAX_CHANGES);
}
