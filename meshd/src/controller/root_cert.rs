//! The mesh's roots in every namespace: ConfigMap `istio-ca-root-cert`, which each sidecar mounts to know the control plane.
//!
//! A new namespace has it in a moment, since pods wait for it. What is changed or deleted is put right. A ConfigMap that a
//! live Istio writes for another root is reported and left alone: two control planes that overwrite each other would cut off
//! both meshes.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, ListParams, PartialObjectMeta, PostParams};
use kube::core::ObjectMeta;
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::{self, Event};
use kube::{Client, Error as ClientError};
use mesh_api::names::{
    CA_ROOT_CONFIG_MAP, CA_ROOT_KEY, CONTROL_PLANE_ANNOTATION, MANAGED_BY, MANAGED_BY_LABEL, REVISION_LABEL,
};
use mesh_ca::bundle::TrustBundle;
use meshd_core::inject::IGNORED_NAMESPACES;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_stream::StreamExt as _;

use super::leader::LOCK;
use crate::kube::said;
use crate::metrics::{ByType, ControllerMetrics};
use crate::owner::Owner;

/// The lock of Istio's controller of the same ConfigMaps.
const ISTIO_LOCK: &str = "istio-namespace-controller-election";
/// Where such a lock says who holds it.
const LOCK_ANNOTATION: &str = "control-plane.alpha.kubernetes.io/leader";
/// Age of a renewal from which on a control plane counts as gone: locks are renewed every few seconds.
const GONE: Duration = Duration::from_secs(300);
/// How long what was learned of a lock is believed.
const ALIVE_LOOK: Duration = Duration::from_secs(30);
/// How often a ConfigMap may be written over within a time.
const REWRITES: u32 = 5;
const REWRITES_WITHIN: Duration = Duration::from_secs(60);
/// Pause before what failed is tried again.
const AGAIN: Duration = Duration::from_secs(5);
/// Everything is compared anew this often, whatever watches said.
const SWEEP: Duration = Duration::from_secs(300);
/// Time for one request.
const DEADLINE: Duration = Duration::from_secs(10);
/// What it writes, in metrics.
const WHAT: ByType = ByType { r#type: "root-cert" };

/// The controller.
pub(crate) struct RootCerts {
    client: Client,
    owner: Owner,
    bundle: watch::Receiver<TrustBundle>,
    metrics: ControllerMetrics,
}

/// What is known of a ConfigMap.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Facts {
    labels: BTreeMap<String, String>,
    annotations: BTreeMap<String, String>,
    roots: String,
    version: Option<String>,
}

/// What to do in one namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Action {
    /// All is well.
    Leave,
    /// There is none yet.
    Create,
    /// It is ours, or nobody's any more.
    Replace,
    /// It is somebody else's, if that one lives.
    ReplaceUnlessAlive(Writer),
}

/// Who wrote a ConfigMap that is not ours.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Writer {
    /// Istio, or somebody of whom nothing is known.
    Istio,
    /// A control plane like this one.
    Lateen(Owner),
}

/// The state of one time of leading.
struct Round<'a> {
    of: &'a RootCerts,
    namespaces: BTreeSet<String>,
    maps: BTreeMap<String, Facts>,
    /// Whether namespaces and ConfigMaps have been listed.
    listed: (bool, bool),
    /// What a list that is under way has not shown yet, of both.
    unlisted: (BTreeSet<String>, BTreeSet<String>),
    /// What must be looked at.
    dirty: BTreeSet<String>,
    /// What failed, and when it is tried again.
    failed: BTreeSet<String>,
    again: Option<Instant>,
    /// Namespaces that are left to Istio.
    foreign: BTreeSet<String>,
    /// Whether other control planes live, and when that was learned.
    alive: BTreeMap<Writer, (bool, Instant)>,
    /// Since when, and how often, ConfigMaps were written over.
    rewrites: BTreeMap<String, (Instant, u32)>,
}

/// What a watch says.
enum Seen {
    Namespace(Event<PartialObjectMeta<Namespace>>),
    Map(Event<ConfigMap>),
}

impl RootCerts {
    /// A controller that writes these roots.
    pub(crate) fn new(
        client: Client,
        owner: Owner,
        bundle: watch::Receiver<TrustBundle>,
        metrics: ControllerMetrics,
    ) -> Self {
        Self { client, owner, bundle, metrics }
    }

