//! Writes into the status of Ingresses that the mesh serves where they are reached: the addresses of the gateway's Service. By
//! the leader, when they differ.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::networking::v1::{Ingress, IngressLoadBalancerIngress};
use kube::api::{Api, ListParams, Patch, PatchParams};
use kube::{Client, Error as ClientError};
use mesh_api::ids::ObjectKey;
use mesh_api::names::REVISION_LABEL;
use serde_json::json;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use crate::kube::said;
use crate::metrics::{ByType, ControllerMetrics};
use crate::owner::Owner;
use crate::published::Published;
use crate::standing::Standing;

/// Shortest time between two looks at everything.
const LOOK: Duration = Duration::from_secs(1);
/// Longest time: the Service's addresses come from a cloud and are not watched.
const SWEEP: Duration = Duration::from_secs(20);
/// Pause between two Ingresses.
const PACE: Duration = Duration::from_millis(40);
/// Time for one request.
const DEADLINE: Duration = Duration::from_secs(10);
/// What it writes, in metrics.
const WHAT: ByType = ByType { r#type: "ingress" };

/// The controller.
pub(crate) struct Ingresses {
    /// The cluster.
    pub(crate) client: Client,
    /// The control plane, in whose namespace the gateway is.
    pub(crate) owner: Owner,
    /// Whose objects are written.
    pub(crate) standing: Arc<Standing>,
    /// Which Ingresses are served, and by what gateway.
    pub(crate) published: watch::Receiver<Option<Published>>,
    /// Where it counts.
    pub(crate) metrics: ControllerMetrics,
}

/// Where a gateway is reached.
type Addresses = Vec<IngressLoadBalancerIngress>;

impl Ingresses {
    /// Works for as long as it is polled: while this replica leads.
    pub(crate) async fn run(&self) {
        let mut published = self.published.clone();
        loop {
            let now = published.borrow_and_update().clone();
            if let Some(Published { snapshot, .. }) = now {
                let served = snapshot.served_ingresses();
                if !served.is_empty() {
                    self.look(served, &snapshot.mesh.ingress.service).await;
                }
            }
            sleep(LOOK).await;
            tokio::select! {
                changed = published.changed() => if changed.is_err() { return },
                () = sleep(SWEEP) => {}
            }
        }
    }

    async fn look(&self, served: &[ObjectKey], gateway: &str) {
        let addresses = match self.addresses(gateway).await {
            // Without its Service a gateway may be on its way: what is written stays.
            Ok(None) => return,
            Ok(Some(addresses)) => addresses,
            Err(error) => {
                tracing::debug!(error, gateway, "Service of the gateway not read");
                return;
            }
        };
        for key in served {
            match timeout(DEADLINE, self.write(key, &addresses)).await {
                Ok(Ok(wrote)) => {
                    if wrote {
                        sleep(PACE).await;
                    }
                }
                // Gone, or written by somebody since: the next look knows more.
                Ok(Err(ClientError::Api(status))) if matches!(status.code, 404 | 409) => {}
                Ok(Err(error)) => self.failed(key, &said(&error)),
                Err(_) => self.failed(key, "no answer in time"),
            }
        }
    }

    fn failed(&self, key: &ObjectKey, error: &str) {
        self.metrics.failures.get_or_create(&WHAT).inc();
        tracing::warn!(ingress = %key, error, "Status of an Ingress not written, trying again");
    }

    /// The addresses of the gateway's Service in our namespace; `None` when there is no such Service.
    async fn addresses(&self, gateway: &str) -> Result<Option<Addresses>, String> {
        let services: Api<Service> = Api::namespaced(self.client.clone(), &self.owner.namespace);
        // A list of one: what we may do with Services is to list and watch them.
        let one = ListParams::default().fields(&format!("metadata.name={gateway}"));
        match timeout(DEADLINE, services.list(&one)).await {
            Ok(Ok(found)) => {
                let mut found = found.items.into_iter();
                Ok(found.find(|service| service.metadata.name.as_deref() == Some(gateway)).map(addresses_of))
            }
            Ok(Err(error)) => Err(said(&error)),
            Err(_) => Err("no answer in time".to_owned()),
        }
    }

    /// Whether something had to be written.
    async fn write(&self, key: &ObjectKey, addresses: &Addresses) -> Result<bool, ClientError> {
        let ingresses: Api<Ingress> = Api::namespaced(self.client.clone(), &key.namespace);
        let found = ingresses.get_status(&key.name).await?;
        let label = found.metadata.labels.as_ref().and_then(|labels| labels.get(REVISION_LABEL));
        let status = found.status.and_then(|status| status.load_balancer);
        let now = status.and_then(|status| status.ingress).unwrap_or_default();
        // The API server adds ports and modes of its own.
        let is_same = now.len() == addresses.len()
            && now.iter().zip(addresses).all(|(now, then)| now.ip == then.ip && now.hostname == then.hostname);
        if is_same || !self.standing.names().await.looks_after(label.map(String::as_str)) {
            return Ok(false);
        }
        let patch = json!({
            "metadata": {"resourceVersion": found.metadata.resource_version},
            "status": {"loadBalancer": {"ingress": addresses}},
        });
        ingresses.patch_status(&key.name, &PatchParams::default(), &Patch::Merge(patch)).await?;
        self.metrics.writes.get_or_create(&WHAT).inc();
        tracing::info!(ingress = %key, addresses = addresses.len(), "Addresses of an Ingress written");
        Ok(true)
    }
}

/// Where a Service is reached from outside: what its load balancer says, and its external addresses. Istio/istio:
/// pilot/pkg/config/kube/ingress/status.go.
fn addresses_of(service: Service) -> Addresses {
    let balanced = service.status.and_then(|status| status.load_balancer).and_then(|status| status.ingress);
    let balanced = balanced.unwrap_or_default().into_iter().map(|found| (found.ip, found.hostname));
    let external = service.spec.and_then(|spec| spec.external_ips).unwrap_or_default();
    let mut all: Vec<_> = balanced.chain(external.into_iter().map(|ip| (Some(ip), None))).collect();
    all.sort();
    all.dedup();
    let address = |(ip, hostname)| IngressLoadBalancerIngress { ip, hostname, ..IngressLoadBalancerIngress::default() };
    all.into_iter().map(address).collect()
}

#[cfg(test)]
mod tests {
    use mesh_api::kinds::Kind;
    use mesh_api_rt::metrics::Metrics;

    use super::*;
    use crate::kube::fake::Objects;

    const INGRESS: &str = "/apis/networking.k8s.io/v1/namespaces/shop/ingresses/web";
    const GATEWAY: &str = "/api/v1/namespaces/istio-system/services/istio-ingressgateway";

    #[tokio::test(start_paused = true)]
    async fn an_ingress_has_the_addresses_of_its_gateway() {
        let objects = Objects::default();
        let ingresses = Ingresses {
            client: objects.client(),
            owner: Owner::new("istio-system", "default"),
            standing: Arc::new(Standing::new(objects.client(), &Owner::new("istio-system", "default"))),
            published: watch::channel(None).1,
            metrics: Metrics::new().register().unwrap(),
        };
        objects.put(INGRESS, json!({"metadata": {"name": "web", "namespace": "shop"}, "spec": {}}));
        let served = [ObjectKey::new(Kind::Ingress, "shop", "web")];
        ingresses.look(&served, "istio-ingressgateway").await;
        assert!(objects.writes().is_empty(), "there is no gateway yet");
        let balancer = json!({"ingress": [{"ip": "192.0.2.1"}, {"hostname": "lb.example"}]});
        objects.put(
            GATEWAY,
            json!({"metadata": {"name": "istio-ingressgateway"},
            "spec": {"externalIPs": ["198.51.100.1"]}, "status": {"loadBalancer": balancer}}),
        );
        for _ in 0..3 {
            ingresses.look(&served, "istio-ingressgateway").await;
        }
        assert_eq!(objects.writes(), [format!("PATCH {INGRESS}/status")]);
        let status = objects.get(INGRESS).unwrap()["status"]["loadBalancer"]["ingress"].clone();
        assert_eq!(status, json!([{"hostname": "lb.example"}, {"ip": "192.0.2.1"}, {"ip": "198.51.100.1"}]));
        objects
            .put(INGRESS, json!({"metadata": {"name": "web", "namespace": "shop", "labels": {"istio.io/rev": "x"}}}));
        ingresses.look(&served, "istio-ingressgateway").await;
        assert!(objects.writes().is_empty(), "another revision's");
    }
}
