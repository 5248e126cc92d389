//! Neither control plane writes what is the other's.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use e2e::cluster::mesh::SYSTEM;
use e2e::cluster::{Cluster, ROLLOUT, wait, within};
use serde_json::{Value, json};

use super::fleet::{BY_ISTIO, BY_OURS, OURS, both, install_ours, shop};

/// Kinds of what the two control planes keep.
const KINDS: [(&str, &str); 13] = [
    ("v1", "ConfigMap"),
    ("v1", "Secret"),
    ("v1", "Service"),
    ("v1", "ServiceAccount"),
    ("apps/v1", "Deployment"),
    ("rbac.authorization.k8s.io/v1", "Role"),
    ("rbac.authorization.k8s.io/v1", "RoleBinding"),
    ("rbac.authorization.k8s.io/v1", "ClusterRole"),
    ("rbac.authorization.k8s.io/v1", "ClusterRoleBinding"),
    ("coordination.k8s.io/v1", "Lease"),
    ("admissionregistration.k8s.io/v1", "MutatingWebhookConfiguration"),
    ("admissionregistration.k8s.io/v1", "ValidatingWebhookConfiguration"),
    ("apiextensions.k8s.io/v1", "CustomResourceDefinition"),
];
/// Long enough for every round that a control plane makes while it leads, but its slowest.
const QUIET: Duration = Duration::from_secs(25);

/// An object by kind, namespace and name.
type Key = (String, String, String);

/// Objects of a mesh, and what of them must stay. Locks and a workload's status change all the time.
pub(crate) fn kept(cluster: &Cluster) -> BTreeMap<Key, Value> {
    let mut found = BTreeMap::new();
    for (version, kind) in KINDS {
        for object in cluster.list(version, kind, None, "") {
            let metadata = &object["metadata"];
            let text = |field: &str| metadata[field].as_str().unwrap_or_default().to_owned();
            let (namespace, name) = (text("namespace"), text("name"));
            let of_mesh = namespace == SYSTEM || name.contains("istio") || name.contains("lateen");
            let lock =
                !metadata["annotations"]["control-plane.alpha.kubernetes.io/leader"].is_null() || kind == "Lease";
            if !of_mesh || lock || namespace.starts_with("kube-") {
                continue;
            }
            // What a Deployment says of its rollout is not anybody's wish.
            let state =
                if kind == "Deployment" { metadata["generation"].clone() } else { metadata["resourceVersion"].clone() };
            found.insert((kind.to_owned(), namespace, name), state);
        }
    }
    found
}

/// Objects that are in `before` and not the same in `after`.
pub(crate) fn changed(before: &BTreeMap<Key, Value>, after: &BTreeMap<Key, Value>) -> Vec<String> {
    let changed = before.iter().filter(|(key, state)| after.get(*key) != Some(state));
    changed.map(|((kind, namespace, name), _)| format!("{kind} {namespace}/{name}")).collect()
}

/// Who holds fields of an object, and of its status.
pub(crate) fn managers(object: &Value) -> BTreeSet<(String, bool)> {
    let entries = object["metadata"]["managedFields"].as_array().into_iter().flatten();
    entries
        .map(|entry| (entry["manager"].as_str().unwrap_or_default().to_owned(), entry["subresource"] == "status"))
        .collect()
}

#[track_caller]
fn pass(time: Duration) {
    // Nothing is waited for: nothing shall happen.
    let since = e2e::assert::now();
    within(time * 2, "time passes", || if since.elapsed() >= time { Ok(()) } else { Err("") });
}

