//! One discovery stream: the pump between a proxy's messages, the session that decides, and the states to be served.

use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use mesh_api::identity::SpiffeId;
use mesh_api::ids::ClusterId;
use mesh_api::text::Str;
use mesh_api_rt::drain::Watcher;
use mesh_api_xds::ads::server::{Nack, ServerAction, ServerOptions, ServerSession};
use mesh_api_xds::ads::{Protocol, Request, Response};
use mesh_api_xds::node::NodeInfo;
use mesh_api_xds::type_url::TypeUrl;
use meshd_core::proxy::ProxyType;
use meshd_core::rollout::ChangeId;
use meshd_core::translate::Wanted;
use tokio::sync::mpsc;
use tokio::time::{sleep_until, timeout};
use tokio_stream::{Stream, StreamExt as _};
use tonic::Status;

use super::limit::Pace;
use super::view::{captured, view};
use crate::auth::{Peer, check_node};
use crate::metrics::{ByType, PushMetrics, ServerMetrics, label, seconds};
use crate::push::queue::Queue;
use crate::push::registry::{Connection, Exchange, Facts, NackInfo, Offer, Registered, Registry};

/// Time in which a stream must send its first request.
const FIRST_REQUEST: Duration = Duration::from_secs(10);
/// Time in which a proxy must take a response. Istio's `PILOT_XDS_SEND_TIMEOUT` is off by default; a proxy that takes nothing
/// for this long is gone, and what is buffered for it is not.
const SEND: Duration = Duration::from_secs(60);
/// Responses handed to the connection and not yet written.
pub(crate) const BUFFERED: usize = 4;

/// What all streams share.
#[derive(Debug)]
pub(crate) struct Streams {
    /// Who is connected.
    pub(crate) registry: Arc<Registry>,
    /// Who waits for a translation.
    pub(crate) queue: Arc<Queue>,
    /// How fast streams may begin.
    pub(crate) pace: Pace,
    /// The cluster of proxies that name none.
    pub(crate) cluster: ClusterId,
    /// Where pushes are counted.
    pub(crate) metrics: PushMetrics,
    /// Where refusals are counted.
    pub(crate) server: ServerMetrics,
}

/// The proxy's messages.
pub(crate) type Requests = Pin<Box<dyn Stream<Item = Result<Request, Status>> + Send>>;

/// A stream that was opened by an authenticated caller.
pub(crate) struct Opened {
    /// What all streams share.
    pub(crate) streams: Arc<Streams>,
    /// The other side.
    pub(crate) peer: Peer,
    /// Who that is; `None` on the plaintext port.
    pub(crate) identity: Option<SpiffeId>,
    /// Variant of the protocol.
    pub(crate) protocol: Protocol,
    /// Its messages.
    pub(crate) requests: Requests,
    /// Where answers go.
    pub(crate) out: mpsc::Sender<Result<Response, Status>>,
}

/// Why a stream ended.
enum End {
    /// The proxy closed it, or the connection is gone.
    Gone,
    /// We close it, with this status.
    Status(Status),
}

impl Opened {
    /// Serves the stream to its end.
    pub(crate) async fn run(mut self, mut drain: Watcher) {
        let end = tokio::select! {
            () = drain.graceful() => End::Status(Status::unavailable("the control plane stops; connect to another one")),
            end = self.serve() => end,
        };
        if let End::Status(status) = end {
            tracing::info!(
                peer = %self.peer.address,
                code = ?status.code(),
                reason = status.message(),
                "Discovery stream closed"
            );
            // Nobody may be left to take it.
            let _ = timeout(Duration::from_secs(1), self.out.send(Err(status))).await;
        }
    }

    async fn serve(&mut self) -> End {
        let (first, registered, marks) = match self.begin().await {
            Ok(begun) => begun,
            Err(end) => return end,
        };
        let connection = Arc::clone(registered.connection());
        tracing::info!(
            proxy = %connection.key.0,
            peer = %self.peer.address,
            protocol = ?self.protocol,
            "Proxy connected"
        );
        if connection.facts.captured == Some(false) {
            tracing::warn!(proxy = %connection.key.0, "Traffic of this proxy's workload passes the mesh by");
        }
        if self.identity.is_none() && connection.view.kind == ProxyType::Router {
            tracing::info!(proxy = %connection.key.0, "Gateway proved no identity and is served no secrets; use the TLS port");
        }
        self.streams.queue.push(&connection, Wanted::all(), &[], now());
        let offer = connection.offer().await;
        let session = ServerSession::new(ServerOptions { protocol: self.protocol, marks }, Arc::clone(&offer.set));
        let mut pump = Pump { streams: &self.streams, connection: &connection, session, through: offer.through };
        let end = pump.run(first, &mut self.requests, &self.out, self.peer.ends).await;
        tracing::info!(proxy = %connection.key.0, "Proxy disconnected");
        end
    }

