//! Outlier detection and circuit breakers of a cluster.

use std::time::Duration;

use crate::codec::common::{bool_value, duration, read_duration, read_u32, u32_value};
use crate::codec::error::{At, DecodeError, bad, fail, leftover, only};
use crate::ir::cluster::{Limits, Outlier, RetryBudget};
use crate::pb;

pub(super) fn encode_outlier(outlier: &Outlier) -> pb::cluster::OutlierDetection {
    let count = |count: u32| if count == 0 { None } else { u32_value(count) };
    let enforce = |count: u32| u32_value(if count == 0 { 0 } else { 100 });
    pb::cluster::OutlierDetection {
        consecutive_5xx: count(outlier.consecutive_5xx),
        enforcing_consecutive_5xx: enforce(outlier.consecutive_5xx),
        consecutive_gateway_failure: count(outlier.consecutive_gateway),
        enforcing_consecutive_gateway_failure: enforce(outlier.consecutive_gateway),
        consecutive_local_origin_failure: count(outlier.consecutive_local),
        enforcing_consecutive_local_origin_failure: enforce(outlier.consecutive_local),
        split_external_local_origin_errors: outlier.split_local,
        interval: Some(duration(outlier.interval)),
        base_ejection_time: Some(duration(outlier.base_ejection)),
        max_ejection_time: Some(duration(outlier.max_ejection)),
        max_ejection_percent: u32_value(outlier.max_ejection_percent),
        // Istio does not use the statistical detectors either.
        enforcing_success_rate: u32_value(0),
        enforcing_local_origin_success_rate: u32_value(0),
        always_eject_one_host: bool_value(true),
        ..pb::cluster::OutlierDetection::default()
    }
}

pub(super) fn decode_outlier(mut message: pb::cluster::OutlierDetection) -> Result<Outlier, DecodeError> {
    let detector = |count: Option<pb::protobuf::UInt32Value>,
                    enforcing: Option<pb::protobuf::UInt32Value>,
                    default: u32,
                    field: &str| match read_u32(enforcing, default) {
        0 => Ok(0),
        100 => Ok(read_u32(count, 5)),
        other => bad("0 or 100", other).at(field),
    };
    let outlier = Outlier {
        consecutive_5xx: detector(
            message.consecutive_5xx.take(),
            message.enforcing_consecutive_5xx.take(),
            100,
            "enforcing_consecutive_5xx",
        )?,
        consecutive_gateway: detector(
            message.consecutive_gateway_failure.take(),
            message.enforcing_consecutive_gateway_failure.take(),
            0,
            "enforcing_consecutive_gateway_failure",
        )?,
        consecutive_local: detector(
            message.consecutive_local_origin_failure.take(),
            message.enforcing_consecutive_local_origin_failure.take(),
            100,
            "enforcing_consecutive_local_origin_failure",
        )?,
        split_local: std::mem::take(&mut message.split_external_local_origin_errors),
        interval: read_duration(message.interval.take(), Duration::from_secs(10), "interval")?,
        base_ejection: read_duration(message.base_ejection_time.take(), Duration::from_secs(30), "base_ejection_time")?,
        max_ejection: read_duration(message.max_ejection_time.take(), Duration::from_secs(300), "max_ejection_time")?,
        max_ejection_percent: read_u32(message.max_ejection_percent.take(), 10),
    };
    only(&read_u32(message.enforcing_success_rate.take(), 100), &0, "enforcing_success_rate")?;
    let local = read_u32(message.enforcing_local_origin_success_rate.take(), 100);
    if outlier.split_local {
        only(&local, &0, "enforcing_local_origin_success_rate")?;
    }
    // At least one endpoint may always be ejected here; Envoy asks for it.
    message.always_eject_one_host = None;
    leftover(&message)?;
    Ok(outlier)
}

pub(super) fn encode_limits(limits: &Limits) -> pb::cluster::CircuitBreakers {
    let budget = limits.retry_budget.map(|budget| pb::cluster::circuit_breakers::thresholds::RetryBudget {
        budget_percent: Some(pb::kind::Percent { value: f64::from(budget.percent_hundredths) / 100.0 }),
        min_retry_concurrency: u32_value(budget.min_concurrency),
        budget_interval: None,
    });
    pb::cluster::CircuitBreakers {
        thresholds: vec![pb::cluster::circuit_breakers::Thresholds {
            max_connections: u32_value(limits.connections),
            max_pending_requests: u32_value(limits.pending),
            max_requests: u32_value(limits.requests),
            max_retries: u32_value(limits.retries),
            retry_budget: budget,
            track_remaining: true,
            ..pb::cluster::circuit_breakers::Thresholds::default()
        }],
        per_host_thresholds: Vec::new(),
    }
}

pub(super) fn decode_limits(message: Option<pb::cluster::CircuitBreakers>) -> Result<Limits, DecodeError> {
    let mut message = message.unwrap_or_default();
    let mut thresholds = std::mem::take(&mut message.thresholds);
    leftover(&message)?;
    if thresholds.len() > 1 {
        return fail("only the default priority is supported").at("thresholds");
    }
    let mut limits = thresholds.pop().unwrap_or_default();
    // Statistics only.
    limits.track_remaining = false;
    let budget = limits.retry_budget.take();
    // Envoy's defaults: config.cluster.v3.CircuitBreakers.Thresholds.
    let read = Limits {
        connections: read_u32(limits.max_connections.take(), 1024),
        pending: read_u32(limits.max_pending_requests.take(), 1024),
        requests: read_u32(limits.max_requests.take(), 1024),
        retries: read_u32(limits.max_retries.take(), 3),
        retry_budget: budget.map(decode_budget).transpose().at("thresholds[0].retry_budget")?,
    };
    leftover(&limits).at("thresholds[0]")?;
    Ok(read)
}

fn decode_budget(message: pb::cluster::circuit_breakers::thresholds::RetryBudget) -> Result<RetryBudget, DecodeError> {
    let percent = message.budget_percent.map_or(20.0, |percent| percent.value);
    let hundredths = (percent * 100.0).round();
    if message.budget_interval.is_some() {
        return fail("is not supported").at("budget_interval");
    }
    if !(0.0..=10_000.0).contains(&hundredths) {
        return bad("a percentage", percent).at("budget_percent");
    }
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "whole and within 0 to 10,000")]
    let percent_hundredths = hundredths as u32;
    Ok(RetryBudget { percent_hundredths, min_concurrency: read_u32(message.min_retry_concurrency, 3) })
}
