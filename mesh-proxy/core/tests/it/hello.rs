//! The ClientHello reader against hellos that a real TLS client makes.

use std::sync::Arc;

use mesh_proxy_core::detect::{Detection, detect};
use mesh_proxy_core::hello::ClientHello;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, RootCertStore};

fn first_flight(
    name: &'static str,
    protocols: &[&str],
    versions: &[&'static rustls::SupportedProtocolVersion],
) -> Vec<u8> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .unwrap()
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth();
    config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
    let mut client = ClientConnection::new(Arc::new(config), ServerName::try_from(name).unwrap()).unwrap();
    let mut bytes = Vec::new();
    while client.wants_write() {
        client.write_tls(&mut bytes).unwrap();
    }
    bytes
}

#[test]
fn hellos_of_rustls_are_read() {
    let istio = ["istio-peer-exchange", "istio", "h2"];
    for versions in [&[&rustls::version::TLS13][..], &[&rustls::version::TLS12], rustls::ALL_VERSIONS] {
        let bytes = first_flight("Reviews.default.svc", &istio, versions);
        let hello = ClientHello::read(&bytes).unwrap().unwrap();
        assert_eq!(hello.server_name.as_deref(), Some("reviews.default.svc"));
        assert_eq!(hello.alpn().collect::<Vec<_>>(), istio.map(str::as_bytes));
        assert_eq!(detect(&bytes), Detection::Tls);
        for end in 0..bytes.len() {
            assert_eq!(ClientHello::read(&bytes[..end]), Ok(None));
            assert!(matches!(detect(&bytes[..end]), Detection::NeedMore | Detection::Tls));
        }
    }
}

#[test]
fn a_hello_to_an_address_has_no_name() {
    let hello = ClientHello::read(&first_flight("10.0.0.1", &[], rustls::ALL_VERSIONS)).unwrap().unwrap();
    assert_eq!((hello.server_name.as_deref(), hello.alpn().count()), (None, 0));
}
