//! The request pipeline: one request from its head to the end of its response.
//!
//! Steps, in order: prepare the head, select a route, run the filters, forward with attempts, deliver, report. A plan is
//! held only until the upstream is chosen: a stream may last for days, its configuration must not.

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use mesh_api_xds::ir::route::RetryPolicy;
use mesh_proxy_core::facts::RequestFacts;
use mesh_proxy_core::fault::{Fault, FaultKind};
use mesh_proxy_core::filter::headers::HeaderRules;
use mesh_proxy_core::filter::{Answer, Call as FilterCall, Flow, Reply, redirect};
use mesh_proxy_core::h1::head::Switch;
use mesh_proxy_core::head::known::KnownName;
use mesh_proxy_core::head::{Head, Method};
use mesh_proxy_core::plan::Plan;
use mesh_proxy_core::plan::cluster::ClusterRef;
use mesh_proxy_core::plan::listener::{FilterPlan, HttpPlan, ServePlan};
use mesh_proxy_core::plan::route::{ActionPlan, DestinationPlan, RoutePlan};
use mesh_proxy_core::plan::routes::HostPlan;
use mesh_proxy_core::retry::requested;
use mesh_proxy_core::route::{Miss, Timeouts, select_route};
use mesh_proxy_core::trace::Silent;
use tokio::time::Instant;

use super::attempt::{self, Delivered};
use super::call::Call;
use super::downstream::Downstream;
use super::event::Broken;
use super::prepare;
use super::reply::Says;
use super::transfer::Progress;
use crate::config::store::Live;
use crate::conn::Connection;
use crate::telemetry::record::Record;
use crate::worker::Worker;

/// How long a request waits for a route table or cluster that is on its way (no mesh is without a moment of start-up).
const CONFIG_WAIT: Duration = Duration::from_millis(500);

/// Memory of one request, used again by the next.
#[derive(Debug, Default)]
pub struct Scratch {
    /// The request's head; edited on its way.
    pub request: Head,
    /// The response's head.
    pub response: Head,
    /// Progress of the bodies.
    pub progress: Progress,
    /// What is known for metrics and logs.
    pub record: Record,
}

/// Head memory that a resting scratch area keeps, bytes.
const KEPT_HEAD_BYTES: usize = 8 * 1024;

impl Scratch {
    /// Forgets the request, keeping memory for the next.
    pub fn rest(&mut self) {
        for head in [&mut self.request, &mut self.response] {
            head.clear();
            head.shrink_to(KEPT_HEAD_BYTES);
        }
        self.progress = Progress::default();
        self.record.reset();
    }
}

/// What becomes of the connection after an exchange.
#[derive(Debug)]
pub enum After {
    /// Nothing special: the next request may come.
    Next,
    /// It must be closed.
    Close,
    /// It carries another protocol from now on, to this upstream.
    Tunnel(Box<Call>),
}

/// What the rest of the pipeline needs of the plan, so that the plan itself can be let go.
#[derive(Debug)]
pub struct Routed {
    /// Settings of the chain.
    pub http: Arc<HttpPlan>,
    /// Virtual host.
    pub host: Arc<HostPlan>,
    /// The route.
    pub route: Arc<RoutePlan>,
    /// The chosen cluster, where the route forwards.
    pub cluster: Option<ClusterRef>,
    /// Retry policy.
    pub retry: Option<Arc<RetryPolicy>>,
    /// Time limits.
    pub timeouts: Timeouts,
}

impl Routed {
    /// Header edits of the chosen weighted cluster.
    #[must_use]
    pub fn choice_headers(&self) -> Option<&HeaderRules> {
        let ActionPlan::Forward(forward) = &self.route.action else { return None };
        let DestinationPlan::Weighted { choices, .. } = &forward.to else { return None };
        let chosen = self.cluster.as_ref()?;
        choices.iter().find(|choice| choice.cluster == *chosen).map(|choice| &choice.headers)
    }
}

