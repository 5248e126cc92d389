//! The authenticated peer: what its certificate says, and whether its names are the ones asked for.

use std::fmt::Write as _;

use base64::Engine as _;
use mesh_api::text::Str;
use mesh_api_xds::ir::matcher::{StringMatch, StringPattern};
use mesh_proxy_core::facts::Peer;
use rustls::pki_types::CertificateDer;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

/// Why a verified certificate gives no usable peer.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum PeerError {
    /// The certificate does not parse.
    #[error("peer certificate does not parse")]
    Malformed,
    /// SPIFFE X.509-SVID section 2: exactly one URI SAN.
    #[error("peer certificate has {0} SPIFFE URIs; exactly one is allowed")]
    ManyIdentities(usize),
    /// None of its names is allowed.
    #[error("peer certificate names {presented}; expected one of {expected}")]
    Unexpected {
        /// Names in the certificate.
        presented: String,
        /// What was asked for.
        expected: String,
    },
}

/// Whether the facts include the certificate itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeepCertificate {
    /// Only its names.
    No,
    /// Also as URL-encoded PEM, for `x-forwarded-client-cert`.
    Yes,
}

/// Reads the leaf of a verified chain.
///
/// # Errors
/// When it does not parse or names several SPIFFE identities.
pub fn read(leaf: &CertificateDer<'_>, keep: KeepCertificate) -> Result<Peer, PeerError> {
    let (_, certificate) = X509Certificate::from_der(leaf).map_err(|_| PeerError::Malformed)?;
    let mut uris = Vec::new();
    let mut dns_names = Vec::new();
    let names = certificate.subject_alternative_name().map_err(|_| PeerError::Malformed)?;
    for name in names.iter().flat_map(|names| &names.value.general_names) {
        match name {
            GeneralName::URI(uri) => uris.push(Str::from(*uri)),
            GeneralName::DNSName(name) => dns_names.push(Str::from(*name)),
            _ => {}
        }
    }
    let spiffe = uris.iter().filter(|uri| uri.starts_with("spiffe://")).count();
    if spiffe > 1 {
        return Err(PeerError::ManyIdentities(spiffe));
    }
    uris.sort_by_key(|uri| !uri.starts_with("spiffe://"));
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, leaf);
    let pem = match keep {
        KeepCertificate::No => Str::default(),
        KeepCertificate::Yes => Str::from(url_encoded_pem(leaf)),
    };
    Ok(Peer {
        uris,
        dns_names,
        subject: Str::from(certificate.subject().to_string()),
        sha256: Str::from(hex(digest.as_ref())),
        pem_url_encoded: pem,
    })
}

/// Whether one of the peer's names passes one of `allowed`; an empty list allows all.
///
/// # Errors
/// When none does.
pub fn check_names(peer: &Peer, allowed: &[StringMatch]) -> Result<(), PeerError> {
    let names = || peer.uris.iter().chain(&peer.dns_names);
    if allowed.is_empty() || names().any(|name| allowed.iter().any(|test| name_passes(test, name))) {
        return Ok(());
    }
    let presented = names().map(|name| &**name).collect::<Vec<_>>().join(", ");
    let expected = allowed.iter().map(|test| format!("{:?}", test.pattern)).collect::<Vec<_>>().join(", ");
    Err(PeerError::Unexpected { presented, expected })
}

/// Whether the certificate is valid for the host name `host` (RFC 6125: exact, or a wildcard as its first label).
#[must_use]
pub fn is_for_host(peer: &Peer, host: &str) -> bool {
    peer.dns_names.iter().any(|pattern| match pattern.strip_prefix("*.") {
        Some(parent) => {
            host.split_once('.').is_some_and(|(label, rest)| !label.is_empty() && rest.eq_ignore_ascii_case(parent))
        }
        None => pattern.eq_ignore_ascii_case(host),
    })
}

/// PEM with everything but unreserved characters percent-encoded, as Envoy writes `Cert=`.
fn url_encoded_pem(der: &[u8]) -> String {
    let body = base64::engine::general_purpose::STANDARD.encode(der);
    let mut text = String::with_capacity(body.len() * 2);
    let mut push = |piece: &str| {
        for byte in piece.bytes() {
            if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~') {
                text.push(char::from(byte));
            } else {
                let _ = write!(text, "%{byte:02X}");
            }
        }
    };
    push("-----BEGIN CERTIFICATE-----\n");
    for line in body.as_bytes().chunks(64) {
        push(std::str::from_utf8(line).unwrap_or_default());
        push("\n");
    }
    push("-----END CERTIFICATE-----\n");
    text
}

/// Regular expressions on names are refused when the plan is built; here they match nothing.
fn name_passes(test: &StringMatch, name: &str) -> bool {
    let (lower_name, lower_text);
    let (text, name) = match &test.pattern {
        StringPattern::Exact(text)
        | StringPattern::Prefix(text)
        | StringPattern::Suffix(text)
        | StringPattern::Contains(text) => {
            if test.ignore_case {
                lower_name = name.to_ascii_lowercase();
                lower_text = text.to_ascii_lowercase();
                (lower_text.as_str(), lower_name.as_str())
            } else {
                (&**text, name)
            }
        }
        StringPattern::Regex(_) => return false,
    };
    match &test.pattern {
        StringPattern::Exact(_) => name == text,
        StringPattern::Prefix(_) => name.starts_with(text),
        StringPattern::Suffix(_) => name.ends_with(text),
        StringPattern::Contains(_) => name.contains(text),
        StringPattern::Regex(_) => false,
    }
}

fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        let _ = write!(text, "{byte:02x}");
    }
    text
}
