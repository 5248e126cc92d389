use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use mesh_api::identity::TrustDomain;
use mesh_ca::authority::Authority as _;
use mesh_ca::bundle::TrustBundle;
use mesh_ca::testing::TestCa;
use serde_json::json;

use super::*;
use crate::kube::fake::Objects;

const CACERTS: &str = "/api/v1/namespaces/istio-system/secrets/cacerts";
const OWN: &str = "/api/v1/namespaces/istio-system/secrets/istio-ca-secret";

fn options() -> Options {
    Options::new(TrustDomain::default())
}

fn mk_ca(objects: &Objects) -> ClusterCa {
    ClusterCa::new(objects.client(), "istio-system", "default")
}

/// A Secret in Istio's layout.
fn mk_secret(entries: &[(&str, &str)]) -> serde_json::Value {
    let data: serde_json::Map<_, _> =
        entries.iter().map(|(key, value)| ((*key).to_owned(), json!(STANDARD.encode(value)))).collect();
    json!({"metadata": {"name": "x", "namespace": "istio-system"}, "data": data})
}

fn entry(objects: &Objects, path: &str, key: &str) -> String {
    let secret = objects.get(path).unwrap();
    String::from_utf8(STANDARD.decode(secret["data"][key].as_str().unwrap()).unwrap()).unwrap()
}

/// An authority that an operator brings.
struct Plug {
    cert: String,
    key: String,
    roots: TrustBundle,
}

impl Plug {
    async fn new() -> Self {
        let objects = Objects::default();
        let authority = mk_ca(&objects).follow(&options(), None, SystemTime::now()).await.unwrap().unwrap();
        let (cert, key) = (entry(&objects, OWN, "ca-cert.pem"), entry(&objects, OWN, "ca-key.pem"));
        Self { cert, key, roots: authority.bundle().clone() }
    }

    /// As a Secret, with these roots.
    fn secret(&self, roots: &TrustBundle) -> serde_json::Value {
        let roots = roots.to_pem();
        mk_secret(&[("ca-cert.pem", &self.cert), ("ca-key.pem", &self.key), ("root-cert.pem", &roots)])
    }
}

#[tokio::test]
async fn of_two_replicas_that_start_at_once_one_makes_the_root() {
    let objects = Objects::default();
    let now = SystemTime::now();
    let (options, mut replicas) = (options(), [mk_ca(&objects), mk_ca(&objects)]);
    let [a, b] = &mut replicas;
    let (a, b) = tokio::join!(a.follow(&options, None, now), b.follow(&options, None, now));
    let (a, b) = (a.unwrap().unwrap(), b.unwrap().unwrap());
    assert_eq!(a.bundle(), b.bundle());
    assert_eq!(a.path(), b.path());
    let posts = objects.writes();
    assert_eq!(posts.iter().filter(|write| write.starts_with("POST")).count(), 2, "both tried: {posts:?}");
    let secret = objects.get(OWN).unwrap();
    assert_eq!(secret["metadata"]["labels"]["app.kubernetes.io/managed-by"], "lateen");
    assert_eq!(secret["type"], "istio.io/ca-root");
    // And nothing more happens.
    assert!(replicas[0].follow(&options, Some(&a), now).await.unwrap().is_none());
    assert!(objects.writes().is_empty());
}

#[tokio::test]
async fn a_root_of_istio_is_shared_and_never_written() {
    let objects = Objects::default();
    let plug = Plug::new().await;
    objects.put(OWN, plug.secret(&plug.roots));
    let mut ca = mk_ca(&objects);
    let authority = ca.follow(&options(), None, SystemTime::now()).await.unwrap().unwrap();
    assert_eq!((authority.bundle(), ca.origin()), (&plug.roots, Some(Origin::Istio)));
    assert!(objects.writes().is_empty());
}

#[tokio::test]
async fn cacerts_counts_first_and_its_replacement_is_followed_when_roots_overlap() {
    let objects = Objects::default();
    let now = SystemTime::now();
    let (old, new) = (Plug::new().await, Plug::new().await);
    let both = old.roots.union(&new.roots);
    objects.put(CACERTS, old.secret(&old.roots));
    let mut ca = mk_ca(&objects);
    let mut present = ca.follow(&options(), None, now).await.unwrap().unwrap();
    assert_eq!((present.bundle(), ca.origin()), (&old.roots, Some(Origin::Plugged)));
    assert!(objects.get(OWN).is_none(), "no root of our own beside");
    // A root that comes alone, or issues before anybody knows it, is refused, and what issues goes on.
    for early in [new.secret(&new.roots), new.secret(&both)] {
        objects.put(CACERTS, early);
        let refused = ca.follow(&options(), Some(&present), now).await.unwrap_err();
        assert!(matches!(refused, ClusterError::NoOverlap { .. }), "{refused}");
    }
    // Step by step it is followed.
    for step in [old.secret(&both), new.secret(&both), new.secret(&new.roots)] {
        objects.put(CACERTS, step);
        present = ca.follow(&options(), Some(&present), now).await.unwrap().unwrap();
        assert!(ca.follow(&options(), Some(&present), now).await.unwrap().is_none());
    }
    assert_eq!(present.bundle(), &new.roots);
    // It is gone: that is said, and no other root is made.
    objects.remove(CACERTS);
    let gone = ca.follow(&options(), Some(&present), now).await.unwrap_err();
    assert!(matches!(gone, ClusterError::Gone { .. }) && objects.get(OWN).is_none(), "{gone}");
}

#[tokio::test]
async fn what_is_broken_is_named_and_not_replaced() {
    let objects = Objects::default();
    objects.put(CACERTS, mk_secret(&[("ca-cert.pem", TestCa::new(SystemTime::now()).bundle().to_pem().as_str())]));
    let error = mk_ca(&objects).follow(&options(), None, SystemTime::now()).await.unwrap_err();
    let said = mesh_api_rt::report::Report::new(&error).to_string();
    assert!(said.contains("istio-system/cacerts") && said.contains("ca-key.pem"), "{said}");
    assert!(objects.writes().is_empty());
}

#[tokio::test]
async fn a_server_that_refuses_is_quoted() {
    let client = crate::kube::fake::answering(|_| {
        (
            403,
            json!({"kind": "Status", "status": "Failure", "code": 403, "reason": "Forbidden", "message": "no get secrets"}),
        )
    });
    let error = ClusterCa::new(client, "istio-system", "default").follow(&options(), None, SystemTime::now()).await;
    let error = error.unwrap_err().to_string();
    assert_eq!(error, "cannot read Secret istio-system/cacerts: no get secrets");
}
