//! One accepted connection: where it was going, what it speaks, which chain takes it, who the peer is.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use mesh_api::text::Str;
use mesh_api_xds::ir::chain::{ClientCertificate, DownstreamTls};
use mesh_api_xds::ir::http::ForwardClientCert;
use mesh_api_xds::ir::listener::{Direction, OriginalDst};
use mesh_proxy_core::authz::predicate::Subject;
use mesh_proxy_core::authz::{Verdict, check_all};
use mesh_proxy_core::facts::{ConnFacts, Transport};
use mesh_proxy_core::fault::{Fault, FaultKind};
use mesh_proxy_core::plan::listener::{ChainPlan, ListenerPlan, ServePlan};
use mesh_proxy_core::trace::Silent;
use rustls::{CipherSuite, ProtocolVersion};
use tokio::net::TcpStream;

use crate::config::store::Live;
use crate::connections::{Closing, Registered};
use crate::net::accept::Accepted;
use crate::net::inspect::{Found, Inspected, inspect};
use crate::net::io::Io;
use crate::net::orig_dst::original_dst;
use crate::net::stream::Stream;
use crate::telemetry::listeners::Listened;
use crate::tls::peer::{self, KeepCertificate};
use crate::tls::session::Session;
use crate::tls::store::Alpn;
use crate::worker::Worker;
use crate::{http, tcp};

/// Deadline of a TLS handshake where the chain sets none.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(15);

/// A connection that a chain has taken. Names, not plans: configuration is looked up anew for each request.
#[derive(Debug)]
pub struct Connection {
    /// Its place in the worker's table.
    pub entry: Registered,
    /// Counts it as open, and its requests.
    pub listened: Listened,
    /// Its number, which no other connection of this process has.
    pub id: u64,
    /// How it is secured, under the names that Envoy logs.
    pub secured: Secured,
    /// What is known of it.
    pub facts: ConnFacts,
    /// Listener whose chain took it.
    pub listener: Str,
    /// The chain.
    pub chain: Str,
    /// Side of the workload.
    pub direction: Direction,
}

impl Connection {
    /// Whether a proxy of the mesh is the client, as its certificate shows, of the workload beside this proxy.
    #[must_use]
    pub fn is_of_mesh(&self) -> bool {
        self.direction == Direction::Inbound && self.facts.peer.as_ref().is_some_and(|peer| peer.is_workload())
    }
}

/// TLS of a connection; empty in plaintext.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Secured {
    /// `TLSv1.3`.
    pub version: &'static str,
    /// `TLS_AES_128_GCM_SHA256`, `ECDHE-RSA-AES128-GCM-SHA256`.
    pub cipher: &'static str,
}

impl Secured {
    /// What was agreed on in a handshake.
    fn of(stream: &Stream) -> Self {
        let Some(session) = stream.session() else { return Self::default() };
        let (version, cipher) = session.parameters();
        Self {
            version: match version {
                Some(ProtocolVersion::TLSv1_2) => "TLSv1.2",
                Some(ProtocolVersion::TLSv1_3) => "TLSv1.3",
                _ => "",
            },
            cipher: cipher.map_or("", cipher_name),
        }
    }
}

/// OpenSSL's name of a suite, as Envoy logs it.
const fn cipher_name(suite: CipherSuite) -> &'static str {
    match suite {
        CipherSuite::TLS13_AES_128_GCM_SHA256 => "TLS_AES_128_GCM_SHA256",
        CipherSuite::TLS13_AES_256_GCM_SHA384 => "TLS_AES_256_GCM_SHA384",
        CipherSuite::TLS13_CHACHA20_POLY1305_SHA256 => "TLS_CHACHA20_POLY1305_SHA256",
        CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256 => "ECDHE-ECDSA-AES128-GCM-SHA256",
        CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384 => "ECDHE-ECDSA-AES256-GCM-SHA384",
        CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256 => "ECDHE-ECDSA-CHACHA20-POLY1305",
        CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256 => "ECDHE-RSA-AES128-GCM-SHA256",
        CipherSuite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384 => "ECDHE-RSA-AES256-GCM-SHA384",
        CipherSuite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256 => "ECDHE-RSA-CHACHA20-POLY1305",
        _ => "",
    }
}