    /// Takes the first request, and with it the node, and lets the proxy in.
    async fn begin(&mut self) -> Result<(Request, Registered, bool), End> {
        let refuse = |why: &'static str, status: Status| {
            self.streams.server.refused.get_or_create(&ByType { r#type: why }).inc();
            End::Status(status)
        };
        let first = match timeout(FIRST_REQUEST, self.requests.next()).await {
            Ok(Some(Ok(first))) => first,
            Ok(Some(Err(_)) | None) => return Err(End::Gone),
            Err(_) => return Err(refuse("node", Status::deadline_exceeded("no request came"))),
        };
        let node =
            NodeInfo::decode(first.node()).map_err(|error| refuse("node", Status::invalid_argument(report(&error))))?;
        if let Some(identity) = &self.identity {
            check_node(&node, identity)
                .map_err(|error| refuse("namespace", Status::permission_denied(error.to_string())))?;
        }
        let view = view(&node, self.identity.as_ref(), &self.streams.cluster)
            .map_err(|error| refuse("node", Status::invalid_argument(error.to_string())))?;
        self.streams.pace.turn().await.map_err(|_| {
            refuse("overload", Status::unavailable("too many proxies connect at once; try again later"))
        })?;
        let facts = Facts {
            identity: self.identity.clone(),
            version: node.metadata.istio_version.clone(),
            protocol: self.protocol,
            peer: Str::from(self.peer.address.to_string()),
            since: SystemTime::now(),
            captured: captured(&node),
        };
        Ok((first, self.streams.registry.connect(view, facts, now()), node.takes_marks))
    }
}

/// The loop of a stream.
struct Pump<'a> {
    streams: &'a Streams,
    connection: &'a Arc<Connection>,
    session: ServerSession,
    /// The newest change in the state that the session serves.
    through: ChangeId,
}

