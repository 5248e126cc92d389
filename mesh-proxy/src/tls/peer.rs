//! The authenticated peer: what its certificate says, and whether its names are the ones asked for.

use std::fmt::Write as _;

use mesh_api::identity::SpiffeId;
use mesh_api_xds::ir::matcher::{StringMatch, StringPattern};
use rustls::pki_types::CertificateDer;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

/// A peer whose certificate chain was verified by the handshake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its SPIFFE identity: the one URI SAN with that scheme.
    pub identity: Option<SpiffeId>,
    /// URI SANs.
    pub uris: Vec<String>,
    /// DNS SANs.
    pub dns: Vec<String>,
    /// Subject in RFC 2253 text.
    pub subject: String,
    /// SHA-256 of the certificate, lower-case hex.
    pub hash: String,
    /// Serial number, lower-case hex.
    pub serial: String,
}

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

impl Peer {
    /// Reads the leaf of a verified chain.
    ///
    /// # Errors
    /// When it does not parse or names several SPIFFE identities.
    pub fn of(leaf: &CertificateDer<'_>) -> Result<Self, PeerError> {
        let (_, certificate) = X509Certificate::from_der(leaf).map_err(|_| PeerError::Malformed)?;
        let mut uris = Vec::new();
        let mut dns = Vec::new();
        let names = certificate.subject_alternative_name().map_err(|_| PeerError::Malformed)?;
        for name in names.iter().flat_map(|names| &names.value.general_names) {
            match name {
                GeneralName::URI(uri) => uris.push((*uri).to_owned()),
                GeneralName::DNSName(name) => dns.push((*name).to_owned()),
                _ => {}
            }
        }
        let spiffe: Vec<_> = uris.iter().filter(|uri| uri.starts_with("spiffe://")).collect();
        if spiffe.len() > 1 {
            return Err(PeerError::ManyIdentities(spiffe.len()));
        }
        let identity = spiffe.first().and_then(|uri| uri.parse().ok());
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, leaf);
        Ok(Self {
            identity,
            subject: certificate.subject().to_string(),
            hash: hex(digest.as_ref()),
            serial: hex(certificate.raw_serial()),
            uris,
            dns,
        })
    }

    /// Whether one of its names passes one of `allowed`; an empty list allows all.
    ///
    /// # Errors
    /// When none does.
    pub fn check_names(&self, allowed: &[StringMatch]) -> Result<(), PeerError> {
        let mut names = self.uris.iter().chain(&self.dns);
        if allowed.is_empty() || names.any(|name| allowed.iter().any(|test| name_passes(test, name))) {
            return Ok(());
        }
        let presented = self.uris.iter().chain(&self.dns).cloned().collect::<Vec<_>>().join(", ");
        let expected = allowed.iter().map(|test| format!("{:?}", test.pattern)).collect::<Vec<_>>().join(", ");
        Err(PeerError::Unexpected { presented, expected })
    }

    /// Whether the certificate is valid for the host name `host` (RFC 6125: exact, or a wildcard as its first label).
    #[must_use]
    pub fn is_for_host(&self, host: &str) -> bool {
        self.dns.iter().any(|pattern| match pattern.strip_prefix("*.") {
            Some(parent) => host
                .split_once('.')
                .is_some_and(|(label, rest)| !label.is_empty() && rest.eq_ignore_ascii_case(parent)),
            None => pattern.eq_ignore_ascii_case(host),
        })
    }
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
