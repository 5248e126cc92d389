//! An unmodified Envoy, configured with nothing but a bootstrap: the control plane's plaintext port, Istio's node id and
//! metadata, and the workload's certificate and roots as static secrets under the names that served resources use.

use std::fs;
use std::sync::Arc;

use e2e::assert::eventually;
use e2e::client;
use e2e::mesh::{Mesh, NAMESPACE, Workload, ok};
use e2e::process::{Process, Spec, envoy};
use mesh_api_xds::codec::bootstrap::Bootstrap;
use mesh_api_xds::ir::Resource;
use mesh_api_xds::ir::endpoint::Locality;
use mesh_api_xds::ir::secret::{PrivateKey, Secret, SecretContent};
use mesh_api_xds::node::{NodeInfo, NodeMetadata, ProxyKind};
use mesh_ca::client::Credential;
use mesh_proxy::args::{ProxyArgs, Role};
use mesh_proxy::bootstrap::{Env, read};
use mesh_proxy::config::identity;
use tokio::sync::watch;

/// Variables as a proxy would find them.
struct Variables(Vec<(&'static str, String)>);

impl Env for Variables {
    fn get(&self, name: &str) -> Option<String> {
        self.0.iter().find(|(known, _)| *known == name).map(|(_, value)| value.clone())
    }

    fn all(&self) -> Vec<(String, String)> {
        self.0.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect()
    }
}

/// A certificate from the control plane's certificate service, asked for as a proxy of ours asks.
pub(crate) fn credential(mesh: &Mesh, workload: &Workload) -> Credential {
    let args = ProxyArgs::new(Role::Sidecar);
    let settings = read(&args, &Variables(mesh.proxy_env(workload))).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let (sender, mut receiver) = watch::channel(None);
        let received = async { receiver.wait_for(Option::is_some).await.unwrap().clone().unwrap() };
        tokio::select! {
            () = identity::maintain(&settings, &sender) => unreachable!("it goes on for ever"),
            credential = tokio::time::timeout(e2e::assert::PATIENCE, received) => credential.unwrap(),
        }
    })
}

fn node(workload: &Workload) -> NodeInfo {
    let keys = serde_json::json!({
        "NAME": workload.name, "NAMESPACE": NAMESPACE, "SERVICE_ACCOUNT": workload.account, "LABELS": workload.labels,
        "CLUSTER_ID": "Kubernetes", "INSTANCE_IPS": workload.ip.to_string(), "INTERCEPTION_MODE": workload.interception,
        "WORKLOAD_NAME": workload.name,
    });
    let metadata: NodeMetadata = serde_json::from_value(keys).unwrap();
    NodeInfo {
        kind: ProxyKind::parse(workload.role).unwrap(),
        address: workload.ip.into(),
        name: workload.name.as_str().into(),
        namespace: NAMESPACE.into(),
        dns_domain: format!("{NAMESPACE}.svc.cluster.local").into(),
        service_cluster: format!("{}.{NAMESPACE}", workload.account).into(),
        locality: Locality::default(),
        takes_marks: false,
        metadata,
    }
}

/// Starts an Envoy for a workload and waits until it is ready.
pub(crate) fn start(mesh: &Mesh, workload: &Workload) -> Process {
    let credential = credential(mesh, workload);
    let certificate = SecretContent::Certificate {
        chain: credential.chain_pem().into_bytes().into(),
        key: PrivateKey(Arc::from(credential.key_pem().as_bytes())),
    };
    let roots = SecretContent::Trust(credential.roots_pem().into_bytes().into());
    let mut bootstrap = Bootstrap::new(&node(workload), mesh.xds()).unwrap().dynamic().admin(workload.admin());
    for (name, content) in [("default", certificate), ("ROOTCA", roots)] {
        bootstrap = bootstrap.with(&Resource::Secret(Secret { name: name.into(), content })).unwrap();
    }
    let file = mesh.folder().join(format!("{}.pb", workload.name));
    fs::write(&file, bootstrap.into_bytes()).unwrap();
    let spec = Spec::new(&format!("{}.envoy", workload.name), envoy());
    let spec = spec
        .args([
            "--concurrency",
            "1",
            "--disable-hot-restart",
            "-l",
            "warning",
            "--component-log-level",
            "misc:error",
            "-c",
        ])
        .args([file]);
    let mut process = spec.start(&mesh.logs());
    let admin = workload.admin();
    eventually(&format!("the Envoy of {} is ready", workload.name), || {
        process.expect_alive();
        ok(client::get(admin, "/ready"))
    });
    process
}

/// Fails unless an Envoy took everything that it was ever sent.
#[track_caller]
pub(crate) fn expect_nothing_rejected(mesh: &Mesh, workload: &Workload) {
    let stats = client::get(workload.admin(), "/stats?filter=(update_rejected|update_success)").unwrap().body;
    let counters = stats.lines().filter_map(|line| line.split_once(": "));
    let (rejected, taken): (Vec<_>, Vec<_>) = counters.partition(|(name, _)| name.ends_with("update_rejected"));
    assert!(rejected.iter().all(|(_, count)| *count == "0"), "{rejected:?}");
    for subject in ["cluster_manager.cds", "listener_manager.lds"] {
        let name = format!("{subject}.update_success");
        assert!(taken.iter().any(|(known, count)| *known == name && *count != "0"), "{subject}: {taken:?}");
    }
    let page = mesh.syncz();
    let wanted = workload.name.as_str();
    let proxy = page["proxies"].as_array().unwrap().iter().find(|proxy| proxy["name"] == wanted);
    let proxy = proxy.unwrap_or_else(|| panic!("{wanted} is not among the proxies: {page}"));
    assert_eq!(proxy["flavor"], "envoy", "{proxy}");
    for (type_url, state) in proxy["types"].as_object().unwrap() {
        assert_ne!(state["status"], "ERROR", "{type_url}: {state}");
    }
}
