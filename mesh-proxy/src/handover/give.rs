//! The running process: answers who asks for its sockets, and does what [`giver`](super::giver) decides.

use std::io;
use std::net::SocketAddr;
use std::ops::ControlFlow;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixListener as StdUnixListener;
use std::sync::Arc;
use std::time::Duration;

use mesh_api_rt::report::Report;
use mesh_ca::client::Credential;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, sleep_until};

use super::channel::{Channel, ChannelError};
use super::door::Peer;
use super::giver::{Action, Event, Giver, Refusal, Stage};
use super::message::{CredentialText, Handed, Message, Offer, ProcessInfo, Role, SOCKETS_A_MESSAGE};
use super::status::{Outcome, Status};
use super::supervise;
use crate::admin::Desk;
use crate::dns::server::Held;
use crate::listeners::{self, SharedTable};
use crate::worker::{DrainPhase, Shared};

/// Time for the first word of who connects.
const FIRST_WORD: Duration = Duration::from_secs(5);
/// Pause after somebody who may not ask, so that asking in a loop costs little.
const PAUSE: Duration = Duration::from_millis(100);

/// What is handed over, and what has to follow.
#[derive(Debug)]
pub struct Estate {
    /// The phase of the process, and what it found out.
    pub shared: Arc<Shared>,
    /// Listening sockets.
    pub table: SharedTable,
    /// Sockets of look-ups.
    pub names: Arc<Held>,
    /// The administrative interface.
    pub desk: Arc<Desk>,
    /// The workload certificate.
    pub credential: watch::Receiver<Option<Credential>>,
    /// Where it is told how far it has come.
    pub status: Arc<Status>,
    /// Where programs go that are to be started.
    pub programs: mpsc::Sender<OwnedFd>,
}

/// Answers at the door until the sockets are somebody else's. `ending` becomes true when the process was told to end.
///
/// # Errors
/// When the door cannot be watched.
pub async fn serve(door: StdUnixListener, estate: Estate, mut ending: watch::Receiver<bool>) -> io::Result<()> {
    let handle: OwnedFd = door.try_clone()?.into();
    let listener = UnixListener::from_std(door)?;
    let mut server = Server { estate, door: handle, giver: Giver::default(), before: DrainPhase::Running };
    while server.giver.stage() != Stage::Gone {
        let stream = tokio::select! {
            biased;
            () = told_to_end(&mut ending), if !server.giver.is_ending() => {
                let _ = server.giver.on(Event::Ending, Instant::now());
                continue;
            }
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::debug!(%error, "Not accepted at the door for successors");
                    sleep(PAUSE).await;
                    continue;
                }
            },
        };
        if let Some(peer) = Server::admitted(&stream) {
            server.session(peer, Channel::new(stream), &mut ending).await;
        } else {
            server.estate.status.count(Outcome::Refused);
            sleep(PAUSE).await;
        }
    }
    Ok(())
}

async fn told_to_end(ending: &mut watch::Receiver<bool>) {
    if ending.wait_for(|told| *told).await.is_err() {
        std::future::pending().await
    }
}

/// Whether the process lives on when this one ends.
fn outlives(peer: Peer) -> bool {
    let is_child = || supervise::children().iter().any(|child| child.as_raw() == peer.pid);
    peer.outlives(std::process::id(), is_child)
}

struct Server {
    estate: Estate,
    door: OwnedFd,
    giver: Giver,
    /// The phase before this process stopped accepting.
    before: DrainPhase,
}

impl Server {
    /// Who asks. Strangers are not even told why they are refused.
    fn admitted(stream: &UnixStream) -> Option<Peer> {
        let own = rustix::process::geteuid().as_raw();
        match Peer::of(stream).map(|peer| peer.admit(own).map(|()| peer)) {
            Ok(Ok(peer)) => Some(peer),
            Ok(Err(stranger)) => {
                tracing::warn!(reason = %stranger, "A process that asked for the sockets was refused");
                None
            }
            Err(error) => {
                tracing::warn!(%error, "A process that asked for the sockets cannot be told apart");
                None
            }
        }
    }

