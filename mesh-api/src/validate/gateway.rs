//! Rules of Gateway. istio/istio: pkg/config/validation/validation.go ValidateGateway.

use std::net::IpAddr;

use super::check::Check;
use crate::{
    codes::Code,
    crd::{
        common::TlsProtocol,
        networking::gateway::{Gateway, Port, Server, ServerTlsMode, ServerTlsSettings},
    },
    host::is_dns_label,
    text::Str,
};

/// Protocols of ports, as users write them in any case.
const PROTOCOLS: &[&str] =
    &["HTTP", "HTTPS", "HTTP2", "GRPC", "GRPC-WEB", "MONGO", "TCP", "TLS", "REDIS", "MYSQL", "HTTP_PROXY", "UDP"];

pub(super) fn check(spec: &Gateway, check: &mut Check) {
    check.required("servers", !spec.servers.is_empty());
    if spec.selector.is_empty() {
        check.at("selector", Code::Ineffective, "is empty, so every gateway of every namespace opens these ports");
    }
    check.field("selector", |check| check.labels(&spec.selector.0));
    check.each("servers", &spec.servers, server);
    let ports = || spec.servers.iter().map(|s| s.port.as_ref().map_or("", |port| &*port.name));
    check.unique("servers", "port.name", ports());
    check.unique("servers", "name", spec.servers.iter().map(|s| &*s.name));
}

fn server(check: &mut Check, server: &Server) {
    let is_unix = server.bind.starts_with("unix://") || server.bind.starts_with('@');
    match &server.port {
        None => check.required("port", false),
        Some(port) => {
            check.field("port", |check| {
                protocol(check, &port.protocol, true);
                check.required("name", !port.name.is_empty());
                if !is_unix {
                    check.port("number", port.number);
                } else if port.number != 0 {
                    check.at("number", Code::Conflict, "must be 0 for a UNIX socket");
                }
                retired_target_port(check, port);
            });
            tls_by_protocol(check, &port.protocol, server.tls.as_ref());
        }
    }
    if !server.bind.is_empty() && !is_unix && server.bind.parse::<IpAddr>().is_err() {
        check.at("bind", Code::InvalidValue, "is neither an address nor unix:///path");
    }
    if is_unix {
        check.at("bind", Code::NotActing, "UNIX sockets do not act yet in this release: the server is left out");
    }
    check.required("hosts", !server.hosts.is_empty());
    check.each("hosts", &server.hosts, |check, text| host(check, text));
    if !server.default_endpoint.is_empty() {
        check.at("defaultEndpoint", Code::Ineffective, "has no effect, in Istio neither");
    }
    let protocol = server.port.as_ref().map_or("", |port| &*port.protocol);
    check.some("tls", server.tls.as_ref(), |check, tls| server_tls(check, tls, !is_tls(protocol)));
}

pub(super) fn retired_target_port(check: &mut Check, port: &Port) {
    if port.target_port != 0 {
        check.at("targetPort", Code::Deprecated, "has no effect, in Istio neither");
    }
}

/// The protocol of a port; an empty one is detected where `required` is false.
pub(super) fn protocol(check: &mut Check, protocol: &str, required: bool) {
    if protocol.is_empty() {
        check.required("protocol", !required);
    } else if !PROTOCOLS.iter().any(|known| known.eq_ignore_ascii_case(protocol)) {
        let near = crate::near::nearest(protocol, PROTOCOLS.iter().copied());
        let hint = near.map(|near| format!("did you mean {near}?")).unwrap_or_default();
        check.hinted("protocol", Code::InvalidValue, format!("{protocol:?} is not a protocol"), hint);
    } else if protocol.eq_ignore_ascii_case("UDP") {
        check.at("protocol", Code::Ineffective, "UDP is not proxied");
    }
}

/// `[namespace/]host`, where the namespace may be `*` or `.`.
fn host(check: &mut Check, text: &str) {
    let host = match text.split_once('/') {
        Some((namespace, host)) => {
            if namespace != "*" && namespace != "." && !is_dns_label(namespace) {
                check.here(Code::InvalidName, format!("{namespace:?} is neither a namespace nor '*' nor '.'"));
            }
            host
        }
        None => text,
    };
    check.host("", host);
}

fn is_tls(protocol: &str) -> bool {
    ["HTTPS", "TLS"].iter().any(|p| p.eq_ignore_ascii_case(protocol))
}

