//! The only owner of the world: takes in what sources say, decides when that becomes a snapshot, and tells whom it concerns.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use mesh_api::kinds::Kind;
use mesh_api::text::Str;
use mesh_api_rt::drain::Watcher;
use meshd_core::debounce::{Debounce, DebounceConfig, Due, Urgency};
use meshd_core::rollout::ChangeId;
use meshd_core::snapshot::Snapshot;
use meshd_core::world::{Change, ChangeSet, MeshConfigPlace, World};
use tokio::sync::{mpsc, watch};
use tokio::time::sleep_until;

use crate::findings::Findings;
use crate::metrics::{ByType, PushMetrics, seconds};
use crate::published::Published;
use crate::push::queue::Queue;
use crate::push::registry::Registry;
use crate::push::translate::{Step, Translate};
use crate::source::Event;

/// What the hub tells others with.
#[derive(Clone)]
pub(crate) struct Outlets {
    /// Who is connected.
    pub(crate) registry: Arc<Registry>,
    /// Who waits.
    pub(crate) queue: Arc<Queue>,
    /// What decides whom a change concerns.
    pub(crate) translate: Arc<dyn Translate>,
    /// What is wrong.
    pub(crate) findings: Arc<Findings>,
    /// Where it counts.
    pub(crate) metrics: PushMetrics,
}

/// A question about the world, for debug pages.
pub(crate) type Question = Box<dyn FnOnce(&World) + Send>;

/// The hub.
pub(crate) struct Hub {
    world: World,
    outlets: Outlets,
    debounce: Debounce,
    /// Sources that have not told all they had at the start.
    unsynced: BTreeSet<Str>,
    /// What differs from the published snapshot.
    pending: ChangeSet,
    pending_ids: Vec<ChangeId>,
    /// When the first pending change was taken in.
    pending_since: Option<Instant>,
    last_id: ChangeId,
    published: watch::Sender<Option<Published>>,
}

impl Hub {
    /// A hub that publishes nothing before every one of these sources has told what it had at the start.
    pub(crate) fn new(
        sources: impl IntoIterator<Item = Str>,
        debounce: DebounceConfig,
        outlets: Outlets,
    ) -> (Self, watch::Receiver<Option<Published>>) {
        let (published, receiver) = watch::channel(None);
        let hub = Self {
            world: World::default(),
            outlets,
            debounce: Debounce::new(debounce),
            unsynced: sources.into_iter().collect(),
            pending: ChangeSet::default(),
            pending_ids: Vec::new(),
            pending_since: None,
            last_id: ChangeId(0),
            published,
        };
        (hub, receiver)
    }

    /// The same, with the mesh configuration in another place than that of the default revision.
    pub(crate) fn with_mesh_config(mut self, place: MeshConfigPlace) -> Self {
        self.world.mesh_config = place;
        self
    }

    /// Works until the drain begins or every source has ended.
    pub(crate) async fn run(
        mut self,
        mut events: mpsc::Receiver<Event>,
        mut questions: mpsc::Receiver<Question>,
        mut drain: Watcher,
    ) {
        let mut wake: Option<Instant> = None;
        loop {
            let timer = async {
                match wake {
                    Some(at) => sleep_until(at.into()).await,
                    None => std::future::pending().await,
                }
            };
            let due = tokio::select! {
                () = drain.graceful() => return,
                () = timer => self.debounce.poll(now()),
                Some(question) = questions.recv() => {
                    question(&self.world);
                    continue;
                }
                event = events.recv() => match event {
                    Some(event) => self.on_event(event),
                    // No source lives: what is known stays and is served.
                    None => {
                        drain.graceful().await;
                        return;
                    }
                },
            };
            match due {
                Due::Fire => {
                    wake = None;
                    self.publish();
                }
                Due::WakeAt(at) => wake = Some(at),
                Due::Idle => {}
            }
        }
    }

    fn on_event(&mut self, event: Event) -> Due {
        match event {
            Event::Changed { received, changes } => self.on_changes(received, changes),
            Event::Synced { source } => {
                let last = self.unsynced.remove(&source) && self.unsynced.is_empty();
                if last {
                    tracing::info!(%source, "Sources are synced");
                    Due::Fire
                } else {
                    Due::Idle
                }
            }
        }
    }

