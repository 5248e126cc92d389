//! The server that all services share: HTTP/1.1 and HTTP/2 on one port, drained when told to stop.

use anyhow::{Context, Result};
use bytes::Bytes;
use http::{HeaderName, HeaderValue, Request, Response, StatusCode};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use crate::reply::{Body, BodyError, error, typed};
use crate::stop::Stop;
use crate::{cli, identity::Identity, knobs::Knobs, reply};

/// Connections of one service at a time.
pub(crate) const CONNECTIONS: usize = 10_000;
/// Bytes of a request body that a service reads.
const REQUEST_BYTES: usize = 16 << 20;
/// Bytes that `/bytes/N` gives.
const ANSWER_BYTES: usize = 16 << 20;
/// Says how many other requests are being answered at the moment.
const OTHERS: HeaderName = HeaderName::from_static("x-in-flight");
/// Longest wait that `/delay/MS` allows.
const LONGEST_DELAY: Duration = Duration::from_secs(60);

/// What a service does with a request that is not one of the common paths.
pub(crate) trait Handler: Send + Sync + 'static {
    fn handle(&self, request: Request<Incoming>) -> impl Future<Output = Response<Body>> + Send;

    /// Whether this request shall not be delayed or failed by the knobs (the service turns them itself).
    fn own_knobs(&self) -> bool {
        false
    }
}

/// A service ready to accept.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) identity: Identity,
    knobs: Knobs,
    drain: Duration,
    listener: TcpListener,
}

impl Server {
    /// Binds and tells the address on stdout.
    pub(crate) async fn bind(identity: Identity, args: &cli::Service) -> Result<Self> {
        let listener = listen(&identity, args.listen).await?;
        Ok(Self { identity, knobs: Knobs::new(args), drain: args.drain, listener })
    }

    /// Serves until the order to stop, then lets requests in flight end within the drain time.
    pub(crate) async fn run(self, handler: impl Handler, stop: Stop) -> Result<()> {
        let Self { identity, knobs, drain, listener } = self;
        let graceful = GracefulShutdown::new();
        let shared = Arc::new((identity, knobs, handler, AtomicUsize::new(0)));
        let places = Arc::new(Semaphore::new(CONNECTIONS));
        while let Some(stream) = accept(&listener, &stop).await {
            let Ok(place) = Arc::clone(&places).try_acquire_owned() else { continue };
            let shared = Arc::clone(&shared);
            let client = Client(stream.peer_addr().ok().map(|address| address.ip()));
            let service = service_fn(move |mut request: Request<Incoming>| {
                request.extensions_mut().insert(client);
                let shared = Arc::clone(&shared);
                async move {
                    let (identity, knobs, handler, in_flight) = &*shared;
                    let counted = Counted::new(in_flight);
                    let mut response = dispatch(identity, knobs, handler, request).await;
                    let others = counted.others();
                    response.headers_mut().insert(OTHERS, HeaderValue::from(others));
                    Ok::<_, Infallible>(response)
                }
            });
            let builder = auto::Builder::new(TokioExecutor::new());
            let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), service).into_owned();
            let connection = graceful.watch(connection);
            tokio::spawn(async move {
                // A connection that breaks is the client's to notice.
                _ = connection.await;
                drop(place);
            });
        }
        drop(listener);
        _ = tokio::time::timeout(drain, graceful.shutdown()).await;
        Ok(())
    }
}

/// Who the connection of a request came from, as the kernel tells it.
#[derive(Clone, Copy, Debug)]
struct Client(Option<IpAddr>);

/// One request that is being answered; also one that the client gave up on ends.
struct Counted<'a>(&'a AtomicUsize);

impl<'a> Counted<'a> {
    fn new(all: &'a AtomicUsize) -> Self {
        all.fetch_add(1, Ordering::Relaxed);
        Self(all)
    }

