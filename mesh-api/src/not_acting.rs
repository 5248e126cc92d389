//! What Istio has and this release reads or knows, but does not act on yet. Whoever makes a field or kind act removes
//! its row here, in the same commit.
//!
//! A path is that of a finding without indexes: `spec.http[].mirror`. `*` stands for any key of a map, a leading `**`
//! for any way down, and `=VALUE` at the end restricts the row to that value (`=PRE*` to what begins so).

use serde::Serialize;
use serde_json::Value;

use crate::{codes::Code, finding::Finding, kinds::Kind};

/// Fields of objects: kind, path, what to know.
pub(crate) const FIELDS: &[(Kind, &str, &str)] = &[
    (Kind::Service, "spec.trafficDistribution=PreferSameNode", "the same sub-zone is preferred, not the same node"),
    (Kind::VirtualService, "spec.http[].delegate", "the route is left out; write the routes into this object"),
    (Kind::VirtualService, "spec.http[].mirror", "requests are not copied"),
    (Kind::VirtualService, "spec.http[].mirrors", "requests are not copied"),
    (Kind::VirtualService, "spec.http[].mirrorPercent", ""),
    (Kind::VirtualService, "spec.http[].mirrorPercentage", ""),
    (Kind::VirtualService, "spec.http[].match[].statPrefix", ""),
    (Kind::VirtualService, "spec.http[].retries.retryRemoteLocalities", "there is no balancing by locality yet"),
    (Kind::DestinationRule, "**.loadBalancer.consistentHash", "requests are balanced without it"),
    (Kind::DestinationRule, "**.loadBalancer.localityLbSetting", "requests are balanced without it"),
    (Kind::DestinationRule, "**.loadBalancer.zoneAwareLbSetting", "requests are balanced without it"),
    (Kind::DestinationRule, "**.loadBalancer.warmup", "requests are balanced without it"),
    (Kind::DestinationRule, "**.loadBalancer.warmupDurationSecs", "requests are balanced without it"),
    (Kind::DestinationRule, "**.connectionPool.http.http2KeepAlive", "HTTP/2 pings are not sent"),
    (Kind::DestinationRule, "**.outlierDetection.outlierDetectionHttpErrorCodes", "all 5xx count as errors"),
    (Kind::DestinationRule, "**.tls.caCrl", "revoked certificates are accepted"),
    (Kind::DestinationRule, "**.tunnel", "connections are not tunnelled"),
    (Kind::DestinationRule, "**.proxyProtocol", "the PROXY protocol is not sent"),
    (Kind::DestinationRule, "**.retryBudget.budgetInterval", "the budget counts requests in flight"),
    (Kind::Gateway, "spec.servers[].tls.mode=AUTO_PASSTHROUGH", "the server is left out"),
    (Kind::Gateway, "spec.servers[].tls.caCrl", "revoked certificates are accepted"),
    (Kind::Gateway, "spec.servers[].tls.verifyCertificateSpki", "the server is left out"),
    (Kind::Gateway, "spec.servers[].tls.verifyCertificateHash", "the server is left out"),
    (Kind::Gateway, "spec.servers[].tls.insecureSkipVerify", "the server is left out"),
    (Kind::Gateway, "spec.servers[].tls.cipherSuites", "the default suites are used"),
    (Kind::Gateway, "spec.servers[].tls.ecdhCurves", "the default groups are used"),
    (Kind::ServiceEntry, "spec.resolution=DNS_ROUND_ROBIN", "it acts as DNS"),
    (Kind::ServiceEntry, "spec.resolution=DYNAMIC_DNS", "the object has no effect; use DNS and name the hosts"),
    (Kind::WorkloadGroup, "spec.probe", "the health of its members is not asked for"),
    (Kind::Sidecar, "spec.ingress[].tls", "the listener is left out"),
    (Kind::Sidecar, "spec.outboundTrafficPolicy.egressProxy", ""),
    (Kind::Sidecar, "spec.outboundTrafficPolicy.mode=ALLOW_ANY_DYNAMIC_DNS", "it acts as ALLOW_ANY"),
    (Kind::AuthorizationPolicy, "spec.action=AUDIT", "nothing is audited"),
    (Kind::AuthorizationPolicy, "spec.action=CUSTOM", "what its rules match is refused"),
    (Kind::AuthorizationPolicy, "spec.targetRef", "the policy has no effect; use selector"),
    (Kind::AuthorizationPolicy, "spec.targetRefs", "the policy has no effect; use selector"),
    (Kind::AuthorizationPolicy, "spec.rules[].from[].source.requestPrincipals", CUT),
    (Kind::AuthorizationPolicy, "spec.rules[].from[].source.notRequestPrincipals", CUT),
    (Kind::AuthorizationPolicy, "spec.rules[].when[].key=request.auth.*", CUT),
    (Kind::AuthorizationPolicy, "spec.rules[].when[].key=experimental.*", CUT),
];

/// What becomes of a rule with a condition that does not act: it never lets anybody in who would be kept out.
const CUT: &str = "an ALLOW rule with it allows nothing, a DENY rule refuses as if it held";

/// Annotations that do not act yet: kind, name, what to know.
pub(crate) const ANNOTATIONS: &[(Kind, &str, &str)] =
    &[(Kind::AuthorizationPolicy, crate::names::DRY_RUN_ANNOTATION, "the policy is neither enforced nor evaluated")];

