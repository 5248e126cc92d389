//! The composition root of `mesh-proxy proxy`: builds the parts, starts the threads, ends them in order.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use anyhow::Context as _;
use mesh_api::text::Str;
use mesh_api_rt::listen::ListenerTable;
use mesh_api_rt::telemetry::{self, LogFormat, LogHandle};
use mesh_proxy_core::stats::Workload;
use tokio::sync::{mpsc, watch};

use crate::admin::{self, Desk};
use crate::agent::log_levels;
use crate::agent::probe::{ProbeSettings, Probers};
use crate::agent::scrape::Targets;
use crate::args::ProxyArgs;
use crate::bootstrap::{self, Bootstrap, Env as _, ProcessEnv};
use crate::capture::own;
use crate::config::store::Store;
use crate::control::{self, Parts};
use crate::dns;
use crate::dns::server::{Held, Sockets};
use crate::dns::settings::DnsSettings;
use crate::handover::status::Status;
use crate::handover::successor::Launcher;
use crate::handover::take::{self, Taken};
use crate::handover::{door, supervise};
use crate::listeners::{self, SharedTable};
use crate::net::accept::{Dispatcher, Inbox};
use crate::net::sockopt;
use crate::telemetry::Hub;
use crate::telemetry::access_log::Sinks;
use crate::tls::store::TlsStore;
use crate::worker::{self, DrainPhase, LocalMetadata, Shared};

/// Time between the end of the drain and the end of the process, for connections to be closed.
const FORCE: Duration = Duration::from_secs(1);

/// Events that wait for the control loop.
const EVENTS: usize = 8;

/// Runs the proxy until it is told to stop.
///
/// # Errors
/// When settings are missing or cannot be used, or the running proxy does not hand over; what fails later is tried again instead.
pub fn run(args: &ProxyArgs) -> anyhow::Result<()> {
    let launcher = Launcher::of_this_process().context("finding this program")?;
    let mut bootstrap = bootstrap::read(args, &ProcessEnv).context("reading the proxy's settings")?;
    let logs = prepare(args, &bootstrap)?;
    let control = mesh_api_rt::runtime::single().context("starting the control runtime")?;
    let node_id = bootstrap.node.id();
    let mut taken = if args.take_over { control.block_on(ask(&node_id))? } else { None };
    let captured = match &taken {
        // Its ports are those that the check needs.
        Some(taken) => taken.offer.captured,
        None => control.block_on(own::check(&bootstrap)),
    };
    own::announce(&mut bootstrap, captured);
    let bootstrap = Arc::new(bootstrap);
    let phase = if taken.is_some() { DrainPhase::Waiting } else { DrainPhase::Running };
    let shared = Arc::new(shared(&bootstrap, phase));
    if let Some(captured) = captured {
        let _ = shared.store.captured.set(captured);
    }
    let handed = taken.as_mut().map(|taken| std::mem::take(&mut taken.names));
    let names = serve_names(&bootstrap, &shared, handed.unwrap_or_default())?;
    let sinks = Sinks::start().context("starting the access log")?;
    let hub = Hub::new(&bootstrap.node, shared.identity.clone(), sinks);
    let (dispatcher, inboxes) = Dispatcher::new(bootstrap.workers);
    let mut table = ListenerTable::from_env().context("using inherited sockets")?;
    if let Some(taken) = &mut taken {
        table = taken.table(&table).context("using the sockets of the running proxy")?;
    }
    let (stop, stop_asked) = mpsc::channel(EVENTS);
    let status = Arc::new(taken.as_ref().map_or_else(Status::first, |taken| Status::after(&taken.offer)));
    let context = admin::AdminContext {
        bootstrap: Arc::clone(&bootstrap),
        shared: Arc::clone(&shared),
        hub: hub.clone(),
        logs,
        stop,
        probers: probers(&bootstrap)?,
        targets: targets(&bootstrap)?,
        handover: Arc::clone(&status),
    };
    let desk = Arc::new(Desk::new(context).context("preparing the admin interface")?);
    let opened = if taken.is_some() { desk.reserve(&mut table) } else { desk.open(&mut table) };
    opened.context("starting the admin interface")?;
    let door = taken.as_mut().and_then(|taken| taken.door.take()).or_else(|| open_door(&node_id));
    if door.is_some() {
        status.set_door(door::name(&node_id));
    }
    tracing::info!(
        node = %node_id, identity = %bootstrap.identity, workers = bootstrap.workers, ?phase, "Proxy started"
    );
    let table = listeners::shared(table);
    let threads = start_workers(&shared, &hub, inboxes, &table, &dispatcher)?;
    let (status, of_control) = (Arc::clone(&status), Arc::clone(&shared));
    let parts =
        Parts { bootstrap, shared: of_control, dispatcher, desk, table, names, status: Arc::clone(&status), launcher };
    // The dispatcher goes with it: workers end with their inboxes.
    control.block_on(control::run(parts, stop_asked, taken, door))?;
    shared.drain.send_replace(DrainPhase::Now);
    wait_for(threads, FORCE);
    // Who is supervised leaves its successor to the supervisor, which adopts it.
    let parent = control::has_handed_over(status.stage()) && supervise::has_children();
    if parent && !supervise::is_supervised() {
        return Err(supervise::become_supervisor()).context("becoming the supervisor of the successor");
    }
    Ok(())
}

