//! Endpoint sets.

use std::net::SocketAddr;
use std::sync::Arc;

use mesh_api::text::Str;
use serde::Serialize;

/// The endpoints of one cluster (`envoy.config.endpoint.v3.ClusterLoadAssignment`).
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct EndpointSet {
    /// Cluster name, the resource name.
    pub cluster: Str,
    /// Groups, ordered by priority, then locality.
    pub localities: Arc<[LocalityEndpoints]>,
}

/// Endpoints of one place and priority.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct LocalityEndpoints {
    /// Where they are.
    pub locality: Locality,
    /// 0 first.
    pub priority: u32,
    /// Weight among localities of one priority; 0 when weights are not used.
    pub weight: u32,
    /// The endpoints, ordered by address.
    pub endpoints: Arc<[Endpoint]>,
}

/// A place.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Locality {
    /// Region.
    pub region: Str,
    /// Zone.
    pub zone: Str,
    /// Sub-zone.
    pub subzone: Str,
}

/// One endpoint.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct Endpoint {
    /// Where it is.
    pub address: Address,
    /// Relative weight, 1 at least.
    pub weight: u32,
    /// What the registry says.
    pub health: Health,
    /// Whether it takes mesh TLS.
    pub tls: EndpointTls,
    /// The workload, for metrics.
    pub workload: WorkloadRef,
}

/// Address of an endpoint.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub enum Address {
    /// An address.
    Socket(SocketAddr),
    /// A name to resolve (only in clusters with `Discovery::Dns`).
    Name(Str, u16),
}

/// Health as known to the registry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
pub enum Health {
    /// Takes requests.
    Healthy,
    /// Takes none, unless in panic.
    Unhealthy,
    /// Takes no new ones.
    Draining,
}

/// Mesh TLS of an endpoint (label `security.istio.io/tlsMode`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
pub enum EndpointTls {
    /// Plaintext only.
    Disabled,
    /// Mutual TLS with workload certificates.
    Istio,
}

/// The workload behind an endpoint (`filter_metadata.istio.workload`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize)]
pub struct WorkloadRef {
    /// Workload name.
    pub name: Str,
    /// Namespace.
    pub namespace: Str,
    /// Canonical service.
    pub service: Str,
    /// Canonical revision.
    pub revision: Str,
    /// Cluster.
    pub cluster: Str,
}
