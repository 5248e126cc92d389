//! Forwarding: attempts at endpoints until one answers or no further try is allowed.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use mesh_api_xds::ir::cluster::{Cluster, UpstreamProtocol};
use mesh_api_xds::ir::endpoint::Health;
use mesh_proxy_core::endpoint::{Endpoint, EndpointId, InFlight};
use mesh_proxy_core::facts::RequestFacts;
use mesh_proxy_core::fault::{Fault, FaultKind};
use mesh_proxy_core::filter::format::Context;
use mesh_proxy_core::h1::head::{Asked, Switch};
use mesh_proxy_core::head::known::KnownName;
use mesh_proxy_core::head::{Method, Version};
use mesh_proxy_core::health::outlier::Seen;
use mesh_proxy_core::limit::concurrency::Permit;
use mesh_proxy_core::plan::cluster::ClusterPlan;
use mesh_proxy_core::retry::policy::is_idempotent;
use smallvec::SmallVec;
use tokio::time::Instant;

use super::call::{Call, Started};
use super::downstream::{Downstream, Follows};
use super::event::Broken;
use super::exchange::{Routed, Scratch, Stop, downstream_fault, upstream_fault};
use super::prepare;
use super::retry::{Decision, Retries, Sent};
use super::transfer::{Ended, Impatient, Patience, Waited, until_end, until_response};
use crate::conn::Connection;
use crate::upstream::connect::{ConnectError, ConnectOptions, Connected, connect};
use crate::upstream::fault_of;
use crate::upstream::h1_pool::Pooled;
use crate::upstream::h2_pool::H2Limits;
use crate::upstream::key::{PoolKey, Protocol};
use crate::worker::Worker;

/// How long a refused request waits for an endpoint that is not known yet: a little longer than it takes to be announced.
const ENDPOINT_WAIT: Duration = Duration::from_secs(1);

/// How forwarding ended well.
#[derive(Debug)]
pub enum Delivered {
    /// The response was delivered.
    Complete,
    /// Both sides agreed on another protocol.
    Switched(Box<Call>),
}

/// Everything about one request that its attempts have in common.
#[derive(Debug)]
pub struct Forwarding<'a> {
    /// The worker.
    pub worker: &'a Rc<Worker>,
    /// The client's connection.
    pub connection: &'a Connection,
    /// Route and chain.
    pub routed: &'a Routed,
    /// The client's address.
    pub client: SocketAddr,
    /// The cluster that was chosen, as it is now.
    pub cluster: Arc<ClusterPlan>,
    /// Framing of the request.
    pub follows: Follows,
    /// Whether the client asked for another protocol.
    pub switch: Switch,
    /// When the request began.
    pub start_time: SystemTime,
    /// State of the secrets when forwarding began.
    pub secrets_epoch: u64,
}

/// Forwards the request in `scratch` and delivers the response.
///
/// # Errors
/// When no upstream gave a response that could be delivered whole.
pub async fn forward(
    worker: &Rc<Worker>,
    connection: &Connection,
    routed: &Routed,
    scratch: &mut Scratch,
    down: &mut Downstream<'_>,
    client: SocketAddr,
) -> Result<Delivered, Stop> {
    let cluster = find_cluster(worker, routed)?;
    scratch.record.cluster = Some(Arc::clone(&cluster.settings));
    let overflow = || Fault::new(FaultKind::UpstreamOverflow);
    let _request = cluster.state.circuit.request(&cluster.settings.limits).ok_or_else(overflow)?;
    let follows = down.request_follows(&scratch.request);
    let start_time = scratch.record.start_time;
    let forwarding = Forwarding {
        worker,
        connection,
        routed,
        client,
        cluster,
        follows,
        switch: down.switch(),
        start_time,
        secrets_epoch: worker.live().secrets_epoch,
    };
    prepare::upstream_request(&forwarding, &mut scratch.request)?;
    scratch.progress.request_ended = follows == Follows::Nothing;
    let mut retries = Retries::new(&forwarding, &scratch.request);
    scratch.progress.replay.keep(retries.replay_bytes());
    down.send_continue();
    attempts(forwarding, &mut retries, scratch, down).await
}

