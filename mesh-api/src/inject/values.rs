//! Key `values` of the ConfigMap `istio-sidecar-injector[-REV]`: Helm values, reduced to what injection reads.
//!
//! Helm values are written by people in many ways: `statusPort: 15020` and `statusPort: "15020"` mean the same, and a
//! `null` means the default. So every field is read on its own, and what cannot be understood is an error that names it.

use serde_json::{Map, Value};

use crate::{
    codes::Code,
    finding::Finding,
    parse::{self, ParseError},
    text::Str,
};

/// What injection reads of the Helm values. Defaults are those of the chart.
#[derive(Clone, Debug, PartialEq)]
pub struct InjectValues {
    /// `global.hub`: where images come from.
    pub hub: String,
    /// `global.tag`: their tag.
    pub tag: String,
    /// `global.variant`: suffix of the tag, where an image has variants.
    pub variant: String,
    /// `global.imagePullPolicy`; Kubernetes' own when empty.
    pub image_pull_policy: String,
    /// `global.imagePullSecrets`.
    pub image_pull_secrets: Vec<String>,
    /// `global.istioNamespace`: where the control plane is.
    pub istio_namespace: String,
    /// `global.meshID`; the trust domain when empty.
    pub mesh_id: String,
    /// `global.network`.
    pub network: String,
    /// `global.multiCluster.clusterName`.
    pub cluster_name: String,
    /// `global.trustDomain`, where the mesh configuration has none.
    pub trust_domain: String,
    /// `global.logging.level`: log level of the agent.
    pub log_level: String,
    /// `global.logAsJson`.
    pub log_as_json: bool,
    /// `global.pilotCertProvider`.
    pub cert_provider: String,
    /// `global.caAddress`; the control plane's when empty.
    pub ca_address: String,
    /// `global.sds.token.aud`: audience of the proxy's token.
    pub token_audience: String,
    /// `global.trustBundleName`: ConfigMap, or ClusterTrustBundle, with the mesh's root.
    pub trust_bundle_name: String,
    /// `pilot.env.ENABLE_CLUSTER_TRUST_BUNDLE_API`.
    pub cluster_trust_bundle: bool,
    /// `pilot.crlConfigMapName`: ConfigMap of revoked certificates.
    pub crl_config_map: String,
    /// `global.nativeNftables`.
    pub native_nftables: bool,
    /// `global.proxy_init.forceApplyIptables`.
    pub force_apply_iptables: bool,
    /// `global.proxy_init.image`.
    pub init_image: String,
    /// `revision`, as it stands in the control plane's address; none for the default revision.
    pub revision: String,
    /// `pilot.cni`: who redirects traffic instead of an init container.
    pub cni: Option<CniProvider>,
    /// `pilot.env.ENABLE_NATIVE_SIDECARS`.
    pub native_sidecars: NativeSidecars,
    /// `sidecarInjectorWebhook.rewriteAppHTTPProbe`.
    pub rewrite_probes: bool,
    /// `gateways.securityContext`: the pod's, for gateways.
    pub gateway_security_context: Option<Value>,
    /// `global.proxy`.
    pub proxy: ProxyValues,
    /// All values, for templates of one's own.
    pub raw: Value,
}

/// `global.proxy`.
#[derive(Clone, Debug, PartialEq)]
pub struct ProxyValues {
    /// `image`: name below the hub, or a whole reference when it holds a `/`.
    pub image: String,
    /// `clusterDomain`.
    pub cluster_domain: String,
    /// `logLevel`.
    pub log_level: String,
    /// `componentLogLevel`.
    pub component_log_level: String,
    /// `resources`, without nulls.
    pub resources: Option<Value>,
    /// `includeIPRanges`.
    pub include_ip_ranges: String,
    /// `excludeIPRanges`.
    pub exclude_ip_ranges: String,
    /// `includeInboundPorts`.
    pub include_inbound_ports: String,
    /// `excludeInboundPorts`.
    pub exclude_inbound_ports: String,
    /// `includeOutboundPorts`.
    pub include_outbound_ports: String,
    /// `excludeOutboundPorts`.
    pub exclude_outbound_ports: String,
    /// `privileged`.
    pub privileged: bool,
    /// `capNetBindService`.
    pub cap_net_bind_service: bool,
    /// `readinessInitialDelaySeconds`.
    pub readiness_initial_delay_seconds: u32,
    /// `readinessPeriodSeconds`.
    pub readiness_period_seconds: u32,
    /// `readinessFailureThreshold`.
    pub readiness_failure_threshold: u32,
    /// `startupProbe.failureThreshold`, unless `startupProbe.enabled` is false.
    pub startup_failure_threshold: Option<u32>,
    /// `statusPort`; 0 for none.
    pub status_port: u16,
    /// `seccompProfile`.
    pub seccomp_profile: Option<Value>,
    /// `lifecycle`, instead of the injector's own hooks.
    pub lifecycle: Option<Value>,
    /// `holdApplicationUntilProxyStarts`.
    pub hold_application: bool,
}

