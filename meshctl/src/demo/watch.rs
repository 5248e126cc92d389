//! The live table: what the proxies' metrics say about the last seconds.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use super::mesh::Mesh;
use super::metrics::{Sample, parse, quantile};
use crate::error::CliError;
use crate::http;
use crate::printer;
use crate::table::Table;

/// Time between two looks.
const INTERVAL: Duration = Duration::from_secs(2);
/// Looks between two lines where nobody watches.
const LOOKS_A_LINE: u32 = 5;
/// Back to the top left, and clear what is below.
const CLEAR: &str = "\u{1b}[H\u{1b}[2J";

/// A counter's name and labels.
type Series = (String, BTreeMap<String, String>);

/// What was read from all proxies at one time.
#[derive(Debug)]
struct Look {
    at: Instant,
    values: BTreeMap<Series, f64>,
}

/// One service and version as its own proxies saw it.
#[derive(Clone, Debug, Default, PartialEq)]
struct Served {
    requests: f64,
    failed: f64,
    bytes: f64,
    /// Cumulative counts by upper bound, which is kept as its text.
    buckets: BTreeMap<String, f64>,
}

/// What happened between two looks.
#[derive(Clone, Debug, Default, PartialEq)]
struct Traffic {
    seconds: f64,
    served: BTreeMap<(String, String), Served>,
    /// Who called whom, how secured: requests and bytes.
    calls: BTreeMap<(String, String, String), (f64, f64)>,
}

/// Shows traffic until a part of the mesh dies.
///
/// # Errors
/// Says which part died.
pub async fn run(mesh: &Mesh, head: &str) -> Result<(), CliError> {
    let terminal = printer::is_terminal();
    let mut before = look(mesh).await;
    let mut count = 0;
    loop {
        tokio::time::sleep(INTERVAL).await;
        if let Some(casualty) = mesh.casualty() {
            return Err(casualty);
        }
        count += 1;
        if !terminal && count % LOOKS_A_LINE != 0 {
            continue;
        }
        let now = look(mesh).await;
        let traffic = traffic(&before, &now);
        let text = if terminal {
            format!("{CLEAR}{head}\n{}\n{}", services_table(&traffic), calls_table(&traffic))
        } else {
            line(&traffic)
        };
        printer::out(&text).map_err(|error| CliError::internal("cannot write the table").because(&error))?;
        before = now;
    }
}

/// Reads all proxies. One that does not answer is left out: it may be starting again.
async fn look(mesh: &Mesh) -> Look {
    let pages = mesh.admin.values().map(|address| http::page(*address, "/stats/prometheus"));
    let pages = futures::future::join_all(pages).await;
    let mut values = BTreeMap::new();
    for page in pages.into_iter().flatten() {
        for Sample { name, labels, value } in parse(&String::from_utf8_lossy(&page), "istio_") {
            // What clients saw is the other side of the same.
            if labels.get("reporter").is_some_and(|reporter| reporter == "destination") {
                *values.entry((name, labels)).or_default() += value;
            }
        }
    }
    Look { at: Instant::now(), values }
}

fn traffic(before: &Look, now: &Look) -> Traffic {
    let mut traffic = Traffic { seconds: (now.at - before.at).as_secs_f64().max(0.001), ..Traffic::default() };
    for ((name, labels), value) in &now.values {
        let key = (name.clone(), labels.clone());
        let old = before.values.get(&key).copied().unwrap_or_default();
        // A proxy that was started again counts from zero.
        let grown = if *value >= old { value - old } else { *value };
        let label = |name: &str| labels.get(name).cloned().unwrap_or_default();
        let server = (label("destination_app"), label("destination_version"));
        let call = || (label("source_principal"), label("destination_principal"), label("connection_security_policy"));
        match name.as_str() {
            "istio_requests_total" if grown > 0.0 => {
                let served = traffic.served.entry(server).or_default();
                served.requests += grown;
                let grpc = label("grpc_response_status");
                if label("response_code").starts_with('5') || !(grpc.is_empty() || grpc == "0") {
                    served.failed += grown;
                }
                traffic.calls.entry(call()).or_default().0 += grown;
            }
            "istio_request_duration_milliseconds_bucket" => {
                let served = traffic.served.entry(server).or_default();
                *served.buckets.entry(label("le")).or_default() += grown;
            }
            "istio_tcp_received_bytes_total" | "istio_tcp_sent_bytes_total" if grown > 0.0 => {
                traffic.served.entry(server).or_default().bytes += grown;
                traffic.calls.entry(call()).or_default().1 += grown;
            }
            _ => {}
        }
    }
    traffic
}

