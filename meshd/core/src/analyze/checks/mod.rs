//! The table of checks. One file each; the row says what it is called and which kinds it must know.

use super::message::Messages;
use super::objects::{Objects, Subject};
use super::sorts::Sort;

mod annotations;
mod application_uid;
mod authorization_policies;
mod capture;
mod conditions;
mod deployment_services;
mod deprecation;
mod destination_rule_subsets;
mod destination_rule_tls;
mod envoy_filters;
mod external_control_plane;
mod gateway_certificates;
mod gateway_conflicts;
mod gateway_secrets;
mod gateway_selectors;
mod gateway_workloads;
mod image_auto;
mod jwt_claims;
mod namespaces;
mod pod_proxies;
mod port_names;
mod proxy_images;
mod routes;
mod schema;
mod selectors;
mod service_entry_addresses;
mod service_entry_protocols;
mod telemetry_providers;
mod virtual_service_conflicts;
mod virtual_service_destinations;
mod virtual_service_gateways;
mod virtual_service_rules;
mod virtual_service_subsets;
mod webhooks;

/// A check.
#[derive(Debug)]
pub struct Check {
    /// Its name, `area.what`.
    pub name: &'static str,
    /// What holds when it tells nothing.
    pub doc: &'static str,
    /// Kinds without which it would guess.
    pub needs: &'static [Sort],
    /// Looks.
    pub(super) run: fn(&Objects, &mut Messages),
}

/// All checks.
pub const ALL: &[Check] = &[
    schema::CHECK,
    deprecation::CHECK,
    virtual_service_gateways::CHECK,
    virtual_service_destinations::CHECK,
    virtual_service_subsets::CHECK,
    virtual_service_conflicts::CHECK,
    virtual_service_rules::CHECK,
    destination_rule_tls::CHECK,
    destination_rule_subsets::CHECK,
    gateway_workloads::CHECK,
    gateway_conflicts::CHECK,
    gateway_certificates::CHECK,
    gateway_secrets::CHECK,
    selectors::SIDECARS,
    selectors::TELEMETRIES,
    service_entry_addresses::CHECK,
    service_entry_protocols::CHECK,
    authorization_policies::WORKLOADS,
    authorization_policies::NAMESPACES,
    jwt_claims::CHECK,
    envoy_filters::CHECK,
    namespaces::CHECK,
    pod_proxies::CHECK,
    capture::CHECK,
    image_auto::PODS,
    image_auto::DEPLOYMENTS,
    proxy_images::CHECK,
    port_names::CHECK,
    application_uid::CHECK,
    deployment_services::CHECK,
    annotations::CHECK,
    conditions::CHECK,
    webhooks::CHECK,
    external_control_plane::CHECK,
    gateway_selectors::CHECK,
    telemetry_providers::CHECK,
];

/// The name by which sidecars are meant where gateways are named.
const MESH: &str = "mesh";
/// The ConfigMap of injection, of the default revision.
const INJECTOR: &str = "istio-sidecar-injector";
/// The container of the proxy.
const PROXY: &str = "istio-proxy";

/// The ConfigMap by which a revision injects.
fn injector_map<'a>(objects: &'a Objects, revision: Option<&str>) -> Option<&'a Subject> {
    let name = match revision {
        None | Some("" | "default") => INJECTOR.to_owned(),
        Some(revision) => format!("{INJECTOR}-{revision}"),
    };
    objects.find(Sort::CONFIG_MAP, &objects.root_namespace, &name)
}

/// `namespace/name`, or a name in `namespace`.
fn qualified<'a>(name: &'a str, namespace: &'a str) -> (&'a str, &'a str) {
    name.split_once('/').unwrap_or((namespace, name))
}
