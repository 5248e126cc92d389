//! Each of the two meshes goes and leaves the other at work.

use e2e::cluster::mesh::{SYSTEM, meshctl};
use e2e::cluster::{Cluster, within};

use super::fleet::{BY_ISTIO, BY_OURS, OURS, ask, both, istio, istioctl, shop};
use super::others::{changed, kept};
use super::traffic::STRICT;

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

    // Istio goes: definitions, authority and roots are there for ours.
    both(&cluster);
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

    // Who wants it back has it back.
    istio("install");
    both(&cluster);
    within(e2e::cluster::ROLLOUT, "Istio's proxies find their control plane", || {
        let table = istioctl(&["proxy-status"]);
        if table.contains(&with_istio.name) { Ok(()) } else { Err(table) }
    });
}
