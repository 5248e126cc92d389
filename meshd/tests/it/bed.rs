//! A control plane with a folder, and proxies that keep what they are sent.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use mesh_api::identity::SpiffeId;
use mesh_api::text::Str;
use mesh_api_rt::drain::Drained;
use mesh_api_rt::listen::ListenerTable;
use mesh_api_xds::ads::client::{ClientAction, ClientOptions, ClientSession, Interest, Update};
use mesh_api_xds::ads::{Protocol, Rejection, Request as AdsRequest, Response as AdsResponse};
use mesh_api_xds::discovery::{DeltaDiscoveryRequest, DeltaDiscoveryResponse};
use mesh_api_xds::grpc::AggregatedDiscoveryClient;
use mesh_api_xds::ir::endpoint::Locality;
use mesh_api_xds::node::{NodeInfo, NodeMetadata, ProxyKind};
use mesh_api_xds::type_url::TypeUrl;
use mesh_ca::client::Credential;
use meshd::app::App;
use meshd::config::Config;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::codegen::Service;
use tonic::{Status, Streaming};

/// Longer than anything here takes; only a test that fails waits for it.
const PATIENCE: Duration = Duration::from_secs(20);

/// Waits for an event, with patience.
pub(crate) async fn soon<T>(what: &str, event: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, event).await {
        Ok(value) => value,
        Err(_) => panic!("{what} did not happen"),
    }
}

/// Folders of a control plane; they outlive it, for restarts.
pub(crate) struct Bed {
    root: tempfile::TempDir,
}

impl Bed {
    pub(crate) fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("config")).unwrap();
        Self { root }
    }

    /// A bed with a service of two endpoints, and a client of it.
    pub(crate) fn with_shop() -> Self {
        let bed = Self::new();
        bed.write("reviews.yaml", &service("reviews", "10.0.1.1"));
        bed.write("web.yaml", &service("web", "10.0.0.1"));
        bed
    }

    pub(crate) fn state(&self) -> PathBuf {
        self.root.path().join("state")
    }

    pub(crate) fn folder(&self) -> PathBuf {
        self.root.path().join("config")
    }

    pub(crate) fn config(&self) -> Config {
        Config::on_loopback(self.folder(), self.state())
    }

    /// Puts a file in its place as a whole, as editors do.
    pub(crate) fn write(&self, name: &str, text: &str) {
        let beside = self.root.path().join("beside");
        std::fs::write(&beside, text).unwrap();
        std::fs::rename(beside, self.root.path().join("config").join(name)).unwrap();
    }

    pub(crate) fn remove(&self, name: &str) {
        std::fs::remove_file(self.root.path().join("config").join(name)).unwrap();
    }

    pub(crate) async fn start(&self) -> App {
        soon("the start", App::start(self.config(), &mut ListenerTable::new(), None)).await.unwrap()
    }
}

/// Stops a control plane and checks that nothing lingered.
pub(crate) async fn stop(app: App) {
    assert_eq!(soon("the stop", app.stop(PATIENCE)).await, Drained::Gracefully);
}

/// A service with one endpoint.
pub(crate) fn service(name: &str, address: &str) -> String {
    format!(
        "apiVersion: v1
kind: Service
metadata: {{name: {name}, namespace: shop}}
spec:
  selector: {{app: {name}}}
  clusterIP: 10.96.0.{last}
  ports: [{{name: http, port: 80, targetPort: 8080}}]
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: {name}-1, namespace: shop, labels: {{kubernetes.io/service-name: {name}}}}}
addressType: IPv4
ports: [{{name: http, port: 8080}}]
endpoints: [{{addresses: [{address}]}}]
",
        last = name.len()
    )
}

/// A VirtualService that sends all of a host's requests somewhere.
pub(crate) fn route(host: &str, timeout: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: {host}, namespace: shop}}
spec:
  hosts: [{host}]
  http: [{{timeout: {timeout}, route: [{{destination: {{host: {host}}}}}]}}]
"
    )
}

