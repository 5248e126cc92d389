//! Cases: objects in YAML and the proxies that look at them.

use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use mesh_api::ids::{ClusterId, Name, Namespace};
use mesh_api::labels::Labels;
use mesh_api::names::{CLUSTER_DOMAIN, DEFAULT_CLUSTER_ID};
use mesh_api::object::AnyObject;
use mesh_api::text::Str;
use mesh_api_xds::ir::endpoint::Locality;
use meshd_core::proxy::{Flavor, Interception, ProxyType, ProxyView};
use meshd_core::world::{Change, World};
use serde::Deserialize;

/// A proxy of a case, as `proxy.yaml` lists it.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct ProxySpec {
    /// Pod name; names the section of the expectation.
    pub(crate) name: String,
    #[serde(default = "default_type", rename = "type")]
    pub(crate) kind: String,
    #[serde(default)]
    pub(crate) ip: Option<IpAddr>,
    /// Of the other family.
    #[serde(default)]
    pub(crate) second_ip: Option<IpAddr>,
    #[serde(default = "default_namespace")]
    pub(crate) namespace: String,
    #[serde(default)]
    pub(crate) labels: Labels,
    /// `envoy` for a stock Envoy.
    #[serde(default)]
    pub(crate) flavor: String,
    /// `none` without capture.
    #[serde(default)]
    pub(crate) interception: String,
    #[serde(default)]
    pub(crate) http_proxy_port: Option<u16>,
    /// `region/zone/subzone`.
    #[serde(default)]
    pub(crate) locality: String,
    #[serde(default)]
    pub(crate) unprivileged: bool,
    #[serde(default)]
    pub(crate) http10: bool,
    #[serde(default)]
    pub(crate) dns_capture: bool,
    #[serde(default)]
    pub(crate) idle_timeout: Option<mesh_api::duration::DurationText>,
    /// Which resources are written out: `<type> <name with stars>`. Names of all are always written.
    #[serde(default)]
    pub(crate) show: Vec<String>,
}

fn default_type() -> String {
    "sidecar".to_owned()
}

fn default_namespace() -> String {
    "shop".to_owned()
}

impl ProxySpec {
    /// The proxy as translation sees it.
    pub(crate) fn view(&self) -> ProxyView {
        let mut places = self.locality.splitn(3, '/').map(Str::from);
        let mut place = || places.next().unwrap_or_default();
        ProxyView {
            id: Str::from(self.name.as_str()),
            kind: if self.kind == "router" { ProxyType::Router } else { ProxyType::Sidecar },
            flavor: if self.flavor == "envoy" { Flavor::Envoy } else { Flavor::Lateen },
            ips: [self.ip.unwrap_or_else(|| IpAddr::from([10, 1, 0, 99]))].into_iter().chain(self.second_ip).collect(),
            name: Name::from(self.name.as_str()),
            namespace: Namespace::from(self.namespace.as_str()),
            service_account: Name::from("default"),
            labels: self.labels.clone(),
            workload: Str::from(self.name.as_str()),
            cluster: ClusterId::from(DEFAULT_CLUSTER_ID),
            domain: Str::from(CLUSTER_DOMAIN),
            locality: Locality { region: place(), zone: place(), subzone: place() },
            interception: if self.interception == "none" { Interception::None } else { Interception::Redirect },
            http_proxy_port: self.http_proxy_port,
            idle_timeout: self.idle_timeout.map(|text| text.0),
            http10: self.http10,
            unprivileged: self.unprivileged,
            dns_capture: self.dns_capture,
        }
    }
}

/// A folder below `tests/cases`.
#[derive(Debug)]
pub(crate) struct Case {
    pub(crate) path: PathBuf,
    pub(crate) objects: Vec<AnyObject>,
    pub(crate) proxies: Vec<ProxySpec>,
}

impl Case {
    /// All cases, ordered by name.
    pub(crate) fn all() -> Vec<Self> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases");
        let mut folders: Vec<_> = fs::read_dir(root).unwrap().map(|entry| entry.unwrap().path()).collect();
        folders.sort();
        folders.into_iter().map(Self::load).collect()
    }

    fn load(path: PathBuf) -> Self {
        let proxies = serde_yaml_ng::from_str(&read(&path.join("proxy.yaml")));
        let proxies = proxies.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let objects = mk_objects(&read(&path.join("input.yaml")), &path.display().to_string());
        Self { path, objects, proxies }
    }

    pub(crate) fn name(&self) -> String {
        self.path.file_name().unwrap().to_string_lossy().into_owned()
    }

    pub(crate) fn world(&self) -> World {
        mk_world(&self.objects)
    }
}

pub(crate) fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The objects of a text; one that does not parse fails the test.
pub(crate) fn mk_objects(text: &str, place: &str) -> Vec<AnyObject> {
    let parsed = mesh_api::parse::parse(text, "shop");
    assert!(parsed.findings.is_empty(), "{place}: {:?}", parsed.findings);
    parsed.objects.into_iter().map(|item| item.unwrap_or_else(|error| panic!("{place}: {error}")).object).collect()
}

pub(crate) fn upsert(object: &AnyObject) -> Change {
    Change::Upsert { cluster: ClusterId::from(DEFAULT_CLUSTER_ID), object: object.clone() }
}

/// A world of these objects, applied in this order.
pub(crate) fn mk_world(objects: &[AnyObject]) -> World {
    let mut world = World::default();
    for object in objects {
        world.apply(upsert(object));
    }
    world
}
