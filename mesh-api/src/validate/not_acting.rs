//! What Istio has and this release reads or knows, but does not act on yet. Whoever makes a field or kind act removes
//! its row here, in the same commit.

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
