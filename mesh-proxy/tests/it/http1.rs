//! HTTP/1.1 from client to upstream.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use mesh_api::text::Str;
use mesh_api_xds::ir::Resource;
use mesh_api_xds::ir::cluster::Discovery;
use mesh_api_xds::ir::route::{RetryOn, RetryPolicy, RetrySafety};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::support::{Proxy, edit_chain, mk_cluster, mk_listener, mk_route, ok, read_message, upstream};

#[tokio::test]
async fn keep_alive_requests_pass_and_share_an_upstream_connection() {
    let upstream = upstream(|head, body| ok(&format!("{}|{}", head.lines().next().unwrap(), body.len()))).await;
    let proxy =
        Proxy::start(|address| vec![mk_listener(address, vec![mk_route("/", |_| {})]), mk_cluster(&[upstream])]);
    let mut client = proxy.connect().await;
    for n in 0..50 {
        let request =
            format!("POST /path/{n}?q HTTP/1.1\r\nhost: shop\r\ncontent-length: {n}\r\n\r\n{}", "x".repeat(n));
        client.write_all(request.as_bytes()).await.unwrap();
        let (head, body) = read_message(&mut client).await;
        assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
        assert_eq!(String::from_utf8(body).unwrap(), format!("POST /path/{n}?q HTTP/1.1|{n}"));
    }
}

