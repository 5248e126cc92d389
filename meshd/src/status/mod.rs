//! Writes what was found into the `status` of each object of the mesh, malformed ones included: by the leader, at a bounded rate,
//! and only where something is different.
//!
//! Objects of other revisions are theirs; those without a revision are the default revision's (`crate::standing`).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, DynamicObject, Patch, PatchParams};
use kube::core::{ApiResource, GroupVersionKind};
use kube::{Client, Error as ClientError};
use mesh_api::finding::Finding;
use mesh_api::ids::ObjectKey;
use mesh_api::kinds::{Kind, Scope};
use mesh_api::meta::Meta;
use mesh_api::names::REVISION_LABEL;
use meshd_core::status::Verdict;
use meshd_core::world::World;
use serde_json::json;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{sleep, timeout};

use crate::findings::Findings;
use crate::hub::Question;
use crate::kube::said;
use crate::metrics::{ByType, ControllerMetrics};
use crate::published::Published;
use crate::standing::{Names, Standing};

/// Shortest time between two looks at everything.
const LOOK: Duration = Duration::from_secs(1);
/// Longest time.
const SWEEP: Duration = Duration::from_secs(60);
/// Pause between two objects: 25 of them in a second.
const PACE: Duration = Duration::from_millis(40);
/// Time for one request.
const DEADLINE: Duration = Duration::from_secs(10);
/// Tries of an object that somebody else writes at the same time.
const TRIES: usize = 3;
/// What it writes, in metrics.
const WHAT: ByType = ByType { r#type: "status" };

/// The writer.
pub(crate) struct StatusWriter {
    /// The cluster.
    pub(crate) client: Client,
    /// Whose objects are written.
    pub(crate) standing: Arc<Standing>,
    /// What is wrong.
    pub(crate) findings: Arc<Findings>,
    /// Says when something changed.
    pub(crate) published: watch::Receiver<Option<Published>>,
    /// Asks the hub which objects there are.
    pub(crate) ask: mpsc::Sender<Question>,
    /// Where it counts.
    pub(crate) metrics: ControllerMetrics,
}

/// What was said of an object last: of which generation.
type Said = BTreeMap<ObjectKey, (Option<i64>, Verdict)>;

impl StatusWriter {
    /// Works for as long as it is polled: while this replica leads.
    pub(crate) async fn run(&self) {
        let mut published = self.published.clone();
        let mut said = Said::new();
        let mut names = self.standing.names().await;
        loop {
            let now = self.standing.names().await;
            if names != now {
                // What was others' may be ours: of that, nothing was said.
                said.clear();
                names = now;
            }
            let Some(objects) = self.objects(names.clone()).await else { return };
            let todo = due(&objects, &self.findings.now(), &said);
            said.retain(|key, _| objects.contains_key(key) || todo.iter().any(|(due, _, _)| due == key));
            for (key, generation, verdict) in todo {
                match self.object(&key, &verdict).await {
                    Ok(()) => drop(said.insert(key, (generation, verdict))),
                    Err(error) => {
                        self.metrics.failures.get_or_create(&WHAT).inc();
                        tracing::warn!(object = %key, error, "Status not written, trying again");
                    }
                }
                sleep(PACE).await;
            }
            sleep(LOOK).await;
            tokio::select! {
                changed = published.changed() => if changed.is_err() { return },
                () = sleep(SWEEP) => {}
            }
        }
    }

    /// The objects that are ours, with their generations; `None` when the hub has ended.
    async fn objects(&self, names: Names) -> Option<BTreeMap<ObjectKey, i64>> {
        let (tell, told) = oneshot::channel();
        let question: Question = Box::new(move |world| {
            // Whoever asked may have gone.
            let _ = tell.send(objects_of(world, &names));
        });
        self.ask.send(question).await.ok()?;
        told.await.ok()
    }

    /// Brings the status of one object up to date.
    async fn object(&self, key: &ObjectKey, verdict: &Verdict) -> Result<(), String> {
        for _ in 0..TRIES {
            match timeout(DEADLINE, self.write(key, verdict)).await {
                Ok(Ok(())) => return Ok(()),
                // Somebody else wrote it meanwhile: read again.
                Ok(Err(ClientError::Api(status))) if status.code == 409 => {}
                // It is gone, or was never in the cluster.
                Ok(Err(ClientError::Api(status))) if status.code == 404 => return Ok(()),
                Ok(Err(error)) => return Err(said(&error)),
                Err(_) => return Err("no answer in time".to_owned()),
            }
        }
        Err("it is written by others all the time".to_owned())
    }

    async fn write(&self, key: &ObjectKey, verdict: &Verdict) -> Result<(), ClientError> {
        let api = self.api(key);
        // Of the status alone we need be no reader of everything.
        let found = api.get_status(&key.name).await?;
        let labels = found.metadata.labels.as_ref();
        let label = labels.and_then(|labels| labels.get(REVISION_LABEL)).map(String::as_str);
        if !self.standing.names().await.looks_after(label) {
            return Ok(());
        }
        let generation = found.metadata.generation.unwrap_or_default();
        let at = Timestamp::from_second(Timestamp::now().as_second()).unwrap_or_default().to_string();
        let Some(status) = verdict.over(&found.data["status"], generation, &at) else { return Ok(()) };
        let patch = json!({"metadata": {"resourceVersion": found.metadata.resource_version}, "status": status});
        api.patch_status(&key.name, &PatchParams::default(), &Patch::Merge(patch)).await?;
        self.metrics.writes.get_or_create(&WHAT).inc();
        tracing::debug!(object = %key, valid = verdict.is_valid, "Status written");
        Ok(())
    }

    fn api(&self, key: &ObjectKey) -> Api<DynamicObject> {
        let info = key.kind.info();
        let version = info.versions.first().copied().unwrap_or_default();
        let resource =
            ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(info.group, version, info.name), info.plural);
        match info.scope {
            Scope::Namespaced => Api::namespaced_with(self.client.clone(), &key.namespace, &resource),
            Scope::Cluster => Api::all_with(self.client.clone(), &resource),
        }
    }
}

