//! Every annotation and label that Istio knows, and what becomes of it: the table behind `docs/reference/annotations.md`.
//!
//! Nothing is ignored in silence: what does not act is refused, or named in a warning, or listed as not acting yet.

use std::fmt;

/// What becomes of an annotation or label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Injection acts on it.
    Acts,
    /// Injection writes it.
    Written,
    /// The pod is injected, and a warning names the annotation and why it has no effect.
    Named(&'static str),
    /// The pod is refused, because it would not do what its author wants; the reason names what to do.
    Refused(&'static str),
    /// No matter of injection: who reads it.
    Elsewhere(&'static str),
    /// Nobody reads it yet.
    NotYet(&'static str),
}

impl fmt::Display for Effect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Acts => "acts",
            Self::Written => "written",
            Self::Named(_) => "named",
            Self::Refused(_) => "refused",
            Self::Elsewhere(_) => "elsewhere",
            Self::NotYet(_) => "not yet",
        })
    }
}

/// What carries it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Carrier {
    /// An annotation of a pod.
    PodAnnotation,
    /// A label of a pod.
    PodLabel,
    /// A label of a namespace.
    NamespaceLabel,
    /// An annotation of another object.
    OtherAnnotation,
    /// A label of another object.
    OtherLabel,
}

/// A row.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// The annotation or label; with a trailing `*` all that begin so.
    pub name: &'static str,
    /// What carries it.
    pub carrier: Carrier,
    /// What it means.
    pub meaning: &'static str,
    /// What becomes of it.
    pub effect: Effect,
}

impl Row {
    /// Whether the row is about `name`.
    #[must_use]
    pub fn covers(&self, name: &str) -> bool {
        match self.name.strip_suffix('*') {
            Some(prefix) => name.starts_with(prefix),
            None => self.name == name,
        }
    }
}

/// The row about an annotation of a pod.
#[must_use]
pub fn pod_annotation(name: &str) -> Option<&'static Row> {
    PODS.iter().find(|row| row.carrier == Carrier::PodAnnotation && row.covers(name))
}

/// All rows: pods and namespaces first.
pub fn rows() -> impl Iterator<Item = &'static Row> {
    PODS.iter().chain(OTHERS)
}

const fn acts(name: &'static str, meaning: &'static str) -> Row {
    Row { name, carrier: Carrier::PodAnnotation, meaning, effect: Effect::Acts }
}

const fn named(name: &'static str, meaning: &'static str, why: &'static str) -> Row {
    Row { name, carrier: Carrier::PodAnnotation, meaning, effect: Effect::Named(why) }
}

const fn label(name: &'static str, meaning: &'static str) -> Row {
    Row { name, carrier: Carrier::PodLabel, meaning, effect: Effect::Acts }
}

const fn other(carrier: Carrier, name: &'static str, meaning: &'static str, effect: Effect) -> Row {
    Row { name, carrier, meaning, effect }
}

/// Why Envoy's statistics cannot be tuned.
const NO_ENVOY_STATS: &str =
    "the proxy has Istio's standard metrics only, always, and none of Envoy's statistics to choose from";
/// Why annotations of ambient mode have no effect.
const NO_AMBIENT: &str = "there is no ambient mode; the pod gets a sidecar";

