//! The workload's side: make a key and a request, and believe no answer that does not fit them.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use mesh_api::identity::SpiffeId;
use rcgen::string::Ia5String;
use rcgen::{CertificateParams, DistinguishedName, SanType};
use rustls_pki_types::CertificateDer;
use zeroize::Zeroizing;

use crate::bundle::{BundleError, TrustBundle};
use crate::caller::{CallerError, identity_of};
use crate::cert::{Cert, CertError, ChainError, verify_chain};
use crate::key::{KeyError, KeyKind, PrivateKey};
use crate::pem::{self, PemError};
use crate::time::display;

/// Most certificates between leaf and root in an answer.
const MAX_INTERMEDIATES: usize = 8;

/// A key of its own and the request for its certificate. A new one for each certificate: keys are not reused.
pub struct CertificateRequest {
    identity: SpiffeId,
    key: PrivateKey,
    csr: String,
}

/// A workload's certificate with everything needed to use it.
#[derive(Clone)]
pub struct Credential {
    /// Whose it is.
    pub identity: SpiffeId,
    /// The certificate.
    pub leaf: Cert,
    /// What is sent after it, without the root.
    pub intermediates: Vec<Cert>,
    /// The roots to trust in peers.
    pub bundle: TrustBundle,
    /// When it was received: renewal is counted from here.
    pub issued: SystemTime,
    key: Arc<PrivateKey>,
}

/// Why a request could not be made.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// No key.
    #[error("a key could not be made")]
    Key(#[source] KeyError),
    /// No request.
    #[error("a certificate request could not be made")]
    Csr,
}

