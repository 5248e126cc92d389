//! Who asks for a certificate, and what such a caller may get.

use std::time::{Duration, SystemTime};

use mesh_api::identity::{IdentityError, SpiffeId, TrustDomain};
use rustls_pki_types::CertificateDer;

use crate::cert::{Cert, CertError};
use crate::review::{ReviewError, ServiceAccount};
use crate::token::{TokenError, TokenKeys};

/// The identities that count as the mesh's own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trust {
    /// The mesh's trust domain.
    pub domain: TrustDomain,
    /// Others whose workloads are trusted as its own.
    pub aliases: Vec<TrustDomain>,
}

/// How a caller proved its identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proof {
    /// With its present certificate, in mutual TLS.
    Certificate,
    /// With a bootstrap token.
    Token,
    /// With the token of a Kubernetes service account.
    ServiceAccount,
}

/// An authenticated caller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// Who it is.
    pub identity: SpiffeId,
    /// How it proved that.
    pub proof: Proof,
    /// The pod that its token is bound to; `None` where the proof names none.
    pub pod: Option<String>,
}

/// Why a caller is not known.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallerError {
    /// Neither a client certificate nor a token.
    #[error("no client certificate and no token were presented")]
    Anonymous,
    /// The certificate cannot be read.
    #[error("the client certificate is unusable")]
    Certificate(#[source] CertError),
    /// An authority's certificate identifies no workload (X509-SVID, section 4.1).
    #[error("the client certificate is that of an authority")]
    Authority,
    /// X509-SVID, section 2: exactly one URI.
    #[error("the client certificate has {0} URI names instead of one")]
    Names(usize),
    /// The URI is no identity of a mesh.
    #[error("the client certificate's identity {uri:?} cannot be used")]
    Identity {
        /// The URI of the certificate.
        uri: String,
        /// What is wrong with it.
        #[source]
        source: IdentityError,
    },
    /// An identity of another mesh.
    #[error("the trust domain {0} is not one of this mesh")]
    TrustDomain(TrustDomain),
    /// The token is not accepted.
    #[error("the token is not accepted")]
    Token(#[source] TokenError),
    /// The token of a service account is not accepted, or nobody can say now.
    #[error(transparent)]
    ServiceAccount(#[from] ReviewError),
}

impl Trust {
    /// The mesh of this domain, without aliases.
    #[must_use]
    pub fn new(domain: TrustDomain) -> Self {
        Self { domain, aliases: Vec::new() }
    }

    fn check(&self, identity: SpiffeId) -> Result<SpiffeId, CallerError> {
        if identity.trust_domain.is_one_of(&self.domain, &self.aliases) {
            Ok(identity)
        } else {
            Err(CallerError::TrustDomain(identity.trust_domain))
        }
    }
}

impl Caller {
    /// The caller behind a mutual TLS connection, from its leaf certificate. The TLS library has verified the chain.
    ///
    /// # Errors
    /// When the certificate does not name exactly one workload of this mesh.
    pub fn from_certificate(leaf: &CertificateDer<'_>, trust: &Trust) -> Result<Self, CallerError> {
        let identity = trust.check(identity_of(leaf)?)?;
        Ok(Self { identity, proof: Proof::Certificate, pod: None })
    }

    /// The caller behind a bootstrap token, as sent in `authorization: Bearer …` (without the word).
    ///
    /// # Errors
    /// When the token is not ours, has expired, or names a workload of another mesh.
    pub fn from_token(token: &str, keys: &TokenKeys, trust: &Trust, now: SystemTime) -> Result<Self, CallerError> {
        let claims = keys.verify(token, now).map_err(CallerError::Token)?;
        let identity = trust.check(claims.identity)?;
        Ok(Self { identity, proof: Proof::Token, pod: None })
    }

    /// The caller behind the token of a service account, which the API server has accepted. Its trust domain is the mesh's.
    ///
    /// # Errors
    /// When namespace and name make no identity.
    pub fn from_service_account(account: &ServiceAccount, trust: &Trust) -> Result<Self, CallerError> {
        let identity = SpiffeId::new(trust.domain.clone(), account.namespace.as_str(), account.name.as_str());
        // Read back: the parts came from a cluster.
        let uri = identity.to_string();
        let identity = SpiffeId::parse(&uri).map_err(|source| CallerError::Identity { uri, source })?;
        Ok(Self { identity, proof: Proof::ServiceAccount, pod: account.pod.clone() })
    }
}

/// The workload that a leaf certificate names. It does not ask whether the certificate is to be believed.
///
/// # Errors
/// When the certificate is broken, an authority's, or does not have exactly one URI that is a mesh identity.
pub fn identity_of(leaf: &CertificateDer<'_>) -> Result<SpiffeId, CallerError> {
    let cert = Cert::parse(leaf.clone().into_owned()).map_err(CallerError::Certificate)?;
    if cert.is_ca {
        return Err(CallerError::Authority);
    }
    match cert.uris.as_slice() {
        [uri] => SpiffeId::parse(uri).map_err(|source| CallerError::Identity { uri: uri.clone(), source }),
        uris => Err(CallerError::Names(uris.len())),
    }
}

/// What a certificate may say. Made from an authenticated caller, or by the control plane for itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// The workload; goes into the certificate as its only URI.
    pub identity: SpiffeId,
    /// DNS names; only the control plane's own certificate has some.
    pub dns_names: Vec<String>,
    /// A tighter limit of the lifetime than the authority's.
    pub max_ttl: Option<Duration>,
}

impl Grant {
    /// What a caller may get: a certificate of its own identity, nothing else.
    #[must_use]
    pub fn of(caller: &Caller) -> Self {
        Self::workload(caller.identity.clone())
    }

    /// A certificate of this workload.
    #[must_use]
    pub fn workload(identity: SpiffeId) -> Self {
        Self { identity, dns_names: Vec::new(), max_ttl: None }
    }

    /// The certificate with which a control plane serves, under these DNS names.
    #[must_use]
    pub fn control_plane(identity: SpiffeId, dns_names: Vec<String>) -> Self {
        Self { identity, dns_names, max_ttl: None }
    }
}
