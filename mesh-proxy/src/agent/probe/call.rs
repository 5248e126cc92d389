//! Makes one probe: as the kubelet would, from an address that redirection lets pass.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use bytes::{BufMut as _, Bytes, BytesMut};
use http::header::{CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HOST, LOCATION, TE, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, Version};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use mesh_api_rt::admin::{Request, Response};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::{HttpGet, ProbeSettings};
use crate::agent::client::{self, CallError};
use crate::net::sockopt;
use crate::tls::provider;
use crate::tls::verify::ServerVerifier;

/// Most of an answer's body that is passed on; the kubelet reads no more.
const MOST_BODY_BYTES: usize = 10 * 1024;
/// Most of an answer's body that is read at all: what is longer fails, since a probe is no download.
const MOST_READ_BYTES: usize = 16 << 20;
/// Most redirections that are followed.
const MOST_REDIRECTS: usize = 10;
/// Largest answer of a gRPC health check, bytes.
const MOST_GRPC_BYTES: usize = 64 * 1024;

/// Headers of one connection, which are not passed on.
const HOP: [http::HeaderName; 5] = [CONNECTION, CONTENT_LENGTH, TE, TRANSFER_ENCODING, UPGRADE];

/// Makes probes.
#[derive(Debug)]
pub(super) struct Caller {
    settings: ProbeSettings,
    tls: Result<Arc<ClientConfig>, String>,
}

/// Why a probe failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum ProbeFailure {
    /// No answer.
    #[error("the application cannot be asked")]
    Call(#[from] CallError),
    /// Redirected too often.
    #[error("the application redirected more than {MOST_REDIRECTS} times")]
    Redirects,
    /// No TLS.
    #[error("TLS cannot be used: {0}")]
    Tls(String),
    /// The health service answered something else than SERVING.
    #[error("the health service answered {0}")]
    NotServing(String),
}

impl Caller {
    pub(super) fn new(settings: ProbeSettings) -> Self {
        Self { settings, tls: tls(settings.http2).map(Arc::new).map_err(|error| error.to_string()) }
    }

    pub(super) async fn tcp(&self, port: u16) -> Result<Response, ProbeFailure> {
        self.connect(port).await?;
        Ok(Response::ok(""))
    }

    pub(super) async fn http(
        &self,
        get: &HttpGet,
        request: &Request,
        status_port: u16,
    ) -> Result<Response, ProbeFailure> {
        let mut headers = forwarded(get, request.headers(), status_port);
        let (mut port, mut is_https, mut path) = (get.port, get.is_https, get.path.clone());
        for _ in 0..=MOST_REDIRECTS {
            let answer = self.get(port, is_https, &path, headers.clone()).await?;
            let Some(next) = self.redirect(&answer, port, is_https, &path) else {
                let body = answer.body().slice(..answer.body().len().min(MOST_BODY_BYTES));
                return Ok(Response::text(answer.status(), body));
            };
            (port, is_https, path) = next;
            // The host is that of the new place.
            headers.remove(HOST);
        }
        Err(ProbeFailure::Redirects)
    }

    async fn get(
        &self,
        port: u16,
        is_https: bool,
        path: &str,
        headers: HeaderMap,
    ) -> Result<http::Response<Bytes>, ProbeFailure> {
        let authority = SocketAddr::new(self.settings.destination, port).to_string();
        let request = |target: &str, version| {
            let mut request = http::Request::builder().method(Method::GET).uri(target).version(version);
            if let Some(all) = request.headers_mut() {
                all.clone_from(&headers);
            }
            request.body(Full::default()).map_err(CallError::Request)
        };
        let stream = self.connect(port).await?;
        if !is_https {
            return Ok(client::exchange(stream, &authority, request(path, Version::HTTP_11)?, MOST_READ_BYTES).await?);
        }
        let stream = self.secure(stream, &authority).await?;
        if stream.get_ref().1.alpn_protocol() == Some(b"h2") {
            let host = headers.get(HOST).and_then(|host| host.to_str().ok()).unwrap_or(&authority);
            let mut request = request(&format!("https://{host}{path}"), Version::HTTP_2)?;
            request.headers_mut().remove(HOST);
            let (head, body, _) = over_http2(stream, request, MOST_READ_BYTES).await?;
            return Ok(http::Response::from_parts(head, body));
        }
        Ok(client::exchange(stream, &authority, request(path, Version::HTTP_11)?, MOST_READ_BYTES).await?)
    }

