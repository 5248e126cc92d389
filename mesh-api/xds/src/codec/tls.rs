//! TLS contexts of both sides. Certificates and trust anchors are secrets over ADS, except the workload's own.

use std::time::Duration;

use mesh_api::text::Str;

use super::common::{ads, any, bool_value, expect_ads, read_bool, unpack};
use super::error::{At, DecodeError, each, each_arc, fail, leftover, only, required};
use super::matcher::{read_string, string};
use crate::ir::chain::{ClientCertificate, DownstreamTls, TlsVersion, TlsVersions, Validation};
use crate::ir::cluster::{Sni, UpstreamTls};
use crate::pb;
use crate::pb::core::transport_socket::ConfigType;
use crate::pb::tls::common_tls_context::{CombinedCertificateValidationContext, ValidationContextType};
use crate::pb::tls::tls_parameters::TlsProtocol;

/// Name of Envoy's TLS transport socket.
const SOCKET: &str = "envoy.transport_sockets.tls";

pub(super) fn socket(config: pb::protobuf::Any) -> pb::core::TransportSocket {
    pb::core::TransportSocket { name: SOCKET.to_owned(), config_type: Some(ConfigType::TypedConfig(config)) }
}

fn read_socket<M: prost::Message + prost::Name + Default>(socket: pb::core::TransportSocket) -> Result<M, DecodeError> {
    let ConfigType::TypedConfig(config) = required(socket.config_type, "typed_config")?;
    unpack(&config).at("typed_config")
}

pub(super) fn downstream(tls: &DownstreamTls) -> pb::core::TransportSocket {
    let validation = match &tls.client {
        ClientCertificate::None => None,
        ClientCertificate::Optional(validation) | ClientCertificate::Required(validation) => Some(validation),
    };
    let required = matches!(tls.client, ClientCertificate::Required(_));
    socket(any(&pb::tls::DownstreamTlsContext {
        common_tls_context: Some(common(tls.certificates.iter(), validation, &tls.alpn, tls.versions)),
        require_client_certificate: bool_value(required),
        ..pb::tls::DownstreamTlsContext::default()
    }))
}

pub(super) fn read_downstream(
    message: pb::core::TransportSocket,
    handshake_timeout: Duration,
) -> Result<DownstreamTls, DecodeError> {
    let mut message: pb::tls::DownstreamTlsContext = read_socket(message)?;
    let common = read_common(message.common_tls_context.take().unwrap_or_default()).at("common_tls_context")?;
    let required = read_bool(message.require_client_certificate.take(), false);
    leftover(&message)?;
    if common.certificates.is_empty() {
        return fail("a server needs a certificate").at("common_tls_context.tls_certificate_sds_secret_configs");
    }
    let client = match (common.validation, required) {
        (None, false) => ClientCertificate::None,
        (Some(validation), false) => ClientCertificate::Optional(validation),
        (Some(validation), true) => ClientCertificate::Required(validation),
        (None, true) => return fail("needs trust anchors to check against").at("require_client_certificate"),
    };
    let (certificates, alpn, versions) = (common.certificates.into(), common.alpn.into(), common.versions);
    Ok(DownstreamTls { certificates, client, alpn, versions, handshake_timeout })
}

pub(super) fn upstream(tls: &UpstreamTls) -> pb::core::TransportSocket {
    socket(any(&pb::tls::UpstreamTlsContext {
        common_tls_context: Some(common(tls.certificate.iter(), tls.validation.as_ref(), &tls.alpn, tls.versions)),
        sni: match &tls.sni {
            Sni::Name(name) => name.to_string(),
            Sni::None | Sni::FromHost => String::new(),
        },
        ..pb::tls::UpstreamTlsContext::default()
    }))
}

/// Reads a client context. `from_host` and `alpn_override` stand elsewhere in the cluster.
pub(super) fn read_upstream(
    message: pb::core::TransportSocket,
    from_host: bool,
    alpn_override: bool,
) -> Result<UpstreamTls, DecodeError> {
    let mut message: pb::tls::UpstreamTlsContext = read_socket(message)?;
    let mut common = read_common(message.common_tls_context.take().unwrap_or_default()).at("common_tls_context")?;
    let sni = std::mem::take(&mut message.sni);
    leftover(&message)?;
    if common.certificates.len() > 1 {
        return fail("a client has one certificate").at("common_tls_context.tls_certificate_sds_secret_configs");
    }
    let sni = match (from_host, sni.is_empty()) {
        (true, true) => Sni::FromHost,
        (true, false) => return fail("excludes auto_sni").at("sni"),
        (false, true) => Sni::None,
        (false, false) => Sni::Name(sni.into()),
    };
    Ok(UpstreamTls {
        certificate: common.certificates.pop(),
        validation: common.validation,
        sni,
        alpn: common.alpn.into(),
        alpn_override,
        versions: common.versions,
    })
}

struct Common {
    certificates: Vec<Str>,
    validation: Option<Validation>,
    alpn: Vec<Str>,
    versions: TlsVersions,
}

/// The workload's certificate and the mesh's roots, which no control plane serves: a proxy of ours asks for them itself, a
/// stock Envoy has them as static secrets of these names in its bootstrap.
const OWN_SECRETS: [&str; 2] = ["default", "ROOTCA"];

