//! Variables that Istio's control plane was given and ours does not read.

use mesh_api::names::{MANAGED_BY, MANAGED_BY_LABEL};
use serde_json::Value;

use super::{Row, Weight, row};
use crate::objects::Found;

/// Variables that our control plane reads: docs/reference/meshd.md has them, from its flags.
const READ: &[&str] = &[
    "CITADEL_SELF_SIGNED_CA_CERT_TTL",
    "CLUSTER_ID",
    "DEFAULT_WORKLOAD_CERT_TTL",
    "INJECT_ENABLED",
    "ISTIOD_CUSTOM_HOST",
    "JWT_POLICY",
    "MAX_WORKLOAD_CERT_TTL",
    "PILOT_DEBOUNCE_AFTER",
    "PILOT_DEBOUNCE_MAX",
    "PILOT_ENABLE_EDS_DEBOUNCE",
    "PILOT_ENABLE_IP_AUTOALLOCATE",
    "PILOT_MAX_REQUESTS_PER_SECOND",
    "PILOT_PUSH_THROTTLE",
    "POD_NAME",
    "POD_NAMESPACE",
    "REVISION",
    "SERVICE_ACCOUNT",
    "TOKEN_AUDIENCES",
];

/// What Istio's own charts always set, with the values that change nothing here.
const OF_CHARTS: &[(&str, &[&str])] = &[
    ("CA_TRUSTED_NODE_ACCOUNTS", &[]),
    ("GOMAXPROCS", &[]),
    ("GOMEMLIMIT", &[]),
    ("KUBECONFIG", &[]),
    ("PILOT_CERT_PROVIDER", &["istiod"]),
    ("PILOT_ENABLE_ANALYSIS", &["false", "true"]),
    ("PILOT_TRACE_SAMPLING", &["1"]),
    ("PLATFORM", &[""]),
];

pub(super) fn rows(found: &Found) -> Vec<Row> {
    let subject = &found.subject;
    if subject.kind != "Deployment"
        || label(&subject.value, "app") != Some("istiod")
        || label(&subject.value, MANAGED_BY_LABEL) == Some(MANAGED_BY)
    {
        return Vec::new();
    }
    let containers = subject.value.pointer("/spec/template/spec/containers").and_then(Value::as_array);
    let mut rows = Vec::new();
    for container in containers.into_iter().flatten().filter(|container| container["name"] == "discovery") {
        for variable in container["env"].as_array().into_iter().flatten() {
            let Some(name) = variable["name"].as_str() else { continue };
            if !is_plain(name, variable["value"].as_str()) {
                let todo = "its effect is Istio's alone: see whether anybody relies on it";
                let what = "our control plane does not read it";
                rows.push(row(
                    found,
                    Weight::Differs,
                    &format!("spec.template.spec.containers[discovery].env.{name}"),
                    what,
                    todo,
                ));
            }
        }
    }
    rows
}

fn label<'a>(object: &'a Value, name: &str) -> Option<&'a str> {
    object["metadata"]["labels"][name].as_str()
}

/// Whether a variable is read here too, or makes no difference.
fn is_plain(name: &str, value: Option<&str>) -> bool {
    let harmless = OF_CHARTS.iter().find(|(known, _)| *known == name);
    READ.contains(&name)
        || harmless.is_some_and(|(_, values)| values.is_empty() || value.is_none_or(|value| values.contains(&value)))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// The page is made from the control plane's flags, so the list cannot lag behind them.
    #[test]
    fn the_variables_are_those_of_the_control_plane() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/reference/meshd.md");
        let page = std::fs::read_to_string(path).unwrap();
        let cells = page.lines().filter(|line| line.starts_with("| `--")).filter_map(|line| line.split('|').nth(2));
        let names = cells.flat_map(|cell| cell.split(',')).map(|name| name.trim().trim_matches('`'));
        // Ours alone begin so: Istio's control plane was never given them.
        let named: BTreeSet<&str> = names
            .filter(|name| name.starts_with(|first: char| first.is_ascii_uppercase()) && !name.starts_with("MESHD_"))
            .collect();
        assert_eq!(named, READ.iter().copied().collect());
    }

    #[test]
    fn what_the_charts_set_is_no_difference() {
        assert!(is_plain("PILOT_CERT_PROVIDER", Some("istiod")) && !is_plain("PILOT_CERT_PROVIDER", Some("k8s.io/x")));
        assert!(is_plain("GOMEMLIMIT", None) && is_plain("PILOT_PUSH_THROTTLE", Some("10")));
        assert!(!is_plain("PILOT_ENABLE_METADATA_EXCHANGE", Some("false")));
    }
}
