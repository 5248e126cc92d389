//! The thread that steers the process: certificates, configuration, signals, hand-overs. Requests never come here.

use std::future::pending;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::pin::Pin;
use std::process::ExitStatus;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, bail};
use mesh_api_rt::report::Report;
use mesh_api_rt::signal::{Stop, StopSignals};
use mesh_ca::client::Credential;
use nix::sys::signal::Signal as SystemSignal;
use tokio::process::Child;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};

use crate::admin::Desk;
use crate::agent::shutdown::{Action, CHECK, Ending, Event, Open, Why};
use crate::bootstrap::Bootstrap;
use crate::config::client::{self, Control};
use crate::config::identity;
use crate::dns::server::Held;
use crate::handover::give::{self, Estate};
use crate::handover::giver::{PROBATION, Stage};
use crate::handover::status::{Outcome, Status};
use crate::handover::successor::Launcher;
use crate::handover::supervise;
use crate::handover::take::{TakeError, Taken};
use crate::listeners::{self, SharedTable};
use crate::net::accept::Dispatcher;
use crate::worker::{DrainPhase, Shared};

/// Time for a successor to hear that this process ends.
const SETTLE: Duration = Duration::from_secs(1);

/// Time for requests that are under way when the drain is over.
const LAST_REQUESTS: Duration = Duration::from_secs(3);

/// How often it is looked whether they have ended.
const LAST_REQUESTS_CHECK: Duration = Duration::from_millis(10);

/// What is steered.
#[derive(Debug)]
pub struct Parts {
    /// Static settings.
    pub bootstrap: Arc<Bootstrap>,
    /// Configuration and the phase of the process.
    pub shared: Arc<Shared>,
    /// Knows how many connections are open.
    pub dispatcher: Dispatcher,
    /// The administrative interface.
    pub desk: Arc<Desk>,
    /// Listening sockets.
    pub table: SharedTable,
    /// Sockets of look-ups.
    pub names: Arc<Held>,
    /// How far a hand-over has come.
    pub status: Arc<Status>,
    /// How a successor is started.
    pub launcher: Launcher,
}

/// Waits for the running process's word.
type Taking = Pin<Box<dyn Future<Output = Result<(), TakeError>>>>;

/// The loop's state.
struct Steering {
    parts: Parts,
    ending: Ending,
    /// Tells the hand-over that the process was told to end.
    told: watch::Sender<bool>,
    credential: watch::Receiver<Option<Credential>>,
    /// The process does not serve yet.
    taking: Option<Taking>,
    /// Sockets that another process listened on before.
    used_before: Vec<SocketAddr>,
    door: Option<UnixListener>,
    /// Where programs come in that others bring.
    programs: mpsc::Sender<OwnedFd>,
    /// A successor that this process started.
    successor: Option<Child>,
    /// That one has left its own successor to this process.
    adopts: bool,
    /// Since when another process has its sockets.
    gone: Option<Instant>,
    configuration: Option<JoinHandle<anyhow::Result<()>>>,
    identity: Option<JoinHandle<()>>,
}