/// Who redirects traffic instead of an init container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CniProvider {
    /// A plugin in the cluster's chain.
    Chained,
    /// A network of Multus, named by an annotation of the pod.
    Multus,
}

/// Whether proxies run as native sidecars.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NativeSidecars {
    /// Where the cluster has them.
    #[default]
    Auto,
    /// Always.
    Enabled,
    /// Never.
    Disabled,
}

/// Name of the proxy's image below the hub.
pub const PROXY_IMAGE: &str = "mesh-proxy";
/// Default of `global.hub`.
pub const DEFAULT_HUB: &str = "lateen";
/// Default of `global.tag`: the release.
pub const DEFAULT_TAG: &str = env!("CARGO_PKG_VERSION");

/// Values that Istio's injection reads and ours does not act on: path, the value that means "not used", what to know.
const NOT_ACTING: &[(&[&str], &str, &str)] = &[
    (&["global", "caName"], "", "certificates come from the mesh's own CA"),
    (&["global", "sts", "servicePort"], "0", "the proxy has no token exchange server"),
    (&["global", "mountMtlsCerts"], "false", "certificates are never mounted"),
    (&["global", "proxy", "outlierLogPath"], "", "ejections are in the metrics"),
    (&["global", "proxy", "tracer"], "none", "trace headers are passed on, spans are not sent"),
];

impl InjectValues {
    /// Reads JSON or YAML text. Values that do not act are findings.
    ///
    /// # Errors
    /// When the text cannot be read. Wrong types are findings of severity error, and the default is used.
    pub fn parse(text: &str) -> Result<(Self, Vec<Finding>), Box<ParseError>> {
        let raw = match parse::parse_value(text, "Helm values")? {
            Value::Null => Value::Object(Map::new()),
            value => value,
        };
        let mut reader = Reader { raw: &raw, findings: Vec::new() };
        let mut values = read(&mut reader);
        not_acting(&mut reader);
        let findings = reader.findings;
        values.raw = raw;
        Ok((values, findings))
    }
}

impl Default for InjectValues {
    fn default() -> Self {
        let raw = Value::Object(Map::new());
        let mut values = read(&mut Reader { raw: &raw, findings: Vec::new() });
        values.raw = raw;
        values
    }
}

fn read(reader: &mut Reader<'_>) -> InjectValues {
    let cni = reader.flag(&["pilot", "cni", "enabled"], false);
    let provider = reader.text(&["pilot", "cni", "provider"], "default");
    let native = reader.text(&["pilot", "env", "ENABLE_NATIVE_SIDECARS"], "auto");
    InjectValues {
        hub: reader.text(&["global", "hub"], DEFAULT_HUB),
        tag: reader.text(&["global", "tag"], DEFAULT_TAG),
        variant: reader.text(&["global", "variant"], ""),
        image_pull_policy: reader.text(&["global", "imagePullPolicy"], ""),
        image_pull_secrets: reader.texts(&["global", "imagePullSecrets"]),
        istio_namespace: reader.text(&["global", "istioNamespace"], crate::names::ROOT_NAMESPACE),
        mesh_id: reader.text(&["global", "meshID"], ""),
        network: reader.text(&["global", "network"], ""),
        cluster_name: reader.text(&["global", "multiCluster", "clusterName"], ""),
        trust_domain: reader.text(&["global", "trustDomain"], ""),
        log_level: reader.text(&["global", "logging", "level"], "default:info"),
        log_as_json: reader.flag(&["global", "logAsJson"], false),
        cert_provider: reader.text(&["global", "pilotCertProvider"], "istiod"),
        ca_address: reader.text(&["global", "caAddress"], ""),
        token_audience: reader.text(&["global", "sds", "token", "aud"], "istio-ca"),
        trust_bundle_name: reader.text(&["global", "trustBundleName"], ""),
        cluster_trust_bundle: reader.flag(&["pilot", "env", "ENABLE_CLUSTER_TRUST_BUNDLE_API"], false),
        crl_config_map: reader.text(&["pilot", "crlConfigMapName"], "istio-ca-crl"),
        native_nftables: reader.flag(&["global", "nativeNftables"], false),
        force_apply_iptables: reader.flag(&["global", "proxy_init", "forceApplyIptables"], false),
        init_image: reader.text(&["global", "proxy_init", "image"], PROXY_IMAGE),
        revision: reader.text(&["revision"], ""),
        cni: cni.then_some(if provider == "multus" { CniProvider::Multus } else { CniProvider::Chained }),
        native_sidecars: match native.as_str() {
            "true" => NativeSidecars::Enabled,
            "false" => NativeSidecars::Disabled,
            _ => NativeSidecars::Auto,
        },
        rewrite_probes: reader.flag(&["sidecarInjectorWebhook", "rewriteAppHTTPProbe"], true),
        gateway_security_context: reader.object(&["gateways", "securityContext"]),
        proxy: proxy(reader),
        raw: Value::Null,
    }
}

