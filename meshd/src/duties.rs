//! Starts what a control plane does for its cluster: webhooks on every replica, the rest where this replica leads.

use std::net::SocketAddr;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Node;
use kube::Client;
use kube::api::{Api, ListParams};
use mesh_api_rt::drain::Trigger;
use mesh_ca::bundle::TrustBundle;
use rand::RngExt as _;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Duration, timeout};

use crate::controller::addresses::Addresses;
use crate::controller::election::Timing;
use crate::controller::ingress::Ingresses;
use crate::controller::leader::{Campaign, LOCK, Leads, while_leading};
use crate::controller::root_cert::RootCerts;
use crate::controller::webhooks::Webhooks;
use crate::findings::Findings;
use crate::hub::Question;
use crate::kube::said;
use crate::metrics::{ControllerMetrics, WebhookMetrics};
use crate::owner::Owner;
use crate::published::Published;
use crate::standing::Standing;
use crate::status::StatusWriter;
use crate::tls::Current;
use crate::webhook::probe::Probe;
use crate::webhook::server::Server;
use crate::webhook::settings::Settings;

/// First version whose nodes run native sidecars for good (Kubernetes 1.33).
const NATIVE_SIDECARS: (u32, u32) = (1, 33);
/// Nodes read at one time.
const NODES_PAGE: u32 = 500;
/// Time for one request.
const DEADLINE: Duration = Duration::from_secs(10);

/// A control plane's part in its cluster.
pub(crate) struct Duties {
    /// The cluster.
    pub(crate) client: Client,
    /// Whose objects we write.
    pub(crate) owner: Owner,
    /// Name of this replica; one is made up where it is empty.
    pub(crate) replica: String,
    /// The roots of the mesh.
    pub(crate) bundle: watch::Receiver<TrustBundle>,
    /// Certificate of the webhooks.
    pub(crate) tls: Current,
    /// Where leading is counted.
    pub(crate) controller: ControllerMetrics,
    /// Where webhooks are counted.
    pub(crate) webhook: WebhookMetrics,
    /// Whether pods are injected.
    pub(crate) injects: bool,
    /// Whether ServiceEntries without addresses get some.
    pub(crate) allocates: bool,
    /// What is wrong with objects.
    pub(crate) findings: Arc<Findings>,
    /// Says when objects changed.
    pub(crate) published: watch::Receiver<Option<Published>>,
    /// Asks which objects there are.
    pub(crate) ask: mpsc::Sender<Question>,
}

/// What runs.
pub(crate) struct Running {
    /// Whether the webhooks answer; always, where there are none.
    pub(crate) well: watch::Receiver<bool>,
}

impl Duties {
    /// Starts all of it; webhooks only where there is a socket.
    pub(crate) async fn start(
        self,
        socket: Option<(TcpListener, SocketAddr)>,
        tasks: &mut JoinSet<()>,
        drain: &Arc<Trigger>,
    ) -> Running {
        let replica = match self.replica.as_str() {
            // Two replicas of one name would both lead.
            "" => format!("meshd-{:016x}", rand::rng().random::<u64>()),
            name => name.to_owned(),
        };
        let (client, owner, metrics) = (&self.client, &self.owner, &self.controller);
        let campaign = Campaign::new(client.clone(), owner.clone(), replica, LOCK, Timing::default(), metrics.clone());
        let (campaign, leads) = campaign;
        tasks.spawn(campaign.run(drain.watcher()));
        let roots = RootCerts::new(client.clone(), owner.clone(), self.bundle.clone(), metrics.clone());
        let (roots, leading, watcher) = (Arc::new(roots), leads.clone(), drain.watcher());
        tasks.spawn(async move { while_leading(leading, watcher, || roots.run()).await });
        let standing = Arc::new(Standing::new(client.clone(), owner));
        let writer = Arc::new(StatusWriter {
            client: client.clone(),
            standing: Arc::clone(&standing),
            findings: Arc::clone(&self.findings),
            published: self.published.clone(),
            ask: self.ask.clone(),
            metrics: metrics.clone(),
        });
        let (leading, watcher) = (leads.clone(), drain.watcher());
        tasks.spawn(async move { while_leading(leading, watcher, || writer.run()).await });
        let ingresses = Arc::new(Ingresses {
            client: client.clone(),
            owner: owner.clone(),
            standing: Arc::clone(&standing),
            published: self.published.clone(),
            metrics: metrics.clone(),
        });
        let (leading, watcher) = (leads.clone(), drain.watcher());
        tasks.spawn(async move { while_leading(leading, watcher, || ingresses.run()).await });
        if self.allocates {
            let addresses = Arc::new(Addresses {
                client: client.clone(),
                standing: Arc::clone(&standing),
                published: self.published.clone(),
                ask: self.ask.clone(),
                metrics: metrics.clone(),
            });
            let (leading, watcher) = (leads.clone(), drain.watcher());
            tasks.spawn(async move { while_leading(leading, watcher, || addresses.run()).await });
        }
        let well = match socket {
            Some((listener, address)) => self.webhooks(listener, address, &leads, tasks, drain).await,
            None => watch::channel(true).1,
        };
        Running { well }
    }

