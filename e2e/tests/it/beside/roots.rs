//! A root that nobody brought: Istio made one, and ours issues under it.

use e2e::cluster::mesh::{SYSTEM, meshctl};
use e2e::cluster::{Cluster, Namespace};

use super::fleet::{BY_ISTIO, BY_OURS, OURS, ask, both, istio, istio_with, seen, shop};
use super::traffic::STRICT;

/// The Secret of Istio's own root.
const SECRET: &str = "istio-ca-secret";

/// Takes both meshes out, with their roots.
fn none(cluster: &Cluster) {
    if cluster.find("apps/v1", "Deployment", Some(SYSTEM), "istiod-lateen").is_some() {
        _ = meshctl(&["uninstall", "--revision", OURS, "-y"]);
    }
    istio("uninstall");
}

fn known_to_each_other(from: &Namespace, to: &Namespace) {
    let client = seen(&ask(from, to, "/echo", 200), "x-forwarded-client-cert").unwrap_or_default();
    assert!(client.contains(&format!("URI=spiffe://cluster.local/ns/{}/sa/caller", from.name)), "{client}");
}

#[test]
#[ignore = "needs a cluster with Istio: cargo xtask e2e --beside"]
fn beside_a_root_of_istios_own_making_is_shared_and_outlives_it() {
    let cluster = Cluster::connect();
    none(&cluster);
    istio_with("install", &[("AUTHORITY", "own")]);
    both(&cluster);
    cluster.apply(Some(SYSTEM), STRICT);
    let made = cluster.find("v1", "Secret", Some(SYSTEM), SECRET).expect("Istio made a root");
    let istio = shop(&cluster, "beside-istio", BY_ISTIO, &["v1"]);
    let ours = shop(&cluster, "beside-ours", BY_OURS, &["v1"]);
    known_to_each_other(&istio, &ours);
    known_to_each_other(&ours, &istio);

    // The root is Istio's to write, and stays when Istio goes.
    _ = super::fleet::istioctl(&["uninstall", "--purge", "-y"]);
    cluster.restart(&ours.name, "caller-v1");
    ours.rolled_out("Deployment", "caller-v1");
    known_to_each_other(&ours, &istio);
    let left = cluster.find("v1", "Secret", Some(SYSTEM), SECRET).expect("the root is still there");
    assert_eq!(left["data"], made["data"], "nobody wrote it");
    none(&cluster);
}
