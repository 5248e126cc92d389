//! The roots that the mesh trusts: usually one, two or more while roots change.

use std::time::{Duration, SystemTime};

use aws_lc_rs::digest::{Context, SHA256};
use rustls_pki_types::CertificateDer;

use crate::cert::{Cert, CertError, hex};
use crate::pem::{self, PemError};

/// Most roots in a bundle.
pub const MAX_ROOTS: usize = 64;

/// A set of root certificates, without doubles, in the order in which they were added.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TrustBundle {
    roots: Vec<Cert>,
}

/// Why a text is no bundle of roots.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    /// No list of certificates.
    #[error("the root certificates cannot be read")]
    Pem(#[source] PemError),
    /// One of them is broken.
    #[error("root certificate {number} is unusable")]
    Cert {
        /// Position in the text, from 1.
        number: usize,
        /// What is wrong with it.
        #[source]
        source: CertError,
    },
    /// One of them is no authority.
    #[error("root certificate {number} ({subject}) is not a certificate authority")]
    NotAnAuthority {
        /// Position in the text, from 1.
        number: usize,
        /// Its subject.
        subject: String,
    },
    /// Too many.
    #[error("more than {MAX_ROOTS} root certificates")]
    TooMany,
}

/// How urgent the expiry of a root is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Urgency {
    /// More than the warning time is left.
    Fine,
    /// It expires within the warning time.
    Soon,
    /// It has expired, or is not valid yet.
    Unusable,
}

/// When a root stops being of use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forecast {
    /// Its subject.
    pub subject: String,
    /// SHA-256 of the certificate.
    pub fingerprint: String,
    /// Last second of its validity.
    pub not_after: SystemTime,
    /// Time left; zero when it has expired.
    pub remaining: Duration,
    /// How urgent that is.
    pub urgency: Urgency,
}

impl TrustBundle {
    /// A bundle of these roots; doubles are dropped.
    #[must_use]
    pub fn new(roots: impl IntoIterator<Item = Cert>) -> Self {
        let mut bundle = Self::default();
        roots.into_iter().for_each(|root| bundle.add(root));
        bundle
    }

    /// Reads all certificates of a PEM text.
    ///
    /// # Errors
    /// Names the certificate that is broken or no authority.
    pub fn parse(text: &[u8]) -> Result<Self, BundleError> {
        let ders = pem::certificates(text).map_err(BundleError::Pem)?;
        if ders.len() > MAX_ROOTS {
            return Err(BundleError::TooMany);
        }
        let mut bundle = Self::default();
        for (number, der) in (1..).zip(ders) {
            let root = Cert::parse(der).map_err(|source| BundleError::Cert { number, source })?;
            if !root.is_ca {
                return Err(BundleError::NotAnAuthority { number, subject: root.subject });
            }
            bundle.add(root);
        }
        Ok(bundle)
    }

    /// Adds a root unless it is already there.
    pub fn add(&mut self, root: Cert) {
        if !self.roots.contains(&root) {
            self.roots.push(root);
        }
    }

    /// The roots, in order.
    #[must_use]
    pub fn roots(&self) -> &[Cert] {
        &self.roots
    }

    /// The roots in DER, for a TLS library.
    pub fn ders(&self) -> impl Iterator<Item = &CertificateDer<'static>> {
        self.roots.iter().map(Cert::der)
    }

    /// All roots in one PEM text: the last element of an answer, and the content of `root-cert.pem`.
    #[must_use]
    pub fn to_pem(&self) -> String {
        self.roots.iter().map(Cert::to_pem).collect()
    }

    /// The roots of both, this one's first.
    #[must_use]
    pub fn union(&self, other: &Self) -> Self {
        Self::new(self.roots.iter().chain(&other.roots).cloned())
    }

    /// Whether the certificate is one of the roots.
    #[must_use]
    pub fn contains(&self, cert: &Cert) -> bool {
        self.roots.contains(cert)
    }

    /// The bundle without roots that have expired. Roots that are not valid yet stay: they were added ahead of time.
    #[must_use]
    pub fn without_expired(&self, now: SystemTime) -> Self {
        Self { roots: self.roots.iter().filter(|root| root.not_after >= now).cloned().collect() }
    }

    /// A name for exactly this set, whatever its order: what verified chains and TLS sessions are remembered under.
    #[must_use]
    pub fn epoch(&self) -> String {
        let mut fingerprints: Vec<String> = self.roots.iter().map(Cert::fingerprint).collect();
        fingerprints.sort_unstable();
        let mut context = Context::new(&SHA256);
        fingerprints.iter().for_each(|fingerprint| context.update(fingerprint.as_bytes()));
        hex(context.finish().as_ref())
    }

    /// When each root stops being of use, the most urgent first. `warn` is how long before its end a root counts as
    /// [`Urgency::Soon`].
    #[must_use]
    pub fn forecast(&self, now: SystemTime, warn: Duration) -> Vec<Forecast> {
        let mut forecasts: Vec<Forecast> = self.roots.iter().map(|root| Forecast::of(root, now, warn)).collect();
        forecasts.sort_by_key(|forecast| forecast.not_after);
        forecasts
    }
}

