//! Probes and lifecycle hooks of the application that the injector has led to the proxy.
//!
//! The kubelet has no certificate of the mesh, so its requests would be refused where mutual TLS is strict. The injector
//! rewrites them to the status port and passes the originals in `ISTIO_KUBE_APP_PROBERS`; here they are made as the kubelet
//! would make them (istio/istio: pilot/cmd/pilot-agent/status/server.go).

mod call;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use http::{HeaderName, HeaderValue, StatusCode};
use mesh_api_rt::admin::{Request, Response};
use mesh_api_rt::report::Report;
use serde::Deserialize;

use self::call::Caller;

/// Kubernetes' default of `timeoutSeconds`.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(1);
/// Time of a lifecycle hook, which has no such field: the kubelet ends it with the pod's grace.
const HOOK_TIMEOUT: Duration = Duration::from_secs(3600);
/// Most probes of a pod.
const MOST_PROBES: usize = 4096;

/// Path of probes on the status port.
pub const HEALTH_PREFIX: &str = "/app-health/";
/// Path of lifecycle hooks on the status port.
pub const LIFECYCLE_PREFIX: &str = "/app-lifecycle/";

/// All probes of a pod.
#[derive(Debug)]
pub struct Probers {
    probes: BTreeMap<String, Probe>,
    caller: Caller,
    status_port: u16,
}

/// Where and how probes are made.
#[derive(Clone, Copy, Debug)]
pub struct ProbeSettings {
    /// Address of the application.
    pub destination: IpAddr,
    /// Our own port, which stands in the host of a probe in place of the application's.
    pub status_port: u16,
    /// HTTPS probes may speak HTTP/2.
    pub http2: bool,
    /// Mark of our connections.
    pub socket_mark: Option<u32>,
}

/// One probe or hook.
#[derive(Debug)]
struct Probe {
    what: What,
    timeout: Duration,
}

#[derive(Debug)]
enum What {
    Http(HttpGet),
    Tcp { port: u16 },
    Grpc { port: u16, service: String },
}

/// A request, as Kubernetes describes it.
#[derive(Debug)]
struct HttpGet {
    port: u16,
    path: String,
    is_https: bool,
    /// In place of the host that the kubelet sent.
    host: Option<HeaderValue>,
    headers: Vec<(HeaderName, HeaderValue)>,
}

