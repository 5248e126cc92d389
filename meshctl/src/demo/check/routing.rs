//! Where requests go.

use std::path::PathBuf;
use std::time::Duration;

use rand::seq::SliceRandom as _;
use tokio::time::Instant;

use super::Check;
use super::support::{all_well, ensure, ms, traffic, until};
use crate::demo::plan::{HTTP_PORT, NAMESPACE};
use crate::demo::yaml;
use crate::error::CliError;
use crate::http;

/// Rounds of the random order: each possible order of three has a fair chance to come.
const ROUNDS: usize = 4;
/// Answers in a row that prove a share of nothing.
const STREAK: u32 = 25;

pub(super) async fn ingress(check: &Check<'_>) -> Result<String, CliError> {
    let start = Instant::now();
    let answer = http::ask(check.mesh.ingress, "/", &[]).await;
    let took = start.elapsed();
    let answer = answer.map_err(|error| CliError::user("no answer").because(&error))?;
    let from = answer.headers.get("x-service").and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
    ensure(answer.status.is_success() && from == "web", || format!("{} from {from:?}", answer.status))?;
    Ok(format!("{} from {from} in {}", answer.status, ms(took)))
}

pub(super) async fn shares(check: &mut Check<'_>) -> Result<String, CliError> {
    let url = format!("http://{}/api/reviews", check.mesh.ingress);
    let count = check.requests.to_string();
    let args = ["http", "--url", &url, "--count", &count, "--concurrency", "16", "--group-by", "x-reviews-version"];
    let figures = check.outside(&args).await?;
    all_well(&figures)?;
    let of = |version: &str| figures.by_group.get(version).copied().unwrap_or_default();
    let (first, second) = (of("v1"), of("v2"));
    ensure(first + second == figures.requests, || format!("answers by version: {:?}", figures.by_group))?;
    // A binomial distribution lies within five standard deviations but for one case in two million.
    #[expect(clippy::cast_precision_loss, reason = "exact up to 2^53 requests")]
    let (requests, got) = (figures.requests as f64, second as f64);
    let expected = requests * 0.1;
    let sigma = (requests * 0.1 * 0.9).sqrt();
    let off = (got - expected) / sigma;
    ensure(off.abs() <= 5.0, || format!("v1 {first}, v2 {second}: {off:+.1} sigma from {expected}"))?;
    Ok(format!("v1 {first}, v2 {second} of {requests}, {off:+.1} sigma; {:.0} requests/s", figures.per_second))
}

pub(super) async fn header(check: &mut Check<'_>) -> Result<String, CliError> {
    let url = format!("http://{}/api/reviews", check.mesh.ingress);
    let args = ["http", "--url", &url, "--count", "300", "--concurrency", "4", "--group-by", "x-reviews-version"];
    let ada = check.outside(&[&args, ["-H", "end-user: ada"].as_slice()].concat()).await?;
    all_well(&ada)?;
    let other = check.outside(&[&args, ["-H", "end-user: adam"].as_slice()].concat()).await?;
    all_well(&other)?;
    let third = |figures: &crate::demo::client::Figures| figures.by_group.get("v3").copied().unwrap_or_default();
    ensure(third(&ada) == ada.requests && third(&other) == 0, || {
        format!("ada: {:?}, adam: {:?}", ada.by_group, other.by_group)
    })?;
    Ok(format!("ada {} of {} from v3, adam none of {}", third(&ada), ada.requests, other.requests))
}

pub(super) async fn live_edit(check: &mut Check<'_>) -> Result<String, CliError> {
    let load = traffic(check, "/api/reviews", 200)?;
    let moved = back_and_forth(check).await;
    let restored = edit(check, yaml::REVIEWS, &yaml::reviews(90));
    let figures = load.stop().await?;
    let (forth, back) = moved?;
    restored?;
    all_well(&figures)?;
    check.wait_for_sync().await?;
    Ok(format!(
        "all to v2 {} after the save, all to v1 {} after the next; {} requests, none failed",
        ms(forth),
        ms(back),
        figures.requests
    ))
}

/// Moves all weight to one version and to the other, each with traffic before and after.
async fn back_and_forth(check: &Check<'_>) -> Result<(Duration, Duration), CliError> {
    check.serve_more("web-1", 50).await?;
    let forth = move_weights(check, 0, "v2").await?;
    check.serve_more("web-1", 50).await?;
    let back = move_weights(check, 100, "v1").await?;
    check.serve_more("web-1", 50).await?;
    Ok((forth, back))
}

