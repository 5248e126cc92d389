//! Opaque proxying: bytes from a connection to an endpoint of a cluster.

use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use mesh_api::names::ISTIO_PEER_EXCHANGE_ALPN;
use mesh_api_xds::ir::cluster::Discovery;
use mesh_api_xds::ir::listener::{Binding, OriginalDst};
use mesh_proxy_core::endpoint::{Endpoint, EndpointId, InFlight};
use mesh_proxy_core::fault::{Fault, FaultKind};
use mesh_proxy_core::health::outlier::{self, Seen};
use mesh_proxy_core::plan::cluster::ClusterPlan;
use mesh_proxy_core::plan::listener::ServePlan;
use mesh_proxy_core::stats::Workload;
use mesh_proxy_core::stats::exchange::{Heard, hear};
use smallvec::SmallVec;
use tokio::time::{Instant, timeout};

use crate::buffers;
use crate::conn::Connection;
use crate::connections::Closing;
use crate::net::copy::{TunnelBytes, TunnelEnd, tunnel, tunnel_with_preamble};
use crate::net::stream::Stream;
use crate::telemetry::record::TcpRecord;
use crate::tls::session::Session;
use crate::upstream::connect::{ConnectOptions, Connected, connect};
use crate::upstream::fault_of;
use crate::upstream::key::Protocol;
use crate::worker::Worker;

/// Attempts to connect, each to another endpoint while there is one (Envoy's `max_connect_attempts` is 1; trying the next
/// endpoint is safe, because no byte has been sent).
const CONNECT_ATTEMPTS: usize = 3;
/// How long a client that agreed to tell who it is may take to do so. Istio's proxies tell at once, or as soon as they hear
/// our side of it.
const PREAMBLE_TIMEOUT: Duration = Duration::from_secs(10);

/// Serves a connection to its end.
pub async fn serve(worker: &Rc<Worker>, connection: Connection, mut downstream: Stream) {
    let mut record = TcpRecord::new(&connection, SystemTime::now());
    let started = Instant::now();
    let bytes = Rc::new(TunnelBytes::default());
    let end = run(worker, &connection, &mut downstream, &mut record, &bytes).await;
    if let Err(fault) = end {
        tracing::debug!(chain = %connection.chain, code = %fault.code(), detail = fault.detail.as_deref(), "Tunnel failed");
        record.fault = Some(fault);
    }
    record.duration = started.elapsed();
    record.received = bytes.sent.get();
    record.sent = bytes.received.get();
    worker.telemetry.tcp_closed(&connection, &record);
}

async fn run(
    worker: &Rc<Worker>,
    connection: &Connection,
    downstream: &mut Stream,
    record: &mut TcpRecord,
    bytes: &Rc<TunnelBytes>,
) -> Result<(), Fault> {
    let (cluster, idle) = choose(worker, connection, record)?;
    if exchanges(downstream) {
        record.peer = timeout(PREAMBLE_TIMEOUT, exchange(worker, downstream))
            .await
            .map_err(|_| Fault::new(FaultKind::ClientTlsFailed).with_detail("the peer did not tell who it is"))?
            .map_err(|error| Fault::new(FaultKind::ClientClosed).with_detail(error.to_string()))?
            .map(Arc::new);
    }
    let _request = cluster
        .state
        .circuit
        .connection(&cluster.settings.limits)
        .ok_or_else(|| Fault::new(FaultKind::UpstreamOverflow))?;
    let (connected, endpoint) = connect_any(worker, connection, &cluster, record).await?;
    record.endpoint = Some(Arc::clone(&endpoint));
    let mut upstream = connected.stream;
    record.upstream_local = upstream.addresses().map(|(local, _)| local);
    record.upstream_peer = connected.peer;
    let _in_flight = InFlight::new(Arc::clone(&endpoint));
    worker.telemetry.tcp_opened(connection, record, bytes);
    // From here on only handles are held: a tunnel may last for days.
    drop(cluster);
    let _busy = connection.entry.busy();
    let closing = std::future::poll_fn(|cx| connection.entry.poll_closing(cx, Closing::Now));
    let copying = async {
        if exchanges(&upstream) {
            let own = &worker.shared.metadata.preamble;
            tunnel_with_preamble(downstream, &mut upstream, idle, bytes, own).await
        } else {
            tunnel(downstream, &mut upstream, idle, bytes).await
        }
    };
    tokio::select! {
        end = copying => ended(end),
        _ = closing => Ok(()),
    }
}

/// Whether both sides agreed to tell each other who they are.
fn exchanges(stream: &Stream) -> bool {
    stream.session().and_then(Session::alpn) == Some(ISTIO_PEER_EXCHANGE_ALPN.as_bytes())
}

/// Tells the client who we are and hears who it is.
async fn exchange(worker: &Worker, downstream: &mut Stream) -> std::io::Result<Option<Workload>> {
    let mut sent = 0;
    let own = &worker.shared.metadata.preamble;
    std::future::poll_fn(|cx| downstream.poll_write_all(cx, own, &mut sent)).await?;
    let mut first = Vec::new();
    let peer = loop {
        match hear(&first) {
            Heard::More => {}
            Heard::Payload => break None,
            Heard::Preamble(length, peer) => {
                first.drain(..length);
                break peer;
            }
        }
        std::future::poll_fn(|cx| downstream.poll_read_ready(cx)).await?;
        let mut buffer = buffers::take();
        let read = std::future::poll_fn(|cx| downstream.poll_read_into(cx, &mut buffer)).await;
        first.extend_from_slice(&buffer);
        buffers::give(buffer);
        if read? == 0 {
            break None;
        }
    };
    downstream.put_back(first);
    Ok(peer)
}

