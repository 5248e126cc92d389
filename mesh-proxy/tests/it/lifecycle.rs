//! Before the first configuration, and while the process ends.

use mesh_api_xds::ir::Resource;
use mesh_api_xds::ir::listener::Direction;
use mesh_proxy::worker::DrainPhase;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::support::{Proxy, mk_cluster, mk_listener, mk_route, ok, read_message, upstream};

const GET: &[u8] = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n";

fn directed(mut listener: Resource, direction: Direction) -> Resource {
    if let Resource::Listener(listener) = &mut listener {
        listener.direction = direction;
    }
    listener
}

async fn ask(client: &mut TcpStream) -> String {
    client.write_all(GET).await.unwrap();
    read_message(client).await.0
}

async fn is_closed(client: &mut TcpStream) -> bool {
    client.read(&mut [0]).await.is_ok_and(|count| count == 0)
}

#[tokio::test]
async fn a_connection_before_configuration_waits_and_is_served() {
    let upstream = upstream(|_, _| ok("served")).await;
    let proxy = Proxy::start_early();
    let mut client = proxy.connect().await;
    client.write_all(GET).await.unwrap();
    proxy.wait_for_count("mesh_proxy_connections_parked_total", 1).await;
    proxy.apply(vec![mk_listener(proxy.address, vec![mk_route("/", |_| {})]), mk_cluster(&[upstream])]);
    let (head, body) = read_message(&mut client).await;
    assert!(head.starts_with("HTTP/1.1 200 ") && body == b"served", "{head}");
}

#[tokio::test]
async fn inbound_drains_without_closing_what_rests_and_still_accepts() {
    let upstream = upstream(|_, _| ok("")).await;
    let proxy = Proxy::start(|address| {
        vec![directed(mk_listener(address, vec![mk_route("/", |_| {})]), Direction::Inbound), mk_cluster(&[upstream])]
    });
    let mut resting = proxy.connect().await;
    assert!(!ask(&mut resting).await.contains("connection: close"));
    proxy.shared.drain.send_replace(DrainPhase::Inbound);
    // A new connection shows that the phase has reached the worker, and that the socket still accepts.
    let mut new = proxy.connect().await;
    let head = ask(&mut new).await;
    assert!(head.starts_with("HTTP/1.1 200 ") && head.contains("connection: close"), "{head}");
    assert!(is_closed(&mut new).await);
    // The client of the resting connection may have been sending at the very moment: it is served, and told.
    let head = ask(&mut resting).await;
    assert!(head.starts_with("HTTP/1.1 200 ") && head.contains("connection: close"), "{head}");
    assert!(is_closed(&mut resting).await);
}

#[tokio::test]
async fn outbound_does_not_notice_that_inbound_drains() {
    let upstream = upstream(|_, _| ok("")).await;
    let proxy = Proxy::start(|address| {
        vec![directed(mk_listener(address, vec![mk_route("/", |_| {})]), Direction::Outbound), mk_cluster(&[upstream])]
    });
    let mut resting = proxy.connect().await;
    ask(&mut resting).await;
    for phase in [DrainPhase::Inbound, DrainPhase::InboundClosed] {
        proxy.shared.drain.send_replace(phase);
        for client in [&mut proxy.connect().await, &mut resting] {
            let head = ask(client).await;
            assert!(head.starts_with("HTTP/1.1 200 ") && !head.contains("connection: close"), "{head}");
        }
    }
    proxy.shared.drain.send_replace(DrainPhase::Closed);
    assert!(is_closed(&mut resting).await);
}
