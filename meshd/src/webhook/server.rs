//! The HTTPS server of the webhooks, port 15017. Everything that a caller could send is bounded; an answer comes in time or
//! not at all.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::rt::{Read, Write};
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use mesh_api_rt::drain::Watcher;
use mesh_api_rt::report::Report;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;

use super::inject::{self, Outcome};
use super::review::{self, Answer, Question};
use super::settings::Settings;
use super::validate;
use crate::metrics::{ByType, WebhookMetrics};
use crate::published::Published;
use crate::tls::Current;

/// Largest question, in bytes: an object of etcd's 1.5 MiB, and the one before it.
pub(crate) const MAX_BODY_BYTES: usize = 3 << 20;
/// Time for a question and its answer; the API server waits ten seconds unless a webhook says otherwise.
const DEADLINE: Duration = Duration::from_secs(8);
/// Time for a handshake.
const HANDSHAKE: Duration = Duration::from_secs(5);
/// Connections at one time: API servers hold a few, and are not alone in reaching the port.
const MAX_CONNECTIONS: usize = 512;
/// Questions of one connection at one time.
const MAX_STREAMS: u32 = 128;
/// Time that a connection may rest.
const IDLE: Duration = Duration::from_secs(90);
/// Time that a connection gets to finish after it was asked to end.
const GRACE: Duration = Duration::from_secs(5);
/// Pause after a failed `accept`.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// The server.
pub(crate) struct Server {
    /// Its socket.
    pub(crate) listener: TcpListener,
    /// Its certificate.
    pub(crate) tls: Current,
    /// What pods get.
    pub(crate) settings: Arc<Settings>,
    /// Whether nodes run native sidecars.
    pub(crate) native_sidecar: bool,
    /// The present snapshot, which has the ProxyConfigs.
    pub(crate) published: watch::Receiver<Option<Published>>,
    /// Where it counts.
    pub(crate) metrics: WebhookMetrics,
}

