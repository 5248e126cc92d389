use std::sync::atomic::{AtomicUsize, Ordering};

use mesh_api::codes::Code;
use mesh_api::finding::Finding;
use mesh_api::ids::ClusterId;
use mesh_api::parse::parse;
use mesh_api_rt::drain;
use mesh_api_xds::encoded::Encoded;
use meshd_core::proxy::ProxyView;
use meshd_core::translate::{Translation, Translator, Wanted};

use super::*;
use crate::push::registry::tests::{mk_metrics, mk_registered};
use crate::push::worker::Worker;

/// The real translator, which counts and can be told to panic.
#[derive(Default)]
struct Counting {
    translator: Translator<Encoded>,
    calls: AtomicUsize,
    /// Translations for the proxy of this id panic.
    panics_for: std::sync::Mutex<Option<&'static str>>,
}

impl Translate for Counting {
    fn translate(&self, snapshot: &Snapshot, proxy: &ProxyView, wanted: Wanted) -> Translation<Encoded> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        let panics = self.panics_for.lock().unwrap().is_some_and(|id| proxy.id == *id);
        assert!(!panics, "injected");
        self.translator.translate(snapshot, proxy, wanted)
    }

    fn affected(&self, step: &Step<'_>, proxies: &[&ProxyView]) -> Vec<Wanted> {
        Translate::affected(&self.translator, step, proxies)
    }
}

struct Bed {
    events: mpsc::Sender<Event>,
    published: watch::Receiver<Option<Published>>,
    outlets: Outlets,
    translate: Arc<Counting>,
    drain: drain::Trigger,
    _questions: mpsc::Sender<Question>,
}

fn mk_bed() -> Bed {
    let metrics = mk_metrics();
    let translate = Arc::new(Counting::default());
    let outlets = Outlets {
        registry: Registry::new(metrics.clone()),
        queue: Queue::new(metrics.clone()),
        translate: translate.clone(),
        findings: Arc::new(Findings::new(metrics.clone())),
        metrics: metrics.clone(),
    };
    let (hub, published) = Hub::new([Str::from("a"), Str::from("b")], DebounceConfig::default(), outlets.clone());
    let (events, receiver) = mpsc::channel(64);
    let (ask, questions) = mpsc::channel(1);
    let (drain, watcher) = drain::channel();
    tokio::spawn(hub.run(receiver, questions, watcher));
    let worker =
        Worker { queue: outlets.queue.clone(), published: published.clone(), translate: translate.clone(), metrics };
    tokio::spawn(worker.run(drain.watcher()));
    Bed { events, published, outlets, translate, drain, _questions: ask }
}

impl Bed {
    async fn sync(&self) {
        for source in ["a", "b"] {
            self.events.send(Event::Synced { source: Str::from(source) }).await.unwrap();
        }
    }

