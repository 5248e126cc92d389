//! The composition root: builds the parts, starts them in order, stops them in order.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use ::kube::Client;
use anyhow::{Context as _, bail};
use arc_swap::ArcSwap;
use mesh_api::identity::{SpiffeId, TrustDomain};
use mesh_api::ids::ClusterId;
use mesh_api_rt::admin::AdminServer;
use mesh_api_rt::drain::{self, Drained, Trigger};
use mesh_api_rt::listen::ListenerTable;
use mesh_api_rt::metrics::{Metrics, process};
use mesh_api_rt::telemetry::LogHandle;
use mesh_api_xds::ca_proto::CertificateServer;
use mesh_api_xds::encoded::Encoded;
use mesh_api_xds::grpc::AggregatedDiscoveryServer;
use mesh_ca::bundle::TrustBundle;
use mesh_ca::caller::Trust;
use mesh_ca::store::file::FileStore;
use mesh_ca::token::TokenKeys;
use meshd_core::translate::Translator;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use crate::auth::Authenticator;
use crate::auth::reviewer::Reviewer;
use crate::ca::cluster::ClusterCa;
use crate::ca::expiry::Expiries;
use crate::ca::roots::{CaOptions, Keep, Roots, Serving};
use crate::ca::service::Certificates;
use crate::config::{Config, DEFAULT_REVISION};
use crate::debug::Pages;
use crate::duties::{Duties, Running};
use crate::findings::Findings;
use crate::hub::{Hub, Outlets, Question};
use crate::kube;
use crate::metrics::{
    ByVersion, CaMetrics, ControllerMetrics, InfoMetrics, PushMetrics, ReviewMetrics, ServerMetrics, WatchMetrics,
    WebhookMetrics,
};
use crate::owner::Owner;
use crate::published::Published;
use crate::push::queue::Queue;
use crate::push::registry::Registry;
use crate::push::translate::Translate;
use crate::push::worker::Worker;
use crate::source::Source;
use crate::source::file::FileSource;
use crate::source::kube::{KubeSource, Viewer};
use crate::tls::Current;
use crate::xds::limit::Pace;
use crate::xds::server::{Port, Services};
use crate::xds::service::Discovery;
use crate::xds::stream::Streams;

/// Events that sources may be ahead of the hub.
const EVENTS: usize = 256;
/// Questions of debug pages that may wait.
const QUESTIONS: usize = 16;
/// Time that what is left gets when the time for grace is over.
const FORCE: Duration = Duration::from_secs(1);

/// A running control plane.
#[derive(Debug)]
pub struct App {
    addresses: Addresses,
    drain: Arc<Trigger>,
    tasks: JoinSet<()>,
    admin: AdminServer,
    ready: Arc<watch::Sender<bool>>,
}

/// Where a control plane listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Addresses {
    /// The plaintext port.
    pub grpc: Option<SocketAddr>,
    /// The TLS port.
    pub secure_grpc: Option<SocketAddr>,
    /// Metrics, readiness, debug pages.
    pub monitoring: SocketAddr,
}

/// The metrics of all parts.
struct AllMetrics {
    registry: Arc<Metrics>,
    push: PushMetrics,
    server: ServerMetrics,
    ca: CaMetrics,
    review: ReviewMetrics,
    watch: WatchMetrics,
    controller: ControllerMetrics,
    webhook: WebhookMetrics,
}

/// What the steps of the start share.
struct Starting {
    config: Config,
    metrics: AllMetrics,
    drain: Arc<Trigger>,
    tasks: JoinSet<()>,
    /// The cluster, where there is one.
    client: Option<Client>,
}

/// From the source to the proxies' queues.
struct Pipeline {
    registry: Arc<Registry>,
    queue: Arc<Queue>,
    findings: Arc<Findings>,
    published: watch::Receiver<Option<Published>>,
    ask: mpsc::Sender<Question>,
    translate: Arc<dyn Translate>,
    expiries: Expiries,
}

/// What proxies are served with.
struct Served {
    services: Services,
    serving: Serving,
    bundle: watch::Receiver<TrustBundle>,
}

