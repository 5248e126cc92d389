//! Everything that restarts, under load, with no help of the application: it neither sleeps before it ends nor serves on.

use e2e::cluster::mesh::{SYSTEM, deployment, service};
use e2e::cluster::pods::{Figures, Load};
use e2e::cluster::{Cluster, Namespace, wait};
use rustix::process::Signal;
use serde_json::json;

use super::main_path::{FRONT, deploy};

/// A namespace with a catalogue (HTTP/1.1) and orders (gRPC), two replicas of each, and a caller.
fn shop(cluster: &Cluster, name: &str) -> Namespace {
    let shop = cluster.mesh_namespace(name);
    deploy(&shop, &[("v1", 2)]);
    shop.apply(&service("orders", "grpc", 80));
    shop.apply(&deployment("orders", "v1", "orders", 2));
    shop.rolled_out("Deployment", "orders-v1");
    wait("the first order is taken", || {
        let figures = shop.shop(&shop.pod("app=caller"), &["grpc", "--url", "http://orders", "--timeout", "2s"]);
        if figures["failed"] == 0 { Ok(()) } else { Err(figures.to_string()) }
    });
    shop
}

/// Loads by name.
struct Loads(Vec<(&'static str, Load)>);

const GET: &[&str] = &["http", "--url", "http://catalogue/products"];
const POST: &[&str] = &["http", "--url", "http://catalogue/echo", "-X", "POST", "--body-bytes", "2000"];
const GRPC: &[&str] = &["grpc", "--url", "http://orders"];

impl Loads {
    /// From the shop's caller. Each load is two clients with this rate.
    fn start(shop: &Namespace, kinds: &[(&'static str, &[&str])]) -> Self {
        let caller = shop.pod("app=caller");
        let each = kinds.iter().map(|(name, args)| {
            let args = [args, &["--rate", "30", "-c", "4", "--timeout", "5s"][..]].concat();
            (*name, shop.load(&caller, &args))
        });
        Self(each.collect())
    }

    fn finish(self) -> Vec<(&'static str, Figures)> {
        self.0.into_iter().map(|(name, load)| (name, load.finish())).collect()
    }

    /// Ends all of them, none of which may have lost a request.
    #[track_caller]
    fn lost_nothing(self, through: &str) {
        for (name, figures) in self.finish() {
            assert!(figures.requests > 100, "{name} through {through}: {figures:?}");
            assert_eq!(figures.failed, 0, "{name} through {through}: {:#?}", figures.failures);
        }
    }
}

const ALL: &[(&str, &[&str])] = &[("GET", GET), ("POST", POST), ("gRPC", GRPC)];

fn scale(shop: &Namespace, deployment: &str, replicas: u32) {
    let patch = json!({"spec": {"replicas": replicas}});
    shop.cluster.merge("apps/v1", "Deployment", Some(&shop.name), deployment, &patch);
    shop.rolled_out("Deployment", deployment);
}

#[test]
#[ignore = "needs a cluster: cargo xtask e2e"]
fn cluster_restarts_of_applications_that_do_not_wait_lose_no_request() {
    let cluster = Cluster::connect();
    let shop = shop(&cluster, "e2e-restart-app");
    let loads = Loads::start(&shop, ALL);
    for _ in 0..2 {
        for name in ["catalogue-v1", "orders-v1"] {
            cluster.restart(&shop.name, name);
            shop.rolled_out("Deployment", name);
        }
    }
    loads.lost_nothing("a rollout");

    for name in ["catalogue-v1", "orders-v1"] {
        scale(&shop, name, 3);
    }
    let loads = Loads::start(&shop, ALL);
    for name in ["catalogue-v1", "orders-v1"] {
        scale(&shop, name, 1);
    }
    loads.lost_nothing("scaling down");
}

#[test]
#[ignore = "needs a cluster: cargo xtask e2e"]
fn cluster_restarts_of_gateways_lose_no_request() {
    let cluster = Cluster::connect();
    let shop = shop(&cluster, "e2e-restart-gateway");
    shop.apply(FRONT);
    let outside = cluster.namespace("e2e-restart-outside", &[]);
    outside.apply(&deployment("caller", "v1", "catalogue", 1));
    outside.rolled_out("Deployment", "caller-v1");
    let url = format!("http://istio-ingressgateway.{SYSTEM}/echo");
    let get = ["http", "--url", &url, "-H", "Host:shop.example"];
    let (caller, gateway) = (outside.pod("app=caller"), "istio-ingressgateway");
    wait("the gateway leads to the catalogue", || {
        let figures = outside.shop(&caller, &[&get[..], &["--timeout", "2s"]].concat());
        if figures["failed"] == 0 { Ok(()) } else { Err(figures.to_string()) }
    });
    let pace = ["--rate", "30", "-c", "4", "--timeout", "5s"];
    let post = [&get[..], &["-X", "POST", "--body-bytes", "2000"]].concat();
    let all: [(&str, Vec<&str>); 3] =
        [("GET", get.to_vec()), ("POST", post), ("GET on new connections", [&get[..], &["--no-keepalive"]].concat())];
    let loads = all.into_iter().map(|(name, args)| (name, outside.load(&caller, &[&args[..], &pace].concat())));
    let loads = Loads(loads.collect());
    for _ in 0..2 {
        cluster.restart(SYSTEM, gateway);
        cluster.rolled_out("Deployment", SYSTEM, gateway);
    }
    loads.lost_nothing("a rollout of the gateway");
}

#[test]
#[ignore = "needs a cluster: cargo xtask e2e"]
fn cluster_restarts_of_a_servers_proxy_lose_no_request() {
    let cluster = Cluster::connect();
    let shop = shop(&cluster, "e2e-restart-server-proxy");
    let loads = Loads::start(&shop, ALL);
    for name in ["catalogue", "orders"] {
        let pod = shop.pod(&format!("app={name}"));
        shop.restart_container(&pod, "istio-proxy", Signal::TERM);
        shop.rolled_out("Deployment", &format!("{name}-v1"));
    }
    loads.lost_nothing("SIGTERM of a server's proxy");

    // What it had taken and not yet answered is lost with a process that is killed. Only what may be done twice is sent
    // again: who wants that of POST asks for it by a retry policy.
    let loads = Loads::start(&shop, &[("GET", GET)]);
    shop.restart_container(&shop.pod("app=catalogue"), "istio-proxy", Signal::KILL);
    shop.rolled_out("Deployment", "catalogue-v1");
    loads.lost_nothing("SIGKILL of a server's proxy");
}

#[test]
#[ignore = "needs a cluster: cargo xtask e2e"]
fn cluster_restarts_of_a_callers_proxy_cost_only_calls_of_the_meantime() {
    let cluster = Cluster::connect();
    let shop = shop(&cluster, "e2e-restart-caller-proxy");
    let caller = shop.pod("app=caller");
    let loads = Loads::start(&shop, ALL);
    shop.restart_container(&caller, "istio-proxy", Signal::TERM);
    for (name, figures) in loads.finish() {
        // While no proxy runs, what the application opens is refused at once, and what it has open ends. A second of it is
        // about what the kubelet takes.
        let meantime = figures.errors.get("refused").unwrap_or(&0) + figures.errors.get("closed").unwrap_or(&0);
        let grpc: u64 = if name == "gRPC" { figures.failed } else { 0 };
        assert_eq!(figures.failed, meantime.max(grpc), "{name}: {:#?}", figures.failures);
        assert!(figures.failed * 2 < figures.requests, "{name}: {figures:#?}");
    }
    // Whoever calls afterwards notices nothing.
    let figures = shop.shop(&caller, &[GET, &["-n", "50"]].concat());
    assert_eq!((&figures["requests"], &figures["failed"]), (&json!(50), &json!(0)), "{figures}");
}

#[test]
#[ignore = "needs a cluster: cargo xtask e2e"]
fn cluster_restarts_of_a_stateful_set_lose_no_request() {
    let cluster = Cluster::connect();
    let shop = cluster.mesh_namespace("e2e-restart-stateful");
    deploy(&shop, &[("v1", 1)]);
    // The same service, of pods that go before their successors come.
    let set = deployment("catalogue", "v1", "catalogue", 2)
        .replace("kind: Deployment", "kind: StatefulSet")
        .replace("  replicas: 2", "  serviceName: catalogue\n  replicas: 2");
    shop.cluster.delete_and_wait("apps/v1", "Deployment", Some(&shop.name), "catalogue-v1");
    shop.apply(&set);
    shop.rolled_out("StatefulSet", "catalogue-v1");
    let loads = Loads::start(&shop, &[("GET", GET), ("POST", POST)]);
    let template = json!({"metadata": {"annotations": {"kubectl.kubernetes.io/restartedAt": "now"}}});
    let patch = json!({"spec": {"template": template}});
    shop.cluster.merge("apps/v1", "StatefulSet", Some(&shop.name), "catalogue-v1", &patch);
    shop.rolled_out("StatefulSet", "catalogue-v1");
    loads.lost_nothing("a rollout of a StatefulSet");
}
