//! Against applications on ports that the kernel chose.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::Arc;

use bytes::Bytes;
use h2::server;
use http::header::{HOST, LOCATION};
use mesh_api_rt::admin::{AdminServer, Router};
use tokio_rustls::TlsAcceptor;

use super::*;
use crate::tls::provider;

fn mk_probers(json: &str) -> Probers {
    let settings =
        ProbeSettings { destination: Ipv4Addr::LOCALHOST.into(), status_port: 15020, http2: true, socket_mark: None };
    Probers::parse(Some(json), settings).unwrap()
}

async fn ask(probers: &Probers, path: &str) -> (u16, String) {
    let request = http::Request::get(path)
        .header(HOST, "10.0.0.1:15020")
        .header("user-agent", "kube-probe/1.37")
        .header("connection", "close");
    let (head, ()) = request.body(()).unwrap().into_parts();
    let answer = probers.answer(&Request::new(head, Bytes::new(), SocketAddr::from(([10, 0, 0, 2], 4000)))).await;
    (answer.status().as_u16(), String::from_utf8(answer.body().to_vec()).unwrap())
}

fn app() -> (AdminServer, u16) {
    let see = |request: Request| {
        let header = |name| request.header(name).unwrap_or("none").to_owned();
        Response::ok(format!("{}|{}|{}", header("host"), header("user-agent"), header("x-probe")))
    };
    let router = Router::new()
        .get("/healthz", "", see)
        .get("/sick", "", |_| Response::text(StatusCode::SERVICE_UNAVAILABLE, "sick"))
        .get("/moved", "", |_| {
            Response::text(StatusCode::FOUND, "").with_header(LOCATION, HeaderValue::from_static("/healthz"))
        })
        .get("/away", "", |_| {
            Response::text(StatusCode::FOUND, "").with_header(LOCATION, HeaderValue::from_static("http://192.0.2.1/"))
        })
        .get("/circle", "", |_| {
            Response::text(StatusCode::FOUND, "").with_header(LOCATION, HeaderValue::from_static("circle"))
        })
        .get("/large", "", |_| Response::ok("x".repeat(20_000)))
        .route_async(http::Method::GET, "/slow", "", |_| std::future::pending());
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = socket.local_addr().unwrap().port();
    (AdminServer::start("app", vec![(socket, router)]).unwrap(), port)
}

#[tokio::test]
async fn http_probes_are_made_as_the_kubelet_makes_them() {
    let (_app, port) = app();
    let probe = |path: &str, more: &str| format!(r#"{{"httpGet":{{"path":"{path}","port":{port}{more}}}}}"#);
    let headers = r#","httpHeaders":[{"name":"Host","value":"web.shop"},{"name":"X-Probe","value":"1"},{"name":"User-Agent","value":"me"}]"#;
    let all =
        [("livez", probe("healthz", "")), ("readyz", probe("/healthz", headers)), ("startupz", probe("/sick", ""))];
    let json = |container: &str, all: &[(&str, String)]| {
        let rows: Vec<_> =
            all.iter().map(|(name, probe)| format!(r#""/app-health/{container}/{name}":{probe}"#)).collect();
        format!("{{{}}}", rows.join(","))
    };
    let probers = mk_probers(&json("web", &all));
    assert_eq!(ask(&probers, "/app-health/web/livez").await, (200, format!("10.0.0.1:{port}|kube-probe/1.37|none")));
    assert_eq!(ask(&probers, "/app-health/web/readyz").await, (200, "web.shop|me|1".to_owned()));
    assert_eq!(ask(&probers, "/app-health/web/startupz").await, (503, "sick".to_owned()));
    assert_eq!(ask(&probers, "/app-health/other/livez").await.0, 404);

    let all = [("livez", probe("/moved", "")), ("readyz", probe("/away", "")), ("startupz", probe("/circle", ""))];
    let probers = mk_probers(&json("web", &all));
    assert_eq!(ask(&probers, "/app-health/web/livez").await, (200, format!("127.0.0.1:{port}|kube-probe/1.37|none")));
    assert_eq!(ask(&probers, "/app-health/web/readyz").await.0, 302);
    assert_eq!(ask(&probers, "/app-health/web/startupz").await.0, 500);

    let probers = mk_probers(&json("web", &[("livez", probe("/large", ""))]));
    assert_eq!(ask(&probers, "/app-health/web/livez").await.1.len(), 10 * 1024);
}

#[tokio::test]
async fn a_slow_or_absent_application_fails_its_probe() {
    let (_app, port) = app();
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let probers = mk_probers(&format!(
        r#"{{"/app-health/web/livez":{{"httpGet":{{"path":"/slow","port":{port}}},"timeoutSeconds":1}},
            "/app-health/web/readyz":{{"tcpSocket":{{"port":{port}}}}},
            "/app-health/web/startupz":{{"tcpSocket":{{"port":{closed}}}}}}}"#
    ));
    let (status, text) = ask(&probers, "/app-health/web/livez").await;
    assert!(status == 500 && text.contains("within 1s"), "{text}");
    assert_eq!(ask(&probers, "/app-health/web/readyz").await.0, 200);
    let (status, text) = ask(&probers, "/app-health/web/startupz").await;
    assert!(status == 500 && text.contains("cannot connect"), "{text}");
}

/// An HTTP/2 server that answers each request with these bytes and this trailer.
async fn serve_http2<S>(stream: S, body: &'static [u8], grpc_status: &'static str)
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    let mut connection = server::handshake(stream).await.unwrap();
    while let Some(Ok((request, mut respond))) = connection.accept().await {
        assert!(request.uri().path() == "/grpc.health.v1.Health/Check" || request.uri().path() == "/healthz");
        let mut stream = respond.send_response(http::Response::new(()), false).unwrap();
        stream.send_data(Bytes::from_static(body), false).unwrap();
        let trailers = [(HeaderName::from_static("grpc-status"), HeaderValue::from_static(grpc_status))];
        stream.send_trailers(trailers.into_iter().collect()).unwrap();
    }
}

