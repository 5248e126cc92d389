//! Configuration and a node for tests of telemetry and of the administrative interface.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use mesh_api::text::Str;
use mesh_api_xds::ir::Origin;
use mesh_api_xds::ir::chain::{Chain, ChainMatch, Serve};
use mesh_api_xds::ir::cluster::{
    Balance, Cluster, Discovery, Limits, ServiceRef, Transport, UpstreamHttp, UpstreamProtocol,
};
use mesh_api_xds::ir::endpoint::Locality;
use mesh_api_xds::ir::http::{
    Codec, Edge, EscapedSlashes, ForwardClientCert, HttpConnection, HttpLimits, PathPolicy, RouteSource, ServerHeader,
};
use mesh_api_xds::ir::listener::{Binding, Direction, Inspect, Listener, OriginalDst};
use mesh_api_xds::node::{NodeInfo, NodeMetadata, ProxyKind};

/// A sidecar of the workload `reviews-v1` in the namespace `shop`.
pub(crate) fn mk_node() -> NodeInfo {
    let labels = [("app", "reviews"), ("service.istio.io/canonical-name", "reviews"), ("version", "v1")];
    NodeInfo {
        kind: ProxyKind::Sidecar,
        address: [10, 0, 0, 2].into(),
        name: "reviews-1".into(),
        namespace: "shop".into(),
        dns_domain: "shop.svc.cluster.local".into(),
        service_cluster: "reviews.shop".into(),
        locality: Locality::default(),
        takes_marks: true,
        metadata: NodeMetadata {
            name: "reviews-1".into(),
            namespace: "shop".into(),
            workload_name: "reviews-v1".into(),
            cluster_id: "Kubernetes".into(),
            labels: labels.map(|(key, value)| (Str::from(key), Str::from(value))).into(),
            ..NodeMetadata::default()
        },
    }
}

/// A cluster of the service `reviews`, endpoints sent apart.
pub(crate) fn mk_cluster(name: &str) -> Cluster {
    Cluster {
        name: name.into(),
        discovery: Discovery::Eds,
        connect_timeout: Duration::from_secs(10),
        balance: Balance::LeastRequest,
        panic_percent: 0,
        outlier: None,
        limits: Limits::UNLIMITED,
        protocol: UpstreamProtocol::Http1,
        http: UpstreamHttp::default(),
        transport: Transport::Plaintext,
        keepalive: None,
        source_address: None,
        service: ServiceRef {
            host: "reviews.shop.svc.cluster.local".into(),
            name: "reviews".into(),
            namespace: "shop".into(),
        },
        origin: Origin::default(),
    }
}

/// HTTP whose routes are sent apart under this name.
pub(crate) fn mk_http(routes: &str) -> HttpConnection {
    HttpConnection {
        stat_prefix: "test".into(),
        codec: Codec::Auto,
        routes: RouteSource::Named(routes.into()),
        filters: Arc::default(),
        upgrades: Arc::default(),
        server_header: ServerHeader::PassThrough,
        edge: Edge::Internal,
        client_cert: ForwardClientCert::Sanitize,
        path: PathPolicy { normalize: true, merge_slashes: false, escaped_slashes: EscapedSlashes::Keep },
        limits: HttpLimits::default(),
        request_id: true,
        http10: false,
        tracing: None,
        access_logs: Arc::default(),
    }
}

/// A listener with one HTTP chain whose routes are named `9080`.
pub(crate) fn mk_listener(name: &str, address: SocketAddr) -> Listener {
    let chain = Chain {
        name: "http".into(),
        matches: ChainMatch::default(),
        tls: None,
        authz: Arc::default(),
        serve: Serve::Http(Arc::new(mk_http("9080"))),
    };
    Listener {
        name: name.into(),
        address,
        additional_addresses: Arc::default(),
        binding: Binding::HandedOver,
        original_dst: OriginalDst::Ignore,
        direction: Direction::Inbound,
        inspect: Inspect::default(),
        chains: [Arc::new(chain)].into_iter().collect(),
        default_chain: None,
    }
}
