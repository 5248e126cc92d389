//! `/debug/config_dump` and `/debug/edsz`: what a proxy is to be served at present, decoded.

use std::collections::BTreeMap;

use mesh_api::text::Str;
use mesh_api_xds::codec;
use mesh_api_xds::encoded::{Encoded, ResourceSet};
use mesh_api_xds::type_url::TypeUrl;
use serde::Serialize;
use serde_json::{Value, json};

use crate::push::registry::Connection;

/// The page.
#[derive(Debug, Serialize)]
pub(super) struct Page {
    proxy: Str,
    generation: u64,
    /// Resources by type.
    resources: BTreeMap<&'static str, Vec<Item>>,
}

#[derive(Debug, Serialize)]
struct Item {
    name: Str,
    version: String,
    bytes: usize,
    /// The resource as the control plane sees it; of a secret only that it is one.
    content: Value,
}

/// What a proxy is to be served.
pub(super) fn page(connection: &Connection, types: &[TypeUrl]) -> Page {
    of_set(connection.key.0.clone(), &connection.delivered(), types)
}

/// What is in a set of resources.
pub(super) fn of_set(proxy: Str, set: &ResourceSet, types: &[TypeUrl]) -> Page {
    let of = |type_url: &TypeUrl| {
        let items = set.of(*type_url).items().iter().map(|resource| item(*type_url, resource));
        (type_url.short(), items.collect())
    };
    Page { proxy, generation: set.generation, resources: types.iter().map(of).collect() }
}

fn item(type_url: TypeUrl, resource: &Encoded) -> Item {
    Item {
        name: resource.name.clone(),
        version: resource.version.to_string(),
        bytes: resource.bytes.len(),
        content: content(type_url, resource),
    }
}

fn content(type_url: TypeUrl, resource: &Encoded) -> Value {
    if type_url == TypeUrl::Secret {
        return json!("not shown");
    }
    match codec::decode(type_url, &resource.bytes) {
        Ok(decoded) => serde_json::to_value(decoded).unwrap_or_else(|error| json!({"error": error.to_string()})),
        Err(error) => json!({"error": error.to_string()}),
    }
}