/// Annotations and labels of pods and namespaces, which injection reads or writes.
pub const PODS: &[Row] = &[
    label("sidecar.istio.io/inject", "`true` or `false`: whether the pod is injected; the policy decides without it"),
    acts("sidecar.istio.io/inject", "the same as the label of this name, which counts before it (deprecated)"),
    acts("sidecar.istio.io/status", "what an earlier injection added; the pod is rendered anew on its own base"),
    acts("inject.istio.io/templates", "the templates to apply, with commas between; else the injector's default"),
    acts("proxy.istio.io/config", "fields of ProxyConfig, over those of the mesh"),
    acts("proxy.istio.io/overrides", "what the pod itself said about injected containers; kept for a second injection"),
    acts("sidecar.istio.io/proxyImage", "the proxy's image, a whole reference with a `/`"),
    acts(
        "sidecar.istio.io/proxyImageType",
        "the variant of the proxy's image: a suffix of its tag, where it has variants",
    ),
    acts("sidecar.istio.io/proxyCPU", "CPU request of the injected containers"),
    acts("sidecar.istio.io/proxyCPULimit", "CPU limit of the injected containers"),
    acts("sidecar.istio.io/proxyMemory", "memory request of the injected containers"),
    acts("sidecar.istio.io/proxyMemoryLimit", "memory limit of the injected containers"),
    acts("sidecar.istio.io/logLevel", "log level of the data path"),
    acts("sidecar.istio.io/componentLogLevel", "log levels by component of the data path"),
    acts("sidecar.istio.io/agentLogLevel", "log level of the rest"),
    acts(
        "sidecar.istio.io/discoveryAddress",
        "the control plane's address; `proxy.istio.io/config` counts before it (deprecated)",
    ),
    acts("sidecar.istio.io/interceptionMode", "REDIRECT, TPROXY or NONE"),
    acts(
        "sidecar.istio.io/nativeSidecar",
        "`true` or `false`: whether the proxy is a native sidecar, whatever the cluster has",
    ),
    acts("sidecar.istio.io/capNetBindService", "`true`: the proxy may listen on ports below 1024"),
    acts("sidecar.istio.io/userVolume", "volumes to add: a JSON object of volumes by name"),
    acts("sidecar.istio.io/userVolumeMount", "mounts of the proxy to add: a JSON object of mounts by volume"),
    acts(
        "sidecar.istio.io/rewriteAppHTTPProbers",
        "whether probes and hooks of the workload go through the proxy's agent",
    ),
    acts("status.sidecar.istio.io/port", "port of the agent; 0 for none, and then no probes"),
    acts("readiness.status.sidecar.istio.io/initialDelaySeconds", "of the proxy's readiness probe"),
    acts("readiness.status.sidecar.istio.io/periodSeconds", "of the proxy's readiness probe"),
    acts("readiness.status.sidecar.istio.io/failureThreshold", "of the proxy's readiness probe"),
    acts("traffic.sidecar.istio.io/includeOutboundIPRanges", "ranges whose outgoing traffic is captured; `*` for all"),
    acts("traffic.sidecar.istio.io/excludeOutboundIPRanges", "ranges whose outgoing traffic is not captured"),
    acts("traffic.sidecar.istio.io/includeInboundPorts", "ports whose incoming traffic is captured; `*` for all"),
    acts("traffic.sidecar.istio.io/excludeInboundPorts", "ports whose incoming traffic is not captured"),
    acts(
        "traffic.sidecar.istio.io/includeOutboundPorts",
        "ports whose outgoing traffic is captured whatever the range",
    ),
    acts("traffic.sidecar.istio.io/excludeOutboundPorts", "ports whose outgoing traffic is not captured"),
    acts("traffic.sidecar.istio.io/excludeInterfaces", "network interfaces whose traffic is not captured"),
    acts("traffic.sidecar.istio.io/kubevirtInterfaces", "as istio.io/reroute-virtual-interfaces (deprecated)"),
    acts(
        "istio.io/reroute-virtual-interfaces",
        "interfaces of virtual machines, whose incoming traffic counts as outgoing",
    ),
    acts("prometheus.io/scrape", "`false`: metrics are not merged; else kept for the agent and replaced"),
    acts("prometheus.io/port", "where the workload's metrics are; kept for the agent and replaced by its own port"),
    acts("prometheus.io/path", "where the workload's metrics are; kept for the agent and replaced by its own path"),
    acts("prometheus.istio.io/merge-metrics", "whether metrics are merged, whatever the mesh says"),
    acts(
        "prometheus.istio.io/scrape-targets",
        "several places of the workload's metrics, `port:path` with commas between",
    ),
    acts(
        "kubectl.kubernetes.io/default-container",
        "the container of `kubectl exec`; the first of the workload's when absent",
    ),
    acts(
        "kubectl.kubernetes.io/default-logs-container",
        "the container of `kubectl logs`; the first of the workload's when absent",
    ),
    acts("k8s.v1.cni.cncf.io/networks", "networks of Multus; `default/istio-cni` is added when that redirects traffic"),
    acts("resource.opentelemetry.io/*", "attributes of the service in telemetry, for providers that ask for them"),
    other(Carrier::PodAnnotation, "istio.io/rev", "the revision that injected the pod", Effect::Written),
    other(
        Carrier::PodAnnotation,
        "sidecar.istio.io/bootstrapOverride",
        "a ConfigMap with a piece of Envoy's bootstrap",
        Effect::Refused("the proxy is not Envoy and has no bootstrap; set the fields of proxy.istio.io/config instead"),
    ),
    named(
        "readiness.status.sidecar.istio.io/applicationPorts",
        "ports of the workload's readiness",
        "it has no effect in Istio either",
    ),
    named("sidecar.istio.io/statsInclusionPrefixes", "which of Envoy's statistics are kept", NO_ENVOY_STATS),
    named("sidecar.istio.io/statsInclusionSuffixes", "which of Envoy's statistics are kept", NO_ENVOY_STATS),
    named("sidecar.istio.io/statsInclusionRegexps", "which of Envoy's statistics are kept", NO_ENVOY_STATS),
    named("sidecar.istio.io/statsHistogramBuckets", "bounds of Envoy's histograms", NO_ENVOY_STATS),
    named("sidecar.istio.io/statsHistogramBins", "number of bins of Envoy's histograms", NO_ENVOY_STATS),
    named("sidecar.istio.io/statsFlushInterval", "how often Envoy's statistics are flushed", NO_ENVOY_STATS),
    named("sidecar.istio.io/statsEvictionInterval", "when unused statistics of Envoy go", NO_ENVOY_STATS),
    named(
        "sidecar.istio.io/statsCompression",
        "whether metrics are compressed",
        "the scraper's Accept-Encoding decides",
    ),
    named("sidecar.istio.io/extraStatTags", "further labels of metrics", "labels are declared by Telemetry objects"),
    named("ambient.istio.io/redirection", "whether ambient mode captures the pod", NO_AMBIENT),
    named("ambient.istio.io/bypass-inbound-capture", "whether ambient mode captures what comes in", NO_AMBIENT),
    named("ambient.istio.io/dns-capture", "whether ambient mode captures look-ups", NO_AMBIENT),
    label("security.istio.io/tlsMode", "`istio` is written where it is absent: the pod takes mutual TLS"),
    label(
        "service.istio.io/canonical-name",
        "kept; else written from app.kubernetes.io/name, app, or the owner's name",
    ),
    label(
        "service.istio.io/canonical-revision",
        "kept; else written from app.kubernetes.io/version, version, or `latest`",
    ),
    label("service.istio.io/workload-name", "the workload's name in telemetry; the owner's when absent"),
    label("networking.istio.io/tunnel", "`http` is written where HBONE is asked for (ISTIO_META_ENABLE_HBONE)"),
    label("topology.istio.io/network", "the pod's network, before that of the cluster"),
    other(Carrier::NamespaceLabel, "istio-injection", "`enabled` or `disabled`; counts before istio.io/rev", WEBHOOK),
    other(Carrier::NamespaceLabel, "istio.io/rev", "the revision or tag that injects the namespace's pods", WEBHOOK),
    other(
        Carrier::PodLabel,
        "istio.io/rev",
        "the revision or tag that injects the pod, where the namespace says nothing",
        WEBHOOK,
    ),
    other(
        Carrier::OtherLabel,
        "istio.io/tag",
        "marks the webhook of a revision tag",
        Effect::Elsewhere("`meshctl tag`"),
    ),
];

