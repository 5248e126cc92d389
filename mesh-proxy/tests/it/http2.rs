//! HTTP/2 and gRPC from client to upstream.

use std::net::SocketAddr;

use bytes::Bytes;
use h2::client::SendRequest;
use http::{HeaderMap, Request, Response};
use mesh_api_xds::ir::Resource;
use mesh_api_xds::ir::cluster::UpstreamProtocol;

use crate::support::{Proxy, mk_cluster, mk_listener, mk_route, ok, upstream};

async fn client(proxy: &Proxy) -> SendRequest<Bytes> {
    let (client, connection) = h2::client::handshake(proxy.connect().await).await.unwrap();
    tokio::spawn(connection);
    client
}

/// An HTTP/2 upstream that echoes the body and ends with trailers.
async fn echo() -> SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut connection = h2::server::handshake(socket).await.unwrap();
                while let Some(Ok((request, mut respond))) = connection.accept().await {
                    tokio::spawn(async move {
                        let mut body = request.into_body();
                        let mut send = respond.send_response(Response::new(()), false).unwrap();
                        while let Some(Ok(data)) = body.data().await {
                            body.flow_control().release_capacity(data.len()).unwrap();
                            send.send_data(data, false).unwrap();
                        }
                        let mut trailers = HeaderMap::new();
                        trailers.insert("grpc-status", "0".parse().unwrap());
                        send.send_trailers(trailers).unwrap();
                    });
                }
            });
        }
    });
    address
}

fn h2_cluster(address: SocketAddr) -> Resource {
    let mut cluster = mk_cluster(&[address]);
    if let Resource::Cluster(cluster) = &mut cluster {
        cluster.protocol = UpstreamProtocol::Downstream;
    }
    cluster
}

#[tokio::test]
async fn streams_echo_with_trailers_and_interleave() {
    let upstream = echo().await;
    let proxy = Proxy::start(|address| vec![mk_listener(address, vec![mk_route("/", |_| {})]), h2_cluster(upstream)]);
    let client = client(&proxy).await;
    let mut calls = Vec::new();
    for n in 0..20_usize {
        let mut client = client.clone().ready().await.unwrap();
        calls.push(tokio::spawn(async move {
            let request = Request::post("http://shop/pkg.Service/Call").header("content-type", "application/grpc");
            let (response, mut send) = client.send_request(request.body(()).unwrap(), false).unwrap();
            for _ in 0..5 {
                send.send_data(Bytes::from(vec![7; n * 1000]), false).unwrap();
            }
            send.send_data(Bytes::new(), true).unwrap();
            let response = response.await.unwrap();
            assert_eq!(response.status(), 200);
            let mut body = response.into_body();
            let mut received = 0;
            while let Some(data) = body.data().await {
                let data = data.unwrap();
                body.flow_control().release_capacity(data.len()).unwrap();
                received += data.len();
            }
            assert_eq!(received, n * 5000);
            let trailers = body.trailers().await.unwrap().unwrap();
            assert_eq!(trailers["grpc-status"], "0");
        }));
    }
    for call in calls {
        call.await.unwrap();
    }
}

#[tokio::test]
async fn http2_to_http1_upstream_and_grpc_errors() {
    let app = upstream(|head, body| {
        assert!(head.starts_with("POST /x HTTP/1.1\r\n") && head.contains("host: shop\r\n"), "{head}");
        ok(&format!("{} bytes", body.len()))
    })
    .await;
    let proxy = Proxy::start(|address| vec![mk_listener(address, vec![mk_route("/x", |_| {})]), mk_cluster(&[app])]);
    let mut client = client(&proxy).await.ready().await.unwrap();
    let request = Request::post("http://shop/x").header("content-length", "3").body(()).unwrap();
    let (response, mut send) = client.send_request(request, false).unwrap();
    send.send_data(Bytes::from_static(b"abc"), true).unwrap();
    let mut body = response.await.unwrap().into_body();
    assert_eq!(body.data().await.unwrap().unwrap(), "3 bytes");
    // No route: a gRPC client gets trailers only.
    let mut client = client.ready().await.unwrap();
    let request = Request::post("http://shop/other").header("content-type", "application/grpc").body(()).unwrap();
    let response = client.send_request(request, true).unwrap().0.await.unwrap();
    assert_eq!((response.status().as_u16(), &response.headers()["grpc-status"]), (200, &"12".parse().unwrap()));
}

#[tokio::test]
async fn an_early_answer_reaches_a_client_that_is_still_sending() {
    let proxy = Proxy::start(|address| vec![mk_listener(address, vec![mk_route("/only", |_| {})]), mk_cluster(&[])]);
    let mut client = client(&proxy).await.ready().await.unwrap();
    let request = Request::post("http://shop/other").body(()).unwrap();
    let (response, mut send) = client.send_request(request, false).unwrap();
    send.send_data(Bytes::from_static(b"part"), false).unwrap();
    assert_eq!(response.await.unwrap().status(), 404);
}
