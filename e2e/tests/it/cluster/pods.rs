//! Pods that are not servers: they wait for their proxy, and it does not outlive them.

use e2e::cluster::mesh::{image, meshctl};
use e2e::cluster::{Cluster, ROLLOUT, within};
use serde_json::Value;

use super::main_path::shop;

/// How a pod of a Job or by itself ended.
fn ended(cluster: &Cluster, namespace: &str, selector: &str) -> Value {
    within(ROLLOUT, &format!("a pod {selector} ends"), || {
        let pods = cluster.list("v1", "Pod", Some(namespace), selector);
        let over = |pod: &&Value| ["Succeeded", "Failed"].iter().any(|phase| pod["status"]["phase"] == *phase);
        pods.iter()
            .find(over)
            .cloned()
            .ok_or_else(|| pods.iter().map(|pod| pod["status"].to_string()).collect::<String>())
    })
}

#[test]
#[ignore = "needs a cluster: cargo xtask e2e"]
fn cluster_a_job_finishes_and_its_proxy_with_it() {
    let cluster = Cluster::connect();
    let shop = shop(&cluster, "e2e-job", &[("v1", 1)]);
    let image = image("shop");
    shop.apply(&format!(
        "apiVersion: batch/v1
kind: Job
metadata: {{name: buyer}}
spec:
  backoffLimit: 0
  template:
    metadata: {{labels: {{app: buyer}}}}
    spec:
      restartPolicy: Never
      containers:
      - name: app
        image: {image}
        imagePullPolicy: IfNotPresent
        args: [client, http, --url, http://catalogue/echo, -n, \"20\", --fail-on-error, --show]
        resources: {{requests: {{cpu: 5m, memory: 16Mi}}}}
"
    ));
    let pod = ended(&cluster, &shop.name, "app=buyer");
    assert_eq!(pod["status"]["phase"], "Succeeded", "{}", pod["status"]);
    let name = pod["metadata"]["name"].as_str().unwrap();
    let log = shop.logs(name, "app");
    assert!(log.contains("spiffe://cluster.local/ns/e2e-job/sa/default"), "the caller has an identity: {log}");
    within(ROLLOUT, "the Job is complete", || {
        let job = cluster.find("batch/v1", "Job", Some(&shop.name), "buyer").unwrap();
        if job["status"]["succeeded"] == 1 { Ok(()) } else { Err(job["status"].to_string()) }
    });
}

#[test]
#[ignore = "needs a cluster: cargo xtask e2e"]
fn cluster_init_containers_reach_the_network() {
    let cluster = Cluster::connect();
    let shop = shop(&cluster, "e2e-init", &[("v1", 1)]);
    let image = image("shop");
    shop.apply(&format!(
        "apiVersion: v1
kind: Pod
metadata: {{name: migration, labels: {{app: migration}}}}
spec:
  restartPolicy: Never
  initContainers:
  - name: before
    image: {image}
    imagePullPolicy: IfNotPresent
    args: [client, http, --url, http://catalogue/products, -n, \"5\", --fail-on-error]
  containers:
  - name: app
    image: {image}
    imagePullPolicy: IfNotPresent
    args: [client, http, --url, http://catalogue/products, -n, \"5\", --fail-on-error]
"
    ));
    let pod = ended(&cluster, &shop.name, "app=migration");
    assert_eq!(pod["status"]["phase"], "Succeeded", "{}\n{}", pod["status"], shop.logs("migration", "before"));
}

#[test]
#[ignore = "needs a cluster: cargo xtask e2e"]
fn cluster_main_path_manifests_are_injected_by_hand() {
    let cluster = Cluster::connect();
    cluster.with_mesh();
    // No label: nobody but the command injects here.
    let shop = cluster.namespace("e2e-by-hand", &[]);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("caller.yaml");
    std::fs::write(&file, e2e::cluster::mesh::deployment("caller", "v1", "catalogue", 1)).unwrap();
    shop.apply(&meshctl(&["inject", "-f", file.to_str().unwrap(), "-n", &shop.name]));
    shop.rolled_out("Deployment", "caller-v1");
    let pod = &shop.pods("app=caller")[0];
    assert!(e2e::cluster::pods::containers(pod).iter().any(|name| name == "istio-proxy"), "{pod}");
    shop.synced();
}
