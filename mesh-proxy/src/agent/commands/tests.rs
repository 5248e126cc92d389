//! Against a page server of our own on a port that the kernel chose.

use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use mesh_api_rt::admin::{AdminServer, Response, Router};

use super::*;

fn serve(router: Router) -> (AdminServer, u16) {
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = socket.local_addr().unwrap().port();
    (AdminServer::start("pages", vec![(socket, router)]).unwrap(), port)
}

fn mk_wait(port: u16, timeout_seconds: u64) -> WaitArgs {
    let url = format!("http://127.0.0.1:{port}/healthz/ready").parse().unwrap();
    WaitArgs { timeout_seconds, period_millis: 1, request_timeout_millis: 10_000, url }
}

#[tokio::test]
async fn wait_ends_when_the_proxy_is_ready() {
    let asked = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&asked);
    let router = Router::new().get("/healthz/ready", "", move |_| match counter.fetch_add(1, Ordering::Relaxed) {
        0..3 => Response::text(StatusCode::SERVICE_UNAVAILABLE, "no configuration\n"),
        _ => Response::ok("LIVE\n"),
    });
    let (_server, port) = serve(router);
    wait(&mk_wait(port, 60)).await.unwrap();
    assert_eq!(asked.load(Ordering::Relaxed), 4);
}

#[tokio::test]
async fn wait_gives_up_with_the_last_reason() {
    let router = Router::new()
        .get("/healthz/ready", "", |_| Response::text(StatusCode::SERVICE_UNAVAILABLE, "no certificate\n"));
    let (_server, port) = serve(router);
    let error = wait(&mk_wait(port, 1)).await.unwrap_err().to_string();
    assert!(
        error.contains("not ready after 1 s") && error.contains("503") && error.contains("no certificate"),
        "{error}"
    );
    let error = wait(&WaitArgs { url: "https://localhost/".parse().unwrap(), ..mk_wait(port, 1) }).await.unwrap_err();
    assert!(error.to_string().contains("only http://"), "{error}");
}

#[tokio::test]
async fn request_shows_the_answer_and_fails_for_one_that_is_no_success() {
    let router = Router::new().post("/quitquitquit", "", |request| {
        Response::ok(format!("ended {}", String::from_utf8_lossy(request.body())))
    });
    let (_server, port) = serve(router);
    let mut args =
        RequestArgs { debug_port: port, method: Method::POST, path: "quitquitquit".into(), body: Some("{}".into()) };
    let mut out = Vec::new();
    request(&args, &mut out).await.unwrap();
    assert_eq!(out, b"ended {}");
    args.method = Method::GET;
    args.path = "/quitquitquit?now".into();
    out.clear();
    let error = request(&args, &mut out).await.unwrap_err().to_string();
    assert!(error.contains("405") && error.contains("GET /quitquitquit?now"), "{error}");
    assert_eq!(out, b"use POST\n");
}
