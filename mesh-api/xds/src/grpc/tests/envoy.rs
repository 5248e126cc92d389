//! A real Envoy against our sessions: it takes what they send, in their order, and what it says back is understood.

use std::path::Path;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;
use tonic::codegen::tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};

use super::*;
use crate::ads::server::Nack;
use crate::codec::bootstrap::Bootstrap;
use crate::codec::encode;
use crate::ir::Resource;
use crate::ir::endpoint::{
    Address, Endpoint, EndpointSet, EndpointTls, Health, Locality, LocalityEndpoints, WorkloadRef,
};
use crate::ir::http::RouteSource;
use crate::ir::route::{
    Action, Destination, Forward, HeaderEdits, PathMatch, PathRewrite, Route, RouteConfig, RouteHosts, RouteMatch,
    VirtualHost,
};
use crate::node::{NodeInfo, NodeMetadata, ProxyKind};
use crate::testing::samples;

/// Long enough for Envoy on a busy machine; a test that waits so long has failed.
const PATIENCE: Duration = Duration::from_secs(30);

/// What a stream reports.
#[derive(Debug)]
enum Report {
    /// Names of the resources in a message, by short type.
    Sent(&'static str, usize),
    Applied(u64, Vec<TypeUrl>),
    Nacked(TypeUrl, Nack),
}

/// Serves the newest set on each stream. A stream ends when `streams` changes.
struct Served {
    set: watch::Receiver<Arc<ResourceSet>>,
    streams: watch::Receiver<u32>,
    reports: mpsc::Sender<Report>,
}

impl Served {
    fn open<In: Send + 'static>(
        &self,
        protocol: Protocol,
        mut requests: Streaming<In>,
        wrap: fn(In) -> AdsRequest,
    ) -> mpsc::Receiver<AdsResponse> {
        let (send, receive) = mpsc::channel(64);
        let (mut set, mut streams, reports) = (self.set.clone(), self.streams.clone(), self.reports.clone());
        streams.mark_unchanged();
        tokio::spawn(async move {
            let first = Arc::clone(&set.borrow_and_update());
            let mut session = ServerSession::new(ServerOptions { protocol, marks: false }, first);
            loop {
                let actions = tokio::select! {
                    request = requests.message() => match request {
                        Ok(Some(request)) => session.on_request(wrap(request)),
                        Ok(None) | Err(_) => return,
                    },
                    Ok(()) = set.changed() => {
                        let next = Arc::clone(&set.borrow_and_update());
                        session.on_resources(next)
                    }
                    _ = streams.changed() => return,
                };
                for action in actions {
                    let report = match action {
                        ServerAction::Send(response) => {
                            let type_url = TypeUrl::parse(response.type_url()).unwrap().short();
                            let count = match &response {
                                AdsResponse::Delta(delta) => delta.resources.len() + delta.removed_resources.len(),
                                AdsResponse::Sotw(sotw) => sotw.resources.len(),
                            };
                            send.send(response).await.unwrap();
                            Report::Sent(type_url, count)
                        }
                        ServerAction::Applied { generation, rejected, .. } => Report::Applied(generation, rejected),
                        ServerAction::Nacked { type_url, nack } => Report::Nacked(type_url, nack),
                        ServerAction::Acked { .. } => continue,
                        ServerAction::Close(reason) => panic!("{reason}"),
                    };
                    reports.send(report).await.unwrap();
                }
            }
        });
        receive
    }
}

#[async_trait]
impl AggregatedDiscovery for Served {
    async fn sotw(
        &self,
        requests: Request<Streaming<DiscoveryRequest>>,
    ) -> Result<Response<BoxStream<DiscoveryResponse>>, Status> {
        let answers = self.open(Protocol::Sotw, requests.into_inner(), AdsRequest::Sotw);
        let answers = ReceiverStream::new(answers).filter_map(|answer| match answer {
            AdsResponse::Sotw(answer) => Some(Ok(answer)),
            AdsResponse::Delta(_) => None,
        });
        Ok(Response::new(Box::pin(answers)))
    }

