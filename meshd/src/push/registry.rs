//! The connected proxies, and what became of everything that was pushed to them.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Instant, SystemTime};

use mesh_api::finding::Finding;
use mesh_api::identity::SpiffeId;
use mesh_api::text::Str;
use mesh_api_xds::ads::Protocol;
use mesh_api_xds::encoded::ResourceSet;
use mesh_api_xds::type_url::{PerType, TypeUrl};
use meshd_core::proxy::ProxyView;
use meshd_core::rollout::{ChangeId, ProxyKey, Rollout};
use tokio::sync::Notify;

use super::slot::Slot;
use crate::metrics::{ByVersion, PushMetrics};

/// All connected proxies.
#[derive(Debug)]
pub(crate) struct Registry {
    connections: Mutex<BTreeMap<ProxyKey, Arc<Connection>>>,
    rollout: Mutex<Rollout>,
    metrics: PushMetrics,
    /// Generation of the last snapshot whose pushes are all queued; 0 before the first.
    queued: AtomicU64,
    /// Numbers streams, so that a proxy that comes back before its old stream has ended is told from it.
    streams: AtomicU64,
}

/// One stream of a proxy.
#[derive(Debug)]
pub(crate) struct Connection {
    /// Who it is, with the number of its stream.
    pub(crate) key: ProxyKey,
    /// What translation knows of it.
    pub(crate) view: ProxyView,
    /// Facts for people.
    pub(crate) facts: Facts,
    /// Its place in the queue.
    pub(super) slot: Mutex<Slot>,
    /// The state delivered last, whether or not the stream has taken it.
    delivered: Mutex<Arc<ResourceSet>>,
    offer: Mutex<Option<Offer>>,
    offered: Notify,
    /// The stream has taken a state and not yet sent what it owes of it.
    adopting: AtomicBool,
    /// The stream has ended.
    closed: AtomicBool,
    types: Mutex<PerType<TypeInfo>>,
    /// What is wrong with objects as this proxy sees them together, by the type that shows it.
    findings: Mutex<PerType<Arc<[Finding]>>>,
}

/// What is known of a stream besides what translation reads.
#[derive(Clone, Debug)]
pub(crate) struct Facts {
    /// Identity that was proved; `None` on the plaintext port.
    pub(crate) identity: Option<SpiffeId>,
    /// Version that the proxy says it is.
    pub(crate) version: Str,
    /// Variant of the protocol.
    pub(crate) protocol: Protocol,
    /// Where it connects from.
    pub(crate) peer: Str,
    /// When the stream began.
    pub(crate) since: SystemTime,
    /// Whether its workload's traffic is led through it; `None` when it does not say.
    pub(crate) captured: Option<bool>,
}

/// A state that a stream is to serve.
#[derive(Clone, Debug)]
pub(crate) struct Offer {
    /// The resources.
    pub(crate) set: Arc<ResourceSet>,
    /// The newest change that is in it.
    pub(crate) through: ChangeId,
}

/// What is known of one type on a stream.
#[derive(Clone, Debug, Default)]
pub(crate) struct TypeInfo {
    /// The last response.
    pub(crate) sent: Option<Exchange>,
    /// The last response that was accepted.
    pub(crate) acked: Option<Exchange>,
    /// The rejection that stands.
    pub(crate) nack: Option<NackInfo>,
    /// All resources are subscribed to.
    pub(crate) wildcard: bool,
    /// Number of names subscribed to.
    pub(crate) names: usize,
}

/// A response, as far as status goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Exchange {
    /// Its nonce.
    pub(crate) nonce: Str,
    /// Its version.
    pub(crate) version: Str,
    /// When.
    pub(crate) at: SystemTime,
}

/// A rejection that stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NackInfo {
    /// The response that was rejected.
    pub(crate) of: Exchange,
    /// The proxy's words.
    pub(crate) reason: Str,
    /// Names of the resources that it names, with its words about each.
    pub(crate) resources: Vec<(Str, Str)>,
}

/// A stream's place in the registry; dropping it takes the stream out.
#[derive(Debug)]
pub(crate) struct Registered {
    registry: Arc<Registry>,
    connection: Arc<Connection>,
}

impl Registry {
    /// Nobody is connected.
    pub(crate) fn new(metrics: PushMetrics) -> Arc<Self> {
        Arc::new(Self {
            connections: Mutex::default(),
            rollout: Mutex::default(),
            metrics,
            queued: AtomicU64::new(0),
            streams: AtomicU64::new(1),
        })
    }

