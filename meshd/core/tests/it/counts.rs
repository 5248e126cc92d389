//! Exact numbers of translations and bytes: no clock.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::net::IpAddr;
use std::sync::Arc;

use mesh_api_xds::encoded::{Encoded, TypeSet};
use mesh_api_xds::type_url::TypeUrl;
use meshd_core::proxy::ProxyView;
use meshd_core::snapshot::Snapshot;
use meshd_core::translate::affects::Impact;
use meshd_core::translate::{Counts, Translation, Translator, Wanted};
use meshd_core::world::{ChangeSet, World};

use crate::fixture::{ProxySpec, mk_objects, mk_world, upsert};

const SERVICES: usize = 1000;
const PROXIES: usize = 100;

fn slice(number: usize, last_byte: usize) -> String {
    format!(
        "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {{name: s{number}, namespace: shop, labels: {{kubernetes.io/service-name: s{number}}}}}\n\
         addressType: IPv4\nports: [{{name: http, port: 8080}}]\nendpoints:\n- addresses: [10.{}.{}.{last_byte}]\n",
        number / 200,
        number % 200
    )
}

fn mk_mesh() -> World {
    let mut text = String::new();
    for number in 0..SERVICES {
        write!(
            text,
            "---\napiVersion: v1\nkind: Service\nmetadata: {{name: s{number}, namespace: shop}}\n\
             spec: {{clusterIP: 10.96.{}.{}, ports: [{{name: http, port: 80, targetPort: 8080}}]}}\n---\n{}",
            number / 250,
            number % 250,
            slice(number, 1)
        )
        .unwrap();
    }
    mk_world(&mk_objects(&text, "generated"))
}

fn mk_proxies() -> Vec<ProxyView> {
    let spec = "{name: p, labels: {app: web}}";
    let spec: ProxySpec = serde_yaml_ng::from_str(spec).unwrap();
    let numbers = 0..u8::try_from(PROXIES).unwrap();
    // Pods of twenty deployments: labels differ, and no object asks for them.
    numbers
        .map(|number| ProxyView {
            ips: Arc::from([IpAddr::from([10, 200, 0, number])]),
            name: format!("p{number}").into(),
            labels: [("app", format!("web{}", number % 20))].into_iter().collect(),
            ..spec.view()
        })
        .collect()
}

/// What goes out when a set takes the place of another, and how much.
fn sent(old: &TypeSet, new: &TypeSet) -> (usize, usize) {
    let changed = new.items().iter().filter(|item| old.get(&item.name).map(|old| old.version) != Some(item.version));
    changed.fold((0, 0), |(count, bytes), item| (count + 1, bytes + item.bytes.len()))
}

fn difference(before: Counts, after: Counts) -> Counts {
    Counts {
        clusters: after.clusters - before.clusters,
        endpoints: after.endpoints - before.endpoints,
        hosts: after.hosts - before.hosts,
        tables: after.tables - before.tables,
        others: after.others - before.others,
        lists: after.lists - before.lists,
    }
}

struct Bench {
    world: World,
    snapshot: Snapshot,
    translator: Translator<Encoded>,
    proxies: Vec<ProxyView>,
    served: Vec<Translation<Encoded>>,
}

impl Bench {
    fn new() -> Self {
        let world = mk_mesh();
        let snapshot = Snapshot::build(&world, 0);
        let translator = Translator::default();
        let proxies = mk_proxies();
        let served = proxies.iter().map(|proxy| translator.translate(&snapshot, proxy, Wanted::all())).collect();
        Self { world, snapshot, translator, proxies, served }
    }

    /// Applies objects, translates for whom it concerns: resources made, responses' resources and bytes, types sent.
    fn step(&mut self, text: &str) -> (Counts, usize, usize, BTreeSet<TypeUrl>) {
        let mut changes = ChangeSet::default();
        for object in mk_objects(text, "generated") {
            changes.merge(self.world.apply(upsert(&object)));
        }
        let next = Snapshot::next(&self.snapshot, &self.world, &changes);
        let before = self.translator.counts();
        let impact = Impact::between(&self.snapshot, &next, &changes);
        let (mut count, mut bytes, mut types) = (0, 0, BTreeSet::new());
        for (proxy, served) in self.proxies.iter().zip(&mut self.served) {
            let wanted = impact.wanted(proxy, &self.translator);
            if wanted.is_nothing() {
                continue;
            }
            let translation = self.translator.translate(&next, proxy, wanted);
            for type_url in TypeUrl::CONFIG {
                let Some(new) = translation.sets.of(type_url) else { continue };
                let old = served.sets.of(type_url).clone().unwrap_or_default();
                let (resources, length) = sent(&old, new);
                count += resources;
                bytes += length;
                types.insert(type_url);
                *served.sets.of_mut(type_url) = Some(Arc::clone(new));
            }
        }
        drop(impact);
        self.snapshot = next;
        (difference(before, self.translator.counts()), count, bytes, types)
    }
}

