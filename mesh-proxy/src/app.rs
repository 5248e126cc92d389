//! The composition root of `mesh-proxy proxy`: builds the parts, starts the threads, ends them in order.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use anyhow::Context as _;
use mesh_api::text::Str;
use mesh_api_rt::listen::ListenerTable;
use mesh_api_rt::signal::{Stop, StopSignals};
use mesh_api_rt::telemetry::{self, LogFormat};
use mesh_proxy_core::stats::Workload;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use crate::agent::log_levels;
use crate::agent::probe::{ProbeSettings, Probers};
use crate::agent::scrape::Targets;
use crate::agent::shutdown::{Action, CHECK, Ending, Event};
use crate::args::ProxyArgs;
use crate::bootstrap::{self, Bootstrap, Env as _, ProcessEnv};
use crate::capture::own;
use crate::config::client::{self, Control};
use crate::config::identity;
use crate::config::store::Store;
use crate::dns::settings::DnsSettings;
use crate::net::accept::{Dispatcher, Inbox};
use crate::net::sockopt;
use crate::telemetry::Hub;
use crate::telemetry::access_log::Sinks;
use crate::tls::store::TlsStore;
use crate::worker::{self, DrainPhase, LocalMetadata, Shared};
use crate::{admin, dns};

/// Time between the end of the drain and the end of the process, for connections to be closed.
const FORCE: Duration = Duration::from_secs(1);

/// Events that wait for the control loop.
const EVENTS: usize = 8;

/// Runs the proxy until it is told to stop.
///
/// # Errors
/// When settings are missing or cannot be used; what fails later is tried again instead.
pub fn run(args: &ProxyArgs) -> anyhow::Result<()> {
    let mut bootstrap = bootstrap::read(args, &ProcessEnv).context("reading the proxy's settings")?;
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
    let captured = mesh_api_rt::runtime::single().context("starting a runtime")?.block_on(own::check(&bootstrap));
    own::announce(&mut bootstrap, captured);
    let bootstrap = Arc::new(bootstrap);
    let shared = Arc::new(shared(&bootstrap));
    if let Some(captured) = captured {
        let _ = shared.store.captured.set(captured);
    }
    serve_names(&bootstrap, &shared)?;
    let sinks = Sinks::start().context("starting the access log")?;
    let hub = Hub::new(&bootstrap.node, shared.identity.clone(), sinks);
    let (dispatcher, inboxes) = Dispatcher::new(bootstrap.workers);
    let mut table = ListenerTable::from_env().context("taking over inherited sockets")?;
    let (stop, stop_asked) = mpsc::channel(EVENTS);
    let context = admin::AdminContext {
        bootstrap: Arc::clone(&bootstrap),
        shared: Arc::clone(&shared),
        hub: hub.clone(),
        logs,
        stop,
        probers: probers(&bootstrap)?,
        targets: targets(&bootstrap)?,
    };
    let _admin = admin::start(context, &mut table).context("starting the admin interface")?;
    tracing::info!(
        node = %bootstrap.node.id(), identity = %bootstrap.identity, workers = bootstrap.workers, "Proxy started"
    );
    let threads = start_workers(&shared, &hub, inboxes, table, &dispatcher)?;
    let control = mesh_api_rt::runtime::single().context("starting the control runtime")?;
    control.block_on(control_loop(&bootstrap, &shared, stop_asked, &dispatcher))?;
    // Workers end with their inboxes.
    drop(dispatcher);
    shared.drain.send_replace(DrainPhase::Now);
    wait_for(threads, FORCE);
    Ok(())
}

fn shared(bootstrap: &Bootstrap) -> Shared {
    let metadata = &bootstrap.node.metadata;
    let workload = Workload::of_node(metadata);
    Shared {
        store: Store::default(),
        tls: TlsStore::default(),
        socket_mark: bootstrap.socket_mark,
        client_mark: bootstrap.keeps_clients_address().then_some(sockopt::CLIENT_MARK),
        identity: Str::from(bootstrap.identity.to_string()),
        metadata: Arc::new(LocalMetadata::new(&bootstrap.node.id(), workload)),
        drain: watch::Sender::new(DrainPhase::Running),
        early: bootstrap.early_listeners(),
    }
}

/// Captured look-ups arrive from the start; until the first table of names they are told to come again.
fn serve_names(bootstrap: &Bootstrap, shared: &Arc<Shared>) -> anyhow::Result<()> {
    let metadata = &bootstrap.node.metadata;
    // A gateway captures nothing; it answers who is told to ask it (istio/istio: pkg/istio-agent/agent.go).
    let wanted = if bootstrap.is_gateway() { metadata.enables_dns_server() } else { metadata.dns_capture };
    if !wanted {
        return Ok(());
    }
    let resolv = Path::new("/etc/resolv.conf");
    let settings = DnsSettings::read(|name| ProcessEnv.get(name), resolv, bootstrap.socket_mark)
        .context("reading where look-ups of names are served")?;
    shared.store.names.enable(settings.place(&bootstrap.node));
    tracing::info!(addresses = ?settings.addresses, servers = ?settings.resolv.servers, "Look-ups of names are captured");
    dns::server::start(settings, Arc::clone(&shared.store.names)).context("serving look-ups of names")
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
    table: ListenerTable,
    dispatcher: &Dispatcher,
) -> anyhow::Result<Vec<thread::JoinHandle<()>>> {
    let mut first = Some((table, dispatcher.clone()));
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

/// Certificates, configuration, signals. Ends when the process is to end.
async fn control_loop(
    bootstrap: &Arc<Bootstrap>,
    shared: &Arc<Shared>,
    mut asked: mpsc::Receiver<Event>,
    dispatcher: &Dispatcher,
) -> anyhow::Result<()> {
    let (sender, credential) = watch::channel(None);
    if !bootstrap.plaintext_control_plane {
        let bootstrap = Arc::clone(bootstrap);
        tokio::spawn(async move { identity::maintain(&bootstrap, &sender).await });
    }
    let control = Control { bootstrap: Arc::clone(bootstrap), shared: Arc::clone(shared), credential };
    let mut configuration = tokio::spawn(client::run(control));
    let mut signals = StopSignals::install().context("watching for signals")?;
    let mut ending = Ending::new(bootstrap.drain);
    let mut ticks = tokio::time::interval(CHECK);
    loop {
        let action = tokio::select! {
            ended = &mut configuration => {
                return ended.context("the configuration client failed")?.context("running the configuration client");
            }
            signal = signals.recv() => {
                let event = match signal {
                    Stop::Terminate => Event::Terminate,
                    Stop::Interrupt => Event::Interrupt,
                };
                tracing::info!(%signal, connections = dispatcher.load(), settings = ?bootstrap.drain, "Told to end");
                ending.on(event, Instant::now())
            }
            Some(event) = asked.recv() => ending.on(event, Instant::now()),
            _ = ticks.tick(), if ending.is_ending() => {
                ending.check(Instant::now(), dispatcher.load()).map_or(Action::Nothing, Action::Exit)
            }
        };
        match action {
            Action::Nothing => {}
            Action::Drain => {
                advance(shared, if bootstrap.is_gateway() { DrainPhase::All } else { DrainPhase::Inbound })
            }
            Action::Exit(why) => {
                tracing::info!(%why, connections = dispatcher.load(), "Ending");
                return Ok(());
            }
        }
    }
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
