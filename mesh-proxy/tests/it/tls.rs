//! Mutual TLS between two proxies, and who is let in.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use mesh_api::text::Str;
use mesh_api_xds::ir::Resource;
use mesh_api_xds::ir::chain::{Chain, ClientCertificate, DownstreamTls, TlsVersions, Validation};
use mesh_api_xds::ir::cluster::{Sni, Transport, UpstreamProtocol, UpstreamTls};
use mesh_api_xds::ir::http::{CertDetails, ForwardClientCert};
use mesh_api_xds::ir::listener::{Direction, Inspect};
use mesh_api_xds::ir::matcher::StringMatch;
use mesh_api_xds::ir::route::Route;
use mesh_api_xds::ir::secret::{PrivateKey, Secret, SecretContent};
use mesh_ca::client::Credential;
use mesh_ca::testing::TestCa;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use crate::support::{Proxy, edit_chain, mk_cluster, mk_listener, mk_route, mk_tunnel, ok, read_message, upstream};

fn secrets(credential: &Credential) -> Vec<Resource> {
    let certificate = SecretContent::Certificate {
        chain: credential.chain_pem().into_bytes().into(),
        key: PrivateKey(credential.key_pem().as_bytes().into()),
    };
    let trust = SecretContent::Trust(credential.roots_pem().into_bytes().into());
    vec![
        Resource::Secret(Secret { name: Str::from("default"), content: certificate }),
        Resource::Secret(Secret { name: Str::from("ROOTCA"), content: trust }),
    ]
}

fn validation(identity: Option<&str>) -> Validation {
    Validation { trust: Str::from("ROOTCA"), sans: identity.map(StringMatch::exact).into_iter().collect() }
}

/// TLS of the server's side.
fn mutual(alpn: &[&str]) -> Option<Arc<DownstreamTls>> {
    Some(Arc::new(DownstreamTls {
        certificates: [Str::from("default")].into(),
        client: ClientCertificate::Required(validation(None)),
        alpn: alpn.iter().copied().map(Str::from).collect(),
        versions: TlsVersions::default(),
        handshake_timeout: Duration::ZERO,
    }))
}

/// The server's side: mutual TLS in front of `app`.
pub(crate) fn server(credential: &Credential, app: SocketAddr) -> Proxy {
    let secrets = secrets(credential);
    Proxy::start(move |address| {
        let mut listener = mk_listener(address, vec![mk_route("/", |_| {})]);
        edit_chain(&mut listener, |chain, http| {
            chain.tls = mutual(&["h2", "http/1.1"]);
            let details = CertDetails { subject: true, uri: true, dns: true, cert: false };
            http.client_cert = ForwardClientCert::AppendForward(details);
        });
        if let Resource::Listener(listener) = &mut listener {
            listener.inspect = Inspect { tls: true, http: true, ..Inspect::default() };
            listener.direction = Direction::Inbound;
        }
        let mut resources = vec![listener, mk_cluster(&[app])];
        resources.extend(secrets);
        resources
    })
}

/// The client's side: mutual TLS to `server`, which must be `expected`.
fn client(credential: &Credential, server: SocketAddr, expected: &str, protocol: UpstreamProtocol) -> Proxy {
    client_of(credential, &[server], expected, protocol, mk_route("/", |_| {}))
}

/// As [`client`], of several servers, by this route.
pub(crate) fn client_of(
    credential: &Credential,
    servers: &[SocketAddr],
    expected: &str,
    protocol: UpstreamProtocol,
    route: Route,
) -> Proxy {
    let secrets = secrets(credential);
    let cluster = secured(servers, expected, protocol);
    Proxy::start(move |address| {
        let mut resources = vec![mk_listener(address, vec![route]), cluster];
        resources.extend(secrets);
        resources
    })
}

