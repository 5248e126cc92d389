//! What one change leaves alone.

use super::*;
use crate::endpoint::InFlight;
use crate::plan::cluster::ClusterPlan;

fn cluster<'a>(plan: &'a Plan, name: &str) -> &'a Arc<ClusterPlan> {
    plan.cluster(name).unwrap()
}

#[test]
fn an_endpoint_change_touches_one_endpoint_set() {
    let before = sample();
    let change = mk_endpoints("a", &[("10.0.0.1:80", 1), ("10.0.0.3:80", 1)]);
    let after = next(&before, &upsert([Resource::Endpoints(change)]));
    let (old, new) = (cluster(&before, "a"), cluster(&after, "a"));
    assert!(!Arc::ptr_eq(old.endpoints().unwrap(), new.endpoints().unwrap()));
    assert!(Arc::ptr_eq(&old.settings, &new.settings) && Arc::ptr_eq(&old.state, &new.state));
    // The endpoint that stayed is the same handle; everything else is the same pointer.
    assert!(Arc::ptr_eq(&old.all()[0], &new.all()[0]));
    assert!(Arc::ptr_eq(cluster(&before, "b"), cluster(&after, "b")));
    assert!(Arc::ptr_eq(&before.listeners, &after.listeners));
    assert!(Arc::ptr_eq(&before.apart, &after.apart));
    assert!(Arc::ptr_eq(before.routes("80").unwrap(), after.routes("80").unwrap()));
    assert!(Arc::ptr_eq(before.routes("gw").unwrap(), after.routes("gw").unwrap()));
    assert!(Arc::ptr_eq(&before.secrets, &after.secrets));
}

#[test]
fn a_route_edit_touches_its_virtual_host_and_the_table() {
    let before = sample();
    let edited = mk_host("80/b:80", &["b"], vec![to_cluster("/", "a")]);
    let after = next(&before, &upsert([Resource::VirtualHost(edited)]));
    let (old, new) = (before.routes("80").unwrap(), after.routes("80").unwrap());
    let shared: Vec<_> = old.hosts().iter().zip(new.hosts()).map(|(a, b)| Arc::ptr_eq(a, b)).collect();
    assert_eq!(shared, [true, false]);
    assert!(Arc::ptr_eq(before.routes("gw").unwrap(), after.routes("gw").unwrap()));
    assert!(Arc::ptr_eq(cluster(&before, "a"), cluster(&after, "a")));
    assert!(Arc::ptr_eq(&before.listeners, &after.listeners));
}

#[test]
fn the_index_by_host_is_made_anew_only_for_other_domains() {
    let before = sample();
    let index = |plan: &Plan| plan.routes("80").unwrap().index_address();
    let edited = mk_host("80/b:80", &["b"], vec![to_cluster("/", "a")]);
    let after = next(&before, &upsert([Resource::VirtualHost(edited)]));
    assert_eq!(index(&before), index(&after));
    let renamed = mk_host("80/b:80", &["b", "b.shop"], vec![to_cluster("/", "a")]);
    let after = next(&after, &upsert([Resource::VirtualHost(renamed)]));
    assert_ne!(index(&before), index(&after));
    assert_eq!(after.routes("80").unwrap().find_host(b"b.shop").unwrap().name, text("80/b:80"));
    let after = next(&after, &remove(TypeUrl::VirtualHost, "80/a:80"));
    assert!(after.routes("80").unwrap().find_host(b"a").is_none());
    assert_eq!(after.routes("80").unwrap().find_host(b"b").unwrap().name, text("80/b:80"));
}

#[test]
fn an_inline_virtual_host_that_did_not_change_is_shared() {
    let hosts = |cluster| {
        let hosts = vec![
            mk_host("x", &["x"], vec![to_cluster("/", "a")]),
            mk_host("y", &["y"], vec![to_cluster("/", cluster)]),
        ];
        upsert([Resource::Routes(mk_routes("gw", hosts))])
    };
    let before = next(&sample(), &hosts("a"));
    let after = next(&before, &hosts("b"));
    let (old, new) = (before.routes("gw").unwrap(), after.routes("gw").unwrap());
    let shared: Vec<_> = old.hosts().iter().zip(new.hosts()).map(|(a, b)| Arc::ptr_eq(a, b)).collect();
    assert_eq!(shared, [true, false]);
}