impl Server {
    /// Serves until the drain begins, and then lets connections end.
    pub(crate) async fn run(self, mut drain: Watcher) {
        let permits = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        let this = Arc::new(self);
        let mut connections = JoinSet::new();
        loop {
            let accepted = tokio::select! {
                () = drain.graceful() => break,
                Some(_ended) = connections.join_next() => continue,
                accepted = async {
                    let permit = Arc::clone(&permits).acquire_owned().await;
                    this.listener.accept().await.map(|(stream, address)| (stream, address, permit))
                } => accepted,
            };
            match accepted {
                Ok((stream, address, permit)) => {
                    let (this, drain) = (Arc::clone(&this), drain.clone());
                    connections.spawn(async move {
                        this.connection(stream, address, drain).await;
                        drop(permit);
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "Webhook connection not accepted");
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
        while connections.join_next().await.is_some() {}
    }

    async fn connection(self: &Arc<Self>, stream: TcpStream, address: SocketAddr, drain: Watcher) {
        let Some(config) = self.tls.load().as_ref().clone() else { return };
        let stream = match timeout(HANDSHAKE, TlsAcceptor::from(config).accept(stream)).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => {
                tracing::info!(peer = %address, %error, "TLS handshake of a webhook call failed");
                return;
            }
            Err(_) => return,
        };
        let is_h2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
        self.serve(TokioIo::new(stream), is_h2, address, drain).await;
    }

    async fn serve(
        self: &Arc<Self>,
        io: impl Read + Write + Unpin + Send + 'static,
        is_h2: bool,
        address: SocketAddr,
        mut drain: Watcher,
    ) {
        let this = Arc::clone(self);
        let service = service_fn(move |request| {
            let this = Arc::clone(&this);
            async move { Ok::<_, Infallible>(this.answer(request).await) }
        });
        // The two kinds of connection have no type in common.
        macro_rules! until_drained {
            ($connection:expr) => {{
                let mut connection = pin!($connection);
                tokio::select! {
                    result = connection.as_mut() => result,
                    () = drain.graceful() => {
                        connection.as_mut().graceful_shutdown();
                        timeout(GRACE, connection).await.unwrap_or(Ok(()))
                    }
                }
            }};
        }
        let result = if is_h2 {
            let mut builder = http2::Builder::new(TokioExecutor::new());
            builder.timer(TokioTimer::new()).max_concurrent_streams(MAX_STREAMS).max_header_list_size(16 << 10);
            builder.keep_alive_interval(Duration::from_secs(30)).keep_alive_timeout(Duration::from_secs(10));
            until_drained!(builder.serve_connection(io, service))
        } else {
            let mut builder = http1::Builder::new();
            builder.timer(TokioTimer::new()).header_read_timeout(IDLE).max_buf_size(64 << 10);
            until_drained!(builder.serve_connection(io, service))
        };
        if let Err(error) = result {
            tracing::debug!(peer = %address, error = %Report::new(&error), "Webhook connection ended early");
        }
    }

    async fn answer(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        match timeout(DEADLINE, self.route(request)).await {
            Ok(response) => response,
            Err(_) => text(StatusCode::REQUEST_TIMEOUT, "took too long\n"),
        }
    }

    async fn route(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let path = request.uri().path().to_owned();
        let is_inject = path == "/inject" || path.starts_with("/inject/");
        if !is_inject && path != "/validate" {
            return text(StatusCode::NOT_FOUND, "POST an AdmissionReview to /inject or /validate\n");
        }
        if request.method() != Method::POST {
            return text(StatusCode::METHOD_NOT_ALLOWED, "use POST\n");
        }
        let json =
            request.headers().get(CONTENT_TYPE).is_some_and(|value| value.as_bytes().starts_with(b"application/json"));
        if !json {
            return text(StatusCode::UNSUPPORTED_MEDIA_TYPE, "send application/json\n");
        }
        let body = match Limited::new(request.into_body(), MAX_BODY_BYTES).collect().await {
            Ok(body) => body.to_bytes(),
            Err(error) if error.is::<LengthLimitError>() => {
                return text(
                    StatusCode::PAYLOAD_TOO_LARGE,
                    format!("the body is larger than {MAX_BODY_BYTES} bytes\n"),
                );
            }
            Err(_) => return text(StatusCode::BAD_REQUEST, "the body could not be read\n"),
        };
        let question = match review::read(&body) {
            Ok(question) => question,
            Err(error) => {
                let error = Report::new(&error).to_string();
                tracing::info!(path, error, "Webhook call not understood");
                return text(StatusCode::BAD_REQUEST, format!("{error}\n"));
            }
        };
        let answer = if is_inject { self.inject(&question, &path).await } else { self.validate(&question) };
        let mut response = Response::new(Full::new(Bytes::from(answer.to_json(&question.uid))));
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        response
    }

    async fn inject(&self, question: &Question, path: &str) -> Answer {
        self.metrics.injections.inc();
        let configs = self.published.borrow().as_ref().map(|published| Arc::clone(&published.snapshot.proxy_configs));
        let configs = configs.unwrap_or_default();
        let (answer, outcome) = inject::answer(&self.settings, question, path, self.native_sidecar, configs).await;
        match outcome {
            Outcome::Injected => self.metrics.injected.inc(),
            Outcome::Skipped => self.metrics.skipped.inc(),
            Outcome::Refused => self.metrics.injection_failures.inc(),
        };
        answer
    }

    fn validate(&self, question: &Question) -> Answer {
        let answer = validate::answer(question);
        let kind = known_kind(&question.kind.kind);
        let counter = if answer.refused.is_none() { &self.metrics.passed } else { &self.metrics.failed };
        counter.get_or_create(&ByType { r#type: kind }).inc();
        if let Some(error) = &answer.refused {
            let (namespace, name) = (&question.namespace, &question.name);
            tracing::debug!(kind, namespace, name, error, "Configuration refused");
        }
        answer
    }
}

/// A kind as a label, which must not be any text that somebody sends.
fn known_kind(name: &str) -> &'static str {
    mesh_api::kinds::Kind::ALL.iter().map(|kind| kind.as_str()).find(|known| *known == name).unwrap_or("other")
}

fn text(status: StatusCode, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=UTF-8"));
    response
}