/// The cluster `upstream` of these servers, with mutual TLS; they must be `expected`.
pub(crate) fn secured(servers: &[SocketAddr], expected: &str, protocol: UpstreamProtocol) -> Resource {
    let mut cluster = mk_cluster(servers);
    if let Resource::Cluster(cluster) = &mut cluster {
        cluster.protocol = protocol;
        cluster.transport = Transport::Tls(Arc::new(UpstreamTls {
            certificate: Some(Str::from("default")),
            validation: Some(validation(Some(expected))),
            sni: Sni::Name(Str::from("outbound_.80_._.app.default.svc.cluster.local")),
            alpn: [Str::from("istio")].into(),
            alpn_override: true,
            versions: TlsVersions::default(),
        }));
    }
    cluster
}

async fn get(proxy: &Proxy) -> (String, String) {
    let mut stream = proxy.connect().await;
    stream.write_all(b"GET / HTTP/1.1\r\nhost: app\r\n\r\n").await.unwrap();
    let (head, body) = read_message(&mut stream).await;
    (head, String::from_utf8(body).unwrap())
}

/// An application that answers with the client certificate field it was sent.
async fn app() -> SocketAddr {
    upstream(|head, _| ok(head.lines().find(|line| line.starts_with("x-forwarded-client-cert")).unwrap_or("none")))
        .await
}

#[tokio::test]
async fn peers_know_each_other_over_both_protocols() {
    let ca = TestCa::new(SystemTime::now());
    let (web, shop) = (ca.credential("default", "web"), ca.credential("default", "app"));
    let server = server(&shop, app().await);
    for protocol in [UpstreamProtocol::Http1, UpstreamProtocol::Http2] {
        let client = client(&web, server.address, &shop.identity.to_string(), protocol);
        for _ in 0..3 {
            let (head, body) = get(&client).await;
            assert!(head.starts_with("HTTP/1.1 200 "), "{protocol:?}: {head}{body}");
            assert!(body.contains(&format!("URI={}", web.identity)), "{body}");
        }
    }
}

/// Makes a listener's chain a tunnel.
fn tunnel(listener: &mut Resource, tls: Option<Arc<DownstreamTls>>) {
    let Resource::Listener(listener) = listener else { panic!("a listener") };
    let mut chain = Chain::clone(&listener.chains[0]);
    (chain.tls, chain.serve) = (tls, mk_tunnel());
    listener.chains = [Arc::new(chain)].into();
    // Only what is secured waits for the client's first bytes.
    let secured = listener.chains[0].tls.is_some();
    listener.inspect = Inspect { tls: secured, ..Inspect::default() };
    listener.direction = if secured { Direction::Inbound } else { Direction::Outbound };
}

/// Two proxies with a tunnel of mutual TLS between them, to an application that greets first and then echoes.
async fn tunnels(offered: &[&str]) -> (Proxy, Proxy) {
    let ca = TestCa::new(SystemTime::now());
    let (web, shop) = (ca.credential("default", "web"), ca.credential("default", "app"));
    let app = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = app.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = app.accept().await {
            tokio::spawn(async move {
                stream.write_all(b"hello ").await.unwrap();
                let (mut reads, mut writes) = stream.split();
                let _ = tokio::io::copy(&mut reads, &mut writes).await;
                let _ = writes.shutdown().await;
            });
        }
    });
    let kept = secrets(&shop);
    let server = Proxy::start(move |address| {
        let mut listener = mk_listener(address, Vec::new());
        tunnel(&mut listener, mutual(&["istio-peer-exchange"]));
        [vec![listener, mk_cluster(&[at])], kept].concat()
    });
    let (secrets, expected) = (secrets(&web), shop.identity.to_string());
    let (offered, server_at): (Arc<[Str]>, _) = (offered.iter().copied().map(Str::from).collect(), server.address);
    let client = Proxy::start(move |address| {
        let (mut listener, mut cluster) = (mk_listener(address, Vec::new()), mk_cluster(&[server_at]));
        tunnel(&mut listener, None);
        if let Resource::Cluster(cluster) = &mut cluster {
            cluster.transport = Transport::Tls(Arc::new(UpstreamTls {
                certificate: Some(Str::from("default")),
                validation: Some(validation(Some(&expected))),
                sni: Sni::None,
                alpn: offered,
                alpn_override: true,
                versions: TlsVersions::default(),
            }));
        }
        [vec![listener, cluster], secrets].concat()
    });
    (client, server)
}

