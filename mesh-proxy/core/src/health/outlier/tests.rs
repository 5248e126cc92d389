//! Scripts of what hosts do, with the time.

use mesh_api_xds::ir::Resource;
use mesh_api_xds::ir::cluster::Discovery;
use proptest::prelude::*;

use super::*;
use crate::balance::NoEndpoint;
use crate::plan::Plan;
use crate::plan::cluster::ClusterPlan;
use crate::plan::tests::{address, mk_cluster, mk_endpoints, next, upsert};
use crate::testing::{rng, t0};

/// Istio's defaults, with a detector of gateway errors.
const ISTIO: Outlier = Outlier {
    consecutive_5xx: 5,
    consecutive_gateway: 0,
    consecutive_local: 5,
    split_local: false,
    interval: Duration::from_secs(10),
    base_ejection: Duration::from_secs(30),
    max_ejection: Duration::from_secs(300),
    max_ejection_percent: 10,
};

fn mk_plan(outlier: Option<Outlier>, hosts: u8) -> Plan {
    let mut cluster = mk_cluster("c", Discovery::Eds);
    cluster.outlier = outlier;
    let addresses: Vec<String> = (1..=hosts).map(|n| format!("10.0.0.{n}:80")).collect();
    let endpoints: Vec<_> = addresses.iter().map(|address| (address.as_str(), 1)).collect();
    next(&Plan::empty(), &upsert([Resource::Cluster(cluster), Resource::Endpoints(mk_endpoints("c", &endpoints))]))
}

fn cluster(plan: &Plan) -> &ClusterPlan {
    plan.cluster("c").unwrap()
}

fn endpoint(plan: &Plan, n: u8) -> Arc<Endpoint> {
    Arc::clone(cluster(plan).endpoints().unwrap().find(address(&format!("10.0.0.{n}:80"))).unwrap())
}

fn seconds(n: u64) -> Instant {
    t0() + Duration::from_secs(n)
}

/// Reports the same thing several times; gives the event of the last.
fn repeat(plan: &Plan, n: u8, seen: Seen, times: u32, at: u64) -> Option<Event> {
    let mut last = None;
    for _ in 0..times {
        assert_eq!(last, None, "ejected too early");
        last = report(cluster(plan), &endpoint(plan, n), seen, seconds(at));
    }
    last
}

fn out(plan: &Plan, at: u64) -> Vec<String> {
    ejected(cluster(plan), seconds(at))
        .iter()
        .map(|(host, left)| format!("{} {}", host.address.ip(), left.as_secs()))
        .collect()
}

#[test]
fn five_errors_in_a_row_eject_with_evidence() {
    let plan = mk_plan(Some(ISTIO), 3);
    assert_eq!(repeat(&plan, 1, Seen::Status(500), 4, 0), None);
    assert_eq!(repeat(&plan, 1, Seen::Status(404), 1, 0), None);
    let evidence = Evidence { detector: Detector::ServerErrors, count: 5, last: Seen::Status(503) };
    let (endpoint, duration) = (address("10.0.0.1:80"), Duration::from_secs(30));
    assert_eq!(
        repeat(&plan, 1, Seen::Status(503), 5, 0),
        Some(Event::Ejected { endpoint, evidence, duration, nth: 1 })
    );
    assert_eq!(out(&plan, 12), ["10.0.0.1 18"]);
    // While it is out nothing chooses it, and what still arrives from it changes nothing.
    let mut rng = rng(1);
    assert!((0..200).all(|_| cluster(&plan).pick(&mut rng, &[], seconds(1)).unwrap().address != endpoint));
    assert_eq!(repeat(&plan, 1, Seen::Status(503), 20, 1), None);
    assert_eq!(sweep(cluster(&plan), seconds(29)), []);
    assert_eq!(sweep(cluster(&plan), seconds(30)), [Event::Returned { endpoint }]);
    assert!(out(&plan, 30).is_empty());
    assert!((0..200).any(|_| cluster(&plan).pick(&mut rng, &[], seconds(31)).unwrap().address == endpoint));
}

