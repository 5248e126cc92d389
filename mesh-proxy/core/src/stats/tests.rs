use std::collections::BTreeMap;

use proptest::prelude::*;
use prost::Message as _;
use prost_types::value::Kind;
use prost_types::{Struct, Value};

use super::*;
use crate::flags::ResponseFlag;

fn mk_workload(name: &str) -> Workload {
    Workload {
        instance: format!("{name}-7d9f-abcde").into(),
        name: name.into(),
        namespace: "shop".into(),
        cluster: "Kubernetes".into(),
        service: name.into(),
        revision: "v1".into(),
        app: name.into(),
        version: "v1".into(),
        kind: WorkloadKind::Deployment,
    }
}

fn mk_context<'a>(reporter: Reporter, own: &'a Workload, peer: Option<&'a Workload>) -> Context<'a> {
    Context {
        reporter,
        own,
        peer,
        own_principal: "",
        peer_principal: "",
        service: None,
        cluster: "",
        route: "",
        host: "",
    }
}

const WEB: &str = "spiffe://cluster.local/ns/shop/sa/web";
const REVIEWS: &str = "spiffe://cluster.local/ns/books/sa/reviews";

fn text(labels: &FixedLabels, outcome: &Outcome) -> String {
    let mut text = String::new();
    labels.visit(outcome, |name, value| text += &format!("{name}={value:?}\n"));
    text
}

/// The whole label set of a request between two sidecars, as both report it.
#[test]
fn both_reporters_tell_the_same_story() {
    let (web, reviews) = (mk_workload("web"), mk_workload("reviews"));
    let service = ServiceRef {
        host: "reviews.books.svc.cluster.local".into(),
        name: "reviews".into(),
        namespace: "books".into(),
    };
    let outcome = Outcome::Http { grpc: false, response_code: 200, grpc_status: None, flags: Flags::EMPTY };
    let source = FixedLabels::new(&Context {
        own_principal: WEB,
        peer_principal: REVIEWS,
        service: Some(&service),
        cluster: "outbound|9080||reviews.books.svc.cluster.local",
        host: "reviews:9080",
        ..mk_context(Reporter::Source, &web, Some(&reviews))
    });
    let expect = "reporter=\"source\"\n\
        source_workload=\"web\"\n\
        source_canonical_service=\"web\"\n\
        source_canonical_revision=\"v1\"\n\
        source_workload_namespace=\"shop\"\n\
        source_principal=\"spiffe://cluster.local/ns/shop/sa/web\"\n\
        source_app=\"web\"\n\
        source_version=\"v1\"\n\
        source_cluster=\"Kubernetes\"\n\
        destination_workload=\"reviews\"\n\
        destination_workload_namespace=\"books\"\n\
        destination_principal=\"spiffe://cluster.local/ns/books/sa/reviews\"\n\
        destination_app=\"reviews\"\n\
        destination_version=\"v1\"\n\
        destination_service=\"reviews.books.svc.cluster.local\"\n\
        destination_canonical_service=\"reviews\"\n\
        destination_canonical_revision=\"v1\"\n\
        destination_service_name=\"reviews\"\n\
        destination_service_namespace=\"books\"\n\
        destination_cluster=\"Kubernetes\"\n\
        connection_security_policy=\"unknown\"\n\
        request_protocol=\"http\"\n\
        response_code=\"200\"\n\
        grpc_response_status=\"\"\n\
        response_flags=\"-\"\n";
    assert_eq!(text(&source, &outcome), expect);
    let own = Workload { namespace: "books".into(), ..reviews };
    let destination = FixedLabels::new(&Context {
        own_principal: REVIEWS,
        peer_principal: WEB,
        service: Some(&service),
        cluster: "inbound|9080||",
        ..mk_context(Reporter::Destination, &own, Some(&web))
    });
    let expect = expect
        .replace("reporter=\"source\"", "reporter=\"destination\"")
        .replace("policy=\"unknown\"", "policy=\"mutual_tls\"");
    assert_eq!(text(&destination, &outcome), expect);
}

