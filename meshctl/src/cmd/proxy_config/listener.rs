//! Listeners.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::dump::{at, canonical, field, items, list, text, texts};
use crate::printer::Report;
use crate::table::Table;

/// Which listeners.
#[derive(clap::Args, Clone, Debug, Default)]
pub(super) struct Filter {
    /// Address of the listener
    #[arg(long)]
    address: Option<String>,
    /// Port of the listener
    #[arg(long)]
    port: Option<u64>,
    /// HTTP, TCP, HTTP+TCP or UNKNOWN
    #[arg(long = "type")]
    kind: Option<String>,
    /// false: one line for each listener, with its type
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set)]
    verbose: bool,
}

/// Names that istioctl gives to sets of application protocols.
const PROTOCOLS: [(&str, &[&str]); 5] = [
    ("App: HTTP TLS", &["http/1.0", "http/1.1", "h2c", "istio-http/1.0", "istio-http/1.1", "istio-h2"]),
    ("App: Istio HTTP Plain", &["istio", "istio-http/1.0", "istio-http/1.1", "istio-h2"]),
    ("App: TCP TLS", &["istio-peer-exchange", "istio"]),
    ("App: HTTP", &["http/1.0", "http/1.1", "h2c"]),
    ("App: HTTP", &["http/1.1", "h2c"]),
];

/// The end of the name of the HTTP filter's configuration.
const HTTP: &str = "http_connection_manager";
const TCP: &str = "tcp_proxy";

pub(super) fn report(dump: &Value, filter: &Filter) -> Report {
    let lists = items(dump, "ListenersConfigDump", &["static_listeners"], "listener");
    let dynamic = items(dump, "ListenersConfigDump", &["dynamic_listeners"], "active_state.listener");
    let mut found: Vec<&Value> = lists.into_iter().chain(dynamic).filter(|listener| filter.takes(listener)).collect();
    found.sort_by_cached_key(|listener| {
        let (address, port) = socket(listener);
        (port, address, kind(listener))
    });
    let last = if filter.verbose { ["MATCH", "DESTINATION"] } else { ["TYPE", ""] };
    let headers: Vec<&'static str> =
        ["ADDRESSES", "PORT"].into_iter().chain(last).filter(|header| !header.is_empty()).collect();
    let mut table = Table { padding: 1, ..Table::new(&headers) };
    for listener in &found {
        let (address, port) = socket(listener);
        let port = port.to_string();
        if !filter.verbose {
            table.row([address, port, kind(listener)]);
            continue;
        }
        for chain in list(listener, "filter_chains") {
            table.row([address.clone(), port.clone(), matches(chain), destination(chain)]);
        }
        if let Some(chain) = field(listener, "default_filter_chain") {
            table.row([address.clone(), port.clone(), "ALL".to_owned(), destination(chain)]);
        }
    }
    Report { table, data: found.into_iter().map(canonical).collect(), ..Report::default() }
}

fn socket(listener: &Value) -> (String, u64) {
    let port = at(listener, "address.socket_address.port_value").and_then(Value::as_u64).unwrap_or_default();
    let more = list(listener, "additional_addresses").iter().map(|more| text(more, "address.socket_address.address"));
    let all: Vec<String> = std::iter::once(text(listener, "address.socket_address.address")).chain(more).collect();
    (all.join(","), port)
}

fn chains(listener: &Value) -> impl Iterator<Item = &Value> {
    list(listener, "filter_chains").iter().chain(field(listener, "default_filter_chain"))
}

fn kind(listener: &Value) -> String {
    let has = |suffix: &str| {
        chains(listener).any(|chain| list(chain, "filters").iter().any(|filter| text(filter, "name").ends_with(suffix)))
    };
    match (has(HTTP), has(TCP)) {
        (true, true) => "HTTP+TCP",
        (true, false) => "HTTP",
        (false, true) => "TCP",
        (false, false) => "UNKNOWN",
    }
    .to_owned()
}

/// Which connections a chain takes.
fn matches(chain: &Value) -> String {
    let Some(condition) = field(chain, "filter_chain_match") else { return "ALL".to_owned() };
    let mut all = Vec::new();
    let names = texts(condition, "server_names");
    if !names.is_empty() {
        all.push(format!("SNI: {}", names.join(",")));
    }
    let transport = text(condition, "transport_protocol");
    if !transport.is_empty() {
        all.push(format!("Trans: {transport}"));
    }
    let protocols = texts(condition, "application_protocols");
    if !protocols.is_empty() {
        let set: BTreeSet<&str> = protocols.iter().map(String::as_str).collect();
        let known = PROTOCOLS.iter().find(|(_, names)| set == names.iter().copied().collect());
        all.push(known.map_or_else(|| format!("App: {}", protocols.join(",")), |(name, _)| (*name).to_owned()));
    }
    let port = field(condition, "destination_port").and_then(port_of);
    let ranges: Vec<String> = list(condition, "prefix_ranges").iter().map(range).collect();
    match (ranges.is_empty(), port) {
        (false, port) => {
            let port = port.map(|port| format!(":{port}")).unwrap_or_default();
            all.push(format!("Addr: {}{port}", ranges.join(",")));
        }
        (true, Some(port)) => all.push(format!("Addr: *:{port}")),
        (true, None) => {}
    }
    if all.is_empty() { "ALL".to_owned() } else { all.join("; ") }
}

