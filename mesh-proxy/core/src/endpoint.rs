//! Endpoint handles: what the plan knows of an upstream address, and the counters that outlive every plan.
//!
//! An [`Endpoint`] is immutable and belongs to a plan. Its [`Live`] part is made of atomics, is shared by all workers and
//! is carried from plan to plan by (cluster, address), so that a configuration push resets neither least-request nor
//! outlier memory.

use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Weak};

use mesh_api::text::Str;
use mesh_api_xds::ir::endpoint::{EndpointTls, Health, Locality, WorkloadRef};

/// Identity of an endpoint handle: equal for all plans' views of one (cluster, address), never reused in a process. That of an
/// original destination goes by its address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EndpointId(u64);

/// This bit keeps the identity of an original destination apart from the counted ones.
const ORIGINAL: u64 = 1 << 63;

/// One upstream address of one cluster.
#[derive(Clone)]
pub struct Endpoint {
    /// Where connections go.
    pub address: SocketAddr,
    /// The name it was resolved from; `None` when configuration named the address itself.
    pub hostname: Option<Str>,
    /// Relative weight, 1 at least.
    pub weight: u32,
    /// What the registry says.
    pub health: Health,
    /// Whether it takes mesh TLS.
    pub tls: EndpointTls,
    /// The workload behind it, for metrics.
    pub workload: WorkloadRef,
    /// Where it is.
    pub locality: Locality,
    /// Counters that survive plan swaps.
    live: Arc<Live>,
}

/// Counters of an endpoint, shared by all plans and workers. One cache line, so that neighbours do not slow each other.
#[repr(align(64))]
pub struct Live {
    id: EndpointId,
    /// Requests in flight.
    active: AtomicU32,
    /// Nanoseconds after the cluster's base instant at which the ejection ends; 0 when not ejected.
    pub(crate) ejected_until: AtomicU64,
    /// Server errors in a row.
    pub(crate) consecutive_5xx: AtomicU32,
    /// 502, 503 and 504 in a row.
    pub(crate) consecutive_gateway: AtomicU32,
    /// Local failures in a row.
    pub(crate) consecutive_local: AtomicU32,
    /// Ejections not yet forgiven: the multiplier of the ejection time.
    pub(crate) ejections: AtomicU32,
}

/// Tells of an endpoint whether any plan still has it. A connection that rests for one that is gone waits for nothing.
#[derive(Clone, Debug, Default)]
pub struct Watch(Option<Weak<Live>>);

impl Watch {
    /// Whether no plan has the endpoint any more.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        self.0.as_ref().is_some_and(|live| live.strong_count() == 0)
    }
}

/// A request in flight on an endpoint; counts until dropped.
#[must_use = "the request counts only while this lives"]
pub struct InFlight(Arc<Endpoint>);

impl Endpoint {
    /// An endpoint with fresh counters.
    #[must_use]
    pub fn new(address: SocketAddr) -> Self {
        Self {
            address,
            hostname: None,
            weight: 1,
            health: Health::Healthy,
            tls: EndpointTls::Disabled,
            workload: WorkloadRef::default(),
            locality: Locality::default(),
            live: Arc::new(Live::new()),
        }
    }

    /// The endpoint of an original destination, which no configuration names. Each call gives fresh counters, but one
    /// address has one identity.
    #[must_use]
    pub fn original(address: SocketAddr) -> Self {
        use std::hash::{DefaultHasher, Hash, Hasher};
        let mut hasher = DefaultHasher::new();
        address.hash(&mut hasher);
        let id = EndpointId(hasher.finish() | ORIGINAL);
        Self { live: Arc::new(Live { id, ..Live::new() }), ..Self::new(address) }
    }

    /// The same endpoint with the counters of `previous`.
    #[must_use]
    pub fn carry(mut self, previous: &Self) -> Self {
        self.live = Arc::clone(&previous.live);
        self
    }

    /// Its identity.
    #[must_use]
    pub fn id(&self) -> EndpointId {
        self.live.id
    }

    /// What tells when it is gone. An original destination is in no plan, and never goes.
    #[must_use]
    pub fn watch(&self) -> Watch {
        Watch((self.live.id.0 & ORIGINAL == 0).then(|| Arc::downgrade(&self.live)))
    }

