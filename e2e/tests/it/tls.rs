//! `loop_*`: what is seen on the wire: certificates of both sides, and who is refused.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use e2e::assert::{PATIENCE, eventually};
use e2e::client::Answer;
use e2e::mesh::{CATALOGUE, NAMESPACE, Security};
use mesh_ca::caller::identity_of;
use mesh_ca::client::Credential;
use mesh_ca::testing::TestCa;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use rustls::{
    ClientConfig, ClientConnection, DigitallySignedStruct, Error, RootCertStore, SignatureScheme, StreamOwned,
};

use crate::envoy;
use crate::world::{Kind, World};

/// Lets any server in: the test looks at its certificate afterwards.
#[derive(Debug)]
struct Curious;

impl ServerCertVerifier for Curious {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = default_provider().signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, cert, signed, &algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = default_provider().signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, cert, signed, &algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        default_provider().signature_verification_algorithms.supported_schemes()
    }
}

/// A client of the mesh, with a certificate or without.
fn mesh_client(credential: Option<&Credential>) -> ClientConfig {
    let builder = ClientConfig::builder_with_provider(Arc::new(default_provider()));
    let builder = builder.with_safe_default_protocol_versions().unwrap().dangerous();
    let builder = builder.with_custom_certificate_verifier(Arc::new(Curious));
    let mut config = match credential {
        None => builder.with_no_client_auth(),
        Some(credential) => {
            let key = PrivatePkcs8KeyDer::from(credential.key().pkcs8_der().to_vec());
            builder.with_client_auth_cert(credential.chain(), key.into()).unwrap()
        }
    };
    // What a sidecar offers: the mesh's own word, and what is inside.
    config.alpn_protocols = vec![b"istio-http/1.1".to_vec(), b"istio".to_vec(), b"http/1.1".to_vec()];
    config
}

/// Gets a page over TLS; also the certificate that the server showed.
fn get(
    at: SocketAddr,
    config: ClientConfig,
    name: &str,
    host: &str,
    path: &str,
) -> io::Result<(String, CertificateDer<'static>)> {
    let socket = TcpStream::connect(at)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    let name = ServerName::try_from(name.to_owned()).map_err(io::Error::other)?;
    let connection = ClientConnection::new(Arc::new(config), name).map_err(io::Error::other)?;
    let mut stream = StreamOwned::new(connection, socket);
    write!(stream, "GET {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n")?;
    let mut text = Vec::new();
    stream.read_to_end(&mut text)?;
    let shown = stream.conn.peer_certificates().and_then(<[_]>::first).cloned();
    let shown = shown.ok_or_else(|| io::Error::other("the server showed no certificate"))?;
    Ok((String::from_utf8_lossy(&text).into_owned(), shown))
}

#[test]
#[ignore = "needs built binaries: cargo xtask ci interop"]
fn loop_strangers_are_refused_and_names_are_shown() {
    let mut world = World::new(Security::Strict, Kind::Ours);
    world.serve(CATALOGUE, "v1", Kind::Ours, &[]);
    world.wait_for_catalogue();
    let at = world.backends[0].workload.at(CATALOGUE.target());
    let name = format!("outbound_.{}_._.{}", CATALOGUE.port, CATALOGUE.host());
    let ask = |config| get(at, config, &name, CATALOGUE.name, "/echo");
    let member = envoy::credential(&world.mesh, &world.caller);
    let (text, shown) = ask(mesh_client(Some(&member))).unwrap();
    assert!(text.starts_with("HTTP/1.1 200") && text.contains("ns/shop/sa/caller"), "{text}");
    assert_eq!(identity_of(&shown).unwrap().to_string(), "spiffe://cluster.local/ns/shop/sa/catalogue");
    // The same name from another root, and no name at all.
    let stranger = TestCa::new(SystemTime::now()).credential(NAMESPACE, "caller");
    assert_eq!(stranger.identity, member.identity);
    for config in [mesh_client(Some(&stranger)), mesh_client(None)] {
        let refused = ask(config);
        assert!(refused.is_err(), "{refused:?}");
    }
    // None of that hurts those who belong.
    assert_eq!(world.get("/healthz", &[]).unwrap().status, 200);
}

#[test]
#[ignore = "needs built binaries: cargo xtask ci interop"]
fn loop_a_gateway_serves_http_and_https() {
    let mut world = World::new(Security::Strict, Kind::Ours);
    world.serve(CATALOGUE, "v1", Kind::Ours, &[]);
    let gateway = world.mesh.gateway("gateway");
    let _proxy = world.mesh.proxy(&gateway);
    let ca = TestCa::new(SystemTime::now());
    let lifetime = Duration::from_secs(3600);
    let certificate =
        ca.credential_for(&ca.identity(NAMESPACE, "gateway"), &["shop.example.com"], lifetime, SystemTime::now());
    let indented = |text: &str| text.lines().map(|line| format!("    {line}\n")).collect::<String>();
    world.mesh.write(
        "https",
        &format!(
            "apiVersion: v1\nkind: Secret\nmetadata: {{name: shop-cert, namespace: {NAMESPACE}}}\n\
             type: kubernetes.io/tls\nstringData:\n  tls.crt: |\n{}  tls.key: |\n{}---\n\
             apiVersion: networking.istio.io/v1\nkind: Gateway\nmetadata: {{name: secure, namespace: {NAMESPACE}}}\n\
             spec:\n  selector: {{app: gateway}}\n  servers:\n  - {{port: {{number: 8443, name: https, protocol: HTTPS}}, \
             bind: {}, hosts: [shop.example.com], tls: {{mode: SIMPLE, credentialName: shop-cert}}}}\n---\n\
             apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: shop, namespace: {NAMESPACE}}}\n\
             spec:\n  hosts: [shop.example.com]\n  gateways: [front, secure]\n  \
             http: [{{route: [{{destination: {{host: catalogue, port: {{number: {}}}}}}}]}}]\n",
            indented(&certificate.chain_pem()),
            indented(&certificate.key_pem()),
            gateway.ip,
            CATALOGUE.port,
        ),
    );
    let host = "shop.example.com";
    let plain = || e2e::client::request(gateway.at(8080), "GET", host, "/echo", &[]);
    let answer: Answer = eventually("the gateway answers", || e2e::mesh::ok(plain()));
    assert!(answer.body.contains("sa/gateway"), "{answer:?}");
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(ca.bundle().ders().cloned());
    let config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let (text, _) =
        eventually("the gateway answers over TLS", || get(gateway.at(8443), config.clone(), host, host, "/echo"));
    assert!(text.starts_with("HTTP/1.1 200"), "{text}");
    // Another host has neither a route nor a certificate.
    let other = e2e::client::request(gateway.at(8080), "GET", "other.example.com", "/echo", &[]).unwrap();
    assert_eq!(other.status, 404);
    let other = get(gateway.at(8443), config, "other.example.com", host, "/echo");
    assert!(other.is_err(), "{other:?}");
}
