//! Shares, spill-over and avoidance, over fixed seeds.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use mesh_api::text::Str;
use mesh_api_xds::ir::cluster::Balance;
use mesh_api_xds::ir::endpoint::{self as ir, Address, EndpointTls, Health, Locality, LocalityEndpoints, WorkloadRef};
use proptest::prelude::*;

use super::set::{EndpointSet, Resolved};
use super::{Criteria, NoEndpoint, pick};
use crate::endpoint::{Endpoint, InFlight};
use crate::testing::rng;

const POLICIES: [Balance; 3] = [Balance::LeastRequest, Balance::RoundRobin, Balance::Random];

fn address(n: u8) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, n], 80))
}

fn mk_endpoint(n: u8, weight: u32, health: Health) -> ir::Endpoint {
    let tls = EndpointTls::Disabled;
    ir::Endpoint { address: Address::Socket(address(n)), weight, health, tls, workload: WorkloadRef::default() }
}

fn mk_group(priority: u32, weight: u32, endpoints: Vec<ir::Endpoint>) -> LocalityEndpoints {
    LocalityEndpoints { locality: Locality::default(), priority, weight, endpoints: endpoints.into() }
}

fn mk_ir(groups: Vec<LocalityEndpoints>) -> ir::EndpointSet {
    ir::EndpointSet { cluster: Str::from("c"), localities: groups.into() }
}

fn mk_set(groups: Vec<LocalityEndpoints>) -> EndpointSet {
    EndpointSet::build(&mk_ir(groups), &Resolved::new(), None)
}

fn weights(weights: &[u32]) -> Vec<ir::Endpoint> {
    (1..).zip(weights).map(|(n, &weight)| mk_endpoint(n, weight, Health::Healthy)).collect()
}

fn eject(set: &EndpointSet, n: u8) {
    set.find(address(n)).unwrap().live().ejected_until.store(u64::MAX, Relaxed);
}

fn criteria(balance: Balance, cursor: &AtomicU64) -> Criteria<'_> {
    Criteria { balance, panic_percent: 0, cursor, some_ejected: true, avoid: &[], now_nanos: 0 }
}

/// How often each endpoint is chosen in `picks` picks.
fn shares(set: &EndpointSet, balance: Balance, panic_percent: u32, picks: u32) -> BTreeMap<u8, u32> {
    let cursor = AtomicU64::new(0);
    let mut rng = rng(7);
    let criteria = Criteria { panic_percent, ..criteria(balance, &cursor) };
    let mut shares = BTreeMap::new();
    for _ in 0..picks {
        let chosen = pick(set, &criteria, &mut rng).expect("an endpoint");
        let SocketAddr::V4(v4) = chosen.address else { panic!("v4") };
        *shares.entry(v4.ip().octets()[3]).or_insert(0) += 1;
    }
    shares
}

/// Each count within `slack` (a share of the total) of what the weights say.
#[track_caller]
fn assert_shares(got: &BTreeMap<u8, u32>, expect: &[(u8, f64)], slack: f64) {
    let picks: f64 = got.values().map(|&n| f64::from(n)).sum();
    let total: f64 = expect.iter().map(|(_, weight)| weight).sum();
    assert_eq!(got.keys().copied().collect::<Vec<_>>(), expect.iter().map(|(n, _)| *n).collect::<Vec<_>>(), "{got:?}");
    for (n, weight) in expect {
        let share = f64::from(got[n]) / picks;
        assert!(
            (share - weight / total).abs() <= slack,
            "endpoint {n}: {share} instead of {} in {got:?}",
            weight / total
        );
    }
}

#[test]
fn every_policy_follows_weights_when_nothing_is_in_flight() {
    for policy in POLICIES {
        let even = mk_set(vec![mk_group(0, 0, weights(&[1, 1, 1]))]);
        assert_shares(&shares(&even, policy, 0, 30_000), &[(1, 1.0), (2, 1.0), (3, 1.0)], 0.01);
        let uneven = mk_set(vec![mk_group(0, 0, weights(&[1, 2, 7]))]);
        assert_shares(&shares(&uneven, policy, 0, 30_000), &[(1, 1.0), (2, 2.0), (3, 7.0)], 0.01);
    }
}

#[test]
fn round_robin_is_exact_when_weights_are_equal_and_close_when_not() {
    let even = mk_set(vec![mk_group(0, 0, weights(&[3, 3, 3]))]);
    assert_eq!(shares(&even, Balance::RoundRobin, 0, 300), [(1, 100), (2, 100), (3, 100)].into());
    let uneven = mk_set(vec![mk_group(0, 0, weights(&[1, 3]))]);
    for picks in [40_u32, 400, 4_000] {
        let first = shares(&uneven, Balance::RoundRobin, 0, picks)[&1];
        assert!(first.abs_diff(picks / 4) <= 2, "{first} of {picks}");
    }
}