    /// Works for as long as it is polled: while this replica leads.
    pub(crate) async fn run(&self) {
        let namespaces: Api<PartialObjectMeta<Namespace>> = Api::all(self.client.clone());
        let maps: Api<ConfigMap> = Api::all(self.client.clone());
        let only = watcher::Config::default().fields(&format!("metadata.name={CA_ROOT_CONFIG_MAP}"));
        let namespaces = watcher::watcher(namespaces, watcher::Config::default()).default_backoff();
        let maps = watcher::watcher(maps, only).default_backoff();
        let seen = namespaces.map(|event| event.map(Seen::Namespace)).merge(maps.map(|event| event.map(Seen::Map)));
        let mut seen = std::pin::pin!(seen);
        let mut bundle = self.bundle.clone();
        bundle.mark_unchanged();
        let mut round = Round::new(self);
        let mut sweep = Instant::now() + SWEEP;
        loop {
            let again = round.again.unwrap_or(sweep);
            tokio::select! {
                event = seen.next() => match event {
                    Some(Ok(event)) => round.seen(event),
                    Some(Err(error)) => tracing::debug!(%error, "Watch of namespaces or root certificates failed"),
                    None => return,
                },
                changed = bundle.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    round.dirty.extend(round.namespaces.iter().cloned());
                }
                () = sleep_until(sweep) => {
                    sweep = Instant::now() + SWEEP;
                    round.dirty.extend(round.namespaces.iter().cloned());
                }
                () = sleep_until(again) => {
                    round.again = None;
                    let failed = std::mem::take(&mut round.failed);
                    round.dirty.extend(failed);
                }
            }
            round.work().await;
        }
    }
}

impl<'a> Round<'a> {
    fn new(of: &'a RootCerts) -> Self {
        Self {
            of,
            namespaces: BTreeSet::new(),
            maps: BTreeMap::new(),
            listed: (false, false),
            unlisted: Default::default(),
            dirty: BTreeSet::new(),
            failed: BTreeSet::new(),
            again: None,
            foreign: BTreeSet::new(),
            alive: BTreeMap::new(),
            rewrites: BTreeMap::new(),
        }
    }

    fn seen(&mut self, event: Seen) {
        match event {
            Seen::Namespace(Event::Apply(namespace) | Event::InitApply(namespace)) => {
                let name = namespace.metadata.name.unwrap_or_default();
                self.unlisted.0.remove(&name);
                // Nothing can be made in a namespace that ends.
                if namespace.metadata.deletion_timestamp.is_some() || IGNORED_NAMESPACES.contains(&name.as_str()) {
                    self.forget(&name);
                } else if self.namespaces.insert(name.clone()) {
                    self.dirty.insert(name);
                }
            }
            Seen::Namespace(Event::Delete(namespace)) => self.forget(&namespace.metadata.name.unwrap_or_default()),
            Seen::Map(Event::Apply(map) | Event::InitApply(map)) => {
                let namespace = map.metadata.namespace.clone().unwrap_or_default();
                self.unlisted.1.remove(&namespace);
                self.dirty.insert(namespace.clone());
                self.maps.insert(namespace, Facts::of(map));
            }
            Seen::Map(Event::Delete(map)) => {
                let namespace = map.metadata.namespace.unwrap_or_default();
                self.maps.remove(&namespace);
                self.dirty.insert(namespace);
            }
            // What is not listed again is gone.
            Seen::Namespace(Event::Init) => self.unlisted.0 = self.namespaces.clone(),
            Seen::Map(Event::Init) => self.unlisted.1 = self.maps.keys().cloned().collect(),
            Seen::Namespace(Event::InitDone) => {
                self.listed.0 = true;
                let gone = std::mem::take(&mut self.unlisted.0);
                gone.iter().for_each(|namespace| self.forget(namespace));
            }
            Seen::Map(Event::InitDone) => {
                self.listed.1 = true;
                for namespace in std::mem::take(&mut self.unlisted.1) {
                    self.maps.remove(&namespace);
                    self.dirty.insert(namespace);
                }
            }
        }
    }

    fn forget(&mut self, namespace: &str) {
        self.namespaces.remove(namespace);
        self.failed.remove(namespace);
        self.foreign.remove(namespace);
        self.rewrites.remove(namespace);
        self.count_foreign();
    }

    /// Looks at everything that may be wrong.
    async fn work(&mut self) {
        // Before both are listed, everything would look as if it were missing.
        if self.listed != (true, true) {
            return;
        }
        while let Some(namespace) = self.dirty.pop_first() {
            if !self.namespaces.contains(&namespace) {
                continue;
            }
            if let Err(error) = self.namespace(&namespace).await {
                self.of.metrics.failures.get_or_create(&WHAT).inc();
                tracing::warn!(namespace, error, "Root certificates not written, trying again");
                self.failed.insert(namespace);
                self.again.get_or_insert_with(|| Instant::now() + AGAIN);
            }
        }
    }