fn secret(name: &Str) -> pb::tls::SdsSecretConfig {
    let own = OWN_SECRETS.contains(&name.as_str());
    // Envoy looks up a name without a source among the static secrets.
    pb::tls::SdsSecretConfig { name: name.to_string(), sds_config: if own { None } else { Some(ads()) } }
}

fn read_secret(message: pb::tls::SdsSecretConfig) -> Result<Str, DecodeError> {
    // Without a source the name is that of a secret in the bootstrap.
    if message.sds_config.is_some() {
        expect_ads(message.sds_config, "sds_config")?;
    }
    Ok(message.name.into())
}

fn common<'a>(
    certificates: impl Iterator<Item = &'a Str>,
    validation: Option<&Validation>,
    alpn: &[Str],
    versions: TlsVersions,
) -> pb::tls::CommonTlsContext {
    pb::tls::CommonTlsContext {
        tls_params: Some(pb::tls::TlsParameters {
            tls_minimum_protocol_version: version(versions.min).into(),
            tls_maximum_protocol_version: version(versions.max).into(),
            ..pb::tls::TlsParameters::default()
        }),
        tls_certificate_sds_secret_configs: certificates.map(secret).collect(),
        alpn_protocols: alpn.iter().map(ToString::to_string).collect(),
        validation_context_type: validation.map(validation_context),
        ..pb::tls::CommonTlsContext::default()
    }
}

/// The names are untyped, as Istio sends them: each is compared with the certificate's URIs and DNS names alike.
#[expect(deprecated, reason = "the typed form compares with one kind of name only")]
fn validation_context(validation: &Validation) -> ValidationContextType {
    ValidationContextType::CombinedValidationContext(CombinedCertificateValidationContext {
        default_validation_context: Some(pb::tls::CertificateValidationContext {
            match_subject_alt_names: validation.sans.iter().map(string).collect(),
            ..pb::tls::CertificateValidationContext::default()
        }),
        validation_context_sds_secret_config: Some(secret(&validation.trust)),
        ..CombinedCertificateValidationContext::default()
    })
}

#[expect(deprecated, reason = "the typed form compares with one kind of name only")]
fn read_validation(message: ValidationContextType) -> Result<Validation, DecodeError> {
    let (context, trust) = match message {
        ValidationContextType::ValidationContextSdsSecretConfig(trust) => (None, Some(trust)),
        ValidationContextType::CombinedValidationContext(mut combined) => {
            let context = combined.default_validation_context.take();
            let trust = combined.validation_context_sds_secret_config.take();
            leftover(&combined)?;
            (context, trust)
        }
        ValidationContextType::ValidationContext(_)
        | ValidationContextType::ValidationContextCertificateProvider(_)
        | ValidationContextType::ValidationContextCertificateProviderInstance(_) => {
            return fail("only trust anchors over SDS are supported");
        }
    };
    let mut context = context.unwrap_or_default();
    let names = std::mem::take(&mut context.match_subject_alt_names);
    let sans = each_arc("match_subject_alt_names", names, read_string)?;
    leftover(&context).at("default_validation_context")?;
    let trust = read_secret(required(trust, "validation_context_sds_secret_config")?)?;
    Ok(Validation { trust, sans })
}

fn read_common(mut message: pb::tls::CommonTlsContext) -> Result<Common, DecodeError> {
    let params = message.tls_params.take().unwrap_or_default();
    let certificates = std::mem::take(&mut message.tls_certificate_sds_secret_configs);
    let validation = message.validation_context_type.take();
    let common = Common {
        certificates: each("tls_certificate_sds_secret_configs", certificates, read_secret)?,
        validation: validation.map(read_validation).transpose().at("validation_context_type")?,
        alpn: std::mem::take(&mut message.alpn_protocols).into_iter().map(Str::from).collect(),
        versions: read_versions(params).at("tls_params")?,
    };
    leftover(&message)?;
    Ok(common)
}

const fn version(version: TlsVersion) -> TlsProtocol {
    match version {
        TlsVersion::V1_2 => TlsProtocol::TlSv12,
        TlsVersion::V1_3 => TlsProtocol::TlSv13,
    }
}

fn read_versions(mut params: pb::tls::TlsParameters) -> Result<TlsVersions, DecodeError> {
    let read = |raw: i32, default, field: &str| match TlsProtocol::try_from(raw) {
        Ok(TlsProtocol::TlsAuto) => Ok(default),
        Ok(TlsProtocol::TlSv12) => Ok(TlsVersion::V1_2),
        Ok(TlsProtocol::TlSv13) => Ok(TlsVersion::V1_3),
        Ok(TlsProtocol::TlSv10 | TlsProtocol::TlSv11) | Err(_) => fail("only TLS 1.2 and 1.3 are spoken").at(field),
    };
    let defaults = TlsVersions::default();
    let min = std::mem::take(&mut params.tls_minimum_protocol_version);
    let max = std::mem::take(&mut params.tls_maximum_protocol_version);
    leftover(&params)?;
    let min = read(min, defaults.min, "tls_minimum_protocol_version")?;
    let max = read(max, defaults.max, "tls_maximum_protocol_version")?;
    only(&(min <= max), &true, "tls_maximum_protocol_version")?;
    Ok(TlsVersions { min, max })
}
