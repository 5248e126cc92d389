//! Random changes over the objects of all cases. Several cases define the same object differently, so that an upsert may be
//! a creation, a change or nothing.

use std::collections::BTreeMap;
use std::sync::Arc;

use mesh_api::ids::{ClusterId, ObjectKey};
use mesh_api::kinds::Kind;
use mesh_api::names::DEFAULT_CLUSTER_ID;
use mesh_api::object::AnyObject;
use mesh_api_xds::ir::Resource;
use mesh_api_xds::type_url::TypeUrl;
use meshd_core::proxy::ProxyView;
use meshd_core::snapshot::Snapshot;
use meshd_core::translate::affects::{Impact, may_affect};
use meshd_core::translate::{Translator, Wanted};
use meshd_core::world::{Change, ChangeSet, World};
use proptest::prelude::*;

use crate::fixture::{Case, mk_world, upsert};

struct Pool {
    objects: Vec<AnyObject>,
    proxies: Vec<ProxyView>,
}

impl Pool {
    fn new() -> Self {
        let cases = Case::all();
        let mut proxies: Vec<ProxyView> = Vec::new();
        for proxy in cases.iter().flat_map(|case| &case.proxies).map(|proxy| proxy.view()) {
            if !proxies.contains(&proxy) {
                proxies.push(proxy);
            }
        }
        Self { objects: cases.into_iter().flat_map(|case| case.objects).collect(), proxies }
    }
}

fn key_of(object: &AnyObject) -> ObjectKey {
    object.key().in_cluster(ClusterId::from(DEFAULT_CLUSTER_ID))
}

/// Position in the pool, and whether the object goes.
fn any_steps() -> impl Strategy<Value = Vec<(prop::sample::Index, bool)>> {
    proptest::collection::vec((any::<prop::sample::Index>(), proptest::bool::weighted(0.3)), 1..30)
}

fn apply(world: &mut World, pool: &Pool, (index, gone): (prop::sample::Index, bool)) -> ChangeSet {
    let object = index.get(&pool.objects);
    world.apply(if gone { Change::Delete(key_of(object)) } else { upsert(object) })
}

type Served = BTreeMap<(TypeUrl, String), Arc<Resource>>;

fn served(translator: &Translator<Resource>, snapshot: &Snapshot, proxy: &ProxyView) -> (Served, Vec<String>) {
    let translation = translator.translate(snapshot, proxy, Wanted::all());
    let mut all = Served::new();
    for (type_url, set) in translation.sets.iter() {
        for resource in set.iter().flat_map(|set| set.iter()) {
            let twice = all.insert((type_url, resource.name().to_string()), resource.clone());
            assert!(twice.is_none(), "{type_url} {} twice for {}", resource.name(), proxy.id);
        }
    }
    (all, translation.findings.iter().map(ToString::to_string).collect())
}

fn findings(snapshot: &Snapshot) -> Vec<String> {
    snapshot.findings().iter().map(ToString::to_string).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    /// A snapshot made of the one before equals a snapshot made of nothing, and so does all that is served. A translator with
    /// a memory serves what one without serves.
    #[test]
    fn incremental_equals_rebuilt(steps in any_steps()) {
        let pool = Pool::new();
        let translator = Translator::<Resource>::default();
        let mut world = World::default();
        let mut snapshot = Snapshot::build(&world, 0);
        let mut alive = Vec::new();
        for step in steps {
            let changes = apply(&mut world, &pool, step);
            snapshot = Snapshot::next(&snapshot, &world, &changes);
            let rebuilt = Snapshot::build(&world, 0);
            prop_assert_eq!(findings(&snapshot), findings(&rebuilt));
            for proxy in &pool.proxies {
                let found = served(&translator, &snapshot, proxy);
                prop_assert_eq!(&found, &served(&Translator::default(), &rebuilt, proxy), "{}", proxy.id);
                alive.push(found);
            }
        }
    }

    /// The order in which the same objects arrive does not matter.
    #[test]
    fn any_order_gives_the_same_configuration(seed in proptest::collection::vec(any::<u32>(), 1..8), half in any::<bool>()) {
        let pool = Pool::new();
        // One definition of each object.
        let mut chosen: BTreeMap<ObjectKey, AnyObject> = BTreeMap::new();
        for object in &pool.objects {
            if half { chosen.insert(key_of(object), object.clone()); } else { chosen.entry(key_of(object)).or_insert_with(|| object.clone()); }
        }
        let ordered: Vec<AnyObject> = chosen.into_values().collect();
        let mut shuffled = ordered.clone();
        let mut state = seed.iter().fold(1u64, |sum, n| sum.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(u64::from(*n)));
        for position in (1..shuffled.len()).rev() {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            shuffled.swap(position, usize::try_from(state >> 33).unwrap() % (position + 1));
        }
        let expect = Snapshot::build(&mk_world(&ordered), 0);
        let mut world = World::default();
        let mut snapshot = Snapshot::build(&world, 0);
        for object in &shuffled {
            let changes = world.apply(upsert(object));
            snapshot = Snapshot::next(&snapshot, &world, &changes);
        }
        for proxy in &pool.proxies {
            let expect = served(&Translator::default(), &expect, proxy);
            prop_assert_eq!(served(&Translator::default(), &snapshot, proxy), expect, "{}", proxy.id);
        }
    }

    /// A type that is not wanted has not changed, and nothing is wanted that the table does not know.
    #[test]
    fn what_is_not_wanted_has_not_changed(start in any_steps(), steps in any_steps()) {
        let pool = Pool::new();
        let translator = Translator::<Resource>::default();
        let mut world = World::default();
        for step in start {
            apply(&mut world, &pool, step);
        }
        let mut prev = Snapshot::build(&world, 0);
        for step in steps {
            let changes = apply(&mut world, &pool, step);
            let next = Snapshot::next(&prev, &world, &changes);
            let impact = Impact::between(&prev, &next, &changes);
            for proxy in &pool.proxies {
                let wanted = impact.wanted(proxy, &translator);
                let (before, _) = served(&translator, &prev, proxy);
                let (after, _) = served(&translator, &next, proxy);
                for type_url in TypeUrl::CONFIG {
                    let of = |all: &Served| -> Vec<Arc<Resource>> {
                        all.iter().filter(|((known, _), _)| *known == type_url).map(|(_, r)| r.clone()).collect()
                    };
                    if !wanted.has(type_url) {
                        prop_assert_eq!(of(&before), of(&after), "{} {} after {:?}", proxy.id, type_url, changes);
                    }
                    let known = changes.keys.iter().any(|key| may_affect(key.kind, proxy.kind).has(type_url));
                    prop_assert!(!wanted.has(type_url) || known, "{} {} {:?}", proxy.id, type_url, changes);
                }
            }
            prev = next;
        }
    }
}

/// The property above is worth nothing for a kind that no case has.
#[test]
fn the_cases_have_objects_of_every_kind_that_acts() {
    let pool = Pool::new();
    for kind in Kind::ALL {
        let there = pool.objects.iter().any(|object| object.kind() == *kind);
        let acts = !matches!(kind, Kind::Namespace | Kind::WorkloadGroup | Kind::ProxyConfig);
        assert!(there || !acts, "no case has a {kind}");
    }
}
