//! Identity: certificates by token and by certificate, and what strangers and impostors get.

use std::time::{Duration, SystemTime};

use base64::Engine as _;
use mesh_api::identity::SpiffeId;
use mesh_api_xds::ca_proto::{CertificateClient, IstioCertificateRequest};
use mesh_api_xds::type_url::TypeUrl;
use mesh_ca::bundle::TrustBundle;
use mesh_ca::client::{CertificateRequest, Credential};
use mesh_ca::key::KeyKind;
use mesh_ca::testing::TestCa;
use meshd::app::App;
use meshd::token::mint;
use tonic::{Code, Status};

use crate::bed::{Bed, Link, Proxy, get, identity, node, soon, stop};

fn roots(bed: &Bed) -> Box<TrustBundle> {
    Box::new(TrustBundle::parse(&std::fs::read(bed.state().join("root-cert.pem")).unwrap()).unwrap())
}

fn link(bed: &Bed, app: &App, credential: Option<Credential>) -> Link {
    let address = app.addresses().secure_grpc.unwrap();
    Link::Tls { address, roots: roots(bed), credential: credential.map(Box::new) }
}

fn token(bed: &Bed, identity: &SpiffeId) -> String {
    mint(&bed.state(), identity, Duration::from_secs(60), SystemTime::now()).unwrap().to_string()
}

