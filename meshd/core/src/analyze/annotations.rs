//! The annotations that Istio defines (istio/api: annotation/annotations.yaml, 1.31), and the kinds that they belong on.

/// An annotation.
#[derive(Debug)]
pub(super) struct Defined {
    pub(super) name: &'static str,
    pub(super) is_deprecated: bool,
    /// Kinds that it acts on; [`ANY`] for all.
    pub(super) kinds: &'static [&'static str],
}

/// On whatever kind.
pub(super) const ANY: &[&str] = &[];
/// Written by controllers, and so nobody's mistake.
pub(super) const IGNORED: [&str; 3] =
    ["sidecar.istio.io/status", "gateway.istio.io/controller-version", "istio.io/rev"];

const POD: &[&str] = &["Pod"];
const SERVICE: &[&str] = &["Service"];
const GATEWAY: &[&str] = &["Gateway"];
const WORKLOAD_ENTRY: &[&str] = &["WorkloadEntry"];

const fn of(name: &'static str, kinds: &'static [&'static str]) -> Defined {
    Defined { name, is_deprecated: false, kinds }
}

const fn retired(name: &'static str, kinds: &'static [&'static str]) -> Defined {
    Defined { name, is_deprecated: true, kinds }
}

/// All of them, by name.
pub(super) const DEFINED: &[Defined] = &[
    retired("alpha.istio.io/canonical-serviceaccounts", SERVICE),
    retired("alpha.istio.io/kubernetes-serviceaccounts", SERVICE),
    of("ambient.istio.io/bypass-inbound-capture", POD),
    of("ambient.istio.io/dns-capture", POD),
    of("ambient.istio.io/redirection", POD),
    of("ambient.istio.io/waypoint-inbound-binding", &["GatewayClass", "Gateway"]),
    of("galley.istio.io/analyze-suppress", ANY),
    of("gateway.istio.io/controller-version", ANY),
    of("gateway.istio.io/name-override", GATEWAY),
    of("gateway.istio.io/service-account", GATEWAY),
    of("inject.istio.io/templates", POD),
    of("istio.io/autoRegistrationGroup", WORKLOAD_ENTRY),
    of("istio.io/connectedAt", WORKLOAD_ENTRY),
    of("istio.io/disconnectedAt", WORKLOAD_ENTRY),
    of("istio.io/dry-run", &["AuthorizationPolicy"]),
    of("istio.io/reroute-virtual-interfaces", POD),
    of("istio.io/rev", POD),
    of("istio.io/use-waypoint-canary-weight", &["Service", "ServiceEntry", "Namespace"]),
    of("istio.io/workloadController", WORKLOAD_ENTRY),
    of("kubernetes.io/ingress.class", &["Ingress"]),
    of("networking.istio.io/exportTo", SERVICE),
    of("networking.istio.io/service-type", GATEWAY),
    of("networking.istio.io/traffic-distribution", &["Namespace", "Service", "ServiceEntry"]),
    of("prometheus.istio.io/merge-metrics", POD),
    of("proxy.istio.io/config", POD),
    of("proxy.istio.io/overrides", POD),
    of("readiness.status.sidecar.istio.io/applicationPorts", POD),
    of("readiness.status.sidecar.istio.io/failureThreshold", POD),
    of("readiness.status.sidecar.istio.io/initialDelaySeconds", POD),
    of("readiness.status.sidecar.istio.io/periodSeconds", POD),
    of("sidecar.istio.io/agentLogLevel", POD),
    of("sidecar.istio.io/bootstrapOverride", POD),
    of("sidecar.istio.io/componentLogLevel", POD),
    retired("sidecar.istio.io/discoveryAddress", POD),
    retired("sidecar.istio.io/extraStatTags", POD),
    retired("sidecar.istio.io/inject", POD),
    of("sidecar.istio.io/interceptionMode", POD),
    of("sidecar.istio.io/logLevel", POD),
    of("sidecar.istio.io/nativeSidecar", POD),
    of("sidecar.istio.io/proxyCPU", POD),
    of("sidecar.istio.io/proxyCPULimit", POD),
    of("sidecar.istio.io/proxyImage", POD),
    of("sidecar.istio.io/proxyImageType", POD),
    of("sidecar.istio.io/proxyMemory", POD),
    of("sidecar.istio.io/proxyMemoryLimit", POD),
    of("sidecar.istio.io/rewriteAppHTTPProbers", POD),
    retired("sidecar.istio.io/statsCompression", POD),
    of("sidecar.istio.io/statsEvictionInterval", POD),
    of("sidecar.istio.io/statsFlushInterval", POD),
    of("sidecar.istio.io/statsHistogramBins", POD),
    of("sidecar.istio.io/statsHistogramBuckets", POD),
    retired("sidecar.istio.io/statsInclusionPrefixes", POD),
    retired("sidecar.istio.io/statsInclusionRegexps", POD),
    retired("sidecar.istio.io/statsInclusionSuffixes", POD),
    of("sidecar.istio.io/status", POD),
    of("sidecar.istio.io/userVolume", POD),
    of("sidecar.istio.io/userVolumeMount", POD),
    of("status.sidecar.istio.io/port", POD),
    of("topology.istio.io/controlPlaneClusters", &["Namespace"]),
    of("traffic.istio.io/nodeSelector", SERVICE),
    of("traffic.sidecar.istio.io/excludeInboundPorts", POD),
    of("traffic.sidecar.istio.io/excludeInterfaces", POD),
    of("traffic.sidecar.istio.io/excludeOutboundIPRanges", POD),
    of("traffic.sidecar.istio.io/excludeOutboundPorts", POD),
    of("traffic.sidecar.istio.io/includeInboundPorts", POD),
    of("traffic.sidecar.istio.io/includeOutboundIPRanges", POD),
    of("traffic.sidecar.istio.io/includeOutboundPorts", POD),
    retired("traffic.sidecar.istio.io/kubevirtInterfaces", POD),
];
