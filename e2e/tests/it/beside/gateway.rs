//! A gateway of ours in front of workloads of both meshes.

use e2e::cluster::mesh::{SYSTEM, install};
use e2e::cluster::{Cluster, ROLLOUT, wait, within};

use super::fleet::{BY_ISTIO, BY_OURS, OURS, both, install_ours, seen, shop};
use super::traffic::STRICT;

const GATEWAY: &str = "istio-ingressgateway";

#[test]
#[ignore = "needs a cluster with Istio: cargo xtask e2e --beside"]
fn beside_a_gateway_of_ours_serves_both_meshes() {
    let cluster = Cluster::connect();
    both(&cluster);
    cluster.apply(Some(SYSTEM), STRICT);
    install(&["--revision", OURS, "--set", "profile=default"]);
    cluster.rolled_out("Deployment", SYSTEM, GATEWAY);
    let shops =
        [("beside-istio", BY_ISTIO), ("beside-ours", BY_OURS)].map(|(name, by)| shop(&cluster, name, by, &["v1"]));
    for shop in &shops {
        shop.apply(&format!(
            "apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {{name: front}}
spec:
  selector: {{istio: ingressgateway}}
  servers: [{{port: {{number: 80, name: http, protocol: HTTP}}, hosts: [{name}.example]}}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: front}}
spec:
  hosts: [{name}.example]
  gateways: [front]
  http: [{{route: [{{destination: {{host: catalogue}}}}]}}]
",
            name = shop.name
        ));
    }
    let outside = shop(&cluster, "beside-outside", ("istio-injection", "disabled"), &[]);
    let (caller, url) = (outside.pod("app=caller"), format!("http://{GATEWAY}.{SYSTEM}/echo"));
    for shop in &shops {
        let host = format!("Host:{}.example", shop.name);
        let answer = wait(&format!("the gateway leads to {}", shop.name), || {
            let figures = outside.shop(&caller, &["http", "--url", &url, "-H", &host, "--show", "--timeout", "2s"]);
            if figures["failed"] == 0 { Ok(figures["last"].clone()) } else { Err(figures.to_string()) }
        });
        let client = seen(&answer, "x-forwarded-client-cert").unwrap_or_default();
        assert!(client.contains("URI=spiffe://cluster.local/ns/istio-system/sa/istio-ingressgateway"), "{client}");
    }
    // And it goes as it came.
    install_ours();
    within(ROLLOUT, "the gateway goes", || {
        cluster.find("apps/v1", "Deployment", Some(SYSTEM), GATEWAY).map_or(Ok(()), |_| Err("it is there"))
    });
}