/// The next connection's number.
fn next_id() -> u64 {
    static LAST: AtomicU64 = AtomicU64::new(0);
    LAST.fetch_add(1, Relaxed) + 1
}

/// Why a connection was not served.
#[derive(Debug)]
struct Refused {
    fault: Fault,
}

impl From<FaultKind> for Refused {
    fn from(kind: FaultKind) -> Self {
        Self { fault: Fault::new(kind) }
    }
}

impl From<Fault> for Refused {
    fn from(fault: Fault) -> Self {
        Self { fault }
    }
}

/// Serves an accepted connection to its end.
pub async fn serve(worker: Rc<Worker>, accepted: Accepted) {
    let listener = accepted.listener.clone();
    worker.telemetry.accepted();
    if let Err(refused) = admit(&worker, accepted).await {
        worker.telemetry.connection_refused(&listener, &refused.fault);
        tracing::debug!(
            listener = %listener, code = %refused.fault.code(), detail = refused.fault.detail.as_deref(), "Connection refused"
        );
    }
}

async fn admit(worker: &Rc<Worker>, accepted: Accepted) -> Result<(), Refused> {
    let not_ready = || Refused::from(FaultKind::NotReady);
    if !Box::pin(worker.wait_for_configuration()).await {
        return Err(not_ready());
    }
    let live = worker.live();
    let own = live.plan.listener(&accepted.listener).ok_or_else(not_ready)?;
    let (peer_address, local) = addresses(&accepted)?;
    let (destination, listener) = destination(&live, own, &accepted, local)?;
    let (direction, name, what) = (listener.direction, listener.name.clone(), listener.inspect.clone());
    let listened = worker.telemetry.listened(&name);
    let own_name = own.name.clone();
    drop(live);

    let _ = worker.socket_options().apply(&accepted.socket);
    let tcp = TcpStream::from_std(accepted.socket).map_err(|_| Refused::from(FaultKind::Internal))?;
    let mut io = Io::Tcp(tcp);
    let entry = worker.connections.register(own_name, direction);
    if let Some(why) = worker.drains(direction) {
        entry.close(why);
    }
    let looked = {
        let inspecting = Box::pin(inspect(&mut io, &what, destination.port()));
        let closing = std::future::poll_fn(|cx| entry.poll_closing(cx, Closing::Drain));
        tokio::select! {
            inspected = inspecting => inspected,
            _ = closing => return Ok(()),
        }
    };
    let Inspected { peeked, found } = match looked {
        Ok(inspected) => inspected,
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(()),
        Err(_) => return Err(FaultKind::ClientTlsFailed.into()),
    };
    let mut facts = facts_of(peer_address, destination, &found);
    facts.local_identity = Some(worker.shared.identity.clone());

    let live = worker.live();
    let listener = live.plan.listener(&name).ok_or_else(not_ready)?;
    let chain = Arc::clone(listener.select(&facts).ok_or(FaultKind::NoFilterChain)?);
    drop(live);
    let stream = match &chain.tls {
        None => Stream::plain(io, peeked),
        Some(tls) => Box::pin(secure(worker, io, peeked, tls, &chain, &mut facts)).await?,
    };
    if let Verdict::Deny { policy } = check_all(&chain.authz, &Subject::Connection(&facts), &mut Silent) {
        let policy = policy.unwrap_or_else(|| Str::from("none"));
        return Err(Fault::new(FaultKind::AccessDenied).with_detail(policy).into());
    }
    let (id, secured) = (next_id(), Secured::of(&stream));
    let chain_name = chain.name.clone();
    let connection = Connection { entry, listened, id, secured, facts, listener: name, chain: chain_name, direction };
    let is_http = matches!(chain.serve, ServePlan::Http(_));
    drop(chain);
    if is_http {
        http::serve::serve(worker, connection, stream, &found).await;
    } else {
        Box::pin(tcp::serve(worker, connection, stream)).await;
    }
    Ok(())
}

fn addresses(accepted: &Accepted) -> Result<(SocketAddr, SocketAddr), Refused> {
    match (accepted.socket.peer_addr(), accepted.socket.local_addr()) {
        (Ok(peer), Ok(local)) => Ok((peer, local)),
        _ => Err(FaultKind::ClientClosed.into()),
    }
}