fn proxy(reader: &mut Reader<'_>) -> ProxyValues {
    let startup = reader.flag(&["global", "proxy", "startupProbe", "enabled"], true);
    let threshold = reader.number(&["global", "proxy", "startupProbe", "failureThreshold"], 600);
    let mut text = |field: &str, default: &str| reader.text(&["global", "proxy", field], default);
    ProxyValues {
        image: text("image", PROXY_IMAGE),
        cluster_domain: text("clusterDomain", crate::names::CLUSTER_DOMAIN),
        log_level: text("logLevel", "warning"),
        component_log_level: text("componentLogLevel", "misc:error"),
        include_ip_ranges: text("includeIPRanges", "*"),
        exclude_ip_ranges: text("excludeIPRanges", ""),
        include_inbound_ports: text("includeInboundPorts", "*"),
        exclude_inbound_ports: text("excludeInboundPorts", ""),
        include_outbound_ports: text("includeOutboundPorts", ""),
        exclude_outbound_ports: text("excludeOutboundPorts", ""),
        // An explicit null takes the default away.
        resources: match reader.raw.pointer("/global/proxy/resources") {
            None => Some(default_resources()),
            Some(_) => reader.object(&["global", "proxy", "resources"]),
        },
        privileged: reader.flag(&["global", "proxy", "privileged"], false),
        cap_net_bind_service: reader.flag(&["global", "proxy", "capNetBindService"], false),
        readiness_initial_delay_seconds: reader.number(&["global", "proxy", "readinessInitialDelaySeconds"], 0),
        readiness_period_seconds: reader.number(&["global", "proxy", "readinessPeriodSeconds"], 15),
        readiness_failure_threshold: reader.number(&["global", "proxy", "readinessFailureThreshold"], 4),
        startup_failure_threshold: startup.then_some(threshold),
        status_port: reader.port(&["global", "proxy", "statusPort"], crate::names::STATUS_PORT),
        seccomp_profile: reader.object(&["global", "proxy", "seccompProfile"]),
        lifecycle: reader.object(&["global", "proxy", "lifecycle"]),
        hold_application: reader.flag(&["global", "proxy", "holdApplicationUntilProxyStarts"], false),
    }
}

fn default_resources() -> Value {
    serde_json::json!({
        "requests": { "cpu": "100m", "memory": "128Mi" },
        "limits": { "cpu": "2000m", "memory": "1024Mi" },
    })
}

fn not_acting(reader: &mut Reader<'_>) {
    for (path, unused, note) in NOT_ACTING {
        let value = reader.text(path, unused);
        if value != *unused && !value.is_empty() {
            let finding = Finding::new(Code::NotActing, path.join("."), "does not act in injection yet");
            reader.findings.push(finding.hint(*note));
        }
    }
}

/// Reads single values, and keeps what is wrong with them.
struct Reader<'a> {
    raw: &'a Value,
    findings: Vec<Finding>,
}

