//! What a user does first: install, label a namespace, see that traffic is secured, split it, restart everything.

use e2e::cluster::mesh::{SYSTEM, deployment, service};
use e2e::cluster::{Cluster, Namespace, wait};
use serde_json::{Value, json};

/// The catalogue behind the ingress gateway, as `shop.example`.
pub(super) const FRONT: &str = "apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: front}
spec:
  selector: {istio: ingressgateway}
  servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: [shop.example]}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: front}
spec:
  hosts: [shop.example]
  gateways: [front]
  http: [{route: [{destination: {host: catalogue}}]}]
";

/// A shop of one service in `versions` and a caller, with proxies, ready for traffic.
pub(crate) fn shop(cluster: &Cluster, name: &str, versions: &[(&str, u32)]) -> Namespace {
    let shop = cluster.mesh_namespace(name);
    deploy(&shop, versions);
    shop
}

/// As [`shop`], in a namespace that is there.
pub(crate) fn deploy(shop: &Namespace, versions: &[(&str, u32)]) {
    shop.apply(&service("catalogue", "http", 80));
    for (version, replicas) in versions {
        shop.apply(&deployment("catalogue", version, "catalogue", *replicas));
    }
    shop.apply(&deployment("caller", "v1", "catalogue", 1));
    for (version, _) in versions {
        shop.rolled_out("Deployment", &format!("catalogue-{version}"));
    }
    shop.rolled_out("Deployment", "caller-v1");
    let caller = shop.pod("app=caller");
    wait("the first request is answered", || {
        let figures = shop.shop(&caller, &["http", "--url", "http://catalogue/products", "--timeout", "2s"]);
        if figures["failed"] == 0 { Ok(()) } else { Err(figures.to_string()) }
    });
}

/// The request as the catalogue saw it.
fn echo(shop: &Namespace) -> Value {
    let figures = shop.shop(&shop.pod("app=caller"), &["http", "--url", "http://catalogue/echo", "--show"]);
    assert_eq!(figures["failed"], 0, "{figures}");
    figures["last"]["body"].clone()
}

#[test]
#[ignore = "needs a cluster: cargo xtask e2e"]
fn cluster_main_path_traffic_is_secured_and_split() {
    let cluster = Cluster::connect();
    let shop = shop(&cluster, "e2e-main", &[("v1", 1), ("v2", 1)]);

    shop.synced();

    // Secured: the server's proxy saw the caller's certificate, tells the service, and counts it.
    let seen = echo(&shop);
    let headers = seen["headers"].as_array().unwrap();
    let client = headers.iter().find(|header| header[0] == "x-forwarded-client-cert").map(|header| header[1].clone());
    let client = client.and_then(|text| Some(text.as_str()?.to_owned())).unwrap_or_default();
    assert!(client.contains("URI=spiffe://cluster.local/ns/e2e-main/sa/caller"), "{seen}");
    wait("the server's proxy counts", || {
        let counted: Vec<_> = shop.pods("app=catalogue").iter().flat_map(|pod| shop.requests(name(pod))).collect();
        let secured = counted.iter().any(|(labels, _)| {
            let is = |label: &str, value: &str| labels.get(label).is_some_and(|found| found == value);
            is("reporter", "destination")
                && is("connection_security_policy", "mutual_tls")
                && is("source_principal", "spiffe://cluster.local/ns/e2e-main/sa/caller")
                && is("destination_service", "catalogue.e2e-main.svc.cluster.local")
        });
        if secured { Ok(()) } else { Err(format!("{counted:?}")) }
    });

    // Strict: who has no proxy is refused, who has one is not.
    shop.apply("{apiVersion: security.istio.io/v1, kind: PeerAuthentication, metadata: {name: default}, spec: {mtls: {mode: STRICT}}}");
    let outside = cluster.namespace("e2e-main-outside", &[]);
    outside.apply(&deployment("caller", "v1", "catalogue", 1));
    outside.rolled_out("Deployment", "caller-v1");
    let url = "http://catalogue.e2e-main/products";
    wait("plaintext is refused", || {
        let figures = outside.shop(&outside.pod("app=caller"), &["http", "--url", url, "--timeout", "2s"]);
        if figures["failed"] == 1 { Ok(()) } else { Err(figures.to_string()) }
    });
    _ = echo(&shop);

    // Split: shares as the VirtualService says.
    shop.apply(&split(75));
    shop.synced();
    let figures =
        shop.shop(&shop.pod("app=caller"), &["http", "--url", "http://catalogue/products", "-n", "400", "-c", "8"]);
    assert_eq!((&figures["requests"], &figures["failed"]), (&json!(400), &json!(0)), "{figures}");
    e2e::assert::share(figures["by_group"]["v2"].as_u64().unwrap_or(0), 400, 0.75);
    shop.apply(&split(100));
    shop.synced();
    let figures = shop.shop(&shop.pod("app=caller"), &["http", "--url", "http://catalogue/products", "-n", "50"]);
    assert_eq!(figures["by_group"], json!({"v2": 50}), "{figures}");
}

fn name(pod: &Value) -> &str {
    pod["metadata"]["name"].as_str().unwrap_or_default()
}

/// Routes `share` percent to v2.
fn split(share: u32) -> String {
    format!(
        "apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {{name: catalogue}}
spec:
  host: catalogue
  subsets:
  - {{name: v1, labels: {{version: v1}}}}
  - {{name: v2, labels: {{version: v2}}}}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: catalogue}}
spec:
  hosts: [catalogue]
  http:
  - route:
    - {{destination: {{host: catalogue, subset: v1}}, weight: {}}}
    - {{destination: {{host: catalogue, subset: v2}}, weight: {share}}}
",
        100 - share
    )
}

#[test]
#[ignore = "needs a cluster: cargo xtask e2e"]
fn cluster_main_path_restarts_lose_no_request() {
    let cluster = Cluster::connect();
    let shop = shop(&cluster, "e2e-restarts", &[("v1", 2)]);
    let caller = shop.pod("app=caller");
    let args = ["http", "--url", "http://catalogue/products", "--rate", "30", "-c", "4", "--timeout", "5s"];

    // The application, and with it the proxies beside it.
    let load = shop.load(&caller, &args);
    cluster.restart(&shop.name, "catalogue-v1");
    shop.rolled_out("Deployment", "catalogue-v1");
    let figures = load.finish();
    assert_eq!(figures.failed, 0, "restart of the application: {:#?}", figures.failures);

    // The control plane.
    let load = shop.load(&caller, &args);
    cluster.restart(SYSTEM, "istiod");
    cluster.rolled_out("Deployment", SYSTEM, "istiod");
    let figures = load.finish();
    assert_eq!(figures.failed, 0, "restart of the control plane: {:#?}", figures.failures);
    // The new one takes over: what changes arrives.
    shop.synced();

    // Down to one replica that goes without a word.
    let load = shop.load(&caller, &args);
    let killed = shop.pod("app=catalogue");
    cluster.kill_pod(&shop.name, &killed);
    shop.rolled_out("Deployment", "catalogue-v1");
    let figures = load.finish();
    // What was under way there may be lost; each of the two clients has at most four requests under way.
    assert!(figures.failed <= 8, "a replica killed: {:#?}", figures.failures);
    assert!(figures.requests > 100, "{figures:?}");
}