/// Serves one request whose head is in `scratch.request`.
pub async fn run(
    worker: &Rc<Worker>,
    connection: &Connection,
    scratch: &mut Scratch,
    down: &mut Downstream<'_>,
) -> After {
    scratch.record.begin(SystemTime::now(), Instant::now(), &scratch.request);
    #[cfg(test)]
    crate::worker::tests::panic_if_asked(&scratch.request);
    let Some(http) = http_plan(&worker.live(), connection) else {
        // The chain went away: the client finds its successor on a new connection.
        down.close_after();
        return finish(worker, connection, None, scratch, down, Err(Fault::new(FaultKind::NotReady).into())).await;
    };
    let outcome = serve(worker, connection, &http, scratch, down).await;
    finish(worker, connection, Some(&http), scratch, down, outcome).await
}

/// How the pipeline ended, apart from a response that is already on its way.
#[derive(Debug)]
pub enum Stop {
    /// With an answer of our own.
    Reply(Box<Reply>),
    /// In the middle of a response: it is cut.
    Cut(Fault),
    /// The client is gone.
    Gone(Fault),
}

impl From<Fault> for Stop {
    fn from(fault: Fault) -> Self {
        Self::Reply(Box::new(Reply::Fault(fault)))
    }
}

impl From<Answer> for Stop {
    fn from(answer: Answer) -> Self {
        Self::Reply(Box::new(Reply::Answer(answer)))
    }
}

/// Reports a request that the end of a drain cut.
pub fn cut_by_drain(worker: &Worker, connection: &Connection, scratch: &mut Scratch) {
    scratch.record.fail(&Fault::new(FaultKind::LocalReset));
    scratch.record.end(Instant::now());
    let http = http_plan(&worker.live(), connection);
    worker.telemetry.http_finished(connection, http.as_ref(), scratch);
}

fn http_plan(live: &Live, connection: &Connection) -> Option<Arc<HttpPlan>> {
    let chain = live.plan.listener(&connection.listener)?.chain(&connection.chain)?;
    match &chain.serve {
        ServePlan::Http(http) => Some(Arc::clone(http)),
        ServePlan::Tcp(_) => None,
    }
}

async fn serve(
    worker: &Rc<Worker>,
    connection: &Connection,
    http: &Arc<HttpPlan>,
    scratch: &mut Scratch,
    down: &mut Downstream<'_>,
) -> Result<Delivered, Stop> {
    let client = prepare::request(worker, connection, http, &mut scratch.request, &mut scratch.record)?;
    let facts = RequestFacts { conn: &connection.facts, client };
    let routed = route(worker, http, scratch, &facts).await?;
    filters(worker, http, &routed, scratch, &facts).await?;
    match &routed.route.action {
        ActionPlan::Redirect(settings) => {
            Err(redirect::answer(settings, routed.route.matched_len(), &scratch.request).into())
        }
        ActionPlan::Direct(direct) => Err(redirect::direct(direct).into()),
        ActionPlan::Forward(_) => {
            let switch = down.switch();
            let connect = scratch.request.method() == Method::Connect;
            if connect
                || switch == Switch::Connect
                || (switch == Switch::Upgrade && !upgrade_allowed(http, &scratch.request))
            {
                return Err(Fault::new(FaultKind::UpgradeRefused).into());
            }
            attempt::forward(worker, connection, &routed, scratch, down, client).await
        }
    }
}

fn upgrade_allowed(http: &HttpPlan, head: &Head) -> bool {
    let wanted = head.get(KnownName::Upgrade).unwrap_or_default();
    http.settings.upgrades.iter().any(|allowed| wanted.eq_ignore_ascii_case(allowed.as_bytes()))
}

