//! A namespace moves from Istio to us, and back, under load.

use e2e::cluster::mesh::SYSTEM;
use e2e::cluster::pods::Load;
use e2e::cluster::{Cluster, Namespace, wait};

use super::fleet::{BY_ISTIO, BY_OURS, ask, both, is_istios, relabel, seen, shop};
use super::traffic::STRICT;

/// Makes all pods of a shop anew, one deployment after the other, and tells whose their proxies are then.
fn restart(shop: &Namespace, istios: bool) {
    for name in ["catalogue-v1", "catalogue-v2"] {
        shop.cluster.restart(&shop.name, name);
        shop.rolled_out("Deployment", name);
    }
    wait("the old pods are gone", || {
        let pods = shop.pods("app=catalogue");
        if pods.len() == 2 && pods.iter().all(|pod| is_istios(pod) == istios) { Ok(()) } else { Err(pods.len()) }
    });
}

#[test]
#[ignore = "needs a cluster with Istio: cargo xtask e2e --beside"]
fn beside_a_namespace_moves_and_returns_without_a_lost_request() {
    let cluster = Cluster::connect();
    both(&cluster);
    cluster.apply(Some(SYSTEM), STRICT);
    let moving = shop(&cluster, "beside-moving", BY_ISTIO, &["v1", "v2"]);
    let [istio, ours] =
        [("beside-istio", BY_ISTIO), ("beside-ours", BY_OURS)].map(|(name, by)| shop(&cluster, name, by, &[]));
    let callers = [&moving, &istio, &ours];
    for from in callers {
        _ = ask(from, &moving, "/echo", 200);
    }

    let url = format!("http://catalogue.{}/products", moving.name);
    let args = ["http", "--url", url.as_str(), "--rate", "20", "-c", "2", "--timeout", "5s"];
    let loads: Vec<Load> = callers.iter().map(|from| from.load(&from.pod("app=caller"), &args)).collect();
    relabel(&moving, BY_OURS);
    restart(&moving, false);
    // And back, as one does who is not content.
    relabel(&moving, BY_ISTIO);
    restart(&moving, true);
    relabel(&moving, BY_OURS);
    restart(&moving, false);
    for (from, load) in callers.iter().zip(loads) {
        let figures = load.finish();
        assert_eq!(figures.failed, 0, "{}: {:#?}", from.name, figures.failures);
        assert!(figures.requests > 300, "{}: {figures:?}", from.name);
    }

    // The caller stayed with Istio's proxy until now.
    assert!(is_istios(&moving.pods("app=caller")[0]));
    cluster.restart(&moving.name, "caller-v1");
    moving.rolled_out("Deployment", "caller-v1");
    wait("the caller's old pod is gone", || {
        let pods = moving.pods("app=caller");
        if pods.len() == 1 && !is_istios(&pods[0]) { Ok(()) } else { Err(pods.len()) }
    });
    let client = seen(&ask(&moving, &moving, "/echo", 200), "x-forwarded-client-cert").unwrap_or_default();
    assert!(client.contains("URI=spiffe://cluster.local/ns/beside-moving/sa/caller"), "{client}");
    moving.synced();
}
