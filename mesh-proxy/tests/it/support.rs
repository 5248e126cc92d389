//! A proxy in this process, its configuration, and small upstreams.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use mesh_api::text::Str;
use mesh_api_rt::listen::ListenerTable;
use mesh_api_rt::metrics::{Format, Metrics};
use mesh_api_xds::ir::chain::{Chain, ChainMatch, Serve, TcpProxy, WeightedTcp};
use mesh_api_xds::ir::cluster::{
    Balance, Cluster, Discovery, Limits, ServiceRef, Transport, UpstreamHttp, UpstreamProtocol,
};
use mesh_api_xds::ir::endpoint::{
    Address, Endpoint, EndpointSet, EndpointTls, Health, Locality, LocalityEndpoints, WorkloadRef,
};
use mesh_api_xds::ir::http::{
    Codec, Edge, EscapedSlashes, ForwardClientCert, HttpConnection, HttpLimits, PathPolicy, RouteSource, ServerHeader,
};
use mesh_api_xds::ir::listener::{Binding, Direction, Inspect, Listener, OriginalDst};
use mesh_api_xds::ir::route::{
    Action, Destination, Forward, HeaderEdits, PathMatch, PathRewrite, Route, RouteConfig, RouteHosts, RouteMatch,
    VirtualHost,
};
use mesh_api_xds::ir::{Origin, Resource};
use mesh_api_xds::node::{NodeInfo, NodeMetadata, ProxyKind};
use mesh_proxy::config::store::Store;
use mesh_proxy::listeners;
use mesh_proxy::net::accept::Dispatcher;
use mesh_proxy::telemetry::access_log::Sinks;
use mesh_proxy::telemetry::{Hub, Telemetry};
use mesh_proxy::tls::store::TlsStore;
use mesh_proxy::worker::{self, DrainPhase, LocalMetadata, Shared};
use mesh_proxy_core::plan::{Delta, Plan};
use mesh_proxy_core::stats::Workload;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::watch;

/// A proxy with one worker.
pub(crate) struct Proxy {
    pub(crate) shared: Arc<Shared>,
    pub(crate) address: SocketAddr,
    hub: Hub,
    thread: Option<thread::JoinHandle<()>>,
}

impl Proxy {
    /// Starts a proxy whose one listener serves `resources`; names in them are `listener` and `upstream`.
    pub(crate) fn start(make: impl FnOnce(SocketAddr) -> Vec<Resource>) -> Self {
        Self::start_with(make, || {})
    }

    /// As [`Self::start`]; the worker's thread runs `first` before anything else.
    pub(crate) fn start_with(
        make: impl FnOnce(SocketAddr) -> Vec<Resource>,
        first: impl FnOnce() + Send + 'static,
    ) -> Self {
        Self::start_at(|address| (make(address), Vec::new()), first)
    }

    /// A proxy without configuration, whose listener is open already.
    pub(crate) fn start_early() -> Self {
        Self::start_at(|address| (Vec::new(), vec![(Str::from("listener"), address)]), || {})
    }

    fn start_at(
        make: impl FnOnce(SocketAddr) -> (Vec<Resource>, Vec<(Str, SocketAddr)>),
        first: impl FnOnce() + Send + 'static,
    ) -> Self {
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        let (resources, early) = make(address);
        let shared = Arc::new(Shared {
            store: Store::default(),
            tls: TlsStore::default(),
            socket_mark: None,
            client_mark: None,
            identity: Str::from("spiffe://cluster.local/ns/default/sa/test"),
            metadata: Arc::new(LocalMetadata::new("test", workload())),
            drain: watch::Sender::new(DrainPhase::Running),
            inbound: Arc::default(),
            early,
        });
        let hub = hub();
        let mut proxy = Self { shared: Arc::clone(&shared), address, hub: hub.clone(), thread: None };
        if !resources.is_empty() {
            proxy.apply(resources);
        }
        let (dispatcher, mut inboxes) = Dispatcher::new(1);
        let table = listeners::shared(ListenerTable::seeded([(address, socket)]));
        let inbox = inboxes.remove(0);
        let thread = thread::spawn(move || {
            first();
            worker::run(0, &shared, hub.worker(), inbox, Some((table, dispatcher))).unwrap();
        });
        proxy.thread = Some(thread);
        proxy
    }

