//! Metrics of the workload are merged into the proxy's: a scraper without a certificate still reads them. What the pod
//! says about scraping is kept for the agent, and replaced by the agent's own address. istio/istio:
//! pkg/kube/inject/webhook.go applyPrometheusMerge.

use mesh_api::mesh_config::MeshConfig;
use serde_json::{Value, json};

use super::{Refusal, annotations, view};

/// The variable that tells the agent where the workload's metrics are.
const SCRAPED: &str = "ISTIO_PROMETHEUS_ANNOTATIONS";
/// Annotations about scraping, as Prometheus sees them: with everything but letters and digits as `_`.
const SCRAPE: &str = "prometheus_io_scrape";
const PORT: &str = "prometheus_io_port";
const PATH: &str = "prometheus_io_path";
const TARGETS: &str = "prometheus_istio_io_scrape_targets";

/// Ports of the proxy that must not be scraped for the workload: why.
const RESERVED: &[(u16, &str)] = &[
    (15000, "admin"),
    (15001, "outbound traffic capture"),
    (15004, "control plane debug"),
    (15006, "inbound traffic capture"),
    (15008, "HBONE tunnel"),
    (15020, "merged metrics"),
    (15021, "readiness"),
    (15053, "DNS proxy"),
    (15090, "the proxy's own metrics, merged already"),
];

/// Merges the metrics, where pod and mesh want it. `port` is the agent's.
pub(super) fn merge(pod: &mut Value, mesh: &MeshConfig, port: u16) -> Result<(), Refusal> {
    if own(pod, SCRAPE).and_then(|text| view::go_bool(&text)) == Some(false) || !wanted(pod, mesh) {
        return Ok(());
    }
    let agent = port.to_string();
    if own(pod, PORT).as_deref() == Some(agent.as_str()) {
        return Ok(());
    }
    let scraped = scraped(pod, port)?;
    if let (Some(scraped), Some(proxy)) = (scraped, view::proxy_mut(pod)) {
        view::inner_list(proxy, "env").push(json!({ "name": SCRAPED, "value": scraped.to_string() }));
    }
    forget(pod);
    let annotations = view::annotations_mut(pod);
    annotations.insert("prometheus.io/port".to_owned(), agent.into());
    annotations.insert("prometheus.io/path".to_owned(), "/stats/prometheus".into());
    annotations.insert("prometheus.io/scrape".to_owned(), "true".into());
    Ok(())
}

/// Takes the agent's address away again, which an earlier injection wrote.
pub(super) fn forget_own(pod: &mut Value, port: u16) {
    if own(pod, PORT) == Some(port.to_string()) {
        forget(pod);
    }
}

fn wanted(pod: &Value, mesh: &MeshConfig) -> bool {
    let annotated = view::annotation(pod, "prometheus.istio.io/merge-metrics").and_then(view::go_bool);
    annotated.or(mesh.enable_prometheus_merge).unwrap_or(true)
}

/// The value of an annotation in any spelling that Prometheus takes for it.
fn own(pod: &Value, sanitized: &str) -> Option<String> {
    view::annotations(pod).find(|(name, _)| sanitize(name) == sanitized).map(|(_, value)| value.to_owned())
}

fn sanitize(name: &str) -> String {
    name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect()
}

fn forget(pod: &mut Value) {
    let about_scraping = |name: &str| [SCRAPE, PORT, PATH, TARGETS].contains(&sanitize(name).as_str());
    view::annotations_mut(pod).retain(|name, _| !about_scraping(name));
}

/// What the pod says about scraping, as the agent reads it; `None` when it says nothing.
fn scraped(pod: &Value, agent: u16) -> Result<Option<Value>, Refusal> {
    let text = |name: &str| own(pod, name).unwrap_or_default();
    let (mut port, mut path, scrape) = (text(PORT), text(PATH), text(SCRAPE));
    let targets = targets(&text(TARGETS))?;
    for (target, _) in &targets {
        check(target, agent)?;
    }
    if let Some((first_port, first_path)) = targets.first() {
        (port, path) = (first_port.clone(), first_path.clone());
    } else if !port.is_empty() {
        check(&port, agent)?;
    }
    if [&port, &path, &scrape].into_iter().all(String::is_empty) {
        return Ok(None);
    }
    let mut scraped = json!({ "scrape": scrape, "path": path, "port": port });
    if !targets.is_empty() {
        let list: Vec<Value> = targets.iter().map(|(port, path)| json!({ "port": port, "path": path })).collect();
        view::as_object(&mut scraped).insert("targets".to_owned(), list.into());
    }
    Ok(Some(scraped))
}

/// `port:path` with commas between; the path is `/metrics` where there is none.
fn targets(text: &str) -> Result<Vec<(String, String)>, Refusal> {
    let entries = text.split(',').map(str::trim).filter(|entry| !entry.is_empty());
    let targets = entries.map(|entry| {
        let (port, path) = entry.split_once(':').unwrap_or((entry, ""));
        let path = if path.trim().is_empty() { "/metrics" } else { path.trim() };
        if port.trim().is_empty() {
            return Err(Refusal::new(format!("annotation 'prometheus.istio.io/scrape-targets': no port in {entry:?}")));
        }
        Ok((port.trim().to_owned(), path.to_owned()))
    });
    targets.collect()
}

/// A port that can be scraped for the workload.
fn check(text: &str, agent: u16) -> Result<(), Refusal> {
    let invalid = |why: &str| Refusal::new(format!("the pod's metrics cannot be scraped at port {text:?}: {why}"));
    let port = annotations::port(text).ok().filter(|port| *port != 0).ok_or_else(|| invalid("it is not a port"))?;
    if port == agent {
        return Err(invalid("it is the agent's own"));
    }
    match RESERVED.iter().find(|(reserved, _)| *reserved == port) {
        Some((_, why)) => Err(invalid(&format!("it is reserved for the proxy ({why})"))),
        None => Ok(()),
    }
}