#[tokio::test]
async fn tunnels_tell_who_they_are_and_carry_what_they_are_given() {
    // The last offers what the server does not know: it is served without a protocol.
    let cases: [(&[&str], bool); 4] =
        [(&["istio-peer-exchange", "istio"], true), (&["istio"], false), (&[], false), (&["mine"], false)];
    for (offered, known) in cases {
        let (client, server) = tunnels(offered).await;
        let mut stream = client.connect().await;
        // The greeting comes while the client is silent.
        let mut greeting = [0; 6];
        stream.read_exact(&mut greeting).await.unwrap();
        stream.write_all(&[b'x'; 100_000]).await.unwrap();
        stream.shutdown().await.unwrap();
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).await.unwrap();
        assert_eq!((&greeting, rest.len()), (b"hello ", 100_000), "{offered:?}");
        assert!(rest.iter().all(|byte| *byte == b'x'), "{offered:?}");
        let page = server.metrics();
        let opened = page.lines().find(|line| line.starts_with("istio_tcp_connections_opened_total{")).unwrap();
        assert_eq!(opened.contains("source_workload=\"tester\""), known, "{offered:?}: {opened}");
    }
}

#[tokio::test]
async fn plaintext_strangers_and_impostors_are_refused() {
    let now = SystemTime::now();
    let (ca, other) = (TestCa::new(now), TestCa::new(now));
    let shop = ca.credential("default", "app");
    let server = server(&shop, app().await);
    let expected = shop.identity.to_string();
    let refused = async |proxy: Proxy, code: &str| {
        let (head, body) = get(&proxy).await;
        assert!(head.starts_with("HTTP/1.1 503 ") && head.contains(code), "{head}{body}");
    };
    // A certificate of another authority, and a server that is not who was asked for.
    refused(
        client(&other.credential("default", "web"), server.address, &expected, UpstreamProtocol::Http1),
        "LTN-3004",
    )
    .await;
    let web = ca.credential("default", "web");
    refused(client(&web, server.address, "spiffe://cluster.local/ns/a/sa/b", UpstreamProtocol::Http1), "LTN-3005")
        .await;
    // Plaintext gets no answer at all.
    let mut plain = server.connect().await;
    plain.write_all(b"GET / HTTP/1.1\r\nhost: app\r\n\r\n").await.unwrap();
    let mut byte = [0];
    let answer = tokio::io::AsyncReadExt::read(&mut plain, &mut byte).await;
    assert!(matches!(answer, Ok(0) | Err(_)) || byte[0] == 21, "only a TLS alert or nothing: {answer:?}");
}

#[tokio::test]
async fn a_rotated_certificate_serves_new_connections_while_old_ones_live() {
    let ca = TestCa::new(SystemTime::now());
    let (web, shop) = (ca.credential("default", "web"), ca.credential("default", "app"));
    let server = server(&shop, app().await);
    let client = client(&web, server.address, &shop.identity.to_string(), UpstreamProtocol::Http1);
    let mut held = client.connect().await;
    for round in 0..4 {
        server.apply(secrets(&ca.credential("default", "app")));
        client.apply(secrets(&ca.credential("default", "web")));
        held.write_all(b"GET / HTTP/1.1\r\nhost: app\r\n\r\n").await.unwrap();
        let (head, _) = read_message(&mut held).await;
        assert!(head.starts_with("HTTP/1.1 200 "), "round {round}: {head}");
        let (head, _) = get(&client).await;
        assert!(head.starts_with("HTTP/1.1 200 "), "round {round}: {head}");
    }
}