    fn others(&self) -> usize {
        self.0.load(Ordering::Relaxed).saturating_sub(1)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Binds and prints `{"listening": …}` with who listens.
pub(crate) async fn listen(identity: &Identity, address: SocketAddr) -> Result<TcpListener> {
    let listener = TcpListener::bind(address).await.with_context(|| format!("listening on {address}"))?;
    let address = listener.local_addr().context("reading the address listened on")?;
    println!("{}", serde_json::json!({ "listening": address, "identity": identity }));
    Ok(listener)
}

/// The next connection; none when told to stop.
pub(crate) async fn accept(listener: &TcpListener, stop: &Stop) -> Option<TcpStream> {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop.wait() => return None,
        };
        match accepted {
            Ok((stream, _)) => {
                // It only costs time when it fails.
                _ = stream.set_nodelay(true);
                return Some(stream);
            }
            // Out of descriptors, or a connection gone before it was accepted: others may still come.
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
}

/// Answers the paths that every service has and gives the rest to the handler.
async fn dispatch(
    identity: &Identity,
    knobs: &Knobs,
    handler: &impl Handler,
    request: Request<Incoming>,
) -> Response<Body> {
    let path = request.uri().path().to_owned();
    if path == "/healthz" {
        return typed(identity, StatusCode::OK, "text/plain", "ok\n");
    }
    if !handler.own_knobs()
        && let Some(status) = knobs.turn().await
    {
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::SERVICE_UNAVAILABLE);
        return error(identity, status, "failed on purpose");
    }
    let argument = |prefix: &str| path.strip_prefix(prefix).and_then(|rest| rest.parse::<usize>().ok());
    if path == "/echo" {
        echo(identity, request).await
    } else if let Some(status) = argument("/status/").and_then(|code| u16::try_from(code).ok()) {
        match StatusCode::from_u16(status) {
            Ok(status) if status.as_u16() >= 200 => typed(identity, status, "text/plain", ""),
            _ => error(identity, StatusCode::BAD_REQUEST, "no such final status"),
        }
    } else if let Some(size) = argument("/bytes/") {
        typed(identity, StatusCode::OK, "application/octet-stream", vec![b'x'; size.min(ANSWER_BYTES)])
    } else if let Some(millis) = argument("/delay/") {
        let wait = Duration::from_millis(u64::try_from(millis).unwrap_or(u64::MAX)).min(LONGEST_DELAY);
        tokio::time::sleep(wait).await;
        reply::json(identity, StatusCode::OK, serde_json::json!({ "waited_ms": wait.as_millis() }))
    } else {
        handler.handle(request).await
    }
}

/// What arrived: method, path, headers and the body's size.
async fn echo(identity: &Identity, request: Request<Incoming>) -> Response<Body> {
    let (head, body) = request.into_parts();
    let body = match read(body).await {
        Ok(body) => body,
        Err(cause) => return error(identity, StatusCode::BAD_REQUEST, &cause.to_string()),
    };
    let mut headers: Vec<(String, String)> = Vec::new();
    for (name, value) in &head.headers {
        headers.push((name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned()));
    }
    let version = format!("{:?}", head.version);
    let client = head.extensions.get::<Client>().and_then(|client| client.0);
    reply::json(
        identity,
        StatusCode::OK,
        serde_json::json!({
            "method": head.method.as_str(), "uri": head.uri.to_string(), "http": version, "headers": headers,
            "body_bytes": body.len(), "client": client,
        }),
    )
}

/// The whole body, up to a bound.
async fn read(body: Incoming) -> Result<Bytes, BodyError> {
    Ok(Limited::new(body, REQUEST_BYTES).collect().await?.to_bytes())
}

/// An answer for a path that does not exist.
pub(crate) fn not_found(identity: &Identity, request: &Request<Incoming>) -> Response<Body> {
    error(identity, StatusCode::NOT_FOUND, &format!("nothing at {}", request.uri().path()))
}

/// Serves only the common paths: `/healthz` beside a service that does not speak HTTP.
#[derive(Debug)]
pub(crate) struct HealthOnly(pub(crate) Identity);

impl Handler for HealthOnly {
    async fn handle(&self, request: Request<Incoming>) -> Response<Body> {
        not_found(&self.0, &request)
    }
}