#[test]
fn strangers_are_unknown() {
    let own = mk_workload("reviews");
    let labels = FixedLabels::new(&mk_context(Reporter::Destination, &own, None));
    for (label, expect) in [
        (Label::SourceWorkload, "unknown"),
        (Label::SourceWorkloadNamespace, "unknown"),
        (Label::SourcePrincipal, "unknown"),
        (Label::SourceApp, "unknown"),
        (Label::SourceVersion, "unknown"),
        (Label::SourceCluster, "unknown"),
        (Label::SourceCanonicalService, "unknown"),
        (Label::SourceCanonicalRevision, "latest"),
        (Label::DestinationPrincipal, "unknown"),
        (Label::DestinationService, "reviews"),
        (Label::DestinationServiceName, "reviews"),
        (Label::ConnectionSecurityPolicy, "none"),
    ] {
        assert_eq!(labels.get(label), expect, "{label:?}");
    }
    // A node that does not say something leaves it empty; a peer's silence is "unknown".
    let nobody = Workload::default();
    let labels = FixedLabels::new(&mk_context(Reporter::Source, &nobody, None));
    assert_eq!((labels.get(Label::SourceWorkload), labels.get(Label::SourceCanonicalRevision)), ("", ""));
    assert_eq!(labels.get(Label::DestinationServiceNamespace), "unknown");
}

/// The namespace that a certificate proves goes before a claimed one.
#[test]
fn a_peer_cannot_claim_another_namespace() {
    let (own, peer) = (mk_workload("reviews"), Workload { namespace: "claimed".into(), ..mk_workload("web") });
    let context = mk_context(Reporter::Destination, &own, Some(&peer));
    assert_eq!(FixedLabels::new(&context).get(Label::SourceWorkloadNamespace), "claimed");
    let proven = FixedLabels::new(&Context { peer_principal: WEB, own_principal: REVIEWS, ..context });
    assert_eq!(proven.get(Label::SourceWorkloadNamespace), "shop");
}

#[test]
fn the_destination_service_has_fallbacks() {
    let own = mk_workload("web");
    let base = mk_context(Reporter::Source, &own, None);
    let service = ServiceRef { host: "db.shop.svc".into(), ..ServiceRef::default() };
    let check = |context: &Context<'_>, host: &str, name: &str| {
        let labels = FixedLabels::new(context);
        assert_eq!((labels.get(Label::DestinationService), labels.get(Label::DestinationServiceName)), (host, name));
    };
    check(&base, "unknown", "unknown");
    check(&Context { host: "a.example", ..base }, "a.example", "a.example");
    check(&Context { host: "a.example", route: "allow_any", ..base }, "a.example", "PassthroughCluster");
    check(&Context { host: "a.example", route: "block_all", ..base }, "a.example", "BlackHoleCluster");
    check(&Context { cluster: "PassthroughCluster", ..base }, "unknown", "PassthroughCluster");
    check(&Context { cluster: "InboundPassthroughCluster", ..base }, "unknown", "InboundPassthroughCluster");
    check(&Context { service: Some(&service), host: "x", ..base }, "db.shop.svc", "db");
}

#[test]
fn outcomes_differ_by_protocol() {
    let own = mk_workload("web");
    let labels = FixedLabels::new(&mk_context(Reporter::Source, &own, None));
    let tail = |outcome| {
        let text = text(&labels, &outcome);
        text.split_once("request_protocol").map(|(_, tail)| tail.to_owned()).unwrap()
    };
    let flags = Flags::from(ResponseFlag::UpstreamConnectFailure).with(ResponseFlag::RetriesExhausted);
    assert_eq!(
        tail(Outcome::Http { grpc: true, response_code: 200, grpc_status: Some(14), flags }),
        "=\"grpc\"\nresponse_code=\"200\"\ngrpc_response_status=\"14\"\nresponse_flags=\"UF,URX\"\n"
    );
    assert_eq!(
        tail(Outcome::Http { grpc: true, response_code: 0, grpc_status: None, flags: Flags::EMPTY }),
        "=\"grpc\"\nresponse_code=\"0\"\ngrpc_response_status=\"\"\nresponse_flags=\"-\"\n"
    );
    assert_eq!(
        tail(Outcome::Http { grpc: false, response_code: 503, grpc_status: Some(3), flags: Flags::EMPTY }),
        "=\"http\"\nresponse_code=\"503\"\ngrpc_response_status=\"\"\nresponse_flags=\"-\"\n"
    );
    assert_eq!(tail(Outcome::Tcp { flags: Flags::EMPTY }), "=\"tcp\"\nresponse_flags=\"-\"\n");
}

