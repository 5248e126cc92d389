//! Writes virtual addresses into the status of ServiceEntries that name none: by the leader, as the allocator of
//! `meshd-core` says.

use std::sync::Arc;
use std::time::Duration;

use kube::api::{Api, DynamicObject, Patch, PatchParams};
use kube::core::{ApiResource, GroupVersionKind};
use kube::{Client, Error as ClientError};
use mesh_api::crd::networking::service_entry::ServiceEntry;
use mesh_api::kinds::Kind;
use mesh_api::names::REVISION_LABEL;
use mesh_api::object::Object;
use meshd_core::allocate::{Allocation, allocate};
use serde_json::json;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{sleep, timeout};

use crate::hub::Question;
use crate::kube::said;
use crate::metrics::{ByType, ControllerMetrics};
use crate::published::Published;
use crate::standing::Standing;

/// Shortest time between two looks at everything.
const LOOK: Duration = Duration::from_millis(500);
/// Longest time.
const SWEEP: Duration = Duration::from_secs(60);
/// Time for one request.
const DEADLINE: Duration = Duration::from_secs(10);
/// What it writes, in metrics.
const WHAT: ByType = ByType { r#type: "address" };

/// The controller.
pub(crate) struct Addresses {
    /// The cluster.
    pub(crate) client: Client,
    /// Whose objects are written.
    pub(crate) standing: Arc<Standing>,
    /// Says when something changed.
    pub(crate) published: watch::Receiver<Option<Published>>,
    /// Asks the hub which entries there are.
    pub(crate) ask: mpsc::Sender<Question>,
    /// Where it counts.
    pub(crate) metrics: ControllerMetrics,
}

impl Addresses {
    /// Works for as long as it is polled: while this replica leads.
    pub(crate) async fn run(&self) {
        let mut published = self.published.clone();
        loop {
            let Some(entries) = self.entries().await else { return };
            for allocation in allocate(entries.iter().map(|entry| &**entry)) {
                if let Err(error) = self.write(&allocation).await {
                    self.metrics.failures.get_or_create(&WHAT).inc();
                    let Allocation { namespace, name, .. } = &allocation;
                    tracing::warn!(%namespace, %name, error, "Addresses not written, trying again");
                }
            }
            sleep(LOOK).await;
            tokio::select! {
                changed = published.changed() => if changed.is_err() { return },
                () = sleep(SWEEP) => {}
            }
        }
    }

    /// All entries; `None` when the hub has ended. Those of other revisions hold addresses too.
    async fn entries(&self) -> Option<Vec<Arc<Object<ServiceEntry>>>> {
        let (tell, told) = oneshot::channel();
        let question: Question = Box::new(move |world| {
            // Whoever asked may have gone.
            let _ = tell.send(world.service_entries.iter().cloned().collect());
        });
        self.ask.send(question).await.ok()?;
        told.await.ok()
    }

    async fn write(&self, allocation: &Allocation) -> Result<(), String> {
        match timeout(DEADLINE, self.patch(allocation)).await {
            // Written by somebody since, or gone: the next look knows more.
            Ok(Err(ClientError::Api(status))) if matches!(status.code, 404 | 409) => Ok(()),
            Ok(done) => done.map_err(|error| said(&error)),
            Err(_) => Err("no answer in time".to_owned()),
        }
    }

    async fn patch(&self, allocation: &Allocation) -> Result<(), ClientError> {
        let info = Kind::ServiceEntry.info();
        let version = info.versions.first().copied().unwrap_or_default();
        let resource =
            ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(info.group, version, info.name), info.plural);
        let api: Api<DynamicObject> = Api::namespaced_with(self.client.clone(), &allocation.namespace, &resource);
        let found = api.get_status(&allocation.name).await?;
        let label = found.metadata.labels.as_ref().and_then(|labels| labels.get(REVISION_LABEL));
        if !self.standing.names().await.looks_after(label.map(String::as_str)) {
            return Ok(());
        }
        let addresses: Vec<_> =
            allocation.addresses.iter().map(|address| json!({"value": address.value, "host": address.host})).collect();
        if found.data["status"]["addresses"] == json!(addresses) {
            return Ok(());
        }
        let patch = json!({
            "metadata": {"resourceVersion": found.metadata.resource_version}, "status": {"addresses": addresses},
        });
        api.patch_status(&allocation.name, &PatchParams::default(), &Patch::Merge(patch)).await?;
        self.metrics.writes.get_or_create(&WHAT).inc();
        let Allocation { namespace, name, .. } = allocation;
        tracing::info!(%namespace, %name, addresses = allocation.addresses.len(), "Addresses allocated");
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use mesh_api::crd::networking::service_entry::AllocatedAddress;
    use mesh_api_rt::metrics::Metrics;

    use super::*;
    use crate::kube::fake::Objects;
    use crate::owner::Owner;

    const PATH: &str = "/apis/networking.istio.io/v1/namespaces/shop/serviceentries/ext";

    #[tokio::test]
    async fn addresses_are_written_once_beside_what_is_there_and_only_where_they_are_ours() {
        let objects = Objects::default();
        let entry = |revision: &str| {
            json!({"apiVersion": "networking.istio.io/v1", "kind": "ServiceEntry",
                "metadata": {"name": "ext", "namespace": "shop", "labels": {"istio.io/rev": revision}},
                "spec": {}, "status": {"conditions": [{"type": "Reconciled"}]}})
        };
        objects.put(PATH, entry("default"));
        let controller = Addresses {
            client: objects.client(),
            standing: Arc::new(Standing::new(objects.client(), &Owner::new("istio-system", "default"))),
            published: watch::channel(None).1,
            ask: mpsc::channel(1).0,
            metrics: Metrics::new().register().unwrap(),
        };
        let address = AllocatedAddress { value: "240.240.0.1".into(), host: "a.example".into() };
        let allocation = Allocation { namespace: "shop".into(), name: "ext".into(), addresses: vec![address] };
        for _ in 0..2 {
            controller.write(&allocation).await.unwrap();
        }
        assert_eq!(objects.writes(), [format!("PATCH {PATH}/status")]);
        let status = objects.get(PATH).unwrap()["status"].clone();
        assert_eq!(status["addresses"], json!([{"value": "240.240.0.1", "host": "a.example"}]));
        assert_eq!(status["conditions"][0]["type"], "Reconciled");
        objects.put(PATH, entry("canary"));
        controller.write(&allocation).await.unwrap();
        assert!(objects.writes().is_empty());
    }
}
