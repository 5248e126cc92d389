//! What Istio has and this release reads or knows, but does not act on yet. Whoever makes a field or kind act removes
//! its row here, in the same commit.
//!
//! A path is that of a finding without indexes: `spec.http[].mirror`. `*` stands for any key of a map, a leading `**`
//! for any way down, and `=VALUE` at the end restricts the row to that value.

use serde::Serialize;
use serde_json::Value;

use crate::{
    codes::Code,
    finding::Finding,
    kinds::Kind,
    mesh_config::{MeshConfig, proxy::ProxyConfig},
};

/// Fields of objects: kind, path, what to know.
const FIELDS: &[(Kind, &str, &str)] = &[
    (Kind::VirtualService, "spec.http[].delegate", "write the routes into this object"),
    (Kind::VirtualService, "spec.http[].mirror", ""),
    (Kind::VirtualService, "spec.http[].mirrors", ""),
    (Kind::VirtualService, "spec.http[].mirrorPercent", ""),
    (Kind::VirtualService, "spec.http[].mirrorPercentage", ""),
    (Kind::VirtualService, "spec.http[].corsPolicy", ""),
    (Kind::VirtualService, "spec.http[].match[].statPrefix", ""),
    (Kind::VirtualService, "spec.http[].retries.retryRemoteLocalities", "there is no balancing by locality yet"),
    (Kind::VirtualService, "spec.tls[].match[].destinationSubnets", "the match is wider than it says"),
    (Kind::VirtualService, "spec.tls[].match[].sourceLabels", "the match is wider than it says"),
    (Kind::VirtualService, "spec.tls[].match[].sourceNamespace", "the match is wider than it says"),
    (Kind::VirtualService, "spec.tcp[].match[].destinationSubnets", "the match is wider than it says"),
    (Kind::VirtualService, "spec.tcp[].match[].sourceLabels", "the match is wider than it says"),
    (Kind::VirtualService, "spec.tcp[].match[].sourceNamespace", "the match is wider than it says"),
    (Kind::DestinationRule, "**.loadBalancer.simple=PASSTHROUGH", ""),
    (Kind::DestinationRule, "**.loadBalancer.consistentHash", ""),
    (Kind::DestinationRule, "**.loadBalancer.localityLbSetting", ""),
    (Kind::DestinationRule, "**.loadBalancer.zoneAwareLbSetting", ""),
    (Kind::DestinationRule, "**.loadBalancer.warmup", ""),
    (Kind::DestinationRule, "**.loadBalancer.warmupDurationSecs", ""),
    (Kind::DestinationRule, "**.tls.caCrl", "revoked certificates are accepted"),
    (Kind::DestinationRule, "**.tunnel", ""),
    (Kind::DestinationRule, "**.proxyProtocol", ""),
    (Kind::DestinationRule, "**.retryBudget", "the mesh's own budget of retries holds"),
    (Kind::Gateway, "spec.servers[].bind", "the server listens at all addresses"),
    (Kind::Gateway, "spec.servers[].tls.mode=AUTO_PASSTHROUGH", ""),
    (Kind::Gateway, "spec.servers[].tls.mode=OPTIONAL_MUTUAL", ""),
    (Kind::Gateway, "spec.servers[].tls.caCrl", "revoked certificates are accepted"),
    (Kind::Gateway, "spec.servers[].tls.credentialNames", "use credentialName"),
    (Kind::Gateway, "spec.servers[].tls.caCertCredentialName", "put ca.crt into the secret of credentialName"),
    (Kind::Gateway, "spec.servers[].tls.tlsCertificates", "use serverCertificate and privateKey"),
    (Kind::Gateway, "spec.servers[].tls.verifyCertificateSpki", "any certificate of a trusted root is accepted"),
    (Kind::Gateway, "spec.servers[].tls.verifyCertificateHash", "any certificate of a trusted root is accepted"),
    (Kind::Gateway, "spec.servers[].tls.insecureSkipVerify", "client certificates are verified"),
    (Kind::Gateway, "spec.servers[].tls.ecdhCurves", ""),
    (Kind::ServiceEntry, "spec.resolution=DNS_ROUND_ROBIN", "use DNS"),
    (Kind::ServiceEntry, "spec.resolution=DYNAMIC_DNS", "use DNS and name the hosts"),
    (Kind::WorkloadGroup, "spec.probe", "the health of its members is not asked for"),
    (Kind::Sidecar, "spec.ingress[].tls", ""),
    (Kind::Sidecar, "spec.ingress[].connectionPool", ""),
    (Kind::Sidecar, "spec.inboundConnectionPool", ""),
    (Kind::Sidecar, "spec.outboundTrafficPolicy.egressProxy", ""),
    (Kind::Sidecar, "spec.outboundTrafficPolicy.mode=ALLOW_ANY_DYNAMIC_DNS", "use ALLOW_ANY"),
    (Kind::AuthorizationPolicy, "spec.action=AUDIT", ""),
    (Kind::AuthorizationPolicy, "spec.action=CUSTOM", "what its selector covers is refused"),
    (Kind::AuthorizationPolicy, "spec.targetRef", "use selector"),
    (Kind::AuthorizationPolicy, "spec.targetRefs", "use selector"),
    (Kind::AuthorizationPolicy, "spec.rules[].from[].source.requestPrincipals", CUT),
    (Kind::AuthorizationPolicy, "spec.rules[].from[].source.notRequestPrincipals", CUT),
    (Kind::AuthorizationPolicy, "spec.rules[].from[].source.serviceAccounts", CUT),
    (Kind::AuthorizationPolicy, "spec.rules[].from[].source.notServiceAccounts", CUT),
    (Kind::AuthorizationPolicy, "spec.rules[].from[].source.remoteIpBlocks", CUT),
    (Kind::AuthorizationPolicy, "spec.rules[].from[].source.notRemoteIpBlocks", CUT),
    (Kind::AuthorizationPolicy, "spec.rules[].from[].source.trustDomains", CUT),
    (Kind::AuthorizationPolicy, "spec.rules[].from[].source.notTrustDomains", CUT),
];

