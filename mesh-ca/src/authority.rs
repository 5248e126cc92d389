//! What issues certificates: the trait, and the authority that holds its own key.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls_pki_types::CertificateDer;

use crate::bundle::TrustBundle;
use crate::caller::Grant;
use crate::cert::Cert;
use crate::csr::ValidCsr;
use crate::issue::{self, IssueError, Lifetimes, Signer, Validity};
use crate::key::PrivateKey;
use crate::time::display;

/// Something that issues certificates.
pub trait Authority: Send + Sync {
    /// Issues a certificate for the request's key with the names of the grant.
    ///
    /// `ttl` is what the caller asked for; `None` or zero is the default. The answer may live shorter.
    ///
    /// # Errors
    /// When the authority's own certificate is not valid at `now`, or the crypto library fails.
    fn issue(
        &self,
        csr: &ValidCsr,
        grant: &Grant,
        ttl: Option<Duration>,
        now: SystemTime,
    ) -> Result<Issued, IssueError>;

    /// The roots that peers of its certificates need.
    fn bundle(&self) -> &TrustBundle;
}

/// An issued certificate with what leads from it to the roots.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issued {
    /// The certificate itself.
    pub leaf: Cert,
    /// What a TLS endpoint sends after the leaf: the issuer and so on, without the root.
    pub intermediates: Vec<Cert>,
    /// The roots to trust.
    pub bundle: TrustBundle,
}

impl Issued {
    /// The answer of Istio's certificate service: the leaf, the intermediates (one text, absent when there are none),
    /// and last the roots as one text.
    #[must_use]
    pub fn to_answer(&self) -> Vec<String> {
        let intermediates: String = self.intermediates.iter().map(Cert::to_pem).collect();
        let elements = [self.leaf.to_pem(), intermediates, self.bundle.to_pem()];
        elements.into_iter().filter(|text| !text.is_empty()).collect()
    }

    /// What a TLS endpoint sends: leaf first, then the intermediates.
    #[must_use]
    pub fn chain(&self) -> Vec<CertificateDer<'static>> {
        std::iter::once(&self.leaf).chain(&self.intermediates).map(|cert| cert.der().clone()).collect()
    }
}

/// An authority with its key in memory. Made by [`SelfSigned`](crate::selfsigned::SelfSigned) and
/// [`plugged::load`](crate::plugged::load), which have checked that its parts belong together.
pub struct LocalAuthority {
    key: Arc<PrivateKey>,
    /// From the certificate of `key` upwards, the root last.
    path: Vec<Cert>,
    bundle: TrustBundle,
    lifetimes: Lifetimes,
}

impl LocalAuthority {
    /// `path` begins with the certificate of `key` and ends with a root of `bundle`; an empty one is refused.
    pub(crate) fn new(
        key: Arc<PrivateKey>,
        path: Vec<Cert>,
        bundle: TrustBundle,
        lifetimes: Lifetimes,
    ) -> Option<Self> {
        let own = path.first()?.public_key_info == key.public_key_info();
        own.then_some(Self { key, path, bundle, lifetimes })
    }

    /// The certificates from its own to the root.
    #[must_use]
    pub fn path(&self) -> &[Cert] {
        &self.path
    }

    /// Last second in which it can issue: the end of the first certificate of its path to expire.
    #[must_use]
    pub fn not_after(&self) -> Option<SystemTime> {
        self.path.iter().map(|cert| cert.not_after).min()
    }

    /// The bounds of the lifetimes it issues.
    #[must_use]
    pub fn lifetimes(&self) -> Lifetimes {
        self.lifetimes
    }

    fn signer(&self) -> Result<Signer<'_>, IssueError> {
        let cert = self.path.first().ok_or(IssueError::Library)?;
        Ok(Signer { cert, key: &self.key })
    }

    /// From a bit before `now` for `ttl`, but never beyond the validity of any certificate above.
    fn validity(&self, ttl: Duration, now: SystemTime) -> Result<Validity, IssueError> {
        let mut not_before = now.checked_sub(self.lifetimes.backdate).unwrap_or(now);
        let mut not_after = now.checked_add(ttl).ok_or(IssueError::Library)?;
        for cert in &self.path {
            if !cert.is_valid_at(now) {
                return Err(IssueError::AuthorityNotValid {
                    subject: cert.subject.clone(),
                    from: display(cert.not_before),
                    to: display(cert.not_after),
                });
            }
            not_before = not_before.max(cert.not_before);
            not_after = not_after.min(cert.not_after);
        }
        Ok(Validity { not_before, not_after })
    }
}

impl Authority for LocalAuthority {
    fn issue(
        &self,
        csr: &ValidCsr,
        grant: &Grant,
        ttl: Option<Duration>,
        now: SystemTime,
    ) -> Result<Issued, IssueError> {
        let ttl = self.lifetimes.clamp(ttl, grant.max_ttl);
        let leaf = issue::leaf(self.signer()?, csr, grant, self.validity(ttl, now)?)?;
        let (_root, intermediates) = self.path.split_last().ok_or(IssueError::Library)?;
        Ok(Issued { leaf, intermediates: intermediates.to_vec(), bundle: self.bundle.clone() })
    }

    fn bundle(&self) -> &TrustBundle {
        &self.bundle
    }
}

impl fmt::Debug for LocalAuthority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LocalAuthority").field("path", &self.path).finish_non_exhaustive()
    }
}
