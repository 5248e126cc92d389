//! A connected proxy as translation sees it: who it is and what it understands.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use mesh_api::ids::{ClusterId, Name, Namespace};
use mesh_api::labels::Labels;
use mesh_api::text::Str;
use mesh_api_xds::ir::endpoint::Locality;

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
    /// It answers look-ups of names (`DNS_CAPTURE`).
    pub dns_capture: bool,
}

impl ProxyView {
    /// Whether any of its addresses is `ip`.
    #[must_use]
    pub fn has_ip(&self, ip: IpAddr) -> bool {
        self.ips.contains(&ip)
    }

    /// Whether connections of its workload have a destination that the proxy can see: only then may a client choose an
    /// endpoint itself. Without one such a connection would lead back to the listener that took it.
    #[must_use]
    pub fn sees_destinations(&self) -> bool {
        self.kind == ProxyType::Sidecar && self.interception != Interception::None
    }

    /// Whether it has addresses of both families.
    #[must_use]
    pub fn dual_stack(&self) -> bool {
        self.ips.iter().any(IpAddr::is_ipv4) && self.ips.iter().any(IpAddr::is_ipv6)
    }

    /// Whether it listens on IPv6 wildcard addresses: only when it has no IPv4 address at all.
    #[must_use]
    pub fn ipv6_only(&self) -> bool {
        !self.ips.is_empty() && self.ips.iter().all(IpAddr::is_ipv6)
    }
}