/// Which objects have something new to say: those whose generation or findings differ from what was said last, and malformed
/// ones, of which only findings are known.
fn due(
    objects: &BTreeMap<ObjectKey, i64>,
    findings: &[Finding],
    said: &Said,
) -> Vec<(ObjectKey, Option<i64>, Verdict)> {
    let mut by_object: BTreeMap<ObjectKey, Vec<&Finding>> = BTreeMap::new();
    for finding in findings {
        if let Some(key) = finding.key.as_ref().filter(|key| key.kind.is_mesh()) {
            by_object.entry(bare(key)).or_default().push(finding);
        }
    }
    let keys: BTreeSet<&ObjectKey> = objects.keys().chain(by_object.keys()).collect();
    let judged = keys.into_iter().map(|key| {
        let verdict = Verdict::of(by_object.get(key).into_iter().flatten().copied());
        (key.clone(), objects.get(key).copied(), verdict)
    });
    judged.filter(|(key, generation, verdict)| said.get(key) != Some(&(*generation, verdict.clone()))).collect()
}

/// The objects of the mesh's kinds that this revision looks after.
fn objects_of(world: &World, names: &Names) -> BTreeMap<ObjectKey, i64> {
    let mut objects = BTreeMap::new();
    let mut add = |kind: Kind, meta: &Meta| {
        if names.looks_after(meta.labels.get(REVISION_LABEL).map(|label| label.as_str())) {
            objects.insert(bare(&meta.key(kind)), meta.generation);
        }
    };
    macro_rules! all {
        ($($table:ident: $kind:ident),* $(,)?) => {
            $(world.$table.iter().for_each(|object| add(Kind::$kind, &object.meta));)*
        };
    }
    all! {
        virtual_services: VirtualService,
        destination_rules: DestinationRule,
        gateways: Gateway,
        service_entries: ServiceEntry,
        workload_entries: WorkloadEntry,
        workload_groups: WorkloadGroup,
        proxy_configs: ProxyConfig,
        sidecars: Sidecar,
        peer_authentications: PeerAuthentication,
        authorization_policies: AuthorizationPolicy,
    }
    objects
}

/// Without the cluster: statuses are written in the one that we run in.
fn bare(key: &ObjectKey) -> ObjectKey {
    ObjectKey::new(key.kind, key.namespace.as_str(), key.name.as_str())
}

#[cfg(test)]
mod tests;
