//! Every label, annotation, header, environment variable, port and well-known name that the mesh reads or writes.
//!
//! Declared once with its meaning and source; the reference pages are made from [`ALL`]. Istio's names are kept
//! letter by letter, because users' YAML, dashboards and scripts hold them.

/// What a name is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NameKind {
    /// A label of an object.
    Label,
    /// An annotation of an object.
    Annotation,
    /// An HTTP header.
    Header,
    /// An environment variable.
    Env,
    /// A TCP port.
    Port,
    /// A name of a namespace, object, cluster, listener or other thing that must be spelt exactly so.
    Constant,
}

/// A row of the reference.
#[derive(Debug)]
pub struct NameRow {
    /// What it is.
    pub kind: NameKind,
    /// The name or number itself.
    pub value: &'static str,
    /// What it means.
    pub doc: &'static str,
}

macro_rules! names {
    ($( $kind:ident { $( $(#[doc = $doc:literal])+ $name:ident = $value:literal; )* } )*) => {
        $($(names!(@item $kind $name $value $($doc)+);)*)*

        /// Every name, in the order of declaration.
        pub const ALL: &[NameRow] = &[
            $($(NameRow {
                kind: NameKind::$kind,
                value: names!(@text $kind $value),
                doc: concat!($($doc, "\n"),+).trim_ascii(),
            },)*)*
        ];
    };
    (@item Port $name:ident $value:literal $($doc:literal)+) => {
        $(#[doc = $doc])+
        pub const $name: u16 = $value;
    };
    (@item $kind:ident $name:ident $value:literal $($doc:literal)+) => {
        $(#[doc = $doc])+
        pub const $name: &str = $value;
    };
    (@text Port $value:literal) => { stringify!($value) };
    (@text $kind:ident $value:literal) => { $value };
}

names! {
    Label {
        /// The Service that an EndpointSlice belongs to.
        SERVICE_NAME_LABEL = "kubernetes.io/service-name";
        /// Overrides the name of a workload's canonical service. Without it `app.kubernetes.io/name`, then `app`, then
        /// the workload's name count.
        CANONICAL_NAME_LABEL = "service.istio.io/canonical-name";
        /// Overrides the revision of a workload's canonical service. Without it `app.kubernetes.io/version`, then
        /// `version`, then `latest` count.
        CANONICAL_REVISION_LABEL = "service.istio.io/canonical-revision";
        /// Overrides the workload's name in telemetry.
        WORKLOAD_NAME_LABEL = "service.istio.io/workload-name";
        /// Kubernetes' recommended label for the name of an application.
        K8S_APP_NAME_LABEL = "app.kubernetes.io/name";
        /// Kubernetes' recommended label for the version of an application.
        K8S_APP_VERSION_LABEL = "app.kubernetes.io/version";
        /// The customary label for the name of an application.
        APP_LABEL = "app";
        /// The customary label for the version of an application.
        VERSION_LABEL = "version";
        /// `istio` on workloads that accept mutual TLS; `disabled` on those that do not.
        TLS_MODE_LABEL = "security.istio.io/tlsMode";
        /// The control plane revision that reads an object or injects a pod.
        REVISION_LABEL = "istio.io/rev";
        /// On a webhook: the further name that it gives the revision of its `istio.io/rev`.
        TAG_LABEL = "istio.io/tag";
        /// Who looks after an object; ours say [`MANAGED_BY`], and objects of others are left alone.
        MANAGED_BY_LABEL = "app.kubernetes.io/managed-by";
        /// The network a workload or namespace is in.
        NETWORK_LABEL = "topology.istio.io/network";
        /// The cluster a workload is in.
        CLUSTER_LABEL = "topology.istio.io/cluster";
        /// The sub-zone of a node.
        SUBZONE_LABEL = "topology.istio.io/subzone";
        /// The region of a node.
        REGION_LABEL = "topology.kubernetes.io/region";
        /// The zone of a node.
        ZONE_LABEL = "topology.kubernetes.io/zone";
        /// Locality as `region.zone.subzone` on a workload where no node says it.
        LOCALITY_LABEL = "istio-locality";
    }
    Annotation {
        /// Who may see a Service: comma-separated namespaces, `.`, `*` or `~`.
        EXPORT_TO_ANNOTATION = "networking.istio.io/exportTo";
        /// Which endpoints of a Service or ServiceEntry are preferred: `PreferClose`, `PreferSameZone` or `PreferSameNode`.
        TRAFFIC_DISTRIBUTION_ANNOTATION = "networking.istio.io/traffic-distribution";
        /// A ProxyConfig in YAML for one workload.
        PROXY_CONFIG_ANNOTATION = "proxy.istio.io/config";
        /// `true`: evaluate an AuthorizationPolicy, but do not enforce it.
        DRY_RUN_ANNOTATION = "istio.io/dry-run";
        /// How traffic of a pod is captured: REDIRECT, TPROXY or NONE.
        INTERCEPTION_MODE_ANNOTATION = "sidecar.istio.io/interceptionMode";
        /// Address ranges whose outbound traffic is captured; `*` for all.
        INCLUDE_OUTBOUND_RANGES_ANNOTATION = "traffic.sidecar.istio.io/includeOutboundIPRanges";
        /// Address ranges whose outbound traffic is not captured.
        EXCLUDE_OUTBOUND_RANGES_ANNOTATION = "traffic.sidecar.istio.io/excludeOutboundIPRanges";
        /// Outbound ports that are not captured.
        EXCLUDE_OUTBOUND_PORTS_ANNOTATION = "traffic.sidecar.istio.io/excludeOutboundPorts";
        /// Inbound ports that are captured; `*` for all.
        INCLUDE_INBOUND_PORTS_ANNOTATION = "traffic.sidecar.istio.io/includeInboundPorts";
        /// Inbound ports that are not captured.
        EXCLUDE_INBOUND_PORTS_ANNOTATION = "traffic.sidecar.istio.io/excludeInboundPorts";
        /// Namespace of the control plane that wrote an object, beside the label of its revision.
        CONTROL_PLANE_ANNOTATION = "lateen.io/control-plane";
        /// Prefix of annotations that only the control plane may set.
        INTERNAL_ANNOTATION_PREFIX = "internal.istio.io/";
    }
    Header {
        /// The peer's metadata, base64 of a protobuf struct.
        PEER_METADATA_HEADER = "x-envoy-peer-metadata";
        /// The peer's node id.
        PEER_METADATA_ID_HEADER = "x-envoy-peer-metadata-id";
        /// The chain of client certificates' facts.
        FORWARDED_CLIENT_CERT_HEADER = "x-forwarded-client-cert";
        /// The addresses a request came through.
        FORWARDED_FOR_HEADER = "x-forwarded-for";
        /// The scheme the client used.
        FORWARDED_PROTO_HEADER = "x-forwarded-proto";
        /// The host before a rewrite of the authority.
        FORWARDED_HOST_HEADER = "x-forwarded-host";
        /// An id of one request across hops.
        REQUEST_ID_HEADER = "x-request-id";
        /// How many attempts the upstream request took so far.
        ATTEMPT_COUNT_HEADER = "x-envoy-attempt-count";
        /// Milliseconds the upstream took.
        UPSTREAM_SERVICE_TIME_HEADER = "x-envoy-upstream-service-time";
        /// The path before a rewrite.
        ORIGINAL_PATH_HEADER = "x-envoy-original-path";
        /// The route's description that the proxies exchange.
        DECORATOR_OPERATION_HEADER = "x-envoy-decorator-operation";
        /// W3C trace context.
        TRACEPARENT_HEADER = "traceparent";
        /// W3C trace state.
        TRACESTATE_HEADER = "tracestate";
        /// B3 in one header.
        B3_HEADER = "b3";
        /// B3 trace id.
        B3_TRACE_ID_HEADER = "x-b3-traceid";
        /// B3 span id.
        B3_SPAN_ID_HEADER = "x-b3-spanid";
        /// B3 parent span id.
        B3_PARENT_SPAN_ID_HEADER = "x-b3-parentspanid";
        /// B3 sampling decision.
        B3_SAMPLED_HEADER = "x-b3-sampled";
        /// B3 debug flag.
        B3_FLAGS_HEADER = "x-b3-flags";
    }
    Env {
        /// The pod's name.
        POD_NAME_ENV = "POD_NAME";
        /// The pod's namespace.
        POD_NAMESPACE_ENV = "POD_NAMESPACE";
        /// The pod's address.
        INSTANCE_IP_ENV = "INSTANCE_IP";
        /// The pod's service account.
        SERVICE_ACCOUNT_ENV = "SERVICE_ACCOUNT";
        /// Where the control plane listens, host and port.
        CA_ADDR_ENV = "CA_ADDR";
        /// A ProxyConfig in YAML.
        PROXY_CONFIG_ENV = "PROXY_CONFIG";
        /// The trust domain of the mesh.
        TRUST_DOMAIN_ENV = "TRUST_DOMAIN";
        /// The cluster's id in node metadata.
        META_CLUSTER_ID_ENV = "ISTIO_META_CLUSTER_ID";
        /// The network's id in node metadata.
        META_NETWORK_ENV = "ISTIO_META_NETWORK";
        /// Prefix of variables that become node metadata without it.
        META_PREFIX_ENV = "ISTIO_META_";
        /// Quiet time before a push.
        DEBOUNCE_AFTER_ENV = "PILOT_DEBOUNCE_AFTER";
        /// Longest time a push is held back.
        DEBOUNCE_MAX_ENV = "PILOT_DEBOUNCE_MAX";
    }
    Port {
        /// Proxy admin, loopback only.
        PROXY_ADMIN_PORT = 15000;
        /// Captured outbound traffic.
        OUTBOUND_PORT = 15001;
        /// Captured inbound traffic.
        INBOUND_PORT = 15006;
        /// Control plane: xDS and CA in plaintext, loopback unless asked.
        XDS_PLAINTEXT_PORT = 15010;
        /// Control plane: xDS and CA over TLS.
        XDS_TLS_PORT = 15012;
        /// Control plane: metrics, version and debug pages.
        MONITORING_PORT = 15014;
        /// Control plane: webhooks.
        WEBHOOK_PORT = 15017;
        /// Control plane: readiness for kubelets.
        MESHD_READINESS_PORT = 8080;
        /// Proxy: merged metrics and health.
        STATUS_PORT = 15020;
        /// Proxy: readiness.
        READINESS_PORT = 15021;
        /// Proxy: its own metrics.
        PROXY_METRICS_PORT = 15090;
    }
    Constant {
        /// The namespace of the control plane, whose policies are mesh-wide.
        ROOT_NAMESPACE = "istio-system";
        /// The domain of services in a cluster.
        CLUSTER_DOMAIN = "cluster.local";
        /// What a VirtualService calls all sidecars.
        MESH_GATEWAY = "mesh";
        /// The id of a single cluster.
        DEFAULT_CLUSTER_ID = "Kubernetes";
        /// The key of a proxy's metadata that says whether its workload's traffic is led through it: `true` or `false`, absent
        /// when it is not known.
        CAPTURED_METADATA = "LATEEN_CAPTURED";
        /// The ConfigMap of the mesh configuration.
        MESH_CONFIG_MAP = "istio";
        /// The key of the mesh configuration in its ConfigMap.
        MESH_CONFIG_KEY = "mesh";
        /// The value of `app.kubernetes.io/managed-by` on objects that the control plane makes.
        MANAGED_BY = "lateen";
        /// The Secret of a plugged-in CA.
        CACERTS_SECRET = "cacerts";
        /// The Secret of the self-signed CA.
        SELF_SIGNED_CA_SECRET = "istio-ca-secret";
        /// The ConfigMap with the mesh's roots, in every namespace of the mesh.
        CA_ROOT_CONFIG_MAP = "istio-ca-root-cert";
        /// The key of the roots in that ConfigMap.
        CA_ROOT_KEY = "root-cert.pem";
        /// Cluster of unknown outbound destinations that are let through.
        PASSTHROUGH_CLUSTER = "PassthroughCluster";
        /// Cluster of unknown inbound ports that are let through.
        INBOUND_PASSTHROUGH_CLUSTER = "InboundPassthroughCluster";
        /// Cluster of destinations that are refused.
        BLACK_HOLE_CLUSTER = "BlackHoleCluster";
        /// Listener of captured outbound traffic.
        VIRTUAL_OUTBOUND_LISTENER = "virtualOutbound";
        /// Listener of captured inbound traffic.
        VIRTUAL_INBOUND_LISTENER = "virtualInbound";
        /// ALPN of mutual TLS between proxies.
        ISTIO_ALPN = "istio";
        /// ALPN of HTTP/1.0 in mutual TLS between proxies.
        ISTIO_HTTP10_ALPN = "istio-http/1.0";
        /// ALPN of HTTP/1.1 in mutual TLS between proxies.
        ISTIO_HTTP11_ALPN = "istio-http/1.1";
        /// ALPN of HTTP/2 in mutual TLS between proxies.
        ISTIO_H2_ALPN = "istio-h2";
        /// ALPN of TCP with metadata exchange in mutual TLS between proxies.
        ISTIO_PEER_EXCHANGE_ALPN = "istio-peer-exchange";
    }
}

#[cfg(test)]
mod tests {
    use super::{ALL, NameKind};
    use std::collections::BTreeSet;

    #[test]
    fn every_name_is_declared_once_and_documented() {
        let mut seen = BTreeSet::new();
        for row in ALL {
            // Two constants may be spelt alike: `mesh` is a gateway and a key.
            let fresh = seen.insert((row.kind, row.value)) || row.kind == NameKind::Constant;
            assert!(fresh, "{} twice", row.value);
            assert!(row.doc.ends_with('.'), "{}: {}", row.value, row.doc);
        }
    }

    #[test]
    fn headers_are_in_lower_case() {
        for row in ALL.iter().filter(|row| row.kind == NameKind::Header) {
            assert_eq!(row.value, row.value.to_ascii_lowercase());
        }
    }
}