    /// Where an answer leads on the same host; `None` when it is to be passed on.
    fn redirect(
        &self,
        answer: &http::Response<Bytes>,
        port: u16,
        is_https: bool,
        path: &str,
    ) -> Option<(u16, bool, String)> {
        if !matches!(answer.status().as_u16(), 301 | 302 | 303 | 307 | 308) {
            return None;
        }
        let location = answer.headers().get(LOCATION)?.to_str().ok()?;
        if !location.contains("://") && !location.starts_with("//") {
            let path = if location.starts_with('/') {
                location.to_owned()
            } else {
                let folder = path.split('?').next().unwrap_or(path).rsplit_once('/').map_or("", |(folder, _)| folder);
                format!("{folder}/{location}")
            };
            return Some((port, is_https, path));
        }
        let uri: Uri = location.parse().ok()?;
        let host = uri.host()?.trim_start_matches('[').trim_end_matches(']');
        let is_same = host.parse::<IpAddr>().is_ok_and(|ip| ip == self.settings.destination);
        let is_https = uri.scheme_str() == Some("https");
        let port = uri.port_u16().unwrap_or(if is_https { 443 } else { 80 });
        is_same.then(|| (port, is_https, uri.path_and_query().map_or("/", |path| path.as_str()).to_owned()))
    }

    pub(super) async fn grpc(&self, port: u16, service: &str) -> Result<Response, ProbeFailure> {
        let authority = SocketAddr::new(self.settings.destination, port).to_string();
        let request = http::Request::builder()
            .method(Method::POST)
            .version(Version::HTTP_2)
            .uri(format!("http://{authority}/grpc.health.v1.Health/Check"))
            .header(CONTENT_TYPE, "application/grpc")
            .header(TE, "trailers")
            .header("user-agent", concat!("mesh-proxy/", env!("CARGO_PKG_VERSION")))
            .body(Full::new(health_request(service)))
            .map_err(CallError::Request)?;
        let stream = self.connect(port).await?;
        let (head, body, trailers) = over_http2(stream, request, MOST_GRPC_BYTES).await?;
        let code = [&trailers, &head.headers].into_iter().find_map(|headers| headers.get("grpc-status"));
        match (head.status, code.map(HeaderValue::as_bytes)) {
            (StatusCode::OK, Some(b"0")) => {}
            (StatusCode::OK, Some(code)) => {
                return Err(ProbeFailure::NotServing(format!("gRPC status {}", String::from_utf8_lossy(code))));
            }
            (status, _) => return Err(ProbeFailure::NotServing(format!("HTTP status {status}"))),
        }
        match health_status(&body) {
            Some(1) => Ok(Response::ok("")),
            status => {
                let name = match status {
                    Some(0) => "UNKNOWN",
                    Some(2) => "NOT_SERVING",
                    Some(3) => "SERVICE_UNKNOWN",
                    _ => "something that is no health",
                };
                Err(ProbeFailure::NotServing(name.to_owned()))
            }
        }
    }

    async fn secure(&self, stream: TcpStream, authority: &str) -> Result<TlsStream<TcpStream>, ProbeFailure> {
        let config = self.tls.clone().map_err(ProbeFailure::Tls)?;
        let name = ServerName::IpAddress(self.settings.destination.into());
        let failed = |source| CallError::Tls { address: authority.to_owned(), source };
        Ok(TlsConnector::from(config).connect(name, stream).await.map_err(failed)?)
    }

