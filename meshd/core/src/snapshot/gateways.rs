//! Gateways, compiled.

use std::net::IpAddr;
use std::sync::Arc;

use mesh_api::host::Hostname;
use mesh_api::ids::{Namespace, ObjectKey};
use mesh_api::labels::Selector;
use mesh_api::meta::Timestamp;
use mesh_api::text::Str;
use mesh_api_xds::ir::chain::DownstreamTls;

use super::virtual_services::GatewayRef;

/// A Gateway.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gateway {
    /// The object.
    pub key: ObjectKey,
    /// Its age.
    pub created: Option<Timestamp>,
    /// Labels of the proxies, in any namespace.
    pub selector: Selector,
    /// Ports with hosts.
    pub servers: Arc<[Server]>,
}

/// A port with its hosts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// Position in the object, for findings.
    pub index: usize,
    /// Port, as a Service of the gateway has it.
    pub port: u16,
    /// Name of the port.
    pub port_name: Str,
    /// What is served.
    pub serves: Serves,
    /// Address; `None` is any.
    pub bind: Option<IpAddr>,
    /// Hosts.
    pub hosts: Arc<[ServerHost]>,
    /// Plain HTTP is redirected to HTTPS.
    pub https_redirect: bool,
}

/// What a server serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Serves {
    /// HTTP in plaintext.
    Http,
    /// HTTP over TLS.
    Https(Arc<DownstreamTls>),
    /// Bytes.
    Tcp,
    /// Bytes over TLS.
    TlsTerminated(Arc<DownstreamTls>),
    /// TLS, passed through by server name.
    TlsPassthrough,
}

/// A host of a server and the namespace of the VirtualServices that may use it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerHost {
    /// `None` is any.
    pub namespace: Option<Namespace>,
    /// The host.
    pub host: Hostname,
}

impl Gateway {
    /// How VirtualServices name it.
    #[must_use]
    pub fn reference(&self) -> GatewayRef {
        GatewayRef::Named(self.key.namespace.clone(), self.key.name.clone())
    }

    /// Order of age: creation time, then name, then namespace.
    #[must_use]
    pub fn by_age(a: &Self, b: &Self) -> std::cmp::Ordering {
        (a.created, &a.key.name, &a.key.namespace, &a.key.cluster).cmp(&(
            b.created,
            &b.key.name,
            &b.key.namespace,
            &b.key.cluster,
        ))
    }
}
