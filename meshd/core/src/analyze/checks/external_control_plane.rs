//! Webhooks that lead to a control plane in another cluster, by URL.

use std::net::IpAddr;

use super::Check;
use crate::analyze::message::{CONTROL_PLANE_BY_IP, CONTROL_PLANE_UNKNOWN, Messages};
use crate::analyze::objects::{Objects, Subject};
use crate::analyze::sorts::Sort;
use crate::analyze::view;

pub(super) const CHECK: Check =
    Check { name: "webhooks.external", doc: "Webhooks that lead to another cluster name its host", needs: &[], run };

/// Names of the mesh's own webhooks, or how they begin.
const OWN: [(Sort, &[&str]); 2] = [
    (Sort::VALIDATING_WEBHOOK, &["istiod-default-validator", "istio-validator"]),
    (Sort::MUTATING_WEBHOOK, &["istio-sidecar-injector"]),
];

fn run(objects: &Objects, messages: &mut Messages) {
    for (sort, names) in OWN {
        for configuration in objects.of(sort) {
            if names.iter().any(|name| configuration.name.starts_with(name)) {
                one(configuration, messages);
            }
        }
    }
}

fn one(configuration: &Subject, messages: &mut Messages) {
    for (index, webhook) in configuration.list("webhooks").iter().enumerate() {
        let (name, path) = (view::text(webhook, "name"), format!("webhooks[{index}].clientConfig"));
        let Some(url) = view::at(webhook, "clientConfig.url").and_then(serde_json::Value::as_str) else {
            if view::at(webhook, "clientConfig.service").is_none() {
                let text = format!(
                    "The hostname () that was provided for the webhook ({name}) to reach the ingress gateway on the external \
                     control plane cluster is blank. Traffic may not flow properly."
                );
                messages.tell(&CONTROL_PLANE_UNKNOWN, configuration, path, text);
            }
            continue;
        };
        if host(url).is_some_and(|host| host.parse::<IpAddr>().is_ok()) {
            let text = format!(
                "The address ({url}) that was provided for the webhook ({name}) to reach the ingress gateway on the external \
                 control plane cluster is an IP address. This is not recommended for a production environment."
            );
            messages.tell(&CONTROL_PLANE_BY_IP, configuration, path, text);
        }
    }
}

/// The host of a URL, without brackets and port.
fn host(url: &str) -> Option<&str> {
    let (_, rest) = url.split_once("://")?;
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let authority = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    let host = match authority.strip_prefix('[') {
        Some(rest) => rest.split_once(']').map(|(host, _)| host)?,
        None => authority.split_once(':').map_or(authority, |(host, _)| host),
    };
    Some(host).filter(|host| !host.is_empty())
}
