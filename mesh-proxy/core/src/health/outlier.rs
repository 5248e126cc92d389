//! Passive health checks: endpoints that fail are left out for a while.
//!
//! Envoy's semantics (`source/common/upstream/outlier_detection_impl.cc`) as Istio configures them: consecutive errors only,
//! no success rates. State is kept per endpoint over all routes and workers. Counting happens on the workers, without locks;
//! one task per process sweeps each cluster every `interval`. What a request could not get because of this proxy's own
//! limits (overflow) has no variant in [`Seen`]: it can never count against a host.

use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use mesh_api_xds::ir::cluster::Outlier;

use crate::balance::set::EndpointSet;
use crate::endpoint::{Endpoint, Live};
use crate::fault::{Fault, FaultKind};

/// What a host did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// It answered with this status.
    Status(u16),
    /// A connection to it was made. Only counted where local failures are split.
    Connected,
    /// It refused the connection, could not be reached or failed TLS.
    ConnectFailed,
    /// It closed or reset before its answer was complete.
    Reset,
    /// It did not answer in time.
    Timeout,
}

impl Seen {
    /// What a failed attempt says about the host; `None` when it says nothing: the client went away, this proxy's limits or
    /// configuration were in the way, or a kept connection had simply been closed.
    #[must_use]
    pub const fn of(fault: &Fault) -> Option<Self> {
        match fault.kind {
            FaultKind::ConnectFailed | FaultKind::UpstreamTlsFailed | FaultKind::UpstreamIdentity => {
                Some(Self::ConnectFailed)
            }
            FaultKind::ConnectTimeout
            | FaultKind::ResponseTimeout
            | FaultKind::PerTryTimeout
            | FaultKind::ResponseIdle => Some(Self::Timeout),
            FaultKind::UpstreamClosed
            | FaultKind::UpstreamReset
            | FaultKind::UpstreamRefusedStream
            | FaultKind::UpstreamProtocol
            | FaultKind::UpstreamClosedLate
            | FaultKind::UpstreamResetLate
            | FaultKind::UpstreamProtocolLate => Some(Self::Reset),
            _ => None,
        }
    }
}

/// Which counter reached its threshold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Detector {
    /// `consecutive_5xx`.
    ServerErrors,
    /// `consecutive_gateway_failure`.
    GatewayErrors,
    /// `consecutive_local_origin_failure`.
    LocalFailures,
}

/// Something an operator wants to know, with its evidence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// An endpoint is left out.
    Ejected {
        /// Which.
        endpoint: std::net::SocketAddr,
        /// Why.
        evidence: Evidence,
        /// For how long.
        duration: Duration,
        /// Ejections not yet forgiven, this one included.
        nth: u32,
    },
    /// An endpoint would have been left out, but too many are already.
    Withheld {
        /// Which.
        endpoint: std::net::SocketAddr,
        /// Why.
        evidence: Evidence,
        /// How many of how many are out.
        ejected: (u32, u32),
    },
    /// An endpoint is back.
    Returned {
        /// Which.
        endpoint: std::net::SocketAddr,
    },
}

/// What led to an ejection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Evidence {
    /// Which counter.
    pub detector: Detector,
    /// Failures in a row.
    pub count: u32,
    /// The last of them.
    pub last: Seen,
}

/// A cluster whose endpoints are watched.
pub trait Watched {
    /// Settings; `None` switches detection off.
    fn outlier(&self) -> Option<&Outlier>;
    /// Who is out.
    fn ejections(&self) -> &Ejections;
    /// Every endpoint.
    fn hosts(&self) -> &[Arc<Endpoint>];
}

impl<T: Watched> Watched for Arc<T> {
    fn outlier(&self) -> Option<&Outlier> {
        (**self).outlier()
    }

    fn ejections(&self) -> &Ejections {
        (**self).ejections()
    }

    fn hosts(&self) -> &[Arc<Endpoint>] {
        (**self).hosts()
    }
}

