//! The certificate profile: what stands in a certificate that the mesh issues, and for how long.

use std::cell::RefCell;
use std::time::{Duration, SystemTime};

use aws_lc_rs::rand;
use rcgen::string::Ia5String;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod,
    KeyUsagePurpose, PublicKeyData, SanType, SerialNumber, SignatureAlgorithm, SigningKey,
};
use rustls_pki_types::CertificateDer;

use crate::caller::Grant;
use crate::cert::{Cert, CertError};
use crate::csr::ValidCsr;
use crate::der;
use crate::key::PrivateKey;
use crate::time::to_calendar;

/// Bounds of the lifetimes of issued certificates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lifetimes {
    /// When the caller does not ask for one. Istio's `DEFAULT_WORKLOAD_CERT_TTL`: 24 h.
    pub default: Duration,
    /// The longest. Istio's `MAX_WORKLOAD_CERT_TTL`: 90 days.
    pub max: Duration,
    /// The shortest: below it a proxy would do little else than renew.
    pub min: Duration,
    /// How far validity begins before the present, for peers whose clocks are late. Istio: 2 minutes.
    pub backdate: Duration,
}

impl Default for Lifetimes {
    fn default() -> Self {
        let hour = Duration::from_secs(3600);
        Self {
            default: 24 * hour,
            max: 90 * 24 * hour,
            min: Duration::from_secs(60),
            backdate: Duration::from_secs(120),
        }
    }
}

impl Lifetimes {
    /// The lifetime for a request. `None` or zero asks for the default; anything else is brought between the bounds.
    #[must_use]
    pub fn clamp(&self, asked: Option<Duration>, grant: Option<Duration>) -> Duration {
        let asked = asked.filter(|ttl| !ttl.is_zero()).unwrap_or(self.default);
        let max = grant.map_or(self.max, |grant| grant.min(self.max));
        // The upper bound is the security property: it wins when somebody sets the lower one above it.
        asked.max(self.min).min(max)
    }
}

/// Why no certificate was made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IssueError {
    /// The authority's own certificate, or one above it, has expired or is not valid yet.
    #[error("the certificate of the authority ({subject}) is valid from {from} to {to}, not now")]
    AuthorityNotValid {
        /// Whose it is.
        subject: String,
        /// First second.
        from: String,
        /// Last second.
        to: String,
    },
    /// A name that no certificate can hold.
    #[error("the name {0:?} cannot be written into a certificate")]
    Name(String),
    /// The crypto library failed, for instance for want of randomness.
    #[error("the crypto library could not issue a certificate")]
    Library,
    /// What was made cannot be read back: a mistake of ours, caught before it is handed out.
    #[error("the issued certificate is unusable")]
    Unusable(#[source] CertError),
}

/// First and last second of a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    /// First second.
    pub not_before: SystemTime,
    /// Last second.
    pub not_after: SystemTime,
}

/// What signs: a key, and the certificate that vouches for it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Signer<'a> {
    pub(crate) cert: &'a Cert,
    pub(crate) key: &'a PrivateKey,
}

/// Makes a leaf certificate: the request's key, the grant's names, nothing else of the request.
///
/// Profile: no subject (so the alternative names are critical, RFC 5280 section 4.2.1.6), the identity as the only URI,
/// usable by clients and servers, no authority, random serial number of 127 bits.
pub(crate) fn leaf(signer: Signer<'_>, csr: &ValidCsr, grant: &Grant, validity: Validity) -> Result<Cert, IssueError> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.subject_alt_names = names(grant)?;
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    if csr.is_rsa() {
        // TLS 1.2 peers that still use RSA key exchange look for it; for ECDSA it means nothing.
        params.key_usages.push(KeyUsagePurpose::KeyEncipherment);
    }
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    params.serial_number = Some(serial()?);
    params.not_before = to_calendar(validity.not_before);
    params.not_after = to_calendar(validity.not_after);
    sign(params, csr.key(), signer)
}

/// Makes a self-signed root for this key.
pub(crate) fn root(key: &PrivateKey, organization: &str, validity: Validity) -> Result<Cert, IssueError> {
    let mut params = CertificateParams::default();
    let key_id = params.key_identifier(key);
    let short_id = crate::cert::hex(key_id.get(..4).unwrap_or(&key_id));
    let mut name = DistinguishedName::new();
    name.push(DnType::OrganizationName, organization);
    // Roots of one mesh with different keys have different names: a verifier that searches by name finds the right one.
    name.push(DnType::CommonName, format!("mesh root {short_id}"));
    params.distinguished_name = name;
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.serial_number = Some(serial()?);
    params.not_before = to_calendar(validity.not_before);
    params.not_after = to_calendar(validity.not_after);
    let made = params.self_signed(key).map_err(|_| IssueError::Library)?;
    Cert::parse(made.der().clone()).map_err(IssueError::Unusable)
}

fn names(grant: &Grant) -> Result<Vec<SanType>, IssueError> {
    let ia5 = |text: &str| Ia5String::try_from(text).map_err(|_| IssueError::Name(text.to_owned()));
    let mut names = vec![SanType::URI(ia5(&grant.identity.to_string())?)];
    for name in &grant.dns_names {
        names.push(SanType::DnsName(ia5(name)?));
    }
    Ok(names)
}