/// The sockets, open before anything else is: what cannot listen should say so at once.
struct Sockets {
    grpc: Option<TcpListener>,
    secure_grpc: Option<TcpListener>,
    monitoring: TcpListener,
    webhooks: Option<TcpListener>,
    readiness: Option<TcpListener>,
    addresses: Addresses,
}

impl App {
    /// Starts a control plane and returns when it serves proxies. Until then, `/ready` says that it does not.
    ///
    /// Runs on the present tokio runtime, but for the debug pages, which have a thread of their own.
    ///
    /// # Errors
    /// What cannot be used: an address, a folder, a key, the authority. Nothing is left running then.
    pub async fn start(
        config: Config,
        sockets: &mut ListenerTable,
        logging: Option<LogHandle>,
    ) -> anyhow::Result<Self> {
        let sockets = Sockets::open(&config, sockets)?;
        let store = FileStore::open(&config.state_dir).context("opening the state folder (--state-dir)")?;
        let store = Arc::new(store);
        let tokens = TokenKeys::load_or_create(&*store).context("loading the keys of bootstrap tokens")?;
        let client = match &config.kubernetes {
            Some(kubernetes) => Some(kube::client(kubernetes).await.context("using the cluster (--kubernetes)")?),
            None => None,
        };
        let (metrics, tasks) = (AllMetrics::new()?, JoinSet::new());
        let sources = open_sources(&config, client.as_ref(), &metrics.watch)?;
        let (trigger, _) = drain::channel();
        let mut starting = Starting { config, metrics, drain: Arc::new(trigger), tasks, client };
        let pipeline = starting.pipeline(sources);
        let (ready, is_ready) = watch::channel(false);
        let pages = pipeline.pages(is_ready);
        let readiness = sockets.readiness.map(|socket| (socket, pages.readiness()));
        let routes = pages.router(Arc::clone(&starting.metrics.registry), logging);
        let listeners = std::iter::once((sockets.monitoring, routes)).chain(readiness).collect();
        let admin = AdminServer::start("meshd-admin", listeners);
        let admin = admin.context("starting the monitoring server")?;
        // A replica serves nothing before every source is synced.
        let first = first_snapshot(pipeline.published.clone()).await?;
        let Served { services, serving, bundle } = starting.services(&pipeline, &first, store, tokens).await?;
        for (socket, tls) in [(sockets.grpc, None), (sockets.secure_grpc, Some(serving.proxies))] {
            if let Some(socket) = socket {
                starting.port(socket, tls, services.clone())?;
            }
        }
        let ready = Arc::new(ready);
        match starting.duties(&pipeline, bundle, serving.webhooks, sockets.webhooks).await? {
            Some(running) => {
                let (ready, watcher) = (Arc::clone(&ready), starting.drain.watcher());
                starting.tasks.spawn(follow_webhooks(running.well, ready, watcher));
            }
            None => drop(ready.send_replace(true)),
        }
        let addresses = sockets.addresses;
        tracing::info!(?addresses, "Control plane serves");
        let Starting { drain, tasks, .. } = starting;
        Ok(Self { addresses, drain, tasks, admin, ready })
    }

    /// Where it listens.
    #[must_use]
    pub const fn addresses(&self) -> Addresses {
        self.addresses
    }

    /// Stops: not ready any more, streams are told to go elsewhere and get `grace` to end, debug pages go last.
    pub async fn stop(mut self, grace: Duration) -> Drained {
        self.ready.send_replace(false);
        let drained = self.drain.drain(grace, FORCE).await;
        self.tasks.shutdown().await;
        let admin = self.admin;
        // It waits for answers under way, which blocks.
        let _ = tokio::task::spawn_blocking(move || admin.stop()).await;
        drained
    }
}

