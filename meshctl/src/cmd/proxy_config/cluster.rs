//! Clusters.

use serde_json::Value;

use crate::dump::{canonical, cluster_parts, dash, field, items, origin, text};
use crate::printer::Report;
use crate::table::Table;

/// Which clusters.
#[derive(clap::Args, Clone, Debug, Default)]
pub(super) struct Filter {
    /// Part of the service's name
    #[arg(long)]
    fqdn: Option<String>,
    /// Port of the service
    #[arg(long)]
    port: Option<u16>,
    /// inbound or outbound
    #[arg(long)]
    direction: Option<String>,
    /// Subset of the service
    #[arg(long)]
    subset: Option<String>,
}

/// The lists of a dump with clusters.
const LISTS: [&str; 3] = ["static_clusters", "dynamic_active_clusters", "dynamic_warming_clusters"];

pub(super) fn report(dump: &Value, filter: &Filter) -> Report {
    let mut found: Vec<&Value> = items(dump, "ClustersConfigDump", &LISTS, "cluster");
    found.retain(|cluster| filter.takes(&text(cluster, "name")));
    found.sort_by_cached_key(|cluster| {
        let name = text(cluster, "name");
        let [direction, port, subset, host] = cluster_parts(&name).unwrap_or(["", "0", "", &name]);
        (host.to_owned(), subset.to_owned(), port.parse::<u16>().unwrap_or_default(), direction.to_owned())
    });
    let headers = ["SERVICE FQDN", "PORT", "SUBSET", "DIRECTION", "TYPE", "DESTINATION RULE"];
    let mut table = Table::new(&headers);
    for cluster in &found {
        let name = text(cluster, "name");
        let [direction, port, subset, host] = cluster_parts(&name).unwrap_or(["-", "-", "-", &name]);
        table.row([host.to_owned(), dash(port), dash(subset), dash(direction), kind(cluster), origin(cluster)]);
    }
    Report { table, data: found.into_iter().map(canonical).collect(), ..Report::default() }
}

impl Filter {
    fn takes(&self, name: &str) -> bool {
        let parts = cluster_parts(name);
        let [direction, port, subset, host] = parts.unwrap_or(["", "", "", name]);
        self.fqdn.as_deref().is_none_or(|wanted| host.contains(wanted))
            && self.port.is_none_or(|wanted| port == wanted.to_string())
            && self.direction.as_deref().is_none_or(|wanted| direction.eq_ignore_ascii_case(wanted))
            && self.subset.as_deref().is_none_or(|wanted| subset == wanted)
    }
}

/// `EDS`, `STRICT_DNS`, or the name of an extension; a cluster that says nothing is `STATIC`.
fn kind(cluster: &Value) -> String {
    let extension = || Some(text(field(cluster, "cluster_type")?, "name"));
    match text(cluster, "type") {
        none if none.is_empty() => extension().unwrap_or_else(|| "STATIC".to_owned()),
        known => known,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn clusters_are_istioctls_rows() {
        let cluster = |name: &str, kind: &str| json!({ "cluster": { "name": name, "type": kind } });
        let dump = json!({ "configs": [{
            "@type": "type.googleapis.com/envoy.admin.v3.ClustersConfigDump",
            "dynamic_active_clusters": [
                cluster("outbound|80|v1|web.shop", "EDS"),
                cluster("PassthroughCluster", "ORIGINAL_DST"),
                cluster("inbound|8080||", "ORIGINAL_DST"),
            ],
        }] });
        let rows = |filter: &Filter| report(&dump, filter).table.rows;
        assert_eq!(rows(&Filter::default())[0], ["", "8080", "-", "inbound", "ORIGINAL_DST", ""]);
        assert_eq!(rows(&Filter::default())[1], ["PassthroughCluster", "-", "-", "-", "ORIGINAL_DST", ""]);
        let filter = Filter { port: Some(80), ..Filter::default() };
        assert_eq!(rows(&filter), [["web.shop", "80", "v1", "outbound", "EDS", ""]]);
    }
}