/// The chosen cluster.
fn find_cluster(worker: &Worker, routed: &Routed) -> Result<Arc<ClusterPlan>, Stop> {
    let cluster = routed.cluster.as_ref().ok_or_else(|| Fault::new(FaultKind::NoCluster))?;
    let missing = || Fault::new(FaultKind::NoCluster).with_detail(cluster.name.clone());
    Ok(Arc::clone(worker.live().plan.cluster_at(cluster.slot).ok_or_else(missing)?))
}

async fn attempts(
    mut forwarding: Forwarding<'_>,
    retries: &mut Retries,
    scratch: &mut Scratch,
    down: &mut Downstream<'_>,
) -> Result<Delivered, Stop> {
    let mut tried: SmallVec<[EndpointId; 4]> = SmallVec::new();
    loop {
        scratch.record.attempts += 1;
        let pause = match attempt(&forwarding, retries, scratch, down, &mut tried).await {
            Tried::Started(call, started, endpoint) => {
                if !forwarding.finds_another(retries, &tried).await {
                    return deliver(&forwarding, retries, scratch, down, *call, started, endpoint).await;
                }
                Duration::ZERO
            }
            Tried::Stop(stop) => return Err(stop),
            Tried::Again(pause) => pause,
            Tried::Failed(fault, sent) => match retries.after_failure(&forwarding, &fault, sent) {
                Decision::Give(fault) if !forwarding.finds_another(retries, &tried).await => return Err(fault.into()),
                Decision::Give(_) => Duration::ZERO,
                Decision::Again(pause) => pause,
            },
        };
        wait(pause).await;
        // Endpoints may have come and gone since.
        forwarding.refresh();
        // The next attempt starts with the body received so far.
        scratch.progress.request_stopped = false;
        retries.note_attempt(&mut scratch.request);
    }
}

async fn wait(pause: Duration) {
    if !pause.is_zero() {
        tokio::time::sleep(pause).await;
    }
}

enum Tried {
    /// A response has begun, and is to be delivered.
    Started(Box<Call>, Started, Arc<Endpoint>),
    /// The response was thrown away for another attempt, after this pause.
    Again(Duration),
    /// This attempt failed; another may be made.
    Failed(Fault, Sent),
    /// The exchange is over.
    Stop(Stop),
}

async fn attempt(
    forwarding: &Forwarding<'_>,
    retries: &mut Retries,
    scratch: &mut Scratch,
    down: &mut Downstream<'_>,
    tried: &mut SmallVec<[EndpointId; 4]>,
) -> Tried {
    let cluster = &*forwarding.cluster;
    let replayable = scratch.progress.replay.is_possible();
    let nothing_sent = Sent { bytes: false, replayable, reused: false };
    let endpoint = match crate::tcp::pick(forwarding.worker, forwarding.connection, cluster, tried) {
        Ok(endpoint) => endpoint,
        Err(fault) => return Tried::Failed(fault, nothing_sent),
    };
    if retries.avoids_previous() {
        tried.push(endpoint.id());
    }
    scratch.record.endpoint = Some(Arc::clone(&endpoint));
    let _in_flight = InFlight::new(Arc::clone(&endpoint));
    if scratch.progress.request_ended {
        retries.arm();
    }
    let beginning = begin(forwarding, scratch, &endpoint, retries.wants_fresh_connection());
    let begun = match retries.ends_at() {
        None => beginning.await,
        Some(end) => match tokio::time::timeout_at(end, beginning).await {
            Ok(begun) => begun,
            Err(_) => {
                forwarding.report(&endpoint, Seen::Timeout);
                return Tried::Failed(retries.timed_out(), nothing_sent);
            }
        },
    };
    let mut call = match begun {
        Ok(call) => call,
        Err(fault) => {
            if let Some(seen) = Seen::of(&fault) {
                forwarding.report(&endpoint, seen);
            }
            return Tried::Failed(fault, nothing_sent);
        }
    };
    scratch.record.upstream_peer = call.peer().cloned();
    let replay = scratch.progress.replay.bytes();
    if !replay.is_empty() {
        call.side().send_bytes(replay);
    }
    if scratch.progress.request_ended && forwarding.follows != Follows::Nothing && call.side().finish(None).is_err() {
        return Tried::Failed(Fault::new(FaultKind::Internal), nothing_sent);
    }
    let asked = Asked { method: scratch.request.method(), switch: forwarding.switch };
    let Scratch { response, progress, record, .. } = scratch;
    let mut patience = Patience::new(&forwarding.routed.http.settings.limits, record.started);
    let waited = until_response(down, &mut call, response, asked, progress, &mut patience, |_| {
        record.request_complete(Instant::now());
        retries.deadline()
    })
    .await;
    let sent =
        Sent { bytes: call.has_sent(), replayable: scratch.progress.replay.is_possible(), reused: call.is_reused() };
    match waited {
        Waited::Started(started) => {
            scratch.record.response_began(Instant::now());
            forwarding.report(&endpoint, Seen::Status(scratch.response.status()));
            let by_mesh = call.peer().is_some_and(|peer| peer.is_workload());
            if let Some(pause) = retries.after_response(forwarding, &scratch.response, sent, by_mesh) {
                return Tried::Again(pause);
            }
            Tried::Started(Box::new(call), started, endpoint)
        }
        Waited::Upstream(broken) => {
            let fault = upstream_fault(&broken, call.is_reused(), false);
            if fault.kind != FaultKind::ReusedClosed {
                forwarding.report(&endpoint, Seen::Reset);
            }
            Tried::Failed(fault, sent)
        }
        Waited::TimedOut => {
            forwarding.report(&endpoint, Seen::Timeout);
            Tried::Failed(retries.timed_out(), sent)
        }
        Waited::Impatient(Impatient::Request) => Tried::Stop(Fault::new(FaultKind::RequestTimeout).into()),
        Waited::Impatient(Impatient::Idle) => Tried::Stop(Fault::new(FaultKind::RequestIdle).into()),
        Waited::Request(broken) | Waited::Gone(broken) => Tried::Stop(client_stop(&broken)),
    }
}

