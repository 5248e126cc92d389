//! A panic in the middle of a request: the only place where one can be put is here, so that no shipped build has it.

use std::net::TcpListener as StdListener;
use std::thread;

use mesh_api_rt::listen::ListenerTable;
use mesh_api_rt::metrics::{Format, Metrics};
use mesh_api_xds::ir::Resource;
use mesh_api_xds::ir::chain::{Chain, Serve};
use mesh_api_xds::ir::http::RouteSource;
use mesh_api_xds::ir::listener::Binding;
use mesh_api_xds::ir::route::{RouteConfig, RouteHosts};
use mesh_proxy_core::head::Head;
use mesh_proxy_core::plan::{Delta, Plan};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::*;
use crate::telemetry::Hub;
use crate::telemetry::access_log::Sinks;
use crate::telemetry::testing::{mk_http, mk_listener, mk_node};

/// Path that makes a request panic.
const PANIC: &[u8] = b"/panic-here";

/// Called for each request, in tests only.
pub(crate) fn panic_if_asked(request: &Head) {
    assert!(request.path() != PANIC, "injected");
}

fn mk_shared() -> Arc<Shared> {
    Arc::new(Shared {
        store: Store::default(),
        tls: TlsStore::default(),
        socket_mark: None,
        client_mark: None,
        identity: Str::empty(),
        metadata: Arc::default(),
        drain: watch::Sender::new(DrainPhase::Running),
        inbound: Arc::default(),
        early: Vec::new(),
    })
}

#[test]
fn a_worker_takes_what_its_own_task_has_not_taken_yet_and_nothing_older() {
    let shared = mk_shared();
    let hub = Hub::new(&mk_node(), Str::empty(), Sinks::start().unwrap());
    let worker = Worker::new(0, Arc::clone(&shared), hub.worker());
    let [first, second] = [(); 2].map(|()| shared.store.publish(Arc::new(Plan::empty()), false));
    assert_eq!(worker.live().generation, 0);
    for (live, expect) in [(&first, first.generation), (&second, second.generation), (&first, second.generation)] {
        worker.catch_up(live);
        assert_eq!(worker.live().generation, expect);
    }
}

struct Running {
    shared: Arc<Shared>,
    hub: Hub,
    address: SocketAddr,
    thread: Option<thread::JoinHandle<()>>,
}

impl Running {
    fn start() -> Self {
        let socket = StdListener::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        let shared = mk_shared();
        let mut listener = mk_listener("listener", address);
        listener.binding = Binding::Socket;
        listener.inspect.http = true;
        let mut http = mk_http("");
        let table = RouteConfig { name: "none".into(), hosts: RouteHosts::Inline(Arc::default()), ignore_port: true };
        http.routes = RouteSource::Inline(Arc::new(table));
        let chain = Chain { serve: Serve::Http(Arc::new(http)), ..Chain::clone(&listener.chains[0]) };
        listener.chains = [Arc::new(chain)].into();
        let delta = Delta { upserts: vec![Resource::Listener(listener)], ..Delta::default() };
        shared.store.publish(Arc::new(Plan::next(&Plan::empty(), &delta).0), false);
        let hub = Hub::new(&mk_node(), Str::empty(), Sinks::start().unwrap());
        let (dispatcher, mut inboxes) = Dispatcher::new(1);
        let inbox = inboxes.remove(0);
        let (of_thread, hub_of_thread) = (Arc::clone(&shared), hub.clone());
        let table = listeners::shared(ListenerTable::seeded([(address, socket)]));
        let body = move || run(0, &of_thread, hub_of_thread.worker(), inbox, Some((table, dispatcher))).unwrap();
        Self { shared, hub, address, thread: Some(thread::spawn(body)) }
    }

    /// Waits until that many panics are counted: a connection is closed before its task is wholly unwound.
    async fn has_panicked(&self, times: &str) {
        while self.panics() != times {
            tokio::task::yield_now().await;
        }
    }

    fn panics(&self) -> String {
        let mut metrics = Metrics::new();
        self.hub.register(&mut metrics).unwrap();
        let text = metrics.encode(Format::Prometheus).unwrap();
        text.lines().find_map(|line| line.strip_prefix("mesh_proxy_panics_total ")).unwrap().to_owned()
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.shared.drain.send_replace(DrainPhase::Now);
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

/// There are no routes, so that 404 is how a living proxy answers.
async fn ask(client: &mut TcpStream, path: &[u8]) -> Vec<u8> {
    let request = [b"GET ".as_slice(), path, b" HTTP/1.1\r\nhost: a\r\n\r\n"].concat();
    client.write_all(&request).await.unwrap();
    let mut answer = vec![0; 12];
    match client.read_exact(&mut answer).await {
        Ok(_) => answer,
        Err(_) => Vec::new(),
    }
}

#[tokio::test]
async fn a_panic_ends_its_connection_and_no_other() {
    let running = Running::start();
    let (mut other, mut client) = (running.connect().await, running.connect().await);
    assert_eq!(ask(&mut client, PANIC).await, b"");
    running.has_panicked("1").await;
    assert_eq!(ask(&mut other, b"/").await, b"HTTP/1.1 404");
    assert_eq!(ask(&mut running.connect().await, b"/").await, b"HTTP/1.1 404");
}

#[tokio::test]
async fn a_panic_ends_its_stream_and_leaves_the_http2_connection() {
    let running = Running::start();
    let (mut sender, connection) = h2::client::handshake(running.connect().await).await.unwrap();
    let driver = tokio::spawn(connection);
    let mut ask = async |path: &str| {
        let request = http::Request::get(format!("http://a{path}")).body(()).unwrap();
        sender = sender.clone().ready().await.unwrap();
        let (response, _) = sender.send_request(request, true).unwrap();
        response.await.map(|response| response.status().as_u16())
    };
    assert_eq!(ask("/").await.unwrap(), 404);
    assert!(ask("/panic-here").await.unwrap_err().is_reset());
    assert_eq!(ask("/").await.unwrap(), 404);
    running.has_panicked("1").await;
    driver.abort();
}
