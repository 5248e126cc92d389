//! Secrets sent to proxies. Key material has no `Debug` of its content.

use std::fmt;
use std::sync::Arc;

use mesh_api::text::Str;
use serde::Serialize;

/// A secret (`envoy.extensions.transport_sockets.tls.v3.Secret`).
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct Secret {
    /// Resource name, for example `default`, `ROOTCA`, `kubernetes://web-cert`.
    pub name: Str,
    /// What it holds.
    pub content: SecretContent,
}

/// Content of a secret.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub enum SecretContent {
    /// A certificate with its chain, leaf first, and its key; both PEM.
    Certificate {
        /// Leaf and intermediates.
        chain: Arc<[u8]>,
        /// Private key.
        key: PrivateKey,
    },
    /// Trust anchors, PEM.
    Trust(Arc<[u8]>),
}

/// A private key, PEM. Neither printed nor dumped.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct PrivateKey(pub Arc<[u8]>);

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PrivateKey(redacted)")
    }
}

impl Serialize for PrivateKey {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str("[redacted]")
    }
}