    /// A proxy opened its stream.
    pub(crate) fn connect(self: &Arc<Self>, view: ProxyView, facts: Facts, now: Instant) -> Registered {
        let number = self.streams.fetch_add(1, Ordering::Relaxed);
        let key = ProxyKey(Str::from(format!("{}-{number}", view.id)));
        let connection = Arc::new(Connection {
            key: key.clone(),
            view,
            facts,
            slot: Mutex::default(),
            delivered: Mutex::default(),
            offer: Mutex::default(),
            offered: Notify::new(),
            adopting: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            types: Mutex::default(),
            findings: Mutex::default(),
        });
        self.rollout().connected(key.clone(), now);
        lock(&self.connections).insert(key, Arc::clone(&connection));
        self.connected_gauge(&connection).inc();
        if connection.facts.captured == Some(false) {
            self.metrics.uncaptured.inc();
        }
        Registered { registry: Arc::clone(self), connection }
    }

    /// All streams, ordered.
    pub(crate) fn connections(&self) -> Vec<Arc<Connection>> {
        lock(&self.connections).values().cloned().collect()
    }

    /// Every proxy that the snapshot of this generation concerns is queued.
    pub(crate) fn set_queued(&self, generation: u64) {
        self.queued.store(generation, Ordering::Release);
    }

    /// Generation of the last snapshot that every proxy it concerns has, or is behind of.
    pub(crate) fn queued(&self) -> Option<u64> {
        Some(self.queued.load(Ordering::Acquire)).filter(|generation| *generation != 0)
    }

    /// What became of changes.
    pub(crate) fn rollout(&self) -> MutexGuard<'_, Rollout> {
        lock(&self.rollout)
    }

    fn connected_gauge(&self, connection: &Connection) -> prometheus_client::metrics::gauge::Gauge {
        // Foreign text in a label is cut, and what no release would say is one series: a scrape stays bounded.
        let version = connection.facts.version.as_str();
        let plain = version.len() <= 32 && version.bytes().all(|b| b.is_ascii_alphanumeric() || b".-_+".contains(&b));
        let version = if version.is_empty() || !plain { "unknown" } else { version }.to_owned();
        self.metrics.connected.get_or_create(&ByVersion { version }).clone()
    }
}

impl Connection {
    /// The state delivered last.
    pub(crate) fn delivered(&self) -> Arc<ResourceSet> {
        Arc::clone(&lock(&self.delivered))
    }

    /// Gives the stream a state to serve. One that it has not taken yet is replaced; its change ids are kept.
    pub(super) fn deliver(&self, set: ResourceSet, through: ChangeId) {
        let mut offer = lock(&self.offer);
        let waiting = offer.iter().flat_map(|offer| offer.set.changes.iter());
        let changes: Vec<Str> = waiting.chain(set.changes.iter()).cloned().collect();
        let set = Arc::new(set.next(set.generation, changes));
        *lock(&self.delivered) = Arc::clone(&set);
        *offer = Some(Offer { set, through });
        drop(offer);
        self.offered.notify_one();
    }

    /// Waits for a state to serve. Cancel-safe.
    pub(crate) async fn offer(&self) -> Offer {
        loop {
            {
                let mut offer = lock(&self.offer);
                if let Some(offer) = offer.take() {
                    // Under the lock, so that there is no moment at which neither says that something is on its way.
                    self.adopting.store(true, Ordering::Release);
                    return offer;
                }
            }
            self.offered.notified().await;
        }
    }

    /// What the stream owed of the state it took is sent, as far as the protocol allows now.
    pub(crate) fn adopted(&self) {
        self.adopting.store(false, Ordering::Release);
    }

    /// Whether the stream has ended.
    pub(super) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// Whether a newer state is on its way to the stream.
    pub(crate) fn is_behind(&self) -> bool {
        lock(&self.slot).is_busy() || {
            let offer = lock(&self.offer);
            offer.is_some() || self.adopting.load(Ordering::Acquire)
        }
    }

    /// What is known of each type.
    pub(crate) fn types(&self) -> PerType<TypeInfo> {
        lock(&self.types).clone()
    }

    /// What is wrong with objects as this proxy sees them together.
    pub(crate) fn findings(&self) -> Vec<Finding> {
        lock(&self.findings).iter().flat_map(|(_, findings)| findings.iter()).cloned().collect()
    }

    /// Replaces what is wrong as one type shows it.
    pub(super) fn set_findings(&self, type_url: TypeUrl, findings: Vec<Finding>) {
        *lock(&self.findings).of_mut(type_url) = findings.into();
    }

