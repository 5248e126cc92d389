//! A real Envoy accepts what we encode.

use std::path::Path;
use std::process::Command;

use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;

use super::*;
use crate::codec::bootstrap::Bootstrap;
use crate::node::{NodeInfo, NodeMetadata, ProxyKind};
use crate::testing::{chain, cluster, route};

fn mk_node() -> NodeInfo {
    NodeInfo {
        kind: ProxyKind::Sidecar,
        address: [127, 0, 0, 1].into(),
        name: "web".into(),
        namespace: "shop".into(),
        dns_domain: "shop.svc.cluster.local".into(),
        service_cluster: "web.shop".into(),
        locality: Default::default(),
        takes_marks: false,
        metadata: NodeMetadata::default(),
    }
}

/// Resources of each kind that are shown to Envoy, at 50 ms each.
const CASES: u32 = 40;

/// Whether Envoy accepts the resources; its words when not.
fn validate(envoy: &Path, resources: &[Resource]) -> Result<(), String> {
    let mut bootstrap = Bootstrap::new(&mk_node(), ([127, 0, 0, 1], 15010).into()).unwrap();
    for resource in resources {
        bootstrap = bootstrap.with(resource).unwrap();
    }
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("bootstrap.pb");
    std::fs::write(&file, bootstrap.into_bytes()).unwrap();
    let output = Command::new(envoy).args(["--mode", "validate", "-l", "error", "-c"]).arg(&file).output().unwrap();
    if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).into_owned()) }
}

#[test]
#[ignore = "needs a real Envoy: cargo xtask ci interop"]
fn interop_envoy_accepts_every_kind_of_resource() {
    let envoy = std::env::var_os("MESH_ENVOY").expect("MESH_ENVOY names the binary of an Envoy");
    let mut runner = TestRunner::deterministic();
    let mut refused = Vec::new();
    let kinds: Vec<BoxedStrategy<Resource>> = vec![
        cluster::arb_cluster().prop_map(Resource::Cluster).boxed(),
        cluster::arb_endpoint_set(false).prop_map(Resource::Endpoints).boxed(),
        chain::arb_listener().prop_map(Resource::Listener).boxed(),
        route::arb_route_config().prop_map(Resource::Routes).boxed(),
        route::arb_virtual_host("80/").prop_map(Resource::VirtualHost).boxed(),
    ];
    for kind in kinds {
        for _ in 0..CASES {
            let resource = kind.new_tree(&mut runner).unwrap().current();
            if let Err(words) = validate(envoy.as_ref(), std::slice::from_ref(&resource)) {
                refused.push(format!("{words}\n{resource:#?}"));
            }
        }
    }
    for words in &refused {
        println!("REFUSED {words}\n");
    }
    assert!(refused.is_empty(), "{} refused", refused.len());
}
