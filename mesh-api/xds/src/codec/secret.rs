//! Secrets.

use super::common::{inline, read_inline};
use super::error::{At, DecodeError, fail, leftover};
use crate::ir::secret::{PrivateKey, Secret, SecretContent};
use crate::pb::tls;
use crate::pb::tls::secret::Type;

pub(super) fn encode(secret: &Secret) -> tls::Secret {
    let content = match &secret.content {
        SecretContent::Certificate { chain, key } => Type::TlsCertificate(tls::TlsCertificate {
            certificate_chain: Some(inline(chain)),
            private_key: Some(inline(&key.0)),
            ..tls::TlsCertificate::default()
        }),
        SecretContent::Trust(anchors) => Type::ValidationContext(tls::CertificateValidationContext {
            trusted_ca: Some(inline(anchors)),
            ..tls::CertificateValidationContext::default()
        }),
    };
    tls::Secret { name: secret.name.to_string(), r#type: Some(content) }
}

pub(super) fn decode(message: tls::Secret) -> Result<Secret, DecodeError> {
    let content = match message.r#type {
        Some(Type::TlsCertificate(certificate)) => read_certificate(certificate).at("tls_certificate")?,
        Some(Type::ValidationContext(context)) => read_trust(context).at("validation_context")?,
        Some(_) => return fail("only certificates and trust anchors are supported").at("type"),
        None => return fail("is empty").at("type"),
    };
    Ok(Secret { name: message.name.into(), content })
}

fn read_certificate(mut message: tls::TlsCertificate) -> Result<SecretContent, DecodeError> {
    let chain = read_inline(message.certificate_chain.take(), "certificate_chain")?;
    let key = read_inline(message.private_key.take(), "private_key")?;
    leftover(&message)?;
    Ok(SecretContent::Certificate { chain: chain.into(), key: PrivateKey(key.into()) })
}

fn read_trust(mut message: tls::CertificateValidationContext) -> Result<SecretContent, DecodeError> {
    let anchors = read_inline(message.trusted_ca.take(), "trusted_ca")?;
    leftover(&message)?;
    Ok(SecretContent::Trust(anchors.into()))
}