#[test]
fn one_endpoint_change_is_one_translation_and_one_resource_for_each_proxy() {
    let mut bench = Bench::new();
    let first = bench.translator.counts();
    // Every resource was made once, whatever the number of proxies: a cluster, an endpoint set and a virtual host for each
    // service; one table and its catch-all; one listener for the port, two virtual ones, three fixed clusters.
    let expect = Counts { clusters: 1000, endpoints: 1000, hosts: 1001, tables: 1, others: 6, lists: 7 };
    assert_eq!(first, expect);
    let (made, resources, bytes, types) = bench.step(&slice(7, 2));
    assert_eq!(made, Counts { endpoints: 1, lists: 1, ..Counts::default() });
    assert_eq!(types, BTreeSet::from([TypeUrl::Endpoint]));
    assert_eq!(resources, PROXIES);
    let one = bench.served[0].sets.of(TypeUrl::Endpoint).as_ref().unwrap();
    let one = one.get("outbound|80||s7.shop.svc.cluster.local").unwrap().bytes.len();
    assert_eq!(bytes, PROXIES * one);
    // All proxies share one set.
    let sets: BTreeSet<_> =
        bench.served.iter().map(|served| served.sets.of(TypeUrl::Endpoint).as_ref().map(Arc::as_ptr)).collect();
    assert_eq!(sets.len(), 1);
}

#[test]
fn one_route_edit_is_one_virtual_host() {
    let mut bench = Bench::new();
    let route = "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: s7, namespace: shop}\n\
                 spec: {hosts: [s7], http: [{timeout: 3s, route: [{destination: {host: s7}}]}]}\n";
    let (made, resources, _, types) = bench.step(route);
    assert_eq!(made, Counts { hosts: 1, lists: 2, ..Counts::default() });
    assert_eq!(types, BTreeSet::from([TypeUrl::RouteConfiguration, TypeUrl::VirtualHost]));
    assert_eq!(resources, PROXIES);
    let (made, resources, ..) = bench.step(&route.replace("3s", "4s"));
    assert_eq!((made.hosts, resources), (1, PROXIES));
}

#[test]
fn a_change_that_nobody_sees_costs_nothing() {
    let mut bench = Bench::new();
    let private = "apiVersion: v1\nkind: Service\n\
                   metadata: {name: x, namespace: far, annotations: {networking.istio.io/exportTo: .}}\n\
                   spec: {clusterIP: 10.97.0.1, ports: [{name: http, port: 81}]}\n";
    let (made, resources, _, types) = bench.step(private);
    assert_eq!((made, resources, types), (Counts::default(), 0, BTreeSet::new()));
    let gateway = "apiVersion: networking.istio.io/v1\nkind: Gateway\nmetadata: {name: g, namespace: shop}\n\
                   spec: {selector: {istio: x}, servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: ['*']}]}\n";
    let (made, resources, _, types) = bench.step(gateway);
    assert_eq!((made, resources, types), (Counts::default(), 0, BTreeSet::new()));
    // The same slice once more is no change at all.
    let (made, ..) = bench.step(&slice(3, 1));
    assert_eq!(made, Counts::default());
}

#[test]
fn a_translation_that_panics_takes_nothing_with_it() {
    let bench = Bench::new();
    let translator = &bench.translator;
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let _held = translator.translate(&bench.snapshot, &bench.proxies[0], Wanted::all());
        panic!("injected");
    }));
    assert!(panicked.is_err());
    let again = translator.translate(&bench.snapshot, &bench.proxies[1], Wanted::all());
    assert_eq!(again.sets.of(TypeUrl::Cluster).as_ref().map(|set| set.len()), Some(SERVICES + 3));
}
