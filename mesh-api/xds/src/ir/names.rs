//! Names that the proxy answers for when it captures look-ups.

use std::net::IpAddr;
use std::sync::Arc;

use mesh_api::text::Str;
use serde::Serialize;

/// All names that a proxy answers for: those of the services it may see. What is not here is asked elsewhere.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct NameTable {
    /// Always [`NameTable::NAME`]: a proxy is served one table.
    pub name: Str,
    /// The names, ordered by host, each once.
    pub entries: Arc<[NameEntry]>,
}

/// A name with its addresses.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct NameEntry {
    /// The full name without a final dot, such as `web.shop.svc.cluster.local`; may begin with `*.`.
    pub host: Str,
    /// Its addresses, of both families.
    pub addresses: Arc<[IpAddr]>,
    /// What else it is called.
    pub kind: NameKind,
}

/// What a name is, which decides how else it may be written.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub enum NameKind {
    /// A Kubernetes service (or a pod of one): shorter forms are names too.
    Kubernetes {
        /// First part: `web`, or `web-0.web` of a pod.
        short_name: Str,
        /// Namespace.
        namespace: Str,
        /// Other full names; of control planes that still send them.
        aliases: Arc<[Str]>,
    },
    /// Any other host: this is its only name.
    Other,
}

impl NameTable {
    /// The name of the one resource that a proxy is served. The message has no name of its own.
    pub const NAME: &'static str = "names";

    /// A table of these names.
    #[must_use]
    pub fn new(entries: Arc<[NameEntry]>) -> Self {
        Self { name: Str::from(Self::NAME), entries }
    }
}
