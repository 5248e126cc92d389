//! A certificate with the facts that the mesh reads from it. It says what is written, not that it is to be believed:
//! signatures are checked by [`Cert::is_signed_by`] and, for whole chains, by [`verify_chain`].

use std::fmt;
use std::time::{Duration, SystemTime};

use aws_lc_rs::digest::{SHA256, digest};
use rustls_pki_types::{CertificateDer, UnixTime};
use webpki::{ALL_VERIFICATION_ALGS, EndEntityCert, KeyUsage, anchor_from_trusted_cert};
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::der;
use crate::pem;
use crate::time::{display, from_unix, to_unix};

/// Largest certificate read, in bytes of DER.
pub const MAX_CERT_BYTES: usize = 64 * 1024;

/// A parsed certificate.
#[derive(Clone, PartialEq, Eq)]
pub struct Cert {
    der: CertificateDer<'static>,
    /// Subject as text, such as `O=cluster.local`; for messages only.
    pub subject: String,
    /// Issuer as text; for messages only.
    pub issuer: String,
    /// Subject as encoded: what is compared.
    pub subject_der: Vec<u8>,
    /// Issuer as encoded.
    pub issuer_der: Vec<u8>,
    /// Serial number in lower-case hexadecimal.
    pub serial: String,
    /// First second of validity.
    pub not_before: SystemTime,
    /// Last second of validity.
    pub not_after: SystemTime,
    /// Whether basic constraints say that it is an authority.
    pub is_ca: bool,
    /// How many further authorities may follow below it; `None` is any number.
    pub path_len: Option<u32>,
    /// Whether it may sign certificates: no key usage at all, or one with `keyCertSign`.
    pub may_sign: bool,
    /// Subject key identifier.
    pub key_id: Option<Vec<u8>>,
    /// SubjectPublicKeyInfo in DER.
    pub public_key_info: Vec<u8>,
    /// URIs among the subject's alternative names.
    pub uris: Vec<String>,
    /// DNS names among the subject's alternative names.
    pub dns_names: Vec<String>,
}

/// Why bytes are no certificate that we can use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CertError {
    /// Larger than [`MAX_CERT_BYTES`].
    #[error("the certificate is larger than {MAX_CERT_BYTES} bytes")]
    TooLarge,
    /// No X.509 certificate, or one with broken or repeated extensions.
    #[error("not a well-formed X.509 certificate")]
    Malformed,
}

/// A chain that no peer would accept.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the chain does not verify: {reason}")]
pub struct ChainError {
    /// What the verifier said.
    pub reason: String,
}

impl Cert {
    /// Reads one certificate.
    ///
    /// # Errors
    /// When it is too large or not well-formed.
    pub fn parse(der: CertificateDer<'static>) -> Result<Self, CertError> {
        if der.len() > MAX_CERT_BYTES {
            return Err(CertError::TooLarge);
        }
        Self::read(&der).ok_or(CertError::Malformed)
    }

    fn read(der: &CertificateDer<'static>) -> Option<Self> {
        let (rest, x509) = X509Certificate::from_der(der).ok()?;
        if !rest.is_empty() || !has_strict_envelope(der) {
            return None;
        }
        let (is_ca, path_len) = match x509.basic_constraints().ok()? {
            Some(found) => (found.value.ca, found.value.path_len_constraint),
            None => (false, None),
        };
        let may_sign = x509.key_usage().ok()?.is_none_or(|found| found.value.key_cert_sign());
        let names = x509.subject_alternative_name().ok()?;
        let (mut uris, mut dns_names) = (Vec::new(), Vec::new());
        for name in names.iter().flat_map(|found| &found.value.general_names) {
            match name {
                GeneralName::URI(uri) => uris.push((*uri).to_owned()),
                GeneralName::DNSName(name) => dns_names.push((*name).to_owned()),
                // A name that could not be read might have been the one that matters.
                GeneralName::Invalid(..) => return None,
                _ => {}
            }
        }
        let key_id = x509.extensions().iter().find_map(|extension| match extension.parsed_extension() {
            ParsedExtension::SubjectKeyIdentifier(id) => Some(id.0.to_vec()),
            _ => None,
        });
        Some(Self {
            der: der.clone(),
            subject: x509.subject().to_string(),
            issuer: x509.issuer().to_string(),
            subject_der: x509.subject().as_raw().to_vec(),
            issuer_der: x509.issuer().as_raw().to_vec(),
            serial: hex(x509.raw_serial()),
            not_before: from_unix(x509.validity().not_before.timestamp()),
            not_after: from_unix(x509.validity().not_after.timestamp()),
            is_ca,
            path_len,
            may_sign,
            key_id,
            public_key_info: x509.public_key().raw.to_vec(),
            uris,
            dns_names,
        })
    }

