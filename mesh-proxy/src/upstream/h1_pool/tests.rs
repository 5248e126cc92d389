//! The pool's key: what a peer could tell apart never shares a connection.

use std::time::SystemTime;

use mesh_api::text::Str;
use mesh_api_xds::ir::Resource;
use mesh_api_xds::ir::chain::{TlsVersions, Validation};
use mesh_api_xds::ir::cluster::{Discovery, Sni, Transport, UpstreamTls};
use mesh_api_xds::ir::endpoint::{
    Address, Endpoint, EndpointSet, EndpointTls, Health, Locality, LocalityEndpoints, WorkloadRef,
};
use mesh_api_xds::ir::matcher::StringMatch;
use mesh_api_xds::ir::secret::{PrivateKey, Secret, SecretContent};
use mesh_ca::client::Credential;
use mesh_ca::testing::TestCa;
use mesh_proxy_core::h1::limits::Limits;
use mesh_proxy_core::plan::{Delta, Plan};
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::buffers::ByteQueue;
use crate::config::store::Live;
use crate::net::io::Io;
use crate::net::stream::Stream;
use crate::telemetry::testing::mk_cluster;
use crate::tls::store::TlsStore;
use crate::upstream::key::Protocol;
use crate::upstream::state::Upstreams;

fn mk_secret(name: &str, credential: &Credential) -> Resource {
    let content = SecretContent::Certificate {
        chain: credential.chain_pem().into_bytes().into(),
        key: PrivateKey(credential.key_pem().as_bytes().into()),
    };
    Resource::Secret(Secret { name: name.into(), content })
}

/// A cluster of the endpoint; its name also says who we are, whom we expect and under which name we ask.
fn mk_secured(name: &str, address: SocketAddr, certificate: &str, peer: &str, sni: &str) -> Resource {
    let mut cluster = mk_cluster(name);
    let endpoint = Endpoint {
        address: Address::Socket(address),
        weight: 1,
        health: Health::Healthy,
        tls: EndpointTls::Istio,
        workload: WorkloadRef::default(),
    };
    let locality = LocalityEndpoints {
        locality: Locality::default(),
        priority: 0,
        weight: 0,
        endpoints: [endpoint].into_iter().collect(),
    };
    let set = EndpointSet { cluster: name.into(), localities: [locality].into_iter().collect() };
    cluster.discovery = Discovery::Static(Arc::new(set));
    if !certificate.is_empty() {
        cluster.transport = Transport::Tls(Arc::new(UpstreamTls {
            certificate: Some(certificate.into()),
            validation: Some(Validation { trust: "ROOTCA".into(), sans: [StringMatch::exact(peer)].into() }),
            sni: Sni::Name(sni.into()),
            alpn: Arc::default(),
            alpn_override: true,
            versions: TlsVersions::default(),
        }));
    }
    Resource::Cluster(cluster)
}

fn publish(before: &Live, upserts: Vec<Resource>) -> Live {
    let (plan, rejected) = Plan::next(&before.plan, &Delta { upserts, ..Delta::default() });
    assert_eq!(rejected, []);
    Live { plan: Arc::new(plan), ..before.clone() }
}

fn key_of(upstreams: &Upstreams, live: &Live, store: &TlsStore, cluster: &str, protocol: Protocol) -> PoolKey {
    let cluster = live.plan.cluster(cluster).unwrap();
    let endpoint = &cluster.all()[0];
    PoolKey::clone(&upstreams.key(&cluster.settings, endpoint, protocol, b"app", store, live).unwrap())
}

async fn rest(pool: &H1Pool, key: &PoolKey, address: SocketAddr) {
    rest_for(pool, key, address, Watch::default()).await;
}

async fn rest_for(pool: &H1Pool, key: &PoolKey, address: SocketAddr, endpoint: Watch) {
    let io = Io::Tcp(TcpStream::connect(address).await.unwrap());
    let pooled = Pooled {
        wire: Wire::new(Stream::plain(io, Vec::new()), Limits::default(), ByteQueue::default()),
        peer: None,
        local: None,
        requests: 1,
        opened: Instant::now(),
        rested: Instant::now(),
        expires: None,
        permit: None,
        endpoint,
    };
    pool.give(key, pooled, Duration::ZERO, None, Instant::now());
}

