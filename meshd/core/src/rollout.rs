//! From a change to the proxies that run it: what was sent to whom, what they accepted, how long it took.
//!
//! Every number that a user sees about propagation (debug pages, metrics, `meshctl proxy-status`) comes from here. A change
//! is *expected* of the proxies it concerns; a proxy *confirms* it when its session has everything up to that change
//! acknowledged ([`Rollout::settled`]). No clock: callers pass `now`.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use mesh_api::ids::ObjectKey;
use mesh_api::text::Str;
use mesh_api_xds::type_url::{PerType, TypeUrl};

/// A connected proxy: node id and connection number, as a shell composes them.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProxyKey(pub Str);

/// Number of a change, growing with the order in which changes are received.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChangeId(pub u64);

/// How many finished changes are remembered.
const MAX_CHANGES: usize = 1024;
/// How many (change, proxy) times are kept for percentiles.
const MAX_TIMES: usize = 8192;
/// How many responses of one type may be unanswered before the oldest is forgotten; a session has one or two.
const MAX_OUTSTANDING: usize = 16;

/// All rollouts.
#[derive(Debug, Default)]
pub struct Rollout {
    proxies: BTreeMap<ProxyKey, Proxy>,
    changes: BTreeMap<ChangeId, Change>,
    times: VecDeque<Duration>,
}

#[derive(Debug)]
struct Proxy {
    connected: Instant,
    types: PerType<TypeState>,
    /// Changes pushed to this proxy that it has not confirmed.
    waiting: BTreeSet<ChangeId>,
}

#[derive(Clone, Debug, Default)]
struct TypeState {
    outstanding: VecDeque<Outstanding>,
    sent: Option<(Str, Instant)>,
    acked: Option<(Str, Instant)>,
    nacked: Option<Nack>,
}

#[derive(Clone, Debug)]
struct Outstanding {
    nonce: Str,
    version: Str,
}

/// A rejection that still stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Nack {
    /// What was rejected.
    pub version: Str,
    /// The proxy's words.
    pub reason: Str,
    /// Since when; a repeated rejection keeps the first time.
    pub since: Instant,
}

#[derive(Debug)]
struct Change {
    received: Instant,
    objects: Vec<ObjectKey>,
    expected: usize,
    confirmed: usize,
    lost: usize,
    nacked: BTreeSet<ProxyKey>,
    waiting: BTreeSet<ProxyKey>,
    last_confirmed: Option<Instant>,
    published: bool,
}

/// State of one type at one proxy, with istioctl's words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SyncState {
    /// The last version sent is acknowledged.
    Synced {
        /// That version.
        version: Str,
        /// When the acknowledgement came.
        at: Instant,
    },
    /// Sent, not answered yet.
    Stale {
        /// The version sent.
        sent: Str,
        /// The version still acknowledged.
        acked: Option<Str>,
        /// When it was sent.
        since: Instant,
    },
    /// The last answer was a rejection.
    Error(Nack),
    /// Nothing was ever sent: not subscribed, or nothing to send.
    NotSent,
}

/// What has become of one change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChangeStatus {
    /// Objects that changed.
    pub objects: Vec<ObjectKey>,
    /// Proxies it was pushed to.
    pub expected: usize,
    /// Of them, those that confirmed it.
    pub confirmed: usize,
    /// Of them, those that left before they did.
    pub lost: usize,
    /// Proxies that rejected something of it and have not accepted anything newer.
    pub nacked: Vec<ProxyKey>,
    /// Proxies that have not answered.
    pub waiting: Vec<ProxyKey>,
    /// From its reception to the last confirmation so far.
    pub took: Option<Duration>,
    /// It has been handed to every proxy it concerns, and all of them confirmed it or left.
    pub done: bool,
}

/// Percentiles of the time from a change's reception to a proxy's confirmation, over the last 8,192 of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Convergence {
    /// How many times went into it.
    pub count: usize,
    /// Median.
    pub p50: Duration,
    /// 90th percentile.
    pub p90: Duration,
    /// 99th percentile.
    pub p99: Duration,
    /// Longest.
    pub max: Duration,
}

impl Rollout {
    /// A proxy opened its stream.
    pub fn connected(&mut self, proxy: ProxyKey, now: Instant) {
        let fresh = Proxy { connected: now, types: PerType::default(), waiting: BTreeSet::new() };
        self.proxies.insert(proxy, fresh);
    }

