//! A real Envoy accepts what every golden case of the control plane is translated to.

use std::collections::BTreeSet;
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use e2e::process::envoy;
use mesh_api::ids::{ClusterId, Name, Namespace};
use mesh_api::labels::Labels;
use mesh_api::names::{CLUSTER_DOMAIN, DEFAULT_CLUSTER_ID};
use mesh_api::text::Str;
use mesh_api_xds::codec::bootstrap::Bootstrap;
use mesh_api_xds::ir::Resource;
use mesh_api_xds::ir::endpoint::Locality;
use mesh_api_xds::node::{NodeInfo, NodeMetadata, ProxyKind};
use mesh_api_xds::type_url::TypeUrl;
use meshd_core::proxy::{Flavor, Interception, ProxyType, ProxyView};
use meshd_core::snapshot::Snapshot;
use meshd_core::translate::{Translator, Wanted};
use meshd_core::world::{Change, World};
use serde::Deserialize;

/// What a case says of a proxy, as far as translation for an Envoy depends on it.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct CaseProxy {
    name: String,
    #[serde(default, rename = "type")]
    kind: String,
    ip: Option<IpAddr>,
    namespace: Option<String>,
    #[serde(default)]
    labels: Labels,
    #[serde(default)]
    interception: String,
    http_proxy_port: Option<u16>,
    #[serde(default)]
    unprivileged: bool,
}

impl CaseProxy {
    fn view(&self) -> ProxyView {
        ProxyView {
            id: Str::from(self.name.as_str()),
            kind: if self.kind == "router" { ProxyType::Router } else { ProxyType::Sidecar },
            flavor: Flavor::Envoy,
            ips: Arc::from([self.ip.unwrap_or_else(|| [10, 1, 0, 99].into())]),
            name: Name::from(self.name.as_str()),
            namespace: Namespace::from(self.namespace.as_deref().unwrap_or("shop")),
            service_account: Name::from("default"),
            labels: self.labels.clone(),
            workload: Str::from(self.name.as_str()),
            cluster: ClusterId::from(DEFAULT_CLUSTER_ID),
            domain: Str::from(CLUSTER_DOMAIN),
            locality: Locality::default(),
            interception: if self.interception == "none" { Interception::None } else { Interception::Redirect },
            http_proxy_port: self.http_proxy_port,
            idle_timeout: None,
            http10: false,
            unprivileged: self.unprivileged,
            dns_capture: false,
        }
    }

    fn node(&self) -> NodeInfo {
        NodeInfo {
            kind: if self.kind == "router" { ProxyKind::Router } else { ProxyKind::Sidecar },
            address: [10, 1, 0, 99].into(),
            name: self.name.as_str().into(),
            namespace: "shop".into(),
            dns_domain: "shop.svc.cluster.local".into(),
            service_cluster: self.name.as_str().into(),
            locality: Locality::default(),
            takes_marks: false,
            metadata: NodeMetadata::default(),
        }
    }
}

/// The cases' folders, ordered by name.
fn cases() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../meshd/core/tests/cases");
    let mut folders: Vec<_> = fs::read_dir(root).unwrap().map(|entry| entry.unwrap().path()).collect();
    folders.sort();
    folders
}

fn world(case: &Path) -> World {
    let text = fs::read_to_string(case.join("input.yaml")).unwrap();
    let mut world = World::default();
    for item in mesh_api::parse::parse(&text, "shop").objects {
        let object = item.unwrap_or_else(|error| panic!("{}: {error}", case.display())).object;
        world.apply(Change::Upsert { cluster: ClusterId::from(DEFAULT_CLUSTER_ID), object });
    }
    world
}

/// Everything a proxy is served, in a bootstrap; how many resources that is.
fn bootstrap(snapshot: &Snapshot, proxy: &CaseProxy) -> (Vec<u8>, usize) {
    let translation = Translator::<Resource>::default().translate(snapshot, &proxy.view(), Wanted::all());
    let nowhere = SocketAddr::from(([127, 0, 0, 1], 15_010));
    let mut bootstrap = Bootstrap::new(&proxy.node(), nowhere).unwrap();
    let mut count = 0;
    let sets = TypeUrl::CONFIG.into_iter().filter_map(|type_url| translation.sets.of(type_url).as_ref());
    for resource in sets.flat_map(|set| set.iter()) {
        bootstrap = bootstrap.with(resource).unwrap_or_else(|error| panic!("{}: {error:?}", resource.name()));
        count += 1;
    }
    (bootstrap.into_bytes().to_vec(), count)
}

/// What Envoy says against a bootstrap.
fn refusal(folder: &Path, bootstrap: &[u8]) -> Option<String> {
    let file = folder.join("bootstrap.pb");
    fs::write(&file, bootstrap).unwrap();
    let mut validate = Command::new(envoy());
    validate.args(["--mode", "validate", "-l", "error", "-c"]).arg(&file);
    let output = validate.output().unwrap();
    if output.status.success() { None } else { Some(String::from_utf8_lossy(&output.stderr).into_owned()) }
}

#[test]
#[ignore = "needs a real Envoy: cargo xtask ci interop"]
fn interop_envoy_accepts_every_golden() {
    let folder = tempfile::tempdir().unwrap();
    let (mut seen, mut refused, mut validated) = (BTreeSet::new(), Vec::new(), 0);
    for case in cases() {
        let text = fs::read_to_string(case.join("proxy.yaml")).unwrap();
        let proxies: Vec<CaseProxy> = serde_yaml_ng::from_str(&text).unwrap();
        let snapshot = Snapshot::build(&world(&case), 1);
        for proxy in proxies {
            let (bytes, count) = bootstrap(&snapshot, &proxy);
            assert!(count > 0, "{}: nothing for {}", case.display(), proxy.name);
            validated += count;
            // Many proxies of a case differ in nothing that matters to an Envoy.
            if !seen.insert(bytes.clone()) {
                continue;
            }
            if let Some(words) = refusal(folder.path(), &bytes) {
                let name = case.file_name().unwrap().to_string_lossy();
                refused.push(format!("{name}, {}: {words}", proxy.name));
            }
        }
    }
    assert!(refused.is_empty(), "{} of {} refused:\n{}", refused.len(), seen.len(), refused.join("\n"));
    assert!(validated > 100, "only {validated} resources in all cases");
}
