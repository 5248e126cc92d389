//! Each of the two meshes goes and leaves the other at work.

use e2e::cluster::mesh::{SYSTEM, meshctl, try_meshctl};
use e2e::cluster::{Cluster, Namespace, ROLLOUT, wait, within};
use serde_json::{Value, json};

use super::fleet::{BY_ISTIO, BY_OURS, OURS, ask, both, is_istios, istio, istioctl, shop};
use super::others::{changed, kept, managers};
use super::traffic::STRICT;

const HOOKS: (&str, &str) = ("admissionregistration.k8s.io/v1", "MutatingWebhookConfiguration");

#[test]
#[ignore = "needs a cluster with Istio: cargo xtask e2e --beside"]
fn beside_each_mesh_goes_and_leaves_the_other() {
    let cluster = Cluster::connect();
    both(&cluster);
    cluster.apply(Some(SYSTEM), STRICT);

    // Ours goes.
    let with_istio = shop(&cluster, "beside-istio", BY_ISTIO, &["v1"]);
    let before = kept(&cluster);
    _ = meshctl(&["uninstall", "--revision", OURS, "-y"]);
    let gone = changed(&before, &kept(&cluster));
    assert!(gone.len() > 8 && gone.iter().all(|name| name.contains("lateen")), "{gone:#?}");
    _ = ask(&with_istio, &with_istio, "/echo", 200);
    assert!(istioctl(&["proxy-status"]).contains(&with_istio.name));

    // While Istio injects pods that name no revision, ours does not too.
    both(&cluster);
    let refused = try_meshctl(&["tag", "set", "default", "--revision", OURS, "-y"]);
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    assert!(cluster.find(HOOKS.0, HOOKS.1, None, "istio-revision-tag-default").is_none());

    // Istio goes: definitions, authority and roots are there for ours.
    let with_ours = shop(&cluster, "beside-ours", BY_OURS, &["v1"]);
    let before = kept(&cluster);
    _ = istioctl(&["uninstall", "--purge", "-y"]);
    let gone = changed(&before, &kept(&cluster));
    assert!(gone.len() > 5 && !gone.iter().any(|name| name.contains("lateen")), "{gone:#?}");
    for stays in ["Secret istio-system/cacerts", "CustomResourceDefinition /virtualservices.networking.istio.io"] {
        assert!(!gone.iter().any(|name| name == stays), "{gone:#?}");
    }
    // Its proxies serve on, with what they hold; ours start anew, in old namespaces and in new ones.
    _ = ask(&with_ours, &with_istio, "/echo", 200);
    _ = ask(&with_istio, &with_ours, "/echo", 200);
    cluster.restart(&with_ours.name, "caller-v1");
    with_ours.rolled_out("Deployment", "caller-v1");
    let fresh = shop(&cluster, "beside-fresh", BY_OURS, &["v1"]);
    _ = ask(&fresh, &with_istio, "/echo", 200);
    with_ours.synced();
    default_is_ours(&cluster, &with_istio);

    // Who wants it back has it back.
    istio("install");
    both(&cluster);
    within(ROLLOUT, "Istio's proxies find their control plane", || {
        let table = istioctl(&["proxy-status"]);
        if table.contains(&with_istio.name) { Ok(()) } else { Err(table) }
    });
}

/// What names no revision becomes ours: pods, objects to check, status.
fn default_is_ours(cluster: &Cluster, with_istio: &Namespace) {
    // Istio's tool leaves it, and nobody answers it any more.
    cluster.delete(
        "admissionregistration.k8s.io/v1",
        "ValidatingWebhookConfiguration",
        None,
        "istio-validator-istio-system",
    );
    _ = meshctl(&["tag", "set", "default", "--revision", OURS]);
    cluster.restart(&with_istio.name, "caller-v1");
    with_istio.rolled_out("Deployment", "caller-v1");
    wait("the new pod has our proxy", || {
        let pods = with_istio.pods("app=caller");
        if pods.len() == 1 && !is_istios(&pods[0]) { Ok(()) } else { Err(pods.len()) }
    });
    _ = ask(with_istio, with_istio, "/echo", 200);
    let route = |http: Value| {
        json!({"apiVersion": "networking.istio.io/v1", "kind": "VirtualService", "metadata": {"name": "nobodys"},
            "spec": {"hosts": ["a.example"], "http": http}})
    };
    // Unchecked until the webhook was seen to work.
    wait("what cannot be is refused", || {
        let refused = cluster.try_apply(Some(&with_istio.name), &route(json!([]))).err().ok_or("it came in")?;
        if refused.contains("has no routes") { Ok(()) } else { Err("it is refused for another reason") }
    });
    cluster.apply_object(Some(&with_istio.name), route(json!([{"route": [{"destination": {"host": "catalogue"}}]}])));
    within(ROLLOUT, "what names no revision has a status of ours", || {
        let found = cluster.find("networking.istio.io/v1", "VirtualService", Some(&with_istio.name), "nobodys");
        let found = found.ok_or("none")?;
        if managers(&found).contains(&("meshd".to_owned(), true)) { Ok(()) } else { Err("no status of ours") }
    });
    _ = meshctl(&["tag", "remove", "default", "-y"]);
}