impl Starting {
    /// From the sources to the proxies' queues: hub and translators.
    fn pipeline(&mut self, sources: Vec<Box<dyn Source>>) -> Pipeline {
        let metrics = &self.metrics.push;
        let registry = Registry::new(metrics.clone());
        let queue = Queue::new(metrics.clone());
        let findings = Arc::new(Findings::new(metrics.clone()));
        let translate: Arc<dyn Translate> = Arc::new(Translator::<Encoded>::default());
        let outlets = Outlets {
            registry: Arc::clone(&registry),
            queue: Arc::clone(&queue),
            translate: Arc::clone(&translate),
            findings: Arc::clone(&findings),
            metrics: metrics.clone(),
        };
        let (hub, published) = Hub::new(sources.iter().map(|source| source.name()), self.config.debounce, outlets);
        let hub = hub.with_mesh_config(self.config.mesh_config());
        let (ask, questions) = mpsc::channel(QUESTIONS);
        let (tell, events) = mpsc::channel(EVENTS);
        for source in sources {
            self.tasks.spawn(source.run(tell.clone(), self.drain.watcher()));
        }
        drop(tell);
        self.tasks.spawn(hub.run(events, questions, self.drain.watcher()));
        for _ in 0..self.config.push_workers.max(1) {
            let worker = Worker {
                queue: Arc::clone(&queue),
                published: published.clone(),
                translate: Arc::clone(&translate),
                metrics: metrics.clone(),
            };
            self.tasks.spawn(worker.run(self.drain.watcher()));
        }
        Pipeline { registry, queue, findings, published, ask, translate, expiries: Expiries::default() }
    }

    /// What proxies are served with, and the TLS side of it, which follows the authority.
    async fn services(
        &mut self,
        pipeline: &Pipeline,
        first: &Published,
        store: Arc<FileStore>,
        tokens: TokenKeys,
    ) -> anyhow::Result<Served> {
        let Self { config, metrics, drain, tasks, client } = self;
        let domain = trust_domain(config, first)?;
        let aliases = first.snapshot.mesh.trust_domain_aliases.to_vec();
        let trust = ArcSwap::from_pointee(Trust { domain: domain.clone(), aliases });
        let reviewer = client
            .clone()
            .map(|client| Arc::new(Reviewer::new(client, config.token_audiences.clone(), metrics.review.clone())));
        let authenticator = Arc::new(Authenticator { trust, tokens: Arc::new(tokens), reviewer });
        tasks.spawn(follow_mesh(pipeline.published.clone(), Arc::clone(&authenticator), drain.watcher()));
        let serving = Serving::default();
        let options = ca_options(config, domain, pipeline.expiries.clone());
        let keep = match client.clone() {
            Some(client) => {
                let revision = config.kubernetes.as_ref().map_or(DEFAULT_REVISION, |of| of.revision.as_str());
                Keep::Cluster(Box::new(ClusterCa::new(client, &config.namespace, revision)))
            }
            None => Keep::Files(store),
        };
        let roots = Roots::open(options, keep, serving.clone(), metrics.ca.clone(), SystemTime::now()).await;
        let roots = roots.context("opening the certificate authority")?;
        let certificates = Certificates {
            authority: roots.authority(),
            authenticator: Arc::clone(&authenticator),
            metrics: metrics.ca.clone(),
        };
        let bundle = roots.bundle();
        tasks.spawn(roots.run(drain.watcher()));
        let streams = Arc::new(Streams {
            registry: Arc::clone(&pipeline.registry),
            queue: Arc::clone(&pipeline.queue),
            pace: Pace::new(config.streams_per_second),
            cluster: config.cluster.clone(),
            metrics: metrics.push.clone(),
            server: metrics.server.clone(),
        });
        let discovery = Discovery { streams, authenticator, drain: Arc::clone(drain) };
        let services = Services {
            discovery: AggregatedDiscoveryServer::new(Arc::new(discovery)),
            certificates: CertificateServer::new(Arc::new(certificates)),
        };
        Ok(Served { services, serving, bundle })
    }