/// What becomes of a rule with a condition that does not act: it never lets anybody in who would be kept out.
pub(super) const CUT: &str =
    "an ALLOW rule with it allows nothing, a DENY rule with it refuses all that its selector covers";

/// Keys of AuthorizationPolicy conditions that act. Those of the API that are not here do not act yet.
pub(super) const ACTING_CONDITION_KEYS: &[&str] =
    &["source.ip", "source.namespace", "source.principal", "destination.port"];

/// Annotations that do not act yet: kind, name, what to know.
const ANNOTATIONS: &[(Kind, &str, &str)] =
    &[(Kind::AuthorizationPolicy, crate::names::DRY_RUN_ANNOTATION, "the policy is enforced")];

/// Fields of MeshConfig.
const MESH_CONFIG: &[(&str, &str)] = &[
    ("hboneIdleTimeout", "there are no HBONE tunnels yet"),
    ("ingressClass", "Ingress objects are not read"),
    ("ingressService", "Ingress objects are not read"),
    ("ingressControllerMode", "Ingress objects are not read"),
    ("ingressSelector", "Ingress objects are not read"),
    ("enableTracing", "trace headers are passed on, spans are not sent"),
    ("enableEnvoyAccessLogService", ""),
    ("disableEnvoyListenerLog", ""),
    ("outboundTrafficPolicy.tls", ""),
    ("outboundTrafficPolicy.mode=ALLOW_ANY_DYNAMIC_DNS", "use ALLOW_ANY"),
    ("inboundTrafficPolicy.mode=LOCALHOST", ""),
    ("configSources", "use the control plane's --config-dir"),
    ("caCertificates", ""),
    ("localityLbSetting", ""),
    ("zoneAwareLbSetting", ""),
    ("h2UpgradePolicy=UPGRADE", ""),
    ("inboundClusterStatName", ""),
    ("outboundClusterStatName", ""),
    ("serviceSettings", ""),
    ("serviceScopeConfigs", ""),
    ("enablePrometheusMerge", ""),
    ("verifyCertificateAtClient", "certificates are always verified"),
    ("ca", ""),
    ("extensionProviders", ""),
    ("defaultProviders", ""),
    ("discoverySelectors", "all namespaces are looked at"),
    ("meshMTLS", "TLS 1.2 and newer, with the default suites"),
    ("tlsDefaults", "TLS 1.2 and newer, with the default suites"),
    ("defaultTrafficPolicy", ""),
    ("serviceEntryVisibility", ""),
    ("certificates", "it has no effect in Istio either"),
];

