//! What Ingresses become, compiled: Gateways and VirtualServices beside those that users write.

use std::collections::BTreeSet;
use std::sync::Arc;

use mesh_api::crd::networking::gateway::Gateway as GatewaySpec;
use mesh_api::crd::networking::virtual_service::VirtualService as RouteSpec;
use mesh_api::finding::Finding;
use mesh_api::ids::{ClusterId, Namespace, ObjectKey};
use mesh_api::object::{Object, Spec};

use super::compile;
use super::gateways::Gateway;
use super::mesh::Mesh;
use super::shard::{Dirty, Part};
use super::virtual_services::VirtualService;
use crate::convert::ingress::convert;
use crate::world::{Table, World};

/// All Ingresses of ours.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ingresses {
    gateway_objects: Table<GatewaySpec>,
    route_objects: Table<RouteSpec>,
    pub(crate) gateways: Part<GatewaySpec, Gateway>,
    pub(crate) routes: Part<RouteSpec, VirtualService>,
    pub(crate) served: Arc<[ObjectKey]>,
    findings: Arc<[Finding]>,
}

/// What differs after a step.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Differs {
    pub(crate) gateways: bool,
    pub(crate) routes: bool,
}

impl Ingresses {
    /// Brings everything up to date. `all` compiles it again.
    pub(crate) fn step(&mut self, world: &World, mesh: &Mesh, all: bool) -> Differs {
        let converted = convert(world, &mesh.ingress, &mesh.domain);
        self.served = converted.served.into();
        self.findings = converted.findings.into();
        let gateways =
            next(&mut self.gateway_objects, &mut self.gateways, converted.gateways, all, &|object, cluster| {
                compile::gateway(mesh, object, cluster)
            });
        let routes = next(&mut self.route_objects, &mut self.routes, converted.routes, all, &|object, cluster| {
            compile::virtual_service(mesh, object, cluster)
        });
        Differs { gateways, routes }
    }

    pub(crate) fn findings(&self) -> impl Iterator<Item = &Finding> {
        self.findings.iter().chain(self.gateways.findings()).chain(self.routes.findings())
    }
}

/// Puts new objects in the place of those before; equal ones keep their address.
fn next<S: Spec, T: PartialEq>(
    table: &mut Table<S>,
    part: &mut Part<S, T>,
    objects: Vec<(ClusterId, Object<S>)>,
    all: bool,
    compile: &dyn Fn(&Object<S>, &ClusterId) -> super::shard::Compiled<T>,
) -> bool {
    let mut made = Table::default();
    for (cluster, object) in objects {
        let old = table.of(&cluster, &object.meta.namespace, &object.meta.name);
        let object = old.filter(|old| ***old == object).cloned().unwrap_or_else(|| Arc::new(object));
        made.upsert(&cluster, object);
    }
    let namespaces: BTreeSet<Namespace> = table.namespaces().chain(made.namespaces()).cloned().collect();
    *table = made;
    let dirty = if all { Dirty::All } else { Dirty::Only(&namespaces) };
    match part.next(table, dirty, compile) {
        Some(changed) => {
            *part = changed;
            true
        }
        None => false,
    }
}
