//! Rules of a DestinationRule's balancing.

use std::collections::BTreeMap;

use super::check::Check;
use crate::{
    codes::Code,
    crd::networking::destination_rule::{
        ConsistentHashLb, LoadBalancerSettings, LocalityFailover, LocalityLbSetting, SimpleLb, WarmupConfiguration,
    },
    text::Str,
};

/// Tables must be smaller than this. istio/istio: pkg/config/validation, Envoy's limit.
const MAX_MAGLEV_TABLE: u64 = 5_000_011;

pub(super) fn check(check: &mut Check, lb: &LoadBalancerSettings) {
    check.exclusive(&[("simple", lb.simple.is_some()), ("consistentHash", lb.consistent_hash.is_some())]);
    check.exclusive(&[
        ("localityLbSetting", lb.locality_lb_setting.is_some()),
        ("zoneAwareLbSetting", lb.zone_aware_lb_setting.is_some()),
    ]);
    if lb.simple == Some(SimpleLb::LeastConn) {
        check.hinted("simple", Code::Deprecated, "LEAST_CONN is deprecated", "use LEAST_REQUEST");
    }
    check.some("consistentHash", lb.consistent_hash.as_ref(), consistent_hash);
    check.some("localityLbSetting", lb.locality_lb_setting.as_ref(), locality);
    check.some("zoneAwareLbSetting", lb.zone_aware_lb_setting.as_ref(), |check, zone| {
        failover(check, &zone.failover);
    });
    check.exclusive(&[("warmup", lb.warmup.is_some()), ("warmupDurationSecs", lb.warmup_duration_secs.is_some())]);
    if lb.warmup_duration_secs.is_some() {
        check.hinted("warmupDurationSecs", Code::Deprecated, "is deprecated", "use warmup");
    }
    check.some("warmup", lb.warmup.as_ref(), |check, warmup| {
        warm(check, warmup);
        let grows = matches!(
            lb.simple,
            None | Some(SimpleLb::Unspecified | SimpleLb::LeastConn | SimpleLb::LeastRequest | SimpleLb::RoundRobin)
        );
        if !grows || lb.consistent_hash.is_some() {
            check.here(Code::Ineffective, "has an effect with ROUND_ROBIN and LEAST_REQUEST only");
        }
    });
}

fn consistent_hash(check: &mut Check, hash: &ConsistentHashLb) {
    let keys = [
        ("httpHeaderName", hash.http_header_name.is_some()),
        ("httpCookie", hash.http_cookie.is_some()),
        ("useSourceIp", hash.use_source_ip.is_some()),
        ("httpQueryParameterName", hash.http_query_parameter_name.is_some()),
    ];
    check.exclusive(&keys);
    if keys.iter().all(|key| !key.1) {
        let message = "needs one of httpHeaderName, httpCookie, useSourceIp and httpQueryParameterName";
        check.here(Code::Ineffective, message);
    }
    check.some("httpCookie", hash.http_cookie.as_ref(), |check, cookie| {
        check.required("name", !cookie.name.is_empty());
        check.unique("attributes", "name", cookie.attributes.iter().map(|a| &*a.name));
        check.each("attributes", &cookie.attributes, |check, a| check.required("name", !a.name.is_empty()));
    });
    check.exclusive(&[("ringHash", hash.ring_hash.is_some()), ("maglev", hash.maglev.is_some())]);
    if hash.minimum_ring_size != 0 {
        check.hinted("minimumRingSize", Code::Deprecated, "is deprecated", "use ringHash.minimumRingSize");
    }
    check.some("maglev", hash.maglev.as_ref(), |check, maglev| {
        let size = maglev.table_size;
        if size != 0 && (size >= MAX_MAGLEV_TABLE || !is_prime(size)) {
            let message = format!("{size} is not a prime below {MAX_MAGLEV_TABLE}");
            check.at("tableSize", Code::InvalidValue, message);
        }
    });
}

/// By trial division; the caller bounds the number.
fn is_prime(number: u64) -> bool {
    number >= 2 && (2..).take_while(|d| d * d <= number).all(|d| !number.is_multiple_of(d))
}

fn locality(check: &mut Check, locality: &LocalityLbSetting) {
    check.exclusive(&[("distribute", !locality.distribute.is_empty()), ("failover", !locality.failover.is_empty())]);
    check.unique("distribute", "from", locality.distribute.iter().map(|d| &*d.from));
    check.each("distribute", &locality.distribute, |check, row| {
        shares(check, &row.to);
    });
    failover(check, &locality.failover);
}

fn shares(check: &mut Check, to: &BTreeMap<Str, u32>) {
    let total: u64 = to.values().map(|share| u64::from(*share)).sum();
    if total != 100 {
        check.at("to", Code::InvalidValue, format!("the shares add up to {total}, not to 100"));
    }
    for (locality, share) in to {
        check.range(&format!("to.{locality}"), *share, 1, 100);
    }
}

fn failover(check: &mut Check, failover: &[LocalityFailover]) {
    check.once("failover", "from", failover.iter().map(|f| &*f.from));
    check.each("failover", failover, |check, row| {
        if row.from == row.to {
            check.at("to", Code::InvalidValue, "is the same region as from");
        }
        for (field, region) in [("from", &row.from), ("to", &row.to)] {
            if region.contains(['/', '*']) {
                check.at(field, Code::InvalidValue, format!("{region:?} is not a region"));
            }
        }
    });
}

fn warm(check: &mut Check, warmup: &WarmupConfiguration) {
    check.required("duration", warmup.duration.is_some());
    check.duration("duration", warmup.duration);
    if let Some(percent) = warmup.minimum_percent {
        check.range("minimumPercent", percent, 0.0, 100.0);
    }
    if warmup.aggression.is_some_and(|aggression| aggression <= 0.0) {
        check.at("aggression", Code::InvalidValue, "is not above 0");
    }
}