/// Selects the route, waiting a bounded time for a table that has not arrived.
async fn route(
    worker: &Rc<Worker>,
    http: &Arc<HttpPlan>,
    scratch: &mut Scratch,
    facts: &RequestFacts<'_>,
) -> Result<Routed, Stop> {
    let mut states = None;
    let deadline = Instant::now() + CONFIG_WAIT;
    loop {
        let live = worker.live();
        match select(worker, &live.plan, http, &scratch.request, facts) {
            Ok(routed) => {
                scratch.record.route = Some(Arc::clone(&routed.route));
                return Ok(routed);
            }
            Err(Unrouted::Stop(stop)) => return Err(stop),
            Err(Unrouted::NotYet) => {}
        }
        drop(live);
        let states = states.get_or_insert_with(|| worker.shared.store.subscribe());
        if tokio::time::timeout_at(deadline, states.changed()).await.is_err() {
            return Err(Fault::new(FaultKind::NoRouteTable).into());
        }
        // The worker's own copy follows within the same turn of its loop.
        tokio::task::yield_now().await;
    }
}

enum Unrouted {
    Stop(Stop),
    NotYet,
}

fn select(
    worker: &Worker,
    plan: &Plan,
    http: &Arc<HttpPlan>,
    head: &Head,
    facts: &RequestFacts<'_>,
) -> Result<Routed, Unrouted> {
    match worker.with_rng(|rng| select_route(plan, http, head, facts, rng, &mut Silent)) {
        Ok(selected) => Ok(Routed {
            http: Arc::clone(http),
            host: Arc::clone(selected.host),
            route: Arc::clone(selected.route),
            cluster: selected.destination.map(|destination| destination.reference.clone()),
            retry: requested::policy(selected.retry(), head),
            timeouts: selected.timeouts(head),
        }),
        Err(Miss::NotYet(_)) => Err(Unrouted::NotYet),
        Err(Miss::PlainHttp) => Err(Unrouted::Stop(redirect::to_https(head).into())),
        Err(Miss::Host | Miss::Route) => Err(Unrouted::Stop(Fault::new(FaultKind::NoRoute).into())),
    }
}

/// Runs the chain's filters on the request, in their order.
async fn filters(
    worker: &Rc<Worker>,
    http: &HttpPlan,
    routed: &Routed,
    scratch: &mut Scratch,
    facts: &RequestFacts<'_>,
) -> Result<(), Stop> {
    for filter in &http.filters {
        match filter {
            FilterPlan::PeerMetadata(side) => {
                prepare::peer_metadata(worker, *side, scratch);
            }
            FilterPlan::Authz(authz) => prepare::authorize(authz, &scratch.request, facts)?,
            FilterPlan::Cors => {
                if let Some(cors) = &routed.route.cors {
                    step(cors.on_request(&scratch.request)).await?;
                }
            }
            FilterPlan::Fault => {
                if let Some(settings) = &routed.route.fault {
                    let drawn = worker.with_rng(|rng| mesh_proxy_core::filter::fault::draw(settings, rng));
                    if drawn.pause.is_some() {
                        scratch.record.flags.insert(mesh_proxy_core::flags::ResponseFlag::DelayInjected);
                    }
                    step(drawn.first()).await?;
                    step(drawn.after_pause()).await?;
                }
            }
            // They act where the upstream connection is chosen and when the request is reported.
            FilterPlan::Alpn | FilterPlan::Stats(_) => {}
        }
    }
    Ok(())
}

async fn step(flow: Flow) -> Result<(), Stop> {
    match flow {
        Flow::Continue => Ok(()),
        Flow::Reply(reply) => Err(Stop::Reply(reply)),
        Flow::Await(FilterCall::Pause(pause)) => {
            tokio::time::sleep(pause).await;
            Ok(())
        }
        // No filter of this list asks for another route or for the body.
        Flow::Reroute | Flow::NeedBody(_) => Err(Fault::new(FaultKind::Internal).into()),
    }
}