#[test]
#[ignore = "needs a cluster with Istio: cargo xtask e2e --beside"]
fn beside_neither_control_plane_writes_what_is_the_others() {
    let cluster = Cluster::connect();
    both(&cluster);
    let istio = shop(&cluster, "beside-istio", BY_ISTIO, &["v1"]);
    let ours = shop(&cluster, "beside-ours", BY_OURS, &["v1"]);

    // Its pods answer for nobody else's Service.
    for (service, mesh) in [("istiod", "istiod-"), ("istiod-lateen", "istiod-lateen-")] {
        let slices = cluster.list(
            "discovery.k8s.io/v1",
            "EndpointSlice",
            Some(SYSTEM),
            &format!("kubernetes.io/service-name={service}"),
        );
        let endpoints = slices.iter().flat_map(|slice| slice["endpoints"].as_array().cloned().unwrap_or_default());
        let pods: Vec<String> =
            endpoints.filter_map(|endpoint| Some(endpoint["targetRef"]["name"].as_str()?.to_owned())).collect();
        let own = |pod: &String| pod.starts_with(mesh) && (service != "istiod" || !pod.starts_with("istiod-lateen-"));
        assert!(!pods.is_empty() && pods.iter().all(own), "{service}: {pods:?}");
    }

    // What goes with an earlier test's namespace is nobody's doing.
    within(ROLLOUT, "namespaces that are going are gone", || {
        let going = |namespace: &Value| !namespace["metadata"]["deletionTimestamp"].is_null();
        let going: Vec<Value> = cluster.list("v1", "Namespace", None, "").into_iter().filter(going).collect();
        if going.is_empty() { Ok(()) } else { Err(going[0]["metadata"]["name"].to_string()) }
    });
    // Both at work: new leaders, new namespaces, edits, another installation of ours.
    let before = kept(&cluster);
    cluster.restart(SYSTEM, "istiod-lateen");
    cluster.rolled_out("Deployment", SYSTEM, "istiod-lateen");
    cluster.restart(SYSTEM, "istiod");
    cluster.rolled_out("Deployment", SYSTEM, "istiod");
    install_ours();
    let route = |name: &str, labels: Value| {
        json!({"apiVersion": "networking.istio.io/v1", "kind": "VirtualService",
            "metadata": {"name": name, "labels": labels},
            "spec": {"hosts": [format!("{name}.example")], "http": [{"route": [{"destination": {"host": "nobody"}}]}]}})
    };
    for shop in [&istio, &ours] {
        cluster.apply_object(Some(&shop.name), route("nobodys", json!({})));
        cluster.apply_object(Some(&shop.name), route("istios", json!({"istio.io/rev": "default"})));
        cluster.apply_object(Some(&shop.name), route("ours", json!({"istio.io/rev": OURS})));
    }
    let extra = cluster.namespace("beside-extra", &[]);
    wait("the new namespace has the roots", || {
        cluster.find("v1", "ConfigMap", Some(&extra.name), "istio-ca-root-cert").ok_or("none")
    });
    // A status is the default revision's, unless the label says otherwise.
    for shop in [&istio, &ours] {
        for (name, writer, other) in [
            ("nobodys", "pilot-discovery", "meshd"),
            ("istios", "pilot-discovery", "meshd"),
            ("ours", "meshd", "pilot-discovery"),
        ] {
            // A lock of Istio's that was not given back is free after half a minute.
            let object = within(ROLLOUT, &format!("{name} has a status"), || {
                let object =
                    cluster.find("networking.istio.io/v1", "VirtualService", Some(&shop.name), name).ok_or("none")?;
                if object["status"]["validationMessages"].is_array() { Ok(object) } else { Err("no messages") }
            });
            let managers = managers(&object);
            assert!(managers.contains(&(writer.to_owned(), true)), "{name}: {managers:?}");
            assert!(!managers.contains(&(other.to_owned(), true)), "{name}: {managers:?}");
        }
    }
    // What each made for itself is as it was, but for what was asked for: the two restarts, and our settings' record.
    let asked = [
        "Deployment istio-system/istiod",
        "Deployment istio-system/istiod-lateen",
        "ConfigMap istio-system/lateen-install-lateen",
    ];
    let left = |list: Vec<String>| list.into_iter().filter(|name| !asked.contains(&name.as_str())).collect::<Vec<_>>();
    let after = kept(&cluster);
    assert_eq!(left(changed(&before, &after)), Vec::<String>::new());

    // And then nobody writes at all.
    let routes = |cluster: &Cluster| cluster.list("networking.istio.io/v1", "VirtualService", None, "");
    let before = (after, routes(&cluster));
    pass(QUIET);
    assert_eq!(changed(&before.0, &kept(&cluster)), Vec::<String>::new(), "all is settled");
    assert_eq!(before.1, routes(&cluster), "no status is written again");

    // Each leads by a lock of its own.
    let lease = cluster.find("coordination.k8s.io/v1", "Lease", Some(SYSTEM), "lateen-leader-lateen").unwrap();
    assert_eq!(managers(&lease), [("meshd".to_owned(), false)].into());
    let lock = cluster.find("v1", "ConfigMap", Some(SYSTEM), "istio-leader").unwrap();
    assert_eq!(managers(&lock), [("pilot-discovery".to_owned(), false)].into());
}
