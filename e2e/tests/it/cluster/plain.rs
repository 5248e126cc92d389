//! The cluster and the harness without a mesh: what fails here is not the mesh's fault.

use e2e::cluster::{Cluster, mesh, wait};
use serde_json::json;

#[test]
#[ignore = "needs a cluster: cargo xtask e2e"]
fn cluster_pods_reach_a_service_by_name() {
    let cluster = Cluster::connect();
    let plain = cluster.namespace("e2e-plain", &[]);
    plain.apply(&mesh::service("catalogue", "http", 80));
    plain.apply(&mesh::deployment("catalogue", "v1", "catalogue", 1));
    plain.apply(&mesh::deployment("caller", "v1", "catalogue", 1));
    plain.rolled_out("Deployment", "catalogue-v1");
    plain.rolled_out("Deployment", "caller-v1");
    let caller = plain.pod("app=caller");
    wait("the service has an address", || {
        let figures = plain.shop(&caller, &["http", "--url", "http://catalogue/products", "--timeout", "1s"]);
        if figures["failed"] == 0 { Ok(()) } else { Err(figures.to_string()) }
    });
    let figures = plain.shop(&caller, &["http", "--url", "http://catalogue/products", "-n", "20"]);
    assert_eq!((&figures["requests"], &figures["failed"]), (&json!(20), &json!(0)), "{figures}");
    assert_eq!(figures["by_group"], json!({"v1": 20}), "{figures}");
    let answer = plain.get(&plain.pod("app=catalogue"), 8080, "/products/1").unwrap();
    assert_eq!(answer.json()["products"][0]["name"], "Hemp rope, 30 m");
    let failed = plain.exec(&caller, "app", &["/usr/local/bin/shop", "nonsense"]);
    assert!(!failed.success && failed.stderr.contains("nonsense"), "{failed:?}");
}