/// One page of the monitoring port: status and body.
pub(crate) async fn get(address: SocketAddr, path: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: meshd\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    soon("the answer", stream.read_to_string(&mut answer)).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

/// A page as JSON.
pub(crate) async fn get_json(address: SocketAddr, path: &str) -> serde_json::Value {
    let (status, body) = get(address, path).await;
    assert_eq!(status, 200, "{path}: {body}");
    serde_json::from_str(&body).unwrap()
}

/// How a client connects.
#[derive(Clone, Debug)]
pub(crate) enum Link {
    /// Without TLS.
    Plain(SocketAddr),
    /// With TLS, trusting these roots, with a certificate or without.
    Tls { address: SocketAddr, roots: Box<mesh_ca::bundle::TrustBundle>, credential: Option<Box<Credential>> },
}

/// A channel over one connection, as tonic's clients take it.
#[derive(Clone)]
pub(crate) struct Channel(http2::SendRequest<tonic::body::Body>);

impl Service<http::Request<tonic::body::Body>> for Channel {
    type Response = http::Response<hyper::body::Incoming>;
    type Error = hyper::Error;
    type Future = std::pin::Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut std::task::Context<'_>) -> std::task::Poll<Result<(), Self::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: http::Request<tonic::body::Body>) -> Self::Future {
        Box::pin(self.0.send_request(request))
    }
}

impl Link {
    /// Connects; an error when the handshake is refused.
    pub(crate) async fn connect(&self) -> std::io::Result<Channel> {
        match self {
            Self::Plain(address) => channel(TcpStream::connect(address).await?).await,
            Self::Tls { address, roots, credential } => {
                let mut store = rustls::RootCertStore::empty();
                for root in roots.ders() {
                    store.add(root.clone()).unwrap();
                }
                let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
                let builder = rustls::ClientConfig::builder_with_provider(provider)
                    .with_safe_default_protocol_versions()
                    .unwrap()
                    .with_root_certificates(store);
                let mut config = match credential {
                    None => builder.with_no_client_auth(),
                    Some(own) => {
                        let key = PrivatePkcs8KeyDer::from(own.key().pkcs8_der().to_vec());
                        builder.with_client_auth_cert(own.chain(), PrivateKeyDer::Pkcs8(key)).unwrap()
                    }
                };
                config.alpn_protocols = vec![b"h2".to_vec()];
                let stream = TcpStream::connect(address).await?;
                let name = ServerName::try_from("istiod.istio-system.svc").unwrap();
                channel(tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, stream).await?).await
            }
        }
    }
}

async fn channel(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) -> std::io::Result<Channel> {
    let handshake = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await;
    let (sender, connection) = handshake.map_err(std::io::Error::other)?;
    tokio::spawn(connection);
    Ok(Channel(sender))
}

/// The node of a sidecar of ours.
pub(crate) fn node(name: &str, namespace: &str, address: [u8; 4]) -> NodeInfo {
    NodeInfo {
        kind: ProxyKind::Sidecar,
        address: address.into(),
        name: Str::from(name),
        namespace: Str::from(namespace),
        dns_domain: Str::from(format!("{namespace}.svc.cluster.local")),
        service_cluster: Str::from(format!("{name}.{namespace}")),
        locality: Locality::default(),
        takes_marks: true,
        metadata: NodeMetadata::default(),
    }
}

/// A proxy: keeps its session, and what it holds, over connections.
pub(crate) struct Proxy {
    session: ClientSession,
    stream: Option<(mpsc::Sender<DeltaDiscoveryRequest>, Streaming<DeltaDiscoveryResponse>)>,
    /// Everything accepted, by type and name.
    pub(crate) held: BTreeMap<(TypeUrl, Str), Bytes>,
    /// The generation committed last.
    pub(crate) generation: u64,
    staged: Vec<Update>,
    /// Resources of this name are refused.
    pub(crate) refuses: Option<Str>,
}

/// What a proxy was sent until a mark.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Commit {
    /// Names that came, by type.
    pub(crate) upserts: Vec<(TypeUrl, Str)>,
    /// Names that went.
    pub(crate) removals: Vec<(TypeUrl, Str)>,
    /// Ids of changes.
    pub(crate) changes: Vec<Str>,
}