    /// Connects from the address that redirection takes for the proxy's own (as for inbound traffic); where the machine does
    /// not have it, from any.
    async fn connect(&self, port: u16) -> Result<TcpStream, CallError> {
        let address = SocketAddr::new(self.settings.destination, port);
        let failed = |source| CallError::Connect { address: address.to_string(), source };
        let socket = Socket::new(Domain::for_address(address), Type::STREAM.nonblocking(), Some(Protocol::TCP));
        let socket = socket.map_err(failed)?;
        if let Some(mark) = self.settings.socket_mark {
            sockopt::set_mark(&socket, mark).map_err(io::Error::other).map_err(failed)?;
        }
        if !self.settings.destination.is_loopback() {
            let own: IpAddr = match self.settings.destination {
                IpAddr::V4(_) => Ipv4Addr::new(127, 0, 0, 6).into(),
                IpAddr::V6(_) => Ipv6Addr::new(0, 0, 0, 0, 0, 0, 0, 6).into(),
            };
            // A failure leaves the choice to the kernel.
            let _ = socket.bind(&SocketAddr::new(own, 0).into());
        }
        TcpSocket::from_std_stream(socket.into()).connect(address).await.map_err(failed)
    }
}

/// Headers for the application: those of the kubelet, then those of the probe in place of them.
fn forwarded(get: &HttpGet, received: &HeaderMap, status_port: u16) -> HeaderMap {
    let mut headers = received.clone();
    for name in &HOP {
        headers.remove(name);
    }
    if let Some(host) = headers.get(HOST).and_then(|host| host.to_str().ok())
        && let Some((name, port)) = host.rsplit_once(':')
        && port.parse() == Ok(status_port)
        && let Ok(value) = HeaderValue::try_from(format!("{name}:{}", get.port))
    {
        headers.insert(HOST, value);
    }
    for (name, _) in &get.headers {
        headers.remove(name);
    }
    for (name, value) in &get.headers {
        headers.append(name, value.clone());
    }
    if let Some(host) = &get.host {
        headers.insert(HOST, host.clone());
    }
    headers
}

type Answer = (http::response::Parts, Bytes, HeaderMap);

/// One request over HTTP/2: head, body, trailers.
async fn over_http2<S>(stream: S, request: http::Request<Full<Bytes>>, most: usize) -> Result<Answer, ProbeFailure>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let handshake = http2::handshake(TokioExecutor::new(), TokioIo::new(stream));
    let (mut sender, connection) = handshake.await.map_err(CallError::Http)?;
    let answer = async {
        let (head, body) = sender.send_request(request).await.map_err(CallError::Http)?.into_parts();
        let whole = Limited::new(body, most).collect().await.map_err(|_| CallError::Body)?;
        let trailers = whole.trailers().cloned().unwrap_or_default();
        Ok((head, whole.to_bytes(), trailers))
    };
    tokio::pin!(answer, connection);
    let mut is_driven = true;
    loop {
        tokio::select! {
            biased;
            answer = &mut answer => return answer,
            _ = &mut connection, if is_driven => is_driven = false,
        }
    }
}

/// `grpc.health.v1.HealthCheckRequest { service = 1 }` with gRPC's prefix.
fn health_request(service: &str) -> Bytes {
    let mut message = BytesMut::new();
    if !service.is_empty() {
        message.put_u8(0x0a);
        let mut length = service.len();
        while length >= 0x80 {
            message.put_u8(u8::try_from(length & 0x7f).unwrap_or_default() | 0x80);
            length >>= 7;
        }
        message.put_u8(u8::try_from(length).unwrap_or_default());
        message.put_slice(service.as_bytes());
    }
    let mut framed = BytesMut::with_capacity(message.len() + 5);
    framed.put_u8(0);
    framed.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
    framed.extend_from_slice(&message);
    framed.freeze()
}

/// Field `status = 1` of `grpc.health.v1.HealthCheckResponse`; 0 when it is left out.
fn health_status(framed: &[u8]) -> Option<u8> {
    match framed {
        [0, 0, 0, 0, 0] => Some(0),
        [0, 0, 0, 0, 2, 0x08, status @ 0..0x80] => Some(*status),
        _ => None,
    }
}

/// As the kubelet: encrypted, not verified. The application is on this very pod.
fn tls(http2: bool) -> Result<ClientConfig, rustls::Error> {
    let provider = Arc::clone(provider::provider());
    let mut config = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(ServerVerifier::new(None, provider)))
        .with_no_client_auth();
    config.alpn_protocols = if http2 { vec![b"h2".to_vec(), b"http/1.1".to_vec()] } else { vec![b"http/1.1".to_vec()] };
    Ok(config)
}