#[tokio::test]
async fn a_large_body_passes_both_ways_in_chunks() {
    let upstream = upstream(|head, body| {
        assert!(head.contains("content-length: 300000"), "{head}");
        let text = "~".repeat(body.len());
        format!(
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n{:x}\r\n{text}\r\n0\r\nx-sum: 1\r\n\r\n",
            text.len()
        )
    })
    .await;
    let proxy =
        Proxy::start(|address| vec![mk_listener(address, vec![mk_route("/", |_| {})]), mk_cluster(&[upstream])]);
    let mut client = proxy.connect().await;
    client
        .write_all(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 300000\r\nconnection: close\r\n\r\n")
        .await
        .unwrap();
    for _ in 0..300 {
        client.write_all(&[b'z'; 1000]).await.unwrap();
    }
    let mut all = Vec::new();
    client.read_to_end(&mut all).await.unwrap();
    let text = String::from_utf8(all).unwrap();
    assert!(
        text.contains("transfer-encoding: chunked") && text.ends_with("x-sum: 1\r\n\r\n"),
        "{}",
        &text[text.len() - 60..]
    );
    assert_eq!(text.matches('~').count(), 300_000);
}

#[tokio::test]
async fn no_route_no_endpoint_and_bad_bytes_are_answered() {
    let proxy = Proxy::start(|address| vec![mk_listener(address, vec![mk_route("/only", |_| {})]), mk_cluster(&[])]);
    let check = async |request: &str, status: &str, text: &str| {
        let mut client = proxy.connect().await;
        client.write_all(request.as_bytes()).await.unwrap();
        let (head, body) = read_message(&mut client).await;
        assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{head}");
        assert!(String::from_utf8_lossy(&body).contains(text), "{}", String::from_utf8_lossy(&body));
    };
    check("GET /other HTTP/1.1\r\nhost: a\r\n\r\n", "404", "").await;
    check("GET /only HTTP/1.1\r\nhost: a\r\n\r\n", "503", "no healthy upstream").await;
    check("GET / HTTP/1.1\r\nhost: a\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n", "400", "").await;
}

/// The destination of such a connection is the listener: sent on, it would go round and round until descriptors run out.
#[tokio::test]
async fn a_connection_that_was_not_captured_is_not_sent_to_itself() {
    let proxy = Proxy::start(|address| {
        let mut cluster = mk_cluster(&[]);
        let Resource::Cluster(settings) = &mut cluster else { unreachable!("made a cluster") };
        settings.discovery = Discovery::OriginalDst;
        vec![mk_listener(address, vec![mk_route("/", |_| {})]), cluster]
    });
    let mut client = proxy.connect().await;
    client.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    let (head, body) = read_message(&mut client).await;
    assert!(head.starts_with("HTTP/1.1 503 "), "{head}");
    assert!(String::from_utf8_lossy(&body).contains("no healthy upstream"), "{}", String::from_utf8_lossy(&body));
}

#[tokio::test]
async fn a_failing_upstream_is_retried_and_the_body_sent_again() {
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&calls);
    let upstream = upstream(move |_, body| {
        if counted.fetch_add(1, Ordering::SeqCst) < 2 {
            return "HTTP/1.1 503 Unavailable\r\ncontent-length: 0\r\n\r\n".to_owned();
        }
        ok(&String::from_utf8_lossy(body))
    })
    .await;
    let policy = RetryPolicy {
        on: RetryOn::GATEWAY_ERROR,
        attempts: 2,
        per_try_timeout: None,
        statuses: Arc::default(),
        avoid_previous: true,
        backoff: Duration::from_millis(1),
        safety: RetrySafety::AsConfigured,
        origin: mesh_api_xds::ir::Origin(Str::from("VirtualService/default/a")),
    };
    let route = mk_route("/", |forward| forward.retry = Some(Arc::new(policy)));
    let proxy = Proxy::start(|address| vec![mk_listener(address, vec![route]), mk_cluster(&[upstream])]);
    let mut client = proxy.connect().await;
    client.write_all(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\n\r\nhello").await.unwrap();
    let (head, body) = read_message(&mut client).await;
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    assert_eq!((body.as_slice(), calls.load(Ordering::SeqCst)), (&b"hello"[..], 3));
}

#[tokio::test]
async fn a_request_asks_for_retries_and_times_itself_and_the_upstream_does_not_see_it() {
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&calls);
    let upstream = upstream(move |head, _| {
        if counted.fetch_add(1, Ordering::SeqCst) < 2 {
            return "HTTP/1.1 503 Unavailable\r\ncontent-length: 0\r\n\r\n".to_owned();
        }
        ok(head)
    })
    .await;
    let proxy =
        Proxy::start(|address| vec![mk_listener(address, vec![mk_route("/", |_| {})]), mk_cluster(&[upstream])]);
    let mut client = proxy.connect().await;
    let request = "GET / HTTP/1.1\r\nhost: a\r\nx-envoy-retry-on: gateway-error\r\nx-envoy-max-retries: 2\r\n\
                   x-envoy-upstream-rq-timeout-ms: 60000\r\nx-envoy-upstream-rq-per-try-timeout-ms: 30000\r\n\r\n";
    client.write_all(request.as_bytes()).await.unwrap();
    let (head, body) = read_message(&mut client).await;
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    let seen = String::from_utf8(body).unwrap();
    let envoys: Vec<_> = seen.lines().filter(|line| line.starts_with("x-envoy-")).collect();
    assert_eq!(envoys, ["x-envoy-attempt-count: 3", "x-envoy-expected-rq-timeout-ms: 30000"], "{seen}");
    assert_eq!(calls.load(Ordering::SeqCst), 3);
}

#[tokio::test]
async fn a_slow_upstream_times_out() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let silent = listener.local_addr().unwrap();
    let route = mk_route("/", |forward| forward.timeout = Some(Duration::from_millis(50)));
    let proxy = Proxy::start(|address| vec![mk_listener(address, vec![route]), mk_cluster(&[silent])]);
    let mut client = proxy.connect().await;
    client.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    let (head, body) = read_message(&mut client).await;
    assert!(head.starts_with("HTTP/1.1 504 "), "{head}");
    assert_eq!(String::from_utf8_lossy(&body), "upstream request timeout");
}

#[tokio::test]
async fn an_upgrade_becomes_a_tunnel() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let (head, _) = read_message(&mut stream).await;
        assert!(head.contains("upgrade: websocket"), "{head}");
        stream
            .write_all(b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\nfirst")
            .await
            .unwrap();
        let mut echo = [0; 5];
        stream.read_exact(&mut echo).await.unwrap();
        stream.write_all(&echo).await.unwrap();
    });
    let proxy = Proxy::start(|own| vec![mk_listener(own, vec![mk_route("/", |_| {})]), mk_cluster(&[address])]);
    let mut client = proxy.connect().await;
    client.write_all(b"GET / HTTP/1.1\r\nhost: a\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\r\n").await.unwrap();
    let (head, _) = read_message(&mut client).await;
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    let mut first = [0; 5];
    client.read_exact(&mut first).await.unwrap();
    client.write_all(b"hello").await.unwrap();
    let mut echo = [0; 5];
    client.read_exact(&mut echo).await.unwrap();
    assert_eq!((&first, &echo), (b"first", b"hello"));
}

