//! Routes.

use serde_json::Value;

use crate::dump::{at, canonical, field, items, list, origin, text, texts};
use crate::printer::Report;
use crate::table::Table;

/// Which routes.
#[derive(clap::Args, Clone, Debug, Default)]
pub(super) struct Filter {
    /// Name of the route configuration
    #[arg(long)]
    name: Option<String>,
    /// false: one line for each route configuration
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set)]
    verbose: bool,
}

impl Filter {
    /// Everything, line by line.
    pub(super) fn all() -> Self {
        Self { name: None, verbose: true }
    }
}

pub(super) fn report(dump: &Value, filter: &Filter) -> Report {
    let lists = ["static_route_configs", "dynamic_route_configs"];
    let mut found: Vec<&Value> = items(dump, "RoutesConfigDump", &lists, "route_config");
    found.retain(|config| filter.name.as_deref().is_none_or(|wanted| text(config, "name") == wanted));
    found.sort_by_cached_key(|config| {
        let name = text(config, "name");
        (name.parse::<u32>().unwrap_or(u32::MAX), name)
    });
    let table = if filter.verbose { long(&found) } else { short(&found) };
    Report { table, data: found.into_iter().map(canonical).collect(), ..Report::default() }
}

fn short(configs: &[&Value]) -> Table {
    let mut table = Table::new(&["NAME", "VIRTUAL HOSTS"]);
    for config in configs {
        table.row([text(config, "name"), list(config, "virtual_hosts").len().to_string()]);
    }
    table
}

fn long(configs: &[&Value]) -> Table {
    let mut table = Table::new(&["NAME", "VHOST NAME", "DOMAINS", "MATCH", "VIRTUAL SERVICE"]);
    for config in configs {
        let name = text(config, "name");
        for host in list(config, "virtual_hosts") {
            let (host_name, domains) = (text(host, "name"), domains(&texts(host, "domains")));
            let routes = list(host, "routes");
            if routes.is_empty() {
                table.row([name.clone(), host_name, domains, "/*".to_owned(), "404".to_owned()]);
                continue;
            }
            let shown = routes.iter().filter(|route| text(route, "route.cluster") != "PassthroughCluster");
            for route in shown {
                table.row([name.clone(), host_name.clone(), domains.clone(), path(route), origin(route)]);
            }
        }
    }
    table
}

/// The shortest names first: the two that say most, without ports, and how many more there are.
fn domains(all: &[String]) -> String {
    /// Domains shown.
    const SHOWN: usize = 2;
    let bare = |domain: &str| match domain.rsplit_once(':') {
        Some((_, port)) => !port.bytes().all(|byte| byte.is_ascii_digit()),
        None => true,
    };
    let mut shown: Vec<&str> = all.iter().map(String::as_str).filter(|domain| bare(domain)).collect();
    if shown.is_empty() {
        shown = all.iter().map(String::as_str).collect();
    }
    let more = shown.len().saturating_sub(SHOWN);
    // A name within the cluster has short forms; the shortest and the whole one tell all of them.
    shown.sort_by_key(|domain| (domain.parse::<std::net::IpAddr>().is_ok(), domain.len(), *domain));
    shown.truncate(SHOWN);
    let shown = shown.join(", ");
    if more == 0 { shown } else { format!("{shown} + {more} more...") }
}

/// What of a route's match is about the path, as istioctl writes it.
pub(super) fn path(route: &Value) -> String {
    let Some(condition) = field(route, "match") else { return "/*".to_owned() };
    let regex = || at(condition, "safe_regex.regex").and_then(Value::as_str);
    let part = |name: &str| field(condition, name).and_then(Value::as_str);
    if let Some(prefix) = part("prefix") {
        format!("{prefix}*")
    } else if let Some(exact) = part("path") {
        exact.to_owned()
    } else if let Some(prefix) = part("path_separated_prefix") {
        format!("PathPrefix:{prefix}")
    } else if let Some(regex) = regex() {
        format!("regex {regex}")
    } else {
        "/*".to_owned()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn routes_are_istioctls_rows() {
        let lateen = json!({ "filter_metadata": { "lateen": { "origin": "VirtualService/shop/web" } } });
        let dump = json!({ "configs": [{ "@type": "envoy.admin.v3.RoutesConfigDump", "dynamic_route_configs": [
            { "route_config": { "name": "8080", "virtual_hosts": [
                { "name": "web", "domains": ["web.shop", "web", "web.shop.svc", "web:8080"], "routes": [
                    { "match": { "path_separated_prefix": "/a" }, "metadata": lateen, "route": { "cluster": "x" } },
                    { "match": { "safe_regex": { "regex": "/b.*" } }, "route": { "cluster": "x" } },
                ] },
                { "name": "allow_any", "domains": ["*"], "routes": [
                    { "match": { "prefix": "/" }, "route": { "cluster": "PassthroughCluster" } } ] },
                { "name": "blackhole", "domains": ["*"], "routes": [] },
            ] } },
            { "route_config": { "name": "80", "virtual_hosts": [] } },
        ] }] });
        let filter = Filter { verbose: true, ..Filter::default() };
        assert_eq!(
            report(&dump, &filter).table.rows,
            [
                ["8080", "web", "web, web.shop + 1 more...", "PathPrefix:/a", "web.shop"],
                ["8080", "web", "web, web.shop + 1 more...", "regex /b.*", ""],
                ["8080", "blackhole", "*", "/*", "404"],
            ]
        );
        assert_eq!(report(&dump, &Filter::default()).table.rows, [["80", "0"], ["8080", "3"]]);
    }
}
