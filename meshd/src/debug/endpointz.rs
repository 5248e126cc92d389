//! `/debug/endpointz`: endpoints of each service, as the present snapshot has them.

use mesh_api_xds::ir::endpoint::Address;
use meshd_core::snapshot::Snapshot;
use serde::Serialize;

/// A port of a service.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Port {
    service: String,
    namespace: String,
    port: u16,
    endpoints: Vec<Endpoint>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Endpoint {
    address: String,
    health: String,
    mesh_tls: bool,
    weight: u32,
    workload: String,
}

/// All ports of all services that have endpoints, in the services' order of age.
pub(super) fn page(snapshot: &Snapshot) -> Vec<Port> {
    let mut page = Vec::new();
    for service in snapshot.services.by_age.iter() {
        let Some(endpoints) = snapshot.endpoints.of(service) else { continue };
        for (port, instances) in endpoints.ports.iter() {
            let endpoints = instances.iter().map(|instance| Endpoint {
                address: shown(&instance.address),
                health: format!("{:?}", instance.health).to_lowercase(),
                mesh_tls: instance.mesh_tls,
                weight: instance.weight,
                workload: instance.workload.name.to_string(),
            });
            page.push(Port {
                service: service.host.to_string(),
                namespace: service.namespace.to_string(),
                port: *port,
                endpoints: endpoints.collect(),
            });
        }
    }
    page
}

fn shown(address: &Address) -> String {
    match address {
        Address::Socket(address) => address.to_string(),
        Address::Name(name, port) => format!("{name}:{port}"),
    }
}
