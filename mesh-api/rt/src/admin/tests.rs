use std::sync::atomic::{AtomicBool, Ordering};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::*;

fn mk_router() -> Router {
    Router::new()
        .get("/ready", "Whether it is ready", |_| Response::ok("LIVE\n"))
        .get("/echo", "Says what it was asked", |request| {
            let pairs: Vec<String> = request.query().map(|(key, value)| format!("{key}={value}")).collect();
            Response::ok(pairs.join(";"))
        })
        .post("/body", "Returns the body", |request| Response::ok(request.body().clone()))
        .get("/panic", "Panics", |_| panic!("wanted by the test"))
        .prefix("/debug/", "Names the rest", |request| Response::ok(request.tail().to_owned()))
        .get("/debug/exact", "An exact page below a prefix", |_| Response::ok("exact"))
        .route_async(http::Method::GET, "/later", "Answers later", |_| async {
            tokio::task::yield_now().await;
            Response::json(&vec![1, 2])
        })
}

fn start(router: Router) -> AdminServer {
    let socket = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    AdminServer::start("admin-test", vec![(socket, router)]).unwrap()
}

/// Sends raw bytes, reads to the end, gives back status and the rest.
async fn exchange(address: SocketAddr, request: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    let answer = String::from_utf8(answer).unwrap();
    let status = answer.get(9..12).map_or(0, |code| code.parse().unwrap());
    (status, answer)
}

async fn get(address: SocketAddr, path: &str) -> (u16, String) {
    exchange(address, &format!("GET {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")).await
}

#[tokio::test]
async fn pages_are_found_by_method_and_path() {
    let server = start(mk_router());
    let address = server.addresses()[0];
    let cases = [
        ("/ready", 200, "LIVE\n"),
        ("/echo?a=1&b=x%20y+z&c", 200, "a=1;b=x y z;c="),
        ("/debug/a/b?x", 200, "a/b"),
        ("/debug/exact", 200, "exact"),
        ("/later", 200, "[\n  1,\n  2\n]\n"),
        ("/nothing", 404, "no such page; GET /help lists what there is\n"),
        ("/body", 405, "use POST\n"),
    ];
    for (path, status, body) in cases {
        let (got, answer) = get(address, path).await;
        assert_eq!(got, status, "{path}");
        assert!(answer.ends_with(&format!("\r\n\r\n{body}")), "{path}: {answer}");
    }
    let (_, help) = get(address, "/").await;
    assert!(
        help.contains("POST  /body") && help.contains("/debug/…") && help.contains("Whether it is ready"),
        "{help}"
    );
    server.stop();
}

#[tokio::test]
async fn head_has_no_body_and_post_has_one() {
    let server = start(mk_router());
    let address = server.addresses()[0];
    let (status, answer) = exchange(address, "HEAD /ready HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await;
    assert_eq!(status, 200);
    assert!(answer.contains("content-length: 5") && answer.ends_with("\r\n\r\n"), "{answer}");
    let post = "POST /body HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-length: 3\r\n\r\nabc";
    assert!(exchange(address, post).await.1.ends_with("\r\n\r\nabc"));
}

#[tokio::test]
async fn a_body_above_the_bound_is_refused() {
    let server = start(mk_router());
    let length = MAX_REQUEST_BODY_BYTES + 1;
    let request = format!(
        "POST /body HTTP/1.1\r\nhost: a\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n{length:x}\r\n{}\r\n0\r\n\r\n",
        "x".repeat(length)
    );
    let (status, answer) = exchange(server.addresses()[0], &request).await;
    assert_eq!(status, 413, "{answer}");
}

#[tokio::test]
async fn a_panicking_page_ends_one_connection_only() {
    let server = start(mk_router());
    let (status, _) = get(server.addresses()[0], "/panic").await;
    assert_eq!(status, 0);
    assert_eq!(get(server.addresses()[0], "/ready").await.0, 200);
}

#[tokio::test]
async fn sockets_have_their_own_tables_and_stop_closes_them() {
    let sockets: Vec<TcpListener> = (0..2).map(|_| TcpListener::bind(("127.0.0.1", 0)).unwrap()).collect();
    let mut sockets = sockets.into_iter();
    let ready = Router::new().get("/ready", "Ready", |_| Response::ok("yes"));
    let listeners = vec![(sockets.next().unwrap(), mk_router()), (sockets.next().unwrap(), ready)];
    let server = AdminServer::start("admin-test", listeners).unwrap();
    let [admin, ready] = [server.addresses()[0], server.addresses()[1]];
    assert_eq!(get(admin, "/later").await.0, 200);
    assert_eq!(get(ready, "/later").await.0, 404);
    server.stop();
    assert!(TcpStream::connect(admin).await.is_err());
}

#[tokio::test]
async fn stop_lets_an_answer_finish() {
    static STARTED: AtomicBool = AtomicBool::new(false);
    let (release, held) = watch::channel(false);
    let router = Router::new().route_async(http::Method::GET, "/slow", "Waits", move |_| {
        let mut held = held.clone();
        STARTED.store(true, Ordering::SeqCst);
        async move {
            let _ = held.wait_for(|go| *go).await;
            Response::ok("done")
        }
    });
    let server = start(router);
    let address = server.addresses()[0];
    let client = tokio::spawn(async move { get(address, "/slow").await });
    while !STARTED.load(Ordering::SeqCst) {
        tokio::task::yield_now().await;
    }
    let stop = tokio::task::spawn_blocking(|| server.stop());
    while TcpStream::connect(address).await.is_ok() {}
    release.send_replace(true);
    assert!(client.await.unwrap().1.ends_with("done"));
    stop.await.unwrap();
}

#[tokio::test]
async fn the_common_pages() {
    use crate::metrics::{Metrics, process};
    use crate::telemetry::{Levels, LogFormat, build};
    use tracing::level_filters::LevelFilter;

    let (_subscriber, handle) = build(LogFormat::Text, Levels::new(LevelFilter::INFO), io::sink);
    let mut metrics = Metrics::new();
    process::register(&mut metrics).unwrap();
    let info = crate::build_info!("test");
    let router =
        Router::new().with_metrics("/metrics", metrics.share()).with_logging(handle.clone()).with_version(info);
    let server = start(router);
    let address = server.addresses()[0];
    let (_, answer) = get(address, "/metrics").await;
    assert!(answer.contains("text/plain; version=0.0.4") && answer.contains("process_open_fds "), "{answer}");
    let (_, answer) = get(address, "/version").await;
    assert!(answer.contains("\"name\": \"test\""), "{answer}");

    let post = async |query: &str| {
        let request =
            format!("POST /logging?{query} HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-length: 0\r\n\r\n");
        exchange(address, &request).await
    };
    let (status, answer) = post("paths=mesh_proxy::http:debug,xds:warning&access=off").await;
    assert_eq!(status, 200);
    assert!(
        answer.ends_with("active loggers:\n  default: info\n  access: off\n  mesh_proxy::http: debug\n  xds: warn\n"),
        "{answer}"
    );
    assert_eq!(post("xds=debug&access=loud").await.0, 400);
    assert_eq!(handle.levels().to_string(), "info,access:off,mesh_proxy::http:debug,xds:warn", "all or nothing");
    assert_eq!(post("level=error").await.0, 200);
    assert!(get(address, "/logging").await.1.ends_with("active loggers:\n  default: error\n"));
}
