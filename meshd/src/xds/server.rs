//! The listening sockets of proxies: accept, shake hands, serve HTTP/2, end in time.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use mesh_api_rt::drain::Watcher;
use mesh_api_xds::ca_proto::CertificateServer;
use mesh_api_xds::grpc::AggregatedDiscoveryServer;
use rand::RngExt as _;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{sleep, sleep_until, timeout};
use tokio_rustls::TlsAcceptor;
use tonic::codegen::Service as _;
use tonic::server::NamedService as _;

use super::service::Discovery;
use crate::auth::Peer;
use crate::ca::service::Certificates;
use crate::metrics::{ByType, ServerMetrics};
use crate::tls::Current;

/// Most connections of one port.
const MAX_CONNECTIONS: usize = 20_000;
/// Most handshakes under way at one time: each costs a signature.
const MAX_HANDSHAKES: usize = 256;
/// Time for a handshake.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Streams of one connection. A proxy has one for discovery and a few requests for certificates; an agent in between may
/// bundle some.
const MAX_STREAMS: u32 = 256;
/// Largest header list, in bytes: room for a token of 4 KiB.
const MAX_HEADERS: u32 = 32 << 10;
/// Silence after which a connection is probed, and time for the answer. Source: istiod's keepalive defaults.
const PING_EVERY: Duration = Duration::from_secs(30);
const PING_ANSWER: Duration = Duration::from_secs(10);
/// Pause after a failed `accept`: without one a lack of descriptors would make the loop spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Time that a connection gets to finish after it was asked to end.
const GRACE: Duration = Duration::from_secs(5);

/// What every connection is served with.
#[derive(Clone)]
pub(crate) struct Services {
    /// The discovery service.
    pub(crate) discovery: AggregatedDiscoveryServer<Discovery>,
    /// The certificate service.
    pub(crate) certificates: CertificateServer<Certificates>,
}

/// One port.
pub(crate) struct Port {
    /// Its socket.
    pub(crate) listener: TcpListener,
    /// How it is encrypted; `None` is not at all.
    pub(crate) tls: Option<Current>,
    /// What is served.
    pub(crate) services: Services,
    /// How long connections live; each a little less, by chance.
    pub(crate) max_age: Duration,
    /// Where it counts.
    pub(crate) metrics: ServerMetrics,
}