    async fn delta(
        &self,
        requests: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Response<BoxStream<DeltaDiscoveryResponse>>, Status> {
        let answers = self.open(Protocol::Delta, requests.into_inner(), AdsRequest::Delta);
        let answers = ReceiverStream::new(answers).filter_map(|answer| match answer {
            AdsResponse::Delta(answer) => Some(Ok(answer)),
            AdsResponse::Sotw(_) => None,
        });
        Ok(Response::new(Box::pin(answers)))
    }
}

/// Resources for one service; `path` is what its route matches, `connect` a setting of the cluster.
fn mk_set(generation: u64, upstream: std::net::SocketAddr, path: PathMatch, connect: Duration) -> Arc<ResourceSet> {
    let cluster = crate::ir::cluster::Cluster { connect_timeout: connect, ..samples::cluster("service") };
    let endpoint = Endpoint {
        address: Address::Socket(upstream),
        weight: 1,
        health: Health::Healthy,
        tls: EndpointTls::Disabled,
        workload: WorkloadRef::default(),
    };
    let group =
        LocalityEndpoints { locality: Locality::default(), priority: 0, weight: 0, endpoints: [endpoint].into() };
    let endpoints = EndpointSet { cluster: "service".into(), localities: [group].into() };
    let forward = Forward {
        to: Destination::Cluster("service".into()),
        timeout: None,
        max_grpc_timeout: None,
        retry: None,
        rewrite: PathRewrite::Keep,
        host_rewrite: None,
        mirrors: Arc::default(),
    };
    let route = Route {
        name: "default".into(),
        matches: RouteMatch { path, case_sensitive: true, headers: Arc::default(), query: Arc::default() },
        action: Action::Forward(forward),
        headers: HeaderEdits::default(),
        filters: Arc::default(),
        origin: crate::ir::Origin::default(),
    };
    let host = VirtualHost {
        name: "all".into(),
        domains: ["*".into()].into(),
        routes: [route].into(),
        require_tls: false,
        attempt_count: false,
    };
    let hosts = RouteHosts::Inline([Arc::new(host)].into());
    let routes = RouteConfig { name: "routes".into(), hosts, ignore_port: true };
    let listener = samples::listener("listener", RouteSource::Named("routes".into()));
    let mut set = ResourceSet::new(generation, []);
    for resource in [
        Resource::Cluster(cluster),
        Resource::Endpoints(endpoints),
        Resource::Listener(listener),
        Resource::Routes(routes),
    ] {
        let encoded = Arc::new(encode(&resource).unwrap());
        set = set.with(crate::codec::type_of(&resource), TypeSet::new([encoded]));
    }
    Arc::new(set)
}

/// Waits for a report; returns the messages sent before it.
async fn until<T>(
    reports: &mut mpsc::Receiver<Report>,
    mut wanted: impl FnMut(&Report) -> Option<T>,
) -> (T, Vec<String>) {
    let mut sent = Vec::new();
    loop {
        let report =
            timeout(PATIENCE, reports.recv()).await.unwrap_or_else(|_| panic!("silence after {sent:?}")).unwrap();
        if let Some(found) = wanted(&report) {
            return (found, sent);
        }
        if let Report::Sent(type_url, count) = report {
            sent.push(format!("{type_url} {count}"));
        }
    }
}

fn applied(generation: u64) -> impl FnMut(&Report) -> Option<Vec<TypeUrl>> {
    move |report| match report {
        Report::Applied(found, rejected) if *found == generation => Some(rejected.clone()),
        _ => None,
    }
}

async fn get(address: &str, path: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    timeout(PATIENCE, stream.read_to_string(&mut answer)).await.unwrap().unwrap();
    answer
}

/// An HTTP server that says "hi" to everyone.
async fn serve_hi() -> std::net::SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut buffer = [0; 4096];
                while stream.read(&mut buffer).await.is_ok_and(|bytes| bytes > 0) {
                    stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi").await.unwrap();
                }
            });
        }
    });
    address
}

async fn admin_address(file: &Path) -> String {
    for _ in 0..600 {
        match std::fs::read_to_string(file) {
            Ok(address) if !address.is_empty() => return address,
            Ok(_) | Err(_) => tokio::time::sleep(PATIENCE / 600).await,
        }
    }
    panic!("Envoy does not start");
}

