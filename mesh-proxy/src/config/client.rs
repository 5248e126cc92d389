//! The xDS client: pumps one [`ClientSession`] over streams that come and go.
//!
//! What was received stays in use while there is no stream (fail static); a new stream tells the server what is held, so
//! nothing is sent twice.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, SystemTime};

use mesh_api_rt::backoff::Backoff;
use mesh_api_rt::report::Report;
use mesh_api_xds::ads::client::{ClientAction, ClientOptions, ClientSession, Interest};
use mesh_api_xds::ads::{Protocol, Request, Response};
use mesh_api_xds::discovery::{DeltaDiscoveryRequest, DeltaDiscoveryResponse};
use mesh_api_xds::grpc::AggregatedDiscoveryClient;
use mesh_api_xds::node::NodeInfo;
use mesh_api_xds::type_url::TypeUrl;
use mesh_ca::client::Credential;
use mesh_proxy_core::plan::Mark;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use super::apply::{Answer, Staged};
use super::channel::{self, ChannelError, Proof};
use super::dns::Resolver;
use crate::agent::pod;
use crate::bootstrap::Bootstrap;
use crate::worker::Shared;

/// Pauses between streams.
const RETRY_BASE: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(15);

/// Time for the control plane to accept a stream.
const OPEN_TIMEOUT: Duration = Duration::from_secs(10);

/// Requests that wait to be written. Each is an answer or a change of subscription; the machine bounds their number.
const OUTBOX: usize = 1024;

/// A server without marks: its updates are taken together once none has come for this long.
const UNMARKED_QUIET: Duration = Duration::from_millis(50);

