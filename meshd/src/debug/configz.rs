//! `/debug/configz`: the objects as they were read, secrets without their content.

use mesh_api::object::{Object, Spec};
use meshd_core::world::{Table, World};
use serde_json::{Value, json};

/// All objects, by kind, namespace and name.
pub(super) fn page(world: &World) -> Vec<Value> {
    let mut page = Vec::new();
    add(&world.services, &mut page);
    add(&world.endpoint_slices, &mut page);
    add(&world.pods, &mut page);
    add(&world.namespaces, &mut page);
    add(&world.nodes, &mut page);
    add(&world.ingresses, &mut page);
    add(&world.ingress_classes, &mut page);
    for secret in world.secrets.iter() {
        page.push(json!({"apiVersion": "v1", "kind": "Secret", "metadata": secret.meta, "data": "not shown"}));
    }
    add(&world.config_maps, &mut page);
    add(&world.virtual_services, &mut page);
    add(&world.destination_rules, &mut page);
    add(&world.gateways, &mut page);
    add(&world.service_entries, &mut page);
    add(&world.workload_entries, &mut page);
    add(&world.workload_groups, &mut page);
    add(&world.sidecars, &mut page);
    add(&world.proxy_configs, &mut page);
    add(&world.peer_authentications, &mut page);
    add(&world.authorization_policies, &mut page);
    page
}

fn add<S: Spec>(table: &Table<S>, page: &mut Vec<Value>) {
    page.extend(table.iter().map(|object| value(object)));
}

fn value<S: Spec>(object: &Object<S>) -> Value {
    serde_json::to_value(object)
        .unwrap_or_else(|error| json!({"object": object.key().to_string(), "error": error.to_string()}))
}

#[cfg(test)]
mod tests {
    use mesh_api::parse::parse;
    use meshd_core::world::Change;

    use super::*;

    #[test]
    fn a_secret_is_named_and_not_shown() {
        let text = "apiVersion: v1\nkind: Secret\nmetadata: {name: tls}\ndata: {tls.key: aGlkZGVu}\n";
        let mut world = World::default();
        for item in parse(text, "shop").objects {
            world.apply(Change::Upsert { cluster: "c".into(), object: item.unwrap().object });
        }
        let page = serde_json::to_string(&page(&world)).unwrap();
        assert!(page.contains("\"tls\"") && !page.contains("aGlkZGVu") && !page.contains("hidden"), "{page}");
    }
}