    async fn namespace(&mut self, namespace: &str) -> Result<(), String> {
        let bundle = self.of.bundle.borrow().clone();
        let action = decide(self.maps.get(namespace), &bundle, &self.of.owner);
        let foreign = match &action {
            Action::ReplaceUnlessAlive(writer) => self.lives(writer).await?,
            Action::Leave | Action::Create | Action::Replace => false,
        };
        if foreign && self.foreign.insert(namespace.to_owned()) {
            tracing::warn!(
                namespace,
                ?action,
                "ConfigMap istio-ca-root-cert is another control plane's, of another root; sidecars of this one cannot start \
                 there: share one root (Secret cacerts), or give the namespace to one of the two"
            );
        }
        if !foreign {
            self.foreign.remove(namespace);
        }
        self.count_foreign();
        let facts = match action {
            Action::Leave => return Ok(()),
            Action::ReplaceUnlessAlive(_) if foreign => return Ok(()),
            Action::Create => None,
            Action::Replace | Action::ReplaceUnlessAlive(_) => self.maps.get(namespace).cloned(),
        };
        if facts.is_some() && !self.may_rewrite(namespace) {
            if self.foreign.insert(namespace.to_owned()) {
                tracing::error!(
                    namespace,
                    "ConfigMap istio-ca-root-cert is written by somebody else again and again; left alone"
                );
            }
            self.count_foreign();
            return Ok(());
        }
        self.write(namespace, facts, &bundle).await
    }

    async fn write(&mut self, namespace: &str, facts: Option<Facts>, bundle: &TrustBundle) -> Result<(), String> {
        let maps: Api<ConfigMap> = Api::namespaced(self.of.client.clone(), namespace);
        let Facts { mut labels, mut annotations, version, .. } = facts.unwrap_or_default();
        let is_new = version.is_none();
        labels.extend(self.of.owner.labels());
        annotations.insert(CONTROL_PLANE_ANNOTATION.to_owned(), self.of.owner.namespace.clone());
        let map = ConfigMap {
            metadata: ObjectMeta {
                name: Some(CA_ROOT_CONFIG_MAP.to_owned()),
                namespace: Some(namespace.to_owned()),
                labels: Some(labels),
                annotations: Some(annotations),
                resource_version: version,
                ..ObjectMeta::default()
            },
            data: Some([(CA_ROOT_KEY.to_owned(), bundle.to_pem())].into()),
            ..ConfigMap::default()
        };
        let params = PostParams::default();
        let written = async {
            match is_new {
                true => maps.create(&params, &map).await,
                false => maps.replace(CA_ROOT_CONFIG_MAP, &params, &map).await,
            }
        };
        match timeout(DEADLINE, written).await {
            Ok(Ok(map)) => {
                self.of.metrics.writes.get_or_create(&WHAT).inc();
                tracing::debug!(namespace, "Root certificates written");
                self.maps.insert(namespace.to_owned(), Facts::of(map));
                Ok(())
            }
            // Written by somebody since, or the namespace is gone: the watch says what is there now. Should it not, the
            // next sweep reads it again.
            Ok(Err(ClientError::Api(status))) if matches!(status.code, 404 | 409) => {
                self.reread(namespace).await;
                Ok(())
            }
            // The namespace ends; the watch of namespaces says so in a moment.
            Ok(Err(ClientError::Api(status))) if status.code == 403 && status.message.contains("being terminated") => {
                Ok(())
            }
            Ok(Err(error)) => Err(said(&error)),
            Err(_) => Err("no answer in time".to_owned()),
        }
    }

    /// Reads what somebody else wrote meanwhile, and looks at it once more a little later.
    async fn reread(&mut self, namespace: &str) {
        let maps: Api<ConfigMap> = Api::namespaced(self.of.client.clone(), namespace);
        match timeout(DEADLINE, maps.get_opt(CA_ROOT_CONFIG_MAP)).await {
            Ok(Ok(Some(map))) => drop(self.maps.insert(namespace.to_owned(), Facts::of(map))),
            Ok(Ok(None)) => drop(self.maps.remove(namespace)),
            Ok(Err(_)) | Err(_) => {}
        }
        self.failed.insert(namespace.to_owned());
        self.again.get_or_insert_with(|| Instant::now() + AGAIN);
    }

    /// Whether a ConfigMap of this namespace may be written over once more: of two that fight, one should stop.
    fn may_rewrite(&mut self, namespace: &str) -> bool {
        let now = Instant::now();
        let (since, count) = self.rewrites.entry(namespace.to_owned()).or_insert((now, 0));
        if now.duration_since(*since) > REWRITES_WITHIN {
            (*since, *count) = (now, 0);
        }
        *count += 1;
        *count <= REWRITES
    }