    /// Changes what is known of a type.
    pub(crate) fn update(&self, type_url: TypeUrl, change: impl FnOnce(&mut TypeInfo)) {
        change(lock(&self.types).of_mut(type_url));
    }
}

impl Registered {
    /// The stream.
    pub(crate) const fn connection(&self) -> &Arc<Connection> {
        &self.connection
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        self.connection.closed.store(true, Ordering::Release);
        lock(&self.registry.connections).remove(&self.connection.key);
        self.registry.rollout().disconnected(&self.connection.key);
        self.registry.connected_gauge(&self.connection).dec();
        if self.connection.facts.captured == Some(false) {
            self.registry.metrics.uncaptured.dec();
        }
        for (type_url, info) in self.connection.types().iter() {
            if let (Some(_), Some(gauge)) = (&info.nack, self.registry.metrics.rejecting(type_url)) {
                gauge.dec();
            }
        }
    }
}

/// What is guarded here is sound between any two statements, so a panic elsewhere does not spoil it.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
pub(crate) mod tests {
    use mesh_api_rt::metrics::Metrics;
    use mesh_api_xds::ir::endpoint::Locality;
    use meshd_core::proxy::{Flavor, Interception, ProxyType};

    use super::*;

    pub(crate) fn mk_metrics() -> PushMetrics {
        Metrics::new().register().unwrap()
    }

    pub(crate) fn mk_view(name: &str) -> ProxyView {
        ProxyView {
            id: Str::from(name),
            kind: ProxyType::Sidecar,
            flavor: Flavor::Lateen,
            ips: [std::net::IpAddr::from([10, 0, 0, 1])].into(),
            name: name.into(),
            namespace: "shop".into(),
            service_account: "web".into(),
            labels: mesh_api::labels::Labels::default(),
            workload: Str::from(name),
            cluster: "c".into(),
            domain: Str::from("cluster.local"),
            locality: Locality::default(),
            interception: Interception::Redirect,
            http_proxy_port: None,
            idle_timeout: None,
            http10: false,
            unprivileged: false,
            dns_capture: false,
        }
    }

    pub(crate) fn mk_registered(registry: &Arc<Registry>, name: &str) -> Registered {
        mk_captured(registry, name, None)
    }

    pub(crate) fn mk_captured(registry: &Arc<Registry>, name: &str, captured: Option<bool>) -> Registered {
        let facts = Facts {
            identity: None,
            version: Str::from("1.0"),
            protocol: Protocol::Delta,
            peer: Str::from("127.0.0.1:1"),
            since: SystemTime::UNIX_EPOCH,
            captured,
        };
        registry.connect(mk_view(name), facts, tokio::time::Instant::now().into_std())
    }

    #[tokio::test(start_paused = true)]
    async fn a_state_that_was_not_taken_is_replaced_and_its_changes_are_kept() {
        let registry = Registry::new(mk_metrics());
        let registered = mk_registered(&registry, "a");
        let connection = registered.connection();
        connection.deliver(ResourceSet::new(1, [Str::from("7")]), ChangeId(7));
        connection.deliver(ResourceSet::new(2, [Str::from("8")]), ChangeId(8));
        let offer = connection.offer().await;
        assert_eq!((offer.set.generation, offer.through), (2, ChangeId(8)));
        assert_eq!(&*offer.set.changes, ["7", "8"]);
        connection.deliver(ResourceSet::new(3, [Str::from("9")]), ChangeId(9));
        assert_eq!(&*connection.offer().await.set.changes, ["9"]);
    }

    #[tokio::test(start_paused = true)]
    async fn two_streams_of_one_proxy_are_two_connections_and_leave_alone() {
        let metrics = mk_metrics();
        let registry = Registry::new(metrics.clone());
        let (first, second) = (mk_registered(&registry, "a"), mk_registered(&registry, "a"));
        let gauge = || metrics.connected.get_or_create(&ByVersion { version: "1.0".to_owned() }).get();
        assert_eq!((registry.connections().len(), gauge()), (2, 2));
        drop(first);
        let left = registry.connections();
        assert_eq!((left.len(), gauge()), (1, 1));
        assert_eq!(left[0].key, second.connection().key);
        assert_eq!(registry.rollout().proxies().count(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn proxies_that_traffic_passes_by_are_counted_while_they_are_connected() {
        let metrics = mk_metrics();
        let registry = Registry::new(metrics.clone());
        let all: Vec<Registered> =
            [None, Some(true), Some(false)].map(|captured| mk_captured(&registry, "a", captured)).into();
        assert_eq!(metrics.uncaptured.get(), 1);
        drop(all);
        assert_eq!(metrics.uncaptured.get(), 0);
    }
}