#[test]
fn each_ejection_is_longer_up_to_a_bound_and_good_behaviour_is_rewarded() {
    let plan = mk_plan(Some(Outlier { max_ejection: Duration::from_secs(70), ..ISTIO }), 3);
    let mut at = 0;
    let eject = |at| match repeat(&plan, 1, Seen::Status(500), 5, at) {
        Some(Event::Ejected { duration, nth, .. }) => (duration.as_secs(), nth),
        other => panic!("{other:?}"),
    };
    for expect in [(30, 1), (60, 2), (70, 3)] {
        assert_eq!(eject(at), expect);
        at += expect.0;
        assert_eq!(sweep(cluster(&plan), seconds(at)).len(), 1);
    }
    // Two intervals without an ejection take two off, however often the sweep comes.
    for second in 1..=20 {
        sweep(cluster(&plan), seconds(at + second));
    }
    assert_eq!(eject(at + 20), (60, 2));
}

#[test]
fn an_ejection_ends_by_itself_when_no_sweep_comes() {
    let plan = mk_plan(Some(ISTIO), 1);
    assert!(repeat(&plan, 1, Seen::Status(500), 5, 0).is_some());
    let pick = |at| cluster(&plan).pick(&mut rng(1), &[], seconds(at)).map(|host| host.address);
    assert_eq!(pick(29), Err(NoEndpoint::Unhealthy));
    assert_eq!(pick(31), Ok(address("10.0.0.1:80")));
    let again = repeat(&plan, 1, Seen::Status(500), 5, 31);
    assert!(matches!(again, Some(Event::Ejected { nth: 2, .. })), "{again:?}");
}

#[test]
fn at_most_a_share_but_at_least_one_is_out() {
    let plan = mk_plan(Some(ISTIO), 3);
    assert!(matches!(repeat(&plan, 1, Seen::Status(500), 5, 0), Some(Event::Ejected { .. })));
    let evidence = Evidence { detector: Detector::ServerErrors, count: 5, last: Seen::Status(500) };
    let withheld = Some(Event::Withheld { endpoint: address("10.0.0.2:80"), evidence, ejected: (1, 3) });
    assert_eq!(repeat(&plan, 2, Seen::Status(500), 5, 0), withheld);
    // It is tried again after as many failures more.
    assert_eq!(repeat(&plan, 2, Seen::Status(500), 5, 0), withheld);
    sweep(cluster(&plan), seconds(30));
    assert!(matches!(repeat(&plan, 2, Seen::Status(500), 5, 30), Some(Event::Ejected { .. })));

    let half = mk_plan(Some(Outlier { max_ejection_percent: 50, ..ISTIO }), 4);
    let ejected =
        (1..=4).filter(|&n| matches!(repeat(&half, n, Seen::Status(500), 5, 0), Some(Event::Ejected { .. }))).count();
    assert_eq!(ejected, 2);
}

