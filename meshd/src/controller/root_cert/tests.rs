use std::time::SystemTime;

use mesh_api_rt::metrics::Metrics;
use mesh_ca::testing::TestCa;
use serde_json::json;

use super::*;
use crate::kube::fake::Objects;

fn mk_bundle(years: u32) -> TrustBundle {
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000 + u64::from(years));
    TestCa::new(now).bundle().clone()
}

fn mk_facts(labels: &[(&str, &str)], roots: &TrustBundle) -> Facts {
    let labels = labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    Facts { labels, roots: roots.to_pem(), version: Some("1".to_owned()), ..Facts::default() }
}

#[test]
fn what_is_ours_is_put_right_and_what_is_istios_is_left() {
    let (ours, other) = (mk_bundle(0), mk_bundle(1));
    let owner = Owner::new("istio-system", "default");
    let lateen = [(MANAGED_BY_LABEL, MANAGED_BY), (REVISION_LABEL, "default")];
    let canary = [(MANAGED_BY_LABEL, MANAGED_BY), (REVISION_LABEL, "canary")];
    let istio = [("istio.io/config", "true")];
    let both = ours.union(&other);
    #[track_caller]
    fn check(found: Option<&Facts>, ours: &TrustBundle, owner: &Owner, expect: Action) {
        assert_eq!(decide(found, ours, owner), expect, "{found:?}");
    }
    check(None, &ours, &owner, Action::Create);
    check(Some(&mk_facts(&lateen, &ours)), &ours, &owner, Action::Leave);
    check(Some(&mk_facts(&lateen, &both)), &ours, &owner, Action::Replace);
    check(Some(&mk_facts(&lateen, &other)), &ours, &owner, Action::Replace);
    // Another revision may be a step ahead with the same authority.
    check(Some(&mk_facts(&canary, &both)), &ours, &owner, Action::Leave);
    let writer = Writer::Lateen(Owner::new("istio-system", "canary"));
    check(Some(&mk_facts(&canary, &other)), &ours, &owner, Action::ReplaceUnlessAlive(writer));
    // One of the same revision in another namespace is another one.
    let mut elsewhere = mk_facts(&lateen, &other);
    elsewhere.annotations.insert(CONTROL_PLANE_ANNOTATION.to_owned(), "mesh".to_owned());
    let writer = Writer::Lateen(Owner::new("mesh", "default"));
    check(Some(&elsewhere), &ours, &owner, Action::ReplaceUnlessAlive(writer));
    check(Some(&mk_facts(&istio, &ours)), &ours, &owner, Action::Leave);
    check(Some(&mk_facts(&istio, &other)), &ours, &owner, Action::ReplaceUnlessAlive(Writer::Istio));
    let broken = Facts { roots: "nonsense".into(), ..mk_facts(&istio, &ours) };
    check(Some(&broken), &ours, &owner, Action::ReplaceUnlessAlive(Writer::Istio));
}

#[test]
fn a_lock_that_nobody_renews_is_nobodys() {
    let now: Timestamp = "2026-01-01T12:00:00Z".parse().unwrap();
    let lock = |holder: &str, at: &str| {
        format!(r#"{{"holderIdentity":"{holder}","leaseDurationSeconds":30,"renewTime":"{at}","leaderTransitions":1}}"#)
    };
    assert!(is_held(&lock("istiod-1", "2026-01-01T11:59:50Z"), now));
    assert!(!is_held(&lock("istiod-1", "2026-01-01T11:00:00Z"), now));
    assert!(!is_held(&lock("", "2026-01-01T11:59:50Z"), now));
    assert!(is_held("nonsense", now));
}

/// A round that has listed one namespace.
fn mk_round<'a>(certs: &'a RootCerts, objects: &Objects) -> Round<'a> {
    let mut round = Round::new(certs);
    round.listed = (true, true);
    round.namespaces.insert("shop".to_owned());
    round.dirty.insert("shop".to_owned());
    if let Some(map) = objects.get(MAP) {
        round.maps.insert("shop".to_owned(), Facts::of(serde_json::from_value(map).unwrap()));
    }
    round
}

fn mk_certs(objects: &Objects, bundle: &TrustBundle) -> RootCerts {
    let metrics = Metrics::new().register().unwrap();
    let owner = Owner::new("istio-system", "default");
    RootCerts::new(objects.client(), owner, watch::channel(bundle.clone()).1, metrics)
}

const MAP: &str = "/api/v1/namespaces/shop/configmaps/istio-ca-root-cert";

#[tokio::test(start_paused = true)]
async fn a_live_control_plane_is_not_fought_and_a_gone_one_is_followed() {
    let (ours, other) = (mk_bundle(0), mk_bundle(1));
    let objects = Objects::default();
    let certs = mk_certs(&objects, &ours);
    let labels = json!({"app.kubernetes.io/managed-by": "lateen", "istio.io/rev": "canary"});
    let map = json!({"metadata": {"name": CA_ROOT_CONFIG_MAP, "namespace": "shop", "labels": labels},
        "data": {"root-cert.pem": other.to_pem()}});
    objects.put(MAP, map);
    let lease = |at: Timestamp| {
        let time = k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime(at);
        json!({"metadata": {"name": "x"}, "spec": {"holderIdentity": "a", "renewTime": time}})
    };
    let place = "/apis/coordination.k8s.io/v1/namespaces/istio-system/leases/lateen-leader-canary";
    objects.put(place, lease(Timestamp::now()));
    let mut round = mk_round(&certs, &objects);
    round.work().await;
    assert!(objects.writes().is_empty() && certs.metrics.foreign_roots.get() == 1);
    objects.put(place, lease(Timestamp::UNIX_EPOCH));
    tokio::time::advance(ALIVE_LOOK).await;
    round.dirty.insert("shop".to_owned());
    round.work().await;
    assert_eq!((objects.writes().len(), certs.metrics.foreign_roots.get()), (1, 0));
    let written = objects.get(MAP).unwrap();
    assert_eq!(written["data"]["root-cert.pem"], ours.to_pem());
    assert_eq!(written["metadata"]["labels"]["istio.io/rev"], "default");
}

#[tokio::test(start_paused = true)]
async fn what_was_changed_is_put_right_but_not_for_ever() {
    let (ours, other) = (mk_bundle(0), mk_bundle(1));
    let objects = Objects::default();
    let certs = mk_certs(&objects, &ours);
    let mut round = mk_round(&certs, &objects);
    round.work().await;
    assert_eq!(objects.writes(), ["POST /api/v1/namespaces/shop/configmaps"]);
    for _ in 0..20 {
        let mut map = objects.get(MAP).unwrap();
        map["data"]["root-cert.pem"] = json!(other.to_pem());
        objects.put(MAP, map.clone());
        round.maps.insert("shop".to_owned(), Facts::of(serde_json::from_value(objects.get(MAP).unwrap()).unwrap()));
        round.dirty.insert("shop".to_owned());
        round.work().await;
    }
    assert_eq!(objects.writes().len(), REWRITES as usize, "of two that fight, one stops");
    tokio::time::advance(REWRITES_WITHIN * 2).await;
    round.dirty.insert("shop".to_owned());
    round.work().await;
    assert_eq!(objects.get(MAP).unwrap()["data"]["root-cert.pem"], ours.to_pem());
}
