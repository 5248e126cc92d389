//! Metrics of the proxy and of the application on one page, so that one scrape of a pod reads both.
//!
//! The injector moves the application's own scrape annotations into `ISTIO_PROMETHEUS_ANNOTATIONS` and points Prometheus at the
//! status port. What cannot be read of the application is counted and left out; the proxy's part is always there.

#[cfg(test)]
mod tests;
mod text;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE, USER_AGENT};
use http::{HeaderMap, HeaderName, StatusCode};
use http_body_util::Full;
use mesh_api::names;
use mesh_api_rt::admin::{Request, Response};
use mesh_api_rt::metrics::{Format, Metrics};
use mesh_api_rt::report::Report;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use serde::Deserialize;
use tokio::task::JoinSet;

use super::client::{self, CallError};

/// Largest sum of what applications answer, bytes (as Istio's agent).
const MOST_BYTES: usize = 10 << 20;
/// Most places that one pod names.
const MOST_TARGETS: usize = 16;
/// Time for the application where the scrape names none. Prometheus' default of `scrape_timeout` is 10 s.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(9);
/// What of the scrape's own time is kept for the answer.
const RESERVE: Duration = Duration::from_millis(500);
/// Longest time that a scrape may ask for.
const MOST_TIMEOUT: Duration = Duration::from_secs(120);
/// Header with the time a scrape may take.
const TIMEOUT_HEADER: HeaderName = HeaderName::from_static("x-prometheus-scrape-timeout-seconds");

/// Ports of the proxy: to scrape one of them would be a circle, or show what is not for others.
const RESERVED: [u16; 9] = [
    names::PROXY_ADMIN_PORT,
    names::OUTBOUND_PORT,
    15004,
    names::INBOUND_PORT,
    15008,
    names::STATUS_PORT,
    names::READINESS_PORT,
    15053,
    names::PROXY_METRICS_PORT,
];

mesh_api_rt::metrics! {
    /// What merging metrics does, under the names of Istio's agent.
    pub struct ScrapeMetrics {
        /// Scrapes of the merged page.
        pub scrapes: Counter = "istio_agent_scrapes_total",
        /// Parts of merged scrapes that could not be read, by whose part it was.
        pub failures: Family<Part, Counter> = "istio_agent_scrape_failures_total",
    }
}

/// Whose part of a scrape.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Part {
    /// `application` or `envoy`, which here stands for the proxy.
    pub r#type: &'static str,
}

/// Places to scrape the application at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Targets(Vec<Target>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Target {
    port: u16,
    path: String,
}

/// Settings that cannot be used.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    /// Not the JSON that the injector writes.
    #[error("the application's scrape annotations are not valid JSON: {0}")]
    Json(String),
    /// Not a port.
    #[error("{0:?} is no port to scrape")]
    Port(String),
    /// A port of the proxy.
    #[error("port {0} is the proxy's own and cannot be the application's")]
    Reserved(u16),
    /// Too many.
    #[error("more than {MOST_TARGETS} places to scrape are named")]
    TooMany,
}

#[derive(Deserialize)]
struct Annotations {
    #[serde(default)]
    scrape: String,
    #[serde(default)]
    path: String,
    #[serde(default)]
    port: String,
}

/// The merged page.
#[derive(Debug)]
pub struct Merged {
    metrics: Arc<Metrics>,
    counters: ScrapeMetrics,
    targets: Targets,
    local_only: bool,
}