    /// The certificate in DER.
    #[must_use]
    pub fn der(&self) -> &CertificateDer<'static> {
        &self.der
    }

    /// The certificate in PEM.
    #[must_use]
    pub fn to_pem(&self) -> String {
        pem::encode(pem::CERTIFICATE, &self.der)
    }

    /// SHA-256 over the DER, in lower-case hexadecimal.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        hex(digest(&SHA256, &self.der).as_ref())
    }

    /// Whether subject and issuer are the same name.
    #[must_use]
    pub fn is_self_issued(&self) -> bool {
        self.subject_der == self.issuer_der
    }

    /// Whether `issuer` has the name that this certificate gives as its issuer and made its signature.
    #[must_use]
    pub fn is_signed_by(&self, issuer: &Self) -> bool {
        if self.issuer_der != issuer.subject_der {
            return false;
        }
        let Ok((_, child)) = X509Certificate::from_der(&self.der) else { return false };
        let Ok((_, parent)) = X509Certificate::from_der(&issuer.der) else { return false };
        child.verify_signature(Some(parent.public_key())).is_ok()
    }

    /// Whether `now` is within its validity.
    #[must_use]
    pub fn is_valid_at(&self, now: SystemTime) -> bool {
        self.not_before <= now && now <= self.not_after
    }

    /// Time until it expires; zero when it has.
    #[must_use]
    pub fn remaining(&self, now: SystemTime) -> Duration {
        self.not_after.duration_since(now).unwrap_or_default()
    }
}

impl fmt::Debug for Cert {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cert")
            .field("subject", &self.subject)
            .field("issuer", &self.issuer)
            .field("serial", &self.serial)
            .field("not_before", &display(self.not_before))
            .field("not_after", &display(self.not_after))
            .field("uris", &self.uris)
            .field("dns_names", &self.dns_names)
            .finish_non_exhaustive()
    }
}

/// Verifies a leaf as a TLS peer would: up to one of `roots`, at `now`, for use by clients and by servers.
///
/// # Errors
/// [`ChainError`] with the verifier's reason.
pub fn verify_chain<'a>(
    leaf: &CertificateDer<'_>,
    intermediates: &[CertificateDer<'_>],
    roots: impl IntoIterator<Item = &'a CertificateDer<'static>>,
    now: SystemTime,
) -> Result<(), ChainError> {
    let failed = |error: webpki::Error| ChainError { reason: format!("{error:?}") };
    let anchors: Result<Vec<_>, _> = roots.into_iter().map(|root| anchor_from_trusted_cert(root)).collect();
    let anchors = anchors.map_err(failed)?;
    let leaf = EndEntityCert::try_from(leaf).map_err(failed)?;
    let seconds = u64::try_from(to_unix(now)).unwrap_or_default();
    let now = UnixTime::since_unix_epoch(Duration::from_secs(seconds));
    for usage in [KeyUsage::client_auth(), KeyUsage::server_auth()] {
        let verified = leaf.verify_for_usage(ALL_VERIFICATION_ALGS, &anchors, intermediates, now, usage, None, None);
        verified.map_err(failed)?;
    }
    Ok(())
}

/// Whether what no signature covers is the one possible encoding of it, and names the algorithm that the signed part names
/// (RFC 5280, section 4.1.1.2). The parser is lax here.
fn has_strict_envelope(der: &[u8]) -> bool {
    let inner = || {
        let (outer, _) = der::read(der)?;
        let (body, rest) = der::read(outer.content)?;
        let (algorithm, rest) = der::read(rest)?;
        let (signature, _) = der::read(rest)?;
        let (first, rest) = der::read(body.content)?;
        // The version is absent in version 1.
        let (_serial, rest) = if first.tag == der::VERSION { der::read(rest)? } else { (first, rest) };
        let (signed_algorithm, _) = der::read(rest)?;
        let (unused_bits, signature) = signature.content.split_first()?;
        let bits = der::write(der::BIT_STRING, &[&[0], signature]);
        let strict = der::write(der::SEQUENCE, &[body.whole, signed_algorithm.whole, &bits]);
        Some(strict == der && algorithm == signed_algorithm && *unused_bits == 0)
    };
    inner().unwrap_or(false)
}

/// Lower-case hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        for digit in [byte >> 4, byte & 15] {
            text.push(char::from_digit(u32::from(digit), 16).unwrap_or('?'));
        }
        text
    })
}

#[cfg(test)]
mod tests;