    /// Whether the writer of a ConfigMap still looks after it. What cannot be learned counts as yes.
    async fn lives(&mut self, writer: &Writer) -> Result<bool, String> {
        if let Some((lives, at)) = self.alive.get(writer)
            && at.elapsed() < ALIVE_LOOK
        {
            return Ok(*lives);
        }
        let looked = match writer {
            Writer::Istio => timeout(DEADLINE, self.istio_lives()).await,
            Writer::Lateen(owner) => timeout(DEADLINE, self.lateen_lives(owner)).await,
        };
        let lives = match looked {
            Ok(Ok(lives)) => lives,
            // Another namespace's leases are not ours to read.
            Ok(Err(ClientError::Api(status))) if status.code == 403 => true,
            Ok(Err(error)) => return Err(said(&error)),
            Err(_) => return Err("no answer in time".to_owned()),
        };
        self.alive.insert(writer.clone(), (lives, Instant::now()));
        Ok(lives)
    }

    /// Whether an Istio beside us holds its lock.
    async fn istio_lives(&self) -> Result<bool, ClientError> {
        let maps: Api<PartialObjectMeta<ConfigMap>> = Api::namespaced(self.of.client.clone(), &self.of.owner.namespace);
        // A list of one: what we may do with ConfigMaps here is to list and watch them.
        let one = ListParams::default().fields(&format!("metadata.name={ISTIO_LOCK}"));
        let mut found = maps.list(&one).await?.items.into_iter();
        let lock = found.find(|found| found.metadata.name.as_deref() == Some(ISTIO_LOCK));
        let annotations = lock.and_then(|lock| lock.metadata.annotations).unwrap_or_default();
        Ok(annotations.get(LOCK_ANNOTATION).is_some_and(|text| is_held(text, Timestamp::now())))
    }

    /// Whether another control plane like this one has a leader.
    async fn lateen_lives(&self, owner: &Owner) -> Result<bool, ClientError> {
        let leases: Api<Lease> = Api::namespaced(self.of.client.clone(), &owner.namespace);
        let lease = leases.get_opt(&owner.name(&format!("lateen-{LOCK}"))).await?;
        let Some(spec) = lease.and_then(|lease| lease.spec) else { return Ok(false) };
        let age = spec.renew_time.map(|at| Timestamp::now().duration_since(at.0).as_secs());
        Ok(spec.holder_identity.is_some_and(|holder| !holder.is_empty()) && is_recent(age))
    }

    fn count_foreign(&self) {
        self.of.metrics.foreign_roots.set(i64::try_from(self.foreign.len()).unwrap_or(i64::MAX));
    }
}

impl Facts {
    fn of(map: ConfigMap) -> Self {
        let labels = map.metadata.labels.unwrap_or_default();
        let annotations = map.metadata.annotations.unwrap_or_default();
        let roots = map.data.and_then(|mut data| data.remove(CA_ROOT_KEY)).unwrap_or_default();
        Self { labels, annotations, roots, version: map.metadata.resource_version }
    }
}

/// What to do about a namespace's ConfigMap. Pure.
fn decide(found: Option<&Facts>, ours: &TrustBundle, owner: &Owner) -> Action {
    let Some(found) = found else { return Action::Create };
    let is_lateens = found.labels.get(MANAGED_BY_LABEL).is_some_and(|by| by == MANAGED_BY);
    let writer = match (is_lateens, found.labels.get(REVISION_LABEL)) {
        (true, Some(revision)) => {
            let namespace = found.annotations.get(CONTROL_PLANE_ANNOTATION).unwrap_or(&owner.namespace);
            Writer::Lateen(Owner::new(namespace, revision))
        }
        _ => Writer::Istio,
    };
    if writer == Writer::Lateen(owner.clone()) {
        // To the letter: whoever changed it, changed it back is right.
        return if found.roots == ours.to_pem() { Action::Leave } else { Action::Replace };
    }
    // Another revision, or Istio, may know a root more than we do: it follows the same Secret.
    let theirs = TrustBundle::parse(found.roots.as_bytes()).unwrap_or_default();
    let has_all = ours.roots().iter().all(|root| theirs.contains(root));
    if has_all { Action::Leave } else { Action::ReplaceUnlessAlive(writer) }
}

/// Whether a lock's annotation says that somebody holds it now. What cannot be read counts as held: nothing is overwritten on a
/// guess.
fn is_held(annotation: &str, now: Timestamp) -> bool {
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Lock {
        #[serde(default)]
        holder_identity: String,
        renew_time: Option<Timestamp>,
    }
    let Ok(lock) = serde_json::from_str::<Lock>(annotation) else { return true };
    let age = lock.renew_time.map(|at| now.duration_since(at).as_secs());
    !lock.holder_identity.is_empty() && is_recent(age)
}

/// Whether a lock of this age, in seconds, is still being renewed.
fn is_recent(age: Option<i64>) -> bool {
    let limit = i64::try_from(GONE.as_secs()).unwrap_or(i64::MAX);
    age.is_none_or(|age| age < limit)
}

#[cfg(test)]
mod tests;