/// A client whose message is malformed is told so; one that is gone is not.
fn client_stop(broken: &Broken) -> Stop {
    let fault = downstream_fault(broken);
    match broken {
        Broken::Message(_) => fault.into(),
        Broken::Closed | Broken::Io(_) | Broken::Reset(_) | Broken::Refused | Broken::Protocol(_) => Stop::Gone(fault),
    }
}

impl Forwarding<'_> {
    fn report(&self, endpoint: &Endpoint, seen: Seen) {
        crate::tcp::report(&self.cluster, endpoint, seen);
    }

    /// Looks at the cluster as configuration has it now; one that is gone is used to the end.
    fn refresh(&mut self) {
        let live = self.worker.live();
        if let Some(now) = live.plan.cluster(&self.cluster.settings.name)
            && !Arc::ptr_eq(now, &self.cluster)
        {
            self.cluster = Arc::clone(now);
        }
    }

    /// For a request that every application tried has refused: whether there is an endpoint that was not tried, or comes
    /// within a moment. In a rollout an application may be gone before its successor is known here.
    async fn finds_another(&mut self, retries: &Retries, tried: &[EndpointId]) -> bool {
        if !retries.wants_another(tried.len()) {
            return false;
        }
        let moment = Instant::now() + ENDPOINT_WAIT;
        let deadline = retries.ends_at().map_or(moment, |end| end.min(moment));
        let mut states = self.worker.shared.store.subscribe();
        loop {
            // The worker's own task may be behind, and what came before we looked is never told again.
            let live = Arc::clone(&states.borrow_and_update());
            self.worker.catch_up(&live);
            drop(live);
            self.refresh();
            let usable = |endpoint: &&Arc<Endpoint>| endpoint.health == Health::Healthy;
            if self.cluster.all().iter().filter(usable).any(|endpoint| !tried.contains(&endpoint.id())) {
                return true;
            }
            if !matches!(tokio::time::timeout_at(deadline, states.changed()).await, Ok(Ok(()))) {
                return false;
            }
        }
    }

    /// What header formats may name.
    #[must_use]
    pub fn context<'a>(&'a self, upstream: Option<SocketAddr>) -> Context<'a> {
        Context {
            facts: RequestFacts { conn: &self.connection.facts, client: self.client },
            route: &self.routed.route.name,
            cluster: &self.cluster.settings.name,
            upstream,
            start_time: self.start_time,
        }
    }

    fn protocol(&self, version: Version) -> Protocol {
        match self.cluster.settings.protocol {
            UpstreamProtocol::Http1 => Protocol::Http1,
            UpstreamProtocol::Http2 if self.switch == Switch::None => Protocol::Http2,
            UpstreamProtocol::Downstream if version == Version::Http2 => Protocol::Http2,
            UpstreamProtocol::Http2 | UpstreamProtocol::Downstream => Protocol::Http1,
        }
    }
}