/// The destination before redirection, and the listener that has it.
fn destination<'a>(
    live: &'a Live,
    own: &'a Arc<ListenerPlan>,
    accepted: &Accepted,
    local: SocketAddr,
) -> Result<(SocketAddr, &'a Arc<ListenerPlan>), Refused> {
    if own.original_dst == OriginalDst::Ignore {
        return Ok((local, own));
    }
    let captured = original_dst(&accepted.socket).ok().flatten();
    let destination = captured.unwrap_or(local);
    if own.original_dst == OriginalDst::Recover {
        return Ok((destination, own));
    }
    Ok((destination, live.plan.hand_off(destination).unwrap_or(own)))
}

fn facts_of(source: SocketAddr, destination: SocketAddr, found: &Found) -> ConnFacts {
    let mut facts = ConnFacts::new(source, destination);
    if let Found::Tls(hello) = found {
        facts.transport = Transport::Tls;
        facts.server_name = hello.server_name.as_deref().map(Str::from);
        let names = hello.alpn().filter_map(|name| std::str::from_utf8(name).ok());
        facts.protocols = names.take(16).map(Str::from).collect();
    } else if let Some(name) = found.application_protocol() {
        facts.protocols.push(Str::from(String::from_utf8_lossy(name)));
    }
    facts
}

/// Terminates TLS and learns who the peer is.
async fn secure(
    worker: &Rc<Worker>,
    io: Io,
    peeked: Vec<u8>,
    tls: &Arc<DownstreamTls>,
    chain: &ChainPlan,
    facts: &mut ConnFacts,
) -> Result<Stream, Refused> {
    let failed = |detail: String| Refused::from(Fault::new(FaultKind::ClientTlsFailed).with_detail(detail));
    let live = worker.live();
    let config = worker.shared.tls.server(&*live, tls, alpn_for(tls, facts)).map_err(|error| {
        tracing::warn!(chain = %chain.name, %error, "TLS cannot be served yet");
        failed(error.to_string())
    })?;
    drop(live);
    let session = Session::server(config).map_err(|error| failed(error.to_string()))?;
    let mut stream = Stream::secured(io, session, peeked);
    let timeout = if tls.handshake_timeout.is_zero() { HANDSHAKE_TIMEOUT } else { tls.handshake_timeout };
    match tokio::time::timeout(timeout, stream.handshake()).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => return Err(failed(error.to_string())),
        Err(_) => return Err(failed("handshake took too long".to_owned())),
    }
    let session = stream.session();
    facts.transport = Transport::Tls;
    if let Some(name) = session.and_then(Session::sni) {
        facts.server_name = Some(Str::from(name));
    }
    if let ClientCertificate::Required(check) | ClientCertificate::Optional(check) = &tls.client
        && let Some(leaf) = session.and_then(Session::peer_certificates).and_then(<[_]>::first)
    {
        let keep = match &chain.serve {
            ServePlan::Http(http) => keep_certificate(http.settings.client_cert),
            ServePlan::Tcp(_) => KeepCertificate::No,
        };
        let found = peer::read(leaf, keep).map_err(|error| failed(error.to_string()))?;
        peer::check_names(&found, &check.sans).map_err(|error| failed(error.to_string()))?;
        facts.peer = Some(Arc::new(found));
    }
    Ok(stream)
}

/// A client whose protocols are all unknown here is served without one, as Envoy does: rustls alone would refuse it (RFC 7301
/// section 3.2 allows both).
fn alpn_for(tls: &DownstreamTls, facts: &ConnFacts) -> Alpn {
    let none_known = !facts.protocols.is_empty() && !tls.alpn.iter().any(|own| facts.protocols.contains(own));
    if facts.transport == Transport::Tls && none_known { Alpn::Silent } else { Alpn::Own }
}

/// Whether requests will carry the certificate itself.
const fn keep_certificate(forward: ForwardClientCert) -> KeepCertificate {
    match forward {
        ForwardClientCert::AppendForward(details) | ForwardClientCert::SanitizeSet(details) if details.cert => {
            KeepCertificate::Yes
        }
        _ => KeepCertificate::No,
    }
}