/// Probes that cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// Not the JSON that the injector writes.
    #[error("the probes are not valid JSON")]
    Json(#[source] serde_json::Error),
    /// A probe is not as Kubernetes describes one.
    #[error("probe {path}: {reason}")]
    Probe {
        /// Which.
        path: String,
        /// What is wrong.
        reason: &'static str,
    },
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawProbe {
    http_get: Option<RawHttp>,
    tcp_socket: Option<RawTcp>,
    grpc: Option<RawGrpc>,
    #[serde(default)]
    timeout_seconds: u32,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawHttp {
    #[serde(default)]
    path: String,
    port: RawPort,
    #[serde(default)]
    scheme: String,
    #[serde(default)]
    http_headers: Vec<RawHeader>,
}

#[derive(Deserialize)]
struct RawTcp {
    port: RawPort,
}

#[derive(Deserialize)]
struct RawGrpc {
    port: RawPort,
    service: Option<String>,
}

#[derive(Deserialize)]
struct RawHeader {
    name: String,
    #[serde(default)]
    value: String,
}

/// A port; the injector has replaced names by numbers.
#[derive(Deserialize)]
#[serde(untagged)]
enum RawPort {
    Number(u16),
    Text(String),
}

impl RawPort {
    fn number(&self) -> Result<u16, &'static str> {
        let number = match self {
            Self::Number(number) => Some(*number),
            Self::Text(text) => text.parse().ok(),
        };
        number.filter(|port| *port != 0).ok_or("the port is not a number between 1 and 65535")
    }
}

impl Probers {
    /// Reads what the injector has written; nothing is no probe.
    ///
    /// # Errors
    /// When a probe cannot be made: the pod would never be ready, and nobody would know why.
    pub fn parse(text: Option<&str>, settings: ProbeSettings) -> Result<Self, ProbeError> {
        let raw: BTreeMap<String, RawProbe> =
            text.map_or_else(|| Ok(BTreeMap::new()), serde_json::from_str).map_err(ProbeError::Json)?;
        let mut probes = BTreeMap::new();
        for (path, raw) in raw.into_iter().take(MOST_PROBES) {
            match Probe::new(&path, raw) {
                Ok(probe) => probes.insert(path, probe),
                Err(reason) => return Err(ProbeError::Probe { path, reason }),
            };
        }
        Ok(Self { probes, caller: Caller::new(settings), status_port: settings.status_port })
    }

    /// Makes the probe that a request of the kubelet asks for.
    pub async fn answer(&self, request: &Request) -> Response {
        let path = request.path();
        let Some(probe) = self.probes.get(path) else {
            return Response::text(StatusCode::NOT_FOUND, format!("no probe {path} is known\n"));
        };
        let made = async {
            match &probe.what {
                What::Http(get) => self.caller.http(get, request, self.status_port).await,
                What::Tcp { port } => self.caller.tcp(*port).await,
                What::Grpc { port, service } => self.caller.grpc(*port, service).await,
            }
        };
        match tokio::time::timeout(probe.timeout, made).await {
            Ok(Ok(response)) => response,
            Ok(Err(error)) => {
                let report = Report::new(&error).to_string();
                tracing::debug!(probe = path, error = report, "Probe failed");
                Response::text(StatusCode::INTERNAL_SERVER_ERROR, format!("{report}\n"))
            }
            Err(_) => {
                tracing::debug!(probe = path, timeout = ?probe.timeout, "Probe took too long");
                let text = format!("the application did not answer within {:?}\n", probe.timeout);
                Response::text(StatusCode::INTERNAL_SERVER_ERROR, text)
            }
        }
    }
}

impl Probe {
    fn new(path: &str, raw: RawProbe) -> Result<Self, &'static str> {
        let is_hook = match kind(path) {
            Some((HEALTH_PREFIX, "livez" | "readyz" | "startupz")) => false,
            Some((LIFECYCLE_PREFIX, "prestopz" | "poststartz")) => true,
            _ => {
                return Err("the path is none of /app-health/<container>/{livez,readyz,startupz} and \
                             /app-lifecycle/<container>/{prestopz,poststartz}");
            }
        };
        let what = match (raw.http_get, raw.tcp_socket, raw.grpc) {
            (Some(get), None, None) => What::Http(HttpGet::new(get)?),
            (None, Some(tcp), None) => What::Tcp { port: tcp.port.number()? },
            (None, None, Some(grpc)) => {
                What::Grpc { port: grpc.port.number()?, service: grpc.service.unwrap_or_default() }
            }
            _ => return Err("it has not exactly one of httpGet, tcpSocket and grpc"),
        };
        let timeout = match raw.timeout_seconds {
            0 if is_hook => HOOK_TIMEOUT,
            0 => DEFAULT_TIMEOUT,
            seconds => Duration::from_secs(seconds.into()),
        };
        Ok(Self { what, timeout })
    }
}

/// Prefix and last segment of `/<prefix>/<container>/<name>`.
fn kind(path: &str) -> Option<(&'static str, &str)> {
    let prefix = [HEALTH_PREFIX, LIFECYCLE_PREFIX].into_iter().find(|prefix| path.starts_with(prefix))?;
    let (container, name) = path.strip_prefix(prefix)?.split_once('/')?;
    (!container.is_empty()).then_some((prefix, name))
}

impl HttpGet {
    fn new(raw: RawHttp) -> Result<Self, &'static str> {
        let mut headers = Vec::with_capacity(raw.http_headers.len());
        let mut host = None;
        for RawHeader { name, value } in raw.http_headers {
            let value = HeaderValue::try_from(value).map_err(|_| "a header has no valid value")?;
            if name.eq_ignore_ascii_case("host") || name == ":authority" {
                host = Some(value);
            } else {
                headers.push((HeaderName::try_from(name).map_err(|_| "a header has no valid name")?, value));
            }
        }
        let path = if raw.path.starts_with('/') { raw.path } else { format!("/{}", raw.path) };
        let is_https = match raw.scheme.as_str() {
            "" | "HTTP" | "http" => false,
            "HTTPS" | "https" => true,
            _ => return Err("the scheme is neither HTTP nor HTTPS"),
        };
        Ok(Self { port: raw.port.number()?, path, is_https, host, headers })
    }
}
