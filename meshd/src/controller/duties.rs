//! Starts what a control plane does for its cluster: webhooks on every replica, the rest where this replica leads.

use std::net::SocketAddr;
use std::sync::Arc;

use kube::Client;
use mesh_api_rt::drain::Trigger;
use mesh_ca::bundle::TrustBundle;
use rand::RngExt as _;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Duration, timeout};

use super::election::Timing;
use super::leader::{Campaign, Leads, while_leading};
use super::root_cert::RootCerts;
use super::webhooks::Webhooks;
use super::{Owner, said};
use crate::findings::Findings;
use crate::hub::{Published, Question};
use crate::metrics::{ControllerMetrics, WebhookMetrics};
use crate::status::StatusWriter;
use crate::webhook::probe::Probe;
use crate::webhook::server::Server;
use crate::webhook::settings::Settings;
use crate::xds::tls::Current;

/// The lock of everything that one replica does.
pub(super) const LOCK: &str = "leader";
/// First minor version of Kubernetes 1 whose nodes run native sidecars without being asked to.
const NATIVE_SIDECARS: u32 = 29;
/// Time to ask the API server for its version.
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
        let writer = Arc::new(StatusWriter {
            client: client.clone(),
            owner: owner.clone(),
            findings: Arc::clone(&self.findings),
            published: self.published.clone(),
            ask: self.ask.clone(),
            metrics: metrics.clone(),
        });
        let (leading, watcher) = (leads.clone(), drain.watcher());
        tasks.spawn(async move { while_leading(leading, watcher, || writer.run()).await });
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
        let native_sidecar = self.runs_native_sidecars().await;
        let server =
            Server { listener, tls: Arc::clone(&self.tls), settings, native_sidecar, metrics: self.webhook.clone() };
        tasks.spawn(server.run(drain.watcher()));
        let (tell, well) = watch::channel(false);
        let name = format!("{}.{}.svc", self.owner.name("istiod"), self.owner.namespace);
        let probe = Probe { address, name, bundle: self.bundle.clone(), injects: self.injects };
        tasks.spawn(probe.run(tell, drain.watcher()));
        let controller =
            Webhooks::new(self.client.clone(), self.owner.clone(), self.bundle.clone(), self.controller.clone());
        let (controller, leading, watcher) = (Arc::new(controller), leads.clone(), drain.watcher());
        tasks.spawn(async move { while_leading(leading, watcher, || controller.run()).await });
        well
    }

    /// Whether the cluster is new enough; where that cannot be learned, it is taken to be.
    async fn runs_native_sidecars(&self) -> bool {
        match timeout(DEADLINE, self.client.apiserver_version()).await {
            Ok(Ok(version)) => {
                let digits: String = version.minor.chars().take_while(char::is_ascii_digit).collect();
                let native = digits.parse().is_ok_and(|minor: u32| minor >= NATIVE_SIDECARS) || version.major != "1";
                tracing::info!(version = version.git_version, native_sidecars = native, "Cluster's version");
                native
            }
            Ok(Err(error)) => {
                tracing::warn!(error = said(&error), "Cluster's version is not known; native sidecars are used");
                true
            }
            Err(_) => true,
        }
    }
}