    /// A proxy's stream ended; what it had not confirmed is counted as lost.
    pub fn disconnected(&mut self, proxy: &ProxyKey) {
        let Some(state) = self.proxies.remove(proxy) else { return };
        for id in state.waiting {
            if let Some(change) = self.changes.get_mut(&id) {
                change.waiting.remove(proxy);
                change.nacked.remove(proxy);
                change.lost += 1;
            }
        }
    }

    /// A change was received from a source.
    pub fn received(&mut self, id: ChangeId, objects: Vec<ObjectKey>, now: Instant) {
        let change = Change {
            received: now,
            objects,
            expected: 0,
            confirmed: 0,
            lost: 0,
            nacked: BTreeSet::new(),
            waiting: BTreeSet::new(),
            last_confirmed: None,
            published: false,
        };
        self.changes.insert(id, change);
        self.forget_old();
    }

    /// Changes up to `id` are in the published snapshot and every concerned proxy's push is queued.
    pub fn published(&mut self, id: ChangeId) {
        for (_, change) in self.changes.range_mut(..=id) {
            change.published = true;
        }
    }

    /// Changes `ids` concern `proxy`: they will be pushed to it.
    pub fn expect(&mut self, proxy: &ProxyKey, ids: impl IntoIterator<Item = ChangeId>) {
        let Some(state) = self.proxies.get_mut(proxy) else { return };
        for id in ids {
            let Some(change) = self.changes.get_mut(&id) else { continue };
            if state.waiting.insert(id) {
                change.expected += 1;
                change.waiting.insert(proxy.clone());
            }
        }
    }

    /// A response was sent.
    pub fn sent(&mut self, proxy: &ProxyKey, type_url: TypeUrl, nonce: &str, version: &str, now: Instant) {
        let Some(state) = self.proxies.get_mut(proxy) else { return };
        let state = state.types.of_mut(type_url);
        if state.outstanding.len() == MAX_OUTSTANDING {
            state.outstanding.pop_front();
        }
        let version = Str::from(version);
        state.outstanding.push_back(Outstanding { nonce: Str::from(nonce), version: version.clone() });
        state.sent = Some((version, now));
    }

    /// A response was acknowledged, and with it everything of its type that was sent before.
    pub fn acked(&mut self, proxy: &ProxyKey, type_url: TypeUrl, nonce: &str, now: Instant) {
        let Some(state) = self.proxies.get_mut(proxy) else { return };
        let type_state = state.types.of_mut(type_url);
        let Some(answered) = take_through(&mut type_state.outstanding, nonce) else { return };
        type_state.acked = Some((answered.version, now));
        type_state.nacked = None;
        if state.types.iter().all(|(_, state)| state.nacked.is_none()) {
            for id in &state.waiting {
                if let Some(change) = self.changes.get_mut(id) {
                    change.nacked.remove(proxy);
                }
            }
        }
    }

    /// A response was rejected. The changes that wait stay unconfirmed until a newer response of the type is accepted.
    pub fn nacked(&mut self, proxy: &ProxyKey, type_url: TypeUrl, nonce: &str, reason: &str, now: Instant) {
        let Some(state) = self.proxies.get_mut(proxy) else { return };
        let type_state = state.types.of_mut(type_url);
        let Some(answered) = take_through(&mut type_state.outstanding, nonce) else { return };
        let since = type_state.nacked.as_ref().map_or(now, |nack| nack.since);
        type_state.nacked = Some(Nack { version: answered.version, reason: Str::from(reason), since });
        for id in &state.waiting {
            if let Some(change) = self.changes.get_mut(id) {
                change.nacked.insert(proxy.clone());
            }
        }
    }