/// Ejections of one cluster, over all plans and workers.
#[derive(Debug, Default)]
pub struct Ejections {
    /// Endpoints that are out. Counts of removed endpoints are corrected at the next sweep.
    active: AtomicU32,
    /// Zero point of `Live::ejected_until`: the first instant seen.
    base: OnceLock<Instant>,
    /// When good behaviour was rewarded last, in nanoseconds after the base.
    forgiven: AtomicU64,
}

impl Ejections {
    /// Whether any endpoint may be out.
    pub(crate) fn any(&self) -> bool {
        self.active.load(Relaxed) > 0
    }

    /// Nanoseconds from the base to `now`, and one more, so that 0 can mean "not ejected".
    pub(crate) fn nanos(&self, now: Instant) -> u64 {
        let base = *self.base.get_or_init(|| now);
        nanos(now.saturating_duration_since(base)).saturating_add(1)
    }

    /// Whether an interval has passed since this said so last.
    fn take_interval(&self, interval: u64, now: u64) -> bool {
        let due = self.forgiven.load(Relaxed).saturating_add(interval) <= now;
        if due {
            self.forgiven.store(now, Relaxed);
        }
        due
    }

    /// Endpoints left the cluster: their ejections end with them.
    pub(crate) fn forget(&self, before: &EndpointSet, after: &EndpointSet) {
        for gone in before.all().iter().filter(|old| after.find(old.address).is_none()) {
            if gone.live().ejected_until.swap(0, Relaxed) != 0 {
                self.leave();
            }
        }
    }

    fn leave(&self) {
        // A racing sweep may have recounted; never wrap.
        let _ = self.active.fetch_update(Relaxed, Relaxed, |active| active.checked_sub(1));
    }
}

/// Counts what a host did, and ejects it when a counter reaches its threshold. Without outlier detection it does nothing.
pub fn report(cluster: &impl Watched, endpoint: &Endpoint, seen: Seen, now: Instant) -> Option<Event> {
    let settings = cluster.outlier()?;
    let (detector, count) = count(settings, endpoint.live(), seen)?;
    let evidence = Evidence { detector, count, last: seen };
    eject(cluster, settings, endpoint, evidence, now)
}

/// Lets endpoints back whose time is over, and every `interval` forgives those that did well. One task calls it for all
/// workers, as often as it likes: how soon an endpoint is back depends on that, what is forgiven does not.
pub fn sweep(cluster: &impl Watched, now: Instant) -> Vec<Event> {
    let ejections = cluster.ejections();
    let nanos = ejections.nanos(now);
    let forgives =
        cluster.outlier().is_none_or(|settings| ejections.take_interval(self::nanos(settings.interval), nanos));
    let (mut events, mut active) = (Vec::new(), 0);
    for endpoint in cluster.hosts() {
        let live = endpoint.live();
        match live.ejected_until.load(Relaxed) {
            0 if forgives => forgive(live),
            0 => {}
            // Without settings (they were removed) nobody stays out.
            until if until <= nanos || cluster.outlier().is_none() => {
                live.reset_counts();
                live.ejected_until.store(0, Relaxed);
                events.push(Event::Returned { endpoint: endpoint.address });
            }
            _ => active += 1,
        }
    }
    ejections.active.store(active, Relaxed);
    events
}

/// Time between two rewards, for clusters that are watched.
#[must_use]
pub fn interval(cluster: &impl Watched) -> Option<Duration> {
    cluster.outlier().map(|settings| settings.interval)
}

/// Endpoints that are out, with the time that is left.
#[must_use]
pub fn ejected(cluster: &impl Watched, now: Instant) -> Vec<(Arc<Endpoint>, Duration)> {
    if !cluster.ejections().any() {
        return Vec::new();
    }
    let nanos = cluster.ejections().nanos(now);
    let left = |endpoint: &Arc<Endpoint>| {
        let until = endpoint.live().ejected_until.load(Relaxed);
        (until > nanos).then(|| (Arc::clone(endpoint), Duration::from_nanos(until - nanos)))
    };
    cluster.hosts().iter().filter_map(left).collect()
}

