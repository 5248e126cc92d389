//! Protocols other than plain HTTP requests.

use super::Check;
use super::support::{all_well, ensure};
use crate::demo::client::Figures;
use crate::demo::plan::SHOPPER;
use crate::error::CliError;

fn said(figures: &Figures) -> String {
    let Figures { requests, latency_ms, .. } = figures;
    format!("{requests} of {requests}, p50 {:.1} ms, p99 {:.1} ms", latency_ms.p50, latency_ms.p99)
}

pub(super) async fn unary(check: &mut Check<'_>) -> Result<String, CliError> {
    let url = check.url("orders", "")?;
    let figures = check.shop(&["grpc", "--url", &url, "--count", "500", "--concurrency", "8"]).await?;
    all_well(&figures)?;
    Ok(said(&figures))
}

pub(super) async fn streaming(check: &mut Check<'_>) -> Result<String, CliError> {
    let url = check.url("orders", "")?;
    let mut text = Vec::new();
    for method in ["stream", "bidi"] {
        let args =
            ["grpc", "--url", &url, "--method", method, "--messages", "20", "--count", "50", "--concurrency", "4"];
        let figures = check.shop(&args).await?;
        all_well(&figures)?;
        text.push(format!("{method} {} calls of 20 messages, p50 {:.1} ms", figures.requests, figures.latency_ms.p50));
    }
    Ok(text.join("; "))
}

pub(super) async fn websocket(check: &mut Check<'_>) -> Result<String, CliError> {
    let url = check.url("feed", "/feed")?;
    let inside = check.shop(&["ws", "--url", &url, "--count", "200", "--concurrency", "4"]).await?;
    all_well(&inside)?;
    let url = format!("http://{}/feed", check.mesh.ingress);
    let outside = check.outside(&["ws", "--url", &url, "--count", "100", "--concurrency", "2"]).await?;
    all_well(&outside)?;
    Ok(format!("in the mesh {}; through the ingress {}", said(&inside), said(&outside)))
}

pub(super) async fn tcp(check: &mut Check<'_>) -> Result<String, CliError> {
    let endpoint = check.mesh.plan.endpoint(&check.workload(SHOPPER)?, Check::service("tcp-echo")?);
    let args = ["tcp", "--addr", &endpoint, "--banner", "--count", "500", "--concurrency", "4"];
    let figures = check.shop(&args).await?;
    all_well(&figures)?;
    let opened = check.metrics("tcp-echo-1", "istio_tcp_connections_opened_total").await?;
    let from = opened.iter().find(|sample| sample.label("source_principal").ends_with("/sa/shopper"));
    ensure(from.is_some_and(|sample| sample.value > 0.0), || {
        "tcp-echo's proxy counted no connection of the shopper".to_owned()
    })?;
    // Without headers, proxies tell each other who they are before the first byte.
    ensure(from.is_some_and(|sample| sample.label("source_workload").starts_with("shopper")), || {
        format!("tcp-echo's proxy does not know the shopper's workload: {from:?}")
    })?;
    Ok(said(&figures))
}