    async fn webhooks(
        &self,
        listener: TcpListener,
        address: SocketAddr,
        leads: &Leads,
        tasks: &mut JoinSet<()>,
        drain: &Arc<Trigger>,
    ) -> watch::Receiver<bool> {
        let settings = Settings::new(self.client.clone());
        if self.injects {
            tasks.spawn(Arc::clone(&settings).follow(self.owner.clone(), drain.watcher()));
        }
        let native_sidecar = self.run_native_sidecars().await;
        let probed = self.injects.then(|| Arc::clone(&settings));
        let server = Server {
            listener,
            tls: Arc::clone(&self.tls),
            settings,
            native_sidecar,
            published: self.published.clone(),
            metrics: self.webhook.clone(),
        };
        tasks.spawn(server.run(drain.watcher()));
        let (tell, well) = watch::channel(false);
        let name = format!("{}.{}.svc", self.owner.name("istiod"), self.owner.namespace);
        let probe = Probe { address, name, bundle: self.bundle.clone(), settings: probed };
        tasks.spawn(probe.run(tell, drain.watcher()));
        let controller =
            Webhooks::new(self.client.clone(), self.owner.clone(), self.bundle.clone(), self.controller.clone());
        let (controller, leading, watcher) = (Arc::new(controller), leads.clone(), drain.watcher());
        tasks.spawn(async move { while_leading(leading, watcher, || controller.run()).await });
        well
    }

    /// Whether every node runs native sidecars: learned once, at the start; where it cannot be learned, they are taken to.
    async fn run_native_sidecars(&self) -> bool {
        let nodes: Api<Node> = Api::all(self.client.clone());
        let mut page = ListParams::default().limit(NODES_PAGE);
        let mut count = 0;
        loop {
            let found = match timeout(DEADLINE, nodes.list(&page)).await {
                Ok(Ok(found)) => found,
                Ok(Err(error)) => {
                    tracing::warn!(error = said(&error), "Nodes are not known; native sidecars are used");
                    return true;
                }
                Err(_) => {
                    tracing::warn!("Nodes are not known in time; native sidecars are used");
                    return true;
                }
            };
            count += found.items.len();
            for node in found.items {
                let version = node.status.and_then(|status| status.node_info).map(|info| info.kubelet_version);
                if version.as_deref().is_some_and(|version| !is_native(version)) {
                    let node = node.metadata.name;
                    tracing::info!(node, version, "A node is too old for native sidecars; none are used");
                    return false;
                }
            }
            match found.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => page = ListParams::default().limit(NODES_PAGE).continue_token(&token),
                None => break,
            }
        }
        tracing::info!(nodes = count, "Every node runs native sidecars");
        true
    }
}

/// Whether a kubelet of this version (`v1.33.2`, `v1.33.1-eks-…`) runs native sidecars without being asked to.
fn is_native(version: &str) -> bool {
    let mut parts = version.trim_start_matches('v').split('.');
    let major: Option<u32> = parts.next().and_then(|part| part.parse().ok());
    let digits: String = parts.next().unwrap_or_default().chars().take_while(char::is_ascii_digit).collect();
    let minor: Option<u32> = digits.parse().ok();
    major.zip(minor).is_none_or(|version| version >= NATIVE_SIDECARS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_of_kubelets_are_read() {
        for (version, native) in
            [("v1.33.0", true), ("v1.32.9", false), ("v1.29.1-eks-1234", false), ("v2.0.0", true), ("unknown", true)]
        {
            assert_eq!(is_native(version), native, "{version}");
        }
    }
}
