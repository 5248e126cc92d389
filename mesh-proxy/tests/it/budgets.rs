//! What a request, an idle connection and a change of configuration may cost. Counts, no clocks.
//!
//! One test function counts, because counts are those of all marked threads.

use std::net::TcpListener;
use std::rc::Rc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Weak};
use std::time::Duration;

use mesh_proxy::net::accept::Accepted;
use mesh_proxy::worker::Worker;
use mesh_proxy_core::plan::Plan;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use crate::counting::{ALLOCATIONS, LIVE_BYTES, mark_thread};
use crate::support::{Proxy, mk_cluster, mk_listener, mk_route, ok, read_message, upstream};

/// Allocations of one warm keep-alive request.
const ALLOCATIONS_PER_REQUEST: u64 = 4;
/// Heap bytes of one idle plaintext connection.
const BYTES_PER_IDLE_CONNECTION: i64 = 4 * 1024;
/// Size of the future that serves a connection, bytes: paid by every connection while it lives.
const CONNECTION_FUTURE_BYTES: usize = 3 * 1024 + 512;

async fn request(stream: &mut TcpStream) {
    stream.write_all(b"GET /path HTTP/1.1\r\nhost: shop\r\nuser-agent: test\r\naccept: */*\r\n\r\n").await.unwrap();
    let (head, _) = read_message(stream).await;
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
}

#[tokio::test]
async fn a_warm_request_an_idle_connection_and_a_swap_stay_within_their_budgets() {
    let app = upstream(|_, _| ok("body")).await;
    let resources = |address| vec![mk_listener(address, vec![mk_route("/", |_| {})]), mk_cluster(&[app])];
    let proxy = Proxy::start_with(resources, mark_thread);
    let mut client = proxy.connect().await;
    for _ in 0..100 {
        request(&mut client).await;
    }
    let before = ALLOCATIONS.load(Relaxed);
    for _ in 0..1000 {
        request(&mut client).await;
    }
    let per_request = (ALLOCATIONS.load(Relaxed) - before).div_ceil(1000);
    println!("{per_request} allocations a request");
    assert!(per_request <= ALLOCATIONS_PER_REQUEST, "{per_request} allocations a request");

    let before = LIVE_BYTES.load(Relaxed);
    let mut idle = Vec::new();
    for _ in 0..1000 {
        let mut stream = proxy.connect().await;
        request(&mut stream).await;
        idle.push(stream);
    }
    let per_connection = (LIVE_BYTES.load(Relaxed) - before) / 1000;
    println!("{per_connection} bytes an idle connection");
    assert!(per_connection <= BYTES_PER_IDLE_CONNECTION, "{per_connection} bytes an idle connection");

    swaps(&proxy, app, &mut idle).await;
}

/// 100 changes while 1,000 connections rest: old plans go, memory stays flat, connections live.
async fn swaps(proxy: &Proxy, app: std::net::SocketAddr, idle: &mut [TcpStream]) {
    let mut plans: Vec<Weak<Plan>> = Vec::new();
    let mut baseline = 0;
    for (round, stream) in idle.iter_mut().enumerate().take(110) {
        let route = mk_route(&format!("/{round}"), |_| {});
        proxy.apply(vec![mk_listener(proxy.address, vec![route, mk_route("/", |_| {})]), mk_cluster(&[app])]);
        plans.push(Arc::downgrade(&proxy.shared.store.live().plan));
        // The worker takes a new state between two requests.
        request(stream).await;
        if round == 10 {
            baseline = LIVE_BYTES.load(Relaxed);
        }
    }
    let alive = plans.iter().filter(|plan| plan.strong_count() > 0).count();
    assert!(alive <= 2, "{alive} plans alive");
    let grown = LIVE_BYTES.load(Relaxed) - baseline;
    assert!(grown < 512 * 1024, "100 swaps left {grown} bytes");
    for stream in idle.iter_mut().step_by(100) {
        request(stream).await;
    }
}

#[tokio::test]
async fn the_future_of_a_connection_stays_small() {
    let proxy = Proxy::start(|address| vec![mk_listener(address, vec![mk_route("/", |_| {})]), mk_cluster(&[])]);
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = std::net::TcpStream::connect_timeout(&socket.local_addr().unwrap(), Duration::from_secs(5)).unwrap();
    let worker = Rc::new(Worker::new(0, Arc::clone(&proxy.shared), crate::support::telemetry()));
    let serving = mesh_proxy::conn::serve(worker, Accepted { socket: client, listener: "listener".into() });
    let size = size_of_val(&serving);
    println!("{size} bytes of future");
    assert!(size <= CONNECTION_FUTURE_BYTES, "{size} bytes");
}
