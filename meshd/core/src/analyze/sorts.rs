//! The kinds that checks look at.

/// A kind with its group; versions do not matter to a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sort {
    /// The group; empty for the core.
    pub group: &'static str,
    /// The kind.
    pub kind: &'static str,
    /// Its name in URLs.
    pub plural: &'static str,
    /// The version to ask a cluster for.
    pub version: &'static str,
}

macro_rules! sorts {
    ($( $constant:ident = $group:literal $version:literal $kind:literal $plural:literal; )*) => {
        impl Sort {
            $(
                #[doc = $kind]
                pub const $constant: Self = Self { group: $group, kind: $kind, plural: $plural, version: $version };
            )*

            /// Every kind that some check looks at.
            pub const ALL: &'static [Self] = &[$(Self::$constant),*];
        }
    };
}

sorts! {
    NAMESPACE = "" "v1" "Namespace" "namespaces";
    SERVICE = "" "v1" "Service" "services";
    POD = "" "v1" "Pod" "pods";
    NODE = "" "v1" "Node" "nodes";
    SECRET = "" "v1" "Secret" "secrets";
    CONFIG_MAP = "" "v1" "ConfigMap" "configmaps";
    DEPLOYMENT = "apps" "v1" "Deployment" "deployments";
    MUTATING_WEBHOOK = "admissionregistration.k8s.io" "v1" "MutatingWebhookConfiguration" "mutatingwebhookconfigurations";
    VALIDATING_WEBHOOK = "admissionregistration.k8s.io" "v1" "ValidatingWebhookConfiguration" "validatingwebhookconfigurations";
    VIRTUAL_SERVICE = "networking.istio.io" "v1" "VirtualService" "virtualservices";
    DESTINATION_RULE = "networking.istio.io" "v1" "DestinationRule" "destinationrules";
    GATEWAY = "networking.istio.io" "v1" "Gateway" "gateways";
    SERVICE_ENTRY = "networking.istio.io" "v1" "ServiceEntry" "serviceentries";
    WORKLOAD_ENTRY = "networking.istio.io" "v1" "WorkloadEntry" "workloadentries";
    WORKLOAD_GROUP = "networking.istio.io" "v1" "WorkloadGroup" "workloadgroups";
    SIDECAR = "networking.istio.io" "v1" "Sidecar" "sidecars";
    PROXY_CONFIG = "networking.istio.io" "v1beta1" "ProxyConfig" "proxyconfigs";
    ENVOY_FILTER = "networking.istio.io" "v1alpha3" "EnvoyFilter" "envoyfilters";
    PEER_AUTHENTICATION = "security.istio.io" "v1" "PeerAuthentication" "peerauthentications";
    REQUEST_AUTHENTICATION = "security.istio.io" "v1" "RequestAuthentication" "requestauthentications";
    AUTHORIZATION_POLICY = "security.istio.io" "v1" "AuthorizationPolicy" "authorizationpolicies";
    TELEMETRY = "telemetry.istio.io" "v1" "Telemetry" "telemetries";
    WASM_PLUGIN = "extensions.istio.io" "v1alpha1" "WasmPlugin" "wasmplugins";
    K8S_GATEWAY = "gateway.networking.k8s.io" "v1" "Gateway" "gateways";
    HTTP_ROUTE = "gateway.networking.k8s.io" "v1" "HTTPRoute" "httproutes";
    GRPC_ROUTE = "gateway.networking.k8s.io" "v1" "GRPCRoute" "grpcroutes";
}

impl Sort {
    /// The kind of an object by what it says itself.
    #[must_use]
    pub fn of(api_version: &str, kind: &str) -> Option<Self> {
        let group = api_version.rsplit_once('/').map_or("", |(group, _)| group);
        Self::ALL.iter().copied().find(|sort| sort.kind == kind && sort.group == group)
    }
}
