//! `/debug/nodez` and `/debug/computed`: proxies as they can be described to another control plane, and what this one would
//! serve a proxy that is so described.
//!
//! With both, `meshctl revision diff` asks two revisions about the same proxy, though it is connected to one: what differs is
//! what a move from one to the other changes. A description holds what translation knows of a proxy, under Istio's keys of
//! node metadata, so that releases that know more or fewer of them understand each other.

use std::net::IpAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};

use mesh_api::duration;
use mesh_api::finding::Finding;
use mesh_api::ids::ClusterId;
use mesh_api::text::Str;
use mesh_api_xds::encoded::ResourceSet;
use mesh_api_xds::ir::endpoint::Locality;
use mesh_api_xds::node::{InterceptionMode, NodeInfo, NodeMetadata, ProxyKind};
use mesh_api_xds::type_url::TypeUrl;
use meshd_core::proxy::{Flavor, Interception, ProxyType, ProxyView};
use meshd_core::translate::Wanted;
use serde::{Deserialize, Serialize};

use super::dump;
use crate::published::Published;
use crate::push::registry::Registry;
use crate::push::translate::Translate;
use crate::xds::view::view;

/// A proxy in words.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Description {
    /// `sidecar` or `router`.
    r#type: String,
    /// Its first address.
    address: IpAddr,
    name: Str,
    namespace: Str,
    dns_domain: Str,
    #[serde(default)]
    locality: Place,
    /// Whether it is one of ours: virtual hosts one by one.
    #[serde(default)]
    marks: bool,
    /// What else it says, as in the node of a discovery request.
    #[serde(default)]
    metadata: NodeMetadata,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
struct Place {
    region: Str,
    zone: Str,
    subzone: Str,
}

/// `/debug/nodez`.
#[derive(Debug, Serialize)]
pub(super) struct Nodes {
    nodes: Vec<Description>,
}

/// `/debug/computed`.
#[derive(Debug, Serialize)]
pub(super) struct Computed {
    #[serde(flatten)]
    served: dump::Page,
    /// What is wrong with objects as this proxy sees them together.
    findings: Vec<Finding>,
}

/// Why nothing was computed.
#[derive(Debug, thiserror::Error)]
pub(super) enum ComputeError {
    /// The body is no description.
    #[error("the body describes no proxy: {0}")]
    Malformed(String),
    /// A mistake of ours, which no configuration should be able to cause.
    #[error("the translation failed; the log says where")]
    Failed,
}

/// All proxies that are connected.
pub(super) fn nodes(registry: &Registry) -> Nodes {
    Nodes { nodes: registry.connections().iter().map(|connection| describe(&connection.view)).collect() }
}

/// What a proxy of this description would be served now.
pub(super) fn computed(
    body: &[u8],
    published: &Published,
    translate: &dyn Translate,
) -> Result<Computed, ComputeError> {
    let description: Description =
        serde_json::from_slice(body).map_err(|error| ComputeError::Malformed(error.to_string()))?;
    let view = description.view().map_err(ComputeError::Malformed)?;
    let translated = catch_unwind(AssertUnwindSafe(|| translate.translate(&published.snapshot, &view, Wanted::all())));
    let Ok(mut translation) = translated else { return Err(ComputeError::Failed) };
    let mut set = ResourceSet::new(published.snapshot.generation, []);
    for type_url in TypeUrl::CONFIG {
        if let Some(resources) = translation.sets.of_mut(type_url).take() {
            set = set.with(type_url, resources);
        }
    }
    let served = dump::of_set(view.id, &set, &TypeUrl::CONFIG);
    Ok(Computed { served, findings: translation.findings })
}