    async fn change(&self, name: &str, port: u16) {
        let text = format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: shop}}\nspec: {{clusterIP: 10.96.0.1, ports: [{{name: http, port: {port}}}]}}\n"
        );
        let objects = parse(&text, "shop").objects;
        let upsert = |item: Result<mesh_api::parse::Item, _>| Change::Upsert {
            cluster: ClusterId::from("c"),
            object: item.unwrap().object,
        };
        let changes = objects.into_iter().map(upsert).collect();
        self.events.send(Event::Changed { received: now(), changes }).await.unwrap();
    }

    /// The next snapshot: its generation since the first one, and how many services it has.
    async fn next(&mut self) -> usize {
        self.published.changed().await.unwrap();
        self.published.borrow_and_update().as_ref().unwrap().snapshot.services.by_age.len()
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_is_published_before_every_source_is_synced() {
    let mut bed = mk_bed();
    bed.change("web", 80).await;
    bed.events.send(Event::Synced { source: Str::from("a") }).await.unwrap();
    bed.change("orders", 80).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(bed.published.borrow().is_none());
    bed.events.send(Event::Synced { source: Str::from("b") }).await.unwrap();
    assert_eq!(bed.next().await, 2);
}

#[tokio::test(start_paused = true)]
async fn a_burst_becomes_one_snapshot_and_a_lone_change_does_not_wait() {
    let mut bed = mk_bed();
    bed.sync().await;
    bed.next().await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let begun = tokio::time::Instant::now();
    bed.change("a", 80).await;
    assert_eq!((bed.next().await, begun.elapsed()), (1, Duration::ZERO));
    for name in ["b", "c", "d"] {
        bed.change(name, 80).await;
    }
    assert_eq!(bed.next().await, 4);
    assert_eq!(begun.elapsed(), DebounceConfig::default().quiet);
    // What changes nothing is no snapshot.
    bed.change("d", 80).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(!bed.published.has_changed().unwrap());
}

#[tokio::test(start_paused = true)]
async fn findings_come_through_without_a_change() {
    let bed = mk_bed();
    bed.sync().await;
    let findings = vec![Finding::new(Code::Syntax, "", "is not YAML").at("a.yaml:1")];
    let change = Change::Findings { origin: Str::from("a.yaml"), findings };
    bed.events.send(Event::Changed { received: now(), changes: vec![change] }).await.unwrap();
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert_eq!(bed.outlets.findings.now().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_panic_in_one_translation_leaves_that_proxy_as_it_was_and_serves_the_others() {
    let mut bed = mk_bed();
    bed.sync().await;
    bed.next().await;
    let (a, b) = (mk_registered(&bed.outlets.registry, "a"), mk_registered(&bed.outlets.registry, "b"));
    for registered in [&a, &b] {
        bed.outlets.queue.push(registered.connection(), Wanted::all(), &[], now());
        registered.connection().offer().await;
        registered.connection().adopted();
    }
    *bed.translate.panics_for.lock().unwrap() = Some("a");
    let before = a.connection().delivered();
    bed.change("web", 80).await;
    let offer = b.connection().offer().await;
    assert_eq!(&*offer.set.changes, ["1"]);
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert!(Arc::ptr_eq(&before, &a.connection().delivered()));
    assert_eq!(bed.outlets.metrics.internal_errors.get(), 1);
    assert!(!a.connection().is_behind());
    // The next change reaches it, and with it what it missed.
    *bed.translate.panics_for.lock().unwrap() = None;
    bed.change("web", 81).await;
    let offer = a.connection().offer().await;
    assert_eq!(offer.through, ChangeId(2));
    let clusters = offer.set.of(mesh_api_xds::type_url::TypeUrl::Cluster);
    assert!(clusters.get("outbound|81||web.shop.svc.cluster.local").is_some());
    assert!(clusters.get("outbound|80||web.shop.svc.cluster.local").is_none());
}

#[tokio::test(start_paused = true)]
async fn whom_a_change_does_not_concern_is_not_translated_for() {
    let mut bed = mk_bed();
    bed.sync().await;
    bed.next().await;
    let a = mk_registered(&bed.outlets.registry, "a");
    bed.outlets.queue.push(a.connection(), Wanted::all(), &[], now());
    a.connection().offer().await;
    let calls = bed.translate.calls.load(Ordering::Relaxed);
    let change = Change::Upsert {
        cluster: ClusterId::from("c"),
        object: mesh_api::object::Object::<mesh_api::crd::core::namespace::Namespace>::default().into(),
    };
    bed.events.send(Event::Changed { received: now(), changes: vec![change] }).await.unwrap();
    bed.next().await;
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert_eq!(bed.translate.calls.load(Ordering::Relaxed), calls);
    assert_eq!(bed.outlets.metrics.spared.get(), 1);
    let rollout = bed.outlets.registry.rollout();
    assert!(rollout.change_status(ChangeId(1)).unwrap().done, "a change that concerns nobody is done");
    drop(rollout);
    drop(bed.drain);
}
