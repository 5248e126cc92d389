//! What the proxy of an application that is gone says to a client's proxy, and whose word counts.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use mesh_api_xds::ir::Origin;
use mesh_api_xds::ir::cluster::UpstreamProtocol;
use mesh_api_xds::ir::route::{RetryOn, RetryPolicy, RetrySafety, Route};
use mesh_ca::testing::TestCa;
use socket2::{Domain, Socket, Type};
use tokio::io::AsyncWriteExt as _;

use crate::support::{Proxy, mk_cluster, mk_listener, mk_route, ok, read_message, upstream};
use crate::tls::{client_of, secured, server};

const PROTOCOLS: [UpstreamProtocol; 2] = [UpstreamProtocol::Http1, UpstreamProtocol::Http2];

/// Where nobody listens, as when an application has ended. The port stays taken, lest another test listen there.
fn nobody() -> SocketAddr {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    let address = socket.local_addr().unwrap().as_socket().unwrap();
    std::mem::forget(socket);
    address
}

/// The mesh's default retries.
fn retried() -> Route {
    let policy = RetryPolicy {
        on: RetryOn::CONNECT_FAILURE.union(RetryOn::REFUSED_STREAM),
        attempts: 2,
        per_try_timeout: None,
        statuses: Arc::default(),
        avoid_previous: true,
        backoff: Duration::from_millis(1),
        safety: RetrySafety::Safe,
        origin: Origin::default(),
    };
    mk_route("/", |forward| forward.retry = Some(Arc::new(policy)))
}

async fn post(proxy: &Proxy) -> (String, String) {
    let mut stream = proxy.connect().await;
    stream.write_all(b"POST / HTTP/1.1\r\nhost: app\r\ncontent-length: 5\r\n\r\nhello").await.unwrap();
    let (head, body) = read_message(&mut stream).await;
    (head, String::from_utf8(body).unwrap())
}

/// An application that takes requests and answers as if it had not.
async fn liar() -> (SocketAddr, Arc<AtomicUsize>) {
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&calls);
    let address = upstream(move |_, _| {
        counted.fetch_add(1, Ordering::SeqCst);
        "HTTP/1.1 503 Unavailable\r\nx-mesh-resend: safe\r\ncontent-length: 0\r\n\r\n".to_owned()
    })
    .await;
    (address, calls)
}

#[tokio::test]
async fn a_request_whose_application_is_gone_finds_the_other_replica() {
    let ca = TestCa::new(SystemTime::now());
    let (web, shop) = (ca.credential("default", "web"), ca.credential("default", "app"));
    let gone = server(&shop, nobody());
    let alive = server(&shop, upstream(|_, body| ok(&String::from_utf8_lossy(body))).await);
    for protocol in PROTOCOLS {
        let servers = [gone.address, alive.address];
        let client = client_of(&web, &servers, &shop.identity.to_string(), protocol, retried());
        for number in 0..10 {
            let (head, body) = post(&client).await;
            assert!(head.starts_with("HTTP/1.1 200 ") && body == "hello", "{protocol:?} {number}: {head}{body}");
            assert!(!head.contains("x-mesh-resend"), "{head}");
        }
    }
}

#[tokio::test]
async fn a_request_waits_a_moment_for_a_replica_that_is_not_known_yet() {
    let ca = TestCa::new(SystemTime::now());
    let (web, shop) = (ca.credential("default", "web"), ca.credential("default", "app"));
    let gone = server(&shop, nobody());
    let alive = server(&shop, upstream(|_, body| ok(&String::from_utf8_lossy(body))).await);
    for protocol in PROTOCOLS {
        let expected = shop.identity.to_string();
        let client = client_of(&web, &[gone.address], &expected, protocol, retried());
        let mut posted = Box::pin(post(&client));
        let still = tokio::time::timeout(Duration::from_millis(300), &mut posted).await;
        assert!(still.is_err(), "{protocol:?}: its retries are long used up: {still:?}");
        client.apply(vec![secured(&[gone.address, alive.address], &expected, protocol)]);
        let (head, body) = posted.await;
        assert!(head.starts_with("HTTP/1.1 200 ") && body == "hello", "{protocol:?}: {head}{body}");
    }
}

#[tokio::test]
async fn without_another_replica_the_client_is_told_what_is_wrong() {
    let ca = TestCa::new(SystemTime::now());
    let (web, shop) = (ca.credential("default", "web"), ca.credential("default", "app"));
    let gone = server(&shop, nobody());
    for (protocol, code) in PROTOCOLS.into_iter().zip(["LTN-3002", "LTN-3010"]) {
        let client = client_of(&web, &[gone.address], &shop.identity.to_string(), protocol, retried());
        let (head, body) = post(&client).await;
        assert!(head.starts_with("HTTP/1.1 503 ") && head.contains(code), "{protocol:?}: {head}{body}");
        assert!(!head.contains("x-mesh-resend"), "{head}");
    }
}

#[tokio::test]
async fn an_application_cannot_say_so() {
    let ca = TestCa::new(SystemTime::now());
    let (web, shop) = (ca.credential("default", "web"), ca.credential("default", "app"));
    let (app, calls) = liar().await;
    let server = server(&shop, app);
    for protocol in PROTOCOLS {
        let client = client_of(&web, &[server.address], &shop.identity.to_string(), protocol, retried());
        calls.store(0, Ordering::SeqCst);
        let (head, _) = post(&client).await;
        assert!(head.starts_with("HTTP/1.1 503 ") && !head.contains("x-mesh-resend"), "{head}");
        assert_eq!(calls.load(Ordering::SeqCst), 1, "{protocol:?}");
    }
}

#[tokio::test]
async fn a_server_without_an_identity_is_not_believed() {
    let (app, calls) = liar().await;
    let client = Proxy::start(|address| vec![mk_listener(address, vec![retried()]), mk_cluster(&[app])]);
    let (head, _) = post(&client).await;
    assert!(head.starts_with("HTTP/1.1 503 ") && !head.contains("x-mesh-resend"), "{head}");
    assert_eq!(calls.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_client_without_an_identity_gets_an_answer() {
    let gone = nobody();
    let server = Proxy::start(|address| {
        let mut listener = mk_listener(address, vec![mk_route("/", |_| {})]);
        if let mesh_api_xds::ir::Resource::Listener(listener) = &mut listener {
            listener.direction = mesh_api_xds::ir::listener::Direction::Inbound;
        }
        vec![listener, mk_cluster(&[gone])]
    });
    let (head, body) = post(&server).await;
    assert!(head.starts_with("HTTP/1.1 503 ") && body.contains("connection failure"), "{head}{body}");
    assert!(!head.contains("x-mesh-resend"), "{head}");
}