    /// Requests in flight over all workers.
    #[must_use]
    pub fn active(&self) -> u32 {
        self.live.active.load(Relaxed)
    }

    /// Whether outlier detection keeps it out at `now`, in nanoseconds after the cluster's base instant.
    #[must_use]
    pub(crate) fn is_ejected(&self, now_nanos: u64) -> bool {
        self.live.ejected_until.load(Relaxed) > now_nanos
    }

    /// The counters.
    pub(crate) fn live(&self) -> &Live {
        &self.live
    }

    /// Whether all that configuration says is equal; counters are not compared.
    #[must_use]
    pub fn same_settings(&self, other: &Self) -> bool {
        self.address == other.address
            && self.hostname == other.hostname
            && self.weight == other.weight
            && self.health == other.health
            && self.tls == other.tls
            && self.workload == other.workload
            && self.locality == other.locality
    }
}

impl fmt::Debug for Endpoint {
    /// What configuration says; counters and identity are left out, so that two plans of equal configuration print alike.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Endpoint")
            .field("address", &self.address)
            .field("hostname", &self.hostname)
            .field("weight", &self.weight)
            .field("health", &self.health)
            .field("tls", &self.tls)
            .field("workload", &self.workload)
            .field("locality", &self.locality)
            .finish_non_exhaustive()
    }
}

impl Live {
    fn new() -> Self {
        /// Ids of handles; only their inequality means anything, so this global is no hidden input.
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Self {
            id: EndpointId(NEXT.fetch_add(1, Relaxed)),
            active: AtomicU32::new(0),
            ejected_until: AtomicU64::new(0),
            consecutive_5xx: AtomicU32::new(0),
            consecutive_gateway: AtomicU32::new(0),
            consecutive_local: AtomicU32::new(0),
            ejections: AtomicU32::new(0),
        }
    }
}

impl fmt::Debug for Live {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Live")
            .field("id", &self.id)
            .field("active", &self.active)
            .field("ejections", &self.ejections)
            .finish_non_exhaustive()
    }
}

impl InFlight {
    /// Counts a request on `endpoint` until the value is dropped.
    pub fn new(endpoint: Arc<Endpoint>) -> Self {
        endpoint.live.active.fetch_add(1, Relaxed);
        Self(endpoint)
    }

    /// The endpoint that carries the request.
    #[must_use]
    pub const fn endpoint(&self) -> &Arc<Endpoint> {
        &self.0
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.live.active.fetch_sub(1, Relaxed);
    }
}

impl fmt::Debug for InFlight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("InFlight").field(&self.0.address).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_outlive_the_plan_they_were_made_in() {
        let address = SocketAddr::from(([10, 0, 0, 1], 80));
        let old = Arc::new(Endpoint::new(address));
        let guard = InFlight::new(Arc::clone(&old));
        let new = Endpoint { weight: 5, ..Endpoint::new(address) }.carry(&old);
        assert_eq!((new.active(), new.id(), new.weight), (1, old.id(), 5));
        assert!(!new.same_settings(&old));
        drop(guard);
        assert_eq!(new.active(), 0);
    }

    #[test]
    fn an_endpoint_is_gone_when_no_plan_and_no_request_has_it() {
        let address = SocketAddr::from(([10, 0, 0, 1], 80));
        let old = Arc::new(Endpoint::new(address));
        let watch = old.watch();
        let new = Endpoint { weight: 5, ..Endpoint::new(address) }.carry(&old);
        drop(old);
        assert!(!watch.is_gone(), "the next plan has it");
        drop(new);
        assert!(watch.is_gone());
        assert!(!Endpoint::original(address).watch().is_gone());
        assert!(!Watch::default().is_gone());
    }

    #[test]
    fn an_original_destination_is_known_by_its_address() {
        let original = |port| Endpoint::original(SocketAddr::from(([10, 0, 0, 1], port))).id();
        assert_eq!(original(80), original(80));
        assert_ne!(original(80), original(81));
    }

    #[test]
    fn handles_have_cache_lines_of_their_own() {
        assert_eq!((align_of::<Live>(), size_of::<Live>()), (64, 64));
    }
}
