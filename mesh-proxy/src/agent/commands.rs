//! The commands that scripts and lifecycle hooks call beside a running proxy: `wait` and `request`, with the flags, exit codes
//! and output of Istio's `pilot-agent`.

use std::io::Write as _;
use std::time::Duration;

use anyhow::{Context as _, bail};
use bytes::Bytes;
use clap::Args;
use http::header::CONTENT_TYPE;
use http::{Method, Request, StatusCode, Uri};
use http_body_util::Full;
use mesh_api::names;
use tokio::time::Instant;

use super::client;

/// Largest answer that is shown, bytes: a dump of the configuration of a large mesh fits.
const MOST_ANSWER_BYTES: usize = 1 << 30;

/// Time for the answer of a page. Istio's agent has the same bound.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);

/// `wait`.
#[derive(Args, Clone, Debug)]
pub struct WaitArgs {
    /// Longest time to wait, in seconds
    #[arg(long = "timeoutSeconds", default_value_t = 60)]
    pub timeout_seconds: u64,
    /// Time between two requests, in milliseconds
    #[arg(long = "periodMillis", default_value_t = 500)]
    pub period_millis: u64,
    /// Longest time for the answer of one request, in milliseconds
    #[arg(long = "requestTimeoutMillis", default_value_t = 500)]
    pub request_timeout_millis: u64,
    /// What to ask
    #[arg(long, default_value = "http://localhost:15021/healthz/ready")]
    pub url: Uri,
}

/// `request`.
#[derive(Args, Clone, Debug)]
pub struct RequestArgs {
    /// Port of the page
    #[arg(long = "debug-port", default_value_t = names::PROXY_ADMIN_PORT)]
    pub debug_port: u16,
    /// `GET`, `POST`, …
    pub method: Method,
    /// Path and query of the page, as `quitquitquit` or `stats?usedonly`
    pub path: String,
    /// What to send along
    pub body: Option<String>,
}

/// Waits until the proxy answers that it is ready.
///
/// # Errors
/// When it is not ready in time; the text is the last reason.
pub async fn wait(args: &WaitArgs) -> anyhow::Result<()> {
    let (authority, path) = target(&args.url)?;
    let until = Instant::now() + Duration::from_secs(args.timeout_seconds);
    let limit = Duration::from_millis(args.request_timeout_millis.max(1));
    let mut period = tokio::time::interval(Duration::from_millis(args.period_millis.max(1)));
    period.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut last = String::from("it was not asked");
    loop {
        if tokio::time::timeout_at(until, period.tick()).await.is_err() {
            bail!("the proxy is not ready after {} s: {last}", args.timeout_seconds);
        }
        let request = Request::get(&path).body(Full::default()).context("making the request")?;
        last = match client::call(&authority, request, 64 * 1024, limit).await {
            Ok(answer) if answer.status() == StatusCode::OK => return Ok(()),
            Ok(answer) => {
                let text = String::from_utf8_lossy(answer.body());
                format!("it answered {}: {}", answer.status(), text.trim_end())
            }
            Err(error) => mesh_api_rt::report::Report::new(&error).to_string(),
        };
    }
}

/// Sends one request to a page of the proxy and writes its answer to `out`.
///
/// # Errors
/// When there is no answer, or it is not a success; the answer has been written then too.
pub async fn request(args: &RequestArgs, out: &mut (impl std::io::Write + Send)) -> anyhow::Result<()> {
    let authority = format!("localhost:{}", args.debug_port);
    let path = format!("/{}", args.path.trim_start_matches('/'));
    let mut builder = Request::builder().method(args.method.clone()).uri(path.as_str());
    if args.body.is_some() {
        builder = builder.header(CONTENT_TYPE, "application/json");
    }
    let body = Full::new(Bytes::from(args.body.clone().unwrap_or_default()));
    let request = builder.body(body).context("making the request")?;
    let answer = client::call(&authority, request, MOST_ANSWER_BYTES, REQUEST_TIMEOUT)
        .await
        .with_context(|| format!("asking http://{authority}{path}"))?;
    out.write_all(answer.body()).and_then(|()| out.flush()).context("writing the answer")?;
    if !answer.status().is_success() {
        bail!("{} {path} on port {} was answered with {}", args.method, args.debug_port, answer.status());
    }
    Ok(())
}

/// Writes to standard output.
///
/// # Errors
/// As [`request`].
pub async fn request_to_stdout(args: &RequestArgs) -> anyhow::Result<()> {
    let mut whole = Vec::new();
    let result = request(args, &mut whole).await;
    std::io::stdout().lock().write_all(&whole).context("writing the answer")?;
    result
}

fn target(url: &Uri) -> anyhow::Result<(String, String)> {
    if url.scheme_str() != Some("http") {
        bail!("--url {url}: only http:// can be asked");
    }
    let host = url.host().with_context(|| format!("--url {url}: it names no host"))?;
    let path = url.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
    Ok((format!("{host}:{}", url.port_u16().unwrap_or(80)), path.to_owned()))
}

#[cfg(test)]
mod tests;