#[test]
fn detectors_count_what_they_are_named_after() {
    let gateway = Outlier { consecutive_5xx: 0, consecutive_gateway: 3, ..ISTIO };
    let check = |outlier, seen: &[Seen], expect: Option<Detector>| {
        let plan = mk_plan(Some(outlier), 3);
        let events = seen.iter().filter_map(|seen| report(cluster(&plan), &endpoint(&plan, 1), *seen, seconds(0)));
        let detectors: Vec<_> = events
            .map(|event| match event {
                Event::Ejected { evidence, .. } => evidence.detector,
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(detectors, expect.into_iter().collect::<Vec<_>>(), "{seen:?}");
    };
    use Seen::{ConnectFailed, Connected, Reset, Status, Timeout};
    check(gateway, &[Status(502), Status(503), Status(504)], Some(Detector::GatewayErrors));
    check(gateway, &[Status(502), Status(503), Status(500), Status(504)], None);
    check(gateway, &[ConnectFailed, Connected, Reset, Timeout], Some(Detector::GatewayErrors));
    let both = Outlier { consecutive_5xx: 3, consecutive_gateway: 3, ..ISTIO };
    check(both, &[Status(502), Status(502), Status(502)], Some(Detector::GatewayErrors));
    let split = Outlier { consecutive_5xx: 2, consecutive_local: 3, split_local: true, ..ISTIO };
    check(split, &[ConnectFailed, Reset, Timeout], Some(Detector::LocalFailures));
    check(split, &[ConnectFailed, Reset, Connected, Timeout], None);
    check(split, &[ConnectFailed, Status(500), Reset, Status(500)], Some(Detector::ServerErrors));
    let off = Outlier { consecutive_5xx: 0, consecutive_gateway: 0, ..ISTIO };
    check(off, &[Status(500); 40], None);
}

/// Every kind whose origin is the upstream is judged here by name, so that a new one cannot be forgotten.
#[test]
fn only_what_the_host_did_counts_against_it() {
    use crate::fault::Origin;
    let no_fault_of_the_host = [
        FaultKind::NoHealthyUpstream,
        FaultKind::UpstreamOverflow,
        FaultKind::ReusedClosed,
        FaultKind::DnsFailed,
        FaultKind::ResponseTooLarge,
        FaultKind::AuthzServiceFailed,
        FaultKind::RateLimitServiceFailed,
    ];
    for kind in FaultKind::ALL.iter().copied() {
        let counts = kind.meaning().origin == Origin::Upstream && !no_fault_of_the_host.contains(&kind);
        assert_eq!(Seen::of(&Fault::new(kind)).is_some(), counts, "{kind:?}");
    }
}

#[test]
fn without_settings_nothing_is_counted_and_nobody_stays_out() {
    let plan = mk_plan(None, 2);
    assert_eq!(repeat(&plan, 1, Seen::Status(500), 50, 0), None);
    let plan = mk_plan(Some(ISTIO), 2);
    assert!(repeat(&plan, 1, Seen::Status(500), 5, 0).is_some());
    let off = next(&plan, &upsert([Resource::Cluster(mk_cluster("c", Discovery::Eds))]));
    assert_eq!(sweep(cluster(&off), seconds(1)), [Event::Returned { endpoint: address("10.0.0.1:80") }]);
}

#[test]
fn memory_survives_a_push_and_ends_with_the_endpoint() {
    let plan = mk_plan(Some(ISTIO), 3);
    assert_eq!(repeat(&plan, 1, Seen::Status(500), 4, 0), None);
    let pushed =
        next(&plan, &upsert([Resource::Endpoints(mk_endpoints("c", &[("10.0.0.1:80", 1), ("10.0.0.9:80", 1)]))]));
    assert!(repeat(&pushed, 1, Seen::Status(500), 1, 0).is_some());
    assert_eq!(out(&pushed, 0), ["10.0.0.1 30"]);
    let gone = next(&pushed, &upsert([Resource::Endpoints(mk_endpoints("c", &[("10.0.0.9:80", 1)]))]));
    assert!(out(&gone, 0).is_empty() && !cluster(&gone).state.ejections.any());
}

proptest! {
    /// Whatever happens, more than the share (and more than one) is never out, and a sweep after the longest time frees all.
    #[test]
    fn ejections_stay_within_bounds(percent in 0..120_u32, hosts in 1..12_u8, script in prop::collection::vec((1..12_u8, 500..505_u16, 0..20_u64), 0..200)) {
        let plan = mk_plan(Some(Outlier { consecutive_5xx: 2, max_ejection_percent: percent, ..ISTIO }), hosts);
        let mut at = 0;
        for (n, status, wait) in script {
            at += wait;
            if wait % 5 == 0 {
                sweep(cluster(&plan), seconds(at));
            }
            report(cluster(&plan), &endpoint(&plan, (n - 1) % hosts + 1), Seen::Status(status), seconds(at));
            let out = ejected(cluster(&plan), seconds(at)).len();
            let bound = (usize::from(hosts) * percent.min(100) as usize / 100).max(1);
            prop_assert!(out <= bound, "{out} of {hosts} at {percent} %");
        }
        sweep(cluster(&plan), seconds(at + 301));
        prop_assert!(ejected(cluster(&plan), seconds(at + 301)).is_empty());
        prop_assert!(!cluster(&plan).state.ejections.any());
    }
}