    /// One attempt, from the first word to its end.
    async fn session(&mut self, peer: Peer, mut channel: Channel, ending: &mut watch::Receiver<bool>) {
        let first_word = Instant::now() + FIRST_WORD;
        loop {
            let mut program = None;
            let event = tokio::select! {
                biased;
                () = told_to_end(ending), if !self.giver.is_ending() => Event::Ending,
                received = channel.receive() => match received {
                    Ok(Some((Message::Who, _))) if self.giver.stage() == Stage::Serving => {
                        // Who asks no longer does not need to know.
                        let _ = channel.send(&self.here(), &[]).await;
                        return;
                    }
                    Ok(Some((Message::Ask { .. }, _))) if self.giver.stage() == Stage::Serving && !outlives(peer) => {
                        let _ = self.act(Action::Refuse(Refusal::Dependent), &channel).await;
                        return;
                    }
                    Ok(Some((message, mut descriptors))) => {
                        program = descriptors.pop();
                        self.event(message)
                    }
                    Ok(None) => Event::Lost,
                    Err(error) => {
                        tracing::warn!(error = %Report::new(&error), "The process that asked for the sockets is not understood");
                        Event::Lost
                    }
                },
                () = sleep_until(self.giver.deadline().unwrap_or(first_word)) => Event::Tick,
            };
            let before = self.giver.stage();
            let action = self.giver.on(event, Instant::now());
            let flow = match (action, program) {
                (Action::Start, Some(program)) => self.start(program, &channel).await,
                (action, _) => self.act(action, &channel).await,
            };
            self.estate.status.set_stage(self.giver.stage());
            let silent = before == Stage::Serving && matches!(event, Event::Tick | Event::Lost | Event::Nonsense);
            if flow.is_break() || silent {
                return;
            }
        }
    }

    fn event(&self, message: Message) -> Event {
        match message {
            Message::Ask { oldest, newest, process } => {
                tracing::info!(pid = process.pid, build = %process.build, "A process asks for the sockets");
                self.estate.status.set_successor(process);
                Event::Asked { oldest, newest }
            }
            Message::Bring { process } => {
                tracing::info!(pid = process.pid, build = %process.build, "A process brings a program to serve here");
                Event::Brought
            }
            Message::Ready => Event::Ready,
            Message::Active => Event::Active,
            Message::Who
            | Message::Here { .. }
            | Message::Started
            | Message::Refuse { .. }
            | Message::Offer(_)
            | Message::Sockets { .. }
            | Message::Go
            | Message::Abort { .. } => Event::Nonsense,
        }
    }

    async fn act(&mut self, action: Action, channel: &Channel) -> ControlFlow<()> {
        let status = Arc::clone(&self.estate.status);
        match action {
            // Without a program there is nothing to start.
            Action::Nothing | Action::Start => {}
            Action::Refuse(refusal) => {
                status.count(Outcome::Refused);
                tracing::warn!(reason = %refusal, "A process that asked for the sockets was refused");
                // It may be gone; then nobody needs the answer.
                let _ = channel.send(&Message::Refuse { reason: refusal.to_string() }, &[]).await;
                return ControlFlow::Break(());
            }
            Action::Offer { version } => {
                if let Err(error) = self.offer(version, channel).await {
                    tracing::warn!(error = %Report::new(&error), "The sockets were not given");
                    return self.lost();
                }
            }
            Action::Go => {
                if channel.send(&Message::Go, &[]).await.is_err() {
                    return self.lost();
                }
            }
            Action::Abort(refusal) => {
                let _ = channel.send(&Message::Abort { reason: refusal.to_string() }, &[]).await;
                return self.failed(refusal);
            }
            Action::Forget => {
                status.count(Outcome::Failed);
                tracing::warn!("The process that asked for the sockets is gone, this one goes on");
                return ControlFlow::Break(());
            }
            Action::StopAccepting => self.stop_accepting().await,
            Action::Resume => {
                self.resume();
                return ControlFlow::Break(());
            }
            Action::LetGo => {
                self.let_go();
                return ControlFlow::Break(());
            }
        }
        ControlFlow::Continue(())
    }

    fn here(&self) -> Message {
        let status = &self.estate.status;
        let (generation, replaced_soon) = (status.generation(), status.is_replaced_soon());
        Message::Here { generation, process: ProcessInfo::this(), replaced_soon }
    }

