//! Words of older specifications, and what they are in the charts of today.

/// Values of the old gateway charts (`values.gateways.NAME`), and what they are in the chart of today.
pub const LEGACY: &[(&str, &str)] = &[
    ("autoscaleEnabled", "autoscaling.enabled"),
    ("autoscaleMin", "autoscaling.minReplicas"),
    ("autoscaleMax", "autoscaling.maxReplicas"),
    ("type", "service.type"),
    ("ports", "service.ports"),
    ("loadBalancerIP", "service.loadBalancerIP"),
    ("loadBalancerSourceRanges", "service.loadBalancerSourceRanges"),
    ("externalTrafficPolicy", "service.externalTrafficPolicy"),
    ("serviceAnnotations", "service.annotations"),
];

/// Fields of `k8s` in a specification, and what they are in the chart of a gateway; that of the control plane has other
/// names for some.
pub const K8S: &[(&str, &str)] = &[
    ("affinity", "affinity"),
    ("env", ""),
    ("hpaSpec", ""),
    ("nodeSelector", "nodeSelector"),
    ("overlays", ""),
    ("podAnnotations", "podAnnotations"),
    ("podDisruptionBudget", "podDisruptionBudget"),
    ("priorityClassName", "priorityClassName"),
    ("replicaCount", "replicaCount"),
    ("resources", "resources"),
    ("securityContext", "securityContext"),
    ("service", "service"),
    ("serviceAnnotations", "service.annotations"),
    ("strategy", "strategy"),
    ("tolerations", "tolerations"),
];
