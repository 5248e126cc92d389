use super::{MeshConfig, PathNormalization, proxy::ProxyConfig};
use crate::{codes::Code, crd::networking::sidecar::OutboundTrafficPolicyMode};
use std::time::Duration;

#[test]
fn an_empty_text_gives_istios_defaults() {
    let (mesh, findings) = MeshConfig::parse("").unwrap();
    assert_eq!(mesh, MeshConfig::default());
    assert!(findings.is_empty());
    assert_eq!((mesh.outbound_port(), mesh.inbound_port(), mesh.http_proxy_port()), (15001, 15006, None));
    assert_eq!(mesh.connect_timeout(), Duration::from_secs(10));
    assert_eq!(mesh.protocol_detection_timeout(), None);
    assert_eq!(mesh.outbound_mode(), OutboundTrafficPolicyMode::AllowAny);
    assert!(mesh.auto_mtls());
    assert_eq!(mesh.trust_domain().as_str(), "cluster.local");
    assert_eq!(mesh.root_namespace(), "istio-system");
    assert_eq!(mesh.normalization(), PathNormalization::Base);
    let proxy = mesh.proxy();
    assert_eq!((proxy.admin_port(), proxy.status_port()), (15000, 15020));
    assert_eq!(proxy.drain_duration(), Duration::from_secs(45));
    assert_eq!(proxy.discovery_address(), "istiod.istio-system.svc:15012");
}

#[test]
fn what_is_set_counts() {
    let text = "
trustDomain: shop.io
trustDomainAliases: [old.io]
enableAutoMtls: false
connectTimeout: 1s
protocolDetectionTimeout: 100ms
outboundTrafficPolicy: {mode: REGISTRY_ONLY}
pathNormalization: {normalization: DECODE_AND_MERGE_SLASHES}
defaultHttpRetryPolicy: {attempts: 0}
defaultConfig:
  concurrency: 3
  proxyMetadata: {ISTIO_META_X: y}
";
    let (mesh, findings) = MeshConfig::parse(text).unwrap();
    assert_eq!(findings.len(), 0, "{findings:?}");
    assert_eq!(mesh.trust_domain().as_str(), "shop.io");
    assert!(!mesh.auto_mtls());
    assert_eq!(mesh.protocol_detection_timeout(), Some(Duration::from_millis(100)));
    assert_eq!(mesh.outbound_mode(), OutboundTrafficPolicyMode::RegistryOnly);
    assert_eq!(mesh.normalization(), PathNormalization::DecodeAndMergeSlashes);
    assert_eq!(mesh.default_http_retry_policy.as_ref().unwrap().attempts, 0);
    assert_eq!(mesh.proxy().concurrency, Some(3));
    // Nothing is lost on the way out.
    let json = serde_json::to_string(&mesh).unwrap();
    assert_eq!(MeshConfig::parse(&json).unwrap().0, mesh);
}

#[test]
fn typing_errors_and_idle_fields_are_findings() {
    let (_, findings) = MeshConfig::parse("conectTimeout: 1s\nzoneAwareLbSetting: {enabled: true}\n").unwrap();
    let found: Vec<(Code, &str)> = findings.iter().map(|f| (f.code, &*f.path)).collect();
    assert_eq!(found, [(Code::UnknownField, "conectTimeout"), (Code::NotActing, "zoneAwareLbSetting")]);
    assert_eq!(findings[0].hint, "did you mean connectTimeout?");
}

#[test]
fn an_error_names_field_and_line() {
    let error = MeshConfig::parse("rootNamespace: a\ntrustDomain: 'A B'\n").unwrap_err();
    assert_eq!((error.path.as_str(), error.line, error.code), ("trustDomain", 2, Code::WrongType));
    assert_eq!(MeshConfig::parse("[]").unwrap_err().code, Code::WrongType);
    assert_eq!(MeshConfig::parse("a: [").unwrap_err().code, Code::Syntax);
}

#[test]
fn a_workloads_configuration_lies_over_the_meshs() {
    let base = ProxyConfig::parse("concurrency: 2\ndrainDuration: 30s\nproxyMetadata: {A: '1', B: '1'}").unwrap().0;
    let over = ProxyConfig::parse("concurrency: 4\nproxyMetadata: {B: '2', C: '2'}").unwrap().0;
    let both = base.overlaid(&over);
    assert_eq!(both.concurrency, Some(4));
    assert_eq!(both.drain_duration(), Duration::from_secs(30));
    let metadata: Vec<(&str, &str)> = both.proxy_metadata.iter().map(|(k, v)| (&**k, &**v)).collect();
    assert_eq!(metadata, [("A", "1"), ("B", "2"), ("C", "2")]);
    assert_eq!(base.overlaid(&ProxyConfig::default()), base);
}
