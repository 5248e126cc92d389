//! Another process of the proxy in a pod that goes on: brought by an ephemeral container, started in the proxy's own.

use e2e::cluster::mesh::{deployment, image, meshctl, service, try_meshctl};
use e2e::cluster::{Cluster, Namespace};
use serde_json::Value;

const NAMESPACE: &str = "e2e-replace";

/// How often containers of a pod were started again, over all of them.
fn restarts(shop: &Namespace, pod: &str) -> u64 {
    let pods = shop.pods("");
    let found = pods.iter().find(|found| found["metadata"]["name"] == pod).unwrap_or_else(|| panic!("no pod {pod}"));
    let lists = ["initContainerStatuses", "containerStatuses"].map(|list| found["status"][list].as_array());
    lists.into_iter().flatten().flatten().filter_map(|status| status["restartCount"].as_u64()).sum()
}

/// `/handover` of a pod's proxy, as a process in its container sees it.
#[track_caller]
fn handover(shop: &Namespace, pod: &str) -> Value {
    let done = shop.exec(pod, "istio-proxy", &["pilot-agent", "request", "GET", "handover"]);
    assert!(done.success, "{done:?}");
    serde_json::from_str(&done.stdout).unwrap_or_else(|error| panic!("{error}: {done:?}"))
}

#[test]
#[ignore = "needs a cluster: cargo xtask e2e"]
fn cluster_a_proxy_is_replaced_under_load() {
    let cluster = Cluster::connect();
    let shop = cluster.mesh_namespace(NAMESPACE);
    shop.apply(&service("catalogue", "http", 80));
    shop.apply(&deployment("catalogue", "v1", "catalogue", 1));
    shop.apply(&deployment("caller", "v1", "catalogue", 1));
    shop.rolled_out("Deployment", "catalogue-v1");
    shop.rolled_out("Deployment", "caller-v1");
    shop.synced();
    let (server, caller) = (shop.pod("app=catalogue"), shop.pod("app=caller"));
    let load = shop.load(&caller, &["http", "--url", "http://catalogue/products", "-c", "4", "--rate", "100"]);
    let image = image("mesh-proxy");
    for (target, generation) in [(server.as_str(), 1), (caller.as_str(), 1), ("deploy/caller-v1", 2)] {
        let table = meshctl(&["x", "replace-proxy", target, "-n", NAMESPACE, "--image", &image]);
        assert!(table.contains(&format!("generation {generation}")), "{table}");
    }
    let missing =
        try_meshctl(&["x", "replace-proxy", &server, "-n", NAMESPACE, "--image", "lateen/none:0", "--timeout", "60"]);
    assert_eq!(missing.status.code(), Some(1), "{missing:?}");
    let figures = load.finish();
    assert_eq!((figures.failed, figures.requests > 100), (0, true), "{figures:?}");
    for (pod, generation) in [(&server, 1), (&caller, 2)] {
        let page = handover(&shop, pod);
        assert_eq!((&page["generation"], &page["state"]), (&generation.into(), &"serving".into()), "{page}");
        assert_eq!(restarts(&shop, pod), 0, "for the kubelet nothing has happened");
    }
    // The new processes have the identities of the old.
    let mutual = |(labels, _): &(std::collections::BTreeMap<String, String>, f64)| {
        labels["connection_security_policy"] == "mutual_tls" && labels["source_principal"].ends_with("/sa/caller")
    };
    assert!(shop.requests(&server).iter().any(mutual), "{:?}", shop.requests(&server));
    shop.synced();
}
