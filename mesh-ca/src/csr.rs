//! Certificate requests: what is believed of them is their key, once they have proved to hold it.
//!
//! Everything else in a request (names, usages, constraints) is ignored, as Istio's authority does: a certificate's
//! content comes from the authenticated caller. The names are read so that a difference can be reported.

use rcgen::{PublicKeyData, SubjectPublicKeyInfo};
use rustls_pki_types::CertificateSigningRequestDer;
use rustls_pki_types::pem::PemObject as _;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::oid_registry::{
    OID_EC_P256, OID_KEY_TYPE_EC_PUBLIC_KEY, OID_NIST_EC_P384, OID_PKCS1_RSAENCRYPTION, OID_PKCS1_SHA256WITHRSA,
    OID_PKCS1_SHA384WITHRSA, OID_PKCS1_SHA512WITHRSA, OID_SIG_ECDSA_WITH_SHA256, OID_SIG_ECDSA_WITH_SHA384,
};
use x509_parser::prelude::FromDer as _;
use x509_parser::public_key::PublicKey;
use x509_parser::x509::SubjectPublicKeyInfo as ParsedKey;

use crate::der;

/// Largest request read, in bytes of PEM. One with an RSA key of 8,192 bits takes about 3 KiB.
pub const MAX_CSR_BYTES: usize = 16 * 1024;
/// Sizes of RSA keys accepted, in bits.
const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=8192;
/// Most names reported of a request.
const MAX_NAMES: usize = 16;

/// A request whose sender holds the private key, and whose key is one that all peers can verify.
#[derive(Clone, Debug)]
pub struct ValidCsr {
    key: SubjectPublicKeyInfo,
    is_rsa: bool,
    /// URIs and DNS names asked for, at most 16; not believed, for comparison only.
    pub asked: Vec<String>,
}

/// Why a request is refused. Never quotes the request: it came from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CsrError {
    /// Larger than [`MAX_CSR_BYTES`].
    #[error("the certificate request is larger than {MAX_CSR_BYTES} bytes")]
    TooLarge,
    /// No section `CERTIFICATE REQUEST`.
    #[error("the certificate request is not in PEM")]
    NotPem,
    /// No PKCS#10 in DER, or bytes behind it.
    #[error("the certificate request is malformed")]
    Malformed,
    /// Key of another kind or size. Ed25519 is among them: BoringSSL peers do not take it by default.
    #[error("the key must be ECDSA P-256, ECDSA P-384 or RSA of 2048 to 8192 bits")]
    KeyKind,
    /// Signed with SHA-1 or another algorithm we do not use.
    #[error("the certificate request must be signed with SHA-256, SHA-384 or SHA-512")]
    SignatureKind,
    /// Not signed with the private key that belongs to it.
    #[error("the certificate request is not signed with its own key")]
    Signature,
}

impl ValidCsr {
    /// Reads a request in PEM and checks size, form, key and signature.
    ///
    /// # Errors
    /// The first of these that is wrong.
    pub fn parse(text: &str) -> Result<Self, CsrError> {
        if text.len() > MAX_CSR_BYTES {
            return Err(CsrError::TooLarge);
        }
        let der = CertificateSigningRequestDer::from_pem_slice(text.as_bytes()).map_err(|_| CsrError::NotPem)?;
        Self::parse_der(&der)
    }

