//! Plain resources to start from: everything at its default.

use std::sync::Arc;
use std::time::Duration;

use crate::ir::Origin;
use crate::ir::chain::{Chain, ChainMatch, Serve};
use crate::ir::cluster::{Balance, Cluster, Discovery, Limits, ServiceRef, Transport, UpstreamHttp, UpstreamProtocol};
use crate::ir::http::{
    Codec, Edge, EscapedSlashes, ForwardClientCert, HttpConnection, HttpLimits, PathPolicy, RouteSource, ServerHeader,
};
use crate::ir::listener::{Binding, Direction, Inspect, Listener, OriginalDst};

/// A plaintext HTTP/1.1 cluster whose endpoints are sent apart.
#[must_use]
pub fn cluster(name: &str) -> Cluster {
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
        service: ServiceRef::default(),
        origin: Origin::default(),
    }
}

/// An HTTP connection manager without filters.
#[must_use]
pub fn http(routes: RouteSource) -> HttpConnection {
    HttpConnection {
        stat_prefix: "http".into(),
        codec: Codec::Auto,
        routes,
        filters: Arc::default(),
        upgrades: ["websocket".into()].into(),
        server_header: ServerHeader::Overwrite("envoy".into()),
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

/// A listener on a port of the loopback with one HTTP chain.
#[must_use]
pub fn listener(name: &str, routes: RouteSource) -> Listener {
    let chain = Chain {
        name: "http".into(),
        matches: ChainMatch::default(),
        tls: None,
        authz: Arc::default(),
        serve: Serve::Http(Arc::new(http(routes))),
    };
    Listener {
        name: name.into(),
        address: ([127, 0, 0, 1], 0).into(),
        additional_addresses: Arc::default(),
        binding: Binding::Socket,
        original_dst: OriginalDst::Ignore,
        direction: Direction::Outbound,
        inspect: Inspect::default(),
        chains: [Arc::new(chain)].into(),
        default_chain: None,
    }
}