impl Pump<'_> {
    async fn run(
        &mut self,
        first: Request,
        requests: &mut Requests,
        out: &mpsc::Sender<Result<Response, Status>>,
        ends: Instant,
    ) -> End {
        let mut request = Some(first);
        loop {
            if let Some(request) = request.take() {
                let actions = self.on_request(request);
                if let Err(end) = self.act(actions, out).await {
                    return end;
                }
                self.connection.adopted();
            }
            tokio::select! {
                next = requests.next() => match next {
                    Some(Ok(next)) => request = Some(next),
                    Some(Err(status)) => {
                        tracing::debug!(proxy = %self.connection.key.0, reason = status.message(), "Stream failed");
                        return End::Gone;
                    }
                    None => return End::Gone,
                },
                offer = self.connection.offer() => {
                    let Offer { set, through } = offer;
                    self.through = through;
                    let actions = self.session.on_resources(set);
                    if let Err(end) = self.act(actions, out).await {
                        return end;
                    }
                    self.connection.adopted();
                }
                () = sleep_until(ends.into()) => {
                    return End::Status(Status::unavailable("the connection has reached its age; connect again"));
                }
                () = out.closed() => return End::Gone,
            }
        }
    }

    /// Lets the session decide, and takes note of what the request answers: the actions that say so name no nonce.
    fn on_request(&mut self, request: Request) -> Vec<ServerAction> {
        let (type_url, nonce) = match &request {
            Request::Delta(request) => (&request.type_url, &request.response_nonce),
            Request::Sotw(request) => (&request.type_url, &request.response_nonce),
        };
        let (type_url, nonce) = (TypeUrl::parse(type_url), Str::from(nonce));
        let actions = self.session.on_request(request);
        let Some(type_url) = type_url else { return actions };
        let mut answered = nonce.is_empty();
        for action in &actions {
            match action {
                ServerAction::Acked { type_url, .. } => {
                    answered = true;
                    self.on_ack(*type_url, &nonce);
                }
                ServerAction::Nacked { type_url, nack } => {
                    answered = true;
                    self.on_nack(*type_url, &nonce, nack);
                }
                ServerAction::Send(_) | ServerAction::Applied { .. } | ServerAction::Close(_) => {}
            }
        }
        if !answered {
            self.streams.metrics.expired_nonce.get_or_create(&label(type_url)).inc();
        }
        if let Some(status) = self.session.status(type_url) {
            let (wildcard, names) = (status.wildcard, status.names);
            self.connection.update(type_url, |info| (info.wildcard, info.names) = (wildcard, names));
        }
        actions
    }

    fn on_ack(&self, type_url: TypeUrl, nonce: &Str) {
        // A rejection of single resources stands until these are accepted, whatever else is.
        let stands = self.session.status(type_url).is_some_and(|status| status.nack.is_some());
        let mut repaired = false;
        self.connection.update(type_url, |info| {
            info.acked = info
                .sent
                .clone()
                .filter(|sent| sent.nonce == *nonce)
                .map(|sent| Exchange { at: SystemTime::now(), ..sent });
            if !stands {
                repaired = info.nack.take().is_some();
            }
        });
        if repaired {
            if let Some(gauge) = self.streams.metrics.rejecting(type_url) {
                gauge.dec();
            }
            tracing::info!(proxy = %self.connection.key.0, r#type = %type_url, "Proxy accepts what it had rejected");
        }
        self.streams.registry.rollout().acked(&self.connection.key, type_url, nonce, now());
    }

    fn on_nack(&self, type_url: TypeUrl, nonce: &Str, nack: &Nack) {
        let metrics = &self.streams.metrics;
        metrics.rejects.get_or_create(&label(type_url)).inc();
        let mut fresh = false;
        self.connection.update(type_url, |info| {
            let of = info.sent.clone().filter(|sent| sent.nonce == *nonce);
            let of =
                of.unwrap_or_else(|| Exchange { nonce: nonce.clone(), version: Str::empty(), at: SystemTime::now() });
            let named = nack.rejections.iter().map(|rejection| {
                let place = if rejection.path.is_empty() { String::new() } else { format!("{}: ", rejection.path) };
                (rejection.name.clone(), Str::from(format!("{place}{}", rejection.reason)))
            });
            let now = NackInfo { of, reason: nack.reason.clone(), resources: named.collect() };
            fresh = info.nack.replace(now).is_none();
        });
        if fresh && let Some(gauge) = metrics.rejecting(type_url) {
            gauge.inc();
        }
        let resources: Vec<&str> = nack.rejections.iter().map(|rejection| rejection.name.as_str()).take(10).collect();
        tracing::warn!(
            proxy = %self.connection.key.0,
            r#type = %type_url,
            reason = %nack.reason,
            ?resources,
            "Proxy rejected configuration, it keeps what it had"
        );
        let mut rollout = self.streams.registry.rollout();
        rollout.nacked(&self.connection.key, type_url, nonce, &nack.reason, now());
    }

    async fn act(&self, actions: Vec<ServerAction>, out: &mpsc::Sender<Result<Response, Status>>) -> Result<(), End> {
        for action in actions {
            match action {
                ServerAction::Send(response) => self.send(response, out).await?,
                ServerAction::Applied { generation, .. } => self.on_applied(generation),
                ServerAction::Close(reason) => {
                    return Err(End::Status(Status::invalid_argument(reason.to_string())));
                }
                // Taken note of where the request is.
                ServerAction::Acked { .. } | ServerAction::Nacked { .. } => {}
            }
        }
        Ok(())
    }

    async fn send(&self, response: Response, out: &mpsc::Sender<Result<Response, Status>>) -> Result<(), End> {
        if let Some(type_url) = TypeUrl::parse(response.type_url()) {
            self.on_send(type_url, &response);
        }
        let begun = now();
        match timeout(SEND, out.send(Ok(response))).await {
            Ok(Ok(())) => {
                self.streams.metrics.send_time.observe(seconds(now().saturating_duration_since(begun)));
                Ok(())
            }
            Ok(Err(_)) => Err(End::Gone),
            Err(_) => {
                self.streams.metrics.write_timeout.inc();
                Err(End::Status(Status::deadline_exceeded("the proxy took no response for a minute")))
            }
        }
    }

    /// Taken note of before it is written: the answer may be faster than the rest of this task.
    fn on_send(&self, type_url: TypeUrl, response: &Response) {
        let (version, sizes): (_, Vec<usize>) = match response {
            Response::Delta(response) => {
                let contents = response.resources.iter().filter_map(|resource| resource.resource.as_ref());
                (&response.system_version_info, contents.map(|content| content.value.len()).collect())
            }
            Response::Sotw(response) => {
                (&response.version_info, response.resources.iter().map(|content| content.value.len()).collect())
            }
        };
        let (nonce, version) = (Str::from(response.nonce()), Str::from(version));
        let metrics = &self.streams.metrics;
        metrics.pushes.get_or_create(&label(type_url)).inc();
        if type_url != TypeUrl::Generation {
            let count = u64::try_from(sizes.len()).unwrap_or(u64::MAX);
            metrics.resources.get_or_create(&label(type_url)).inc_by(count);
        }
        #[expect(clippy::cast_precision_loss, reason = "a histogram's bucket, not a count")]
        metrics.config_size.get_or_create(&label(type_url)).observe(sizes.iter().sum::<usize>() as f64);
        self.streams.registry.rollout().sent(&self.connection.key, type_url, &nonce, &version, now());
        let sent = Exchange { nonce, version, at: SystemTime::now() };
        self.connection.update(type_url, |info| info.sent = Some(sent));
    }

    fn on_applied(&self, generation: u64) {
        tracing::debug!(proxy = %self.connection.key.0, generation, "Proxy has applied a generation");
        let times = self.streams.registry.rollout().settled(&self.connection.key, self.through, now());
        for time in times {
            self.streams.metrics.convergence_time.observe(seconds(time));
        }
    }
}

fn report(error: &dyn std::error::Error) -> String {
    mesh_api_rt::report::Report::new(error).to_string()
}

fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}