impl Forecast {
    /// The forecast of one certificate; of use for any authority or leaf.
    #[must_use]
    pub fn of(cert: &Cert, now: SystemTime, warn: Duration) -> Self {
        let remaining = cert.remaining(now);
        let urgency = if !cert.is_valid_at(now) {
            Urgency::Unusable
        } else if remaining <= warn {
            Urgency::Soon
        } else {
            Urgency::Fine
        };
        Self {
            subject: cert.subject.clone(),
            fingerprint: cert.fingerprint(),
            not_after: cert.not_after,
            remaining,
            urgency,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::TestCa;
    use crate::time::from_unix;

    const YEAR: Duration = Duration::from_secs(365 * 86_400);

    fn root(years: u32) -> Cert {
        let now = from_unix(1_000_000_000) + YEAR * years;
        TestCa::new(now).bundle().roots()[0].clone()
    }

    #[test]
    fn doubles_are_dropped_and_pem_keeps_the_order() {
        let (a, b) = (root(0), root(1));
        let bundle = TrustBundle::new([a.clone(), b.clone(), a.clone()]);
        assert_eq!(bundle.roots(), [a.clone(), b.clone()]);
        assert_eq!(TrustBundle::parse(bundle.to_pem().repeat(2).as_bytes()).unwrap(), bundle);
        assert_eq!(TrustBundle::new([b.clone()]).union(&bundle).roots(), [b, a]);
    }

    #[test]
    fn the_epoch_is_that_of_the_set() {
        let (a, b) = (root(0), root(1));
        let epoch = |roots: &[&Cert]| TrustBundle::new(roots.iter().copied().cloned()).epoch();
        assert_eq!(epoch(&[&a, &b]), epoch(&[&b, &a]));
        assert_ne!(epoch(&[&a, &b]), epoch(&[&a]));
    }

    #[test]
    fn the_forecast_begins_with_the_most_urgent() {
        let bundle = TrustBundle::new([root(5), root(0), root(1)]);
        let now = from_unix(1_000_000_000) + YEAR * 10 + Duration::from_secs(1);
        let forecast = bundle.forecast(now, YEAR * 2);
        let urgencies: Vec<Urgency> = forecast.iter().map(|forecast| forecast.urgency).collect();
        assert_eq!(urgencies, [Urgency::Unusable, Urgency::Soon, Urgency::Fine]);
        assert_eq!(forecast[0].remaining, Duration::ZERO);
        assert_eq!(bundle.without_expired(now).roots().len(), 2);
    }

    #[test]
    fn leaves_and_junk_are_no_roots() {
        let ca = TestCa::new(from_unix(1_000_000_000));
        let text = ca.bundle().to_pem() + &ca.credential("a", "b").chain_pem();
        let error = TrustBundle::parse(text.as_bytes()).unwrap_err();
        assert!(matches!(error, BundleError::NotAnAuthority { number: 2, .. }), "{error}");
        let text = ca.bundle().to_pem().repeat(MAX_ROOTS + 1);
        assert!(matches!(TrustBundle::parse(text.as_bytes()), Err(BundleError::TooMany)));
        assert!(matches!(TrustBundle::parse(b""), Err(BundleError::Pem(PemError::NoCertificate))));
    }
}