#[test]
fn an_ejected_endpoints_turns_are_shared_by_all() {
    let set = mk_set(vec![mk_group(0, 0, weights(&[1, 1, 1, 1]))]);
    eject(&set, 2);
    for policy in POLICIES {
        assert_shares(&shares(&set, policy, 0, 30_000), &[(1, 1.0), (3, 1.0), (4, 1.0)], 0.015);
    }
}

#[test]
fn least_request_prefers_the_idle_and_scales_by_weight() {
    let set = mk_set(vec![mk_group(0, 0, weights(&[1, 1]))]);
    let _busy = InFlight::new(Arc::clone(set.find(address(1)).unwrap()));
    assert_eq!(shares(&set, Balance::LeastRequest, 0, 1_000), [(2, 1_000)].into());

    // Three in flight on weight 4 is less busy than one on weight 1.
    let set = mk_set(vec![mk_group(0, 0, weights(&[1, 4]))]);
    let endpoint = |n| Arc::clone(set.find(address(n)).unwrap());
    let _busy: Vec<_> = [1, 2, 2, 2].into_iter().map(|n| InFlight::new(endpoint(n))).collect();
    let got = shares(&set, Balance::LeastRequest, 0, 10_000);
    // Only where the light one was drawn and all second draws were it again does it win.
    assert!(got.get(&1).copied().unwrap_or(0) < 20, "{got:?}");
}

#[test]
fn a_full_queue_is_left_alone_by_least_request_under_load() {
    // Requests that never end: the numbers in flight must stay within one of each other.
    let set = mk_set(vec![mk_group(0, 0, weights(&[1, 1, 1, 1]))]);
    let cursor = AtomicU64::new(0);
    let mut rng = rng(3);
    let mut held = Vec::new();
    for _ in 0..400 {
        held.push(InFlight::new(pick(&set, &criteria(Balance::LeastRequest, &cursor), &mut rng).unwrap()));
    }
    let active: Vec<_> = set.all().iter().map(|host| host.active()).collect();
    assert!(active.iter().max().unwrap() - active.iter().min().unwrap() <= 6, "{active:?}");
}

#[test]
fn avoided_endpoints_are_used_only_when_there_is_no_other() {
    let set = mk_set(vec![mk_group(0, 0, weights(&[1, 1, 1]))]);
    let id = |n| set.find(address(n)).unwrap().id();
    let cursor = AtomicU64::new(0);
    for policy in POLICIES {
        let mut rng = rng(4);
        let two = [id(1), id(3)];
        let avoid_two = Criteria { avoid: &two, ..criteria(policy, &cursor) };
        assert!((0..500).all(|_| pick(&set, &avoid_two, &mut rng).unwrap().address == address(2)));
        let three = [id(1), id(2), id(3)];
        let avoid_all = Criteria { avoid: &three, ..criteria(policy, &cursor) };
        assert!(pick(&set, &avoid_all, &mut rng).is_ok());
    }
}

#[test]
fn unhealthy_ones_serve_only_in_panic_and_draining_ones_never() {
    use Health::{Draining, Healthy, Unhealthy};
    let endpoints = vec![
        mk_endpoint(1, 1, Healthy),
        mk_endpoint(2, 1, Unhealthy),
        mk_endpoint(3, 1, Unhealthy),
        mk_endpoint(4, 1, Draining),
    ];
    let set = mk_set(vec![mk_group(0, 0, endpoints)]);
    for policy in POLICIES {
        assert_shares(&shares(&set, policy, 0, 300), &[(1, 1.0)], 0.0);
        assert_shares(&shares(&set, policy, 50, 30_000), &[(1, 1.0), (2, 1.0), (3, 1.0)], 0.02);
    }
    let cursor = AtomicU64::new(0);
    let none = mk_set(vec![mk_group(0, 0, vec![mk_endpoint(1, 1, Unhealthy)])]);
    let chosen = |set: &EndpointSet, panic_percent| {
        let criteria = Criteria { panic_percent, ..criteria(Balance::Random, &cursor) };
        pick(set, &criteria, &mut rng(1)).map(|endpoint| endpoint.address)
    };
    assert_eq!(chosen(&none, 0), Err(NoEndpoint::Unhealthy));
    assert_eq!(chosen(&none, 1), Ok(address(1)));
    assert_eq!(chosen(&mk_set(vec![mk_group(0, 0, vec![mk_endpoint(1, 1, Draining)])]), 50), Err(NoEndpoint::Empty));
    assert_eq!(chosen(&EndpointSet::empty(), 50), Err(NoEndpoint::Empty));
}

#[test]
fn lower_priorities_take_what_higher_ones_cannot() {
    let first = (1..=4).map(|n| mk_endpoint(n, 1, Health::Healthy)).collect();
    let second = vec![mk_endpoint(9, 1, Health::Healthy)];
    let set = mk_set(vec![mk_group(0, 0, first), mk_group(1, 0, second)]);
    let spilled = || shares(&set, Balance::LeastRequest, 0, 20_000).get(&9).copied().unwrap_or(0);
    assert_eq!(spilled(), 0);
    eject(&set, 1);
    assert_eq!(spilled(), 0, "3 of 4 are 105 % of what is needed");
    eject(&set, 2);
    assert!((5_600..6_400).contains(&spilled()), "half are 70 %: {}", spilled());
    eject(&set, 3);
    eject(&set, 4);
    assert_eq!(spilled(), 20_000);
}

