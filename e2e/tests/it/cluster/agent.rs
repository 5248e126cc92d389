//! What the proxy does for its pod beside carrying traffic: probes, merged metrics, the commands of scripts.

use e2e::cluster::mesh::deployment;
use e2e::cluster::{Cluster, Namespace};

/// Port of Istio's agent.
const STATUS: u16 = 15020;

/// Runs `pilot-agent` beside the application; gives what it wrote.
#[track_caller]
fn agent(shop: &Namespace, pod: &str, args: &[&str]) -> Result<String, String> {
    let command: Vec<&str> = std::iter::once("pilot-agent").chain(args.iter().copied()).collect();
    let done = shop.exec(pod, "istio-proxy", &command);
    if done.success { Ok(done.stdout) } else { Err(done.stderr) }
}

#[test]
#[ignore = "needs a cluster: cargo xtask e2e"]
fn cluster_the_agent_answers_the_kubelet_prometheus_and_scripts() {
    let cluster = Cluster::connect();
    let shop = cluster.mesh_namespace("e2e-agent");
    shop.apply(
        "apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default}
spec: {mtls: {mode: STRICT}}
",
    );
    // The kubelet has no certificate: without the agent the probe would be refused, and the pod never ready. Its own page
    // stands for metrics, so that the merged page shows who answered.
    let scraped = "metadata: {annotations: {prometheus.io/scrape: 'true', prometheus.io/port: '8080', \
                   prometheus.io/path: /healthz}, labels: {app: catalogue, version: v1}}";
    let plain = "metadata: {labels: {app: catalogue, version: v1}}";
    let yaml = deployment("catalogue", "v1", "catalogue", 1);
    assert!(yaml.contains(plain), "{yaml}");
    shop.apply(&yaml.replace(plain, scraped));
    shop.rolled_out("Deployment", "catalogue-v1");
    let pod = shop.pod("app=catalogue");

    agent(&shop, &pod, &["wait", "--timeoutSeconds", "10"]).unwrap();
    let info = agent(&shop, &pod, &["request", "GET", "server_info"]).unwrap();
    assert!(info.contains("\"state\": \"LIVE\""), "{info}");
    let refused = agent(&shop, &pod, &["request", "GET", "quitquitquit"]).unwrap_err();
    assert!(refused.contains("405"), "{refused}");

    let health = shop.get(&pod, STATUS, "/app-health/app/readyz").unwrap();
    assert_eq!(health.status, 200, "{health:?}");
    let unknown = shop.get(&pod, STATUS, "/app-health/app/livez").unwrap();
    assert_eq!(unknown.status, 404, "{unknown:?}");

    let page = shop.get(&pod, STATUS, "/stats/prometheus").unwrap();
    assert!(page.body.contains("istio_agent_scrapes_total") && page.body.contains("envoy_server_live 1"), "{page:?}");
    let application = shop.get(&pod, 8080, "/healthz").map(|answer| answer.body).unwrap_or_default();
    assert!(!page.body.contains("istio_agent_scrape_failures_total{"), "{page:?} {application:?}");
}
