//! One worker: a thread with its own runtime, connections, pools and buffers.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use mesh_api::text::Str;
use mesh_api_xds::ir::listener::Direction;
use mesh_proxy_core::health::outlier;
use mesh_proxy_core::stats::{Workload, exchange};
use rand::SeedableRng as _;
use rand::rngs::SmallRng;
use tokio::sync::watch;
use tokio::task::LocalSet;
use tokio::time::{Instant, MissedTickBehavior};

use crate::config::store::{Live, Store};
use crate::conn;
use crate::connections::{Closing, Connections, Inbound};
use crate::http::exchange::Scratch;
use crate::listeners::{self, SharedTable};
use crate::net::accept::{Dispatcher, Inbox, Load};
use crate::net::sockopt::SocketOptions;
use crate::telemetry::{Sample, Telemetry};
use crate::tls::store::TlsStore;
use crate::upstream::state::Upstreams;

/// How often a worker looks at its connections and pools.
const SWEEP: Duration = Duration::from_secs(1);

/// Connections of one worker that wait for the first configuration; more are refused.
const MOST_PARKED: usize = 1024;

/// How long they wait. Longer than a control plane takes to restart; most clients have given up by then.
const LONGEST_PARKED: Duration = Duration::from_secs(60);

/// How long a connection rests before it is closed, once another process has taken over: above the pause between two requests
/// of a client that is at work, and what servers commonly allow.
const RESTED: Duration = Duration::from_secs(60);

/// Scratch areas of requests kept for reuse.
const KEPT_SCRATCH: usize = 64;

/// What all workers share. Read-only, or made of atomics.
#[derive(Debug)]
pub struct Shared {
    /// Configuration.
    pub store: Store,
    /// TLS configurations.
    pub tls: TlsStore,
    /// Mark of the proxy's own connections.
    pub socket_mark: Option<u32>,
    /// TPROXY mode: mark of connections to the workload that have their client's address.
    pub client_mark: Option<u32>,
    /// Our SPIFFE URI.
    pub identity: Str,
    /// What peers are told about this workload.
    pub metadata: Arc<LocalMetadata>,
    /// How far the process has come with stopping.
    pub drain: watch::Sender<DrainPhase>,
    /// Inbound connections of all workers.
    pub inbound: Arc<Inbound>,
    /// Listeners that are opened before there is configuration: connections to them wait for it.
    pub early: Vec<(Str, SocketAddr)>,
}

/// What this proxy tells its peers.
#[derive(Debug)]
pub struct LocalMetadata {
    /// Node id, for `x-envoy-peer-metadata-id`.
    pub id: Vec<u8>,
    /// Encoded metadata, for `x-envoy-peer-metadata`.
    pub encoded: Vec<u8>,
    /// Both, for peers on TCP connections.
    pub preamble: Vec<u8>,
    /// The same, for our own labels.
    pub workload: Workload,
}

impl LocalMetadata {
    /// What a proxy with this node id tells of its workload.
    #[must_use]
    pub fn new(id: &str, workload: Workload) -> Self {
        let (encoded, preamble) = (workload.to_header().into_bytes(), exchange::preamble(id, &workload));
        Self { id: id.as_bytes().to_vec(), encoded, preamble, workload }
    }
}

impl Default for LocalMetadata {
    fn default() -> Self {
        Self::new("", Workload::default())
    }
}

/// How far stopping has come. It only moves forward, but for a hand-over that is taken back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum DrainPhase {
    /// Not serving yet: another process does, with the same sockets.
    Waiting,
    /// Serving.
    #[default]
    Running,
    /// Inbound connections end after their next request; new ones are served once. Outbound goes on.
    Inbound,
    /// Inbound connections end now if they rest, and no more are accepted. Outbound goes on.
    InboundClosed,
    /// All connections end after their next request; new ones are served once.
    All,
    /// Another process accepts on the sockets. All connections end after their next request, or when they have rested for long.
    HandedOver,
    /// All connections end now if they rest, and no more are accepted.
    Closed,
    /// All connections end now.
    Now,
}

impl DrainPhase {
    /// Whether connections of this direction are still accepted.
    #[must_use]
    pub fn accepts(self, direction: Direction) -> bool {
        match self {
            Self::Running | Self::Inbound | Self::All => true,
            Self::InboundClosed => direction == Direction::Outbound,
            Self::Waiting | Self::HandedOver | Self::Closed | Self::Now => false,
        }
    }