#[test]
fn locality_weights_hold_and_shrink_with_health() {
    let group =
        |weight, from: u8| mk_group(0, weight, (from..from + 2).map(|n| mk_endpoint(n, 1, Health::Healthy)).collect());
    let set = mk_set(vec![group(80, 1), group(20, 3), group(0, 5)]);
    for policy in POLICIES {
        assert_shares(&shares(&set, policy, 0, 40_000), &[(1, 40.0), (2, 40.0), (3, 10.0), (4, 10.0)], 0.015);
    }
    eject(&set, 1);
    // 80 becomes 80 * 70 % = 56.
    assert_shares(&shares(&set, Balance::Random, 0, 40_000), &[(2, 56.0), (3, 10.0), (4, 10.0)], 0.015);
}

#[test]
fn names_become_all_their_addresses_and_handles_are_carried_over() {
    let named = ir::Endpoint { address: Address::Name(Str::from("db"), 5432), ..mk_endpoint(1, 2, Health::Healthy) };
    let set = mk_ir(vec![mk_group(0, 0, vec![named])]);
    assert!(EndpointSet::build(&set, &Resolved::new(), None).is_empty());
    let resolve = |ips: &[[u8; 4]]| Resolved::from([(Str::from("db"), ips.iter().map(|&ip| ip.into()).collect())]);
    let one = EndpointSet::build(&set, &resolve(&[[10, 0, 0, 1]]), None);
    let two = EndpointSet::build(&set, &resolve(&[[10, 0, 0, 2], [10, 0, 0, 1]]), Some(&one));
    let addresses: Vec<_> =
        two.all().iter().map(|host| (host.address.to_string(), host.hostname.clone(), host.weight)).collect();
    let name = || Some(Str::from("db"));
    assert_eq!(addresses, [("10.0.0.1:5432".to_owned(), name(), 2), ("10.0.0.2:5432".to_owned(), name(), 2)]);
    assert!(Arc::ptr_eq(&one.all()[0], &two.all()[0]));
}

#[test]
fn a_changed_weight_makes_a_new_endpoint_with_the_old_counters() {
    let before = mk_set(vec![mk_group(0, 0, weights(&[1, 1]))]);
    let after = EndpointSet::build(&mk_ir(vec![mk_group(0, 0, weights(&[1, 9]))]), &Resolved::new(), Some(&before));
    assert!(Arc::ptr_eq(&before.all()[0], &after.all()[0]));
    assert!(!Arc::ptr_eq(&before.all()[1], &after.all()[1]));
    assert_eq!(before.all()[1].id(), after.all()[1].id());
}

fn any_endpoint() -> impl Strategy<Value = ir::Endpoint> {
    let health = prop_oneof![4 => Just(Health::Healthy), 1 => Just(Health::Unhealthy), 1 => Just(Health::Draining)];
    (1..40_u8, 0..5_u32, health).prop_map(|(n, weight, health)| mk_endpoint(n, weight, health))
}

fn any_groups() -> impl Strategy<Value = Vec<LocalityEndpoints>> {
    let group = (0..3_u32, 0..3_u32, prop::collection::vec(any_endpoint(), 0..6));
    prop::collection::vec(group.prop_map(|(priority, weight, endpoints)| mk_group(priority, weight, endpoints)), 0..5)
}

proptest! {
    /// Whatever the set: a usable endpoint is found whenever the rules allow one, and nothing else is ever chosen.
    #[test]
    fn what_is_chosen_is_usable(groups in any_groups(), ejected in prop::collection::vec(1..40_u8, 0..6), panic_percent in prop_oneof![Just(0_u32), Just(50)], seed: u64) {
        let set = mk_set(groups);
        let kept_out = |host: &Endpoint| ejected.iter().any(|n| host.address == address(*n));
        for host in set.all().iter().filter(|host| kept_out(host)) {
            host.live().ejected_until.store(u64::MAX, Relaxed);
        }
        let taking: Vec<_> = set.all().iter().filter(|host| host.health != Health::Draining).collect();
        let usable = |host: &Endpoint| host.health == Health::Healthy && !kept_out(host);
        let cursor = AtomicU64::new(seed);
        let mut rng = rng(seed);
        for policy in POLICIES {
            let criteria = Criteria { panic_percent, ..criteria(policy, &cursor) };
            match pick(&set, &criteria, &mut rng) {
                Ok(host) => {
                    prop_assert!(host.health != Health::Draining);
                    prop_assert!(usable(&host) || panic_percent > 0);
                }
                Err(NoEndpoint::Empty) => prop_assert!(taking.is_empty()),
                Err(NoEndpoint::Unhealthy) => prop_assert!(panic_percent == 0 && !taking.iter().any(|host| usable(host))),
                Err(other) => prop_assert!(false, "{other}"),
            }
        }
    }
}
