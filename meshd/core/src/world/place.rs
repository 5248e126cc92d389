//! Where the mesh configuration is.

use mesh_api::ids::{Name, Namespace};
use mesh_api::names::{MESH_CONFIG_MAP, ROOT_NAMESPACE};

/// The ConfigMap with the mesh configuration: each revision of the control plane has its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MeshConfigPlace {
    /// Its namespace.
    pub namespace: Namespace,
    /// Its name.
    pub name: Name,
}

impl Default for MeshConfigPlace {
    /// That of the default revision.
    fn default() -> Self {
        Self { namespace: Namespace::from(ROOT_NAMESPACE), name: Name::from(MESH_CONFIG_MAP) }
    }
}