#[tokio::test]
async fn two_identities_never_share_a_connection() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let ca = TestCa::new(SystemTime::now());
    let roots = SecretContent::Trust(ca.credential("shop", "web").roots_pem().into_bytes().into());
    let app = "spiffe://cluster.local/ns/shop/sa/app";
    let other = "spiffe://cluster.local/ns/shop/sa/other";
    let live = publish(
        &Live::empty(),
        vec![
            mk_secret("default", &ca.credential("shop", "web")),
            mk_secret("second", &ca.credential("shop", "batch")),
            Resource::Secret(Secret { name: Str::from("ROOTCA"), content: roots }),
            mk_secured("web", address, "default", app, "app"),
            mk_secured("web-again", address, "default", app, "app"),
            mk_secured("batch", address, "second", app, "app"),
            mk_secured("other-peer", address, "default", other, "app"),
            mk_secured("other-name", address, "default", app, "elsewhere"),
            mk_secured("plaintext", address, "", "", ""),
        ],
    );
    let (upstreams, store) = (Upstreams::default(), TlsStore::default());
    let key = |cluster: &str| key_of(&upstreams, &live, &store, cluster, Protocol::Http1);
    let pool = &upstreams.h1;
    for (of, others) in [
        ("web", ["batch", "other-peer", "other-name", "plaintext"]),
        ("batch", ["web", "other-peer", "other-name", "plaintext"]),
        ("plaintext", ["web", "batch", "other-peer", "other-name"]),
    ] {
        rest(pool, &key(of), address).await;
        for other in others {
            assert!(pool.take(&key(other), Instant::now()).is_none(), "{other} got a connection of {of}");
        }
        assert!(pool.take(&key(of), Instant::now()).is_some(), "{of} lost its connection");
    }
    // Another protocol to the same endpoint under the same identity.
    assert!(key("web") != key_of(&upstreams, &live, &store, "web", Protocol::Http2));
    // The test can tell: what is equal in everything shares.
    rest(pool, &key("web"), address).await;
    assert!(pool.take(&key("web-again"), Instant::now()).is_some());
}

#[tokio::test]
async fn a_new_certificate_leaves_connections_of_the_old_one_behind() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let ca = TestCa::new(SystemTime::now());
    let roots = SecretContent::Trust(ca.credential("shop", "web").roots_pem().into_bytes().into());
    let before = publish(
        &Live::empty(),
        vec![
            mk_secret("default", &ca.credential("shop", "web")),
            Resource::Secret(Secret { name: Str::from("ROOTCA"), content: roots }),
            mk_secured("web", address, "default", "spiffe://cluster.local/ns/shop/sa/app", "app"),
        ],
    );
    let (upstreams, store) = (Upstreams::default(), TlsStore::default());
    let old = key_of(&upstreams, &before, &store, "web", Protocol::Http1);
    rest(&upstreams.h1, &old, address).await;
    let after = publish(&before, vec![mk_secret("default", &ca.credential("shop", "renamed"))]);
    upstreams.forget_secured();
    assert!(upstreams.h1.is_empty());
    assert!(key_of(&upstreams, &after, &store, "web", Protocol::Http1) != old);
}

#[tokio::test]
async fn a_connection_does_not_rest_for_an_endpoint_that_is_gone() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let live = publish(&Live::empty(), vec![mk_secured("plaintext", address, "", "", "")]);
    let (upstreams, store) = (Upstreams::default(), TlsStore::default());
    let key = key_of(&upstreams, &live, &store, "plaintext", Protocol::Http1);
    let endpoint = |live: &Live| live.plan.cluster("plaintext").map(|cluster| cluster.all()[0].watch()).unwrap();
    rest_for(&upstreams.h1, &key, address, endpoint(&live)).await;
    let next = publish(&live, vec![mk_secured("plaintext", address, "", "", "")]);
    drop(live);
    upstreams.h1.sweep(Instant::now());
    assert_eq!(upstreams.h1.len(), 1, "the next plan has the endpoint too");
    drop(next);
    upstreams.h1.sweep(Instant::now());
    assert!(upstreams.h1.is_empty());
}
