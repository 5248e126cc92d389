//! `meshctl migrate check` on a cluster that Istio serves.

use e2e::cluster::Cluster;
use e2e::cluster::mesh::try_meshctl;
use serde_json::Value;

use super::fleet::{BY_ISTIO, both, shop};
use super::traffic::RULES;

/// What would not act here, or act otherwise.
const DIFFERENT: &str = "apiVersion: networking.istio.io/v1alpha3
kind: EnvoyFilter
metadata: {name: lua}
spec: {configPatches: [{applyTo: HTTP_FILTER, match: {context: SIDECAR_INBOUND}, patch: {operation: REMOVE}}]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: tuned}
spec:
  replicas: 0
  selector: {matchLabels: {app: tuned}}
  template:
    metadata:
      labels: {app: tuned}
      annotations: {sidecar.istio.io/bootstrapOverride: some}
    spec: {containers: [{name: app, image: none}]}
";

fn rows(namespace: &str) -> Vec<Value> {
    let output = try_meshctl(&["migrate", "check", "-n", namespace, "-o", "json"]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {output:?}"))
}

#[test]
#[ignore = "needs a cluster with Istio: cargo xtask e2e --beside"]
fn beside_migrate_check_names_what_would_behave_otherwise_and_nothing_else() {
    let cluster = Cluster::connect();
    both(&cluster);
    let shop = shop(&cluster, "beside-check", BY_ISTIO, &["v1"]);
    shop.apply(RULES);
    assert_eq!(rows(&shop.name), Vec::<Value>::new(), "a plain shop moves as it is");

    shop.apply(DIFFERENT);
    let found = rows(&shop.name);
    let blocks = |object: &str, field: &str| {
        found.iter().any(|row| {
            row["blocks"] == true
                && row["object"] == object
                && row["field"].as_str().is_some_and(|at| at.ends_with(field))
                && row["toDo"] != ""
        })
    };
    assert!(blocks("EnvoyFilter beside-check/lua", "kind"), "{found:#?}");
    assert!(blocks("Deployment beside-check/tuned", "sidecar.istio.io/bootstrapOverride"), "{found:#?}");

    // Istio's own settings: what its control plane was told by variables that ours does not know.
    let settings = rows("istio-system");
    let variable = settings.iter().any(|row| {
        row["object"] == "Deployment istio-system/istiod"
            && row["field"].as_str().is_some_and(|at| at.ends_with("PILOT_ENABLE_METADATA_EXCHANGE"))
    });
    assert!(variable, "{settings:#?}");
}
