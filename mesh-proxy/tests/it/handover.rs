//! The two sides of a hand-over over a real unix socket, in one process.

use std::collections::BTreeMap;
use std::fs::File;
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;

use mesh_api::text::Str;
use mesh_api_rt::listen::ListenerTable;
use mesh_api_rt::metrics::{Format, Metrics};
use mesh_api_rt::telemetry::{LogFormat, build};
use mesh_proxy::admin::{AdminContext, Desk};
use mesh_proxy::agent::probe::{ProbeSettings, Probers};
use mesh_proxy::agent::scrape::Targets;
use mesh_proxy::args::{ProxyArgs, Role};
use mesh_proxy::bootstrap::{self, Bootstrap, Env};
use mesh_proxy::config::store::Store;
use mesh_proxy::dns::server::Held;
use mesh_proxy::handover::channel::Channel;
use mesh_proxy::handover::door;
use mesh_proxy::handover::give::{self, Estate};
use mesh_proxy::handover::giver::Stage;
use mesh_proxy::handover::message::{Message, ProcessInfo};
use mesh_proxy::handover::status::Status;
use mesh_proxy::handover::take::{self, TakeError, Taken};
use mesh_proxy::listeners;
use mesh_proxy::telemetry::Hub;
use mesh_proxy::telemetry::access_log::Sinks;
use mesh_proxy::tls::store::TlsStore;
use mesh_proxy::worker::{DrainPhase, LocalMetadata, Shared};
use tokio::io::AsyncWriteExt as _;
use tokio::net::UnixStream;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