impl Proxy {
    /// A sidecar that wants everything.
    pub(crate) fn new(node: &NodeInfo) -> Self {
        let mut session = ClientSession::new(ClientOptions {
            protocol: Protocol::Delta,
            node: node.encode().unwrap(),
            demand_timeout: PATIENCE,
            max_demands: 100,
        });
        for type_url in TypeUrl::ALL {
            session.subscribe(type_url, Interest::All);
        }
        Self { session, stream: None, held: BTreeMap::new(), generation: 0, staged: Vec::new(), refuses: None }
    }

    /// Opens a stream over a link, with a token or without.
    pub(crate) async fn connect(&mut self, link: &Link, token: Option<&str>) -> Result<(), Status> {
        let channel = link.connect().await.map_err(|error| Status::unavailable(error.to_string()))?;
        let (send, requests) = mpsc::channel(64);
        let mut request = tonic::Request::new(ReceiverStream::new(requests));
        if let Some(token) = token {
            request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
        }
        let mut client = AggregatedDiscoveryClient::with_origin(channel, http::Uri::from_static("http://meshd"));
        for action in self.session.on_connected() {
            if let ClientAction::Send(AdsRequest::Delta(request)) = action {
                send.send(request).await.unwrap();
            }
        }
        let responses = soon("the stream", client.delta(request)).await?.into_inner();
        self.stream = Some((send, responses));
        Ok(())
    }

    /// The connection is gone.
    pub(crate) fn disconnect(&mut self) {
        self.stream = None;
        self.session.on_disconnected();
    }

    /// Takes everything up to the next mark, and accepts it.
    pub(crate) async fn commit(&mut self) -> Result<Commit, Status> {
        let mut commit = Commit::default();
        loop {
            let (_, responses) = self.stream.as_mut().unwrap();
            let Some(response) = soon("a response", responses.message()).await? else {
                return Err(Status::unavailable("the stream ended"));
            };
            for action in self.session.on_response(AdsResponse::Delta(response)) {
                match action {
                    ClientAction::Update(update) => self.staged.push(update),
                    ClientAction::Commit { generation, changes } => {
                        self.generation = generation;
                        commit.changes = changes;
                        self.apply(&mut commit).await;
                        return Ok(commit);
                    }
                    other => panic!("{other:?}"),
                }
            }
        }
    }

    async fn apply(&mut self, commit: &mut Commit) {
        let mut answers = Vec::new();
        for update in std::mem::take(&mut self.staged) {
            let type_url = update.type_url;
            let refused: Vec<Rejection> = update
                .upserts
                .iter()
                .filter(|received| self.refuses.as_ref() == Some(&received.name))
                .map(|received| Rejection {
                    name: received.name.clone(),
                    path: Str::empty(),
                    reason: Str::from("not today"),
                })
                .collect();
            for received in update.upserts {
                commit.upserts.push((type_url, received.name.clone()));
                self.held.insert((type_url, received.name), received.bytes);
            }
            for name in update.removals {
                self.held.remove(&(type_url, name.clone()));
                commit.removals.push((type_url, name));
            }
            answers.extend(if refused.is_empty() {
                self.session.ack(type_url)
            } else {
                self.session.nack(type_url, "a resource was refused", &refused)
            });
        }
        answers.extend(self.session.ack(TypeUrl::Generation));
        let (send, _) = self.stream.as_ref().unwrap();
        for answer in answers {
            if let ClientAction::Send(AdsRequest::Delta(request)) = answer {
                send.send(request).await.unwrap();
            }
        }
    }

    /// Names held of a type.
    pub(crate) fn names(&self, type_url: TypeUrl) -> Vec<&str> {
        let of_type = self.held.keys().filter(|(held, _)| *held == type_url);
        of_type.map(|(_, name)| name.as_str()).collect()
    }
}

/// An identity of the mesh.
pub(crate) fn identity(namespace: &str, account: &str) -> SpiffeId {
    SpiffeId::parse(&format!("spiffe://cluster.local/ns/{namespace}/sa/{account}")).unwrap()
}