#[tokio::test]
async fn grpc_probes_ask_the_health_service() {
    for (body, grpc_status, expect) in [
        (&[0, 0, 0, 0, 2, 8, 1][..], "0", 200),
        (&[0, 0, 0, 0, 2, 8, 2], "0", 500),
        (&[0, 0, 0, 0, 0], "0", 500),
        (&[], "12", 500),
    ] {
        let socket = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = socket.local_addr().unwrap().port();
        let server = tokio::spawn(async move {
            let (stream, _) = socket.accept().await.unwrap();
            serve_http2(stream, body, grpc_status).await;
        });
        let probers = mk_probers(&format!(
            r#"{{"/app-health/web/livez":{{"grpc":{{"port":{port},"service":"shop"}},"timeoutSeconds":60}}}}"#
        ));
        let (status, text) = ask(&probers, "/app-health/web/livez").await;
        assert_eq!(status, expect, "{text}");
        server.await.unwrap();
    }
}

#[tokio::test]
async fn https_probes_take_any_certificate_over_both_protocols() {
    let made = rcgen::generate_simple_self_signed(["nobody.example".to_owned()]).unwrap();
    for alpn in [&b"h2"[..], b"http/1.1"] {
        let mut config = rustls::ServerConfig::builder_with_provider(Arc::clone(provider::provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(
                vec![made.cert.der().clone()],
                rustls::pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap(),
            )
            .unwrap();
        config.alpn_protocols = vec![alpn.to_vec()];
        let socket = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = socket.local_addr().unwrap().port();
        let server = tokio::spawn(async move {
            let (stream, _) = socket.accept().await.unwrap();
            let mut stream = TlsAcceptor::from(Arc::new(config)).accept(stream).await.unwrap();
            if alpn == b"h2" {
                return serve_http2(stream, b"fine", "0").await;
            }
            use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(stream.read_u8().await.unwrap());
            }
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nfine").await.unwrap();
        });
        let probers = mk_probers(&format!(
            r#"{{"/app-health/web/livez":{{"httpGet":{{"path":"/healthz","port":{port},"scheme":"HTTPS"}},"timeoutSeconds":60}}}}"#
        ));
        assert_eq!(ask(&probers, "/app-health/web/livez").await, (200, "fine".to_owned()));
        server.await.unwrap();
    }
}

#[test]
fn what_cannot_be_probed_is_refused_with_its_path() {
    let settings =
        ProbeSettings { destination: Ipv4Addr::LOCALHOST.into(), status_port: 15020, http2: true, socket_mark: None };
    for (json, reason) in [
        (r#"{"/app-health/web/other":{"tcpSocket":{"port":1}}}"#, "the path is none"),
        (r#"{"/app-health//livez":{"tcpSocket":{"port":1}}}"#, "the path is none"),
        (r#"{"/app-lifecycle/web/livez":{"tcpSocket":{"port":1}}}"#, "the path is none"),
        (r#"{"/app-health/web/livez":{"httpGet":{"port":"http"}}}"#, "not a number"),
        (r#"{"/app-health/web/livez":{}}"#, "exactly one"),
        (r#"{"/app-health/web/livez":{"httpGet":{"port":1,"scheme":"FTP"}}}"#, "scheme"),
        ("[]", "not valid JSON"),
    ] {
        let error = Probers::parse(Some(json), settings).unwrap_err();
        assert!(error.to_string().contains(reason), "{error}");
    }
    assert!(Probers::parse(None, settings).unwrap().probes.is_empty());
    let hook = Probers::parse(Some(r#"{"/app-lifecycle/web/prestopz":{"httpGet":{"port":80}}}"#), settings).unwrap();
    assert_eq!(hook.probes["/app-lifecycle/web/prestopz"].timeout, HOOK_TIMEOUT);
}