/// Fields of ProxyConfig.
const PROXY_CONFIG: &[(&str, &str)] = &[
    ("configPath", ""),
    ("binaryPath", ""),
    ("customConfigFile", ""),
    ("proxyBootstrapTemplatePath", ""),
    ("statsdUdpAddress", ""),
    ("discoveryRefreshDelay", ""),
    ("zipkinAddress", ""),
    ("envoyMetricsServiceAddress", ""),
    ("availabilityZone", ""),
    ("sds", ""),
    ("serviceCluster", ""),
    ("tracingServiceName", ""),
    ("controlPlaneAuthPolicy", "the control plane is always spoken to over TLS"),
    ("statNameLength", ""),
    ("interceptionMode=TPROXY", "use REDIRECT or NONE"),
    ("tracing", ""),
    ("envoyAccessLogService", ""),
    ("envoyMetricsService", ""),
    ("runtimeValues", ""),
    ("extraStatTags", ""),
    ("gatewayTopology", ""),
    ("readinessProbe", ""),
    ("proxyStatsMatcher", ""),
    ("holdApplicationUntilProxyStarts", ""),
    ("caCertificatesPem", ""),
    ("image", ""),
    ("privateKeyProvider", ""),
    ("proxyHeaders", ""),
    ("fileFlushInterval", ""),
    ("fileFlushMinSizeKb", ""),
    ("statsCompression", ""),
    ("connectionSettings", ""),
];

/// Kinds that have no effect yet: group, kind, and what to know about it.
const KINDS: &[(&str, &str, &str)] = &[
    ("networking.istio.io", "EnvoyFilter", "patches of Envoy's configuration are not applied"),
    ("networking.istio.io", "ProxyConfig", "set the fields in the mesh configuration instead"),
    ("security.istio.io", "RequestAuthentication", "tokens are not verified: do not rely on it to refuse requests"),
    ("telemetry.istio.io", "Telemetry", "metrics and access logs follow the mesh configuration"),
    ("extensions.istio.io", "WasmPlugin", "extensions are not loaded"),
    ("extensions.istio.io", "TrafficExtension", "extensions are not loaded"),
    ("gateway.networking.k8s.io", "GatewayClass", "use Gateway and VirtualService of networking.istio.io"),
    ("gateway.networking.k8s.io", "Gateway", "use Gateway of networking.istio.io"),
    ("gateway.networking.k8s.io", "HTTPRoute", "use VirtualService of networking.istio.io"),
    ("gateway.networking.k8s.io", "GRPCRoute", "use VirtualService of networking.istio.io"),
    ("gateway.networking.k8s.io", "TLSRoute", "use VirtualService of networking.istio.io"),
    ("gateway.networking.k8s.io", "TCPRoute", "use VirtualService of networking.istio.io"),
    ("gateway.networking.k8s.io", "UDPRoute", "UDP is not proxied"),
    ("gateway.networking.k8s.io", "ReferenceGrant", "there is nothing yet that it could allow"),
    ("gateway.networking.k8s.io", "BackendTLSPolicy", "use DestinationRule of networking.istio.io"),
    ("networking.k8s.io", "Ingress", "use Gateway and VirtualService of networking.istio.io"),
];

