//! What it costs to read a large cluster: makes Services with endpoints, starts `meshd --kubernetes` beside the cluster of
//! `KUBECONFIG`, and prints the time until it is synced and the memory it holds.
//!
//! `cargo run -p e2e --example source_figures -- [SERVICES] [PROGRAM]`

#![expect(clippy::unwrap_used, reason = "a tool for measuring: it ends where it fails")]

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use e2e::assert::{now, pause};
use e2e::process::{Process, Spec, binary, show};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::api::{ApiResource, DeleteParams, DynamicObject, GroupVersionKind, PostParams};
use kube::{Api, Client};
use serde_json::json;
use tokio::task::JoinSet;

/// Namespace of what is made; it goes in the end.
const NAMESPACE: &str = "e2e-source-figures";
/// Requests at one time.
const AT_ONCE: usize = 16;
/// Endpoints of a Service.
const ENDPOINTS: usize = 2;
/// Longest time until all is known.
const PATIENCE: Duration = Duration::from_secs(300);

fn main() {
    let mut args = std::env::args().skip(1);
    let services: usize = args.next().map_or(5000, |text| text.parse().unwrap());
    let program = args.next().map_or_else(|| binary("meshd"), PathBuf::from);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let client = runtime.block_on(Client::try_default()).unwrap();
    let begun = now();
    runtime.block_on(make(&client, services));
    show(&format!("{services} Services made in {:?}", begun.elapsed()));
    measure(program, services);
    runtime.block_on(async {
        api(&client, "", "v1", "Namespace", None).delete(NAMESPACE, &DeleteParams::default()).await.unwrap();
    });
}

fn measure(program: PathBuf, services: usize) {
    let folder = tempfile::tempdir().unwrap();
    let spec = Spec::new("meshd", program).args(["run", "--kubernetes", "--namespace", NAMESPACE]);
    let spec = spec.args(["--kubeconfig".as_ref(), std::env::var_os("KUBECONFIG").unwrap().as_os_str()]);
    let spec = spec.args(["--state-dir".as_ref(), folder.path().join("state").as_os_str()]);
    let spec =
        spec.args(["--grpc-addr", "none", "--secure-grpc-addr", "127.0.0.1:0", "--monitoring-addr", "127.0.0.1:0"]);
    let begun = now();
    let process = spec.start(folder.path());
    let synced = wait(&process, begun, "Sources are synced");
    let published = wait(&process, begun, "Snapshot published");
    let status = fs::read_to_string(format!("/proc/{}/status", process.pid())).unwrap();
    let memory = status.lines().filter(|line| line.starts_with("VmRSS") || line.starts_with("VmHWM"));
    let memory: Vec<String> = memory.map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    let endpoints = services * ENDPOINTS;
    show(&format!("{services} Services, {endpoints} endpoints: synced after {synced:?}, snapshot after {published:?}"));
    show(&format!("memory then: {}", memory.join(", ")));
    let line = process.log().lines().find(|line| line.contains("Snapshot published")).map(str::to_owned);
    show(&line.unwrap_or_default());
}

fn wait(process: &Process, begun: Instant, what: &str) -> Duration {
    while !process.log().contains(what) {
        assert!(begun.elapsed() < PATIENCE, "{what}: {}", process.log());
        pause();
    }
    begun.elapsed()
}

async fn make(client: &Client, services: usize) {
    let namespaces = api(client, "", "v1", "Namespace", None);
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}});
    let _ = namespaces.create(&PostParams::default(), &serde_json::from_value(namespace).unwrap()).await;
    let (kinds, slices) = (
        Arc::new(api(client, "", "v1", "Service", Some(NAMESPACE))),
        Arc::new(api(client, "discovery.k8s.io", "v1", "EndpointSlice", Some(NAMESPACE))),
    );
    let mut running = JoinSet::new();
    for number in 0..services {
        if running.len() == AT_ONCE {
            running.join_next().await.unwrap().unwrap();
        }
        let (kinds, slices) = (Arc::clone(&kinds), Arc::clone(&slices));
        running.spawn(async move {
            create(&kinds, service(number)).await;
            create(&slices, slice(number)).await;
        });
    }
    while let Some(done) = running.join_next().await {
        done.unwrap();
    }
    // Somebody else leads there, so that the control plane writes nothing elsewhere: the cluster may have another mesh.
    let moment = serde_json::to_value(MicroTime(Timestamp::now())).unwrap();
    let spec =
        json!({"holderIdentity": "e2e", "leaseDurationSeconds": 300, "acquireTime": moment, "renewTime": moment});
    let lease = json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "spec": spec,
        "metadata": {"name": "lateen-leader", "namespace": NAMESPACE}});
    create(&api(client, "coordination.k8s.io", "v1", "Lease", Some(NAMESPACE)), lease).await;
}

async fn create(api: &Api<DynamicObject>, object: serde_json::Value) {
    let object = serde_json::from_value(object).unwrap();
    match api.create(&PostParams::default(), &object).await {
        Ok(_) => {}
        Err(kube::Error::Api(status)) if status.code == 409 => {}
        Err(error) => panic!("{error}"),
    }
}

fn service(number: usize) -> serde_json::Value {
    // The label keeps kube-proxy from writing rules for them: the machine has other users.
    json!({"apiVersion": "v1", "kind": "Service",
        "metadata": {"name": format!("s{number}"), "labels": {"service.kubernetes.io/service-proxy-name": "none"},
            "annotations": {"made": format!("{:?}", SystemTime::now())}},
        "spec": {"ports": [{"name": "http", "port": 80}, {"name": "grpc", "port": 90}]}})
}

fn slice(number: usize) -> serde_json::Value {
    let endpoint = |index: usize| {
        let host = number * ENDPOINTS + index;
        let address = format!("10.{}.{}.{}", 128 + (host >> 16), (host >> 8) & 255, host & 255);
        json!({"addresses": [address], "conditions": {"ready": true}, "zone": format!("z{}", host % 3)})
    };
    let labels = json!({"kubernetes.io/service-name": format!("s{number}"),
        "service.kubernetes.io/service-proxy-name": "none", "endpointslice.kubernetes.io/managed-by": "e2e"});
    json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {"name": format!("s{number}-a"), "labels": labels},
        "ports": [{"name": "http", "port": 8080}, {"name": "grpc", "port": 9090}],
        "endpoints": (0..ENDPOINTS).map(endpoint).collect::<Vec<_>>()})
}

fn api(client: &Client, group: &str, version: &str, kind: &str, namespace: Option<&str>) -> Api<DynamicObject> {
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind));
    match namespace {
        Some(namespace) => Api::namespaced_with(client.clone(), namespace, &resource),
        None => Api::all_with(client.clone(), &resource),
    }
}