    /// Changes the configuration.
    pub(crate) fn apply(&self, upserts: Vec<Resource>) {
        let before = self.shared.store.live();
        let (plan, rejected) = Plan::next(&before.plan, &Delta { upserts, ..Delta::default() });
        assert_eq!(rejected, [], "configuration is good");
        self.shared.store.publish(Arc::new(plan), true);
    }

    /// The page of metrics.
    pub(crate) fn metrics(&self) -> String {
        let mut metrics = Metrics::new();
        self.hub.register(&mut metrics).unwrap();
        metrics.encode(Format::Prometheus).unwrap()
    }

    /// Value of a metric without labels.
    pub(crate) fn count(&self, name: &str) -> u64 {
        let text = self.metrics();
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        value.map_or(0, |value| value.parse().unwrap())
    }

    /// Waits until a metric has reached a value; the test's own time limit is the bound.
    pub(crate) async fn wait_for_count(&self, name: &str, value: u64) {
        while self.count(name) < value {
            tokio::task::yield_now().await;
        }
    }

    /// A connection to it.
    pub(crate) async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.drain.send_replace(DrainPhase::Now);
        if let Some(thread) = self.thread.take() {
            let ended = thread.join();
            assert!(thread::panicking() || ended.is_ok(), "the worker panicked");
        }
    }
}

fn hub() -> Hub {
    Hub::new(&node(), Str::from("spiffe://cluster.local/ns/default/sa/test"), Sinks::start().unwrap())
}

/// Telemetry of a worker that nobody scrapes.
pub(crate) fn telemetry() -> Telemetry {
    hub().worker()
}

fn node() -> NodeInfo {
    NodeInfo {
        kind: ProxyKind::Sidecar,
        address: [127, 0, 0, 1].into(),
        name: Str::from("test"),
        namespace: Str::from("default"),
        dns_domain: Str::from("default.svc.cluster.local"),
        service_cluster: Str::from("test.default"),
        locality: Locality::default(),
        takes_marks: true,
        metadata: NodeMetadata::default(),
    }
}

/// A listener at `address` whose HTTP chain has these routes.
pub(crate) fn mk_listener(address: SocketAddr, routes: Vec<Route>) -> Resource {
    let host = VirtualHost {
        name: Str::from("all"),
        domains: [Str::from("*")].into(),
        routes: routes.into(),
        require_tls: false,
        attempt_count: true,
    };
    let http = HttpConnection {
        stat_prefix: Str::from("test"),
        codec: Codec::Auto,
        routes: RouteSource::Inline(Arc::new(RouteConfig {
            name: Str::from("routes"),
            hosts: RouteHosts::Inline([Arc::new(host)].into()),
            ignore_port: true,
        })),
        filters: [mesh_api_xds::ir::filter::HttpFilter::Fault].into(),
        upgrades: [Str::from("websocket")].into(),
        server_header: ServerHeader::PassThrough,
        edge: Edge::Internal,
        client_cert: ForwardClientCert::Sanitize,
        path: PathPolicy { normalize: true, merge_slashes: false, escaped_slashes: EscapedSlashes::Keep },
        limits: HttpLimits::default(),
        request_id: true,
        http10: false,
        tracing: None,
        access_logs: Arc::default(),
    };
    let chain = Chain {
        name: Str::from("http"),
        matches: ChainMatch::default(),
        tls: None,
        authz: Arc::default(),
        serve: Serve::Http(Arc::new(http)),
    };
    Resource::Listener(Listener {
        name: Str::from("listener"),
        address,
        additional_addresses: Arc::default(),
        binding: Binding::Socket,
        original_dst: OriginalDst::Ignore,
        direction: Direction::Outbound,
        inspect: Inspect { tls: false, http: true, ..Inspect::default() },
        chains: [Arc::new(chain)].into(),
        default_chain: None,
    })
}

/// Edits the chain of a listener and its HTTP settings.
pub(crate) fn edit_chain(listener: &mut Resource, edit: impl FnOnce(&mut Chain, &mut HttpConnection)) {
    let Resource::Listener(listener) = listener else { panic!("a listener") };
    let mut chain = Chain::clone(&listener.chains[0]);
    let Serve::Http(http) = &chain.serve else { panic!("an HTTP chain") };
    let mut http = HttpConnection::clone(http);
    edit(&mut chain, &mut http);
    chain.serve = Serve::Http(Arc::new(http));
    listener.chains = [Arc::new(chain)].into();
}

