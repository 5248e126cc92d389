use mesh_api::codes::Code;
use mesh_api_rt::metrics::Metrics;
use serde_json::Value;

use super::*;
use crate::kube::fake::Objects;
use crate::owner::Owner;
use crate::push::registry::tests::mk_metrics;

const PATH: &str = "/apis/networking.istio.io/v1/namespaces/shop/virtualservices/web";

fn key() -> ObjectKey {
    ObjectKey::new(Kind::VirtualService, "shop", "web")
}

fn mk_finding() -> Finding {
    Finding::new(Code::InvalidHost, "spec.hosts[0]", "is no host").on(key().in_cluster("Kubernetes"))
}

fn mk_standing(objects: &Objects, revision: &str) -> Arc<Standing> {
    Arc::new(Standing::new(objects.client(), &Owner::new("istio-system", revision)))
}

fn mk_writer(objects: &Objects) -> StatusWriter {
    StatusWriter {
        client: objects.client(),
        standing: mk_standing(objects, "default"),
        findings: Arc::new(Findings::new(mk_metrics())),
        published: watch::channel(None).1,
        ask: mpsc::channel(1).0,
        metrics: Metrics::new().register().unwrap(),
    }
}

fn mk_object(labels: Value) -> Value {
    json!({
        "apiVersion": "networking.istio.io/v1", "kind": "VirtualService",
        "metadata": {"name": "web", "namespace": "shop", "generation": 4, "labels": labels}, "spec": {},
    })
}

#[test]
fn only_what_is_new_is_due() {
    let objects: BTreeMap<ObjectKey, i64> = [(key(), 1)].into();
    let first = due(&objects, &[], &Said::new());
    assert_eq!(first.len(), 1);
    let said: Said = first.into_iter().map(|(key, generation, verdict)| (key, (generation, verdict))).collect();
    assert!(due(&objects, &[], &said).is_empty());
    assert_eq!(due(&[(key(), 2)].into(), &[], &said).len(), 1, "an edit");
    let found = due(&objects, &[mk_finding()], &said);
    assert!(matches!(found.as_slice(), [(_, Some(1), verdict)] if !verdict.is_valid));
    // A malformed object is nowhere but in its finding.
    let malformed = due(&BTreeMap::new(), &[mk_finding()], &Said::new());
    assert!(matches!(malformed.as_slice(), [(at, None, _)] if *at == key()));
    // What is not the mesh's has no such status.
    let service = mk_finding().on(ObjectKey::new(Kind::Service, "shop", "web"));
    assert!(due(&BTreeMap::new(), &[service], &Said::new()).is_empty());
}

#[tokio::test]
async fn a_status_is_written_on_a_transition_and_not_again() {
    let objects = Objects::default();
    objects.put(PATH, mk_object(json!({})));
    let writer = mk_writer(&objects);
    let (bad, good) = (Verdict::of([&mk_finding()]), Verdict::of([]));
    for _ in 0..3 {
        writer.object(&key(), &bad).await.unwrap();
    }
    assert_eq!(objects.writes(), [format!("PATCH {PATH}/status")]);
    let status = objects.get(PATH).unwrap()["status"].clone();
    assert_eq!((&status["observedGeneration"], &status["conditions"][0]["status"]), (&json!(4), &json!("False")));
    writer.object(&key(), &good).await.unwrap();
    assert_eq!(objects.writes().len(), 1);
    // An object that is gone is no failure.
    objects.remove(PATH);
    writer.object(&key(), &bad).await.unwrap();
}

#[tokio::test]
async fn objects_of_other_revisions_are_left_alone() {
    let objects = Objects::default();
    let writer = mk_writer(&objects);
    for (labels, writes) in
        [(json!({"istio.io/rev": "canary"}), 0), (json!({"istio.io/rev": "default"}), 1), (json!({}), 1)]
    {
        objects.put(PATH, mk_object(labels));
        writer.object(&key(), &Verdict::of([])).await.unwrap();
        assert_eq!(objects.writes().len(), writes);
    }
    let canary = StatusWriter { standing: mk_standing(&objects, "canary"), ..mk_writer(&objects) };
    canary.object(&key(), &Verdict::of([&mk_finding()])).await.unwrap();
    assert!(objects.writes().is_empty(), "one without a revision is the default's");
}
