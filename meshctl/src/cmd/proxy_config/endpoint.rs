//! Endpoints, from the page of clusters.

use std::net::IpAddr;

use serde_json::Value;

use crate::dump::{at, canonical, field, list, text};
use crate::printer::Report;
use crate::table::Table;

/// Which endpoints.
#[derive(clap::Args, Clone, Debug, Default)]
pub(super) struct Filter {
    /// Address of the endpoint
    #[arg(long)]
    address: Option<String>,
    /// Port of the endpoint
    #[arg(long)]
    port: Option<u64>,
    /// Whole name of the cluster
    #[arg(long)]
    cluster: Option<String>,
    /// healthy, unhealthy, …
    #[arg(long)]
    status: Option<String>,
}

struct Row {
    /// For the order: numbers, not texts.
    key: (Option<IpAddr>, String, u64, String),
    address: String,
    port: u64,
    status: String,
    failed: bool,
    cluster: String,
}

pub(super) fn report(page: &Value, filter: &Filter) -> Report {
    let mut rows = Vec::new();
    let mut data = Vec::new();
    for cluster in list(page, "cluster_statuses") {
        let known: Vec<Row> = list(cluster, "host_statuses").iter().map(|host| row(cluster, host)).collect();
        let before = rows.len();
        rows.extend(known.into_iter().filter(|row| filter.takes(row)));
        if rows.len() > before {
            data.push(canonical(cluster));
        }
    }
    rows.sort_by(|a, b| a.key.cmp(&b.key));
    let mut table = Table::new(&["ENDPOINT", "STATUS", "OUTLIER CHECK", "CLUSTER"]);
    for Row { address, port, status, failed, cluster, .. } in rows {
        let endpoint = if address.contains("://") { address } else { format!("{address}:{port}") };
        table.row([endpoint, status, if failed { "FAILED" } else { "OK" }.to_owned(), cluster]);
    }
    Report { table, data: Value::Array(data), ..Report::default() }
}

fn row(cluster: &Value, host: &Value) -> Row {
    let cluster = text(cluster, "name");
    let socket = at(host, "address.socket_address");
    let (address, port) = match socket {
        Some(socket) => {
            (text(socket, "address"), field(socket, "port_value").and_then(Value::as_u64).unwrap_or_default())
        }
        None => match at(host, "address.pipe") {
            Some(pipe) => (format!("unix://{}", text(pipe, "path")), 0),
            None => {
                let inner = at(host, "address.envoy_internal_address").cloned().unwrap_or_default();
                (format!("envoy://{}/{}", text(&inner, "server_listener_name"), text(&inner, "endpoint_id")), 0)
            }
        },
    };
    let failed = at(host, "health_status.failed_outlier_check").and_then(Value::as_bool).unwrap_or_default();
    let status = text(host, "health_status.eds_health_status");
    Row { key: (address.parse().ok(), address.clone(), port, cluster.clone()), address, port, status, failed, cluster }
}

impl Filter {
    fn takes(&self, row: &Row) -> bool {
        self.address.as_deref().is_none_or(|wanted| row.address == wanted)
            && self.port.is_none_or(|wanted| row.port == wanted)
            && self.cluster.as_deref().is_none_or(|wanted| row.cluster == wanted)
            && self.status.as_deref().is_none_or(|wanted| row.status.eq_ignore_ascii_case(wanted))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn endpoints_are_istioctls_rows() {
        let host = |address: &str, failed: bool| {
            json!({ "address": { "socket_address": { "address": address, "port_value": 80 } },
                "health_status": { "eds_health_status": "HEALTHY", "failed_outlier_check": failed } })
        };
        let page = json!({ "cluster_statuses": [
            { "name": "a", "host_statuses": [host("10.0.0.10", false), host("10.0.0.9", true)] },
            { "name": "b", "host_statuses": [] },
        ] });
        let rows = report(&page, &Filter::default()).table.rows;
        assert_eq!(rows[0], ["10.0.0.9:80", "HEALTHY", "FAILED", "a"]);
        assert_eq!(rows[1], ["10.0.0.10:80", "HEALTHY", "OK", "a"]);
        let filter = Filter { status: Some("unhealthy".to_owned()), ..Filter::default() };
        assert_eq!(report(&page, &filter).table.rows.len(), 0);
    }
}