/// Answers what was not delivered, reports, and says what becomes of the connection.
async fn finish(
    worker: &Rc<Worker>,
    connection: &Connection,
    http: Option<&Arc<HttpPlan>>,
    scratch: &mut Scratch,
    down: &mut Downstream<'_>,
    outcome: Result<Delivered, Stop>,
) -> After {
    let after = match outcome {
        Ok(Delivered::Complete) => after_complete(scratch, down),
        Ok(Delivered::Switched(call)) => After::Tunnel(call),
        Err(Stop::Reply(reply)) => {
            let says = says(connection, &reply);
            let sent = super::reply::send(http.map(|http| &**http), *reply, says, scratch, down).await;
            if sent.is_err() { After::Close } else { after_complete(scratch, down) }
        }
        Err(Stop::Cut(fault)) => {
            scratch.record.fail(&fault);
            cut(down);
            After::Close
        }
        Err(Stop::Gone(fault)) => {
            scratch.record.fail(&fault);
            cut(down);
            After::Close
        }
    };
    scratch.record.end(Instant::now());
    if !matches!(after, After::Tunnel(_)) {
        worker.telemetry.http_finished(connection, http, scratch);
    }
    after
}

/// A proxy of the mesh is told that it may send the request again; nobody else is asked to.
fn says(connection: &Connection, reply: &Reply) -> Says {
    match reply {
        Reply::Fault(fault) if fault.resend && connection.is_of_mesh() => Says::SendAgain,
        Reply::Fault(_) | Reply::Answer(_) => Says::Final,
    }
}

fn cut(down: &mut Downstream<'_>) {
    if let Downstream::H2 { stream, respond } = down {
        stream.reset(super::h2::ResetCause::Internal);
        if let Some(respond) = respond {
            respond.send_reset(::h2::Reason::INTERNAL_ERROR);
        }
    }
}

/// A connection whose request was not read to its end cannot carry another.
fn after_complete(scratch: &Scratch, down: &Downstream<'_>) -> After {
    match down {
        Downstream::H1 { close: true, .. } => After::Close,
        Downstream::H1 { wire, .. } if !scratch.progress.request_ended && !wire.is_recv_ended() => After::Close,
        Downstream::H1 { .. } | Downstream::H2 { .. } => After::Next,
    }
}

/// Whether a request is a gRPC call (`content-type: application/grpc...`).
#[must_use]
pub fn is_grpc(head: &Head) -> bool {
    let Some(kind) = head.get(KnownName::ContentType) else { return false };
    let (prefix, rest) = kind.split_at_checked(16).unwrap_or((kind, b""));
    head.method() == Method::Post
        && prefix.eq_ignore_ascii_case(b"application/grpc")
        && matches!(rest.first(), None | Some(b'+' | b';'))
}

/// The upstream's failure as a fault of the table, with what is known of its connection.
#[must_use]
pub fn upstream_fault(broken: &Broken, reused: bool, started: bool) -> Fault {
    let kind = match (broken, started) {
        (Broken::Closed | Broken::Io(_), true) => FaultKind::UpstreamClosedLate,
        (Broken::Closed | Broken::Io(_), false) if reused => FaultKind::ReusedClosed,
        (Broken::Closed | Broken::Io(_), false) => FaultKind::UpstreamClosed,
        (Broken::Reset(_), true) => FaultKind::UpstreamResetLate,
        (Broken::Reset(_), false) => FaultKind::UpstreamReset,
        (Broken::Refused, _) => FaultKind::UpstreamRefusedStream,
        (Broken::Protocol(_), true) => FaultKind::UpstreamProtocolLate,
        (Broken::Protocol(_), false) => FaultKind::UpstreamProtocol,
        (Broken::Message(error), started) => return Fault::of_response(*error, started),
    };
    let fault = Fault::new(kind);
    match broken {
        Broken::Io(error) => fault.with_detail(error.to_string()),
        Broken::Protocol(text) => fault.with_detail(text.as_str()),
        Broken::Reset(_) | Broken::Refused | Broken::Closed | Broken::Message(_) => fault,
    }
}

/// The client's failure as a fault of the table.
#[must_use]
pub fn downstream_fault(broken: &Broken) -> Fault {
    match broken {
        Broken::Closed | Broken::Io(_) => Fault::new(FaultKind::ClientClosed),
        Broken::Reset(_) | Broken::Refused => Fault::new(FaultKind::ClientReset),
        Broken::Protocol(text) => Fault::new(FaultKind::Http2Error).with_detail(text.as_str()),
        Broken::Message(error) => Fault::of_request(*error),
    }
}