/// Fields of MeshConfig.
pub(crate) const MESH_CONFIG: &[(&str, &str)] = &[
    ("hboneIdleTimeout", "there are no HBONE tunnels yet"),
    ("enableTracing", "trace headers are passed on, spans are not sent"),
    ("enableEnvoyAccessLogService", ""),
    ("disableEnvoyListenerLog", ""),
    ("outboundTrafficPolicy.tls", ""),
    ("outboundTrafficPolicy.mode=ALLOW_ANY_DYNAMIC_DNS", "use ALLOW_ANY"),
    ("configSources", "use the control plane's --config-dir"),
    ("caCertificates", ""),
    ("localityLbSetting.distribute", "requests are balanced without it"),
    ("localityLbSetting.failover", "requests are balanced without it"),
    ("localityLbSetting.failoverPriority", "requests are balanced without it"),
    ("zoneAwareLbSetting", ""),
    ("inboundClusterStatName", ""),
    ("outboundClusterStatName", ""),
    ("serviceSettings", ""),
    ("serviceScopeConfigs", ""),
    ("verifyCertificateAtClient", "certificates are always verified"),
    ("ca", ""),
    ("extensionProviders", ""),
    ("defaultProviders", ""),
    ("meshMTLS.cipherSuites", "the default suites are used"),
    ("meshMTLS.ecdhCurves", "the default groups are used"),
    ("tlsDefaults", "TLS 1.2 and newer, with the default suites"),
    ("defaultTrafficPolicy", ""),
    ("serviceEntryVisibility", ""),
    ("certificates", "it has no effect in Istio either"),
];

/// Fields of ProxyConfig.
pub(crate) const PROXY_CONFIG: &[(&str, &str)] = &[
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
    ("gatewayTopology.proxyProtocol", "clients that send the PROXY protocol are not understood"),
    ("readinessProbe", ""),
    ("proxyStatsMatcher", ""),
    ("caCertificatesPem", ""),
    ("privateKeyProvider", ""),
    ("proxyHeaders.requestId", ""),
    ("proxyHeaders.server", ""),
    ("proxyHeaders.attemptCount", ""),
    ("proxyHeaders.envoyDebugHeaders", ""),
    ("proxyHeaders.metadataExchangeHeaders", ""),
    ("proxyHeaders.preserveHttp1HeaderCase", ""),
    ("proxyHeaders.xForwardedHost", ""),
    ("proxyHeaders.xForwardedPort", ""),
    ("proxyHeaders.setCurrentClientCertDetails.chain", ""),
    ("fileFlushInterval", ""),
    ("fileFlushMinSizeKb", ""),
    ("statsCompression", ""),
    ("connectionSettings", ""),
];

/// Kinds that have no effect yet: group, kind, and what to know about it.
pub(crate) const KINDS: &[(&str, &str, &str)] = &[
    ("networking.istio.io", "EnvoyFilter", "patches of Envoy's configuration are not applied"),
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
];

/// What to know about a kind that does not act yet.
pub(crate) fn kind(group: &str, kind: &str) -> Option<&'static str> {
    KINDS.iter().find(|row| row.0 == group && row.1 == kind).map(|row| row.2)
}

/// Fields of an object that do not act yet.
pub(crate) fn fields(kind: Kind, object: &impl Serialize) -> Vec<Finding> {
    let rows: Vec<(&str, &str)> = FIELDS.iter().filter(|row| row.0 == kind).map(|row| (row.1, row.2)).collect();
    if rows.is_empty() { Vec::new() } else { walk(object, &rows) }
}

/// Annotations of an object that do not act yet.
pub(crate) fn annotations(kind: Kind, meta: &crate::meta::Meta) -> Vec<Finding> {
    let set =
        ANNOTATIONS.iter().filter(|row| row.0 == kind && meta.annotations.get(row.1).is_some_and(|v| v == "true"));
    set.map(|row| finding(format!("metadata.annotations.{}", row.1), row.2)).collect()
}

/// Fields of `object` that a row names.
pub(crate) fn walk(object: &impl Serialize, rows: &[(&str, &str)]) -> Vec<Finding> {
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
    let is_wanted = |wanted: &str| {
        let text = value.as_str().unwrap_or_default();
        wanted.strip_suffix('*').map_or(text == wanted, |prefix| text.starts_with(prefix))
    };
    if !wanted.is_none_or(is_wanted) {
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
        parse::parse,
        typed::Shape,
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
              trafficPolicy: {loadBalancer: {simple: RANDOM}, portLevelSettings: [{tls: {mode: SIMPLE, caCrl: /x}}]},
              subsets: [{name: a, trafficPolicy: {loadBalancer: {warmup: {duration: 1s}}}}]}}",
            &["spec.subsets[0].trafficPolicy.loadBalancer.warmup", "spec.trafficPolicy.portLevelSettings[0].tls.caCrl"],
        );
        check(
            "{apiVersion: security.istio.io/v1, kind: AuthorizationPolicy, metadata: {name: a}, spec: {action: AUDIT,
              rules: [{when: [{key: source.ip, values: [10.0.0.1]}, {key: request.auth.principal, values: [a]}]}]}}",
            &["spec.action", "spec.rules[0].when[1].key"],
        );
        check("{apiVersion: v1, kind: Service, metadata: {name: a}, spec: {}}", &[]);
    }
}
