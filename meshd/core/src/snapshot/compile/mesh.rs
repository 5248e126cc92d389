//! MeshConfig.

use std::sync::Arc;

use mesh_api::codes::Code;
use mesh_api::crd::common::TlsProtocol;
use mesh_api::finding::Finding;
use mesh_api::ids::Namespace;
use mesh_api::kinds::Kind;
use mesh_api::mesh_config::proxy::{ForwardClientCertDetails, SetCurrentClientCertDetails};
use mesh_api::mesh_config::{
    AccessLogEncoding, InboundTrafficPolicyMode, MeshConfig, MeshH2UpgradePolicy, PathNormalization,
};
use mesh_api::names::{MESH_CONFIG_KEY, MESH_CONFIG_MAP, ROOT_NAMESPACE};
use mesh_api::text::Str;
use mesh_api_xds::ir::PerMillion;
use mesh_api_xds::ir::chain::TlsVersion;
use mesh_api_xds::ir::http::{CertDetails, EscapedSlashes, ForwardClientCert, PathPolicy, Tracing};
use mesh_api_xds::ir::telemetry::{AccessLog, LogFormat};

use super::Context;
use super::destination_rule::keepalive;
use super::http_action::retry_policy;
use super::sidecar::outbound_policy;
use crate::convert::ingress::Settings as IngressSettings;
use crate::snapshot::mesh::{DefaultExport, InboundPolicy, Mesh, PATH_BASE};
use crate::snapshot::services::ExportTo;
use crate::world::World;

/// Istio's access log format in text (istio-surface section 8.4).
const TEXT_FORMAT: &str = "[%START_TIME%] \"%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%\" \
%RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS% %CONNECTION_TERMINATION_DETAILS% \
\"%UPSTREAM_TRANSPORT_FAILURE_REASON%\" %BYTES_RECEIVED% %BYTES_SENT% %DURATION% \
%RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% \"%REQ(X-FORWARDED-FOR)%\" \"%REQ(USER-AGENT)%\" \"%REQ(X-REQUEST-ID)%\" \
\"%REQ(:AUTHORITY)%\" \"%UPSTREAM_HOST%\" %UPSTREAM_CLUSTER_RAW% %UPSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_LOCAL_ADDRESS% \
%DOWNSTREAM_REMOTE_ADDRESS% %REQUESTED_SERVER_NAME% %ROUTE_NAME%\n";

/// Istio's access log fields in JSON.
const JSON_FORMAT: &[(&str, &str)] = &[
    ("start_time", "%START_TIME%"),
    ("route_name", "%ROUTE_NAME%"),
    ("method", "%REQ(:METHOD)%"),
    ("path", "%REQ(X-ENVOY-ORIGINAL-PATH?:PATH)%"),
    ("protocol", "%PROTOCOL%"),
    ("response_code", "%RESPONSE_CODE%"),
    ("response_flags", "%RESPONSE_FLAGS%"),
    ("response_code_details", "%RESPONSE_CODE_DETAILS%"),
    ("connection_termination_details", "%CONNECTION_TERMINATION_DETAILS%"),
    ("bytes_received", "%BYTES_RECEIVED%"),
    ("bytes_sent", "%BYTES_SENT%"),
    ("duration", "%DURATION%"),
    ("upstream_service_time", "%RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)%"),
    ("x_forwarded_for", "%REQ(X-FORWARDED-FOR)%"),
    ("user_agent", "%REQ(USER-AGENT)%"),
    ("request_id", "%REQ(X-REQUEST-ID)%"),
    ("authority", "%REQ(:AUTHORITY)%"),
    ("upstream_host", "%UPSTREAM_HOST%"),
    ("upstream_cluster", "%UPSTREAM_CLUSTER_RAW%"),
    ("upstream_local_address", "%UPSTREAM_LOCAL_ADDRESS%"),
    ("downstream_local_address", "%DOWNSTREAM_LOCAL_ADDRESS%"),
    ("downstream_remote_address", "%DOWNSTREAM_REMOTE_ADDRESS%"),
    ("requested_server_name", "%REQUESTED_SERVER_NAME%"),
    ("upstream_transport_failure_reason", "%UPSTREAM_TRANSPORT_FAILURE_REASON%"),
];

