//! A connected proxy as translation sees it: who it is and what it understands.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use mesh_api::duration;
use mesh_api::ids::{ClusterId, Name, Namespace};
use mesh_api::labels::Labels;
use mesh_api::names::CLUSTER_DOMAIN;
use mesh_api::text::Str;
use mesh_api_xds::ir::endpoint::Locality;
use mesh_api_xds::node::{InterceptionMode, NodeInfo, ProxyKind};

/// The part a proxy plays.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ProxyType {
    /// Beside one workload.
    Sidecar,
    /// A gateway on its own (`router`).
    Router,
}

/// Which dialect of xDS a proxy speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Flavor {
    /// `mesh-proxy`: virtual hosts one by one, Istio's filters built in.
    Lateen,
    /// A stock Envoy: whole route configurations, no filter that it does not know.
    Envoy,
}

/// How a sidecar gets its traffic (`INTERCEPTION_MODE`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Interception {
    /// Redirected to ports 15001 and 15006; the original destination is known.
    #[default]
    Redirect,
    /// As `Redirect`, and the client's source address is kept.
    Tproxy,
    /// Not at all: only listeners that bind a socket work.
    None,
}

/// What translation knows of a proxy. Immutable for the life of its stream.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ProxyView {
    /// Node id, `type~ip~name.namespace~domain`.
    pub id: Str,
    /// The part it plays.
    pub kind: ProxyType,
    /// What it understands.
    pub flavor: Flavor,
    /// Its own addresses, the first one preferred.
    pub ips: Arc<[IpAddr]>,
    /// Pod or workload entry name.
    pub name: Name,
    /// Namespace it lives in and is authenticated for.
    pub namespace: Namespace,
    /// Its service account.
    pub service_account: Name,
    /// Labels of its workload.
    pub labels: Labels,
    /// Workload name, for telemetry.
    pub workload: Str,
    /// Cluster it runs in.
    pub cluster: ClusterId,
    /// Domain of services, `cluster.local`.
    pub domain: Str,
    /// Where it is.
    pub locality: Locality,
    /// How it gets its traffic.
    pub interception: Interception,
    /// Port of its HTTP proxy listener on loopback, if it wants one (`HTTP_PROXY_PORT`).
    pub http_proxy_port: Option<u16>,
    /// Idle time of downstream HTTP connections (`IDLE_TIMEOUT`).
    pub idle_timeout: Option<Duration>,
    /// HTTP/1.0 clients are served (`HTTP10`).
    pub http10: bool,
    /// It cannot bind ports below 1024 (`UNPRIVILEGED_POD`).
    pub unprivileged: bool,
}

/// A proxy that is not served.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnservedProxy {
    /// Its kind does not act yet.
    #[error("proxies of kind {0} are not served yet")]
    Kind(&'static str),
    /// It speaks proxyless gRPC or another dialect.
    #[error("the generator {0:?} is not served yet")]
    Generator(Str),
}

impl ProxyView {
    /// A proxy as it introduced itself.
    ///
    /// # Errors
    /// When proxies of its kind are not served.
    pub fn from_node(node: &NodeInfo) -> Result<Self, UnservedProxy> {
        let kind = match node.kind {
            ProxyKind::Sidecar => ProxyType::Sidecar,
            ProxyKind::Router => ProxyType::Router,
            other @ (ProxyKind::Waypoint | ProxyKind::Ztunnel) => return Err(UnservedProxy::Kind(other.as_str())),
        };
        let metadata = &node.metadata;
        if !metadata.generator.is_empty() {
            return Err(UnservedProxy::Generator(metadata.generator.clone()));
        }
        // The node's own address is the preferred one; the others follow.
        let others = metadata.addresses.iter().copied().filter(|ip| *ip != node.address);
        let idle_timeout = metadata.other.get("IDLE_TIMEOUT").and_then(|value| value.as_str());
        let domain = node.dns_domain.split_once(".svc.").map_or(CLUSTER_DOMAIN, |(_, domain)| domain);
        Ok(Self {
            id: Str::from(node.id()),
            kind,
            flavor: if node.takes_marks { Flavor::Lateen } else { Flavor::Envoy },
            ips: std::iter::once(node.address).chain(others).collect(),
            name: Name::from(&node.name),
            namespace: Namespace::from(&node.namespace),
            service_account: Name::from(&metadata.service_account),
            labels: metadata.labels.iter().map(|(key, value)| (key.clone(), value.clone())).collect(),
            workload: metadata.workload_name.clone(),
            cluster: ClusterId::from(&metadata.cluster_id),
            domain: Str::from(domain),
            locality: node.locality.clone(),
            interception: match metadata.interception_mode {
                InterceptionMode::Redirect => Interception::Redirect,
                InterceptionMode::Tproxy => Interception::Tproxy,
                InterceptionMode::None => Interception::None,
            },
            http_proxy_port: Some(metadata.http_proxy_port).filter(|port| *port != 0),
            idle_timeout: idle_timeout.and_then(|text| duration::parse(text).ok()),
            http10: metadata.http10,
            unprivileged: metadata.unprivileged_pod,
        })
    }

    /// Whether any of its addresses is `ip`.
    #[must_use]
    pub fn has_ip(&self, ip: IpAddr) -> bool {
        self.ips.contains(&ip)
    }

    /// Whether it listens on IPv6 wildcard addresses: only when it has no IPv4 address at all.
    #[must_use]
    pub fn ipv6_only(&self) -> bool {
        !self.ips.is_empty() && self.ips.iter().all(IpAddr::is_ipv6)
    }
}