async fn ask(link: &Link, token: Option<&str>, identity: &SpiffeId) -> Result<Credential, Status> {
    let channel = link.connect().await.map_err(|error| Status::unavailable(error.to_string()))?;
    let mut client = CertificateClient::with_origin(channel, http::Uri::from_static("http://meshd"));
    let wanted = CertificateRequest::new(identity.clone(), KeyKind::EcdsaP256).unwrap();
    let message = IstioCertificateRequest { csr: wanted.csr().to_owned(), validity_duration: 3600, metadata: None };
    let mut request = tonic::Request::new(message);
    if let Some(token) = token {
        request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
    }
    let answer = soon("the answer", client.create_certificate(request)).await?.into_inner();
    wanted.finish(&answer.cert_chain, SystemTime::now()).map_err(|error| Status::data_loss(error.to_string()))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_workload_begins_with_a_token_and_goes_on_with_its_certificate() {
    let bed = Bed::with_shop();
    let app = bed.start().await;
    let web = identity("shop", "web");
    let first = ask(&link(&bed, &app, None), Some(&token(&bed, &web)), &web).await.unwrap();
    assert_eq!(first.identity, web);
    let second = ask(&link(&bed, &app, Some(first.clone())), None, &web).await.unwrap();
    assert_ne!(second.leaf.serial, first.leaf.serial);
    let metrics = get(app.addresses().monitoring, "/metrics").await.1;
    assert!(metrics.contains("citadel_server_success_cert_issuance_count 2"), "{metrics}");

    // With it, and as nobody else, it gets its configuration.
    let mut proxy = Proxy::new(&node("web-1", "shop", [10, 0, 0, 1]));
    proxy.connect(&link(&bed, &app, Some(second.clone())), None).await.unwrap();
    proxy.commit().await.unwrap();
    let page = get(app.addresses().monitoring, "/debug/syncz").await.1;
    assert!(page.contains("\"identity\": \"spiffe://cluster.local/ns/shop/sa/web\""), "{page}");
    let mut impostor = Proxy::new(&node("teller-1", "bank", [10, 0, 0, 1]));
    impostor.connect(&link(&bed, &app, Some(second)), None).await.unwrap();
    let refused = impostor.commit().await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied, "{refused:?}");
    assert!(refused.message().contains("bank") && refused.message().contains("ns/shop/sa/web"), "{refused:?}");
    drop((proxy, impostor));
    stop(app).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_is_of_the_caller_whatever_the_request_says() {
    let bed = Bed::with_shop();
    let app = bed.start().await;
    let (web, teller) = (identity("shop", "web"), identity("bank", "teller"));
    let refused = ask(&link(&bed, &app, None), Some(&token(&bed, &web)), &teller).await.unwrap_err();
    assert!(refused.message().contains("ns/shop/sa/web"), "the answer names the caller: {refused:?}");
    stop(app).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_get_nothing() {
    let bed = Bed::with_shop();
    let app = bed.start().await;
    let web = identity("shop", "web");
    // Nobody in particular.
    let refused = ask(&link(&bed, &app, None), None, &web).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated);
    let mut proxy = Proxy::new(&node("web-1", "shop", [10, 0, 0, 1]));
    let refused = proxy.connect(&link(&bed, &app, None), None).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated);
    // A forged token.
    let refused = ask(&link(&bed, &app, None), Some("a.b.c"), &web).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated);
    // The certificate of another mesh's authority: the handshake fails, or the first use of the connection does (TLS 1.3).
    let stranger = TestCa::new(SystemTime::now()).credential("shop", "web");
    let refused = ask(&link(&bed, &app, Some(stranger)), None, &web).await.unwrap_err();
    assert_ne!(refused.code(), Code::DataLoss, "{refused:?}");
    // A token of an earlier life of the state folder.
    let other = Bed::with_shop();
    let refused = ask(&link(&bed, &app, None), Some(&token(&other, &web)), &web).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated);
    let metrics = get(app.addresses().monitoring, "/metrics").await.1;
    assert!(metrics.contains("citadel_server_success_cert_issuance_count 0"), "{metrics}");
    stop(app).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_plaintext_port_issues_to_this_machine_and_only_with_a_token() {
    let bed = Bed::with_shop();
    let app = bed.start().await;
    let (web, plain) = (identity("shop", "web"), Link::Plain(app.addresses().grpc.unwrap()));
    assert_eq!(ask(&plain, None, &web).await.unwrap_err().code(), Code::Unauthenticated);
    assert_eq!(ask(&plain, Some(&token(&bed, &web)), &web).await.unwrap().identity, web);
    stop(app).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plaintext_port_for_everybody_must_be_asked_for() {
    let bed = Bed::with_shop();
    let mut config = bed.config();
    config.grpc = Some(([0, 0, 0, 0], 0).into());
    let error = App::start(config, &mut mesh_api_rt::listen::ListenerTable::new(), None).await.unwrap_err();
    assert!(error.to_string().contains("--allow-plaintext"), "{error:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_of_gateways_go_only_to_who_proved_to_be_one() {
    let bed = Bed::with_shop();
    let own = TestCa::new(SystemTime::now()).credential("shop", "outside");
    let base64 = |text: &str| base64::engine::general_purpose::STANDARD.encode(text);
    bed.write(
        "gateway.yaml",
        &format!(
            "apiVersion: v1
kind: Secret
metadata: {{name: shop-tls, namespace: edge}}
type: kubernetes.io/tls
data: {{tls.crt: {}, tls.key: {}}}
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {{name: shop, namespace: edge}}
spec:
  selector: {{istio: ingress}}
  servers: [{{port: {{number: 8443, name: https, protocol: HTTPS}}, hosts: ['*'], tls: {{mode: SIMPLE, credentialName: shop-tls}}}}]
",
            base64(&own.chain_pem()),
            base64(&own.key_pem())
        ),
    );
    let app = bed.start().await;
    let mut router = node("ingress-1", "edge", [10, 0, 5, 1]);
    router.kind = mesh_api_xds::node::ProxyKind::Router;
    router.metadata.labels.insert("istio".into(), "ingress".into());
    let mut unknown = Proxy::new(&router);
    unknown.connect(&Link::Plain(app.addresses().grpc.unwrap()), None).await.unwrap();
    unknown.commit().await.unwrap();
    assert!(!unknown.names(TypeUrl::Listener).is_empty());
    assert!(unknown.names(TypeUrl::Secret).is_empty());
    let mut known = Proxy::new(&router);
    let token = token(&bed, &identity("edge", "ingress"));
    known.connect(&link(&bed, &app, None), Some(&token)).await.unwrap();
    known.commit().await.unwrap();
    assert_eq!(known.names(TypeUrl::Secret), ["kubernetes://shop-tls"]);
    assert!(!get(app.addresses().monitoring, "/debug/config_dump?proxyID=ingress-1.edge").await.1.contains("PRIVATE"));
    drop((unknown, known));
    stop(app).await;
}