#[tokio::test]
async fn a_client_that_waits_for_100_continue_gets_it() {
    let upstream = upstream(|_, body| ok(&String::from_utf8_lossy(body))).await;
    let proxy =
        Proxy::start(|address| vec![mk_listener(address, vec![mk_route("/", |_| {})]), mk_cluster(&[upstream])]);
    let mut client = proxy.connect().await;
    client.write_all(b"POST / HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 4\r\n\r\n").await.unwrap();
    let (interim, _) = read_message(&mut client).await;
    assert_eq!(interim, "HTTP/1.1 100 Continue\r\n\r\n");
    client.write_all(b"body").await.unwrap();
    let (head, body) = read_message(&mut client).await;
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    assert_eq!(body, b"body");
}

#[tokio::test]
async fn an_announced_empty_body_stays_announced() {
    let upstream = upstream(|head, _| ok(if head.contains("content-length: 0") { "announced" } else { "lost" })).await;
    let proxy =
        Proxy::start(|address| vec![mk_listener(address, vec![mk_route("/", |_| {})]), mk_cluster(&[upstream])]);
    let mut client = proxy.connect().await;
    client.write_all(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n").await.unwrap();
    assert_eq!(read_message(&mut client).await.1, b"announced");
}

#[tokio::test]
async fn a_route_timeout_covers_connecting() {
    // A listener whose queue is full takes no more connections: connecting hangs.
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&std::net::SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    socket.listen(0).unwrap();
    let address = socket.local_addr().unwrap().as_socket().unwrap();
    let mut fill = Vec::new();
    for _ in 0..4 {
        let connecting = tokio::net::TcpStream::connect(address);
        fill.push(tokio::time::timeout(Duration::from_millis(50), connecting).await);
    }
    let route = mk_route("/", |forward| forward.timeout = Some(Duration::from_millis(100)));
    let proxy = Proxy::start(|own| vec![mk_listener(own, vec![route]), mk_cluster(&[address])]);
    let mut client = proxy.connect().await;
    client.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    let answer = tokio::time::timeout(Duration::from_secs(5), read_message(&mut client)).await;
    let (head, _) = answer.expect("an answer before the connect timeout of 10 s");
    assert!(head.starts_with("HTTP/1.1 504 "), "{head}");
}

#[tokio::test]
async fn a_client_that_never_finishes_its_request_is_told_so() {
    let upstream = upstream(|_, _| ok("")).await;
    let proxy = Proxy::start(|address| {
        let mut listener = mk_listener(address, vec![mk_route("/", |_| {})]);
        edit_chain(&mut listener, |_, http| http.limits.request_timeout = Duration::from_millis(50));
        vec![listener, mk_cluster(&[upstream])]
    });
    let mut client = proxy.connect().await;
    client.write_all(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 10\r\n\r\nhalf").await.unwrap();
    let (head, _) = read_message(&mut client).await;
    assert!(head.starts_with("HTTP/1.1 408 ") && head.contains("LTN-1014"), "{head}");
}

#[tokio::test]
async fn a_stream_in_which_nothing_moves_ends() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let silent = listener.local_addr().unwrap();
    let proxy = Proxy::start(|address| {
        let mut listener = mk_listener(address, vec![mk_route("/", |_| {})]);
        edit_chain(&mut listener, |_, http| http.limits.stream_idle_timeout = Duration::from_millis(50));
        vec![listener, mk_cluster(&[silent])]
    });
    let mut client = proxy.connect().await;
    client.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    let (head, _) = read_message(&mut client).await;
    assert!(head.contains("LTN-1015"), "{head}");
}