/// Saves the file and measures until the first answer after which no other version than `expected` answers.
async fn move_weights(check: &Check<'_>, first: u32, expected: &str) -> Result<Duration, CliError> {
    let saved = Instant::now();
    edit(check, yaml::REVIEWS, &yaml::reviews(first))?;
    let ingress = check.mesh.ingress;
    let mut streak = 0;
    let mut since = saved.elapsed();
    while streak < STREAK {
        let answer = http::ask(ingress, "/api/reviews", &[]).await;
        let answer = answer.map_err(|error| CliError::user("no answer").because(&error))?;
        let version = answer.headers.get("x-reviews-version").and_then(|value| value.to_str().ok()).unwrap_or_default();
        if version != expected {
            streak = 0;
        } else {
            if streak == 0 {
                since = saved.elapsed();
            }
            streak += 1;
        }
        ensure(saved.elapsed() < super::support::PATIENCE, || format!("traffic did not move to {expected}"))?;
    }
    Ok(since)
}

fn edit(check: &Check<'_>, file: &str, text: &str) -> Result<(), CliError> {
    let path = check.mesh.dirs.config().join(file);
    yaml::replace(&path, text)
        .map_err(|error| CliError::internal(format!("cannot write {}", path.display())).because(&error))
}

fn remove(path: &PathBuf) -> Result<(), CliError> {
    std::fs::remove_file(path)
        .map_err(|error| CliError::internal(format!("cannot remove {}", path.display())).because(&error))
}

/// A Service, a DestinationRule that makes subsets of it, and a VirtualService that leads reviews there.
fn three_objects(check: &Check<'_>) -> [(&'static str, String); 3] {
    let endpoints: String = check
        .mesh
        .plan
        .servers("reviews")
        .map(|workload| {
            format!(
                "- addresses: [{}]\n  conditions: {{ready: true}}\n  targetRef: {{kind: Pod, name: {}, namespace: {NAMESPACE}}}\n",
                workload.address, workload.name
            )
        })
        .collect();
    let service = format!(
        "\
apiVersion: v1
kind: Service
metadata: {{name: opinions, namespace: {NAMESPACE}}}
spec:
  clusterIP: 10.96.0.99
  ports:
  - {{name: http, port: {HTTP_PORT}, targetPort: {HTTP_PORT}}}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata:
  name: opinions-1
  namespace: {NAMESPACE}
  labels: {{kubernetes.io/service-name: opinions}}
addressType: IPv4
ports:
- {{name: http, protocol: TCP, port: {HTTP_PORT}}}
endpoints:
{endpoints}"
    );
    let rule = format!(
        "\
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {{name: opinions, namespace: {NAMESPACE}}}
spec:
  host: opinions
  subsets:
  - name: third
    labels: {{version: v3}}
"
    );
    let routes = format!(
        "\
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: reviews, namespace: {NAMESPACE}}}
spec:
  hosts: [reviews]
  http:
  - route:
    - destination: {{host: opinions, subset: third}}
---
{}",
        // The rule of reviews itself stays as it is.
        yaml::reviews(90).split_once("---\n").map_or("", |(_, rule)| rule)
    );
    [("opinions-service.yaml", service), ("opinions-rule.yaml", rule), (yaml::REVIEWS, routes)]
}

pub(super) async fn random_order(check: &mut Check<'_>) -> Result<String, CliError> {
    let load = traffic(check, "/api/reviews", 150)?;
    check.serve_more("web-1", 20).await?;
    let mut orders = Vec::new();
    let mut outcome = Ok(());
    for _ in 0..ROUNDS {
        outcome = one_round(check, &mut orders).await;
        if outcome.is_err() {
            break;
        }
    }
    let figures = load.stop().await?;
    edit(check, yaml::REVIEWS, &yaml::reviews(90))?;
    for file in ["opinions-service.yaml", "opinions-rule.yaml"] {
        // What a failed round left behind.
        drop(std::fs::remove_file(check.mesh.dirs.config().join(file)));
    }
    check.wait_for_sync().await?;
    outcome?;
    let orders = orders.join(", ");
    ensure(figures.failed == 0, || format!("{}; orders {orders}", figures.complaint()))?;
    Ok(format!("{} requests, none failed; orders {orders}", figures.requests))
}

