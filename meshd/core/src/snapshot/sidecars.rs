//! Sidecar resources, compiled.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use mesh_api::host::Hostname;
use mesh_api::ids::{Namespace, ObjectKey};
use mesh_api::labels::{Labels, Selector};
use mesh_api::meta::Timestamp;
use mesh_api::text::Str;

use super::destination_rules::Pool;
use super::mesh::OutboundPolicy;
use super::services::Protocol;

/// A Sidecar resource.
#[derive(Clone, Debug, PartialEq)]
pub struct Sidecar {
    /// The object.
    pub key: ObjectKey,
    /// Its age.
    pub created: Option<Timestamp>,
    /// Workloads; `None` is all of the namespace.
    pub selector: Option<Selector>,
    /// Inbound listeners; empty leaves it to the services.
    pub ingress: Arc<[Ingress]>,
    /// Outbound listeners; never empty.
    pub egress: Arc<[EgressSpec]>,
    /// Unknown destinations; `None` as the mesh says.
    pub outbound: Option<OutboundPolicy>,
    /// Connections to the workload.
    pub inbound_pool: Option<Pool>,
}

/// An inbound listener.
#[derive(Clone, Debug, PartialEq)]
pub struct Ingress {
    /// Port of the workload.
    pub port: u16,
    /// Name of the port.
    pub port_name: Str,
    /// What is spoken.
    pub protocol: Protocol,
    /// Address to bind; `None` is the proxy's own.
    pub bind: Option<IpAddr>,
    /// A socket of its own instead of captured traffic.
    pub bound: bool,
    /// Where the workload listens.
    pub endpoint: IngressEndpoint,
    /// Connections to the workload.
    pub pool: Option<Pool>,
}

/// Where a workload listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IngressEndpoint {
    /// Where the client wanted to go.
    OriginalDst,
    /// Here.
    Address(SocketAddr),
    /// At the proxy's own address and this port.
    InstanceIp(u16),
}

/// An outbound listener and what may be reached through it.
#[derive(Clone, Debug, PartialEq)]
pub struct EgressSpec {
    /// Its port; `None` for captured traffic of any port.
    pub port: Option<EgressPort>,
    /// Address to bind; `None` is the default.
    pub bind: Option<IpAddr>,
    /// A socket of its own instead of captured traffic.
    pub bound: bool,
    /// What may be reached.
    pub hosts: Arc<[EgressHost]>,
    /// What of it may not.
    pub excluded: Arc<[EgressHost]>,
}

/// Port of an outbound listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EgressPort {
    /// Number.
    pub number: u16,
    /// What is spoken.
    pub protocol: EgressProtocol,
}

/// Protocol of an outbound listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EgressProtocol {
    /// That of the services, or this one.
    Of(Protocol),
    /// An HTTP proxy: any service by its authority.
    HttpProxy,
}

/// `namespace/host` of an outbound listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EgressHost {
    /// Namespace of services and routes.
    pub namespace: EgressNamespace,
    /// Host.
    pub host: Hostname,
}

/// Namespace part of an egress host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EgressNamespace {
    /// Any.
    Any,
    /// That of the workload, also for a resource of the root namespace.
    Own,
    /// This one.
    Named(Namespace),
}

impl EgressSpec {
    /// Whether an object of `namespace` with `host` may be reached, seen from the workload's namespace `own`.
    #[must_use]
    pub fn admits(&self, namespace: &Namespace, host: &Hostname, own: &Namespace) -> bool {
        let any = |list: &[EgressHost]| list.iter().any(|known| known.admits(namespace, host, own));
        any(&self.hosts) && !any(&self.excluded)
    }

    /// Whether nothing is left out.
    #[must_use]
    pub fn admits_everything(&self) -> bool {
        let all = |known: &EgressHost| known.namespace == EgressNamespace::Any && known.host == "*";
        self.hosts.iter().any(all) && self.excluded.is_empty()
    }
}

impl EgressHost {
    /// Whether an object of `namespace` with `host` is meant, seen from the workload's namespace `own`.
    #[must_use]
    pub fn admits(&self, namespace: &Namespace, host: &Hostname, own: &Namespace) -> bool {
        let there = match &self.namespace {
            EgressNamespace::Any => true,
            EgressNamespace::Own => namespace == own,
            EgressNamespace::Named(named) => namespace == named,
        };
        there && self.host.matches(host)
    }
}

impl Sidecar {
    /// Order of age: creation time, then name.
    #[must_use]
    pub fn by_age(a: &Self, b: &Self) -> std::cmp::Ordering {
        (a.created, &a.key.name, &a.key.namespace, &a.key.cluster).cmp(&(
            b.created,
            &b.key.name,
            &b.key.namespace,
            &b.key.cluster,
        ))
    }
}

/// The resource for a workload: the oldest of its namespace that selects it, else the oldest without a selector, else the
/// root namespace's oldest without a selector.
pub(crate) fn choose<'a>(
    own: impl Iterator<Item = &'a Arc<Sidecar>>,
    root: impl Iterator<Item = &'a Arc<Sidecar>>,
    labels: &Labels,
) -> Option<Arc<Sidecar>> {
    let mut own: Vec<_> = own.collect();
    own.sort_by(|a, b| Sidecar::by_age(a, b));
    let selecting = own.iter().find(|s| s.selector.as_ref().is_some_and(|selector| selector.matches(labels)));
    let general = || own.iter().find(|s| s.selector.is_none());
    let root = || {
        let mut root: Vec<_> = root.filter(|s| s.selector.is_none()).collect();
        root.sort_by(|a, b| Sidecar::by_age(a, b));
        root.first().map(|s| Arc::clone(s))
    };
    selecting.or_else(general).map(|s| Arc::clone(s)).or_else(root)
}
