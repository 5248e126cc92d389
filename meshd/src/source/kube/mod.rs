//! A Kubernetes cluster as a source: `--kubernetes`.
//!
//! One watch for each kind of the table ([`watch`]) over plain lists and watches of the API ([`api`], [`slice`]); [`door`]
//! leaves outside what nobody reads; [`store`] knows what the cluster has and which part of it is told. The task here joins
//! them: it is synced when every kind was listed once, or is not there.

mod api;
mod door;
mod slice;
mod store;
mod tags;
mod watch;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::{Duration, Instant};

use ::kube::Client;
use mesh_api::access::Reach;
use mesh_api::finding::Finding;
use mesh_api::kinds::Kind;
use mesh_api::text::Str;
use mesh_api_rt::drain::Watcher;
use meshd_core::world::{Change, MeshConfigPlace};
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use tokio::sync::mpsc;
use tokio::task::{Id, JoinSet};

use self::api::{Api, Wanted};
use self::store::Store;
pub(crate) use self::store::Viewer;
use self::watch::{Told, Watch};
use super::{Event, Running, Source};
use crate::metrics::{ByKind, WatchMetrics};

/// What watches may be ahead.
const TOLD: usize = 64;
/// Pause before a watch that panicked is begun anew.
const PANIC_PAUSE: Duration = Duration::from_secs(1);

/// A cluster as a source.
pub(crate) struct KubeSource {
    client: Client,
    viewer: Viewer,
    metrics: WatchMetrics,
    kinds: Vec<Kind>,
    /// Whether revisions may have further names.
    tags: bool,
}

impl KubeSource {
    /// The source of a cluster.
    pub(crate) fn new(client: Client, viewer: Viewer, metrics: WatchMetrics) -> Self {
        Self { client, viewer, metrics, kinds: Kind::ALL.to_vec(), tags: true }
    }

    fn wanted(&self, kind: Kind) -> Wanted {
        let MeshConfigPlace { namespace, name } = &self.viewer.config;
        match kind.reach() {
            Reach::Cluster => Wanted { kind, namespace: None, fields: door::field_selector(kind) },
            Reach::ControlPlane => {
                Wanted { kind, namespace: Some(namespace.to_string()), fields: Some(format!("metadata.name={name}")) }
            }
        }
    }

    fn watch(&self, kind: Kind, tell: mpsc::Sender<Told>) -> Watch {
        let api = Api::new(self.client.clone(), self.wanted(kind));
        Watch { kind, api, tell, rng: StdRng::from_rng(&mut rand::rng()), metrics: self.metrics.clone() }
    }
}

impl Source for KubeSource {
    fn name(&self) -> Str {
        Str::from(format!("cluster {}", self.viewer.cluster))
    }

    fn run(self: Box<Self>, events: mpsc::Sender<Event>, drain: Watcher) -> Running {
        Box::pin(run(*self, events, drain))
    }
}

async fn run(source: KubeSource, events: mpsc::Sender<Event>, mut drain: Watcher) {
    let (tell, mut told) = mpsc::channel(TOLD);
    let mut watches = Watches { running: JoinSet::new(), kinds: HashMap::new() };
    for kind in &source.kinds {
        watches.spawn(*kind, source.watch(*kind, tell.clone()), Duration::ZERO);
    }
    let mut tags = JoinSet::new();
    if source.tags {
        tags.spawn(tags::follow(source.client.clone(), source.viewer.revision.clone(), tell.clone()));
    }
    let mut intake = Intake::new(&source);
    let mut batch = Vec::new();
    loop {
        tokio::select! {
            () = drain.graceful() => return,
            kind = watches.ended() => watches.spawn(kind, source.watch(kind, tell.clone()), PANIC_PAUSE),
            _ = told.recv_many(&mut batch, TOLD) => {
                let taken = intake.take(batch.drain(..));
                for event in taken {
                    if events.send(event).await.is_err() {
                        return;
                    }
                }
            }
        }
    }
}

