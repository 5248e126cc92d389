//! Endpoints of services, joined with the workloads behind them.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use mesh_api::finding::Finding;
use mesh_api::host::Hostname;
use mesh_api::ids::{Name, Namespace, ObjectKey};
use mesh_api::labels::Labels;
use mesh_api::text::Str;
use mesh_api_xds::ir::endpoint::{Address, EndpointTls, Health, Locality, WorkloadRef};

use super::services::Service;

/// The endpoints of one service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServiceEndpoints {
    /// Endpoints of each service port, by its number; ordered by port, then address.
    pub ports: Arc<[(u16, Arc<[Instance]>)]>,
    /// Service accounts of all endpoints: namespace and name, ordered, each once.
    pub accounts: Arc<[(Namespace, Name)]>,
}

/// The endpoints of all services of a namespace.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NamespaceEndpoints {
    /// Endpoints by the service's object and host.
    pub(crate) services: BTreeMap<(ObjectKey, Hostname), Arc<ServiceEndpoints>>,
    /// What is served at an address.
    pub(crate) served: BTreeMap<IpAddr, Arc<[ServedPort]>>,
    /// What is wrong with slices and entries.
    pub(crate) findings: Vec<Finding>,
}

/// All endpoints.
#[derive(Clone, Debug, Default)]
pub struct Endpoints {
    /// By namespace.
    pub(crate) namespaces: BTreeMap<Namespace, Arc<NamespaceEndpoints>>,
}

impl Endpoints {
    /// The endpoints of a service.
    #[must_use]
    pub fn of(&self, service: &Service) -> Option<&Arc<ServiceEndpoints>> {
        let in_namespace = self.namespaces.get(&service.namespace)?;
        in_namespace.services.get(&(service.key.clone(), service.host.clone()))
    }

    /// Whether nothing in a namespace differs between two states.
    pub(crate) fn same_in(&self, other: &Self, namespace: &Namespace) -> bool {
        match (self.namespaces.get(namespace), other.namespaces.get(namespace)) {
            (None, None) => true,
            (Some(a), Some(b)) => Arc::ptr_eq(a, b),
            _ => false,
        }
    }

    /// What is served at an address by services of a namespace, ordered.
    #[must_use]
    pub fn served(&self, namespace: &Namespace, ip: IpAddr) -> &[ServedPort] {
        self.namespaces.get(namespace).and_then(|found| found.served.get(&ip)).map_or(&[], |ports| ports)
    }
}

/// One endpoint.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Instance {
    /// Where it listens.
    pub address: Address,
    /// Name of its pod or workload entry; empty when unknown.
    pub pod: Name,
    /// The name that it has below that of its service; empty when it has none.
    pub hostname: Str,
    /// Labels of its workload; subsets select by them.
    pub labels: Labels,
    /// What the registry says.
    pub health: InstanceHealth,
    /// Whether it takes mesh TLS.
    pub mesh_tls: bool,
    /// Where it is.
    pub locality: Locality,
    /// Relative weight, 1 at least.
    pub weight: u32,
    /// The workload, for metrics.
    pub workload: Workload,
}

/// Health, ordered; [`Health`] of the IR is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum InstanceHealth {
    /// Takes requests.
    Ready,
    /// Takes none, unless in panic.
    NotReady,
}

/// The workload of an endpoint, ordered; [`WorkloadRef`] of the IR is not.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Workload {
    /// Workload name.
    pub name: mesh_api::text::Str,
    /// Namespace.
    pub namespace: mesh_api::text::Str,
    /// Canonical service.
    pub service: mesh_api::text::Str,
    /// Canonical revision.
    pub revision: mesh_api::text::Str,
    /// Cluster.
    pub cluster: mesh_api::text::Str,
}

impl Instance {
    /// Its IP address, when it has one.
    #[must_use]
    pub const fn ip(&self) -> Option<IpAddr> {
        match &self.address {
            Address::Socket(address) => Some(address.ip()),
            Address::Name(..) => None,
        }
    }

    /// As the IR says it.
    #[must_use]
    pub const fn health(&self) -> Health {
        match self.health {
            InstanceHealth::Ready => Health::Healthy,
            InstanceHealth::NotReady => Health::Unhealthy,
        }
    }

    /// As the IR says it.
    #[must_use]
    pub const fn tls(&self) -> EndpointTls {
        if self.mesh_tls { EndpointTls::Istio } else { EndpointTls::Disabled }
    }

    /// As the IR says it.
    #[must_use]
    pub fn workload(&self) -> WorkloadRef {
        let Workload { name, namespace, service, revision, cluster } = self.workload.clone();
        WorkloadRef { name, namespace, service, revision, cluster }
    }
}

impl ServiceEndpoints {
    /// The endpoints of a service port.
    #[must_use]
    pub fn of(&self, port: u16) -> &[Instance] {
        self.ports.iter().find(|(number, _)| *number == port).map_or(&[], |(_, instances)| instances)
    }
}

/// A service port that a workload serves.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ServedPort {
    /// Host of the service.
    pub host: Hostname,
    /// Service port.
    pub port: u16,
    /// Port at the workload.
    pub target: u16,
    /// Pod that serves it; empty when unknown.
    pub pod: Name,
}