#[test]
fn a_listener_edit_keeps_its_other_chains_and_other_listeners() {
    let chain = |port: u16, cluster| {
        let matches = ChainMatch { destination_port: Some(port), ..ChainMatch::default() };
        mk_tcp_chain(&port.to_string(), matches, &[(cluster, 1)])
    };
    let listener = |cluster| {
        upsert([Resource::Listener(mk_listener("in", "0.0.0.0:15006", vec![chain(1, "a"), chain(2, cluster)]))])
    };
    let before = next(&sample(), &listener("a"));
    let after = next(&before, &listener("b"));
    let chain = |plan: &Plan, name: &str| Arc::clone(plan.listener("in").unwrap().chain(name).unwrap());
    assert!(Arc::ptr_eq(&chain(&before, "1"), &chain(&after, "1")));
    assert!(!Arc::ptr_eq(&chain(&before, "2"), &chain(&after, "2")));
    assert!(Arc::ptr_eq(before.listener("80").unwrap(), after.listener("80").unwrap()));
}

#[test]
fn counters_survive_edits_of_their_cluster() {
    let before = sample();
    let held = InFlight::new(Arc::clone(&cluster(&before, "a").all()[0]));
    let limits = Limits::UNLIMITED;
    let _request = cluster(&before, "a").state.circuit.request(&limits);
    let mut edited = mk_cluster("a", Discovery::Eds);
    edited.balance = Balance::RoundRobin;
    let after = next(&before, &upsert([Resource::Cluster(edited)]));
    assert_eq!(cluster(&after, "a").settings.balance, Balance::RoundRobin);
    assert_eq!(cluster(&after, "a").all()[0].active(), 1);
    assert!(Arc::ptr_eq(&cluster(&before, "a").state, &cluster(&after, "a").state));
    drop(held);
    assert_eq!(cluster(&after, "a").all()[0].active(), 0);
}

#[test]
fn the_same_again_changes_nothing() {
    let before = sample();
    let after = next(&before, &upsert([Resource::Cluster(mk_cluster("a", Discovery::Eds))]));
    assert!(Arc::ptr_eq(cluster(&before, "a"), cluster(&after, "a")));
    let listener = || {
        upsert([Resource::Listener(mk_listener(
            "x",
            "0.0.0.0:9",
            vec![mk_tcp_chain("t", ChainMatch::default(), &[("a", 1)])],
        ))])
    };
    let before = next(&after, &listener());
    let after = next(&before, &listener());
    assert!(Arc::ptr_eq(before.listener("x").unwrap(), after.listener("x").unwrap()));
}

#[test]
fn a_route_may_come_before_its_cluster_and_stay_after_it() {
    let plan = next(
        &Plan::empty(),
        &upsert([Resource::Routes(mk_routes("r", vec![mk_host("h", &["*"], vec![to_cluster("/", "late")])]))]),
    );
    let slot = plan.reference("late").unwrap().slot;
    assert!(plan.cluster_at(slot).is_none());
    let with = next(&plan, &upsert([Resource::Cluster(mk_cluster("late", Discovery::Eds))]));
    assert_eq!(with.cluster_at(slot).unwrap().settings.name, "late");
    assert!(Arc::ptr_eq(plan.routes("r").unwrap(), with.routes("r").unwrap()));
    let without = next(&with, &remove(TypeUrl::Cluster, "late"));
    assert!(without.cluster_at(slot).is_none() && with.cluster_at(slot).is_some());
}

#[test]
fn endpoints_may_come_before_their_cluster() {
    let plan = next(&Plan::empty(), &upsert([Resource::Endpoints(mk_endpoints("late", &[("10.0.0.1:80", 1)]))]));
    assert!(plan.cluster("late").is_none());
    let plan = next(&plan, &upsert([Resource::Cluster(mk_cluster("late", Discovery::Eds))]));
    assert_eq!(plan.cluster("late").unwrap().all().len(), 1);
    let plan = next(&plan, &remove(TypeUrl::Endpoint, "late"));
    assert!(plan.cluster("late").unwrap().endpoints().is_none());
}

#[test]
fn a_thousand_clusters_come_and_go_without_leaving_slots() {
    let mut plan = sample();
    for round in 0..20 {
        let names: Vec<String> = (0..100).map(|n| format!("r{round}-{n}")).collect();
        plan = next(&plan, &upsert(names.iter().map(|name| Resource::Cluster(mk_cluster(name, Discovery::Eds)))));
        let removals = names.iter().map(|name| (TypeUrl::Cluster, text(name))).collect();
        plan = next(&plan, &Delta { removals, ..Delta::default() });
    }
    // 2,000 came and went; what routes refer to is still where it was.
    assert!(plan.clusters.vacant() <= 100, "{}", plan.clusters.vacant());
    let slot = plan.reference("a").unwrap().slot;
    assert_eq!(plan.cluster_at(slot).unwrap().settings.name, "a");
    assert_eq!(sample().reference("a").unwrap().slot, slot);
}