fn describe(view: &ProxyView) -> Description {
    let unspecified = IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED);
    let mut metadata = NodeMetadata {
        service_account: view.service_account.0.clone(),
        labels: view.labels.iter().map(|(key, value)| (key.clone(), value.clone())).collect(),
        workload_name: view.workload.clone(),
        cluster_id: view.cluster.0.clone(),
        addresses: view.ips.to_vec(),
        interception_mode: match view.interception {
            Interception::Redirect => InterceptionMode::Redirect,
            Interception::Tproxy => InterceptionMode::Tproxy,
            Interception::None => InterceptionMode::None,
        },
        http_proxy_port: view.http_proxy_port.unwrap_or_default(),
        http10: view.http10,
        unprivileged_pod: view.unprivileged,
        dns_capture: view.dns_capture,
        ..NodeMetadata::default()
    };
    if let Some(time) = view.idle_timeout {
        metadata.other.insert("IDLE_TIMEOUT".to_owned(), duration::format(time).into());
    }
    let Locality { region, zone, subzone } = view.locality.clone();
    Description {
        r#type: match view.kind {
            ProxyType::Sidecar => ProxyKind::Sidecar,
            ProxyType::Router => ProxyKind::Router,
        }
        .as_str()
        .to_owned(),
        address: view.ips.first().copied().unwrap_or(unspecified),
        name: view.name.0.clone(),
        namespace: view.namespace.0.clone(),
        dns_domain: Str::from(format!("{}.svc.{}", view.namespace, view.domain)),
        locality: Place { region, zone, subzone },
        marks: view.flavor == Flavor::Lateen,
        metadata,
    }
}

impl Description {
    /// The proxy, as one that connected and said the same of itself.
    fn view(self) -> Result<ProxyView, String> {
        let kind = ProxyKind::parse(&self.r#type).ok_or_else(|| format!("{:?} is no type of proxy", self.r#type))?;
        let Place { region, zone, subzone } = self.locality;
        let node = NodeInfo {
            kind,
            address: self.address,
            name: self.name,
            namespace: self.namespace,
            dns_domain: self.dns_domain,
            service_cluster: Str::default(),
            locality: Locality { region, zone, subzone },
            takes_marks: self.marks,
            metadata: self.metadata,
        };
        view(&node, None, &ClusterId::default()).map_err(|error| error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use mesh_api_xds::encoded::Encoded;
    use meshd_core::rollout::ChangeId;
    use meshd_core::snapshot::Snapshot;
    use meshd_core::translate::Translator;
    use serde_json::{Value, json};

    use super::*;
    use crate::push::registry::tests::mk_view;

    #[test]
    fn a_described_proxy_is_the_same_proxy() {
        let plain =
            ProxyView { id: Str::from("sidecar~10.0.0.1~web-1.shop~shop.svc.cluster.local"), ..mk_view("web-1") };
        let other = ProxyView {
            id: Str::from("router~fd00::1~gate.shop~shop.svc.example.org"),
            kind: ProxyType::Router,
            flavor: Flavor::Envoy,
            ips: [IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, 1]), [10, 0, 0, 2].into()].into(),
            name: "gate".into(),
            domain: Str::from("example.org"),
            labels: [(Str::from("app"), Str::from("gate"))].into_iter().collect(),
            locality: Locality { region: "r".into(), zone: "z".into(), subzone: "s".into() },
            interception: Interception::None,
            http_proxy_port: Some(15007),
            idle_timeout: Some(Duration::from_millis(1500)),
            http10: true,
            unprivileged: true,
            dns_capture: true,
            ..plain.clone()
        };
        for view in [plain, other] {
            let text = serde_json::to_vec(&describe(&view)).unwrap();
            let description: Description = serde_json::from_slice(&text).unwrap();
            assert_eq!(description.view(), Ok(view));
        }
    }

    #[test]
    fn what_a_proxy_would_be_served_is_computed_without_it() {
        let published = Published { snapshot: Arc::new(Snapshot::default()), through: ChangeId(1) };
        let translator = Translator::<Encoded>::default();
        let body = serde_json::to_vec(&describe(&mk_view("web-1"))).unwrap();
        let page = serde_json::to_value(computed(&body, &published, &translator).unwrap()).unwrap();
        let names: Vec<&str> =
            page["resources"]["LDS"].as_array().unwrap().iter().filter_map(|item| item["name"].as_str()).collect();
        assert!(names.contains(&"virtualInbound"), "{names:?}");
        assert_eq!(page["findings"], Value::Array(vec![]));
        for wrong in
            [json!({}), json!({ "type": "x", "address": "10.0.0.1", "name": "a", "namespace": "b", "dnsDomain": "c" })]
        {
            let refused = computed(wrong.to_string().as_bytes(), &published, &translator).unwrap_err();
            assert!(matches!(refused, ComputeError::Malformed(_)), "{refused}");
        }
    }
}