/// The mesh configuration of a world: its ConfigMap, else the defaults. One that does not parse
/// is a finding, and the defaults hold; the world does not let it take the place of one that does.
pub(crate) fn mesh(world: &World) -> (Mesh, Vec<Finding>) {
    let Some(object) = world.mesh_config_map() else {
        return (Mesh::default(), vec![]);
    };
    let key = object.meta.key(Kind::ConfigMap);
    let Some(text) = object.spec.data.get(MESH_CONFIG_KEY) else {
        return (Mesh::default(), vec![]);
    };
    match MeshConfig::parse(text) {
        Ok((config, findings)) => {
            let (mesh, more) = compile(&config);
            let all = findings.into_iter().chain(more);
            (mesh, all.map(|finding| finding.on(key.clone())).collect())
        }
        Err(error) => (Mesh::default(), vec![error.to_finding().on(key)]),
    }
}

/// Fills in the defaults.
fn compile(config: &MeshConfig) -> (Mesh, Vec<Finding>) {
    let defaults = Mesh::default();
    let key = mesh_api::ids::ObjectKey::new(Kind::ConfigMap, ROOT_NAMESPACE, MESH_CONFIG_MAP);
    let mut cx = Context::new(&defaults, key, &mesh_api::ids::ClusterId::default());
    let root = Namespace::from(config.root_namespace());
    let export = |list: &[Str]| ExportTo::parse(list.iter().map(Str::as_str), &root, &ExportTo::All);
    let proxy = config.proxy();
    let headers = proxy.proxy_headers.clone().unwrap_or_default();
    let topology = proxy.gateway_topology.clone().unwrap_or_default();
    let details = cert_details(headers.set_current_client_cert_details.as_ref());
    let retry = match &config.default_http_retry_policy {
        None => defaults.retry.clone(),
        Some(retries) => match retry_policy(&mut cx, "defaultHttpRetryPolicy", retries) {
            Some(policy) => policy.map(Arc::new),
            None => defaults.retry.clone(),
        },
    };
    let h2_upgrade = config.h2_upgrade_policy == Some(MeshH2UpgradePolicy::Upgrade);
    let localhost =
        config.inbound_traffic_policy.as_ref().is_some_and(|p| p.mode == InboundTrafficPolicyMode::Localhost);
    let mesh_tls = config.mesh_mtls.as_ref().map(|tls| tls.min_protocol_version);
    let mesh = Mesh {
        root_namespace: root.clone(),
        domain: defaults.domain.clone(),
        trust_domain: config.trust_domain(),
        trust_domain_aliases: config.trust_domain_aliases.iter().cloned().collect(),
        default_export: DefaultExport {
            services: export(&config.default_service_export_to),
            virtual_services: export(&config.default_virtual_service_export_to),
            destination_rules: export(&config.default_destination_rule_export_to),
        },
        outbound_port: config.outbound_port(),
        inbound_port: config.inbound_port(),
        http_proxy_port: config.http_proxy_port(),
        connect_timeout: config.connect_timeout(),
        keepalive: config.tcp_keepalive.as_ref().map(keepalive),
        detection_timeout: config.protocol_detection_timeout().unwrap_or_default(),
        auto_mtls: config.auto_mtls(),
        outbound: outbound_policy(&mut cx, "outboundTrafficPolicy.mode", config.outbound_mode()),
        inbound: if localhost { InboundPolicy::Localhost } else { InboundPolicy::Passthrough },
        h2_upgrade,
        dns_refresh: config.dns_refresh_rate(),
        locality_balancing: config.locality_lb_setting.as_ref().and_then(|setting| setting.enabled).unwrap_or(true),
        retry,
        access_logs: access_logs(&mut cx, config),
        path: path_policy(config.normalization()),
        mesh_tls_min: if mesh_tls == Some(TlsProtocol::TlsV13) { TlsVersion::V1_3 } else { TlsVersion::V1_2 },
        tracing: (config.enable_tracing != Some(false)).then_some(Tracing { sampling: PerMillion(10_000) }),
        gateway_client_cert: client_cert(topology.forward_client_cert_details, CertDetails { cert: true, ..details })
            .unwrap_or(defaults.gateway_client_cert),
        sidecar_client_cert: client_cert(headers.forwarded_client_cert, details)
            .unwrap_or(ForwardClientCert::AppendForward(details)),
        trusted_proxies: topology.num_trusted_proxies,
        ingress: IngressSettings::of(config),
    };
    (mesh, cx.into_findings())
}