/// Takes or opens a connection to `endpoint` and sends the request's head.
async fn begin(
    forwarding: &Forwarding<'_>,
    scratch: &mut Scratch,
    endpoint: &Arc<Endpoint>,
    fresh: bool,
) -> Result<Call, Fault> {
    let worker = forwarding.worker;
    let settings = &forwarding.cluster.settings;
    let protocol = forwarding.protocol(scratch.request.version());
    let live = worker.live();
    let key = worker
        .upstreams
        .key(settings, endpoint, protocol, scratch.request.host_lower(), &worker.shared.tls, &*live)
        .map_err(|error| Fault::new(FaultKind::UpstreamTlsFailed).with_detail(error.to_string()))?
        .in_name_of(forwarding.connection.facts.source.ip(), worker.shared.client_mark);
    drop(live);
    if protocol == Protocol::Http1 {
        let pooled = take_h1(forwarding, &key, endpoint, scratch.request.method(), fresh).await?;
        scratch.record.upstream_local = pooled.local;
        return Ok(Call::begin_h1(pooled, key, &scratch.request, forwarding.follows, forwarding.switch));
    }
    let limits = H2Limits {
        streams: settings.http.max_concurrent_streams,
        requests: settings.http.max_requests_per_connection,
        idle: settings.http.idle_timeout,
    };
    let slot = worker
        .upstreams
        .h2
        .slot(&key, endpoint, limits, || open(forwarding, &key))
        .await
        .map_err(Opening::into_fault)?;
    let scheme = if key.tls.is_some() { "https" } else { "http" };
    let ended = forwarding.follows == Follows::Nothing;
    let call =
        slot.send(&scratch.request, scheme, ended).await.map_err(|broken| upstream_fault(&broken, false, false))?;
    Ok(Call::H2 { slot, call })
}

async fn take_h1(
    forwarding: &Forwarding<'_>,
    key: &Rc<PoolKey>,
    endpoint: &Endpoint,
    method: Method,
    fresh: bool,
) -> Result<Pooled, Fault> {
    let worker = forwarding.worker;
    // A request that must not run twice is lost where the connection turns out to be closed: a look at the kernel's state,
    // a system call, leaves next to no time for that.
    let careful = !is_idempotent(method);
    while !fresh && let Some(pooled) = worker.upstreams.h1.take(key, Instant::now()) {
        if careful && pooled.wire.stream().is_closed_now() {
            continue;
        }
        worker.telemetry.pool_reused();
        return Ok(pooled);
    }
    let (connected, permit) = open(forwarding, key).await.map_err(Opening::into_fault)?;
    let Connected { stream, peer } = connected;
    let now = Instant::now();
    let local = stream.addresses().map(|(local, _)| local);
    let wire = super::h1::Wire::new(stream, super::serve::response_limits(), crate::buffers::ByteQueue::default());
    let endpoint = endpoint.watch();
    Ok(Pooled { wire, peer, local, requests: 0, opened: now, rested: now, expires: None, permit, endpoint })
}

/// Why a connection could not be had.
enum Opening {
    Connect(ConnectError),
    Http2(Broken),
    Overflow,
}

impl From<ConnectError> for Opening {
    fn from(error: ConnectError) -> Self {
        Self::Connect(error)
    }
}

impl From<Broken> for Opening {
    fn from(broken: Broken) -> Self {
        Self::Http2(broken)
    }
}

impl Opening {
    fn into_fault(self) -> Fault {
        match self {
            Self::Connect(error) => fault_of(&error),
            Self::Http2(broken) => upstream_fault(&broken, false, false),
            Self::Overflow => Fault::new(FaultKind::UpstreamOverflow),
        }
    }
}

async fn open(forwarding: &Forwarding<'_>, key: &PoolKey) -> Result<(Connected, Option<Permit>), Opening> {
    let settings: &Cluster = &forwarding.cluster.settings;
    let circuit = &forwarding.cluster.state.circuit;
    let _pending = circuit.pending(&settings.limits).ok_or(Opening::Overflow)?;
    let permit = circuit.connection(&settings.limits).ok_or(Opening::Overflow)?;
    let shared = &forwarding.worker.shared;
    let options = ConnectOptions::of(settings, shared.socket_mark).with_client_mark(shared.client_mark);
    let connected = connect(key, options).await;
    forwarding.worker.telemetry.connected(&settings.name, connected.is_ok());
    Ok((connected?, Some(permit)))
}