/// What to know about a kind that does not act yet.
pub(crate) fn kind(group: &str, kind: &str) -> Option<&'static str> {
    KINDS.iter().find(|row| row.0 == group && row.1 == kind).map(|row| row.2)
}

/// Fields of an object that do not act yet.
pub(super) fn fields(kind: Kind, object: &impl Serialize) -> Vec<Finding> {
    let rows: Vec<(&str, &str)> = FIELDS.iter().filter(|row| row.0 == kind).map(|row| (row.1, row.2)).collect();
    if rows.is_empty() { Vec::new() } else { walk(object, &rows) }
}

/// Annotations of an object that do not act yet.
pub(super) fn annotations(kind: Kind, meta: &crate::meta::Meta) -> Vec<Finding> {
    let set =
        ANNOTATIONS.iter().filter(|row| row.0 == kind && meta.annotations.get(row.1).is_some_and(|v| v == "true"));
    set.map(|row| finding(format!("metadata.annotations.{}", row.1), row.2)).collect()
}

/// Fields of the mesh configuration that do not act yet.
pub(crate) fn mesh_config(config: &MeshConfig) -> Vec<Finding> {
    let mut findings = walk(config, MESH_CONFIG);
    for mut finding in config.default_config.iter().flat_map(proxy_config) {
        finding.path = format!("defaultConfig.{}", finding.path).into();
        findings.push(finding);
    }
    findings
}

/// Fields of a proxy's configuration that do not act yet.
pub(crate) fn proxy_config(config: &ProxyConfig) -> Vec<Finding> {
    walk(config, PROXY_CONFIG)
}

fn walk(object: &impl Serialize, rows: &[(&str, &str)]) -> Vec<Finding> {
    // Fields with their default value are not written, so whatever is there was set.
    let value = serde_json::to_value(object).unwrap_or_default();
    let mut findings = Vec::new();
    descend(&value, &mut Vec::new(), rows, &mut findings);
    findings
}

