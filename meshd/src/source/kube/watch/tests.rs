//! A scripted API server: what a real one does only on a bad day.

use std::collections::BTreeMap;

use ::kube::Client;
use ::kube::client::Body;
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::StreamBody;
use hyper::body::Frame;
use mesh_api::ids::{ClusterId, Revision};
use mesh_api_rt::drain::{self, Trigger};
use mesh_api_rt::metrics::Metrics;
use meshd_core::world::{Change, MeshConfigPlace};
use serde_json::{Value, json};
use tokio::sync::oneshot;
use tokio_stream::wrappers::ReceiverStream;

use super::super::{KubeSource, Viewer};
use super::*;
use crate::source::{Event as Tells, Source as _};

/// What the ends may be ahead of each other.
const QUEUE: usize = 64;

type Part = Result<Frame<Bytes>, std::io::Error>;
type Answer = Response<StreamBody<ReceiverStream<Part>>>;

/// The server's end of a request.
struct Asked {
    path: String,
    query: BTreeMap<String, String>,
    answer: oneshot::Sender<Answer>,
}

/// The server's end of a watch.
struct Following(mpsc::Sender<Part>);

struct Bed {
    asked: mpsc::Receiver<Asked>,
    told: mpsc::Receiver<Tells>,
    _drain: Trigger,
}

impl Asked {
    fn status(self, code: u16, reason: &str) {
        let body = json!({"kind": "Status", "code": code, "reason": reason, "message": "because"});
        self.send(code, &[body.to_string()]);
    }

    fn page(self, version: &str, next: &str, items: &[Value]) {
        let meta = json!({"resourceVersion": version, "continue": next});
        self.send(200, &[json!({"kind": "List", "metadata": meta, "items": items}).to_string()]);
    }

    fn follow(self) -> Following {
        Following(self.send(200, &[]))
    }

    fn send(self, code: u16, parts: &[String]) -> mpsc::Sender<Part> {
        let (send, parts_out) = mpsc::channel(QUEUE);
        for part in parts {
            send.try_send(Ok(Frame::data(Bytes::from(part.clone())))).unwrap();
        }
        let body = StreamBody::new(ReceiverStream::new(parts_out));
        let _ = self.answer.send(Response::builder().status(code).body(body).unwrap());
        send
    }

    #[track_caller]
    fn expect(self, path: &str, query: &[(&str, &str)]) -> Self {
        assert_eq!(self.path, path);
        for (name, value) in query {
            assert_eq!(self.query.get(*name).map(String::as_str), Some(*value), "{name} of {:?}", self.query);
        }
        self
    }

    fn is_watch(&self) -> bool {
        self.query.contains_key("watch")
    }
}