fn ended(end: TunnelEnd) -> Result<(), Fault> {
    match end {
        TunnelEnd::Closed | TunnelEnd::Idle => Ok(()),
        TunnelEnd::Downstream(error) => Err(Fault::new(FaultKind::ClientClosed).with_detail(error.to_string())),
        TunnelEnd::Upstream(error) => Err(Fault::new(FaultKind::UpstreamClosedLate).with_detail(error.to_string())),
    }
}

/// The cluster that the chain leads to.
fn choose(
    worker: &Worker,
    connection: &Connection,
    record: &mut TcpRecord,
) -> Result<(Arc<ClusterPlan>, Option<Duration>), Fault> {
    let live = worker.live();
    let chain = live.plan.listener(&connection.listener).and_then(|listener| listener.chain(&connection.chain));
    let Some(ServePlan::Tcp(tcp)) = chain.map(|chain| &chain.serve) else {
        return Err(Fault::new(FaultKind::NoFilterChain));
    };
    record.settings = Some(Arc::clone(&tcp.settings));
    let chosen = worker.with_rng(|rng| tcp.choose(rng)).ok_or_else(|| Fault::new(FaultKind::NoCluster))?;
    let cluster = live
        .plan
        .cluster_at(chosen.slot)
        .ok_or_else(|| Fault::new(FaultKind::NoCluster).with_detail(chosen.name.clone()))?;
    record.cluster = Some(Arc::clone(&cluster.settings));
    Ok((Arc::clone(cluster), tcp.settings.idle_timeout))
}

async fn connect_any(
    worker: &Worker,
    connection: &Connection,
    cluster: &ClusterPlan,
    record: &mut TcpRecord,
) -> Result<(Connected, Arc<Endpoint>), Fault> {
    let mut tried: SmallVec<[EndpointId; CONNECT_ATTEMPTS]> = SmallVec::new();
    let mut last = Fault::new(FaultKind::NoHealthyUpstream);
    for _ in 0..CONNECT_ATTEMPTS {
        let endpoint = match pick(worker, connection, cluster, &tried) {
            Ok(endpoint) if tried.contains(&endpoint.id()) => break,
            Ok(endpoint) => endpoint,
            Err(fault) => return Err(if tried.is_empty() { fault } else { last }),
        };
        tried.push(endpoint.id());
        record.attempts += 1;
        match connect_one(worker, cluster, &endpoint, connection.facts.source.ip()).await {
            Ok(connected) => {
                report(cluster, &endpoint, Seen::Connected);
                return Ok((connected, endpoint));
            }
            Err(fault) => {
                report(cluster, &endpoint, Seen::ConnectFailed);
                last = fault;
            }
        }
    }
    Err(last)
}

/// Tells outlier detection what an endpoint did.
pub(crate) fn report(cluster: &ClusterPlan, endpoint: &Endpoint, seen: Seen) {
    if let Some(event) = outlier::report(cluster, endpoint, seen, Instant::now().into_std()) {
        tracing::info!(cluster = %cluster.settings.name, ?event, "Outlier detection");
    }
}

/// Chooses an endpoint; that of an original-destination cluster is where the connection was going.
pub(crate) fn pick(
    worker: &Worker,
    connection: &Connection,
    cluster: &ClusterPlan,
    tried: &[EndpointId],
) -> Result<Arc<Endpoint>, Fault> {
    if matches!(cluster.settings.discovery, Discovery::OriginalDst) {
        let live = worker.live();
        let took = live.plan.listener(&connection.listener);
        // A connection that was not captured was going to the listener itself: sent on there, it would go round and round.
        if took.is_some_and(|took| took.binding == Binding::Socket && took.original_dst == OriginalDst::Ignore) {
            let detail = "the connection was not captured, so that it has no destination of its own".to_owned();
            return Err(Fault::new(FaultKind::NoHealthyUpstream).with_detail(detail));
        }
        return Ok(cluster.original(connection.facts.destination));
    }
    worker
        .with_rng(|rng| cluster.pick(rng, tried, Instant::now().into_std()))
        .map_err(|why| Fault::new(FaultKind::NoHealthyUpstream).with_detail(why.to_string()))
}

async fn connect_one(
    worker: &Worker,
    cluster: &ClusterPlan,
    endpoint: &Endpoint,
    client: IpAddr,
) -> Result<Connected, Fault> {
    let live = worker.live();
    let key = worker
        .upstreams
        .key(&cluster.settings, endpoint, Protocol::Opaque, b"", &worker.shared.tls, &*live)
        .map_err(|error| Fault::new(FaultKind::UpstreamTlsFailed).with_detail(error.to_string()))?
        .in_name_of(client, worker.shared.client_mark);
    drop(live);
    let shared = &worker.shared;
    let options = ConnectOptions::of(&cluster.settings, shared.socket_mark).with_client_mark(shared.client_mark);
    let connected = connect(&key, options).await;
    worker.telemetry.connected(&cluster.settings.name, connected.is_ok());
    connected.map_err(|error| fault_of(&error))
}