#[test]
fn owners_and_nodes_are_understood() {
    let check = |owner: &str, kind| assert_eq!(WorkloadKind::of_owner(owner, "web"), kind, "{owner}");
    check("kubernetes://apis/apps/v1/namespaces/shop/deployments/web", WorkloadKind::Deployment);
    check("kubernetes://apis/batch/v1/namespaces/shop/cronjobs/web", WorkloadKind::CronJob);
    check("kubernetes://apis/v1/namespaces/shop/pods/web", WorkloadKind::Pod);
    check("kubernetes://apis/apps/v1/namespaces/shop/statefulsets/web", WorkloadKind::Unknown);
    check("kubernetes://apis/apps/v1/namespaces/shop/deployments/other", WorkloadKind::Unknown);
    check("", WorkloadKind::Unknown);
    let metadata = NodeMetadata {
        name: "web-7d9f-abcde".into(),
        namespace: "shop".into(),
        workload_name: "web".into(),
        owner: "kubernetes://apis/apps/v1/namespaces/shop/deployments/web".into(),
        cluster_id: "Kubernetes".into(),
        labels: [
            (peer::CANONICAL_NAME, "web"),
            (peer::CANONICAL_REVISION, "v1"),
            ("app", "web"),
            ("version", "v1"),
            ("x", "y"),
        ]
        .map(|(key, value)| (key.into(), value.into()))
        .into(),
        ..NodeMetadata::default()
    };
    assert_eq!(Workload::of_node(&metadata), mk_workload("web"));
}

fn texts(content: &Struct) -> BTreeMap<&str, &Kind> {
    content.fields.iter().filter_map(|(key, value)| Some((key.as_str(), value.kind.as_ref()?))).collect()
}

fn string(text: &str) -> Value {
    Value { kind: Some(Kind::StringValue(text.to_owned())) }
}

/// What we write is what a protobuf library reads, under Istio's keys.
#[test]
fn the_header_is_a_protobuf_struct_with_istios_keys() {
    let bytes = base64::decode(mk_workload("web").to_header().as_bytes()).unwrap();
    let content = Struct::decode(bytes.as_slice()).unwrap();
    let text = |text: &str| Kind::StringValue(text.to_owned());
    let labels = [("app", "web"), ("version", "v1"), (peer::CANONICAL_NAME, "web"), (peer::CANONICAL_REVISION, "v1")];
    let labels = Struct { fields: labels.map(|(key, value)| (key.to_owned(), string(value))).into() };
    let expect = [
        ("CLUSTER_ID", text("Kubernetes")),
        ("LABELS", Kind::StructValue(labels)),
        ("NAME", text("web-7d9f-abcde")),
        ("NAMESPACE", text("shop")),
        ("OWNER", text("kubernetes://apis/apps/v1/namespaces/shop/deployments/web")),
        ("WORKLOAD_NAME", text("web")),
    ];
    assert_eq!(texts(&content), expect.iter().map(|(key, kind)| (*key, kind)).collect());
    // The beginning of headers as Istio's proxies send them.
    let header = Workload { cluster: "Kubernetes".into(), ..Workload::default() }.to_header();
    assert!(header.starts_with("ChoKCkNMVVNURVJfSUQSDBoKS3ViZXJuZXRl"), "{header}");
    assert_eq!(Workload::from_header(Workload::default().to_header().as_bytes()), Some(Workload::default()));
}