/// Delivers a response that has begun.
async fn deliver(
    forwarding: &Forwarding<'_>,
    retries: &mut Retries,
    scratch: &mut Scratch,
    down: &mut Downstream<'_>,
    mut call: Call,
    started: Started,
    endpoint: Arc<Endpoint>,
) -> Result<Delivered, Stop> {
    let _in_flight = InFlight::new(Arc::clone(&endpoint));
    scratch.record.status = scratch.response.status();
    scratch.record.details = "via_upstream".into();
    prepare::client_response(forwarding, scratch, endpoint.address, started.switched)?;
    if started.switched {
        send_switch(scratch, down).await.map_err(|broken| client_stop(&broken))?;
        return Ok(Delivered::Switched(Box::new(call)));
    }
    let method = scratch.request.method();
    down.send_head(&scratch.response, method, started.follows)
        .map_err(|broken| Stop::Gone(downstream_fault(&broken)))?;
    let Scratch { progress, record, .. } = scratch;
    let mut patience = Patience::new(&forwarding.routed.http.settings.limits, record.started);
    let ended = until_end(down, &mut call, progress, &mut patience, |_| {
        record.request_complete(Instant::now());
        retries.body_deadline()
    })
    .await;
    match ended {
        Ended::Complete => {
            scratch.record.grpc_status =
                scratch.progress.grpc_status.or_else(|| super::transfer::grpc_status(&scratch.response));
            rest(forwarding, scratch, call);
            Ok(Delivered::Complete)
        }
        Ended::Upstream(broken) => {
            forwarding.report(&endpoint, Seen::Reset);
            Err(Stop::Cut(upstream_fault(&broken, false, true)))
        }
        Ended::TimedOut => {
            forwarding.report(&endpoint, Seen::Timeout);
            Err(Stop::Cut(Fault::new(FaultKind::ResponseTimeout)))
        }
        Ended::Impatient(Impatient::Request) => Err(Stop::Cut(Fault::new(FaultKind::RequestTimeout))),
        Ended::Impatient(Impatient::Idle) => Err(Stop::Cut(Fault::new(FaultKind::ResponseIdle))),
        Ended::Downstream(broken) => {
            let mut side = call.side();
            if let super::pump::Side::H2(stream) = &mut side {
                stream.reset(super::h2::ResetCause::Cancel);
            }
            Err(Stop::Gone(downstream_fault(&broken)))
        }
    }
}

async fn send_switch(scratch: &Scratch, down: &mut Downstream<'_>) -> Result<(), Broken> {
    if let Downstream::H1 { wire, .. } = down {
        wire.send_response(
            &scratch.response,
            mesh_proxy_core::h1::Framing::None,
            mesh_proxy_core::h1::encode::Connection::Upgrade,
        );
    }
    std::future::poll_fn(|cx| down.side().poll_flush(cx)).await
}

/// Puts the connection of a complete exchange to rest, where it can be used again.
fn rest(forwarding: &Forwarding<'_>, scratch: &Scratch, call: Call) {
    let Call::H1 { pooled, key, persistent } = call else { return };
    let http = &forwarding.cluster.settings.http;
    let now = Instant::now();
    let spent = http.max_requests_per_connection > 0 && pooled.requests >= http.max_requests_per_connection;
    let old = !http.max_connection_duration.is_zero() && pooled.opened + http.max_connection_duration <= now;
    // A connection of rotated secrets would rest where nobody looks for it.
    let current = key.tls.is_none() || forwarding.worker.live().secrets_epoch == forwarding.secrets_epoch;
    let complete = scratch.progress.request_ended && !pooled.wire.has_output() && !pooled.wire.has_input();
    if persistent && current && complete && !spent && !old {
        let announced = keep_alive_timeout(scratch.response.get(KnownName::KeepAlive));
        forwarding.worker.upstreams.h1.give(&key, pooled, http.idle_timeout, announced, now);
    }
}

/// How long the upstream says it keeps a resting connection (`Keep-Alive: timeout=N`, seconds).
fn keep_alive_timeout(value: Option<&[u8]>) -> Option<Duration> {
    let text = std::str::from_utf8(value?).ok()?;
    let seconds = text.split(',').find_map(|part| part.trim().strip_prefix("timeout="))?;
    Some(Duration::from_secs(seconds.parse().ok()?))
}
