//! Calls between workloads of the two meshes: who they are, what they may, where they go, what is counted.

use e2e::cluster::mesh::{SYSTEM, meshctl};
use e2e::cluster::{Cluster, Namespace, wait};
use serde_json::json;

use super::fleet::{BY_ISTIO, BY_OURS, ask, both, istioctl, seen, shop};

/// Refuses plaintext everywhere.
pub(crate) const STRICT: &str = "{apiVersion: security.istio.io/v1, kind: PeerAuthentication, metadata: {name: default}, spec: {mtls: {mode: STRICT}}}";

/// Three of four requests go to v2, those that ask for it to v1; only `/products` and `/echo`, and only to the callers.
pub(crate) const RULES: &str = "apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: catalogue}
spec:
  host: catalogue
  subsets:
  - {name: v1, labels: {version: v1}}
  - {name: v2, labels: {version: v2}}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: catalogue}
spec:
  hosts: [catalogue]
  http:
  - match: [{headers: {x-only: {exact: v1}}}]
    route: [{destination: {host: catalogue, subset: v1}}]
  - route:
    - {destination: {host: catalogue, subset: v1}, weight: 25}
    - {destination: {host: catalogue, subset: v2}, weight: 75}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: catalogue}
spec:
  selector: {matchLabels: {app: catalogue}}
  rules:
  - from:
    - source:
        principals: [cluster.local/ns/beside-istio/sa/caller, cluster.local/ns/beside-ours/sa/caller]
    to: [{operation: {paths: [/products, /echo]}}]
";

/// Callers of the two meshes, each with each.
fn pairs<'a>(istio: &'a Namespace, ours: &'a Namespace) -> [(&'a Namespace, &'a Namespace); 4] {
    [(istio, istio), (istio, ours), (ours, istio), (ours, ours)]
}

#[test]
#[ignore = "needs a cluster with Istio: cargo xtask e2e --beside"]
fn beside_traffic_between_the_meshes_is_secured_routed_and_refused_alike() {
    let cluster = Cluster::connect();
    both(&cluster);
    cluster.apply(Some(SYSTEM), STRICT);
    let istio = shop(&cluster, "beside-istio", BY_ISTIO, &["v1", "v2"]);
    let ours = shop(&cluster, "beside-ours", BY_OURS, &["v1", "v2"]);

    // Both roots are the operator's; each side tells its service who called.
    for (from, to) in pairs(&istio, &ours) {
        let answer = ask(from, to, "/echo", 200);
        let client = seen(&answer, "x-forwarded-client-cert").unwrap_or_default();
        let (caller, server) = (&from.name, &to.name);
        assert!(client.contains(&format!("URI=spiffe://cluster.local/ns/{caller}/sa/caller")), "{caller}: {client}");
        assert!(client.contains(&format!("By=spiffe://cluster.local/ns/{server}/sa/catalogue")), "{server}: {client}");
    }

    // The same objects lead callers of both meshes the same way, and refuse the same requests.
    for shop in [&istio, &ours] {
        shop.apply(RULES);
    }
    for (from, to) in pairs(&istio, &ours) {
        _ = ask(from, to, "/other", 403);
        let url = format!("http://catalogue.{}/products", to.name);
        let call = |more: &[&str]| {
            let args = [&["http", "--url", &url, "-c", "8", "-n", "400"], more].concat();
            from.shop(&from.pod("app=caller"), &args)
        };
        wait(&format!("{} follows the header's route to {}", from.name, to.name), || {
            let figures = call(&["-H", "x-only: v1"]);
            if figures["by_group"] == json!({"v1": 400}) { Ok(()) } else { Err(figures.to_string()) }
        });
        let figures = call(&[]);
        assert_eq!(figures["failed"], 0, "{} to {}: {figures}", from.name, to.name);
        e2e::assert::share(figures["by_group"]["v2"].as_u64().unwrap_or(0), 400, 0.75);
    }

    // Without a certificate nobody answers.
    let outside = shop(&cluster, "beside-outside", ("istio-injection", "disabled"), &[]);
    for to in [&istio, &ours] {
        let url = format!("http://catalogue.{}/products", to.name);
        let figures = outside.shop(&outside.pod("app=caller"), &["http", "--url", &url, "--timeout", "2s"]);
        assert_eq!(figures["failed"], 1, "{}: {figures}", to.name);
    }
    counted(&istio, &ours);
    tools_show_both(&istio, &ours);
}

/// What our servers count of Istio's callers: who they are by certificate always, their workload where they tell it.
fn counted(istio: &Namespace, ours: &Namespace) {
    // An unmodified Envoy does not send Istio's headers of who it is. Ours does: what one of ours sent an Envoy is sent on
    // from there, as Istio's own Envoy would of itself.
    let sent = seen(&ask(ours, istio, "/echo", 200), "x-envoy-peer-metadata").unwrap_or_default();
    assert!(!sent.is_empty(), "our proxies tell Istio's who they are");
    let header = format!("x-envoy-peer-metadata: {sent}");
    let url = format!("http://catalogue.{}/echo", ours.name);
    let caller = istio.pod("app=caller");
    let told =
        ["http", "--url", &url, "--show", "-H", &header, "-H", "x-envoy-peer-metadata-id: sidecar~1.1.1.1~a.b~c"];
    let figures = istio.shop(&caller, &told);
    assert_eq!(figures["failed"], 0, "{figures}");
    assert_eq!(seen(&figures["last"], "x-envoy-peer-metadata"), None, "it is for the proxy, not for the service");
    wait("requests of Istio's workloads are counted", || {
        let all: Vec<_> = ours
            .pods("app=catalogue")
            .iter()
            .filter_map(|pod| pod["metadata"]["name"].as_str())
            .flat_map(|pod| ours.requests(pod))
            .filter(|(labels, _)| {
                let is = |label: &str, value: &str| labels.get(label).is_some_and(|found| found == value);
                is("reporter", "destination")
                    && is("connection_security_policy", "mutual_tls")
                    && is("source_principal", &format!("spiffe://cluster.local/ns/{}/sa/caller", istio.name))
                    // By the certificate, whatever a header says.
                    && is("source_workload_namespace", &istio.name)
            })
            .collect();
        let of = |name: &str| all.iter().any(|(labels, _)| labels.get("source_workload").is_some_and(|it| it == name));
        if of("caller-v1") && of("unknown") { Ok(()) } else { Err(format!("{all:?}")) }
    });
}

/// `istioctl` sees what is its own, `meshctl` sees both.
fn tools_show_both(istio: &Namespace, ours: &Namespace) {
    let theirs = istioctl(&["proxy-status"]);
    assert!(theirs.contains(&istio.name) && !theirs.contains(&ours.name), "{theirs}");
    let all = meshctl(&["proxy-status"]);
    for shop in [istio, ours] {
        let lines: Vec<_> = all.lines().filter(|line| line.contains(&format!(".{} ", shop.name))).collect();
        assert_eq!(lines.len(), 3, "{all}");
        assert!(lines.iter().all(|line| line.contains("SYNCED")), "{all}");
    }
    let names = [&istio.name, &ours.name];
    for name in names {
        let found = istioctl(&["analyze", "-n", name]);
        assert!(found.trim().is_empty() || found.contains("No validation issues found"), "{found}");
        _ = meshctl(&["analyze", "-n", name]);
    }
}
