//! Who proxies are, what the control plane keeps in the cluster for that, and what the API server asks it.

use e2e::cluster::mesh::SYSTEM;
use e2e::cluster::{Cluster, Namespace, wait};
use serde_json::{Value, json};

const ROOTS: &str = "istio-ca-root-cert";

fn roots(cluster: &Cluster, namespace: &str) -> Option<String> {
    let map = cluster.find("v1", "ConfigMap", Some(namespace), ROOTS)?;
    map["data"]["root-cert.pem"].as_str().map(str::to_owned)
}

fn is_there<T>(found: Option<T>, what: &str) -> Result<T, String> {
    found.ok_or_else(|| format!("{what} is not there"))
}

#[test]
#[ignore = "needs a cluster: cargo xtask e2e"]
fn cluster_identity_roots_are_in_every_namespace_and_put_right() {
    let cluster = Cluster::connect();
    cluster.with_mesh();
    let of_mesh = wait("the control plane's own namespace has roots", || is_there(roots(&cluster, SYSTEM), ROOTS));
    let _fresh = cluster.namespace("e2e-roots", &[]);
    let has_roots = || match roots(&cluster, "e2e-roots") {
        Some(found) if found == of_mesh => Ok(()),
        found => Err(format!("{found:?}")),
    };
    wait("a new namespace has the roots", has_roots);
    let spoilt = json!({"data": {"root-cert.pem": "nonsense"}});
    cluster.merge("v1", "ConfigMap", Some("e2e-roots"), ROOTS, &spoilt);
    wait("what was changed is put right", has_roots);
    cluster.delete("v1", "ConfigMap", Some("e2e-roots"), ROOTS);
    wait("what was deleted is there again", has_roots);
    assert_eq!(roots(&cluster, "kube-system"), None, "Kubernetes' own namespaces are left alone");
}

#[test]
#[ignore = "needs a cluster: cargo xtask e2e"]
fn cluster_identity_one_authority_and_one_leader() {
    let cluster = Cluster::connect();
    cluster.with_mesh();
    let secret = wait("the authority is in its Secret", || {
        is_there(cluster.find("v1", "Secret", Some(SYSTEM), "istio-ca-secret"), "istio-ca-secret")
    });
    for entry in ["ca-cert.pem", "ca-key.pem", "cert-chain.pem", "root-cert.pem"] {
        assert!(secret["data"][entry].is_string(), "{entry} as Istio lays it out");
    }
    let lease = wait("a replica leads", || {
        let lease = cluster.find("coordination.k8s.io/v1", "Lease", Some(SYSTEM), "lateen-leader");
        let lease = is_there(lease, "lateen-leader")?;
        match lease["spec"]["holderIdentity"].as_str() {
            Some(holder) if !holder.is_empty() => Ok(lease),
            _ => Err(lease.to_string()),
        }
    });
    let holder = lease["spec"]["holderIdentity"].as_str().unwrap_or_default();
    let pods = cluster.list("v1", "Pod", Some(SYSTEM), "app=istiod");
    assert!(pods.iter().any(|pod| pod["metadata"]["name"] == holder), "{holder} is a replica");
}

#[test]
#[ignore = "needs a cluster: cargo xtask e2e"]
fn cluster_identity_webhooks_are_known_to_the_api_server_and_strict() {
    let cluster = Cluster::connect();
    cluster.with_mesh();
    let api = "admissionregistration.k8s.io/v1";
    let bundle = |kind: &str, name: &str| -> Result<Value, String> {
        let found = is_there(cluster.find(api, kind, None, name), name)?;
        let hooks = found["webhooks"].as_array().cloned().unwrap_or_default();
        let lax = hooks.iter().find(|hook| {
            hook["clientConfig"]["caBundle"].as_str().is_none_or(str::is_empty) || hook["failurePolicy"] != "Fail"
        });
        match lax {
            None if !hooks.is_empty() => Ok(found),
            _ => Err(found.to_string()),
        }
    };
    wait("injection has our roots", || bundle("MutatingWebhookConfiguration", "istio-sidecar-injector"));
    wait("validation has our roots and refuses", || {
        bundle("ValidatingWebhookConfiguration", &format!("istio-validator-{SYSTEM}"))
    });
    // What changes them is put right.
    let emptied = json!({"metadata": {"labels": {"e2e": "touched"}}});
    cluster.merge(api, "MutatingWebhookConfiguration", None, "istio-sidecar-injector", &emptied);
    wait("injection still has our roots", || bundle("MutatingWebhookConfiguration", "istio-sidecar-injector"));
}

/// A VirtualService of our revision, with this weight.
fn route(weight: i32) -> Value {
    json!({
        "apiVersion": "networking.istio.io/v1", "kind": "VirtualService",
        "metadata": {"name": "web", "labels": {"istio.io/rev": "default"}},
        "spec": {"hosts": ["web"], "http": [{"route": [{"destination": {"host": "web"}, "weight": weight}]}]},
    })
}

fn condition(space: &Namespace, cluster: &Cluster, kind: &str) -> Value {
    let found = cluster.find("networking.istio.io/v1", "VirtualService", Some(&space.name), "web");
    let conditions = found.map(|found| found["status"]["conditions"].clone()).unwrap_or_default();
    let mut conditions = conditions.as_array().cloned().unwrap_or_default().into_iter();
    conditions.find(|condition| condition["type"] == kind).unwrap_or_default()
}

#[test]
#[ignore = "needs a cluster: cargo xtask e2e"]
fn cluster_identity_wrong_objects_are_refused_and_right_ones_have_a_status() {
    let cluster = Cluster::connect();
    cluster.with_mesh();
    let space = cluster.namespace("e2e-status", &[]);
    let error = wait("a wrong object is refused", || match cluster.try_apply(Some(&space.name), &route(-1)) {
        Err(error) => Ok(error),
        Ok(_) => Err("it came in"),
    });
    assert!(error.contains("spec.http[0].route[0].weight") && error.contains("MESH"), "{error}");
    cluster.apply_object(Some(&space.name), route(100));
    wait("its status says that it acts", || {
        let condition = condition(&space, &cluster, "Reconciled");
        if condition["status"] == "True" { Ok(()) } else { Err(condition.to_string()) }
    });
    let before = cluster.find("networking.istio.io/v1", "VirtualService", Some(&space.name), "web").unwrap();
    assert_eq!(before["status"]["observedGeneration"], before["metadata"]["generation"]);
}