impl Targets {
    /// Reads the injector's variable and the annotation with several places, `port:path,…`; the annotation counts before the
    /// variable.
    ///
    /// # Errors
    /// When a place cannot be scraped.
    pub fn parse(annotations: Option<&str>, several: Option<&str>, status_port: u16) -> Result<Self, TargetError> {
        if let Some(several) = several.filter(|text| !text.trim().is_empty()) {
            let parts = several.split(',').map(str::trim).filter(|part| !part.is_empty());
            let targets = parts.map(|part| {
                let (port, path) = part.split_once(':').unwrap_or((part, ""));
                Target::new(port, path, status_port)
            });
            let targets: Vec<_> = targets.collect::<Result<_, _>>()?;
            return if targets.len() > MOST_TARGETS { Err(TargetError::TooMany) } else { Ok(Self(targets)) };
        }
        let Some(text) = annotations else { return Ok(Self::default()) };
        let read: Annotations = serde_json::from_str(text).map_err(|error| TargetError::Json(error.to_string()))?;
        if read.scrape == "false" {
            return Ok(Self::default());
        }
        let port = if read.port.is_empty() { "80" } else { &read.port };
        Ok(Self(vec![Target::new(port, &read.path, status_port)?]))
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Target {
    fn new(port: &str, path: &str, status_port: u16) -> Result<Self, TargetError> {
        let number: u16 = port.trim().parse().map_err(|_| TargetError::Port(port.to_owned()))?;
        if number == 0 {
            return Err(TargetError::Port(port.to_owned()));
        }
        if RESERVED.contains(&number) || number == status_port {
            return Err(TargetError::Reserved(number));
        }
        let path = match path {
            "" => "/metrics".to_owned(),
            path if path.starts_with('/') => path.to_owned(),
            path => format!("/{path}"),
        };
        Ok(Self { port: number, path })
    }
}

/// What one place answered.
#[derive(Debug)]
struct Read {
    is_open_metrics: bool,
    text: String,
}

/// Why a place could not be read.
#[derive(Debug, thiserror::Error)]
enum ReadError {
    #[error(transparent)]
    Call(#[from] CallError),
    #[error("the application answered {0}")]
    Status(StatusCode),
    #[error("the application's answer is no text")]
    Text,
}

impl Merged {
    /// A page of the proxy's `metrics` and of what `targets` answer.
    #[must_use]
    pub const fn new(metrics: Arc<Metrics>, counters: ScrapeMetrics, targets: Targets, local_only: bool) -> Self {
        Self { metrics, counters, targets, local_only }
    }

    /// Answers a scrape.
    pub async fn answer(&self, request: &Request) -> Response {
        if self.local_only && !request.is_local() {
            return Response::text(StatusCode::FORBIDDEN, "only requests from localhost are allowed\n");
        }
        self.counters.scrapes.inc();
        let parts = self.read_all(request.headers()).await;
        let Ok(own) = self.metrics.encode(Format::Prometheus) else {
            self.counters.failures.get_or_create(&Part { r#type: "envoy" }).inc();
            return Response::text(StatusCode::INTERNAL_SERVER_ERROR, "a metric could not be encoded\n");
        };
        let own = text::rename_process(&own);
        // The format follows the application: what it sent is passed on as it is, and ours is written to fit.
        if parts.iter().any(|part| part.is_open_metrics) {
            let mut whole = text::to_open_metrics(&own);
            for part in &parts {
                if part.is_open_metrics {
                    whole.push_str(&text::without_end(&part.text));
                } else {
                    whole.push_str(&text::to_open_metrics(&part.text));
                }
            }
            whole.push_str("# EOF\n");
            return Response::new(StatusCode::OK, Format::OpenMetrics.content_type(), whole);
        }
        let mut whole = own;
        for part in &parts {
            whole.push_str(&part.text);
            if !part.text.ends_with('\n') {
                whole.push('\n');
            }
        }
        Response::new(StatusCode::OK, Format::Prometheus.content_type(), whole)
    }

    /// All places at once, in their order; those that fail are counted and left out.
    async fn read_all(&self, headers: &HeaderMap) -> Vec<Read> {
        let limit = limit(headers);
        let mut reading = JoinSet::new();
        for (place, target) in self.targets.0.iter().cloned().enumerate() {
            let headers = headers.clone();
            reading.spawn(async move { (place, read(&target, &headers, limit).await, target) });
        }
        let mut parts: Vec<(usize, Read)> = Vec::new();
        while let Some(ended) = reading.join_next().await {
            let Ok((place, result, target)) = ended else { continue };
            match result {
                Ok(part) => parts.push((place, part)),
                Err(error) => {
                    self.counters.failures.get_or_create(&Part { r#type: "application" }).inc();
                    tracing::debug!(
                        port = target.port, path = target.path, error = %Report::new(&error),
                        "Metrics of the application not read"
                    );
                }
            }
        }
        parts.sort_by_key(|(place, _)| *place);
        let mut left = MOST_BYTES;
        parts.retain(|(_, part)| {
            let fits = part.text.len() <= left;
            if fits {
                left -= part.text.len();
            } else {
                self.counters.failures.get_or_create(&Part { r#type: "application" }).inc();
            }
            fits
        });
        parts.into_iter().map(|(_, part)| part).collect()
    }
}

async fn read(target: &Target, headers: &HeaderMap, limit: Duration) -> Result<Read, ReadError> {
    let mut request = http::Request::get(&target.path);
    if let Some(all) = request.headers_mut() {
        for name in [ACCEPT, USER_AGENT, TIMEOUT_HEADER] {
            if let Some(value) = headers.get(&name) {
                all.insert(name, value.clone());
            }
        }
    }
    let request = request.body(Full::<Bytes>::default()).map_err(CallError::Request)?;
    let answer = client::call(&format!("localhost:{}", target.port), request, MOST_BYTES, limit).await?;
    if answer.status() != StatusCode::OK {
        return Err(ReadError::Status(answer.status()));
    }
    let content_type = answer.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let is_open_metrics = content_type.starts_with("application/openmetrics-text");
    let text = String::from_utf8(answer.into_body().into()).map_err(|_| ReadError::Text)?;
    Ok(Read { is_open_metrics, text })
}

/// Time for the application: that of the scrape, less what it takes to answer.
fn limit(headers: &HeaderMap) -> Duration {
    let said = headers.get(&TIMEOUT_HEADER).and_then(|value| value.to_str().ok()?.parse::<f64>().ok());
    let said = said.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    said.map_or(DEFAULT_TIMEOUT, |said| said.min(MOST_TIMEOUT).saturating_sub(RESERVE).max(RESERVE))
}