    /// What connections of this direction are asked to do.
    #[must_use]
    pub fn closing(self, direction: Direction) -> Option<Closing> {
        match self {
            Self::Waiting | Self::Running => None,
            Self::Inbound => (direction == Direction::Inbound).then_some(Closing::Leave),
            Self::InboundClosed => (direction == Direction::Inbound).then_some(Closing::Drain),
            Self::All | Self::HandedOver => Some(Closing::Leave),
            Self::Closed => Some(Closing::Drain),
            Self::Now => Some(Closing::Now),
        }
    }

    /// The phase after being asked for `next`: what was closed is not opened again.
    #[must_use]
    pub fn then(self, next: Self) -> Self {
        match (self, next) {
            (Self::InboundClosed, Self::All) => Self::Closed,
            _ => self.max(next),
        }
    }
}

/// A worker's state; lives in `Rc`s on its thread.
#[derive(Debug)]
pub struct Worker {
    /// Which one.
    pub id: usize,
    /// What all share.
    pub shared: Arc<Shared>,
    /// Connections from clients.
    pub connections: Rc<Connections>,
    /// Connections to upstreams.
    pub upstreams: Upstreams,
    /// Counters.
    pub telemetry: Telemetry,
    live: RefCell<Rc<Live>>,
    rng: RefCell<SmallRng>,
    #[expect(clippy::vec_box, reason = "a scratch area moves between here and its request by pointer")]
    scratch: RefCell<Vec<Box<Scratch>>>,
    drain: Cell<DrainPhase>,
    parked: Cell<usize>,
}

impl Worker {
    /// A worker without connections.
    #[must_use]
    pub fn new(id: usize, shared: Arc<Shared>, telemetry: Telemetry) -> Self {
        let live = Rc::new(Live::clone(&shared.store.live()));
        let connections = Rc::new(Connections::counting(Arc::clone(&shared.inbound)));
        Self {
            id,
            shared,
            connections,
            upstreams: Upstreams::default(),
            telemetry,
            live: RefCell::new(live),
            rng: RefCell::new(SmallRng::from_rng(&mut rand::rng())),
            scratch: RefCell::default(),
            drain: Cell::default(),
            parked: Cell::default(),
        }
    }

    /// The configuration now. Not to be held over an idle wait.
    pub fn live(&self) -> Rc<Live> {
        Rc::clone(&self.live.borrow())
    }

    /// Waits until there is configuration. False: there is none in time, or too many wait already.
    ///
    /// The application may start before its proxy has heard of the mesh: its first connections are held, not refused.
    pub async fn wait_for_configuration(&self) -> bool {
        if self.live.borrow().is_configured() {
            return true;
        }
        if self.parked.get() >= MOST_PARKED {
            return false;
        }
        self.parked.set(self.parked.get() + 1);
        self.telemetry.parked();
        let mut states = self.shared.store.subscribe();
        let waited = tokio::time::timeout(LONGEST_PARKED, states.wait_for(|live| live.is_configured())).await;
        self.parked.set(self.parked.get().saturating_sub(1));
        let Ok(Ok(live)) = waited else { return false };
        let live = Arc::clone(&live);
        self.catch_up(&live);
        true
    }

    /// Runs `f` with the worker's random numbers.
    pub fn with_rng<T>(&self, f: impl FnOnce(&mut SmallRng) -> T) -> T {
        f(&mut self.rng.borrow_mut())
    }

    /// Socket options of accepted connections.
    #[must_use]
    pub fn socket_options(&self) -> SocketOptions {
        SocketOptions::default()
    }

    /// A scratch area for one request.
    pub fn take_scratch(&self) -> Box<Scratch> {
        self.scratch.borrow_mut().pop().unwrap_or_default()
    }

    /// Gives a scratch area back.
    pub fn give_scratch(&self, mut scratch: Box<Scratch>) {
        let mut kept = self.scratch.borrow_mut();
        if kept.len() < KEPT_SCRATCH {
            scratch.rest();
            kept.push(scratch);
        }
    }

    /// What connections of this direction are asked to do while the process stops.
    #[must_use]
    pub fn drains(&self, direction: Direction) -> Option<Closing> {
        self.drain.get().closing(direction)
    }

    /// Takes a state of configuration that the worker's own task may not have taken yet.
    pub fn catch_up(&self, live: &Live) {
        let behind = self.live.borrow().generation < live.generation;
        if behind {
            self.refresh(live);
        }
    }

