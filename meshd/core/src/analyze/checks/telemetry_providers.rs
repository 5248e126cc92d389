//! Telemetries that ask for access logs of nobody: neither they nor the mesh name a provider.

use mesh_api::mesh_config::MeshConfig;

use super::Check;
use crate::analyze::message::{Messages, NO_TELEMETRY_PROVIDER};
use crate::analyze::objects::Objects;
use crate::analyze::sorts::Sort;
use crate::analyze::view;

pub(super) const CHECK: Check =
    Check { name: "telemetry.providers", doc: "Access logs have a provider", needs: &[], run };

fn run(objects: &Objects, messages: &mut Messages) {
    let map = objects.find(Sort::CONFIG_MAP, &objects.root_namespace, mesh_api::names::MESH_CONFIG_MAP);
    let mesh = map.and_then(|map| MeshConfig::parse(map.text("data.mesh")).ok());
    let providers = mesh.and_then(|(mesh, _)| mesh.default_providers);
    if providers.is_some_and(|providers| !providers.access_logging.is_empty()) {
        return;
    }
    for telemetry in objects.of(Sort::TELEMETRY) {
        for (index, logging) in telemetry.list("spec.accessLogging").iter().enumerate() {
            let disabled = view::at(logging, "disabled").and_then(serde_json::Value::as_bool) == Some(true);
            if !disabled && view::list(logging, "providers").is_empty() {
                let text = format!(
                    "The Telemetry {} in namespace {:?} with empty providers will be ignored.",
                    telemetry.name, telemetry.namespace
                );
                messages.tell(&NO_TELEMETRY_PROVIDER, telemetry, format!("spec.accessLogging[{index}]"), text);
            }
        }
    }
}