/// Starts the log, raises limits, and looks whether the system permits what the settings ask for.
fn prepare(args: &ProxyArgs, bootstrap: &Bootstrap) -> anyhow::Result<LogHandle> {
    let format = if args.log_as_json { LogFormat::Json } else { LogFormat::Text };
    let (levels, unknown) =
        log_levels::read(&args.log_output_level, &args.proxy_log_level, &args.proxy_component_log_level)
            .context("reading the log levels")?;
    let logs = telemetry::init(format, levels).context("starting logs")?;
    mesh_api_rt::panics::log_all();
    if !unknown.is_empty() {
        tracing::info!(names = unknown.join(","), "Log levels of components that this proxy does not have");
    }
    if let Ok(files) = mesh_api_rt::limits::raise_open_files() {
        tracing::debug!(?files, "Open file limit");
    }
    if let Some(mark) = bootstrap.socket_mark {
        sockopt::check_mark(mark).context("the loop guard of redirection by mark cannot work")?;
    }
    if bootstrap.keeps_clients_address() {
        sockopt::check_transparent().context(
            "interception mode TPROXY cannot work: the proxy needs CAP_NET_ADMIN, which istio-proxy has in a pod that is \
             injected with it (annotation sidecar.istio.io/interceptionMode); REDIRECT needs nothing",
        )?;
    }
    Ok(logs)
}

/// Asks the running proxy for its sockets. Where none runs, this one opens its own.
async fn ask(node_id: &str) -> anyhow::Result<Option<Taken>> {
    let taken = take::ask(node_id).await.context("taking over from the running proxy")?;
    match &taken {
        Some(Taken { offer, .. }) => tracing::info!(
            from = offer.process.pid, build = %offer.process.build, sockets = offer.sockets, "Sockets received, warming up"
        ),
        None => tracing::info!("No proxy to take over from is running, this one opens its own sockets"),
    }
    Ok(taken)
}

/// Where a successor will ask. A proxy without serves all the same.
fn open_door(node_id: &str) -> Option<UnixListener> {
    door::open(&door::name(node_id))
        .inspect_err(|error| tracing::warn!(%error, "The sockets of this process cannot be handed over to another"))
        .ok()
}

fn shared(bootstrap: &Bootstrap, phase: DrainPhase) -> Shared {
    let metadata = &bootstrap.node.metadata;
    let workload = Workload::of_node(metadata);
    Shared {
        store: Store::default(),
        tls: TlsStore::default(),
        socket_mark: bootstrap.socket_mark,
        client_mark: bootstrap.keeps_clients_address().then_some(sockopt::CLIENT_MARK),
        identity: Str::from(bootstrap.identity.to_string()),
        metadata: Arc::new(LocalMetadata::new(&bootstrap.node.id(), workload)),
        drain: watch::Sender::new(phase),
        inbound: Arc::default(),
        early: bootstrap.early_listeners(),
    }
}

