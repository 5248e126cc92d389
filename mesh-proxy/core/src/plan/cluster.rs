//! A cluster in a plan: settings, endpoints, and the counters that outlive plans.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Instant;

use mesh_api::text::Str;
use mesh_api_xds::ir::cluster::{Cluster, Discovery, Outlier};
use rand_core::Rng;

use super::slots::Slot;
use crate::balance::set::EndpointSet;
use crate::balance::{self, Criteria, NoEndpoint};
use crate::endpoint::{Endpoint, EndpointId};
use crate::health::outlier::{Ejections, Watched};
use crate::limit::circuit::Circuit;

/// A reference to a cluster: held by routes instead of the cluster itself, which may change, come later or go.
#[derive(Clone, PartialEq, Eq)]
pub struct ClusterRef {
    /// Where to find it.
    pub slot: Slot,
    /// Its name.
    pub name: Str,
}

/// A cluster.
#[derive(Clone, Debug)]
pub struct ClusterPlan {
    /// As configured.
    pub settings: Arc<Cluster>,
    /// Counters over all plans and workers.
    pub state: Arc<ClusterState>,
    /// `None` until they arrive, or until one of their names is resolved.
    endpoints: Option<Arc<EndpointSet>>,
}

/// Counters of a cluster, carried over by name.
pub struct ClusterState {
    /// Concurrency limits.
    pub circuit: Circuit,
    /// Outlier detection.
    pub(crate) ejections: Ejections,
    /// Turns of round robin.
    cursor: AtomicU64,
}

impl ClusterPlan {
    pub(crate) const fn new(
        settings: Arc<Cluster>,
        state: Arc<ClusterState>,
        endpoints: Option<Arc<EndpointSet>>,
    ) -> Self {
        Self { settings, state, endpoints }
    }

    /// Chooses an endpoint. Those in `avoid` (tried before) are chosen only when there is no other.
    ///
    /// # Errors
    /// Says why there is none.
    pub fn pick(&self, rng: &mut impl Rng, avoid: &[EndpointId], now: Instant) -> Result<Arc<Endpoint>, NoEndpoint> {
        let Some(endpoints) = &self.endpoints else {
            return Err(match self.settings.discovery {
                Discovery::OriginalDst => NoEndpoint::OriginalDst,
                Discovery::Eds | Discovery::Static(_) | Discovery::Dns { .. } => NoEndpoint::NotReceived,
            });
        };
        let some_ejected = self.state.ejections.any();
        let criteria = Criteria {
            balance: self.settings.balance,
            panic_percent: self.settings.panic_percent,
            cursor: &self.state.cursor,
            some_ejected,
            avoid,
            now_nanos: if some_ejected { self.state.ejections.nanos(now) } else { 0 },
        };
        balance::pick(endpoints, &criteria, rng)
    }

    /// The endpoint of a connection's original destination, for clusters with `Discovery::OriginalDst`. It is made for this
    /// call: pools that keep connections to it go by its address.
    #[must_use]
    pub fn original(&self, destination: SocketAddr) -> Arc<Endpoint> {
        Arc::new(Endpoint::original(destination))
    }

    /// The endpoints, once there are any.
    #[must_use]
    pub const fn endpoints(&self) -> Option<&Arc<EndpointSet>> {
        self.endpoints.as_ref()
    }

    /// Every endpoint, draining ones too, by address.
    #[must_use]
    pub fn all(&self) -> &[Arc<Endpoint>] {
        self.endpoints.as_deref().map_or(&[], EndpointSet::all)
    }
}

impl Watched for ClusterPlan {
    fn outlier(&self) -> Option<&Outlier> {
        self.settings.outlier.as_ref()
    }

    fn ejections(&self) -> &Ejections {
        &self.state.ejections
    }

    fn hosts(&self) -> &[Arc<Endpoint>] {
        self.all()
    }
}

impl ClusterState {
    pub(crate) fn new() -> Self {
        Self { circuit: Circuit::default(), ejections: Ejections::default(), cursor: AtomicU64::new(0) }
    }
}

impl fmt::Debug for ClusterState {
    /// Nothing that depends on history: two plans of equal configuration print alike.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClusterState").finish_non_exhaustive()
    }
}

impl fmt::Debug for ClusterRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ClusterRef").field(&self.name).finish()
    }
}

impl ClusterState {
    /// Turns taken by round robin so far.
    #[must_use]
    pub fn turns(&self) -> u64 {
        self.cursor.load(Relaxed)
    }
}