impl Port {
    /// Serves until the drain begins, and then lets connections end.
    pub(crate) async fn run(self, mut drain: Watcher) {
        let permits = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        let handshakes = Arc::new(Semaphore::new(MAX_HANDSHAKES));
        let this = Arc::new(self);
        let mut connections = JoinSet::new();
        loop {
            let accepted = tokio::select! {
                () = drain.graceful() => break,
                // A panic ends one connection; the panic hook has reported it.
                Some(_ended) = connections.join_next() => continue,
                accepted = async {
                    let permit = Arc::clone(&permits).acquire_owned().await;
                    this.listener.accept().await.map(|(stream, address)| (stream, address, permit))
                } => accepted,
            };
            match accepted {
                Ok((stream, address, permit)) => {
                    let (this, drain, handshakes) = (Arc::clone(&this), drain.clone(), Arc::clone(&handshakes));
                    connections.spawn(async move {
                        this.connection(stream, address, &handshakes, drain).await;
                        drop(permit);
                    });
                }
                Err(error) => {
                    this.failed("accept");
                    tracing::warn!(%error, "Connection not accepted");
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
        while connections.join_next().await.is_some() {}
    }

    async fn connection(&self, stream: TcpStream, address: SocketAddr, handshakes: &Semaphore, drain: Watcher) {
        // Small messages both ways: neither side gains from waiting for more.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(peer = %address, %error, "Option TCP_NODELAY not set");
        }
        let ends = self.end_of_connection();
        let kind = ByType { r#type: if self.tls.is_some() { "tls" } else { "plaintext" } };
        let gauge = self.metrics.connections.get_or_create(&kind).clone();
        gauge.inc();
        match &self.tls {
            None => {
                let peer = Peer { address, secure: false, certificate: None, ends };
                self.serve(stream, peer, drain).await;
            }
            Some(current) => {
                if let Some((stream, peer)) = self.handshake(stream, address, ends, current, handshakes).await {
                    self.serve(stream, peer, drain).await;
                }
            }
        }
        gauge.dec();
    }

    async fn handshake(
        &self,
        stream: TcpStream,
        address: SocketAddr,
        ends: Instant,
        current: &Current,
        handshakes: &Semaphore,
    ) -> Option<(tokio_rustls::server::TlsStream<TcpStream>, Peer)> {
        let config = current.load().as_ref().clone()?;
        let shaken = timeout(HANDSHAKE, async {
            let _permit = handshakes.acquire().await;
            TlsAcceptor::from(config).accept(stream).await
        });
        match shaken.await {
            Ok(Ok(stream)) => {
                let certificate = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first()).cloned();
                let certificate = certificate.map(rustls_pki_types::CertificateDer::into_owned);
                Some((stream, Peer { address, secure: true, certificate, ends }))
            }
            Ok(Err(error)) => {
                self.failed("tls");
                tracing::info!(peer = %address, %error, "TLS handshake failed");
                None
            }
            Err(_) => {
                self.failed("timeout");
                tracing::info!(peer = %address, "TLS handshake took too long");
                None
            }
        }
    }

    async fn serve(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        peer: Peer,
        mut drain: Watcher,
    ) {
        let (address, ends) = (peer.address, peer.ends);
        let services = self.services.clone();
        let service = service_fn(move |request| dispatch(services.clone(), peer.clone(), request));
        let mut builder = http2::Builder::new(TokioExecutor::new());
        builder
            .timer(TokioTimer::new())
            .max_concurrent_streams(MAX_STREAMS)
            .max_header_list_size(MAX_HEADERS)
            .keep_alive_interval(PING_EVERY)
            .keep_alive_timeout(PING_ANSWER);
        let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
        let result = tokio::select! {
            result = connection.as_mut() => result,
            () = async {
                tokio::select! {
                    () = drain.graceful() => {}
                    // The streams of the connection end at this time by themselves.
                    () = sleep_until(ends.into()) => {}
                }
            } => {
                connection.as_mut().graceful_shutdown();
                match timeout(GRACE, connection).await {
                    Ok(result) => result,
                    Err(_) => return,
                }
            }
        };
        if let Err(error) = result {
            tracing::debug!(peer = %address, error = %mesh_api_rt::report::Report::new(&error), "Connection ended early");
        }
    }

    /// Between nine tenths of the greatest age and all of it, so that proxies that came together do not return together.
    fn end_of_connection(&self) -> Instant {
        let share: f64 = rand::rng().random_range(0.9..=1.0);
        tokio::time::Instant::now().into_std() + self.max_age.mul_f64(share)
    }

    fn failed(&self, why: &'static str) {
        self.metrics.failed.get_or_create(&ByType { r#type: why }).inc();
    }
}

/// Hands a request to the service that its path names.
async fn dispatch(
    services: Services,
    peer: Peer,
    mut request: Request<Incoming>,
) -> Result<Response<tonic::body::Body>, Infallible> {
    request.extensions_mut().insert(peer);
    let Services { mut discovery, mut certificates } = services;
    let path = request.uri().path();
    let service = path.strip_prefix('/').and_then(|path| path.split_once('/')).map_or("", |(service, _)| service);
    if service == AggregatedDiscoveryServer::<Discovery>::NAME {
        discovery.call(request).await
    } else if service == CertificateServer::<Certificates>::NAME {
        certificates.call(request).await
    } else {
        Ok(tonic::Status::unimplemented("no such service").into_http())
    }
}
