//! Gateway.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use mesh_api::codes::Code;
use mesh_api::crd::common::TlsProtocol;
use mesh_api::crd::networking::gateway::{Gateway as Spec, Server as ApiServer, ServerTlsMode, ServerTlsSettings};
use mesh_api::finding::Finding;
use mesh_api::host::Hostname;
use mesh_api::ids::{ClusterId, Namespace};
use mesh_api::object::Object;
use mesh_api::text::Str;
use mesh_api_xds::ir::chain::{ClientCertificate, DownstreamTls, TlsVersion, TlsVersions, Validation};
use mesh_api_xds::ir::matcher::StringMatch;

use super::Context;
use crate::snapshot::gateways::{Gateway, Server, ServerHost, Serves};
use crate::snapshot::mesh::Mesh;
use crate::snapshot::secrets::{MESH_ROOTS, WORKLOAD_CERTIFICATE};
use crate::snapshot::shard::Compiled;

/// Deadline of a TLS handshake at a gateway (istio/istio: `PILOT_GATEWAY_TRANSPORT_SOCKET_CONNECT_TIMEOUT`).
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(15);
/// Compiles a Gateway.
pub(crate) fn gateway(mesh: &Mesh, object: &Object<Spec>, cluster: &ClusterId) -> Compiled<Gateway> {
    let mut cx = Context::new(mesh, object.key(), cluster);
    let Spec { servers, selector } = &object.spec;
    let servers =
        servers.iter().enumerate().filter_map(|(index, server)| self::server(&mut cx, index, server)).collect();
    let value =
        Gateway { key: cx.key.clone(), created: object.meta.creation_timestamp, selector: selector.clone(), servers };
    Compiled { values: vec![value], findings: cx.into_findings() }
}

fn server(cx: &mut Context<'_>, index: usize, server: &ApiServer) -> Option<Server> {
    let path = format!("spec.servers[{index}]");
    // The name is that of statistics in Envoy's admin pages; we have none by server.
    let ApiServer { port, bind, hosts, tls, default_endpoint, name: _ } = server;
    let Some(port) = port else {
        return cx.cut(Code::Required, &format!("{path}.port"), "a server needs a port");
    };
    if !default_endpoint.is_empty() {
        let message = "is not implemented, in Istio neither";
        cx.report(Finding::new(Code::Ineffective, format!("{path}.defaultEndpoint"), message));
    }
    let number = cx.port(&format!("{path}.port.number"), port.number)?;
    let bind = if bind.is_empty() {
        None
    } else {
        match bind.parse::<IpAddr>() {
            Ok(ip) => Some(ip),
            Err(_) => return cx.cut(Code::NotActing, &format!("{path}.bind"), "only addresses can be bound yet"),
        }
    };
    let redirect = tls.as_ref().is_some_and(|tls| tls.https_redirect);
    let serves = serves(cx, &path, &port.protocol, tls.as_ref())?;
    let hosts = self::hosts(cx, &path, hosts);
    if hosts.is_empty() {
        return cx.cut(Code::Required, &format!("{path}.hosts"), "a server needs a host");
    }
    Some(Server {
        index,
        port: number,
        port_name: port.name.clone(),
        https_redirect: redirect && serves == Serves::Http,
        serves,
        bind,
        hosts: hosts.into(),
    })
}

fn hosts(cx: &mut Context<'_>, path: &str, hosts: &[Str]) -> Vec<ServerHost> {
    let mut known: Vec<ServerHost> = Vec::new();
    for (number, text) in hosts.iter().enumerate() {
        let path = format!("{path}.hosts[{number}]");
        let (namespace, host) = match text.split_once('/') {
            None | Some(("*", _)) => (None, text.rsplit('/').next().unwrap_or(text)),
            Some((".", host)) => (Some(cx.namespace().clone()), host),
            Some((namespace, host)) => (Some(Namespace::from(namespace)), host),
        };
        match Hostname::parse(host) {
            Ok(host) => known.push(ServerHost { namespace, host }),
            Err(error) => {
                cx.cut::<()>(Code::InvalidHost, &path, format!("{text:?} {error}"));
            }
        }
    }
    known
}

fn serves(cx: &mut Context<'_>, path: &str, protocol: &str, tls: Option<&ServerTlsSettings>) -> Option<Serves> {
    let protocol_path = format!("{path}.port.protocol");
    let tls_path = format!("{path}.tls");
    match protocol.to_ascii_uppercase().as_str() {
        "HTTP" | "HTTP2" | "GRPC" | "GRPC-WEB" => Some(Serves::Http),
        "TCP" | "MONGO" | "REDIS" | "MYSQL" => match tls {
            None => Some(Serves::Tcp),
            Some(_) => cx.cut(Code::Conflict, &tls_path, "a TCP server has no TLS; use protocol TLS"),
        },
        word @ ("HTTPS" | "TLS") => {
            let Some(tls) = tls else {
                return cx.cut(Code::Required, &tls_path, format!("a server of protocol {word} needs TLS settings"));
            };
            match tls.mode {
                ServerTlsMode::Passthrough => Some(Serves::TlsPassthrough),
                ServerTlsMode::AutoPassthrough => {
                    cx.cut(Code::NotActing, &format!("{tls_path}.mode"), "AUTO_PASSTHROUGH does not act yet")
                }
                _ => {
                    let tls = Arc::new(downstream_tls(cx, &tls_path, tls)?);
                    Some(if word == "HTTPS" { Serves::Https(tls) } else { Serves::TlsTerminated(tls) })
                }
            }
        }
        other => cx.cut(Code::InvalidValue, &protocol_path, format!("{other:?} is not a protocol of a gateway")),
    }
}

