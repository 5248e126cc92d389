//! What steps have in common.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;

use super::Check;
use crate::demo::client::{Client, Figures, run};
use crate::demo::metrics::{Sample, parse};
use crate::demo::plan::{SHOPPER, Service, Workload, service_named};
use crate::demo::probe::{PROBE_ARG, ProbeRequest, Seen};
use crate::error::CliError;
use crate::http;
use crate::netns::{Output, ProcessSpec};

/// Time for a condition to come true.
pub(super) const PATIENCE: Duration = Duration::from_secs(20);
/// How often a condition is looked at.
pub(super) const POLL: Duration = Duration::from_millis(5);

/// A step's failure.
pub(super) fn wrong<T>(message: impl Into<String>) -> Result<T, CliError> {
    Err(CliError::user(message))
}

/// `condition`, or the failure with its message.
pub(super) fn ensure(condition: bool, message: impl FnOnce() -> String) -> Result<(), CliError> {
    if condition { Ok(()) } else { wrong(message()) }
}

/// What requests cost without failing, or the failure.
pub(super) fn all_well(figures: &Figures) -> Result<(), CliError> {
    ensure(figures.failed == 0 && figures.requests > 0, || figures.complaint())
}

/// Steady traffic from the user's side, to a path of the ingress.
pub(super) fn traffic(check: &mut Check<'_>, path: &str, rate: u32) -> Result<Client, CliError> {
    let url = format!("http://{}{path}", check.mesh.ingress);
    let rate = rate.to_string();
    let args = ["http", "--url", &url, "--count", "0", "--duration", "600s", "--rate", &rate, "--concurrency", "16"];
    Client::start(check.mesh, None, &args)
}

impl Check<'_> {
    pub(super) fn workload(&self, name: &str) -> Result<Workload, CliError> {
        let found = self.mesh.plan.workload(name).cloned();
        found.ok_or_else(|| CliError::internal(format!("there is no workload {name}")))
    }

    pub(super) fn service(name: &str) -> Result<&'static Service, CliError> {
        service_named(name).ok_or_else(|| CliError::internal(format!("there is no service {name}")))
    }

    /// Where the shopper finds a service.
    pub(super) fn url(&self, service: &str, path: &str) -> Result<String, CliError> {
        Ok(self.mesh.plan.url_of(&self.workload(SHOPPER)?, Self::service(service)?, path))
    }

    /// Runs a client in the shopper's workload.
    pub(super) async fn shop(&mut self, args: &[&str]) -> Result<Figures, CliError> {
        run(self.mesh, Some(SHOPPER), args).await
    }

    /// Runs a client where the user is.
    pub(super) async fn outside(&mut self, args: &[&str]) -> Result<Figures, CliError> {
        run(self.mesh, None, args).await
    }

    /// Runs a probe in a workload.
    pub(super) async fn probe(&mut self, workload: &str, request: &ProbeRequest) -> Result<Seen, CliError> {
        let text = serde_json::to_string(request);
        let text = text.map_err(|error| CliError::internal("cannot write a probe's request").because(&error))?;
        let (_, path) = self.mesh.next_output();
        let failed = |error: &dyn std::error::Error| CliError::internal("the probe failed").because(error);
        let file = std::fs::File::create(&path).map_err(|error| failed(&error))?;
        let mut spec = ProcessSpec::new("/proc/self/exe").args([PROBE_ARG, &text]);
        spec.stdout = Output::File(file);
        let task = self.mesh.spawn(Some(workload), spec)?;
        if task.wait(PATIENCE).await.is_none() {
            task.signal(nix::sys::signal::Signal::SIGKILL);
            return wrong(format!("the probe of {} did not end", request.address));
        }
        let text = std::fs::read_to_string(&path).map_err(|error| failed(&error))?;
        serde_json::from_str(&text).map_err(|error| failed(&error))
    }

    /// Metrics of a proxy whose names begin with `prefix`.
    pub(super) async fn metrics(&self, workload: &str, prefix: &str) -> Result<Vec<Sample>, CliError> {
        let text = self.admin_page(workload, "/stats/prometheus").await?;
        Ok(parse(&text, prefix))
    }

    /// Requests that the proxy of a workload has let in.
    pub(super) async fn served(&self, workload: &str) -> Result<f64, CliError> {
        let samples = self.metrics(workload, "istio_requests_total").await?;
        Ok(samples.iter().filter(|sample| sample.label("reporter") == "destination").map(|sample| sample.value).sum())
    }

    /// Waits until the proxy of a workload has let in `count` more.
    pub(super) async fn serve_more(&self, workload: &str, count: u32) -> Result<(), CliError> {
        let wanted = self.served(workload).await? + f64::from(count);
        let what = format!("{workload} is asked {count} times");
        until(&what, || async { Ok(self.served(workload).await? >= wanted) }).await.map(drop)
    }

    /// A page of a proxy's admin interface.
    pub(super) async fn admin_page(&self, workload: &str, path: &str) -> Result<String, CliError> {
        let address = self.mesh.admin.get(workload).copied();
        let address = address.ok_or_else(|| CliError::internal(format!("there is no proxy {workload}")))?;
        text(address, path).await
    }

    /// A page of the control plane as JSON.
    pub(super) async fn debug_page(&self, path: &str) -> Result<Value, CliError> {
        let text = text(self.mesh.monitoring, path).await?;
        let parsed = serde_json::from_str(&text);
        parsed.map_err(|error| CliError::user(format!("{path} of meshd is no JSON")).because(&error))
    }

    /// Waits until every connected proxy, and as many as there should be, holds all that was made for it.
    pub(super) async fn wait_for_sync(&self) -> Result<(), CliError> {
        let expected = self.mesh.plan.proxied().count();
        until("every proxy is in step", || async {
            let page = self.debug_page("/debug/syncz").await?;
            let proxies = page.get("proxies").and_then(Value::as_array).cloned().unwrap_or_default();
            let synced = proxies.iter().filter(|proxy| is_synced(proxy)).count();
            Ok(synced == expected && proxies.len() == expected)
        })
        .await
        .map(drop)
    }
}

/// Whether no type of a proxy waits for anything.
fn is_synced(proxy: &Value) -> bool {
    let types = proxy.get("types").and_then(Value::as_object);
    types.is_some_and(|types| {
        types.values().all(|kind| {
            let status = kind.get("status").and_then(Value::as_str).unwrap_or_default();
            status == "SYNCED" || status == "NOT SENT" || status == "IGNORED"
        })
    })
}

async fn text(address: SocketAddr, path: &str) -> Result<String, CliError> {
    let page = http::page(address, path).await;
    let page = page.map_err(|error| CliError::user("a page cannot be read").because(&error))?;
    Ok(String::from_utf8_lossy(&page).into_owned())
}

/// Looks at a condition until it is true and says how long that took.
pub(super) async fn until<F>(what: &str, mut condition: impl FnMut() -> F) -> Result<Duration, CliError>
where
    F: Future<Output = Result<bool, CliError>>,
{
    let start = Instant::now();
    let mut last = None;
    while start.elapsed() < PATIENCE {
        match condition().await {
            Ok(true) => return Ok(start.elapsed()),
            Ok(false) => last = None,
            Err(error) => last = Some(error),
        }
        tokio::time::sleep(POLL).await;
    }
    let why = last.map(|error| format!(" ({})", super::one_line(&error))).unwrap_or_default();
    wrong(format!("not true within {PATIENCE:?}: {what}{why}"))
}

/// Milliseconds for people.
pub(super) fn ms(time: Duration) -> String {
    format!("{:.1} ms", time.as_secs_f64() * 1000.0)
}