impl Served {
    fn quantile(&self, share: f64) -> Option<f64> {
        let bound = |text: &str| if text == "+Inf" { Some(f64::INFINITY) } else { text.parse().ok() };
        let mut buckets: Vec<(f64, f64)> =
            self.buckets.iter().filter_map(|(le, count)| Some((bound(le)?, *count))).collect();
        buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
        quantile(&buckets, share)
    }

    /// Share of requests that did well, in percent.
    fn success(&self) -> Option<f64> {
        (self.requests > 0.0).then(|| 100.0 * (self.requests - self.failed) / self.requests)
    }
}

fn services_table(traffic: &Traffic) -> Table {
    let headers = ["SERVICE", "VERSION", "RPS", "SUCCESS", "P50", "P99", "TCP"];
    let mut table = Table { padding: 3, ..Table::new(&headers) };
    let ms = |time: Option<f64>| time.map_or_else(|| "-".to_owned(), |time| format!("{time:.1} ms"));
    for ((service, version), served) in &traffic.served {
        table.row([
            service.clone(),
            version.clone(),
            format!("{:.1}", served.requests / traffic.seconds),
            served.success().map_or_else(|| "-".to_owned(), |share| format!("{share:.1}%")),
            ms(served.quantile(0.5)),
            ms(served.quantile(0.99)),
            if served.bytes > 0.0 { format!("{:.0} B/s", served.bytes / traffic.seconds) } else { "-".to_owned() },
        ]);
    }
    table
}

fn calls_table(traffic: &Traffic) -> Table {
    let mut table = Table { padding: 3, ..Table::new(&["CALLER", "CALLED", "SECURITY", "RPS"]) };
    for ((caller, called, security), (requests, bytes)) in &traffic.calls {
        let rate = if *requests > 0.0 {
            format!("{:.1}", requests / traffic.seconds)
        } else {
            format!("{:.0} B/s", bytes / traffic.seconds)
        };
        table.row([caller.clone(), called.clone(), security.clone(), rate]);
    }
    table
}

/// All services in one line, for logs.
fn line(traffic: &Traffic) -> String {
    let services =
        traffic.served.iter().filter(|(_, served)| served.requests > 0.0).map(|((service, version), served)| {
            let time = served.quantile(0.99).map_or_else(|| "-".to_owned(), |time| format!("{time:.1}ms"));
            let success = served.success().unwrap_or(100.0);
            format!("{service}/{version} {:.1}rps {success:.1}% p99 {time}", served.requests / traffic.seconds)
        });
    let services: Vec<String> = services.collect();
    format!("{}\n", if services.is_empty() { "no traffic".to_owned() } else { services.join("  ") })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look_at(at: Instant, text: &str) -> Look {
        let samples = parse(text, "istio_");
        Look { at, values: samples.into_iter().map(|sample| ((sample.name, sample.labels), sample.value)).collect() }
    }

    const LABELS: &str = "reporter=\"destination\",destination_app=\"web\",destination_version=\"v1\",\
        source_principal=\"a\",destination_principal=\"b\",connection_security_policy=\"mutual_tls\"";

    fn page(fine: u32, failed: u32) -> String {
        let all = fine + failed;
        format!(
            "istio_requests_total{{{LABELS},response_code=\"200\"}} {fine}\n\
             istio_requests_total{{{LABELS},response_code=\"503\"}} {failed}\n\
             istio_request_duration_milliseconds_bucket{{{LABELS},le=\"1.0\"}} 0\n\
             istio_request_duration_milliseconds_bucket{{{LABELS},le=\"5.0\"}} {all}\n\
             istio_request_duration_milliseconds_bucket{{{LABELS},le=\"+Inf\"}} {all}\n"
        )
    }

    #[test]
    fn rates_are_what_grew_between_two_looks() {
        let start = Instant::now();
        let before = look_at(start, &page(100, 0));
        let now = look_at(start + Duration::from_secs(2), &page(118, 2));
        let traffic = traffic(&before, &now);
        let text = services_table(&traffic).to_string();
        assert!(text.contains("web       v1        10.0   90.0%     3.0 ms   5.0 ms"), "{text}");
        assert!(calls_table(&traffic).to_string().contains("a        b        mutual_tls   10.0"));
        assert!(line(&traffic).starts_with("web/v1 10.0rps 90.0%"));
    }

    #[test]
    fn a_restarted_proxy_counts_from_zero() {
        let start = Instant::now();
        let before = look_at(start, &page(100, 0));
        let traffic = traffic(&before, &look_at(start + Duration::from_secs(1), &page(7, 0)));
        assert_eq!(traffic.served[&("web".to_owned(), "v1".to_owned())].requests, 7.0);
    }
}