    /// Takes a new state of configuration.
    fn refresh(&self, live: &Live) {
        let before = self.live.replace(Rc::new(live.clone()));
        if before.secrets_epoch != live.secrets_epoch {
            self.upstreams.forget_secured();
        }
        let plan = &live.plan;
        self.upstreams
            .retain(|settings| plan.cluster(&settings.name).is_some_and(|now| Arc::ptr_eq(&now.settings, settings)));
        self.connections.close(Closing::Drain, |entry| plan.listener(&entry.listener).is_none());
        self.telemetry.config_changed(|name| plan.cluster(name).is_some(), |name| plan.listener(name).is_some());
    }

    fn drain(&self, phase: DrainPhase) {
        self.drain.set(phase);
        for direction in [Direction::Inbound, Direction::Outbound] {
            if let Some(why) = phase.closing(direction) {
                self.connections.close(why, |entry| entry.direction == direction);
            }
        }
    }

    fn sweep(&self) {
        let now = Instant::now();
        self.connections.reap(now);
        if self.drain.get() == DrainPhase::HandedOver {
            self.connections.close_rested(now, RESTED);
        }
        self.upstreams.h1.sweep(now);
        self.upstreams.h2.sweep(now);
        self.telemetry.tick(Sample {
            connections: self.connections.len(),
            idle_http1: self.upstreams.h1.len(),
            open_http2: self.upstreams.h2.len(),
        });
        if self.id == 0 {
            self.sweep_outliers(now.into_std());
        }
    }

    /// Returns endpoints whose ejection is over; one worker does it for all.
    fn sweep_outliers(&self, now: std::time::Instant) {
        let live = self.live();
        for cluster in live.plan.clusters().filter(|cluster| outlier::interval(&***cluster).is_some()) {
            for event in outlier::sweep(&**cluster, now) {
                tracing::info!(cluster = %cluster.settings.name, ?event, "Outlier detection");
            }
        }
    }
}

/// Counts a panic of the task that holds it. The runtime catches it at the edge of the task: one connection, or one stream of
/// one, ends; everything that it held is dropped with it.
#[derive(Debug)]
pub struct PanicWatch(pub Rc<Worker>);

impl Drop for PanicWatch {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.telemetry.panicked();
        }
    }
}

/// Runs a worker until its inbox closes; the calling thread is its own. The one that gets `listening` keeps the sockets.
///
/// # Errors
/// When the runtime cannot be made.
pub fn run(
    id: usize,
    shared: &Arc<Shared>,
    telemetry: Telemetry,
    inbox: Inbox,
    listening: Option<(SharedTable, Dispatcher)>,
) -> std::io::Result<()> {
    let runtime = mesh_api_rt::runtime::single()?;
    let worker = Rc::new(Worker::new(id, Arc::clone(shared), telemetry));
    let local = LocalSet::new();
    local.spawn_local(watch_config(Rc::clone(&worker)));
    local.spawn_local(watch_drain(Rc::clone(&worker)));
    local.spawn_local(sweep(Rc::clone(&worker)));
    if let Some((table, dispatcher)) = listening {
        local.spawn_local(listeners::run(Rc::clone(&worker), table, dispatcher));
    }
    local.block_on(&runtime, serve(worker, inbox));
    Ok(())
}

async fn serve(worker: Rc<Worker>, mut inbox: Inbox) {
    let mut phases = worker.shared.drain.subscribe();
    loop {
        let accepted = tokio::select! {
            accepted = inbox.receiver.recv() => accepted,
            _ = phases.wait_for(|phase| *phase == DrainPhase::Now) => None,
        };
        let Some(accepted) = accepted else { break };
        let load = Load::of(Arc::clone(&inbox.load));
        let worker = Rc::clone(&worker);
        tokio::task::spawn_local(async move {
            let _load = load;
            let _watch = PanicWatch(Rc::clone(&worker));
            conn::serve(worker, accepted).await;
        });
    }
    // The process is stopping: connections were told to end, and get the moment that takes.
    while !worker.connections.is_empty() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn watch_config(worker: Rc<Worker>) {
    let mut states = worker.shared.store.subscribe();
    loop {
        let live = Arc::clone(&states.borrow_and_update());
        worker.refresh(&live);
        drop(live);
        if states.changed().await.is_err() {
            return;
        }
    }
}

async fn watch_drain(worker: Rc<Worker>) {
    let mut phases = worker.shared.drain.subscribe();
    loop {
        let phase = *phases.borrow_and_update();
        worker.drain(phase);
        if phases.changed().await.is_err() {
            return;
        }
    }
}

async fn sweep(worker: Rc<Worker>) {
    let mut ticks = tokio::time::interval(SWEEP);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        worker.sweep();
    }
}

#[cfg(test)]
pub(crate) mod tests;