    /// The same for a request in DER.
    ///
    /// # Errors
    /// See [`ValidCsr::parse`].
    pub fn parse_der(der: &[u8]) -> Result<Self, CsrError> {
        if der.len() > MAX_CSR_BYTES {
            return Err(CsrError::TooLarge);
        }
        let (rest, csr) = X509CertificationRequest::from_der(der).map_err(|_| CsrError::Malformed)?;
        if !rest.is_empty() {
            return Err(CsrError::Malformed);
        }
        let info = &csr.certification_request_info;
        // The key first: a signature is not worth computing with a key that we would refuse.
        let is_rsa = check_key(&info.subject_pki)?;
        let allowed = if is_rsa { RSA_SIGNATURES } else { ECDSA_SIGNATURES };
        if !allowed.contains(&csr.signature_algorithm.algorithm) {
            return Err(CsrError::SignatureKind);
        }
        if !has_strict_envelope(&csr, der, is_rsa) {
            return Err(CsrError::Malformed);
        }
        csr.verify_signature().map_err(|_| CsrError::Signature)?;
        let key = SubjectPublicKeyInfo::from_der(info.subject_pki.raw).map_err(|_| CsrError::KeyKind)?;
        // `rcgen` writes the key anew; another encoding of it would be another key to those who pin or compare.
        if key.subject_public_key_info() != info.subject_pki.raw {
            return Err(CsrError::KeyKind);
        }
        Ok(Self { key, is_rsa, asked: names(&csr) })
    }

    /// The public key, for the certificate.
    pub(crate) fn key(&self) -> &SubjectPublicKeyInfo {
        &self.key
    }

    /// Whether the key is an RSA key.
    #[must_use]
    pub fn is_rsa(&self) -> bool {
        self.is_rsa
    }
}

const RSA_SIGNATURES: &[x509_parser::der_parser::Oid<'static>] =
    &[OID_PKCS1_SHA256WITHRSA, OID_PKCS1_SHA384WITHRSA, OID_PKCS1_SHA512WITHRSA];
const ECDSA_SIGNATURES: &[x509_parser::der_parser::Oid<'static>] =
    &[OID_SIG_ECDSA_WITH_SHA256, OID_SIG_ECDSA_WITH_SHA384];

/// Says whether the key is RSA; an error when it is of a kind or size that is refused.
fn check_key(key: &ParsedKey<'_>) -> Result<bool, CsrError> {
    let kind = &key.algorithm.algorithm;
    if *kind == OID_KEY_TYPE_EC_PUBLIC_KEY {
        let curve = key.algorithm.parameters.as_ref().and_then(|parameters| parameters.as_oid().ok());
        let known = curve.is_some_and(|curve| curve == OID_EC_P256 || curve == OID_NIST_EC_P384);
        return if known { Ok(false) } else { Err(CsrError::KeyKind) };
    }
    if *kind == OID_PKCS1_RSAENCRYPTION
        && let Ok(PublicKey::RSA(rsa)) = key.parsed()
        && RSA_BITS.contains(&rsa.key_size())
    {
        return Ok(true);
    }
    Err(CsrError::KeyKind)
}

/// Whether what the signature does not cover is the one possible encoding of it; the parser is lax here.
fn has_strict_envelope(csr: &X509CertificationRequest<'_>, der: &[u8], is_rsa: bool) -> bool {
    let oid = der::write(der::OID, &[csr.signature_algorithm.algorithm.as_bytes()]);
    // RFC 4055, section 5: NULL for RSA; RFC 5758, section 3.2: nothing for ECDSA.
    let parameters = if is_rsa { der::NULL } else { &[] };
    let algorithm = der::write(der::SEQUENCE, &[&oid, parameters]);
    let signature = der::write(der::BIT_STRING, &[&[0], &csr.signature_value.data]);
    der::write(der::SEQUENCE, &[csr.certification_request_info.raw, &algorithm, &signature]) == der
}

fn names(csr: &X509CertificationRequest<'_>) -> Vec<String> {
    let Some(extensions) = csr.requested_extensions() else { return Vec::new() };
    let names = extensions.filter_map(|extension| match extension {
        ParsedExtension::SubjectAlternativeName(names) => Some(&names.general_names),
        _ => None,
    });
    let texts = names.flatten().filter_map(|name| match name {
        GeneralName::URI(text) | GeneralName::DNSName(text) => Some((*text).to_owned()),
        _ => None,
    });
    texts.take(MAX_NAMES).collect()
}

#[cfg(test)]
mod tests;