fn tls_by_protocol(check: &mut Check, protocol: &str, tls: Option<&ServerTlsSettings>) {
    let is_http = ["HTTP", "HTTP2", "GRPC", "GRPC-WEB", "HTTP_PROXY"].iter().any(|p| p.eq_ignore_ascii_case(protocol));
    match tls {
        None if is_tls(protocol) => {
            check.at("tls", Code::Required, format!("is missing: protocol {protocol} needs it"))
        }
        Some(tls) if is_tls(protocol) && tls.https_redirect => {
            check.at("tls.httpsRedirect", Code::Ineffective, "is for plaintext HTTP only");
        }
        Some(tls) if is_http => {
            let settings = ServerTlsSettings { https_redirect: true, ..ServerTlsSettings::default() };
            if !tls.https_redirect {
                let hint = "use protocol HTTPS";
                let only_default = *tls == ServerTlsSettings::default();
                let code = if only_default { Code::Ineffective } else { Code::Conflict };
                check.hinted("tls", code, format!("cannot be used with protocol {protocol}"), hint);
            } else if *tls != settings {
                check.at("tls.httpsRedirect", Code::Conflict, "excludes certificates: the port speaks plaintext");
            }
        }
        Some(_) if !is_tls(protocol) => {
            let hint = "use protocol TLS";
            check.hinted("tls", Code::Conflict, format!("cannot be used with protocol {protocol}"), hint);
        }
        _ => {}
    }
}

/// `plaintext`: the port speaks plaintext HTTP, where only the redirect counts.
pub(super) fn server_tls(check: &mut Check, tls: &ServerTlsSettings, plaintext: bool) {
    let set = |text: &Str| !text.is_empty();
    let certificate_files = set(&tls.server_certificate) || set(&tls.private_key);
    let sources = [
        ("serverCertificate", certificate_files),
        ("credentialName", set(&tls.credential_name)),
        ("credentialNames", !tls.credential_names.is_empty()),
        ("tlsCertificates", !tls.tls_certificates.is_empty()),
    ];
    check.exclusive(&sources);
    for (field, count) in
        [("credentialNames", tls.credential_names.len()), ("tlsCertificates", tls.tls_certificates.len())]
    {
        if count > 2 {
            check.at(field, Code::Ineffective, format!("has {count} entries, of which 2 count"));
        }
    }
    if !plaintext {
        certificates_by_mode(check, tls, sources.iter().any(|s| s.1), certificate_files);
    }
    let (low, high) = (tls.min_protocol_version, tls.max_protocol_version);
    if low != TlsProtocol::TlsAuto && high != TlsProtocol::TlsAuto && low > high {
        check.at("minProtocolVersion", Code::InvalidValue, "is newer than maxProtocolVersion");
    }
    if matches!(low, TlsProtocol::TlsV10 | TlsProtocol::TlsV11) {
        check.at("minProtocolVersion", Code::Ineffective, "clients older than TLS 1.2 are refused (RFC 8996)");
    }
    if matches!(high, TlsProtocol::TlsV10 | TlsProtocol::TlsV11) {
        check.at("maxProtocolVersion", Code::InvalidValue, "TLS before 1.2 is not spoken here (RFC 8996)");
    }
}

fn certificates_by_mode(check: &mut Check, tls: &ServerTlsSettings, has_source: bool, certificate_files: bool) {
    match tls.mode {
        ServerTlsMode::Simple | ServerTlsMode::Mutual | ServerTlsMode::OptionalMutual => {
            if !has_source {
                check.here(
                    Code::Required,
                    "has no certificate: needs credentialName, or serverCertificate and privateKey",
                );
            }
            if certificate_files {
                check.required("serverCertificate", !tls.server_certificate.is_empty());
                check.required("privateKey", !tls.private_key.is_empty());
            }
            let verifies = tls.mode != ServerTlsMode::Simple;
            if verifies && certificate_files {
                let has_roots = !tls.ca_certificates.is_empty() || !tls.ca_cert_credential_name.is_empty();
                check.required("caCertificates", has_roots);
            }
        }
        ServerTlsMode::IstioMutual | ServerTlsMode::Passthrough | ServerTlsMode::AutoPassthrough => {
            let is_mesh = tls.mode == ServerTlsMode::IstioMutual;
            let set = has_source || !tls.ca_certificates.is_empty() || !tls.ca_cert_credential_name.is_empty();
            if set && is_mesh {
                check.here(Code::Conflict, "mode ISTIO_MUTUAL uses the mesh's certificates; no others may be given");
            } else if set {
                check.here(Code::Ineffective, "certificates have no effect where TLS is passed through");
            }
        }
    }
}