/// Runs until the process is to end. `taken` is what a running process gave, `door` where the next one asks.
///
/// # Errors
/// When the configuration client or the watch for signals fails, or this process must not serve.
pub async fn run(
    parts: Parts,
    mut asked: mpsc::Receiver<Event>,
    taken: Option<Taken>,
    door: Option<UnixListener>,
) -> anyhow::Result<()> {
    let mut signals = StopSignals::install().context("watching for signals")?;
    let mut replace = signal(SignalKind::user_defined2()).context("watching for SIGUSR2")?;
    let mut stages = parts.status.stages();
    let mut ticks = interval(CHECK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (programs, mut brought) = mpsc::channel(1);
    let mut steering = Steering::start(parts, taken, door, programs);
    loop {
        let action = tokio::select! {
            ended = ended(&mut steering.configuration) => {
                return ended.context("the configuration client failed")?.context("running the configuration client");
            }
            stop = signals.recv() => steering.on_stop(stop),
            Some(event) = asked.recv() => steering.ending.on(event, Instant::now()),
            () = hear(&mut replace) => {
                steering.replace(None);
                Action::Nothing
            }
            Some(program) = brought.recv() => {
                steering.replace(Some(&program));
                Action::Nothing
            }
            status = wait_for(&mut steering.successor) => steering.successor_ended(status)?,
            taken = outcome(&mut steering.taking) => {
                steering.taken(taken)?;
                Action::Nothing
            }
            Ok(()) = stages.changed() => {
                steering.follow(*stages.borrow_and_update());
                Action::Nothing
            }
            _ = ticks.tick(), if steering.ending.is_ending() || steering.gone.is_some() => steering.check()?,
        };
        if steering.act(action).await?.is_some() {
            return Ok(());
        }
    }
}

impl Steering {
    fn start(parts: Parts, taken: Option<Taken>, door: Option<UnixListener>, programs: mpsc::Sender<OwnedFd>) -> Self {
        let (sender, credential) = watch::channel(None);
        if let Some(known) = taken.as_ref().and_then(|taken| taken.credential(SystemTime::now())) {
            // The certificate of the process before: it proves who asks for the own one, and serves until that arrives.
            sender.send_replace(Some(known));
        }
        let identity = (!parts.bootstrap.plaintext_control_plane).then(|| {
            let bootstrap = Arc::clone(&parts.bootstrap);
            tokio::spawn(async move { identity::maintain(&bootstrap, &sender).await })
        });
        let (bootstrap, shared) = (Arc::clone(&parts.bootstrap), Arc::clone(&parts.shared));
        let control = Control { bootstrap, shared, credential: credential.clone() };
        let mut steering = Self {
            ending: Ending::new(parts.bootstrap.drain),
            told: watch::Sender::new(false),
            credential,
            taking: None,
            used_before: taken.as_ref().map_or_else(Vec::new, |taken| taken.used.clone()),
            door,
            programs,
            successor: None,
            adopts: false,
            gone: None,
            configuration: Some(tokio::spawn(client::run(control))),
            identity,
            parts,
        };
        match taken {
            Some(taken) => steering.taking = Some(steering.take(taken)),
            None => steering.open_door(),
        }
        steering
    }

    /// Serves once prepared and told to.
    fn take(&self, taken: Taken) -> Taking {
        let (desk, shared, table) =
            (Arc::clone(&self.parts.desk), Arc::clone(&self.parts.shared), Arc::clone(&self.parts.table));
        let prepared = Arc::clone(&desk);
        let prepared = async move {
            while !prepared.is_prepared() {
                sleep(CHECK).await;
            }
        };
        let serve = move || {
            if let Err(error) = desk.open(&mut listeners::lock(&table)) {
                tracing::error!(error = %Report::new(&error), "The administrative interface stays closed");
            }
            shared.drain.send_replace(DrainPhase::Running);
        };
        Box::pin(taken.finish(prepared, serve))
    }

    fn taken(&mut self, result: Result<(), TakeError>) -> anyhow::Result<()> {
        self.taking = None;
        result.context("taking over from the running proxy")?;
        self.parts.status.count(Outcome::Taken);
        tracing::info!(generation = self.parts.status.generation(), "Taken over, this process accepts connections now");
        self.open_door();
        let (table, used_before) = (Arc::clone(&self.parts.table), std::mem::take(&mut self.used_before));
        tokio::spawn(async move {
            // A listener that configuration brings a moment later finds its socket; the other process keeps it as long.
            sleep(PROBATION).await;
            let mut table = listeners::lock(&table);
            let unclaimed: Vec<_> = table.unclaimed().filter(|address| used_before.contains(address)).collect();
            for address in unclaimed {
                tracing::info!(%address, "Closed: taken over, and no listener has it");
                table.close(address);
            }
        });
        Ok(())
    }

    /// Lets the next process ask.
    fn open_door(&mut self) {
        let Some(door) = self.door.take() else { return };
        let estate = Estate {
            shared: Arc::clone(&self.parts.shared),
            table: Arc::clone(&self.parts.table),
            names: Arc::clone(&self.parts.names),
            desk: Arc::clone(&self.parts.desk),
            credential: self.credential.clone(),
            status: Arc::clone(&self.parts.status),
            programs: self.programs.clone(),
        };
        let ending = self.told.subscribe();
        tokio::spawn(async move {
            if let Err(error) = give::serve(door, estate, ending).await {
                tracing::error!(%error, "The sockets of this process cannot be handed over");
            }
        });
    }

    fn on_stop(&mut self, stop: Stop) -> Action {
        let (event, system) = match stop {
            Stop::Terminate => (Event::Terminate, SystemSignal::SIGTERM),
            Stop::Interrupt => (Event::Interrupt, SystemSignal::SIGINT),
        };
        let (connections, settings) = (self.parts.dispatcher.load(), self.parts.bootstrap.drain);
        tracing::info!(signal = %stop, connections, ?settings, "Told to end");
        if has_handed_over(self.parts.status.stage()) {
            supervise::forward(system);
        }
        self.ending.on(event, Instant::now())
    }

    /// Starts a successor, from this program's place or from what was brought, or lets the process that serves do it.
    fn replace(&mut self, brought: Option<&OwnedFd>) {
        let stage = self.parts.status.stage();
        match stage {
            _ if self.taking.is_some() => tracing::warn!("Not replaced: this process has yet to take over"),
            Stage::Serving if self.successor.is_none() => self.start_successor(brought),
            Stage::Probation { .. } | Stage::Gone if brought.is_none() => supervise::forward(SystemSignal::SIGUSR2),
            _ => tracing::warn!(?stage, "Not replaced: a successor is on its way"),
        }
    }

    fn start_successor(&mut self, brought: Option<&OwnedFd>) {
        let started = self.parts.launcher.start(brought);
        self.parts.status.set_replaced_soon(started.is_ok());
        match started {
            Ok(child) => self.successor = Some(child),
            Err(error) => {
                self.parts.status.count(Outcome::Failed);
                tracing::error!(%error, launcher = ?self.parts.launcher, "No successor started, this process goes on");
            }
        }
    }

    /// Without its successor, a process that has handed over has nothing to wait for: who started it starts it anew.
    fn successor_ended(&mut self, status: Option<ExitStatus>) -> anyhow::Result<Action> {
        let stage = self.parts.status.stage();
        self.successor = None;
        self.parts.status.set_replaced_soon(false);
        tracing::warn!(?status, ?stage, "The successor that was started has ended");
        if stage != Stage::Gone {
            return Ok(Action::Nothing);
        }
        // The next generation may have taken over from it, and is a child of this process now.
        if supervise::has_children() {
            self.adopts = true;
            return Ok(Action::Nothing);
        }
        ended_with(status.and_then(|status| status.code()).unwrap_or(1))
    }

    /// Follows a hand-over: without sockets there is no use for a control plane.
    fn follow(&mut self, stage: Stage) {
        if stage == Stage::Gone && self.gone.is_none() {
            self.gone = Some(Instant::now());
            if let Some(configuration) = self.configuration.take() {
                configuration.abort();
            }
            if let Some(identity) = self.identity.take() {
                identity.abort();
            }
        }
    }

    fn open(&self) -> Open {
        let all = self.parts.dispatcher.load();
        if self.parts.bootstrap.is_gateway() {
            // Whoever is connected is a client, and one may always come back.
            return Open { all, clients: all, inbound: 1 };
        }
        let inbound = &self.parts.shared.inbound;
        Open { all, clients: inbound.open.load(Relaxed), inbound: inbound.total.load(Relaxed) }
    }

    fn check(&mut self) -> anyhow::Result<Action> {
        if self.adopts
            && let Some(code) = supervise::adopted().context("looking after the processes that took over")?
        {
            return ended_with(code.into());
        }
        let (now, open) = (Instant::now(), self.open());
        let why = self.ending.check(now, open);
        let why = why.or_else(|| match self.gone {
            Some(_) if open.all == 0 => Some(Why::Idle),
            Some(since) if now >= since + self.parts.bootstrap.handover_drain => Some(Why::Elapsed),
            _ => None,
        });
        Ok(why.map_or(Action::Nothing, Action::Exit))
    }

    /// Does what was decided. Some: the process is to end.
    async fn act(&self, action: Action) -> anyhow::Result<Option<Why>> {
        if self.taking.is_some() && action != Action::Nothing {
            bail!("told to end before it took over; the running proxy goes on");
        }
        match action {
            Action::Nothing => {}
            Action::Drain => {
                self.told.send_replace(true);
                let gateway = self.parts.bootstrap.is_gateway();
                advance(&self.parts.shared, if gateway { DrainPhase::All } else { DrainPhase::Inbound });
            }
            Action::Exit(why) => {
                self.told.send_replace(true);
                // A successor that is not told would take this for a death, and go on alone.
                let mut stages = self.parts.status.stages();
                let settled = stages.wait_for(|stage| !matches!(stage, Stage::Warming { .. }));
                let _ = timeout(SETTLE, settled).await;
                tracing::info!(%why, connections = self.parts.dispatcher.load(), "Ending");
                if why.lets_requests_end() {
                    advance(&self.parts.shared, DrainPhase::Closed);
                    last_requests(&self.parts.dispatcher).await;
                }
                return Ok(Some(why));
            }
        }
        Ok(None)
    }
}

/// The process that took over has ended, and this one with it.
fn ended_with(code: i32) -> anyhow::Result<Action> {
    if code == 0 { Ok(Action::Exit(Why::Succeeded)) } else { bail!("the process that took over has died") }
}

/// Whether another process was told to serve.
#[must_use]
pub const fn has_handed_over(stage: Stage) -> bool {
    matches!(stage, Stage::Going { .. } | Stage::Probation { .. } | Stage::Gone)
}

/// Nothing is accepted any more, and connections that rest are told so: what is under way gets a moment to end.
async fn last_requests(dispatcher: &Dispatcher) {
    let ended = async {
        while dispatcher.load() > 0 {
            sleep(LAST_REQUESTS_CHECK).await;
        }
    };
    // What takes longer is cut.
    let _ = timeout(LAST_REQUESTS, ended).await;
}

/// Moves the drain on, never back.
fn advance(shared: &Shared, phase: DrainPhase) {
    shared.drain.send_if_modified(|now| {
        let next = now.then(phase);
        let forward = next != *now;
        if forward {
            *now = next;
            tracing::info!(phase = ?next, "Draining");
        }
        forward
    });
}

async fn hear(signal: &mut Signal) {
    if signal.recv().await.is_none() {
        pending().await
    }
}

async fn ended<T>(task: &mut Option<JoinHandle<T>>) -> Result<T, tokio::task::JoinError> {
    match task {
        Some(task) => task.await,
        None => pending().await,
    }
}

async fn wait_for(child: &mut Option<Child>) -> Option<ExitStatus> {
    match child {
        Some(child) => child.wait().await.ok(),
        None => pending().await,
    }
}

async fn outcome(taking: &mut Option<Taking>) -> Result<(), TakeError> {
    match taking {
        Some(taking) => taking.as_mut().await,
        None => pending().await,
    }
}