impl<'a> Reader<'a> {
    /// The value at `path`, where there is one that is not null.
    fn at(&self, path: &[&str]) -> Option<&'a Value> {
        path.iter().try_fold(self.raw, |value, key| value.get(key)).filter(|value| !value.is_null())
    }

    fn wrong(&mut self, path: &[&str], expected: &str) {
        let path: Str = path.join(".").into();
        self.findings.push(Finding::new(Code::WrongType, path, format!("is not {expected}; the default is used")));
    }

    /// A scalar as text; an empty text where an object stands empty.
    fn text(&mut self, path: &[&str], default: &str) -> String {
        match self.at(path) {
            None => default.to_owned(),
            Some(Value::String(text)) => text.clone(),
            Some(Value::Number(number)) => number.to_string(),
            Some(Value::Bool(flag)) => flag.to_string(),
            Some(_) => {
                self.wrong(path, "a text");
                default.to_owned()
            }
        }
    }

    fn texts(&mut self, path: &[&str]) -> Vec<String> {
        match self.at(path) {
            None => Vec::new(),
            Some(Value::Array(items)) => items.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
            Some(_) => {
                self.wrong(path, "a list");
                Vec::new()
            }
        }
    }

    fn flag(&mut self, path: &[&str], default: bool) -> bool {
        match self.text(path, "").as_str() {
            "" => default,
            "true" => true,
            "false" => false,
            _ => {
                self.wrong(path, "true or false");
                default
            }
        }
    }

    fn number(&mut self, path: &[&str], default: u32) -> u32 {
        match self.text(path, "").as_str() {
            "" => default,
            text => text.parse().unwrap_or_else(|_| {
                self.wrong(path, "a number");
                default
            }),
        }
    }

    fn port(&mut self, path: &[&str], default: u16) -> u16 {
        let number = self.number(path, u32::from(default));
        u16::try_from(number).unwrap_or_else(|_| {
            self.wrong(path, "a port");
            default
        })
    }

    /// An object that is not empty, without nulls.
    fn object(&mut self, path: &[&str]) -> Option<Value> {
        match self.at(path) {
            None => None,
            Some(value @ Value::Object(_)) => without_nulls(value).filter(|value| value != &Value::Object(Map::new())),
            Some(_) => {
                self.wrong(path, "an object");
                None
            }
        }
    }
}

fn without_nulls(value: &Value) -> Option<Value> {
    match value {
        Value::Null => None,
        Value::Object(map) => {
            Some(map.iter().filter_map(|(key, value)| Some((key.clone(), without_nulls(value)?))).collect())
        }
        Value::Array(items) => Some(items.iter().filter_map(without_nulls).collect()),
        Value::Bool(_) | Value::Number(_) | Value::String(_) => Some(value.clone()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_means_the_defaults_of_the_chart() {
        let (values, findings) = InjectValues::parse("{}").unwrap();
        assert_eq!(values, InjectValues::default());
        assert_eq!((values.hub.as_str(), values.proxy.image.as_str()), ("lateen", "mesh-proxy"));
        assert_eq!((values.proxy.status_port, values.proxy.startup_failure_threshold), (15020, Some(600)));
        assert!(findings.is_empty(), "{findings:?}");
    }

    #[test]
    fn scalars_may_be_written_as_text_or_number() {
        let text = r#"{"global": {"tag": 1.5, "logAsJson": "true", "proxy": {"statusPort": "0", "image": null}}}"#;
        let (values, findings) = InjectValues::parse(text).unwrap();
        assert_eq!((values.tag.as_str(), values.log_as_json, values.proxy.status_port), ("1.5", true, 0));
        assert_eq!(values.proxy.image, PROXY_IMAGE);
        assert!(findings.is_empty(), "{findings:?}");
    }

    #[test]
    fn nulls_take_resources_away() {
        let text = r#"{"global": {"proxy": {"resources": {"limits": {"cpu": null}, "requests": null}}}}"#;
        let (values, _) = InjectValues::parse(text).unwrap();
        assert_eq!(values.proxy.resources, Some(serde_json::json!({ "limits": {} })));
    }

    #[test]
    fn what_cannot_be_understood_or_does_not_act_is_named() {
        let text =
            r#"{"global": {"logAsJson": "maybe", "caName": "GkeWorkloadCertificate", "proxy": {"tracer": "datadog"}}}"#;
        let (values, findings) = InjectValues::parse(text).unwrap();
        assert!(!values.log_as_json);
        let paths: Vec<_> = findings.iter().map(|finding| finding.path.as_str()).collect();
        assert_eq!(paths, ["global.logAsJson", "global.caName", "global.proxy.tracer"]);
    }
}