    /// What is done for the cluster, where there is one.
    async fn duties(
        &mut self,
        pipeline: &Pipeline,
        bundle: watch::Receiver<TrustBundle>,
        tls: Current,
        webhooks: Option<TcpListener>,
    ) -> anyhow::Result<Option<Running>> {
        let (Some(client), Some(kubernetes)) = (&self.client, &self.config.kubernetes) else { return Ok(None) };
        let socket = match webhooks {
            Some(socket) => {
                let address = socket.local_addr().context("asking for the bound address")?;
                Some((tokio::net::TcpListener::from_std(socket).context("handing a socket to the runtime")?, address))
            }
            None => None,
        };
        let duties = Duties {
            client: client.clone(),
            owner: Owner::new(&self.config.namespace, kubernetes.revision.as_str()),
            replica: kubernetes.pod_name.to_string(),
            bundle,
            tls,
            controller: self.metrics.controller.clone(),
            webhook: self.metrics.webhook.clone(),
            injects: self.config.injects,
            allocates: self.config.allocates,
            findings: Arc::clone(&pipeline.findings),
            published: pipeline.published.clone(),
            ask: pipeline.ask.clone(),
        };
        Ok(Some(duties.start(socket, &mut self.tasks, &self.drain).await))
    }

    fn port(&mut self, socket: TcpListener, tls: Option<Current>, services: Services) -> anyhow::Result<()> {
        let listener = tokio::net::TcpListener::from_std(socket).context("handing a socket to the runtime")?;
        let (max_age, metrics) = (self.config.max_connection_age, self.metrics.server.clone());
        let port = Port { listener, tls, services, max_age, metrics };
        self.tasks.spawn(port.run(self.drain.watcher()));
        Ok(())
    }
}

impl Pipeline {
    fn pages(&self, ready: watch::Receiver<bool>) -> Pages {
        Pages {
            registry: Arc::clone(&self.registry),
            findings: Arc::clone(&self.findings),
            published: self.published.clone(),
            ask: self.ask.clone(),
            ready,
            translate: Arc::clone(&self.translate),
            expiries: self.expiries.clone(),
        }
    }
}

impl Sockets {
    fn open(config: &Config, table: &mut ListenerTable) -> anyhow::Result<Self> {
        if let Some(address) = config.grpc
            && !config.allow_plaintext
            && !address.ip().to_canonical().is_loopback()
        {
            bail!(
                "{address} (--grpc-addr) is not loopback: anybody who reaches it could read the configuration of any \
                 proxy; use the TLS port, or --allow-plaintext if that is what you want"
            );
        }
        let mut open = |address: SocketAddr, flag: &str| -> anyhow::Result<(TcpListener, SocketAddr)> {
            let socket = table.listen(address).with_context(|| format!("opening the port of {flag}"))?;
            let address = socket.local_addr().context("asking for the bound address")?;
            Ok((socket, address))
        };
        let grpc = config.grpc.map(|address| open(address, "--grpc-addr")).transpose()?;
        let secure = config.secure_grpc.map(|address| open(address, "--secure-grpc-addr")).transpose()?;
        let (monitoring, at) = open(config.monitoring, "--monitoring-addr")?;
        let webhooks = config.webhooks.map(|address| open(address, "--https-addr")).transpose()?;
        let readiness = config.readiness.map(|address| open(address, "--http-addr")).transpose()?;
        let address = |socket: &Option<(TcpListener, SocketAddr)>| socket.as_ref().map(|(_, address)| *address);
        let addresses = Addresses { grpc: address(&grpc), secure_grpc: address(&secure), monitoring: at };
        let socket = |socket: Option<(TcpListener, SocketAddr)>| socket.map(|(socket, _)| socket);
        let (grpc, secure_grpc) = (socket(grpc), socket(secure));
        let (webhooks, readiness) = (socket(webhooks), socket(readiness));
        Ok(Self { grpc, secure_grpc, monitoring, webhooks, readiness, addresses })
    }
}

impl AllMetrics {
    fn new() -> anyhow::Result<Self> {
        let mut metrics = Metrics::new();
        let (push, server, ca) = (metrics.register()?, metrics.register()?, metrics.register()?);
        let (review, watch) = (metrics.register()?, metrics.register()?);
        let (controller, webhook) = (metrics.register()?, metrics.register()?);
        let info: InfoMetrics = metrics.register()?;
        info.info.get_or_create(&ByVersion { version: env!("CARGO_PKG_VERSION").to_owned() }).set(1);
        process::register(&mut metrics)?;
        Ok(Self { registry: metrics.share(), push, server, ca, review, controller, webhook, watch })
    }
}