/// What other parts read.
pub const OTHERS: &[Row] = &[
    other(
        Carrier::OtherAnnotation,
        "networking.istio.io/exportTo",
        "who sees a Service",
        Effect::Elsewhere("the control plane"),
    ),
    other(
        Carrier::OtherAnnotation,
        "networking.istio.io/traffic-distribution",
        "which endpoints of a Service are preferred",
        Effect::Elsewhere("the control plane, of Services and ServiceEntries; that of a namespace has no effect"),
    ),
    other(Carrier::OtherAnnotation, "traffic.istio.io/nodeSelector", "nodes that stand for a NodePort Service", NO),
    other(Carrier::OtherAnnotation, "alpha.istio.io/kubernetes-serviceaccounts", "identities of a Service", NO),
    other(Carrier::OtherAnnotation, "alpha.istio.io/canonical-serviceaccounts", "identities of a Service", NO),
    other(Carrier::OtherAnnotation, "topology.istio.io/controlPlaneClusters", "clusters that manage a namespace", NO),
    other(Carrier::OtherAnnotation, "istio.io/use-waypoint-canary-weight", "share of a canary waypoint", NO_WAYPOINT),
    other(Carrier::OtherAnnotation, "networking.istio.io/service-type", "type of a gateway's Service", NO),
    other(Carrier::OtherAnnotation, "gateway.istio.io/*", "names of what is made for a Gateway", NO),
    other(
        Carrier::OtherAnnotation,
        "ambient.istio.io/waypoint-inbound-binding",
        "how a waypoint is reached",
        NO_WAYPOINT,
    ),
    other(
        Carrier::OtherAnnotation,
        "galley.istio.io/analyze-suppress",
        "findings not to report",
        Effect::Elsewhere("`meshctl analyze`"),
    ),
    other(
        Carrier::OtherAnnotation,
        "kubernetes.io/ingress.class",
        "who serves an Ingress",
        Effect::Elsewhere("the control plane"),
    ),
    other(Carrier::OtherAnnotation, "istio.io/dry-run", "evaluates a policy without enforcing it", NO),
    other(
        Carrier::OtherAnnotation,
        "internal.istio.io/*",
        "set by the control plane only",
        Effect::Refused("users may not set it: validation refuses the object"),
    ),
    other(Carrier::OtherLabel, "istio.io/dataplane-mode", "`ambient` or `none`", Effect::NotYet(NO_AMBIENT)),
    other(Carrier::OtherLabel, "istio.io/use-waypoint*", "the waypoint of a Service or namespace", NO_WAYPOINT),
    other(Carrier::OtherLabel, "istio.io/ingress-use-waypoint", "whether gateways use the waypoint", NO_WAYPOINT),
    other(Carrier::OtherLabel, "istio.io/waypoint-for", "what a waypoint serves", NO_WAYPOINT),
    other(Carrier::OtherLabel, "networking.istio.io/gatewayPort", "port of an east-west gateway", NO),
    other(
        Carrier::OtherLabel,
        "networking.istio.io/enable-autoallocate-ip",
        "`false`: no virtual address for a ServiceEntry that names none",
        Effect::Elsewhere("the control plane, when it allocates addresses"),
    ),
    other(
        Carrier::OtherLabel,
        "topology.istio.io/cluster",
        "the cluster of a workload outside of Kubernetes",
        Effect::Elsewhere("the control plane"),
    ),
    other(
        Carrier::OtherLabel,
        "topology.istio.io/subzone",
        "the sub-zone of a node",
        Effect::Elsewhere("the control plane"),
    ),
    other(
        Carrier::OtherLabel,
        "topology.istio.io/locality",
        "the locality of a workload",
        Effect::Elsewhere("the control plane"),
    ),
    other(
        Carrier::OtherLabel,
        "istio-locality",
        "the locality of a workload where no node says it",
        Effect::Elsewhere("the control plane and the proxy"),
    ),
    other(Carrier::OtherLabel, "gateway.istio.io/managed", "marks what was made for a Gateway", NO),
    other(Carrier::OtherLabel, "gateway.networking.k8s.io/*", "the Gateway that an object was made for", NO),
    other(Carrier::OtherLabel, "operator.istio.io/*", "marks what an installation made", NO),
    other(Carrier::OtherLabel, "istio.io/global", "a Service of all clusters", NO),
    other(Carrier::OtherLabel, "istio.io/draining", "an endpoint that takes no new connections", NO),
    other(Carrier::OtherLabel, "istio.io/persistent-session*", "sessions that stay at an endpoint", NO),
];

/// Read by the API server before it calls the webhook; `meshctl check-inject` shows what comes of it.
const WEBHOOK: Effect = Effect::Elsewhere("the selectors of the webhook");
const NO: Effect = Effect::NotYet("");
const NO_WAYPOINT: Effect = Effect::NotYet("there are no waypoints");

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_row_stands_once_and_says_what_it_is() {
        let mut seen = BTreeSet::new();
        for row in rows() {
            assert!(seen.insert((format!("{:?}", row.carrier), row.name)), "{} twice", row.name);
            assert!(!row.meaning.is_empty() && !row.meaning.ends_with('.'), "{}", row.name);
        }
    }

    #[test]
    fn a_star_covers_what_begins_so() {
        assert!(pod_annotation("resource.opentelemetry.io/service.name").is_some());
        assert!(pod_annotation("sidecar.istio.io/logLevels").is_none());
    }
}