fn serial() -> Result<SerialNumber, IssueError> {
    let mut bytes = [0; 16];
    rand::fill(&mut bytes).map_err(|_| IssueError::Library)?;
    // RFC 5280 section 4.1.2.2: positive, and never zero.
    bytes[0] = bytes[0] & 0x7f | 0x40;
    Ok(SerialNumber::from_slice(&bytes))
}

/// Signs with the issuer's name byte for byte as its own certificate has it.
///
/// `rcgen` writes everything else: it signs with a [`Recorder`], which keeps the bytes to be signed; the name is put in
/// their place; then the real key signs.
pub(crate) fn sign(
    mut params: CertificateParams,
    subject_key: &impl PublicKeyData,
    signer: Signer<'_>,
) -> Result<Cert, IssueError> {
    let mut issuer_params = CertificateParams::default();
    issuer_params.distinguished_name = DistinguishedName::new();
    if let Some(key_id) = &signer.cert.key_id {
        issuer_params.key_identifier_method = KeyIdMethod::PreSpecified(key_id.clone());
        params.use_authority_key_identifier_extension = true;
    }
    let recorder = Recorder { key: signer.key, recorded: RefCell::new(Vec::new()) };
    let issuer = Issuer::from_params(&issuer_params, &recorder);
    let draft = params.signed_by(subject_key, &issuer).map_err(|_| IssueError::Library)?;
    let to_sign = with_issuer(&recorder.recorded.borrow(), &signer.cert.subject_der).ok_or(IssueError::Library)?;
    let signature = signer.key.sign(&to_sign).map_err(|_| IssueError::Library)?;
    let der = with_signature(draft.der(), &to_sign, &signature).ok_or(IssueError::Library)?;
    Cert::parse(CertificateDer::from(der)).map_err(IssueError::Unusable)
}

/// Replaces the issuer in a TBSCertificate: `[0] version, serialNumber, signature, issuer, …` (RFC 5280, section 4.1).
fn with_issuer(to_sign: &[u8], issuer: &[u8]) -> Option<Vec<u8>> {
    let (body, _) = der::read(to_sign)?;
    let (version, rest) = der::read(body.content)?;
    let (serial, rest) = der::read(rest)?;
    let (algorithm, rest) = der::read(rest)?;
    let (_placeholder, rest) = der::read(rest)?;
    Some(der::write(der::SEQUENCE, &[version.whole, serial.whole, algorithm.whole, issuer, rest]))
}

/// `Certificate ::= SEQUENCE { tbsCertificate, signatureAlgorithm, signatureValue }`, the algorithm as in the draft.
fn with_signature(draft: &[u8], to_sign: &[u8], signature: &[u8]) -> Option<Vec<u8>> {
    let (outer, _) = der::read(draft)?;
    let (_to_sign, rest) = der::read(outer.content)?;
    let (algorithm, _) = der::read(rest)?;
    // The first byte of a bit string says how many bits of its last byte are unused.
    let signature = der::write(der::BIT_STRING, &[&[0], signature]);
    Some(der::write(der::SEQUENCE, &[to_sign, algorithm.whole, &signature]))
}

/// A key that signs nothing and remembers what it was asked to sign.
struct Recorder<'a> {
    key: &'a PrivateKey,
    recorded: RefCell<Vec<u8>>,
}

impl PublicKeyData for Recorder<'_> {
    fn der_bytes(&self) -> &[u8] {
        self.key.der_bytes()
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        self.key.algorithm()
    }
}

impl SigningKey for Recorder<'_> {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        *self.recorded.borrow_mut() = message.to_vec();
        Ok(Vec::new())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lifetimes_are_clamped_and_the_upper_bound_wins() {
        let seconds = Duration::from_secs;
        let lifetimes =
            Lifetimes { default: seconds(100), max: seconds(1000), min: seconds(10), ..Lifetimes::default() };
        let check = |asked: Option<u64>, grant: Option<u64>, expect: u64| {
            assert_eq!(lifetimes.clamp(asked.map(seconds), grant.map(seconds)), seconds(expect), "{asked:?} {grant:?}");
        };
        check(None, None, 100);
        check(Some(0), None, 100);
        check(Some(1), None, 10);
        check(Some(500), None, 500);
        check(Some(u64::MAX), None, 1000);
        check(Some(500), Some(50), 50);
        check(None, Some(50), 50);
        check(Some(5000), Some(5000), 1000);
        check(Some(500), Some(5), 5);
    }

    #[test]
    fn an_issuer_is_replaced_only_in_its_place() {
        let parts: Vec<Vec<u8>> = (0..7).map(|part| der::write(0x30, &[&[part]])).collect();
        let pieces: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
        let replaced = with_issuer(&der::write(der::SEQUENCE, &pieces), b"NAME").unwrap();
        let mut expect = pieces.clone();
        expect[3] = b"NAME";
        assert_eq!(replaced, der::write(der::SEQUENCE, &expect));
        assert_eq!(with_issuer(&der::write(der::SEQUENCE, &pieces[..3]), b"NAME"), None);
    }
}