fn downstream_tls(cx: &mut Context<'_>, path: &str, tls: &ServerTlsSettings) -> Option<DownstreamTls> {
    let ServerTlsSettings {
        https_redirect: _,
        mode,
        server_certificate,
        private_key,
        ca_certificates,
        ca_crl,
        credential_name,
        credential_names,
        ca_cert_credential_name,
        tls_certificates,
        subject_alt_names,
        verify_certificate_spki,
        verify_certificate_hash,
        min_protocol_version,
        max_protocol_version,
        cipher_suites,
        insecure_skip_verify,
        ecdh_curves,
    } = tls;
    for (there, field, message) in [
        (!ca_crl.is_empty(), "caCrl", "revocation lists are not checked yet"),
        (!cipher_suites.is_empty(), "cipherSuites", "the default suites are used"),
        (!ecdh_curves.is_empty(), "ecdhCurves", "the default groups are used"),
    ] {
        if there {
            cx.report(Finding::new(Code::NotActing, format!("{path}.{field}"), message));
        }
    }
    // Pins narrow who is let in, so that ignoring them would open a door: the server is left out instead.
    if !verify_certificate_spki.is_empty() || !verify_certificate_hash.is_empty() {
        return cx.cut(Code::NotActing, path, "pinned client certificates do not act yet");
    }
    if *insecure_skip_verify == Some(true) {
        return cx.cut(Code::NotActing, &format!("{path}.insecureSkipVerify"), "does not act yet");
    }
    let file = |certificate: &Str, key: &Str| Str::from(format!("file-cert:{certificate}~{key}"));
    let mut certificates: Vec<Str> = Vec::new();
    let names = [credential_name].into_iter().filter(|name| !name.is_empty()).chain(credential_names);
    certificates.extend(names.map(|name| Str::from(format!("kubernetes://{name}"))));
    if !server_certificate.is_empty() {
        certificates.push(file(server_certificate, private_key));
    }
    certificates.extend(tls_certificates.iter().map(|pair| file(&pair.server_certificate, &pair.private_key)));
    if *mode == ServerTlsMode::IstioMutual {
        certificates = vec![Str::from(WORKLOAD_CERTIFICATE)];
    }
    if certificates.is_empty() {
        return cx.cut(Code::Required, path, "needs credentialName, or serverCertificate and privateKey");
    }
    let trust = match mode {
        ServerTlsMode::IstioMutual => Some(Str::from(MESH_ROOTS)),
        _ if !ca_cert_credential_name.is_empty() => Some(Str::from(format!("kubernetes://{ca_cert_credential_name}"))),
        _ if !credential_name.is_empty() => Some(Str::from(format!("kubernetes://{credential_name}-cacert"))),
        _ if !ca_certificates.is_empty() => Some(Str::from(format!("file-root:{ca_certificates}"))),
        _ => None,
    };
    let validation = |cx: &mut Context<'_>| match trust.clone() {
        Some(trust) => {
            Some(Validation { trust, sans: subject_alt_names.iter().map(|name| StringMatch::exact(name)).collect() })
        }
        None => cx.cut(Code::Required, path, "client certificates need credentialName or caCertificates"),
    };
    let client = match mode {
        ServerTlsMode::Mutual | ServerTlsMode::IstioMutual => ClientCertificate::Required(validation(cx)?),
        ServerTlsMode::OptionalMutual => ClientCertificate::Optional(validation(cx)?),
        ServerTlsMode::Simple | ServerTlsMode::Passthrough | ServerTlsMode::AutoPassthrough => ClientCertificate::None,
    };
    let version = |protocol: TlsProtocol, default| match protocol {
        TlsProtocol::TlsAuto => default,
        TlsProtocol::TlsV13 => TlsVersion::V1_3,
        // Nothing older than 1.2 is spoken, whatever is asked for.
        TlsProtocol::TlsV10 | TlsProtocol::TlsV11 | TlsProtocol::TlsV12 => TlsVersion::V1_2,
    };
    let versions = TlsVersions {
        min: version(*min_protocol_version, TlsVersion::V1_2),
        max: version(*max_protocol_version, TlsVersion::V1_3),
    };
    if matches!(min_protocol_version, TlsProtocol::TlsV10 | TlsProtocol::TlsV11) {
        let message = "TLS 1.0 and 1.1 are not spoken; the oldest version is 1.2";
        cx.report(Finding::new(Code::NotActing, format!("{path}.minProtocolVersion"), message));
    }
    if versions.min > versions.max {
        return cx.cut(Code::Conflict, path, "minProtocolVersion is newer than maxProtocolVersion");
    }
    Some(DownstreamTls {
        certificates: certificates.into(),
        client,
        alpn: [Str::from("h2"), Str::from("http/1.1")].into(),
        versions,
        handshake_timeout: HANDSHAKE_TIMEOUT,
    })
}