/// Every source of configuration that was asked for.
fn open_sources(
    config: &Config,
    client: Option<&Client>,
    metrics: &WatchMetrics,
) -> anyhow::Result<Vec<Box<dyn Source>>> {
    let mut sources: Vec<Box<dyn Source>> = Vec::new();
    if let Some(folder) = &config.config_dir {
        // Beside a cluster the folder is one of its own: what the cluster does not list must not go away.
        let cluster = match client {
            Some(_) => ClusterId::from(format!("{}/folder", config.cluster)),
            None => config.cluster.clone(),
        };
        let namespace = config.default_namespace.clone();
        let source = FileSource::open(folder, &config.state_dir, cluster, namespace)
            .with_context(|| format!("opening {} (--config-dir)", folder.display()))?;
        sources.push(Box::new(source));
    }
    if let (Some(client), Some(kubernetes)) = (client, &config.kubernetes) {
        let viewer = Viewer {
            cluster: config.cluster.clone(),
            revision: kubernetes.revision.clone(),
            config: config.mesh_config(),
        };
        sources.push(Box::new(KubeSource::new(client.clone(), viewer, metrics.clone())));
    }
    if sources.is_empty() {
        bail!("there is no source of configuration: give --config-dir, --kubernetes or both");
    }
    Ok(sources)
}

/// Ready is who serves proxies and whose webhooks answer.
async fn follow_webhooks(mut well: watch::Receiver<bool>, ready: Arc<watch::Sender<bool>>, mut drain: drain::Watcher) {
    loop {
        let is_well = *well.borrow_and_update();
        if drain.phase() == drain::Phase::Running {
            ready.send_replace(is_well);
        }
        tokio::select! {
            () = drain.graceful() => return,
            changed = well.changed() => if changed.is_err() {
                // Where there are no webhooks, the last word counts.
                return;
            },
        }
    }
}

async fn first_snapshot(mut published: watch::Receiver<Option<Published>>) -> anyhow::Result<Published> {
    let first = published.wait_for(Option::is_some).await.context("the hub ended before the first snapshot")?;
    first.clone().context("the hub published nothing")
}

/// The trust domain: that of the mesh configuration, with which the flag must agree, because translation follows the first
/// and issued certificates the second.
fn trust_domain(config: &Config, first: &Published) -> anyhow::Result<TrustDomain> {
    let domain = &first.snapshot.mesh.trust_domain;
    match &config.trust_domain {
        Some(wanted) if wanted != domain => bail!(
            "--trust-domain is {wanted}, but the mesh configuration says {domain}; set trustDomain: {wanted} in the \
             ConfigMap istio of namespace {} or leave the flag out",
            config.namespace
        ),
        _ => Ok(domain.clone()),
    }
}

fn ca_options(config: &Config, domain: TrustDomain, expiries: Expiries) -> CaOptions {
    CaOptions {
        lifetimes: config.lifetimes,
        root_ttl: config.root_ttl,
        plugged: config.ca_certs.clone(),
        identity: SpiffeId::new(domain.clone(), config.namespace.as_str(), "istiod"),
        dns_names: config.serving_names(),
        domain,
        expiries,
    }
}

/// Lets callers of new aliases in, and says when the trust domain itself was changed, which takes a restart.
async fn follow_mesh(
    mut published: watch::Receiver<Option<Published>>,
    authenticator: Arc<Authenticator>,
    mut drain: drain::Watcher,
) {
    loop {
        tokio::select! {
            () = drain.graceful() => return,
            changed = published.changed() => if changed.is_err() { return },
        }
        let Some(Published { snapshot, .. }) = published.borrow_and_update().clone() else { continue };
        let trust = authenticator.trust.load_full();
        if snapshot.mesh.trust_domain != trust.domain {
            let (configured, running) = (&snapshot.mesh.trust_domain, &trust.domain);
            tracing::error!(%configured, %running, "Trust domain was changed; restart meshd to issue certificates of it");
        }
        let aliases = snapshot.mesh.trust_domain_aliases.to_vec();
        if aliases != trust.aliases {
            tracing::info!(?aliases, "Trust domain aliases changed");
            authenticator.trust.store(Arc::new(Trust { domain: trust.domain.clone(), aliases }));
        }
    }
}
