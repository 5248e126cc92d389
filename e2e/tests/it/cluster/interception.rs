//! What the redirection of a pod can do besides: names of the mesh, and the client's own address.

use e2e::cluster::mesh::deployment;
use e2e::cluster::{Cluster, Namespace, wait};
use serde_json::Value;

use super::main_path::shop;

/// The catalogue under a name that only the mesh knows.
const NAMED: &str = "apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: named}
spec:
  hosts: [catalogue.only.mesh]
  location: MESH_INTERNAL
  resolution: STATIC
  ports: [{number: 80, name: http, protocol: HTTP, targetPort: 8080}]
  workloadSelector: {labels: {app: catalogue}}
";

/// A Deployment of the shop's service with an annotation on its pods.
fn annotated(name: &str, service: &str, annotation: &str) -> String {
    let labels = format!("labels: {{app: {name}, version: v1}}}}\n    spec:");
    let text = deployment(name, "v1", service, 1);
    assert!(text.contains(&labels), "{text}");
    text.replace(&labels, &format!("annotations: {{{annotation}}}, {labels}"))
}

/// What the server saw of a request that `app` sends to `url`.
fn seen(shop: &Namespace, app: &str, url: &str) -> Result<Value, Value> {
    let figures = shop.shop(&shop.pod(&format!("app={app}")), &["http", "--url", url, "--timeout", "2s", "--show"]);
    if figures["failed"] == 0 { Ok(figures["last"]["body"].clone()) } else { Err(figures) }
}

#[test]
#[ignore = "needs a cluster: cargo xtask e2e"]
fn cluster_interception_names_of_the_mesh_are_answered_in_the_pod() {
    let cluster = Cluster::connect();
    let shop = shop(&cluster, "e2e-names", &[("v1", 1)]);
    shop.apply(NAMED);
    let capture = r#"proxy.istio.io/config: '{"proxyMetadata":{"ISTIO_META_DNS_CAPTURE":"true"}}'"#;
    shop.apply(&annotated("asker", "catalogue", capture));
    shop.rolled_out("Deployment", "asker-v1");
    let url = "http://catalogue.only.mesh/echo";
    let echo = wait("the name leads to the catalogue", || seen(&shop, "asker", url).map_err(|why| why.to_string()));
    assert!(echo.to_string().contains("spiffe://cluster.local/ns/e2e-names/sa/asker"), "{echo}");
    // Names of the cluster are still answered, by its own servers.
    assert!(seen(&shop, "asker", "http://catalogue.e2e-names.svc.cluster.local/echo").is_ok());
    let without = seen(&shop, "caller", url).expect_err("nobody else knows the name");
    assert_eq!(without["failed"], without["requests"], "{without}");
}

#[test]
#[ignore = "needs a cluster: cargo xtask e2e"]
fn cluster_interception_applications_see_their_clients_with_tproxy() {
    let cluster = Cluster::connect();
    let shop = shop(&cluster, "e2e-tproxy", &[("v1", 1)]);
    shop.apply(&e2e::cluster::mesh::service("seer", "http", 80));
    shop.apply(&annotated("seer", "catalogue", "sidecar.istio.io/interceptionMode: TPROXY"));
    shop.rolled_out("Deployment", "seer-v1");
    let address = shop.pods("app=caller")[0]["status"]["podIP"].clone();
    let echo = wait("the server answers", || seen(&shop, "caller", "http://seer/echo").map_err(|why| why.to_string()));
    assert_eq!(echo["client"], address, "{echo}");
    assert!(echo.to_string().contains("spiffe://cluster.local/ns/e2e-tproxy/sa/caller"), "{echo}");
    // Out of such a pod, and into one with plain redirection, where the proxy is who connects.
    let echo = seen(&shop, "seer", "http://catalogue/echo").unwrap_or_else(|why| panic!("{why}"));
    assert_eq!(echo["client"], "127.0.0.6", "{echo}");
    assert!(echo.to_string().contains("spiffe://cluster.local/ns/e2e-tproxy/sa/seer"), "{echo}");
}