    async fn start(&self, program: OwnedFd, channel: &Channel) -> ControlFlow<()> {
        let status = &self.estate.status;
        status.set_replaced_soon(true);
        let answer = match self.estate.programs.try_send(program) {
            Ok(()) => Message::Started,
            Err(_) => Message::Refuse { reason: "another program waits to be started".to_owned() },
        };
        let _ = channel.send(&answer, &[]).await;
        ControlFlow::Break(())
    }

    fn lost(&mut self) -> ControlFlow<()> {
        let _ = self.giver.on(Event::Lost, Instant::now());
        self.estate.status.count(Outcome::Failed);
        ControlFlow::Break(())
    }

    fn failed(&self, refusal: Refusal) -> ControlFlow<()> {
        self.estate.status.count(Outcome::Failed);
        tracing::warn!(reason = %refusal, "A hand-over was given up, this process goes on");
        ControlFlow::Break(())
    }

    /// Gives everything that the successor needs.
    async fn offer(&self, version: u32, channel: &Channel) -> Result<(), ChannelError> {
        let estate = &self.estate;
        let sockets = self.sockets()?;
        let credential = estate.credential.borrow().as_ref().map(|credential| CredentialText {
            chain: credential.chain_pem(),
            key: credential.key_pem().as_str().to_owned(),
            roots: credential.roots_pem(),
        });
        let offer = Offer {
            version,
            process: ProcessInfo::this(),
            generation: estate.status.generation(),
            first_started: estate.status.first_started(),
            sockets: sockets.len(),
            captured: estate.shared.store.captured.get().copied(),
            credential,
        };
        channel.send(&Message::Offer(Box::new(offer)), &[]).await?;
        for some in sockets.chunks(SOCKETS_A_MESSAGE) {
            let message = Message::Sockets { sockets: some.iter().map(|(handed, _)| *handed).collect() };
            let descriptors: Vec<_> = some.iter().map(|(_, descriptor)| descriptor.as_fd()).collect();
            channel.send(&message, &descriptors).await?;
        }
        Ok(())
    }

    /// Handles of all sockets.
    fn sockets(&self) -> io::Result<Vec<(Handed, OwnedFd)>> {
        let mut all = Vec::new();
        let mut add = |role, address: SocketAddr, descriptor: OwnedFd| all.push((Handed { role, address }, descriptor));
        let table = listeners::lock(&self.estate.table);
        for (address, socket) in table.sockets() {
            let spare = table.unclaimed().any(|unclaimed| unclaimed == address);
            add(if spare { Role::Spare } else { Role::Listener }, address, socket.try_clone_to_owned()?);
        }
        drop(table);
        let names = self.estate.names.duplicate()?;
        for (address, socket) in names.udp {
            add(Role::NamesUdp, address, socket.into());
        }
        for (address, socket) in names.tcp {
            add(Role::NamesTcp, address, socket.into());
        }
        add(Role::Door, SocketAddr::from(([0, 0, 0, 0], 0)), self.door.try_clone()?);
        Ok(all)
    }

    async fn stop_accepting(&mut self) {
        self.before = self.estate.shared.drain.send_replace(DrainPhase::HandedOver);
        let desk = Arc::clone(&self.estate.desk);
        // It waits for answers under way, which this thread must not.
        let _ = tokio::task::spawn_blocking(move || desk.close()).await;
        tracing::info!("Another process accepts connections now");
    }

    /// The successor died: its sockets are still here, and what waits in them.
    fn resume(&self) {
        let estate = &self.estate;
        estate.status.count(Outcome::Resumed);
        let phase = if self.giver.is_ending() { self.before.max(DrainPhase::All) } else { self.before };
        estate.shared.drain.send_replace(phase);
        if let Err(error) = estate.desk.open(&mut listeners::lock(&estate.table)) {
            tracing::error!(error = %Report::new(&error), "The administrative interface stays closed");
        }
        tracing::error!("The process that took the sockets died, this one accepts again");
    }

    fn let_go(&self) {
        // Also those that the successor does not want: they must not take connections that nobody accepts.
        drop(std::mem::take(&mut *listeners::lock(&self.estate.table)));
        self.estate.names.let_go();
        tracing::info!("Handed over, what is open is served to its end");
    }
}
