//! Installing beside, upgrading, failing, going away.

use e2e::cluster::mesh::{INJECTED, SYSTEM, deployment, install, meshctl};
use e2e::cluster::{Cluster, ROLLOUT, wait, within};
use serde_json::json;

use super::main_path::shop;

/// Kinds of what an installation may leave.
const KINDS: [(&str, &str); 16] = [
    ("v1", "ConfigMap"),
    ("v1", "Secret"),
    ("v1", "Service"),
    ("v1", "ServiceAccount"),
    ("apps/v1", "Deployment"),
    ("apps/v1", "ReplicaSet"),
    ("autoscaling/v2", "HorizontalPodAutoscaler"),
    ("policy/v1", "PodDisruptionBudget"),
    ("networking.k8s.io/v1", "NetworkPolicy"),
    ("coordination.k8s.io/v1", "Lease"),
    ("rbac.authorization.k8s.io/v1", "Role"),
    ("rbac.authorization.k8s.io/v1", "RoleBinding"),
    ("rbac.authorization.k8s.io/v1", "ClusterRole"),
    ("rbac.authorization.k8s.io/v1", "ClusterRoleBinding"),
    ("admissionregistration.k8s.io/v1", "MutatingWebhookConfiguration"),
    ("admissionregistration.k8s.io/v1", "ValidatingWebhookConfiguration"),
];

/// What is ours in a cluster, by label or by name.
fn ours(cluster: &Cluster) -> Vec<String> {
    let mut found = Vec::new();
    for (version, kind) in KINDS {
        for object in cluster.list(version, kind, None, "") {
            let (name, namespace) = (&object["metadata"]["name"], &object["metadata"]["namespace"]);
            let labels = &object["metadata"]["labels"];
            let labelled = labels["app.kubernetes.io/managed-by"] == "lateen" || !labels["istio.io/rev"].is_null();
            // A node's Lease has the node's name, which may begin like ours.
            if namespace == "kube-node-lease" {
                continue;
            }
            let named = name.as_str().is_some_and(|name| name.contains("istio") || name.starts_with("lateen-"));
            if labelled || named || namespace == SYSTEM && name != "kube-root-ca.crt" && name != "default" {
                found.push(format!("{kind} {namespace} {name}"));
            }
        }
    }
    found
}

#[test]
#[ignore = "needs a cluster: cargo xtask e2e"]
fn cluster_main_path_uninstall_leaves_nothing() {
    let cluster = Cluster::connect();
    cluster.with_mesh();
    let mesh = cluster.mesh_namespace("e2e-uninstall");
    assert!(!ours(&cluster).is_empty());
    _ = meshctl(&["uninstall", "--purge", "-y"]);
    drop(mesh);
    within(ROLLOUT, "nothing is left", || {
        let left = ours(&cluster);
        if left.is_empty() { Ok(()) } else { Err(left.join("\n")) }
    });
}

#[test]
#[ignore = "needs a cluster: cargo xtask e2e"]
fn cluster_upgrade_by_revision_loses_no_request() {
    let cluster = Cluster::connect();
    let shop = shop(&cluster, "e2e-upgrade", &[("v1", 2)]);
    let caller = shop.pod("app=caller");
    let args = ["http", "--url", "http://catalogue/products", "--rate", "30", "-c", "4", "--timeout", "5s"];
    let load = shop.load(&caller, &args);
    install(&["--revision", "canary"]);
    cluster.rolled_out("Deployment", SYSTEM, "istiod-canary");
    let relabelled = json!({"metadata": {"labels": {"istio-injection": null, "istio.io/rev": "canary"}}});
    cluster.merge("v1", "Namespace", None, &shop.name, &relabelled);
    cluster.restart(&shop.name, "catalogue-v1");
    shop.rolled_out("Deployment", "catalogue-v1");
    let figures = load.finish();
    assert_eq!(figures.failed, 0, "{:#?}", figures.failures);
    wait("each proxy is with the control plane of its revision", || {
        let table = meshctl(&["proxy-status"]);
        let of = |start: &str| table.lines().find(|line| line.starts_with(start)).unwrap_or_default().to_owned();
        let (server, client) = (of("catalogue-v1"), of("caller-v1"));
        let moved =
            server.contains("istiod-canary-") && !client.contains("istiod-canary-") && client.contains("istiod-");
        if moved { Ok(()) } else { Err(table) }
    });
    // Both revisions vouch for the same roots: traffic between them is still secured.
    let seen = shop.shop(&caller, &["http", "--url", "http://catalogue/echo", "--show"]).to_string();
    assert!(seen.contains("spiffe://cluster.local/ns/e2e-upgrade/sa/caller"), "{seen}");
    drop(shop);
    _ = meshctl(&["uninstall", "--revision", "canary", "-y"]);
    assert!(cluster.find("apps/v1", "Deployment", Some(SYSTEM), "istiod-canary").is_none());
    assert!(cluster.find("apps/v1", "Deployment", Some(SYSTEM), "istiod").is_some(), "the other revision stays");
}

#[test]
#[ignore = "needs a cluster: cargo xtask e2e"]
fn cluster_without_the_webhook_pods_outside_the_mesh_start() {
    let cluster = Cluster::connect();
    cluster.with_mesh();
    let (outside, inside) = (cluster.namespace("e2e-outside", &[]), cluster.namespace("e2e-inside", &[INJECTED]));
    let scale = |replicas: u32| {
        let patch = json!({"spec": {"replicas": replicas}});
        cluster.merge("apps/v1", "Deployment", Some(SYSTEM), "istiod", &patch);
    };
    scale(0);
    within(ROLLOUT, "the control plane is gone", || {
        let left = cluster.list("v1", "Pod", Some(SYSTEM), "app=istiod").len();
        if left == 0 { Ok(()) } else { Err(left) }
    });
    for namespace in [&outside, &inside] {
        namespace.apply(&deployment("catalogue", "v1", "catalogue", 1));
    }
    outside.rolled_out("Deployment", "catalogue-v1");
    let pods = cluster.list("v1", "Pod", Some(&inside.name), "");
    assert!(pods.is_empty(), "a pod of the mesh does not start without its proxy: {pods:?}");
    scale(1);
    cluster.rolled_out("Deployment", SYSTEM, "istiod");
    // The ReplicaSet tries again by itself, later and later.
    inside.rolled_out("Deployment", "catalogue-v1");
    let pod = &inside.pods("app=catalogue")[0];
    assert!(e2e::cluster::pods::containers(pod).iter().any(|name| name == "istio-proxy"), "{pod}");
}
