//! What a proxy started with, and its extensions.

use serde_json::Value;

use crate::dump::{at, canonical, items, list, text};
use crate::printer::Report;
use crate::table::Table;

pub(super) fn report(dump: &Value) -> Report {
    let sections = list(dump, "configs").iter();
    let mut found = sections.filter(|section| text(section, "@type").ends_with("BootstrapConfigDump"));
    let bootstrap = found.next().cloned().unwrap_or_default();
    let node = at(&bootstrap, "bootstrap.node").cloned().unwrap_or_default();
    let metadata = |name: &str| node.pointer(&format!("/metadata/{name}")).and_then(Value::as_str).unwrap_or("unknown");
    let build = at(&node, "user_agent_build_version");
    let number = |part: &str| {
        let part = build.and_then(|build| at(build, &format!("version.{part}"))).and_then(Value::as_u64);
        part.unwrap_or_default()
    };
    let label = build.and_then(|build| build.pointer("/metadata/revision.status")).and_then(Value::as_str);
    let version = format!("{}.{}.{}", number("major_number"), number("minor_number"), number("patch"));
    let proxy = match (build, label) {
        (None, _) => text(&node, "user_agent_name"),
        (Some(_), Some(label)) => format!("{version}/{label}"),
        (Some(_), None) => version,
    };
    let mut table = Table { padding: 1, ..Table::new(&["", ""]) };
    table.row(["Istio Version:".to_owned(), metadata("ISTIO_VERSION").to_owned()]);
    table.row(["Istio Proxy Version:".to_owned(), metadata("ISTIO_PROXY_SHA").to_owned()]);
    table.row(["Proxy Version:".to_owned(), proxy]);
    Report { table, data: canonical(&bootstrap), ..Report::default() }
}

/// Extensions that came by themselves.
pub(super) fn extensions(dump: &Value) -> Report {
    let found = items(dump, "EcdsConfigDump", &["ecds_filters"], "ecds_filter");
    let mut table = Table::new(&["ECDS NAME", "TYPE"]);
    for filter in &found {
        let kind = text(filter, "typed_config.@type");
        table.row([text(filter, "name"), kind.rsplit('.').next().unwrap_or_default().to_owned()]);
    }
    Report { table, data: found.into_iter().map(canonical).collect(), ..Report::default() }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn versions_are_the_nodes() {
        let dump = json!({ "configs": [{ "@type": "envoy.admin.v3.BootstrapConfigDump", "bootstrap": { "node": {
            "metadata": { "ISTIO_VERSION": "0.1.0" },
            "user_agent_build_version": { "version": { "major_number": 1, "minor_number": 40, "patch": 2 } } } } }] });
        let rows = report(&dump).table.rows;
        assert_eq!(rows[0], ["Istio Version:", "0.1.0"]);
        assert_eq!(rows[2], ["Proxy Version:", "1.40.2"]);
        assert_eq!(report(&json!({})).table.rows[0][1], "unknown");
    }
}
