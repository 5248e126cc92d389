//! PeerAuthentication.

use std::collections::BTreeMap;

use mesh_api::codes::Code;
use mesh_api::crd::security::peer_authentication::{MtlsMode as ApiMode, PeerAuthentication as Spec};
use mesh_api::finding::Finding;
use mesh_api::ids::ClusterId;
use mesh_api::object::Object;

use super::Context;
use crate::snapshot::mesh::Mesh;
use crate::snapshot::policies::{MtlsMode, PeerAuthentication};
use crate::snapshot::shard::Compiled;

/// Compiles a PeerAuthentication.
pub(crate) fn peer_authentication(
    mesh: &Mesh,
    object: &Object<Spec>,
    cluster: &ClusterId,
) -> Compiled<PeerAuthentication> {
    let mut cx = Context::new(mesh, object.key(), cluster);
    let Spec { selector, mtls, port_level_mtls } = &object.spec;
    let selector =
        selector.as_ref().map(|selector| selector.match_labels.clone()).filter(|selector| !selector.is_empty());
    let mut values = Vec::new();
    if selector.is_some() && *cx.namespace() == mesh.root_namespace {
        let message = "a policy with a selector has no effect in the root namespace";
        cx.report(Finding::new(Code::Ineffective, "spec.selector", message));
    } else {
        let mut ports = BTreeMap::new();
        for (number, mtls) in port_level_mtls {
            if let Some(number) = cx.port(&format!("spec.portLevelMtls[{number}]"), *number) {
                ports.insert(number, mode(mtls.mode));
            }
        }
        if selector.is_none() && !ports.is_empty() {
            cx.cut::<()>(Code::Conflict, "spec.portLevelMtls", "modes of ports need a selector");
            ports.clear();
        }
        values.push(PeerAuthentication {
            key: cx.key.clone(),
            created: object.meta.creation_timestamp,
            selector,
            mode: mtls.as_ref().and_then(|mtls| mode(mtls.mode)),
            ports,
        });
    }
    Compiled { values, findings: cx.into_findings() }
}

fn mode(mode: ApiMode) -> Option<MtlsMode> {
    match mode {
        ApiMode::Unset => None,
        ApiMode::Disable => Some(MtlsMode::Disable),
        ApiMode::Permissive => Some(MtlsMode::Permissive),
        ApiMode::Strict => Some(MtlsMode::Strict),
    }
}