    fn on_changes(&mut self, received: Instant, changes: Vec<Change>) -> Due {
        let mut dirty = ChangeSet::default();
        let mut said = false;
        for change in changes {
            said |= matches!(change, Change::Findings { .. });
            dirty.merge(self.world.apply(change));
        }
        if dirty.is_empty() {
            if said {
                self.tell_findings();
            }
            return Due::Idle;
        }
        self.last_id = ChangeId(self.last_id.0 + 1);
        let id = self.last_id;
        self.count_updates(&dirty);
        tracing::debug!(change = id.0, objects = dirty.keys.len(), "Configuration changed");
        self.outlets.registry.rollout().received(id, dirty.keys.iter().cloned().collect(), received);
        let urgency = if dirty.endpoints_only() { Urgency::Endpoints } else { Urgency::Config };
        self.pending.merge(dirty);
        self.pending_ids.push(id);
        self.pending_since.get_or_insert_with(now);
        if self.unsynced.is_empty() { self.debounce.on_change(now(), urgency) } else { Due::Idle }
    }

    /// Makes the next snapshot and queues every proxy that it concerns.
    fn publish(&mut self) {
        let changes = std::mem::take(&mut self.pending);
        let ids = std::mem::take(&mut self.pending_ids);
        let begun = now();
        if let Some(since) = self.pending_since.take() {
            self.outlets.metrics.debounce_time.observe(seconds(begun.saturating_duration_since(since)));
        }
        let before = self.published.borrow().as_ref().map(|published| Arc::clone(&published.snapshot));
        let after = match &before {
            Some(before) => Snapshot::next(before, &self.world, &changes),
            None => Snapshot::build(&self.world, first_generation()),
        };
        let after = Arc::new(after);
        let metrics = &self.outlets.metrics;
        metrics.snapshot_time.observe(seconds(now().saturating_duration_since(begun)));
        metrics.generation.set(i64::try_from(after.generation).unwrap_or(i64::MAX));
        metrics.services.set(count(after.services.by_age.len()));
        metrics.virtual_services.set(count(after.virtual_services.len()));
        let trigger = if changes.endpoints_only() { "endpoint" } else { "config" };
        metrics.triggers.get_or_create(&ByType { r#type: trigger }).inc();
        let published = Published { snapshot: Arc::clone(&after), through: self.last_id };
        // First the snapshot, then the queue: a worker that takes a proxy from it must find this one or a later one.
        self.published.send_replace(Some(published));
        let concerned = match &before {
            Some(before) => self.queue_concerned(&Step { changes: &changes, before, after: &after }, &ids),
            None => 0,
        };
        self.outlets.registry.rollout().published(self.last_id);
        self.outlets.registry.set_queued(after.generation);
        self.tell_findings();
        let (generation, objects, took) =
            (after.generation, changes.keys.len(), now().saturating_duration_since(begun));
        tracing::info!(generation, objects, concerned, ?took, "Snapshot published");
    }

    fn queue_concerned(&self, step: &Step<'_>, ids: &[ChangeId]) -> usize {
        let Outlets { registry, queue, translate, metrics, .. } = &self.outlets;
        let connections = registry.connections();
        let views: Vec<_> = connections.iter().map(|connection| &connection.view).collect();
        let wanted = translate.affected(step, &views);
        let mut concerned = 0;
        for (connection, wanted) in connections.iter().zip(wanted) {
            if wanted.is_nothing() {
                metrics.spared.inc();
                continue;
            }
            concerned += 1;
            registry.rollout().expect(&connection.key, ids.iter().copied());
            queue.push(connection, wanted, ids, now());
        }
        concerned
    }

    fn tell_findings(&self) {
        let source = self.world.source_findings().cloned();
        let snapshot = self.published.borrow().as_ref().map(|published| published.snapshot.findings());
        self.outlets.findings.replace(source.chain(snapshot.unwrap_or_default()));
    }

    fn count_updates(&self, changes: &ChangeSet) {
        for key in &changes.keys {
            let r#type = match key.kind {
                Kind::Service | Kind::ServiceEntry => "svc",
                Kind::EndpointSlice | Kind::Pod | Kind::WorkloadEntry => "eds",
                _ => "config",
            };
            self.outlets.metrics.updates.get_or_create(&ByType { r#type }).inc();
        }
    }
}

/// The first generation of a process: milliseconds since 1970. Generations of a restarted control plane are greater than those
/// before, since no hub publishes a thousand snapshots a second for long, so that a proxy's report of what it applied last
/// can always be told from what is new.
fn first_generation() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    u64::try_from(now.as_millis()).unwrap_or(1).max(1)
}

fn count(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

#[cfg(test)]
mod tests;