/// A number, or a wrapper around one.
fn port_of(value: &Value) -> Option<u64> {
    value.as_u64().or_else(|| value.get("value")?.as_u64())
}

fn range(range: &Value) -> String {
    let address = text(range, "address_prefix");
    let bits = field(range, "prefix_len").and_then(port_of).unwrap_or_default();
    let whole = if address.contains(':') { 128 } else { 32 };
    if bits == whole { address } else { format!("{address}/{bits}") }
}

/// Where a chain's connections go.
fn destination(chain: &Value) -> String {
    for filter in list(chain, "filters") {
        let name = text(filter, "name");
        let Some(config) = field(filter, "typed_config") else { continue };
        if name.ends_with(HTTP) {
            let route = text(config, "rds.route_config_name");
            return if route.is_empty() { inline(config) } else { format!("Route: {route}") };
        }
        if name.ends_with(TCP) {
            return clusters(config);
        }
    }
    "Non-HTTP/Non-TCP".to_owned()
}

fn clusters(config: &Value) -> String {
    let one = text(config, "cluster");
    if one.is_empty() {
        let several: Vec<String> =
            list(config, "weighted_clusters.clusters").iter().map(|cluster| text(cluster, "name")).collect();
        return format!("Cluster: {}", several.join(","));
    }
    if one.ends_with("PassthroughCluster") || one == "BlackHoleCluster" { one } else { format!("Cluster: {one}") }
}

fn inline(config: &Value) -> String {
    let hosts = list(config, "route_config.virtual_hosts").iter();
    let all: Vec<String> = hosts
        .flat_map(|host| {
            let domains = texts(host, "domains").join(",");
            // A host for everything is not worth a word.
            let domains = if domains == "*" { String::new() } else { format!("{domains} ") };
            list(host, "routes").iter().map(move |route| format!("{domains}{}", super::route::path(route)))
        })
        .collect();
    format!("Inline Route: {}", all.join(", "))
}

impl Filter {
    /// Everything, line by line.
    pub(super) fn all() -> Self {
        Self { verbose: true, ..Self::default() }
    }

    fn takes(&self, listener: &Value) -> bool {
        let (addresses, port) = socket(listener);
        self.address.as_deref().is_none_or(|wanted| addresses.split(',').any(|known| known == wanted))
            && self.port.is_none_or(|wanted| wanted == port)
            && self.kind.as_deref().is_none_or(|wanted| wanted.eq_ignore_ascii_case(&kind(listener)))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn chains_are_istioctls_rows() {
        let http = json!({ "name": "envoy.filters.network.http_connection_manager",
            "typed_config": { "rds": { "route_config_name": "80" } } });
        let tcp =
            json!({ "name": "envoy.filters.network.tcp_proxy", "typed_config": { "cluster": "PassthroughCluster" } });
        let listener = json!({
            "name": "0.0.0.0_80", "address": { "socket_address": { "address": "0.0.0.0", "port_value": 80 } },
            "filter_chains": [
                { "filter_chain_match": { "application_protocols": ["http/1.1", "h2c"], "transport_protocol": "raw_buffer" },
                  "filters": [http] },
                { "filter_chain_match": { "prefix_ranges": [{ "address_prefix": "10.0.0.1", "prefix_len": 32 }],
                    "destination_port": 15006 }, "filters": [tcp.clone()] },
            ],
            "default_filter_chain": { "filters": [tcp] },
        });
        let dump = json!({ "configs": [{ "@type": "envoy.admin.v3.ListenersConfigDump",
            "dynamic_listeners": [{ "active_state": { "listener": listener } }] }] });
        let all = Filter { verbose: true, ..Filter::default() };
        assert_eq!(
            report(&dump, &all).table.rows,
            [
                ["0.0.0.0", "80", "Trans: raw_buffer; App: HTTP", "Route: 80"],
                ["0.0.0.0", "80", "Addr: 10.0.0.1:15006", "PassthroughCluster"],
                ["0.0.0.0", "80", "ALL", "PassthroughCluster"],
            ]
        );
        assert_eq!(report(&dump, &Filter::default()).table.rows, [["0.0.0.0", "80", "HTTP+TCP"]]);
        let other = Filter { port: Some(81), ..all };
        assert_eq!(report(&dump, &other).table.rows.len(), 0);
    }
}
