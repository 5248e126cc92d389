//! Retry policies.

use std::time::Duration;

use super::common::{any, duration, read_duration, read_limit, read_u32, u32_value};
use super::error::{At, DecodeError, each_arc, fail, leftover, only};
use super::metadata::Metadata;
use crate::ir::route::{RetryOn, RetryPolicy, RetrySafety};
use crate::pb;
use crate::pb::route::RetryPolicy as Message;
use crate::pb::route::retry_policy::{RetryBackOff, RetryHostPredicate, retry_host_predicate::ConfigType};

const PREVIOUS_HOSTS: &str = "envoy.retry_host_predicates.previous_hosts";
/// Choices of an endpoint before one that was tried already is taken after all. Source: Istio, `retry.DefaultPolicy`.
const HOST_CHOICES: i64 = 5;
/// Envoy's default first pause: `config.route.v3.RetryPolicy.retry_back_off`.
const BACKOFF: Duration = Duration::from_millis(25);
/// The longest pause is this many times the first.
const BACKOFF_FACTOR: u32 = 10;

pub(super) fn encode(policy: &RetryPolicy, metadata: &mut Metadata) -> Message {
    metadata.set_origin("retry_origin", &policy.origin);
    if policy.safety == RetrySafety::Safe {
        metadata.set("retry_safety", "safe");
    }
    let previous = RetryHostPredicate {
        name: PREVIOUS_HOSTS.to_owned(),
        config_type: Some(ConfigType::TypedConfig(any(&pb::previous_hosts::PreviousHostsPredicate {}))),
    };
    Message {
        retry_on: policy.on.words(),
        num_retries: u32_value(policy.attempts),
        per_try_timeout: policy.per_try_timeout.map(duration),
        retriable_status_codes: policy.statuses.iter().map(|status| (*status).into()).collect(),
        retry_host_predicate: policy.avoid_previous.then_some(previous).into_iter().collect(),
        host_selection_retry_max_attempts: if policy.avoid_previous { HOST_CHOICES } else { 0 },
        retry_back_off: Some(RetryBackOff {
            base_interval: Some(duration(policy.backoff)),
            max_interval: Some(duration(policy.backoff.saturating_mul(BACKOFF_FACTOR))),
        }),
        ..Message::default()
    }
}

pub(super) fn decode(mut message: Message, metadata: &Metadata) -> Result<RetryPolicy, DecodeError> {
    let words = std::mem::take(&mut message.retry_on);
    let words = words.split(',').map(str::trim).filter(|word| !word.is_empty());
    let on = words.into_iter().try_fold(RetryOn::default(), |on, word| match RetryOn::from_word(word) {
        Some(bit) => Ok(on.union(bit)),
        None => fail(format!("{word} is not a known condition")).at("retry_on"),
    })?;
    let backoff = message.retry_back_off.take().unwrap_or_default();
    let base = read_duration(backoff.base_interval, BACKOFF, "retry_back_off.base_interval")?;
    let longest = base.saturating_mul(BACKOFF_FACTOR);
    only(&read_duration(backoff.max_interval, longest, "")?, &longest, "retry_back_off.max_interval")?;
    let predicates = std::mem::take(&mut message.retry_host_predicate);
    if let Some(other) = predicates.iter().find(|predicate| predicate.name != PREVIOUS_HOSTS) {
        return fail(format!("{} is not supported", other.name)).at("retry_host_predicate");
    }
    // How often another endpoint is drawn: ours are drawn from those not tried yet.
    message.host_selection_retry_max_attempts = 0;
    let statuses = std::mem::take(&mut message.retriable_status_codes);
    let policy = RetryPolicy {
        on,
        attempts: read_u32(message.num_retries.take(), 1),
        per_try_timeout: read_limit(message.per_try_timeout.take(), Duration::ZERO, "per_try_timeout")?,
        statuses: each_arc("retriable_status_codes", statuses, |status| {
            u16::try_from(status).or_else(|_| fail(format!("{status} is not a status")))
        })?,
        avoid_previous: !predicates.is_empty(),
        backoff: base,
        // Foreign policies mean what they say.
        safety: if metadata.text("retry_safety") == "safe" { RetrySafety::Safe } else { RetrySafety::AsConfigured },
        origin: metadata.origin("retry_origin"),
    };
    leftover(&message)?;
    Ok(policy)
}
