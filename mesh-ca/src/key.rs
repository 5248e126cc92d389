//! Private keys: made, read, written, and used to sign. Wiped when dropped, never shown.

use std::fmt;

use aws_lc_rs::encoding::{AsDer as _, Pkcs8V1Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P384_SHA384_ASN1_SIGNING, EcdsaKeyPair, EcdsaSigningAlgorithm, KeyPair as _,
    RSA_PKCS1_SHA256, RsaKeyPair,
};
use rcgen::{PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_RSA_SHA256, PublicKeyData, SigningKey};
use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::pem::PemObject as _;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::pem;

/// Kind of a new key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum KeyKind {
    /// ECDSA on P-256: fast to sign with; the default.
    #[default]
    EcdsaP256,
    /// ECDSA on P-384.
    EcdsaP384,
    /// RSA with 2048 bits; Istio's default.
    Rsa2048,
    /// RSA with 4096 bits.
    Rsa4096,
}

/// Why there is no key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// The text is no PEM, or without a private key.
    #[error("no private key in PEM: {0}")]
    Pem(String),
    /// Encrypted, or of a kind that we do not use.
    #[error("not an unencrypted ECDSA P-256, ECDSA P-384 or RSA (2048 to 8192 bits) private key")]
    Unsupported,
    /// The crypto library failed, for instance for want of randomness.
    #[error("the crypto library could not make a key")]
    Library,
}

enum Pair {
    Ecdsa(EcdsaKeyPair),
    Rsa(RsaKeyPair),
}

/// A private key. aws-lc wipes its own copy; the encoded one is wiped by [`Zeroizing`].
pub struct PrivateKey {
    pair: Pair,
    algorithm: &'static rcgen::SignatureAlgorithm,
    public: Vec<u8>,
    pkcs8: Zeroizing<Vec<u8>>,
}

impl PrivateKey {
    /// A new key.
    ///
    /// # Errors
    /// [`KeyError::Library`].
    pub fn generate(kind: KeyKind) -> Result<Self, KeyError> {
        let random = SystemRandom::new();
        let ecdsa = |curve| EcdsaKeyPair::generate_pkcs8(curve, &random).map_err(|_| KeyError::Library);
        let rsa = |size| RsaKeyPair::generate(size).map_err(|_| KeyError::Library);
        match kind {
            KeyKind::EcdsaP256 => Self::from_der(ecdsa(&ECDSA_P256_SHA256_ASN1_SIGNING)?.as_ref()),
            KeyKind::EcdsaP384 => Self::from_der(ecdsa(&ECDSA_P384_SHA384_ASN1_SIGNING)?.as_ref()),
            KeyKind::Rsa2048 => Self::from_rsa(rsa(KeySize::Rsa2048)?),
            KeyKind::Rsa4096 => Self::from_rsa(rsa(KeySize::Rsa4096)?),
        }
    }

    /// Reads the first private key of a PEM text: PKCS#8, SEC 1 (`EC PRIVATE KEY`) or PKCS#1 (`RSA PRIVATE KEY`).
    ///
    /// # Errors
    /// When there is none, or none that we can use.
    pub fn from_pem(text: &[u8]) -> Result<Self, KeyError> {
        if text.len() > pem::MAX_PEM_BYTES {
            return Err(KeyError::Pem("larger than any key".to_owned()));
        }
        // `PrivateKeyDer` does not wipe itself; take its bytes into something that does.
        let key = PrivateKeyDer::from_pem_slice(text).map_err(|error| KeyError::Pem(pem::describe(&error)))?;
        let der = Zeroizing::new(match key {
            PrivateKeyDer::Pkcs8(key) => Vec::from(key.secret_pkcs8_der()),
            PrivateKeyDer::Sec1(key) => Vec::from(key.secret_sec1_der()),
            PrivateKeyDer::Pkcs1(key) => Vec::from(key.secret_pkcs1_der()),
            _ => return Err(KeyError::Unsupported),
        });
        Self::from_der(&der)
    }

    /// Reads a private key in DER, in any of the three encodings.
    ///
    /// # Errors
    /// [`KeyError::Unsupported`].
    pub fn from_der(der: &[u8]) -> Result<Self, KeyError> {
        let ecdsa = |curve: &'static EcdsaSigningAlgorithm| EcdsaKeyPair::from_private_key_der(curve, der).ok();
        if let Some(pair) = ecdsa(&ECDSA_P256_SHA256_ASN1_SIGNING) {
            return Self::from_ecdsa(pair, &PKCS_ECDSA_P256_SHA256);
        }
        if let Some(pair) = ecdsa(&ECDSA_P384_SHA384_ASN1_SIGNING) {
            return Self::from_ecdsa(pair, &PKCS_ECDSA_P384_SHA384);
        }
        let pair = RsaKeyPair::from_pkcs8(der).or_else(|_| RsaKeyPair::from_der(der));
        Self::from_rsa(pair.map_err(|_| KeyError::Unsupported)?)
    }

    fn from_ecdsa(pair: EcdsaKeyPair, algorithm: &'static rcgen::SignatureAlgorithm) -> Result<Self, KeyError> {
        let pkcs8 = Zeroizing::new(pair.to_pkcs8v1().map_err(|_| KeyError::Library)?.as_ref().to_vec());
        let public = pair.public_key().as_ref().to_vec();
        Ok(Self { pair: Pair::Ecdsa(pair), algorithm, public, pkcs8 })
    }