/// Captured look-ups arrive from the start; until the first table of names they are told to come again.
fn serve_names(bootstrap: &Bootstrap, shared: &Arc<Shared>, handed: Sockets) -> anyhow::Result<Arc<Held>> {
    let metadata = &bootstrap.node.metadata;
    // A gateway captures nothing; it answers who is told to ask it (istio/istio: pkg/istio-agent/agent.go).
    let wanted = if bootstrap.is_gateway() { metadata.enables_dns_server() } else { metadata.dns_capture };
    if !wanted {
        return Ok(Arc::default());
    }
    let resolv = Path::new("/etc/resolv.conf");
    let settings = DnsSettings::read(|name| ProcessEnv.get(name), resolv, bootstrap.socket_mark)
        .context("reading where look-ups of names are served")?;
    shared.store.names.enable(settings.place(&bootstrap.node));
    tracing::info!(addresses = ?settings.addresses, servers = ?settings.resolv.servers, "Look-ups of names are captured");
    let serving = "serving look-ups of names";
    let held = Arc::new(Held::new(Sockets::open(&settings, handed).context(serving)?));
    let (names, phases) = (Arc::clone(&shared.store.names), shared.drain.subscribe());
    dns::server::start(settings, names, Arc::clone(&held), phases).context(serving)?;
    Ok(held)
}

fn probers(bootstrap: &Bootstrap) -> anyhow::Result<Probers> {
    let application = &bootstrap.application;
    let address = bootstrap.node.address;
    let localhost: IpAddr = if address.is_ipv4() { Ipv4Addr::LOCALHOST.into() } else { Ipv6Addr::LOCALHOST.into() };
    let settings = ProbeSettings {
        destination: if application.probe_localhost { localhost } else { address },
        status_port: bootstrap.status_port,
        http2: application.probe_http2,
        socket_mark: bootstrap.socket_mark,
    };
    Probers::parse(application.probers.as_deref(), settings).context("reading ISTIO_KUBE_APP_PROBERS")
}

/// A gateway's status port may be reached from outside: there only the proxy shows its metrics.
fn targets(bootstrap: &Bootstrap) -> anyhow::Result<Targets> {
    if bootstrap.is_gateway() {
        return Ok(Targets::default());
    }
    let application = &bootstrap.application;
    Targets::parse(application.metrics.as_deref(), application.scrape_targets.as_deref(), bootstrap.status_port)
        .context("reading where the application's metrics are")
}

fn start_workers(
    shared: &Arc<Shared>,
    hub: &Hub,
    inboxes: Vec<Inbox>,
    table: &SharedTable,
    dispatcher: &Dispatcher,
) -> anyhow::Result<Vec<thread::JoinHandle<()>>> {
    let mut first = Some((Arc::clone(table), dispatcher.clone()));
    let mut threads = Vec::new();
    for (id, inbox) in inboxes.into_iter().enumerate() {
        let (shared, hub, listening) = (Arc::clone(shared), hub.clone(), first.take());
        let body = move || {
            if let Err(error) = worker::run(id, &shared, hub.worker(), inbox, listening) {
                tracing::error!(worker = id, %error, "Worker not started");
            }
        };
        threads.push(thread::Builder::new().name(format!("worker-{id}")).spawn(body).context("starting a worker")?);
    }
    Ok(threads)
}

fn wait_for(threads: Vec<thread::JoinHandle<()>>, limit: Duration) {
    let (done, all) = std::sync::mpsc::sync_channel(1);
    thread::spawn(move || {
        for thread in threads {
            // A worker that panicked has logged it.
            let _ = thread.join();
        }
        let _ = done.send(());
    });
    if all.recv_timeout(limit).is_err() {
        tracing::warn!("Connections were cut at the end of the drain");
    }
}