/// What a protobuf library writes is read, whatever else is in it.
#[test]
fn foreign_structs_are_read() {
    let labels = Struct {
        fields: [("app", "web"), (peer::CANONICAL_NAME, "web"), ("other", "x")]
            .map(|(key, value)| (key.to_owned(), string(value)))
            .into(),
    };
    let kind = |kind| Value { kind: Some(kind) };
    let list = prost_types::ListValue { values: vec![string("a"), kind(Kind::NullValue(0))] };
    let content = Struct {
        fields: [
            ("NAME", string("web-1")),
            ("NAMESPACE", string("shop")),
            ("WORKLOAD_NAME", string("web")),
            ("OWNER", string("kubernetes://apis/batch/v1/namespaces/shop/jobs/web")),
            ("LABELS", kind(Kind::StructValue(labels))),
            ("CLUSTER_ID", kind(Kind::NumberValue(7.0))),
            ("INSTANCE_IPS", kind(Kind::ListValue(list))),
            ("MESH_ID", kind(Kind::BoolValue(true))),
            ("LONG", string(&"x".repeat(300))),
        ]
        .map(|(key, value)| (key.to_owned(), value))
        .into(),
    };
    let header = base64::encode(&content.encode_to_vec());
    for text in [header.as_str(), header.trim_end_matches('=')] {
        assert_eq!(
            Workload::from_header(text.as_bytes()),
            Some(Workload {
                instance: "web-1".into(),
                name: "web".into(),
                namespace: "shop".into(),
                service: "web".into(),
                app: "web".into(),
                kind: WorkloadKind::Job,
                ..Workload::default()
            })
        );
    }
}

#[test]
fn headers_of_strangers_are_bounded() {
    let long = Workload { name: "x".repeat(300).into(), ..mk_workload("web") };
    assert_eq!(Workload::from_header(long.to_header().as_bytes()).unwrap().name, "");
    let many = Struct { fields: (0..300).map(|place| (format!("K{place}"), string("v"))).collect() };
    assert_eq!(Workload::from_struct(&many.encode_to_vec()), None);
    for bad in [&b""[..], b"!", b"Cg==", b"////", &[b'A'; 20_000]] {
        assert_eq!(Workload::from_header(bad), None);
    }
}

#[test]
fn baggage_names_a_workload() {
    let text = b"k8s.deployment.name=web;p=1, k8s.namespace.name=shop,k8s.cluster.name=Kubernetes,service.name=web,\
        service.version=v1,app.name=web,app.version=v1,k8s.instance.name=web-7d9f-abcde,unknown=1,novalue";
    assert_eq!(Workload::from_baggage(text), Some(mk_workload("web")));
    assert_eq!(Workload::from_baggage(b"k8s.cronjob.name=a").map(|w| w.kind), Some(WorkloadKind::CronJob));
    assert_eq!(Workload::from_baggage(b"user=1,session=2"), None);
    assert_eq!(Workload::from_baggage(b"\xff"), None);
}

proptest! {
    #[test]
    fn headers_round_trip(parts in prop::collection::vec("[a-z0-9.-]{0,20}", 8), kind in 0usize..4) {
        let mut parts = parts.into_iter().map(Str::from);
        let mut next = || parts.next().unwrap();
        let workload = Workload {
            instance: next(),
            name: next(),
            namespace: next(),
            cluster: next(),
            service: next(),
            revision: next(),
            app: next(),
            version: next(),
            kind: WorkloadKind::ALL[kind],
        };
        prop_assert_eq!(Workload::from_header(workload.to_header().as_bytes()), Some(workload));
    }

    #[test]
    fn noise_never_panics(noise in prop::collection::vec(any::<u8>(), 0..200), cut in any::<prop::sample::Index>(), flip in any::<u8>()) {
        let _ = Workload::from_struct(&noise);
        let _ = Workload::from_baggage(&noise);
        let mut bytes = mk_workload("web").to_struct();
        let place = cut.index(bytes.len());
        bytes[place] ^= flip;
        let ours = Workload::from_struct(&bytes);
        // Where both readers accept the damage, they read the same.
        if let (Ok(content), Some(ours)) = (Struct::decode(bytes.as_slice()), ours)
            && let Some(Kind::StringValue(name)) = content.fields.get("WORKLOAD_NAME").and_then(|value| value.kind.as_ref())
        {
            prop_assert_eq!(ours.name.as_str(), name.as_str());
        }
        bytes.truncate(place);
        let _ = Workload::from_struct(&bytes);
    }
}