/// Visits every node; `steps` are the names and indexes that lead to it.
fn descend<'v>(value: &'v Value, steps: &mut Vec<Step<'v>>, rows: &[(&str, &str)], findings: &mut Vec<Finding>) {
    if let Some(row) = rows.iter().find(|row| matches(row.0, steps, value)) {
        findings.push(finding(path_text(steps), row.1));
        return;
    }
    match value {
        Value::Object(map) => {
            for (name, value) in map {
                steps.push(Step::Field(name));
                descend(value, steps, rows, findings);
                steps.pop();
            }
        }
        Value::Array(items) => {
            for (index, value) in items.iter().enumerate() {
                steps.push(Step::Index(index));
                descend(value, steps, rows, findings);
                steps.pop();
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

#[derive(Clone, Copy)]
enum Step<'v> {
    Field(&'v str),
    Index(usize),
}

fn finding(path: String, note: &str) -> Finding {
    Finding::new(Code::NotActing, path, "does not act yet in this release").hint(note)
}

fn path_text(steps: &[Step<'_>]) -> String {
    let mut path = String::new();
    for step in steps {
        match step {
            Step::Field(name) if path.is_empty() => path.push_str(name),
            Step::Field(name) => path.extend([".", name]),
            Step::Index(index) => path.push_str(&format!("[{index}]")),
        }
    }
    path
}

/// Whether the steps are those of the pattern.
fn matches(pattern: &str, steps: &[Step<'_>], value: &Value) -> bool {
    let (pattern, wanted) = match pattern.split_once('=') {
        Some((pattern, wanted)) => (pattern, Some(wanted)),
        None => (pattern, None),
    };
    if wanted.is_some() && value.as_str() != wanted {
        return false;
    }
    let (pattern, anywhere) = pattern.strip_prefix("**.").map_or((pattern, false), |rest| (rest, true));
    let mut wanted_steps = pattern.rsplit('.').flat_map(|part| {
        let (name, is_item) = part.strip_suffix("[]").map_or((part, false), |name| (name, true));
        // Walked from the end, so an item's index comes before its list's name.
        is_item.then_some(None).into_iter().chain([Some(name)])
    });
    let mut steps = steps.iter().rev();
    loop {
        match (wanted_steps.next(), steps.next()) {
            (None, None) => return true,
            (None, Some(_)) => return anywhere,
            (Some(None), Some(Step::Index(_))) => {}
            (Some(Some(name)), Some(Step::Field(field))) if name == *field || name == "*" => {}
            _ => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{ANNOTATIONS, FIELDS, MESH_CONFIG, PROXY_CONFIG, fields};
    use crate::{
        kinds::Kind,
        mesh_config::{MeshConfig, proxy::ProxyConfig},
        parse::{Shape, parse},
    };

    /// Whether the pattern leads to a field of the shape.
    fn leads(shape: &Shape, pattern: &str) -> bool {
        let pattern = pattern.split('=').next().unwrap();
        if let Some(rest) = pattern.strip_prefix("**.") {
            return leads(shape, rest)
                || match shape {
                    Shape::Leaf => false,
                    Shape::List(inner) | Shape::Map(inner) => leads(inner, pattern),
                    Shape::Fields(fields) => fields.values().any(|inner| leads(inner, pattern)),
                };
        }
        if pattern.is_empty() {
            return true;
        }
        let (part, rest) = pattern.split_once('.').unwrap_or((pattern, ""));
        let (name, is_item) = part.strip_suffix("[]").map_or((part, false), |name| (name, true));
        match shape {
            Shape::Fields(fields) => fields.get(name).is_some_and(|inner| match inner {
                Shape::List(item) if is_item => leads(item, rest),
                inner => !is_item && leads(inner, rest),
            }),
            Shape::Map(inner) => name == "*" && leads(inner, rest),
            Shape::Leaf | Shape::List(_) => false,
        }
    }

    #[test]
    fn every_row_names_a_field_that_exists() {
        for (kind, pattern, _) in FIELDS {
            assert!(leads(kind.shape(), pattern), "{kind} {pattern}");
        }
        for (shape, rows) in [(Shape::of::<MeshConfig>(), MESH_CONFIG), (Shape::of::<ProxyConfig>(), PROXY_CONFIG)] {
            for (pattern, _) in rows {
                assert!(leads(&shape, pattern), "{pattern}");
            }
        }
        assert!(!leads(Kind::Gateway.shape(), "spec.servers[].tls.mod") && !leads(Kind::Gateway.shape(), "**.nothing"));
        assert!(ANNOTATIONS.iter().all(|row| row.0.is_mesh()));
    }

    #[track_caller]
    fn check(text: &str, expect: &[&str]) {
        let parsed = parse(text, "default");
        let object = parsed.objects[0].as_ref().unwrap().object.clone();
        let found: Vec<String> = fields(object.kind(), &object).iter().map(|f| f.path.to_string()).collect();
        assert_eq!(found, expect);
    }

    #[test]
    fn fields_are_named_where_they_stand() {
        check(
            "{apiVersion: networking.istio.io/v1, kind: VirtualService, metadata: {name: a}, spec: {hosts: [a],
              http: [{timeout: 1s}, {mirror: {host: b}, mirrorPercentage: {value: 1}}]}}",
            &["spec.http[1].mirror", "spec.http[1].mirrorPercentage"],
        );
        check(
            "{apiVersion: networking.istio.io/v1, kind: DestinationRule, metadata: {name: a}, spec: {host: a,
              trafficPolicy: {loadBalancer: {simple: RANDOM}, portLevelSettings: [{loadBalancer: {simple: PASSTHROUGH}}]},
              subsets: [{name: a, trafficPolicy: {loadBalancer: {warmup: {duration: 1s}}}}]}}",
            &["spec.subsets[0].trafficPolicy.loadBalancer.warmup", "spec.trafficPolicy.portLevelSettings[0].loadBalancer.simple"],
        );
        check("{apiVersion: v1, kind: Service, metadata: {name: a}, spec: {}}", &[]);
    }
}