/// What the proxies tell of themselves.
fn workload() -> Workload {
    Workload { name: Str::from("tester"), namespace: Str::from("default"), ..Workload::default() }
}

/// A chain that tunnels to the cluster `upstream`.
pub(crate) fn mk_tunnel() -> Serve {
    let clusters = [WeightedTcp { cluster: Str::from("upstream"), weight: 1 }].into();
    Serve::Tcp(Arc::new(TcpProxy {
        stat_prefix: Str::empty(),
        clusters,
        idle_timeout: None,
        access_logs: Arc::default(),
        origin: Origin::default(),
    }))
}

/// A route for a path prefix to the cluster `upstream`.
pub(crate) fn mk_route(prefix: &str, edit: impl FnOnce(&mut Forward)) -> Route {
    let mut forward = Forward {
        to: Destination::Cluster(Str::from("upstream")),
        timeout: None,
        max_grpc_timeout: None,
        retry: None,
        rewrite: PathRewrite::Keep,
        host_rewrite: None,
        mirrors: Arc::default(),
    };
    edit(&mut forward);
    Route {
        name: Str::from(prefix),
        matches: RouteMatch {
            path: PathMatch::Prefix(Str::from(prefix)),
            case_sensitive: true,
            headers: Arc::default(),
            query: Arc::default(),
        },
        action: Action::Forward(forward),
        headers: HeaderEdits::default(),
        filters: Arc::default(),
        origin: mesh_api_xds::ir::Origin::default(),
    }
}

/// The cluster `upstream` with these endpoints.
pub(crate) fn mk_cluster(endpoints: &[SocketAddr]) -> Resource {
    let endpoints = endpoints.iter().map(|address| Endpoint {
        address: Address::Socket(*address),
        weight: 1,
        health: Health::Healthy,
        tls: EndpointTls::Disabled,
        workload: WorkloadRef::default(),
    });
    let set = EndpointSet {
        cluster: Str::from("upstream"),
        localities: [LocalityEndpoints {
            locality: Locality::default(),
            priority: 0,
            weight: 0,
            endpoints: endpoints.collect(),
        }]
        .into(),
    };
    Resource::Cluster(Cluster {
        name: Str::from("upstream"),
        discovery: Discovery::Static(Arc::new(set)),
        connect_timeout: Duration::from_secs(10),
        balance: Balance::RoundRobin,
        panic_percent: 0,
        outlier: None,
        limits: Limits::UNLIMITED,
        protocol: UpstreamProtocol::Http1,
        http: UpstreamHttp::default(),
        transport: Transport::Plaintext,
        keepalive: None,
        source_address: None,
        service: ServiceRef::default(),
        origin: mesh_api_xds::ir::Origin::default(),
    })
}

/// Reads one HTTP/1.1 message with `content-length` or no body: head and body.
pub(crate) async fn read_message(stream: &mut TcpStream) -> (String, Vec<u8>) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.expect("a whole head"));
    }
    let head = String::from_utf8(head).unwrap();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    let mut body = vec![0; length.map_or(0, |length| length.parse().unwrap())];
    stream.read_exact(&mut body).await.unwrap();
    (head, body)
}

/// An upstream that answers each request by `answer`, which gets its head and body and gives the raw response.
pub(crate) async fn upstream<F>(answer: F) -> SocketAddr
where
    F: Fn(&str, &[u8]) -> String + Clone + Send + 'static,
{
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let Ok((mut stream, _)) = listener.accept().await else { return };
            let answer = answer.clone();
            tokio::spawn(async move {
                while stream.readable().await.is_ok() {
                    let mut probe = [0];
                    if !matches!(stream.peek(&mut probe).await, Ok(count) if count > 0) {
                        return;
                    }
                    let (head, body) = read_message(&mut stream).await;
                    stream.write_all(answer(&head, &body).as_bytes()).await.unwrap();
                }
            });
        }
    });
    address
}

/// A response with this body.
pub(crate) fn ok(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}