async fn drive(protocol: Protocol) {
    let upstream = serve_hi().await;
    let all = || PathMatch::Prefix("/".into());
    let (publish, set) = watch::channel(mk_set(1, upstream, all(), Duration::from_secs(1)));
    let (cut, streams) = watch::channel(0);
    let (reports, mut heard) = mpsc::channel(1024);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let xds = listener.local_addr().unwrap();
    let service = AggregatedDiscoveryServer::new(Arc::new(Served { set, streams, reports }));
    tokio::spawn(tonic::transport::Server::builder().serve_with_incoming(service, TcpListenerStream::new(listener)));

    let node = NodeInfo {
        kind: ProxyKind::Router,
        address: [127, 0, 0, 1].into(),
        name: "gateway".into(),
        namespace: "shop".into(),
        dns_domain: "shop.svc.cluster.local".into(),
        service_cluster: "gateway.shop".into(),
        locality: Locality::default(),
        takes_marks: false,
        metadata: NodeMetadata::default(),
    };
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("bootstrap.pb");
    let bootstrap = Bootstrap::new(&node, xds).unwrap().protocol(protocol).dynamic();
    std::fs::write(&file, bootstrap.admin(([127, 0, 0, 1], 0).into()).into_bytes()).unwrap();
    let admin = directory.path().join("admin");
    let envoy = std::env::var_os("MESH_ENVOY").expect("MESH_ENVOY names the binary of an Envoy");
    let _envoy = tokio::process::Command::new(envoy)
        .args(["--concurrency", "1", "--disable-hot-restart", "-l", "error", "--admin-address-path"])
        .arg(&admin)
        .arg("-c")
        .arg(&file)
        .kill_on_drop(true)
        .spawn()
        .unwrap();

    let (rejected, sent) = until(&mut heard, applied(1)).await;
    assert_eq!(rejected, []);
    assert_eq!(sent, ["CDS 1", "EDS 1", "LDS 1", "RDS 1"]);
    let admin = admin_address(&admin).await;
    let mut listeners = String::new();
    while !listeners.contains("listener::") {
        listeners = get(&admin, "/listeners").await;
    }
    let address = listeners.lines().find_map(|line| line.strip_prefix("listener::")).unwrap().to_owned();
    assert!(get(&address, "/").await.ends_with("hi"));

    // A changed cluster is warmed with its endpoints, which it gets again.
    publish.send(mk_set(2, upstream, all(), Duration::from_secs(2))).unwrap();
    let (rejected, sent) = until(&mut heard, applied(2)).await;
    assert_eq!((rejected, sent), (vec![], vec!["CDS 1".to_owned(), "EDS 1".to_owned()]));
    assert!(get(&address, "/").await.ends_with("hi"));
    let clusters = get(&admin, "/config_dump?mask=dynamic_warming_clusters").await;
    assert!(!clusters.contains("\"name\": \"service\""), "still warming: {clusters}");

    // A route that Envoy refuses: it says so and keeps the last good one.
    publish.send(mk_set(3, upstream, PathMatch::Regex("/(".into()), Duration::from_secs(2))).unwrap();
    let nacked = |report: &Report| match report {
        Report::Nacked(type_url, nack) => Some((*type_url, nack.clone())),
        Report::Sent(..) | Report::Applied(..) => None,
    };
    let ((type_url, nack), _) = until(&mut heard, nacked).await;
    assert_eq!((type_url, nack.generation), (TypeUrl::RouteConfiguration, 3));
    assert!(nack.reason.contains("missing )"), "{nack:?}");
    assert_eq!(until(&mut heard, applied(3)).await.0, [TypeUrl::RouteConfiguration]);
    assert!(get(&address, "/").await.ends_with("hi"));
    publish.send(mk_set(4, upstream, PathMatch::Exact("/only".into()), Duration::from_secs(2))).unwrap();
    assert_eq!(until(&mut heard, applied(4)).await, (vec![], vec!["RDS 1".to_owned()]));
    assert!(get(&address, "/only").await.ends_with("hi"));
    assert!(get(&address, "/").await.starts_with("HTTP/1.1 404"));

    // The stream breaks; Envoy comes back with what it holds and is sent nothing.
    cut.send(1).unwrap();
    let (rejected, sent) = until(&mut heard, applied(4)).await;
    assert_eq!((rejected, sent), (vec![], Vec::<String>::new()));
    assert!(get(&address, "/only").await.ends_with("hi"));
}

#[tokio::test]
#[ignore = "needs a real Envoy: cargo xtask ci interop"]
async fn interop_envoy_is_driven_incrementally() {
    drive(Protocol::Delta).await;
}

#[tokio::test]
#[ignore = "needs a real Envoy: cargo xtask ci interop"]
async fn interop_envoy_is_driven_by_whole_states() {
    drive(Protocol::Sotw).await;
}