/// The tasks of the watches.
struct Watches {
    running: JoinSet<()>,
    kinds: HashMap<Id, Kind>,
}

impl Watches {
    fn spawn(&mut self, kind: Kind, watch: Watch, pause: Duration) {
        let task = self.running.spawn(async move {
            tokio::time::sleep(pause).await;
            watch.run().await;
        });
        self.kinds.insert(task.id(), kind);
    }

    /// The kind of a watch that ended, which none does as long as somebody listens, unless it panicked.
    async fn ended(&mut self) -> Kind {
        loop {
            let id = match self.running.join_next_with_id().await {
                Some(Ok((id, ()))) => id,
                Some(Err(error)) => error.id(),
                None => std::future::pending().await,
            };
            if let Some(kind) = self.kinds.remove(&id) {
                tracing::error!(%kind, "Watch has failed, beginning anew");
                return kind;
            }
        }
    }
}

/// From what watches tell to what the hub is told.
struct Intake {
    source: Str,
    store: Store,
    metrics: WatchMetrics,
    /// The list that each kind's objects are in now.
    listings: BTreeMap<Kind, u64>,
    /// Kinds that were never listed to the end.
    missing: BTreeSet<Kind>,
    /// Whether the tags of the revision are not known yet.
    untagged: bool,
    synced: bool,
}

impl Intake {
    fn new(source: &KubeSource) -> Self {
        Self {
            source: source.name(),
            store: Store::new(source.viewer.clone()),
            metrics: source.metrics.clone(),
            listings: BTreeMap::new(),
            missing: source.kinds.iter().copied().collect(),
            untagged: source.tags,
            synced: false,
        }
    }

    /// All of a batch takes effect together.
    fn take(&mut self, batch: impl Iterator<Item = Told>) -> Vec<Event> {
        let mut changes = Vec::new();
        let mut received: Option<Instant> = None;
        for told in batch {
            match told {
                Told::Begun(kind) => {
                    let listing = self.store.begin();
                    self.listings.insert(kind, listing);
                }
                Told::Seen { kind, at, seen } => {
                    received = Some(received.map_or(at, |first| first.min(at)));
                    let by_kind = ByKind { kind: kind.as_str() };
                    self.metrics.events.get_or_create(&by_kind).inc_by(u64::try_from(seen.len()).unwrap_or(0));
                    let listing = self.listings.get(&kind).copied().unwrap_or_default();
                    for seen in seen {
                        self.store.take(kind, listing, seen, &mut changes);
                    }
                    self.count(kind);
                }
                Told::Listed(kind) => {
                    let listing = self.listings.get(&kind).copied().unwrap_or_default();
                    self.store.end(kind, listing, &mut changes);
                    self.missing.remove(&kind);
                    self.count(kind);
                }
                Told::Tags(tags) => {
                    self.untagged = false;
                    self.store.set_tags(tags, &mut changes);
                }
                Told::Health(kind, finding) => changes.push(self.health(kind, finding)),
            }
        }
        let mut events = Vec::new();
        if !changes.is_empty() {
            let received = received.unwrap_or_else(|| tokio::time::Instant::now().into_std());
            events.push(Event::Changed { received, changes });
        }
        if !self.synced && self.missing.is_empty() && !self.untagged {
            self.synced = true;
            events.push(Event::Synced { source: self.source.clone() });
        }
        events
    }

    fn health(&self, kind: Kind, finding: Option<Finding>) -> Change {
        let origin = Str::from(format!("watch of {kind} in {}", self.source));
        let findings = finding.into_iter().map(|finding| finding.at(origin.clone())).collect();
        Change::Findings { origin, findings }
    }

    fn count(&self, kind: Kind) {
        let by_kind = ByKind { kind: kind.as_str() };
        self.metrics.objects.get_or_create(&by_kind).set(i64::try_from(self.store.count(kind)).unwrap_or(i64::MAX));
    }
}