    /// Everything up to the change `through` has been handed to the proxy's session and nothing of it is unanswered.
    /// While a rejection stands, nothing is confirmed. Returns how long each change took that is confirmed now.
    pub fn settled(&mut self, proxy: &ProxyKey, through: ChangeId, now: Instant) -> Vec<Duration> {
        let mut took = Vec::new();
        let Some(state) = self.proxies.get_mut(proxy) else { return took };
        if state.types.iter().any(|(_, state)| state.nacked.is_some()) {
            return took;
        }
        let kept = state.waiting.split_off(&ChangeId(through.0.saturating_add(1)));
        for id in std::mem::replace(&mut state.waiting, kept) {
            let Some(change) = self.changes.get_mut(&id) else { continue };
            change.waiting.remove(proxy);
            change.nacked.remove(proxy);
            change.confirmed += 1;
            change.last_confirmed = Some(now);
            if self.times.len() == MAX_TIMES {
                self.times.pop_front();
            }
            let time = now.saturating_duration_since(change.received);
            self.times.push_back(time);
            took.push(time);
        }
        took
    }

    /// Drops the oldest changes beyond the bound.
    fn forget_old(&mut self) {
        while self.changes.len() > MAX_CHANGES {
            let Some((id, change)) = self.changes.pop_first() else { return };
            for proxy in change.waiting {
                if let Some(state) = self.proxies.get_mut(&proxy) {
                    state.waiting.remove(&id);
                }
            }
        }
    }

    /// State of every type at a proxy; `None` when it is not connected.
    #[must_use]
    pub fn proxy_status(&self, proxy: &ProxyKey) -> Option<PerType<SyncState>> {
        let state = self.proxies.get(proxy)?;
        Some(PerType::from_fn(|type_url| state.types.of(type_url).status()))
    }

    /// When a proxy connected.
    #[must_use]
    pub fn connected_since(&self, proxy: &ProxyKey) -> Option<Instant> {
        self.proxies.get(proxy).map(|state| state.connected)
    }

    /// All connected proxies, ordered.
    pub fn proxies(&self) -> impl Iterator<Item = &ProxyKey> {
        self.proxies.keys()
    }

    /// What has become of a change; `None` when it is unknown or forgotten.
    #[must_use]
    pub fn change_status(&self, id: ChangeId) -> Option<ChangeStatus> {
        let change = self.changes.get(&id)?;
        Some(ChangeStatus {
            objects: change.objects.clone(),
            expected: change.expected,
            confirmed: change.confirmed,
            lost: change.lost,
            nacked: change.nacked.iter().cloned().collect(),
            waiting: change.waiting.difference(&change.nacked).cloned().collect(),
            took: change.last_confirmed.map(|at| at.saturating_duration_since(change.received)),
            done: change.published && change.confirmed + change.lost == change.expected,
        })
    }

    /// The remembered changes, oldest first.
    pub fn changes(&self) -> impl Iterator<Item = ChangeId> {
        self.changes.keys().copied()
    }

    /// The newest change that touched an object.
    #[must_use]
    pub fn last_change_of(&self, object: &ObjectKey) -> Option<ChangeId> {
        self.changes.iter().rev().find(|(_, change)| change.objects.contains(object)).map(|(id, _)| *id)
    }

    /// How long changes take to reach proxies.
    #[must_use]
    pub fn convergence(&self) -> Convergence {
        let mut times: Vec<Duration> = self.times.iter().copied().collect();
        times.sort_unstable();
        // Nearest rank: the smallest value that at least `percent` of all do not exceed.
        let rank = |percent: usize| {
            let position = (times.len() * percent).div_ceil(100).saturating_sub(1);
            times.get(position).copied().unwrap_or_default()
        };
        Convergence { count: times.len(), p50: rank(50), p90: rank(90), p99: rank(99), max: rank(100) }
    }
}

impl TypeState {
    fn status(&self) -> SyncState {
        if let Some(nack) = &self.nacked {
            return SyncState::Error(nack.clone());
        }
        let Some((sent, since)) = &self.sent else { return SyncState::NotSent };
        match &self.acked {
            Some((version, at)) if self.outstanding.is_empty() => {
                SyncState::Synced { version: version.clone(), at: *at }
            }
            acked => SyncState::Stale {
                sent: sent.clone(),
                acked: acked.as_ref().map(|(version, _)| version.clone()),
                since: *since,
            },
        }
    }
}

/// Removes the response of this nonce and all before it; `None` when the nonce is unknown (stale).
fn take_through(outstanding: &mut VecDeque<Outstanding>, nonce: &str) -> Option<Outstanding> {
    let position = outstanding.iter().position(|o| o.nonce == *nonce)?;
    outstanding.drain(..=position).next_back()
}

#[cfg(test)]
mod tests;
