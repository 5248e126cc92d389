//! `/stats`: every metric as Envoy's lines or JSON, with a filter.

use std::sync::Arc;

use http::StatusCode;
use mesh_api_rt::admin::{Request, Response, Router};
use mesh_api_rt::metrics::Format;
use regex::Regex;
use serde_json::json;

use super::Admin;
use super::ready;
use crate::config::store::Live;
use crate::telemetry::counters::Count;

/// Longest filter in bytes.
const MAX_FILTER_BYTES: usize = 1024;

/// Adds the page.
pub(super) fn pages(router: Router, admin: &Arc<Admin>) -> Router {
    let admin = Arc::clone(admin);
    router.get("/stats", "Metrics: ?filter=<regex>, ?usedonly, ?format=json|prometheus", move |request| {
        admin.stats(&request)
    })
}

impl Admin {
    fn stats(&self, request: &Request) -> Response {
        let filter = match request.param("filter") {
            Some(text) if text.len() > MAX_FILTER_BYTES => {
                return Response::text(StatusCode::BAD_REQUEST, "the filter is too long\n");
            }
            Some(text) => match Regex::new(&text) {
                Ok(filter) => Some(filter),
                Err(error) => {
                    return Response::text(StatusCode::BAD_REQUEST, format!("invalid regex in filter: {error}\n"));
                }
            },
            None => None,
        };
        let Ok(text) = self.metrics.encode(Format::Prometheus) else {
            return Response::text(StatusCode::INTERNAL_SERVER_ERROR, "a metric could not be encoded\n");
        };
        let format = request.param("format");
        if format.as_deref() == Some("prometheus") {
            return Response::new(StatusCode::OK, Format::Prometheus.content_type(), text);
        }
        let used_only = request.param("usedonly").is_some();
        let wanted = |name: &str, value: &str| {
            filter.as_ref().is_none_or(|filter| filter.is_match(name)) && !(used_only && value == "0")
        };
        let mut stats: Vec<(String, String)> = self.envoy_stats();
        stats.extend(text.lines().filter_map(plain));
        stats.retain(|(name, value)| wanted(name, value));
        stats.sort();
        match format.as_deref() {
            Some("json") => {
                let all: Vec<_> = stats
                    .iter()
                    .map(|(name, value)| {
                        let number = value.parse::<u64>().map_or_else(|_| json!(value), |number| json!(number));
                        json!({ "name": name, "value": number })
                    })
                    .collect();
                Response::json(&json!({ "stats": all }))
            }
            None | Some("text") => {
                Response::ok(stats.iter().map(|(name, value)| format!("{name}: {value}\n")).collect::<String>())
            }
            Some(other) => Response::text(
                StatusCode::BAD_REQUEST,
                format!("unknown format {other}; use text, json or prometheus\n"),
            ),
        }
    }

    /// The few numbers that Istio's agent and tools ask for by Envoy's dotted names.
    fn envoy_stats(&self) -> Vec<(String, String)> {
        let live: Arc<Live> = self.context.shared.store.live();
        let plan = &live.plan;
        let updates = if live.is_configured() { live.generation } else { 0 };
        let state = match self.not_ready() {
            None | Some(ready::NotReady::Failing) => 0,
            Some(ready::NotReady::Draining) => 1,
            Some(ready::NotReady::Configuration | ready::NotReady::Certificate | ready::NotReady::Names) => 2,
        };
        let hub = &self.context.hub;
        [
            ("server.state", state),
            ("server.live", u64::from(state == 0)),
            ("server.uptime", self.started.elapsed().as_secs()),
            ("server.concurrency", self.context.bootstrap.workers as u64),
            ("server.total_connections", hub.connections()),
            ("cluster_manager.active_clusters", plan.clusters().count() as u64),
            ("cluster_manager.cds.update_success", updates),
            ("listener_manager.lds.update_success", updates),
            ("listener_manager.total_listeners_active", plan.listeners().count() as u64),
            ("listener_manager.workers_started", u64::from(updates > 0)),
            ("http.requests_total", hub.count(Count::Requests)),
        ]
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value.to_string()))
        .collect()
    }
}

/// A sample of the text format as name and value: `a{b="c"} 1` becomes `a.b.c` and `1`.
fn plain(line: &str) -> Option<(String, String)> {
    if line.starts_with('#') {
        return None;
    }
    let (series, value) = line.rsplit_once(' ')?;
    let Some((name, labels)) = series.split_once('{') else { return Some((series.to_owned(), value.to_owned())) };
    let mut text = name.to_owned();
    let mut quoted = false;
    let mut escaped = false;
    text.push('.');
    for character in labels.trim_end_matches('}').chars() {
        match character {
            _ if escaped => {
                escaped = false;
                text.push(character);
            }
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            '=' | ',' if !quoted => text.push('.'),
            other => text.push(other),
        }
    }
    Some((text, value.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_become_names_with_dots() {
        let check = |line: &str, expect: Option<(&str, &str)>| {
            let found = plain(line);
            assert_eq!(found.as_ref().map(|(name, value)| (name.as_str(), value.as_str())), expect, "{line}");
        };
        check("# HELP a b", None);
        check("a 1", Some(("a", "1")));
        check(r#"a{b="c",d="e=f,\"g\""} 2.5"#, Some((r#"a.b.c.d.e=f,"g""#, "2.5")));
    }
}