    fn from_rsa(pair: RsaKeyPair) -> Result<Self, KeyError> {
        let der: Pkcs8V1Der<'_> = pair.as_der().map_err(|_| KeyError::Library)?;
        let pkcs8 = Zeroizing::new(der.as_ref().to_vec());
        let public = pair.public_key().as_ref().to_vec();
        Ok(Self { pair: Pair::Rsa(pair), algorithm: &PKCS_RSA_SHA256, public, pkcs8 })
    }

    /// Whether it is an RSA key.
    #[must_use]
    pub fn is_rsa(&self) -> bool {
        matches!(self.pair, Pair::Rsa(_))
    }

    /// The key in PKCS#8 DER, for a TLS library.
    #[must_use]
    pub fn pkcs8_der(&self) -> &[u8] {
        &self.pkcs8
    }

    /// The key as PKCS#8 in PEM; the text is wiped when dropped.
    #[must_use]
    pub fn to_pem(&self) -> Zeroizing<String> {
        pem::encode_secret(pem::PRIVATE_KEY, &self.pkcs8)
    }

    /// The SubjectPublicKeyInfo in DER: what certificates carry and what says whether key and certificate belong together.
    #[must_use]
    pub fn public_key_info(&self) -> Vec<u8> {
        self.subject_public_key_info()
    }
}

impl PublicKeyData for PrivateKey {
    fn der_bytes(&self) -> &[u8] {
        &self.public
    }

    fn algorithm(&self) -> &'static rcgen::SignatureAlgorithm {
        self.algorithm
    }
}

impl SigningKey for PrivateKey {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        let random = SystemRandom::new();
        match &self.pair {
            Pair::Ecdsa(pair) => {
                let signature = pair.sign(&random, message).map_err(|_| rcgen::Error::RingUnspecified)?;
                Ok(signature.as_ref().to_vec())
            }
            Pair::Rsa(pair) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                let signed = pair.sign(&RSA_PKCS1_SHA256, &random, message, &mut signature);
                signed.map_err(|_| rcgen::Error::RingUnspecified)?;
                Ok(signature)
            }
        }
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if self.is_rsa() { "RSA" } else { "ECDSA" };
        f.debug_struct("PrivateKey").field("kind", &kind).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_survive_pem_and_debug_shows_nothing() {
        for kind in [KeyKind::EcdsaP256, KeyKind::EcdsaP384, KeyKind::Rsa2048] {
            let key = PrivateKey::generate(kind).unwrap();
            let text = key.to_pem();
            assert!(text.starts_with("-----BEGIN PRIVATE KEY-----\n"));
            let again = PrivateKey::from_pem(text.as_bytes()).unwrap();
            assert_eq!(again.public_key_info(), key.public_key_info());
            assert_eq!(again.pkcs8_der(), key.pkcs8_der());
            let shown = format!("{key:?}");
            assert!(shown.len() < 50, "{shown}");
        }
    }

    #[test]
    fn older_encodings_are_read() {
        let key = PrivateKey::generate(KeyKind::EcdsaP256).unwrap();
        let Pair::Ecdsa(pair) = &key.pair else { panic!() };
        let sec1: aws_lc_rs::encoding::EcPrivateKeyRfc5915Der<'_> = pair.private_key().as_der().unwrap();
        let text = pem::encode("EC PRIVATE KEY", sec1.as_ref());
        assert_eq!(PrivateKey::from_pem(text.as_bytes()).unwrap().public_key_info(), key.public_key_info());

        let key = PrivateKey::generate(KeyKind::Rsa2048).unwrap();
        // PKCS#8 is a sequence of version, algorithm and an octet string that holds the PKCS#1 key.
        let (outer, _) = crate::der::read(key.pkcs8_der()).unwrap();
        let (_version, rest) = crate::der::read(outer.content).unwrap();
        let (_algorithm, rest) = crate::der::read(rest).unwrap();
        let (pkcs1, _) = crate::der::read(rest).unwrap();
        let text = pem::encode("RSA PRIVATE KEY", pkcs1.content);
        assert_eq!(PrivateKey::from_pem(text.as_bytes()).unwrap().public_key_info(), key.public_key_info());
    }

    #[test]
    fn what_is_no_key_is_refused_without_quoting_it() {
        assert!(matches!(PrivateKey::from_pem(b""), Err(KeyError::Pem(_))));
        let junk = pem::encode(pem::PRIVATE_KEY, &[1, 2, 3]);
        assert_eq!(PrivateKey::from_pem(junk.as_bytes()).unwrap_err(), KeyError::Unsupported);
        let encrypted = pem::encode("ENCRYPTED PRIVATE KEY", &[1, 2, 3]);
        assert!(PrivateKey::from_pem(encrypted.as_bytes()).is_err());
        let broken = "-----BEGIN PRIVATE KEY-----\nsecret@secret\n-----END PRIVATE KEY-----\n";
        assert!(!PrivateKey::from_pem(broken.as_bytes()).unwrap_err().to_string().contains("secret"));
    }
}
