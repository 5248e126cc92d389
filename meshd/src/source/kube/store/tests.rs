use mesh_api::received::received;
use serde_json::{Value, json};

use super::*;

struct Bed {
    store: Store,
}

fn mk_bed(revision: &str) -> Bed {
    let viewer = Viewer {
        cluster: ClusterId::from("c"),
        revision: Revision::from(revision),
        config: MeshConfigPlace::default(),
    };
    Bed { store: Store::new(viewer) }
}

impl Bed {
    #[track_caller]
    fn put(&mut self, kind: Kind, namespace: &str, name: &str, more: Value, expect: &[&str]) {
        let mut object = json!({"metadata": {"name": name, "namespace": namespace}});
        for (field, value) in more.as_object().unwrap() {
            match field.as_str() {
                "labels" => object["metadata"]["labels"] = value.clone(),
                _ => object[field] = value.clone(),
            }
        }
        let seen = match received(kind, &object.to_string()) {
            Ok(received) => Seen::There(Box::new(received)),
            Err(refused) => Seen::Refused(refused),
        };
        let mut changes = Vec::new();
        self.store.take(kind, 0, seen, &mut changes);
        assert_eq!(words(&changes), expect);
    }

    #[track_caller]
    fn gone(&mut self, kind: Kind, namespace: &str, name: &str, expect: &[&str]) {
        let mut changes = Vec::new();
        self.store.take(kind, 0, Seen::Gone(namespace.into(), name.into()), &mut changes);
        assert_eq!(words(&changes), expect);
    }

    #[track_caller]
    fn configure(&mut self, mesh: &str, expect: &[&str]) {
        self.put(Kind::ConfigMap, "istio-system", "istio", json!({"data": {"mesh": mesh}}), expect);
    }
}

fn words(changes: &[Change]) -> Vec<String> {
    let word = |change: &Change| match change {
        Change::Upsert { cluster, object } => format!("+{}", object.key().in_cluster(cluster.clone())),
        Change::Delete(key) => format!("-{key}"),
        Change::Resync { kind, .. } => format!("={kind}"),
        Change::Findings { origin, findings } => format!("{origin}: {} findings", findings.len()),
    };
    changes.iter().map(word).collect()
}

#[test]
fn objects_of_other_revisions_are_not_seen() {
    let mut bed = mk_bed("canary");
    let rev = |rev: &str| json!({"labels": {"istio.io/rev": rev}, "spec": {"selector": {"matchLabels": {"a": "b"}}}});
    let kind = Kind::PeerAuthentication;
    bed.put(kind, "shop", "all", json!({}), &["+PeerAuthentication/shop/all"]);
    bed.put(kind, "shop", "a", rev("canary"), &["+PeerAuthentication/shop/a"]);
    bed.put(kind, "shop", "b", rev("default"), &[]);
    // It changes hands, and comes back.
    bed.put(kind, "shop", "a", rev("default"), &["-PeerAuthentication/shop/a"]);
    bed.put(kind, "shop", "a", rev("canary"), &["+PeerAuthentication/shop/a"]);
    bed.gone(kind, "shop", "b", &[]);
    bed.gone(kind, "shop", "a", &["-PeerAuthentication/shop/a"]);
    // The label is for the mesh's own kinds: pods carry it for other reasons.
    bed.put(Kind::Pod, "shop", "p", json!({"labels": {"istio.io/rev": "default"}}), &["+Pod/shop/p"]);
}

#[test]
fn a_tag_is_another_name_of_the_revision() {
    let mut bed = mk_bed("canary");
    let kind = Kind::PeerAuthentication;
    bed.put(kind, "shop", "a", json!({"labels": {"istio.io/rev": "prod"}}), &[]);
    let mut tag = |tags: &[&str], expect: &[&str]| {
        let mut changes = Vec::new();
        bed.store.set_tags(tags.iter().copied().map(Str::from).collect(), &mut changes);
        assert_eq!(words(&changes), expect);
    };
    tag(&["prod", "test"], &["+PeerAuthentication/shop/a"]);
    tag(&["prod"], &[]);
    tag(&[], &["-PeerAuthentication/shop/a"]);
}

#[test]
fn namespaces_that_are_not_selected_are_not_seen() {
    let mut bed = mk_bed("default");
    let (mesh, other) = (json!({"labels": {"mesh": "on"}}), json!({"labels": {"mesh": "off"}}));
    bed.put(Kind::Namespace, "", "shop", mesh.clone(), &["+Namespace/shop"]);
    bed.put(Kind::Namespace, "", "bank", other.clone(), &["+Namespace/bank"]);
    bed.put(Kind::Service, "shop", "web", json!({}), &["+Service/shop/web"]);
    bed.put(Kind::Service, "bank", "till", json!({}), &["+Service/bank/till"]);
    let config = "discoverySelectors: [{matchLabels: {mesh: 'on'}}]";
    bed.configure(config, &["+ConfigMap/istio-system/istio", "-Service/bank/till"]);
    bed.put(Kind::Service, "bank", "till", json!({}), &[]);
    bed.put(Kind::Service, "nowhere", "x", json!({}), &[]);
    // Its objects come with the namespace, and go with it.
    bed.put(Kind::Namespace, "", "bank", mesh, &["+Namespace/bank", "+Service/bank/till"]);
    bed.put(Kind::Namespace, "", "shop", other, &["+Namespace/shop", "-Service/shop/web"]);
    bed.gone(Kind::Namespace, "", "bank", &["-Namespace/bank", "-Service/bank/till"]);
    // What is wrong leaves everything as it is.
    bed.configure("discoverySelectors: nonsense", &["+ConfigMap/istio-system/istio"]);
    bed.configure(
        "discoverySelectors: [{matchExpressions: [{key: a, operator: Like}]}]",
        &["+ConfigMap/istio-system/istio"],
    );
    bed.gone(
        Kind::ConfigMap,
        "istio-system",
        "istio",
        &["-ConfigMap/istio-system/istio", "+Service/bank/till", "+Service/nowhere/x", "+Service/shop/web"],
    );
}

#[test]
fn findings_come_and_go_with_what_is_seen() {
    let mut bed = mk_bed("default");
    let kind = Kind::AuthorizationPolicy;
    let broken = json!({"spec": {"action": "MAYBE"}});
    let (there, finds) = ("+AuthorizationPolicy/shop/p", "AuthorizationPolicy/shop/p in c: 1 findings");
    bed.put(kind, "shop", "p", broken.clone(), &[there, finds]);
    let fine = "AuthorizationPolicy/shop/p in c: 0 findings";
    bed.configure(
        "discoverySelectors: [{matchLabels: {mesh: 'on'}}]",
        &["+ConfigMap/istio-system/istio", "-AuthorizationPolicy/shop/p", fine],
    );
    bed.put(kind, "shop", "p", broken, &[]);
    bed.put(Kind::Namespace, "", "shop", json!({"labels": {"mesh": "on"}}), &["+Namespace/shop", there, finds]);
    bed.put(kind, "shop", "p", json!({"spec": {}}), &[there, fine]);
    bed.gone(kind, "shop", "p", &["-AuthorizationPolicy/shop/p"]);
}

#[test]
fn what_is_of_no_use_is_forgotten() {
    let mut bed = mk_bed("default");
    let pod = |phase: &str| json!({"status": {"phase": phase}});
    bed.put(Kind::Pod, "shop", "job", pod("Running"), &["+Pod/shop/job"]);
    bed.put(Kind::Pod, "shop", "job", pod("Succeeded"), &["-Pod/shop/job"]);
    assert_eq!(bed.store.count(Kind::Pod), 0);
}
