//! Keys and certificates for gateways, from Secrets.

use std::sync::Arc;

use mesh_api::ids::ObjectKey;
use mesh_api_xds::ir::secret::{PrivateKey, SecretContent};

/// Secret of the workload's own certificate, which proxies fetch themselves.
pub(crate) const WORKLOAD_CERTIFICATE: &str = "default";
/// Secret of the mesh's roots, which proxies fetch themselves.
pub(crate) const MESH_ROOTS: &str = "ROOTCA";

/// A Secret that holds a certificate, trust anchors, or both.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credential {
    /// The object.
    pub key: ObjectKey,
    /// Certificate with its key.
    pub certificate: Option<(Arc<[u8]>, PrivateKey)>,
    /// Trust anchors.
    pub trust: Option<Arc<[u8]>>,
}

impl Credential {
    /// As a secret with a certificate.
    #[must_use]
    pub fn as_certificate(&self) -> Option<SecretContent> {
        let (chain, key) = self.certificate.clone()?;
        Some(SecretContent::Certificate { chain, key })
    }

    /// As a secret with trust anchors.
    #[must_use]
    pub fn as_trust(&self) -> Option<SecretContent> {
        self.trust.clone().map(SecretContent::Trust)
    }
}
