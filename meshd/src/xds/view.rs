//! What a proxy says of itself, as translation sees it.

use std::time::Duration;

use mesh_api::duration;
use mesh_api::identity::SpiffeId;
use mesh_api::ids::ClusterId;
use mesh_api::labels::Labels;
use mesh_api::names::{CAPTURED_METADATA, CLUSTER_DOMAIN};
use mesh_api::text::Str;
use mesh_api_xds::node::{InterceptionMode, NodeInfo, ProxyKind};
use meshd_core::proxy::{Flavor, Interception, ProxyType, ProxyView};

/// A proxy that cannot be served.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ViewError {
    /// Ambient proxies and proxyless gRPC are not served yet.
    #[error("proxies of type {0} are not served by this release")]
    Kind(&'static str),
    /// Another kind of client.
    #[error("clients with GENERATOR={0:?} are not served by this release")]
    Generator(String),
}

/// Reads a node. The service account is that of the proved identity, where there is one.
pub(crate) fn view(node: &NodeInfo, identity: Option<&SpiffeId>, cluster: &ClusterId) -> Result<ProxyView, ViewError> {
    let metadata = &node.metadata;
    let kind = match node.kind {
        ProxyKind::Sidecar => ProxyType::Sidecar,
        ProxyKind::Router => ProxyType::Router,
        ProxyKind::Waypoint | ProxyKind::Ztunnel => return Err(ViewError::Kind(node.kind.as_str())),
    };
    if !metadata.generator.is_empty() {
        return Err(ViewError::Generator(metadata.generator.chars().take(64).collect()));
    }
    let mut ips = vec![node.address];
    ips.extend(metadata.addresses.iter().copied().filter(|ip| *ip != node.address));
    let service_account = identity.map_or_else(
        || mesh_api::ids::Name::from(&metadata.service_account),
        |identity| identity.service_account.clone(),
    );
    let idle_timeout = metadata.other.get("IDLE_TIMEOUT").and_then(|value| value.as_str());
    Ok(ProxyView {
        id: Str::from(node.id()),
        kind,
        flavor: if node.takes_marks { Flavor::Lateen } else { Flavor::Envoy },
        ips: ips.into(),
        name: (&node.name).into(),
        namespace: (&node.namespace).into(),
        service_account,
        labels: metadata.labels.iter().map(|(key, value)| (key.clone(), value.clone())).collect::<Labels>(),
        workload: if metadata.workload_name.is_empty() { node.name.clone() } else { metadata.workload_name.clone() },
        cluster: if metadata.cluster_id.is_empty() { cluster.clone() } else { (&metadata.cluster_id).into() },
        domain: domain(&node.dns_domain, &node.namespace),
        locality: node.locality.clone(),
        interception: match metadata.interception_mode {
            InterceptionMode::Redirect => Interception::Redirect,
            InterceptionMode::Tproxy => Interception::Tproxy,
            InterceptionMode::None => Interception::None,
        },
        http_proxy_port: Some(metadata.http_proxy_port).filter(|port| *port != 0),
        idle_timeout: idle_timeout.and_then(|text| duration::parse(text).ok()).filter(|time| *time > Duration::ZERO),
        http10: metadata.http10,
        unprivileged: metadata.unprivileged_pod,
        dns_capture: metadata.serves_names(),
    })
}

/// Whether the workload's traffic is led through the proxy, if it says so.
pub(crate) fn captured(node: &NodeInfo) -> Option<bool> {
    node.metadata.other.get(CAPTURED_METADATA)?.as_str()?.parse().ok()
}

/// The domain of services in `<namespace>.svc.<domain>`.
fn domain(dns_domain: &str, namespace: &str) -> Str {
    let rest = dns_domain.strip_prefix(namespace).and_then(|rest| rest.strip_prefix(".svc."));
    Str::from(rest.filter(|rest| !rest.is_empty()).unwrap_or(CLUSTER_DOMAIN))
}

#[cfg(test)]
pub(crate) mod tests {
    use mesh_api_xds::node::NodeMetadata;

    use super::*;

    /// A sidecar of ours.
    pub(crate) fn mk_node(name: &str, namespace: &str) -> NodeInfo {
        NodeInfo {
            kind: ProxyKind::Sidecar,
            address: [10, 0, 0, 1].into(),
            name: Str::from(name),
            namespace: Str::from(namespace),
            dns_domain: Str::from(format!("{namespace}.svc.cluster.local")),
            service_cluster: Str::from(format!("{name}.{namespace}")),
            locality: mesh_api_xds::ir::endpoint::Locality::default(),
            takes_marks: true,
            metadata: NodeMetadata::default(),
        }
    }

    #[test]
    fn a_sidecar_of_ours_is_understood() {
        let mut node = mk_node("web-1", "shop");
        node.metadata.addresses = vec![[10, 0, 0, 1].into(), [10, 0, 0, 2].into()];
        node.metadata.other.insert("IDLE_TIMEOUT".to_owned(), "90s".into());
        node.metadata.service_account = Str::from("claimed");
        let identity = SpiffeId::parse("spiffe://cluster.local/ns/shop/sa/proved").unwrap();
        let cluster = ClusterId::from("Kubernetes");
        let view = view(&node, Some(&identity), &cluster).unwrap();
        assert_eq!((view.flavor, view.kind), (Flavor::Lateen, ProxyType::Sidecar));
        assert_eq!(view.id, "sidecar~10.0.0.1~web-1.shop~shop.svc.cluster.local");
        assert_eq!(view.ips.len(), 2);
        assert_eq!(view.service_account, "proved");
        assert_eq!(view.domain, "cluster.local");
        assert_eq!(view.idle_timeout, Some(Duration::from_secs(90)));
        assert_eq!((view.http_proxy_port, view.cluster), (None, cluster));
    }

    #[test]
    fn what_a_proxy_found_out_about_its_capture_is_read() {
        let mut node = mk_node("web-1", "shop");
        assert_eq!(captured(&node), None);
        for (said, expect) in [("false", Some(false)), ("true", Some(true)), ("perhaps", None)] {
            node.metadata.other.insert(CAPTURED_METADATA.to_owned(), said.into());
            assert_eq!(captured(&node), expect, "{said}");
        }
    }

    #[test]
    fn what_is_not_served_is_named() {
        let mut node = mk_node("web-1", "shop");
        node.kind = ProxyKind::Ztunnel;
        assert_eq!(view(&node, None, &ClusterId::default()).unwrap_err(), ViewError::Kind("ztunnel"));
        node.kind = ProxyKind::Router;
        node.takes_marks = false;
        assert_eq!(view(&node, None, &ClusterId::default()).unwrap().flavor, Flavor::Envoy);
        node.metadata.generator = Str::from("grpc");
        assert_eq!(view(&node, None, &ClusterId::default()).unwrap_err(), ViewError::Generator("grpc".into()));
    }

    #[test]
    fn the_domain_is_that_of_the_node() {
        assert_eq!(domain("shop.svc.example.org", "shop"), "example.org");
        assert_eq!(domain("shop.svc.", "shop"), "cluster.local");
        assert_eq!(domain("", "shop"), "cluster.local");
    }
}