/// Variables of a proxy without ports of its own.
struct Variables(BTreeMap<&'static str, String>);

impl Env for Variables {
    fn get(&self, name: &str) -> Option<String> {
        self.0.get(name).cloned()
    }

    fn all(&self) -> Vec<(String, String)> {
        self.0.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect()
    }
}

fn mk_bootstrap(name: &str) -> Bootstrap {
    let config = "{proxyAdminPort: 0, statusPort: 0, controlPlaneAuthPolicy: NONE}";
    let name = format!("{name}-{}", std::process::id());
    let variables = [("POD_NAME", name.as_str()), ("POD_NAMESPACE", "shop"), ("INSTANCE_IP", "127.0.0.1")];
    let ports = [("ENVOY_STATUS_PORT", "0"), ("ENVOY_PROMETHEUS_PORT", "0"), ("PROXY_CONFIG", config)];
    let all = variables.into_iter().chain(ports).map(|(name, value)| (name, value.to_owned()));
    bootstrap::read(&ProxyArgs::new(Role::Sidecar), &Variables(all.collect())).unwrap()
}

/// A running process with one listening socket, as far as it is concerned.
struct Running {
    node: String,
    socket: TcpListener,
    shared: Arc<Shared>,
    status: Arc<Status>,
    ending: watch::Sender<bool>,
    door: JoinHandle<std::io::Result<()>>,
    brought: mpsc::Receiver<OwnedFd>,
}

impl Running {
    fn start(name: &str) -> Self {
        let bootstrap = Arc::new(mk_bootstrap(name));
        let node = bootstrap.node.id();
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let shared = Arc::new(Shared {
            store: Store::default(),
            tls: TlsStore::default(),
            socket_mark: None,
            client_mark: None,
            identity: Str::empty(),
            metadata: Arc::new(LocalMetadata::default()),
            drain: watch::Sender::new(DrainPhase::Running),
            early: Vec::new(),
            inbound: Arc::default(),
        });
        let hub = Hub::new(&bootstrap.node, Str::empty(), Sinks::start().unwrap());
        let destination = bootstrap.node.address;
        let settings = ProbeSettings { destination, status_port: 0, http2: false, socket_mark: None };
        let status = Arc::new(Status::first());
        let context = AdminContext {
            bootstrap,
            shared: Arc::clone(&shared),
            hub,
            logs: build(LogFormat::Text, "info".parse().unwrap(), std::io::sink).1,
            stop: mpsc::channel(1).0,
            probers: Probers::parse(None, settings).unwrap(),
            targets: Targets::default(),
            handover: Arc::clone(&status),
        };
        let (programs, brought) = mpsc::channel(1);
        let table = ListenerTable::seeded([(socket.local_addr().unwrap(), socket.try_clone().unwrap())]);
        let estate = Estate {
            shared: Arc::clone(&shared),
            table: listeners::shared(table),
            names: Arc::new(Held::default()),
            desk: Arc::new(Desk::new(context).unwrap()),
            credential: watch::channel(None).1,
            status: Arc::clone(&status),
            programs,
        };
        let ending = watch::Sender::new(false);
        let door = door::open(&door::name(&node)).unwrap();
        let door = tokio::spawn(give::serve(door, estate, ending.subscribe()));
        Self { node, socket, shared, status, ending, door, brought }
    }

    async fn ask(&self) -> Taken {
        take::ask(&self.node).await.unwrap().expect("somebody at the door")
    }

    async fn knock(&self) -> UnixStream {
        UnixStream::from_std(door::knock(&door::name(&self.node)).unwrap().unwrap()).unwrap()
    }

    async fn wait_for_phase(&self, phase: DrainPhase) {
        self.shared.drain.subscribe().wait_for(|now| *now == phase).await.unwrap();
    }

    async fn wait_for_stage(&self, is: fn(Stage) -> bool) {
        self.status.stages().wait_for(|now| is(*now)).await.unwrap();
    }

    fn count(&self, outcome: &str) -> u64 {
        let mut metrics = Metrics::new();
        self.status.register(&mut metrics).unwrap();
        let text = metrics.encode(Format::Prometheus).unwrap();
        let start = format!("mesh_proxy_handovers_total{{outcome=\"{outcome}\"}} ");
        text.lines().find_map(|line| line.strip_prefix(&start)).unwrap().parse().unwrap()
    }
}

const fn is_serving(stage: Stage) -> bool {
    matches!(stage, Stage::Serving)
}

const fn is_warming(stage: Stage) -> bool {
    matches!(stage, Stage::Warming { .. })
}

/// The next message and how many descriptors came with it.
async fn next(channel: &mut Channel) -> (Message, usize) {
    let (message, descriptors) = channel.receive().await.unwrap().expect("a message");
    (message, descriptors.len())
}

#[tokio::test]
async fn sockets_change_hands_and_what_waits_in_them() {
    let running = Running::start("whole");
    let address = running.socket.local_addr().unwrap();
    let _waiting = TcpStream::connect(address).unwrap();
    let mut taken = running.ask().await;
    assert_eq!((taken.offer.generation, taken.offer.process.pid), (0, std::process::id()));
    let mut table = taken.table(&ListenerTable::new()).unwrap();
    assert_eq!(table.unclaimed().collect::<Vec<_>>(), [address]);
    assert!(taken.door.is_some());
    let served = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let serves = Arc::clone(&served);
    let serve = move || serves.store(true, std::sync::atomic::Ordering::SeqCst);
    taken.finish(std::future::ready(()), serve).await.unwrap();
    assert!(served.load(std::sync::atomic::Ordering::SeqCst));
    running.wait_for_phase(DrainPhase::HandedOver).await;
    let socket = tokio::net::TcpListener::from_std(table.listen(address).unwrap()).unwrap();
    socket.accept().await.unwrap();
}

#[tokio::test]
async fn the_old_process_accepts_until_the_new_one_is_ready() {
    let running = Running::start("warming");
    let taken = running.ask().await;
    running.wait_for_stage(is_warming).await;
    assert_eq!(*running.shared.drain.borrow(), DrainPhase::Running);
    // Not ready, and gone: the other goes on, and the next may ask.
    drop(taken);
    running.wait_for_stage(is_serving).await;
    assert_eq!((running.count("failed"), *running.shared.drain.borrow()), (1, DrainPhase::Running));
    running.ask().await.finish(std::future::ready(()), || {}).await.unwrap();
    running.wait_for_phase(DrainPhase::HandedOver).await;
}

#[tokio::test]
async fn garbage_changes_nothing() {
    let running = Running::start("garbage");
    for bytes in [&b"GET / HTTP/1.1\r\n\r\n"[..], b"\0\0\0\x02{}", b""] {
        let mut stream = running.knock().await;
        stream.write_all(bytes).await.unwrap();
        stream.shutdown().await.unwrap();
        assert!(Channel::new(stream).receive().await.unwrap().is_none(), "{bytes:?}");
    }
    // In the middle of it, too.
    let mut stream = running.knock().await;
    let ask = Message::Ask { oldest: 1, newest: 1, process: ProcessInfo::this() };
    stream.write_all(&ask.encode().unwrap()).await.unwrap();
    running.wait_for_stage(is_warming).await;
    stream.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    running.wait_for_stage(is_serving).await;
    assert_eq!(*running.shared.drain.borrow(), DrainPhase::Running);
    running.ask().await;
}

#[tokio::test]
async fn another_version_is_told_so() {
    let running = Running::start("version");
    let mut channel = Channel::new(running.knock().await);
    channel.send(&Message::Ask { oldest: 2, newest: 3, process: ProcessInfo::this() }, &[]).await.unwrap();
    let (Message::Refuse { reason }, 0) = next(&mut channel).await else { panic!("it was not refused") };
    assert!(reason.contains("versions 2 to 3"), "{reason}");
    assert!(channel.receive().await.unwrap().is_none());
    assert_eq!(running.count("refused"), 1);
}

#[tokio::test]
async fn a_death_on_probation_is_taken_back() {
    let running = Running::start("probation");
    let mut channel = Channel::new(running.knock().await);
    channel.send(&Message::Ask { oldest: 1, newest: 1, process: ProcessInfo::this() }, &[]).await.unwrap();
    assert!(matches!(next(&mut channel).await, (Message::Offer(offer), 0) if offer.sockets == 2));
    assert!(matches!(next(&mut channel).await, (Message::Sockets { sockets }, 2) if sockets.len() == 2));
    channel.send(&Message::Ready, &[]).await.unwrap();
    assert_eq!(next(&mut channel).await, (Message::Go, 0));
    assert_eq!(*running.shared.drain.borrow(), DrainPhase::Running);
    channel.send(&Message::Active, &[]).await.unwrap();
    running.wait_for_phase(DrainPhase::HandedOver).await;
    drop(channel);
    running.wait_for_phase(DrainPhase::Running).await;
    running.wait_for_stage(is_serving).await;
    assert_eq!(running.count("resumed"), 1);
    // Its sockets are whole.
    assert_eq!(running.ask().await.listeners.len(), 1);
}

#[tokio::test]
async fn a_process_that_is_told_to_end_takes_its_offer_back() {
    let running = Running::start("ending");
    let taken = running.ask().await;
    running.ending.send_replace(true);
    let error = taken.finish(std::future::pending(), || panic!("it serves")).await.unwrap_err();
    assert!(matches!(&error, TakeError::Aborted(reason) if reason.contains("told to end")), "{error:?}");
    assert!(matches!(take::ask(&running.node).await, Err(TakeError::Refused(_))));
}

#[tokio::test]
async fn a_process_whose_predecessor_died_serves_alone() {
    let running = Running::start("alone");
    let address = running.socket.local_addr().unwrap();
    let mut taken = running.ask().await;
    let mut table = taken.table(&ListenerTable::new()).unwrap();
    let Running { socket, door, .. } = running;
    door.abort();
    drop(socket);
    assert!(door.await.unwrap_err().is_cancelled());
    // Nobody accepts, and nothing is refused.
    let _waiting = TcpStream::connect(address).unwrap();
    taken.finish(tokio::task::yield_now(), || {}).await.unwrap();
    tokio::net::TcpListener::from_std(table.listen(address).unwrap()).unwrap().accept().await.unwrap();
}

#[tokio::test]
async fn where_nobody_runs_nobody_answers() {
    assert!(take::ask(&mk_bootstrap("nobody").node.id()).await.unwrap().is_none());
}

#[tokio::test]
async fn a_program_is_brought_and_who_serves_is_told() {
    let mut running = Running::start("brought");
    let own = File::open("/proc/self/exe").unwrap();
    let mut channel = Channel::new(running.knock().await);
    channel.send(&Message::Bring { process: ProcessInfo::this() }, &[own.as_fd()]).await.unwrap();
    assert_eq!(next(&mut channel).await, (Message::Started, 0));
    let program = File::from(running.brought.recv().await.unwrap());
    assert_eq!(program.metadata().unwrap().len(), own.metadata().unwrap().len());
    let mut channel = Channel::new(running.knock().await);
    channel.send(&Message::Who, &[]).await.unwrap();
    let process = ProcessInfo::this();
    assert_eq!(next(&mut channel).await, (Message::Here { generation: 0, process, replaced_soon: true }, 0));
    // Not when it ends.
    running.ending.send_replace(true);
    running.status.set_replaced_soon(false);
    let mut channel = Channel::new(running.knock().await);
    channel.send(&Message::Bring { process: ProcessInfo::this() }, &[own.as_fd()]).await.unwrap();
    let answer = next(&mut channel).await;
    assert!(matches!(&answer, (Message::Refuse { reason }, 0) if reason.contains("told to end")), "{answer:?}");
}
