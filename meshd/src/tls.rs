//! The TLS side of the secure port: our certificate, and what we believe of a proxy's.
//!
//! A connection takes the configuration of the moment it is accepted; a renewed certificate or another set of roots is
//! another configuration, and nothing has to restart.

use std::sync::Arc;

use arc_swap::ArcSwap;
use mesh_ca::bundle::TrustBundle;
use mesh_ca::client::Credential;
use rustls::crypto::aws_lc_rs;
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

/// The configuration now; `None` before there is a certificate.
pub(crate) type Current = Arc<ArcSwap<Option<Arc<ServerConfig>>>>;

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TlsError {
    /// A root is unusable.
    #[error("a root certificate cannot be used")]
    Roots(#[source] rustls::Error),
    /// No verifier of client certificates.
    #[error("client certificates could not be verified")]
    Verifier(#[source] rustls::server::VerifierBuilderError),
    /// The certificate or its key is unusable.
    #[error("the serving certificate cannot be used")]
    Certificate(#[source] rustls::Error),
}

/// A configuration that serves with `credential` and verifies client certificates, where one is presented, against `roots`.
///
/// # Errors
/// When the crypto library refuses a part.
pub(crate) fn server_config(credential: &Credential, roots: &TrustBundle) -> Result<ServerConfig, TlsError> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let mut store = RootCertStore::empty();
    for root in roots.ders() {
        store.add(root.clone()).map_err(TlsError::Roots)?;
    }
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(store), Arc::clone(&provider))
        // A new workload has a token and no certificate yet.
        .allow_unauthenticated()
        .build()
        .map_err(TlsError::Verifier)?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(TlsError::Certificate)?
        .with_client_cert_verifier(verifier)
        .with_single_cert(credential.chain(), key(credential))
        .map_err(TlsError::Certificate)?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(config)
}

/// A configuration that serves with `credential` and asks for no client certificate: the API server as a caller of webhooks
/// shows none unless it was told to.
///
/// # Errors
/// When the crypto library refuses a part.
pub(crate) fn webhook_config(credential: &Credential) -> Result<ServerConfig, TlsError> {
    let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(TlsError::Certificate)?
        .with_no_client_auth()
        .with_single_cert(credential.chain(), key(credential))
        .map_err(TlsError::Certificate)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

fn key(credential: &Credential) -> PrivateKeyDer<'static> {
    PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(credential.key().pkcs8_der().to_vec()))
}