/// Counts; gives the detector whose threshold was reached just now.
fn count(settings: &Outlier, live: &Live, seen: Seen) -> Option<(Detector, u32)> {
    if settings.split_local {
        match seen {
            Seen::Status(_) => {}
            Seen::Connected => {
                live.consecutive_local.store(0, Relaxed);
                return None;
            }
            Seen::ConnectFailed | Seen::Reset | Seen::Timeout => {
                return raise(&live.consecutive_local, settings.consecutive_local, Detector::LocalFailures);
            }
        }
    }
    // Without the split a local failure is the status that a client would get for it.
    let status = match seen {
        Seen::Status(status) => status,
        Seen::Connected => return None,
        Seen::ConnectFailed | Seen::Reset => 503,
        Seen::Timeout => 504,
    };
    if !(500..600).contains(&status) {
        live.consecutive_5xx.store(0, Relaxed);
        live.consecutive_gateway.store(0, Relaxed);
        return None;
    }
    let gateway = if matches!(status, 502..=504) {
        raise(&live.consecutive_gateway, settings.consecutive_gateway, Detector::GatewayErrors)
    } else {
        live.consecutive_gateway.store(0, Relaxed);
        None
    };
    let server = raise(&live.consecutive_5xx, settings.consecutive_5xx, Detector::ServerErrors);
    gateway.or(server)
}

fn raise(counter: &AtomicU32, threshold: u32, detector: Detector) -> Option<(Detector, u32)> {
    // One worker sees the exact threshold, so one ejects.
    let count = counter.fetch_add(1, Relaxed).saturating_add(1);
    (threshold > 0 && count == threshold).then_some((detector, count))
}

fn eject(
    cluster: &impl Watched,
    settings: &Outlier,
    endpoint: &Endpoint,
    evidence: Evidence,
    now: Instant,
) -> Option<Event> {
    let live = endpoint.live();
    let ejections = cluster.ejections();
    let nanos_now = ejections.nanos(now);
    // The counter starts again whatever comes of it, so that a withheld ejection is tried again.
    live.counter(evidence.detector).store(0, Relaxed);
    // Whoever changes the word ejects; another worker that comes to the same result at the same time does nothing.
    let before = live.ejected_until.load(Relaxed);
    if before > nanos_now || live.ejected_until.compare_exchange(before, u64::MAX, Relaxed, Relaxed).is_err() {
        return None;
    }
    let hosts = u32::try_from(cluster.hosts().len()).unwrap_or(u32::MAX);
    let percent = u64::from(settings.max_ejection_percent.min(100));
    // An ejection that ended but was not swept is still counted; it is this endpoint's own place.
    let own = u32::from(before != 0);
    let entered = ejections.active.fetch_update(Relaxed, Relaxed, |active| {
        let others = active.saturating_sub(own);
        let room = others == 0 || (u64::from(others) + 1) * 100 <= percent * u64::from(hosts);
        room.then_some(others + 1)
    });
    if let Err(active) = entered {
        live.ejected_until.store(before, Relaxed);
        return Some(Event::Withheld { endpoint: endpoint.address, evidence, ejected: (active, hosts) });
    }
    let nth = live.ejections.fetch_add(1, Relaxed).saturating_add(1);
    let longest = settings.max_ejection.max(settings.base_ejection);
    let duration = settings.base_ejection.saturating_mul(nth).min(longest);
    live.ejected_until.store(nanos_now.saturating_add(nanos(duration)), Relaxed);
    Some(Event::Ejected { endpoint: endpoint.address, evidence, duration, nth })
}

/// An interval without being out takes one ejection off the multiplier.
fn forgive(live: &Live) {
    let _ = live.ejections.fetch_update(Relaxed, Relaxed, |ejections| ejections.checked_sub(1));
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

impl Live {
    const fn counter(&self, detector: Detector) -> &AtomicU32 {
        match detector {
            Detector::ServerErrors => &self.consecutive_5xx,
            Detector::GatewayErrors => &self.consecutive_gateway,
            Detector::LocalFailures => &self.consecutive_local,
        }
    }

    fn reset_counts(&self) {
        for counter in [&self.consecutive_5xx, &self.consecutive_gateway, &self.consecutive_local] {
            counter.store(0, Relaxed);
        }
    }
}

#[cfg(test)]
mod tests;