/// Why an answer, or files, are no credential.
#[derive(Debug, thiserror::Error)]
pub enum CredentialError {
    /// Not the elements that an answer has.
    #[error("the answer has {0} elements; a certificate and roots were expected")]
    Elements(usize),
    /// The certificates cannot be read.
    #[error("the certificate chain cannot be read")]
    Pem(#[source] PemError),
    /// One of them is broken.
    #[error("a certificate of the chain cannot be used")]
    Cert(#[source] CertError),
    /// More certificates than any peer follows.
    #[error("the certificate chain is longer than {MAX_INTERMEDIATES} certificates")]
    TooLong,
    /// The roots cannot be used.
    #[error("the roots cannot be used")]
    Bundle(#[source] BundleError),
    /// The key cannot be used.
    #[error("the private key cannot be used")]
    Key(#[source] KeyError),
    /// For another key.
    #[error("the certificate is not for the key that asked")]
    KeyMismatch,
    /// It names nobody, or several.
    #[error("the certificate names no workload")]
    Identity(#[source] CallerError),
    /// For another workload.
    #[error("the certificate is for {found}, not for {wanted}; is the workload's namespace or service account wrong?")]
    OtherIdentity {
        /// Who asked.
        wanted: SpiffeId,
        /// Whom it names.
        found: SpiffeId,
    },
    /// Expired, or from the future.
    #[error("the certificate is valid from {from} to {to}, not now; the clock of this machine may be wrong")]
    NotValidNow {
        /// First second.
        from: String,
        /// Last second.
        to: String,
    },
    /// It does not lead to the roots that came with it.
    #[error("the certificate does not lead to its roots")]
    Chain(#[source] ChainError),
}

impl CertificateRequest {
    /// A new key, and a request that names this identity. (An Istio authority ignores the name; others want it.)
    ///
    /// # Errors
    /// When the crypto library fails.
    pub fn new(identity: SpiffeId, kind: KeyKind) -> Result<Self, RequestError> {
        let key = PrivateKey::generate(kind).map_err(RequestError::Key)?;
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        let uri = Ia5String::try_from(identity.to_string()).map_err(|_| RequestError::Csr)?;
        params.subject_alt_names = vec![SanType::URI(uri)];
        let csr = params.serialize_request(&key).map_err(|_| RequestError::Csr)?;
        let csr = pem::encode(pem::REQUEST, csr.der());
        Ok(Self { identity, key, csr })
    }

    /// The request, to be sent.
    #[must_use]
    pub fn csr(&self) -> &str {
        &self.csr
    }

    /// Reads an answer: the leaf first, the roots last, intermediates between. The connection it came over has been
    /// authenticated, so its roots are the mesh's; everything else is checked.
    ///
    /// # Errors
    /// Whatever does not fit the request or the present.
    pub fn finish(self, answer: &[String], now: SystemTime) -> Result<Credential, CredentialError> {
        let elements = CredentialError::Elements(answer.len());
        let Some((roots, chain)) = answer.split_last().filter(|(_, chain)| !chain.is_empty()) else {
            return Err(elements);
        };
        let length: usize = answer.iter().map(String::len).sum();
        if length > pem::MAX_PEM_BYTES {
            return Err(CredentialError::Pem(PemError::TooLarge));
        }
        let credential = Credential::new(chain.concat().as_bytes(), self.key, roots.as_bytes(), now)?;
        if credential.identity != self.identity {
            return Err(CredentialError::OtherIdentity { wanted: self.identity, found: credential.identity });
        }
        Ok(credential)
    }
}

impl Credential {
    /// Reads a credential from PEM files, as written by [`Credential::chain_pem`] and its like, by Istio's agent
    /// (`OUTPUT_CERTS`) or by hand (`FILE_MOUNTED_CERTS`).
    ///
    /// # Errors
    /// When the parts do not belong together, or not to the present.
    pub fn from_pem(chain: &[u8], key: &[u8], roots: &[u8], now: SystemTime) -> Result<Self, CredentialError> {
        Self::new(chain, PrivateKey::from_pem(key).map_err(CredentialError::Key)?, roots, now)
    }

    fn new(chain: &[u8], key: PrivateKey, roots: &[u8], now: SystemTime) -> Result<Self, CredentialError> {
        let ders = pem::certificates(chain).map_err(CredentialError::Pem)?;
        if ders.len() > MAX_INTERMEDIATES + 1 {
            return Err(CredentialError::TooLong);
        }
        let certs: Result<Vec<Cert>, CertError> = ders.into_iter().map(Cert::parse).collect();
        let mut intermediates = certs.map_err(CredentialError::Cert)?;
        let leaf = intermediates.remove(0);
        let bundle = TrustBundle::parse(roots).map_err(CredentialError::Bundle)?;
        // A root among them is of no use to a peer, which has it or does not trust it.
        intermediates.retain(|cert| !bundle.contains(cert));
        if leaf.public_key_info != key.public_key_info() {
            return Err(CredentialError::KeyMismatch);
        }
        let identity = identity_of(leaf.der()).map_err(CredentialError::Identity)?;
        if !leaf.is_valid_at(now) {
            let (from, to) = (display(leaf.not_before), display(leaf.not_after));
            return Err(CredentialError::NotValidNow { from, to });
        }
        let between: Vec<CertificateDer<'_>> = intermediates.iter().map(|cert| cert.der().clone()).collect();
        verify_chain(leaf.der(), &between, bundle.ders(), now).map_err(CredentialError::Chain)?;
        Ok(Self { identity, leaf, intermediates, bundle, issued: now, key: Arc::new(key) })
    }

    /// What a TLS endpoint sends: leaf first, then the intermediates.
    #[must_use]
    pub fn chain(&self) -> Vec<CertificateDer<'static>> {
        std::iter::once(&self.leaf).chain(&self.intermediates).map(|cert| cert.der().clone()).collect()
    }

    /// The private key.
    #[must_use]
    pub fn key(&self) -> &Arc<PrivateKey> {
        &self.key
    }

    /// The chain for `cert-chain.pem`.
    #[must_use]
    pub fn chain_pem(&self) -> String {
        std::iter::once(&self.leaf).chain(&self.intermediates).map(Cert::to_pem).collect()
    }

    /// The key for `key.pem`; wiped when dropped.
    #[must_use]
    pub fn key_pem(&self) -> Zeroizing<String> {
        self.key.to_pem()
    }

    /// The roots for `root-cert.pem`.
    #[must_use]
    pub fn roots_pem(&self) -> String {
        self.bundle.to_pem()
    }
}

impl fmt::Debug for CertificateRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CertificateRequest").field("identity", &self.identity).finish_non_exhaustive()
    }
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credential").field("identity", &self.identity).field("leaf", &self.leaf).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