/// Why a stream ended.
#[derive(Debug, thiserror::Error)]
enum StreamEnd {
    #[error(transparent)]
    Channel(#[from] ChannelError),
    #[error("the control plane ended the stream: {} ({:?})", .0.message(), .0.code())]
    Status(#[source] Box<tonic::Status>),
    #[error("the control plane closed the stream")]
    Closed,
    #[error("stream closed by the proxy: {0}")]
    Ours(String),
}

/// Where the proxy's own certificate is found, and whether it is needed.
#[derive(Debug)]
pub struct Control {
    /// Static settings.
    pub bootstrap: Arc<Bootstrap>,
    /// Where plans are published.
    pub shared: Arc<Shared>,
    /// The workload certificate.
    pub credential: watch::Receiver<Option<Credential>>,
}

/// The running client.
struct Client {
    control: Control,
    session: ClientSession,
    staged: Staged,
    resolver: Resolver,
    /// Who we say we are; its labels follow those of the pod.
    node: NodeInfo,
    pod: pod::Watch,
    /// Requests of the present stream.
    outbox: Option<mpsc::Sender<DeltaDiscoveryRequest>>,
    wake_at: Option<Instant>,
    /// When staged updates of a server without marks are published.
    quiet_at: Option<Instant>,
    /// This server sends marks.
    marked: bool,
    close: Option<String>,
}

/// Runs for ever.
///
/// # Errors
/// When the node cannot be encoded, which its metadata decides at start.
pub async fn run(control: Control) -> anyhow::Result<()> {
    let options = ClientOptions {
        protocol: Protocol::Delta,
        node: control.bootstrap.node.encode()?,
        demand_timeout: Duration::from_secs(5),
        max_demands: 10_000,
    };
    let node = control.bootstrap.node.clone();
    let mut client = Client {
        control,
        node,
        pod: pod::Watch::new(Path::new(pod::FOLDER)),
        session: ClientSession::new(options),
        staged: Staged::default(),
        resolver: Resolver::default(),
        outbox: None,
        wake_at: None,
        quiet_at: None,
        marked: false,
        close: None,
    };
    let names = client.control.shared.store.names.is_enabled();
    // Names are asked for only by who answers look-ups.
    for type_url in TypeUrl::ALL.into_iter().filter(|type_url| names || *type_url != TypeUrl::NameTable) {
        let actions = client.session.subscribe(type_url, Interest::All);
        client.act(actions);
    }
    let mut backoff = Backoff::new(RETRY_BASE, RETRY_MAX);
    loop {
        let started = Instant::now();
        // What was to end a stream that is gone does not end the next.
        client.close = None;
        let end = client.stream().await;
        let link = &client.control.shared.store.link;
        if link.active.swap(0, Relaxed) == 0 {
            link.failed.fetch_add(1, Relaxed);
        }
        client.outbox = None;
        client.session.on_disconnected();
        // What was not answered counts as not received, and another server may send no marks.
        client.staged = Staged::default();
        client.quiet_at = None;
        client.marked = false;
        if started.elapsed() > RETRY_MAX {
            backoff.reset();
        }
        let pause = backoff.next_delay(&mut rand::rng());
        if let Err(end) = end {
            tracing::warn!(error = %Report::new(&end), retry_in = ?pause, "Control plane stream ended");
        }
        client.idle(pause).await;
    }
}

impl Client {
    /// One stream, from connecting to its end.
    async fn stream(&mut self) -> Result<(), StreamEnd> {
        let bootstrap = Arc::clone(&self.control.bootstrap);
        let credential = self.wait_for_credential(&bootstrap).await;
        let proof = credential.as_ref().map_or(Proof::None, Proof::Certificate);
        let channel = channel::open(&bootstrap, &bootstrap.discovery_address, &bootstrap.root_cert, &proof).await?;
        let (sender, receiver) = mpsc::channel(OUTBOX);
        let mut client = AggregatedDiscoveryClient::new(channel);
        self.outbox = Some(sender);
        let actions = self.session.on_connected();
        self.act(actions);
        let opening = tokio::time::timeout(OPEN_TIMEOUT, client.delta(ReceiverStream::new(receiver)));
        let response = opening.await.map_err(|_| StreamEnd::Ours("the control plane did not answer".to_owned()))?;
        let mut responses = response.map_err(|status| StreamEnd::Status(Box::new(status)))?.into_inner();
        let link = &self.control.shared.store.link;
        link.opened.fetch_add(1, Relaxed);
        link.active.store(1, Relaxed);
        tracing::info!(address = %bootstrap.discovery_address, "Connected to the control plane");
        self.pump(&mut responses).await
    }

    /// On a secured address the stream is opened with the workload certificate, so that comes first.
    async fn wait_for_credential(&self, bootstrap: &Bootstrap) -> Option<Credential> {
        if bootstrap.plaintext_control_plane {
            return None;
        }
        let mut receiver = self.control.credential.clone();
        receiver.wait_for(Option::is_some).await.ok().and_then(|present| present.clone())
    }

    async fn pump(&mut self, responses: &mut Streaming<DeltaDiscoveryResponse>) -> Result<(), StreamEnd> {
        loop {
            tokio::select! {
                response = responses.message() => match response {
                    Ok(Some(response)) => {
                        let actions = self.session.on_response(Response::Delta(response));
                        self.act(actions);
                    }
                    Ok(None) => return Err(StreamEnd::Closed),
                    Err(status) => return Err(StreamEnd::Status(Box::new(status))),
                },
                () = self.other_work() => {}
            }
            if let Some(reason) = self.close.take() {
                return Err(StreamEnd::Ours(reason));
            }
        }
    }

    /// Time without a stream: certificates are still renewed and names resolved.
    async fn idle(&mut self, pause: Duration) {
        let until = Instant::now() + pause;
        while tokio::time::timeout_at(until, self.other_work()).await.is_ok() {}
    }

    /// Everything that does not depend on the stream. Ready after each piece of work.
    async fn other_work(&mut self) {
        let wake_at = self.wake_at;
        let quiet_at = self.quiet_at;
        tokio::select! {
            changed = self.control.credential.changed() => {
                if changed.is_err() {
                    return std::future::pending().await;
                }
                let credential = self.control.credential.borrow_and_update().clone();
                if let Some(credential) = credential {
                    // Published at once, apart from configuration that is not complete yet.
                    let mut local = Staged::default();
                    local.add_credential(&credential);
                    local.publish(&self.control.shared.store, None);
                }
            }
            (name, addresses) = self.resolver.next() => {
                let mut local = Staged::default();
                local.add_resolved(name, addresses);
                local.publish(&self.control.shared.store, None);
            }
            () = sleep_until(wake_at) => {
                self.wake_at = None;
                let actions = self.session.on_wake(std::time::Instant::from(Instant::now()));
                self.act(actions);
            }
            () = sleep_until(quiet_at) => self.publish(None),
            (before, now) = self.pod.changed() => self.introduce_anew(&before, &now),
        }
    }

    /// A stream tells its node once: the next one tells the new labels.
    fn introduce_anew(&mut self, before: &pod::Facts, now: &pod::Facts) {
        let metadata = &mut self.node.metadata;
        pod::replace(&mut metadata.labels, &before.labels, &now.labels);
        pod::replace(&mut metadata.annotations, &before.annotations, &now.annotations);
        match self.node.encode() {
            Ok(node) => {
                self.session.introduce(node);
                self.close = Some("the pod's labels or annotations have changed".to_owned());
            }
            Err(error) => tracing::warn!(error = %Report::new(&error), "New labels of the pod cannot be told"),
        }
    }

    fn act(&mut self, actions: Vec<ClientAction>) {
        for action in actions {
            match action {
                ClientAction::Send(request) => self.send(request),
                ClientAction::Update(update) => {
                    self.control.shared.store.held.apply(&update, SystemTime::now());
                    self.staged.add(update);
                    if !self.marked {
                        self.quiet_at = Some(Instant::now() + UNMARKED_QUIET);
                    }
                }
                ClientAction::Commit { generation, changes } => {
                    self.marked = true;
                    self.publish(Some(Mark { generation, changes: changes.into() }));
                }
                ClientAction::Absent { type_url, name, reason } => {
                    tracing::debug!(%type_url, %name, ?reason, "Resource is absent");
                }
                ClientAction::WakeAt(at) => self.wake_at = Some(Instant::from_std(at)),
                ClientAction::Close(reason) => self.close = Some(reason.to_string()),
            }
        }
    }

    fn send(&mut self, request: Request) {
        let (Some(outbox), Request::Delta(request)) = (&self.outbox, request) else { return };
        if outbox.try_send(request).is_err() {
            self.close = Some("too many requests wait to be written".to_owned());
        }
    }

    fn publish(&mut self, mark: Option<Mark>) {
        self.quiet_at = None;
        let marked = mark.is_some();
        let (live, answers) = self.staged.publish(&self.control.shared.store, mark);
        tracing::debug!(generation = live.plan.mark().generation, "Configuration published");
        self.resolver.want(live.plan.names_to_resolve());
        if marked && !answers.iter().any(|answer| answer.type_url == TypeUrl::Generation) {
            let actions = self.session.ack(TypeUrl::Generation);
            self.act(actions);
        }
        if answers.iter().any(|answer| !answer.rejections.is_empty()) {
            self.control.shared.store.link.rejected.fetch_add(1, Relaxed);
        }
        for Answer { type_url, rejections } in answers {
            self.control.shared.store.held.reject(type_url, &rejections);
            let actions = match rejections.first() {
                None => self.session.ack(type_url),
                Some(first) => {
                    let reason = format!("{}: {}: {}", first.name, first.path, first.reason);
                    self.session.nack(type_url, &reason, &rejections)
                }
            };
            self.act(actions);
        }
    }
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
