//! Opaque proxying: which clusters bytes go to.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use mesh_api::text::Str;
use mesh_api_xds::ir::Origin;
use mesh_api_xds::ir::chain::{Serve, TcpProxy, WeightedTcp};
use mesh_api_xds::ir::listener::Listener;

use super::names;
use super::vhost::cluster_of;
use super::view::View;
use crate::snapshot::services::Service;
use crate::snapshot::virtual_services::Dest;

impl View<'_> {
    /// Any address.
    pub(crate) fn wildcard(&self) -> IpAddr {
        if self.proxy.ipv6_only() { Ipv6Addr::UNSPECIFIED.into() } else { Ipv4Addr::UNSPECIFIED.into() }
    }

    /// This machine.
    pub(crate) fn loopback(&self) -> IpAddr {
        if self.proxy.ipv6_only() { Ipv6Addr::LOCALHOST.into() } else { Ipv4Addr::LOCALHOST.into() }
    }

    /// A listener on any address, or on this machine's own, has both families where the proxy has.
    pub(crate) fn on_both_families(&self, listener: Listener) -> Listener {
        let port = listener.address.port();
        let other: IpAddr = match listener.address.ip() {
            IpAddr::V4(Ipv4Addr::UNSPECIFIED) => Ipv6Addr::UNSPECIFIED.into(),
            IpAddr::V4(Ipv4Addr::LOCALHOST) => Ipv6Addr::LOCALHOST.into(),
            IpAddr::V4(_) | IpAddr::V6(_) => return listener,
        };
        if !self.proxy.dual_stack() || !listener.additional_addresses.is_empty() {
            return listener;
        }
        Listener { additional_addresses: [SocketAddr::new(other, port)].into(), ..listener }
    }

    /// Bytes to one cluster.
    pub(crate) fn tcp(&self, stat_prefix: &str, cluster: &str) -> Serve {
        Serve::Tcp(Arc::new(TcpProxy {
            stat_prefix: Str::from(stat_prefix),
            clusters: [WeightedTcp { cluster: Str::from(cluster), weight: 1 }].into(),
            idle_timeout: None,
            access_logs: Arc::clone(&self.snapshot.mesh.access_logs),
            origin: Origin::default(),
        }))
    }

    /// Bytes to those of the destinations that exist, by their shares; `None` when none does.
    pub(crate) fn tcp_to(&self, to: &[Dest], port: u16, origin: &Origin) -> Option<Serve> {
        let to: Vec<&Dest> = to.iter().filter(|dest| self.exists(&dest.to, port)).collect();
        let clusters: Arc<[WeightedTcp]> = to
            .iter()
            .map(|dest| WeightedTcp {
                cluster: cluster_of(&dest.to, port, self.scope, &|host| self.service(host)),
                weight: dest.weight,
            })
            .collect();
        let stat_prefix = clusters.first()?.cluster.clone();
        let idle_timeout = to.first().and_then(|dest| {
            let service = self.service(&dest.to.host)?;
            self.tcp_idle_timeout(&service, &dest.to.subset, dest.to.port.unwrap_or(port))
        });
        let access_logs = Arc::clone(&self.snapshot.mesh.access_logs);
        let origin = origin.clone();
        Some(Serve::Tcp(Arc::new(TcpProxy { stat_prefix, clusters, idle_timeout, access_logs, origin })))
    }

    fn tcp_idle_timeout(&self, service: &Service, subset: &str, port: u16) -> Option<Duration> {
        let rule = self.rule(service)?;
        rule.blocks(rule.subset(subset), port).pool.and_then(|pool| pool.tcp_idle_timeout)
    }

    /// Bytes to a service's own cluster.
    pub(crate) fn tcp_service(&self, service: &Service, port: u16) -> Serve {
        let cluster = names::outbound(port, "", &service.host);
        Serve::Tcp(Arc::new(TcpProxy {
            stat_prefix: cluster.clone(),
            clusters: [WeightedTcp { cluster, weight: 1 }].into(),
            idle_timeout: self.tcp_idle_timeout(service, "", port),
            access_logs: Arc::clone(&self.snapshot.mesh.access_logs),
            origin: Origin::default(),
        }))
    }
}