/// Applies the three in some order, each time until every proxy has it, and takes them away again.
async fn one_round(check: &mut Check<'_>, orders: &mut Vec<String>) -> Result<(), CliError> {
    let mut objects = three_objects(check);
    objects.shuffle(&mut check.rng);
    let letter = |file: &str| match file {
        "opinions-service.yaml" => "S",
        "opinions-rule.yaml" => "D",
        _ => "V",
    };
    orders.push(objects.iter().map(|(file, _)| letter(file)).collect::<Vec<_>>().join(">"));
    for (file, text) in &objects {
        let before = generation(check).await?;
        edit(check, file, text)?;
        settled(check, before).await?;
        check.serve_more("web-1", 10).await?;
    }
    let ingress = check.mesh.ingress;
    until("reviews are answered by the new service", || async move {
        let answer = http::ask(ingress, "/api/reviews", &[]).await;
        let answer = answer.map_err(|error| CliError::user("no answer").because(&error))?;
        Ok(answer.headers.get("x-reviews-version").is_some_and(|version| version == "v3"))
    })
    .await?;
    let before = generation(check).await?;
    edit(check, yaml::REVIEWS, &yaml::reviews(90))?;
    settled(check, before).await?;
    for file in ["opinions-rule.yaml", "opinions-service.yaml"] {
        let before = generation(check).await?;
        remove(&check.mesh.dirs.config().join(file))?;
        settled(check, before).await?;
    }
    Ok(())
}

/// The number of the control plane's present snapshot.
async fn generation(check: &Check<'_>) -> Result<u64, CliError> {
    let page = check.debug_page("/debug/syncz").await?;
    let number = page.pointer("/controlPlane/generation").and_then(serde_json::Value::as_u64);
    number.ok_or_else(|| CliError::internal("/debug/syncz of meshd tells no generation"))
}

/// Waits until a newer snapshot than `before` is with every proxy.
async fn settled(check: &Check<'_>, before: u64) -> Result<(), CliError> {
    until("the control plane has read the change", || async { Ok(generation(check).await? > before) }).await?;
    check.wait_for_sync().await
}

async fn faulty(check: &mut Check<'_>, fault: &str, path: &str) -> Result<crate::demo::client::Figures, CliError> {
    let url = check.url("catalogue", path)?;
    let header = format!("x-demo-fault: {fault}");
    check.shop(&["http", "--url", &url, "--count", "20", "--concurrency", "10", "-H", &header]).await
}

pub(super) async fn delay(check: &mut Check<'_>) -> Result<String, CliError> {
    let figures = faulty(check, "delay", "/products").await?;
    all_well(&figures)?;
    let (p50, max) = (figures.latency_ms.p50, figures.latency_ms.max);
    ensure((399.0..900.0).contains(&p50), || format!("p50 {p50:.0} ms of a delay of 400 ms"))?;
    Ok(format!("400 ms asked, p50 {p50:.0} ms, slowest {max:.0} ms"))
}

pub(super) async fn abort(check: &mut Check<'_>) -> Result<String, CliError> {
    let figures = faulty(check, "abort", "/products").await?;
    let aborted = figures.by_status.get("418").copied().unwrap_or_default();
    ensure(aborted == figures.requests && aborted > 0, || format!("statuses {:?}", figures.by_status))?;
    let seen = check.metrics(crate::demo::plan::SHOPPER, "istio_requests_total").await?;
    let flagged =
        seen.iter().any(|sample| sample.label("response_code") == "418" && sample.label("response_flags") == "FI");
    ensure(flagged, || "no istio_requests_total with 418 and response flag FI".to_owned())?;
    Ok(format!("{aborted} of {} answered 418, counted with flag FI", figures.requests))
}

pub(super) async fn timeout(check: &mut Check<'_>) -> Result<String, CliError> {
    let figures = faulty(check, "timeout", "/delay/3000").await?;
    let late = figures.by_status.get("504").copied().unwrap_or_default();
    let p50 = figures.latency_ms.p50;
    ensure(late == figures.requests && late > 0, || format!("statuses {:?}", figures.by_status))?;
    ensure((299.0..1500.0).contains(&p50), || format!("p50 {p50:.0} ms of a timeout of 300 ms"))?;
    let quick = faulty(check, "timeout", "/products").await?;
    all_well(&quick)?;
    Ok(format!("{late} of {} answered 504 after p50 {p50:.0} ms; quick answers pass", figures.requests))
}
