//! PEM in and out.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::{Error as SectionError, PemObject as _};
use zeroize::Zeroizing;

/// Label of a certificate.
pub const CERTIFICATE: &str = "CERTIFICATE";
/// Label of a certificate request.
pub const REQUEST: &str = "CERTIFICATE REQUEST";
/// Label of a PKCS#8 private key.
pub const PRIVATE_KEY: &str = "PRIVATE KEY";

/// Largest PEM text read, in bytes: some hundred certificates.
pub const MAX_PEM_BYTES: usize = 512 * 1024;

/// Why a text is no list of certificates.
#[derive(Debug, thiserror::Error)]
pub enum PemError {
    /// Larger than [`MAX_PEM_BYTES`].
    #[error("is larger than {MAX_PEM_BYTES} bytes")]
    TooLarge,
    /// No section with the label `CERTIFICATE`.
    #[error("holds no certificate")]
    NoCertificate,
    /// A section is broken.
    #[error("is not valid PEM: {0}")]
    Malformed(String),
}

/// All certificates of a text, in its order. Other sections and text between sections are skipped.
///
/// # Errors
/// When the text is too large, broken, or holds no certificate.
pub fn certificates(text: &[u8]) -> Result<Vec<CertificateDer<'static>>, PemError> {
    if text.len() > MAX_PEM_BYTES {
        return Err(PemError::TooLarge);
    }
    let certs: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text).collect();
    let certs = certs.map_err(|error| PemError::Malformed(describe(&error)))?;
    if certs.is_empty() { Err(PemError::NoCertificate) } else { Ok(certs) }
}

/// A section in PEM.
#[must_use]
pub fn encode(label: &str, der: &[u8]) -> String {
    // The text is public: take it out of the wrapper that would wipe it.
    std::mem::take(&mut *encode_secret(label, der))
}

/// A section in PEM that is wiped when dropped. Its buffer never grows, so that no copy is left behind.
#[must_use]
pub fn encode_secret(label: &str, der: &[u8]) -> Zeroizing<String> {
    let lines = der.len().div_ceil(48);
    let mut text = Zeroizing::new(String::with_capacity(lines * 65 + 2 * label.len() + 32));
    text.push_str("-----BEGIN ");
    text.push_str(label);
    text.push_str("-----\n");
    for line in der.chunks(48) {
        // 48 bytes are 64 characters, a line.
        STANDARD.encode_string(line, &mut text);
        text.push('\n');
    }
    text.push_str("-----END ");
    text.push_str(label);
    text.push_str("-----\n");
    text
}

/// The error without the text that it may quote: that could be a part of a key.
pub(crate) fn describe(error: &SectionError) -> String {
    match error {
        SectionError::MissingSectionEnd { .. } => "a section has no end line".to_owned(),
        SectionError::IllegalSectionStart { .. } => "a begin line is malformed".to_owned(),
        SectionError::Base64Decode(_) => "the content of a section is not base64".to_owned(),
        SectionError::NoItemsFound => "the expected section is absent".to_owned(),
        _ => "it cannot be read".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_encoded_is_read_in_order() {
        let ders: Vec<Vec<u8>> = [0, 1, 47, 48, 49, 500].iter().map(|length| vec![0x5a; *length]).collect();
        let text: String = ders.iter().map(|der| format!("some words\n{}", encode(CERTIFICATE, der))).collect();
        let read = certificates(text.as_bytes()).unwrap();
        assert_eq!(read.iter().map(|der| der.to_vec()).collect::<Vec<_>>(), ders);
        assert!(text.lines().all(|line| line.len() <= 64));
    }

    #[test]
    fn the_secret_buffer_never_grows() {
        for length in 0..300 {
            let capacity = usize::div_ceil(length, 48) * 65 + 2 * PRIVATE_KEY.len() + 32;
            let text = encode_secret(PRIVATE_KEY, &vec![1; length]);
            assert!(text.len() <= capacity, "{length}: {} > {capacity}", text.len());
        }
    }

    #[test]
    fn errors_say_what_is_wrong() {
        let check = |text: &str, expect: &str| {
            let error = certificates(text.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(expect), "{error}");
        };
        check("", "no certificate");
        check("-----BEGIN CERTIFICATE-----\nAAAA\n", "no end line");
        check("-----BEGIN CERTIFICATE-----\n@@\n-----END CERTIFICATE-----\n", "not base64");
        check(&" ".repeat(MAX_PEM_BYTES + 1), "larger");
    }
}