fn path_policy(normalization: PathNormalization) -> PathPolicy {
    let none = PathPolicy { normalize: false, merge_slashes: false, escaped_slashes: EscapedSlashes::Keep };
    let merged = PathPolicy { merge_slashes: true, ..PATH_BASE };
    match normalization {
        PathNormalization::None => none,
        PathNormalization::Default | PathNormalization::Base => PATH_BASE,
        PathNormalization::MergeSlashes => merged,
        PathNormalization::DecodeAndMergeSlashes => {
            PathPolicy { escaped_slashes: EscapedSlashes::UnescapeAndForward, ..merged }
        }
    }
}

fn cert_details(details: Option<&SetCurrentClientCertDetails>) -> CertDetails {
    let set = |value: Option<bool>, default| value.unwrap_or(default);
    match details {
        None => CertDetails { subject: true, uri: true, dns: true, cert: false },
        Some(details) => CertDetails {
            subject: set(details.subject, true),
            uri: set(details.uri, true),
            dns: set(details.dns, true),
            cert: set(details.cert, false),
        },
    }
}

fn client_cert(details: ForwardClientCertDetails, parts: CertDetails) -> Option<ForwardClientCert> {
    match details {
        ForwardClientCertDetails::Undefined => None,
        ForwardClientCertDetails::Sanitize => Some(ForwardClientCert::Sanitize),
        ForwardClientCertDetails::ForwardOnly => Some(ForwardClientCert::ForwardOnly),
        ForwardClientCertDetails::AppendForward => Some(ForwardClientCert::AppendForward(parts)),
        ForwardClientCertDetails::SanitizeSet => Some(ForwardClientCert::SanitizeSet(parts)),
        ForwardClientCertDetails::AlwaysForwardOnly => Some(ForwardClientCert::AlwaysForwardOnly),
    }
}

fn access_logs(cx: &mut Context<'_>, config: &MeshConfig) -> Arc<[AccessLog]> {
    let Some(path) = config.access_log_file.as_ref().filter(|path| !path.is_empty()) else { return Arc::default() };
    let given = config.access_log_format.as_ref().filter(|format| !format.is_empty());
    let format = match config.access_log_encoding.unwrap_or_default() {
        AccessLogEncoding::Text => LogFormat::Text(match given {
            None => Str::from(TEXT_FORMAT),
            Some(text) if text.ends_with('\n') => text.clone(),
            Some(text) => Str::from(format!("{text}\n")),
        }),
        AccessLogEncoding::Json => LogFormat::Json(match (given, config.access_log_fields()) {
            (Some(_), Some(fields)) => fields.into_iter().collect(),
            (given, _) => {
                if given.is_some() {
                    let message = "with encoding JSON it must be a JSON object of texts; Istio's fields are written";
                    cx.report(Finding::new(Code::InvalidValue, "accessLogFormat", message));
                }
                JSON_FORMAT.iter().map(|(key, value)| (Str::from(*key), Str::from(*value))).collect()
            }
        }),
    };
    Arc::from([AccessLog { path: path.clone(), format }])
}