impl Following {
    fn event(&self, r#type: &str, object: &Value) {
        self.raw(&format!("{}\n", json!({"type": r#type, "object": object})));
    }

    fn raw(&self, text: &str) {
        self.0.try_send(Ok(Frame::data(Bytes::from(text.to_owned())))).unwrap();
    }

    fn breaks(self) {
        self.0.try_send(Err(std::io::Error::from(std::io::ErrorKind::ConnectionReset))).unwrap();
    }
}

fn mk_bed(kind: Kind) -> Bed {
    let (ask, asked) = mpsc::channel(QUEUE);
    let service = tower::service_fn(move |request: Request<Body>| {
        let ask = ask.clone();
        async move {
            let (answer, answered) = oneshot::channel();
            let query = request.uri().query().unwrap_or_default().split('&').filter_map(|pair| pair.split_once('='));
            let query = query.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
            let asked = Asked { path: request.uri().path().to_owned(), query, answer };
            ask.send(asked).await.map_err(|_| std::io::Error::other("the test is over"))?;
            answered.await.map_err(|_| std::io::Error::from(std::io::ErrorKind::ConnectionRefused))
        }
    });
    let mut metrics = Metrics::new();
    let viewer = Viewer {
        cluster: ClusterId::from("c"),
        revision: Revision::from("default"),
        config: MeshConfigPlace::default(),
    };
    let mut source = KubeSource::new(Client::new(service, "default"), viewer, metrics.register().unwrap());
    source.kinds = vec![kind];
    source.tags = false;
    let (tell, told) = mpsc::channel(64);
    let (trigger, watcher) = drain::channel();
    tokio::spawn(Box::new(source).run(tell, watcher));
    Bed { asked, told, _drain: trigger }
}

impl Bed {
    async fn asked(&mut self) -> Asked {
        self.asked.recv().await.unwrap()
    }

    /// What the hub is told next, in short words.
    async fn told(&mut self) -> Vec<String> {
        match self.told.recv().await.unwrap() {
            Tells::Synced { .. } => vec!["synced".to_owned()],
            Tells::Changed { changes, .. } => changes.iter().map(word).collect(),
        }
    }

    /// All that the hub is told until it is told this.
    async fn told_until(&mut self, last: &str) -> Vec<String> {
        let mut all = Vec::new();
        while !all.iter().any(|word| word == last) {
            all.extend(self.told().await);
        }
        all
    }

    /// Lists these objects at version 10 and returns the watch that follows.
    async fn listed(&mut self, items: &[Value]) -> Following {
        self.asked().await.page("10", "", items);
        self.told_until("synced").await;
        let watch = self.asked().await;
        assert!(watch.is_watch());
        watch.expect_version("10").follow()
    }
}

impl Asked {
    #[track_caller]
    fn expect_version(self, version: &str) -> Self {
        assert_eq!(self.query.get("resourceVersion").map(String::as_str), Some(version));
        self
    }
}

fn word(change: &Change) -> String {
    match change {
        Change::Upsert { object, .. } => format!("+{}", object.key().name),
        Change::Delete(key) => format!("-{}", key.name),
        Change::Resync { kind, .. } => format!("={kind}"),
        Change::Findings { findings, .. } if findings.is_empty() => "fine".to_owned(),
        Change::Findings { findings, .. } => {
            findings.iter().map(|finding| format!("!{}", finding.code.name())).collect::<Vec<_>>().join(" ")
        }
    }
}

fn service(name: &str, version: u32) -> Value {
    json!({
        "metadata": {"name": name, "namespace": "shop", "resourceVersion": version.to_string()},
        "spec": {"ports": [{"port": 80}]},
    })
}

#[tokio::test(start_paused = true)]
async fn pages_are_read_then_changes_are_followed() {
    let mut bed = mk_bed(Kind::Service);
    let first = bed.asked().await.expect("/api/v1/services", &[("limit", "500")]);
    first.page("7", "a token/+", &[service("a", 1), service("b", 2)]);
    assert_eq!(bed.told().await, ["+a", "+b"]);
    let second = bed.asked().await.expect("/api/v1/services", &[("limit", "500"), ("continue", "a%20token%2F%2B")]);
    second.page("7", "", &[service("c", 3)]);
    assert_eq!(bed.told_until("synced").await, ["+c", "synced"]);
    let watch = bed.asked().await.expect("/api/v1/services", &[("allowWatchBookmarks", "true")]);
    let watch = watch.expect_version("7").follow();
    watch.event("ADDED", &service("d", 8));
    assert_eq!(bed.told().await, ["+d"]);
    // What comes together takes effect together, even when a line comes in pieces.
    let (modified, deleted) = (
        json!({"type": "MODIFIED", "object": service("a", 9)}),
        json!({"type": "DELETED", "object": service("b", 10)}),
    );
    let lines = format!("{modified}\n{deleted}\n");
    let (head, tail) = lines.split_at(20);
    watch.raw(head);
    watch.raw(tail);
    assert_eq!(bed.told().await, ["+a", "-b"]);
}

#[tokio::test(start_paused = true)]
async fn a_broken_watch_goes_on_where_it_was() {
    let mut bed = mk_bed(Kind::Service);
    let watch = bed.listed(&[service("a", 1)]).await;
    watch.event("ADDED", &service("b", 11));
    assert_eq!(bed.told().await, ["+b"]);
    watch.event("BOOKMARK", &json!({"kind": "Service", "metadata": {"resourceVersion": "15"}}));
    watch.breaks();
    let watch = bed.asked().await.expect_version("15").follow();
    // A server that ends the watch in the middle of a line loses nothing either.
    watch.raw("{\"type\":\"ADD");
    drop(watch);
    let watch = bed.asked().await.expect_version("15").follow();
    watch.event("ADDED", &service("c", 16));
    assert_eq!(bed.told().await, ["+c"]);
}

#[tokio::test(start_paused = true)]
async fn when_the_history_is_gone_all_is_listed_and_what_is_missing_is_gone() {
    let mut bed = mk_bed(Kind::Service);
    let watch = bed.listed(&[service("a", 1), service("b", 2)]).await;
    watch.event("ERROR", &json!({"kind": "Status", "code": 410, "reason": "Expired", "message": "too old"}));
    let list = bed.asked().await;
    assert!(!list.is_watch());
    list.page("50", "", &[service("b", 2), service("c", 40)]);
    assert_eq!(bed.told_until("-a").await, ["+b", "+c", "-a"]);
    // The same as the answer to a watch that begins too late.
    bed.asked().await.expect_version("50").status(410, "Expired");
    let list = bed.asked().await;
    assert!(!list.is_watch());
    list.page("60", "", &[service("c", 40)]);
    assert_eq!(bed.told_until("-b").await, ["+c", "-b"]);
}

#[tokio::test(start_paused = true)]
async fn a_list_that_breaks_off_takes_nothing_away() {
    let mut bed = mk_bed(Kind::Service);
    let watch = bed.listed(&[service("a", 1), service("b", 2)]).await;
    watch.event("ERROR", &json!({"kind": "Status", "code": 410, "reason": "Gone"}));
    bed.asked().await.page("50", "more", &[service("a", 1)]);
    assert_eq!(bed.told().await, ["+a"]);
    bed.asked().await.status(500, "InternalError");
    let again = bed.asked().await;
    assert!(!again.is_watch() && !again.query.contains_key("continue"));
    again.page("51", "", &[service("a", 1), service("b", 2)]);
    assert_eq!(bed.told().await, ["+a", "+b"]);
}

#[tokio::test(start_paused = true)]
async fn a_broken_object_is_a_finding_and_the_watch_goes_on() {
    let mut bed = mk_bed(Kind::VirtualService);
    let route = |name: &str, hosts: Value| json!({"metadata": {"name": name, "namespace": "shop", "resourceVersion": "12"}, "spec": {"hosts": hosts}});
    let watch = bed.listed(&[route("a", json!(["a"])), route("b", json!("b"))]).await;
    watch.event("MODIFIED", &route("a", json!({"no": "list"})));
    let told = bed.told().await;
    assert!(told.contains(&"-a".to_owned()) && told.contains(&"!WrongType".to_owned()), "{told:?}");
    watch.event("ADDED", &route("c", json!(["c"])));
    assert!(bed.told().await.contains(&"+c".to_owned()));
    watch.event("MODIFIED", &route("a", json!(["a"])));
    let told = bed.told().await;
    assert!(told.contains(&"+a".to_owned()), "{told:?}");
}

#[tokio::test(start_paused = true)]
async fn a_kind_that_is_not_there_counts_as_empty_until_it_is() {
    let mut bed = mk_bed(Kind::VirtualService);
    for version in ["v1", "v1beta1", "v1alpha3"] {
        let path = format!("/apis/networking.istio.io/{version}/virtualservices");
        bed.asked().await.expect(&path, &[]).status(404, "NotFound");
    }
    assert_eq!(bed.told().await, ["synced"]);
    bed.asked().await.expect("/apis/networking.istio.io/v1/virtualservices", &[]).status(404, "NotFound");
    // An older cluster has only an older version.
    let asked = bed.asked().await.expect("/apis/networking.istio.io/v1beta1/virtualservices", &[]);
    asked.page("5", "", &[json!({"metadata": {"name": "a", "namespace": "shop"}, "spec": {"hosts": ["a"]}})]);
    assert!(bed.told().await.contains(&"+a".to_owned()));
    bed.asked().await.expect("/apis/networking.istio.io/v1beta1/virtualservices", &[("resourceVersion", "5")]);
}

#[tokio::test(start_paused = true)]
async fn only_an_api_server_can_say_that_a_kind_is_not_there() {
    let mut bed = mk_bed(Kind::Service);
    // Of a proxy in between, which knows nothing of kinds.
    for _ in 0..2 {
        bed.asked().await.send(404, &["<html>not found</html>".to_owned()]);
    }
    assert_eq!(bed.told().await, ["!Unreadable"]);
    // Of an API server about a group that it does not have.
    bed.asked().await.send(404, &["404 page not found\n".to_owned()]);
    let mut told = Vec::new();
    while told.len() < 2 {
        told.extend(bed.told().await);
    }
    told.sort();
    assert_eq!(told, ["fine", "synced"]);
}

#[tokio::test(start_paused = true)]
async fn a_kind_that_was_there_is_not_given_up_at_once() {
    let mut bed = mk_bed(Kind::Service);
    drop(bed.listed(&[service("a", 1)]).await);
    for _ in 0..ABSENCES {
        bed.asked().await.status(404, "NotFound");
    }
    assert_eq!(bed.told().await, ["-a"]);
}

#[tokio::test(start_paused = true)]
async fn what_is_refused_is_not_synced_and_is_said() {
    let mut bed = mk_bed(Kind::AuthorizationPolicy);
    bed.asked().await.status(403, "Forbidden");
    bed.asked().await.status(403, "Forbidden");
    assert_eq!(bed.told().await, ["!Unreadable"]);
    drop(bed.asked().await);
    assert!(bed.told.try_recv().is_err(), "a replica without its policies must not serve");
    bed.asked().await.page("1", "", &[]);
    let mut told = Vec::new();
    while told.len() < 2 {
        told.extend(bed.told().await);
    }
    told.sort();
    assert_eq!(told, ["fine", "synced"]);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_ends_every_watch_at_once_is_not_stormed() {
    let mut bed = mk_bed(Kind::Service);
    drop(bed.listed(&[]).await);
    let begun = tokio::time::Instant::now();
    for _ in 0..10 {
        drop(bed.asked().await.follow());
    }
    bed.asked().await;
    assert!(begun.elapsed() > Duration::from_secs(60), "{:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_silent_watch_is_begun_anew() {
    let mut bed = mk_bed(Kind::Service);
    let _silent = bed.listed(&[]).await;
    let again = bed.asked().await;
    assert!(again.is_watch());
}

#[tokio::test(start_paused = true)]
async fn only_the_mesh_configuration_and_possible_credentials_are_asked_for() {
    let mut bed = mk_bed(Kind::ConfigMap);
    let asked = bed.asked().await;
    asked.expect("/api/v1/namespaces/istio-system/configmaps", &[("fieldSelector", "metadata.name%3Distio")]);
    let mut bed = mk_bed(Kind::Secret);
    let asked = bed.asked().await;
    let selector = asked.query.get("fieldSelector").unwrap();
    assert!(selector.contains("type%21%3Dkubernetes.io%2Fservice-account-token"), "{selector}");
}
