//! The decision after an attempt.
//!
//! Two questions are kept apart. Does the policy want a retry (Envoy's `retry_on` words)? Is a retry safe (design decision
//! 13)? Under [`RetrySafety::Safe`] a request that the upstream may have executed is sent again only when its method is
//! idempotent; so a payment is never made twice because a connection broke. A pooled connection that turns out to be closed
//! is not an attempt: the request goes out again on a fresh connection, with or without a policy.

use std::time::Duration;

use mesh_api_xds::ir::route::{RetryOn, RetryPolicy, RetrySafety};
use rand_core::Rng;

use super::backoff;
use crate::fault::{Fault, FaultKind, Retry};
use crate::head::Method;

/// How an attempt ended.
#[derive(Clone, Copy, Debug)]
pub enum Outcome<'a> {
    /// Without a response.
    Failed(&'a Fault),
    /// With a response head.
    Answered {
        /// Status.
        status: u16,
        /// gRPC status, when the head carries one (trailers only).
        grpc_status: Option<u8>,
        /// The response has `x-envoy-ratelimited`.
        rate_limited: bool,
        /// A proxy of the mesh gave it in place of an application that never got the request ([`super::resend`]).
        refused: bool,
    },
}

/// What is known of the request and of its attempts so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// Retries made that counted.
    pub retries: u32,
    /// The request may be executed twice without harm: [`is_idempotent`].
    pub idempotent: bool,
    /// Bytes of the request that were handed to the connection in this attempt.
    pub bytes_sent: bool,
    /// The whole body is still at hand (or there is none, or none was read yet).
    pub replayable: bool,
    /// This attempt went out on a connection that had carried a request before.
    pub reused_connection: bool,
    /// Time left of the whole limit; `None` is no limit.
    pub time_left: Option<Duration>,
}

/// What to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// The outcome is the client's.
    Done(Why),
    /// Another attempt. The budget is to be asked first (`limit::circuit::Circuit::retry`) when it counts.
    Again {
        /// Pause before it.
        after: Duration,
        /// Whether it counts as a retry.
        counts: bool,
        /// It must not use a pooled connection.
        fresh_connection: bool,
    },
}

/// Why there is no other attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// Nothing went wrong, or nothing that the policy names; or there is no policy.
    NotWanted,
    /// The upstream may have executed the request, and twice would be once too often.
    Unsafe,
    /// The body is gone.
    BodyGone,
    /// The policy's retries are used up: `Fault::exhausted`.
    Exhausted,
    /// The pause would outlast the request's time.
    NoTime,
}

/// Whether a method's requests may be executed twice without harm (RFC 9110 section 9.2.2).
#[must_use]
pub const fn is_idempotent(method: Method) -> bool {
    match method {
        Method::Get | Method::Head | Method::Options | Method::Trace | Method::Put | Method::Delete => true,
        Method::Post | Method::Connect | Method::Patch | Method::Other => false,
    }
}

/// Decides after an attempt.
#[must_use]
pub fn decide(policy: Option<&RetryPolicy>, outcome: &Outcome<'_>, attempt: &Attempt, rng: &mut impl Rng) -> Decision {
    if let Outcome::Failed(fault) = outcome
        && is_stale(fault, attempt)
    {
        return if attempt.replayable {
            Decision::Again { after: Duration::ZERO, counts: false, fresh_connection: true }
        } else {
            Decision::Done(Why::BodyGone)
        };
    }
    let Some(policy) = policy.filter(|policy| policy.on.intersects(conditions(policy, outcome, attempt))) else {
        return Decision::Done(Why::NotWanted);
    };
    if !is_safe(policy.safety, outcome, attempt) {
        return Decision::Done(Why::Unsafe);
    }
    if !attempt.replayable {
        return Decision::Done(Why::BodyGone);
    }
    if attempt.retries >= policy.attempts {
        return Decision::Done(Why::Exhausted);
    }
    let after = backoff::pause(policy.backoff, attempt.retries.saturating_add(1), rng);
    if attempt.time_left.is_some_and(|left| after >= left) {
        return Decision::Done(Why::NoTime);
    }
    Decision::Again { after, counts: true, fresh_connection: false }
}

/// A pooled connection was closed by the other side, most likely while the request was on its way. Sending again is safe
/// when nothing was written, or when twice does no harm. It cannot happen twice in a row: the next connection is fresh.
fn is_stale(fault: &Fault, attempt: &Attempt) -> bool {
    attempt.reused_connection && fault.retry() == Retry::ReusedOnly && (attempt.idempotent || !attempt.bytes_sent)
}

fn is_safe(safety: RetrySafety, outcome: &Outcome<'_>, attempt: &Attempt) -> bool {
    let unprocessed = match outcome {
        Outcome::Failed(fault) => match fault.retry() {
            // It would fail again, or nobody waits: no policy changes that.
            Retry::Never => return false,
            Retry::Unprocessed => true,
            Retry::IfIdempotent | Retry::ReusedOnly => !attempt.bytes_sent,
        },
        Outcome::Answered { refused, .. } => *refused,
    };
    match safety {
        RetrySafety::Safe => unprocessed || attempt.idempotent,
        RetrySafety::AsConfigured => true,
    }
}

/// The conditions that an outcome fulfils (envoyproxy/envoy: `source/common/router/retry_state_impl.cc`).
fn conditions(policy: &RetryPolicy, outcome: &Outcome<'_>, attempt: &Attempt) -> RetryOn {
    match outcome {
        Outcome::Failed(fault) => of_failure(fault, attempt),
        // A rate-limited answer is retried only when that is asked for by name.
        Outcome::Answered { rate_limited: true, .. } => RetryOn::RATE_LIMITED,
        Outcome::Answered { status, grpc_status, refused, .. } => {
            let of_status = of_status(*status);
            let listed = if policy.statuses.contains(status) { RetryOn::STATUS_CODES } else { RetryOn::default() };
            // It is what HTTP/2 has REFUSED_STREAM for, and on the last yard of the way no connection came about.
            let refused =
                if *refused { RetryOn::REFUSED_STREAM.union(RetryOn::CONNECT_FAILURE) } else { RetryOn::default() };
            of_status.union(listed).union(refused).union(grpc_status.map_or(RetryOn::default(), of_grpc_status))
        }
    }
}

fn of_failure(fault: &Fault, attempt: &Attempt) -> RetryOn {
    // No response at all counts as a 5xx and as a gateway error, since it results in one.
    let reset = RetryOn::RESET.union(RetryOn::SERVER_ERROR).union(RetryOn::GATEWAY_ERROR);
    let early = if attempt.bytes_sent { RetryOn::default() } else { RetryOn::RESET_BEFORE_REQUEST };
    match fault.kind {
        FaultKind::ConnectFailed
        | FaultKind::ConnectTimeout
        | FaultKind::UpstreamTlsFailed
        | FaultKind::UpstreamIdentity
        | FaultKind::DnsFailed => reset.union(RetryOn::CONNECT_FAILURE).union(early),
        FaultKind::UpstreamRefusedStream => reset.union(RetryOn::REFUSED_STREAM).union(early),
        _ => match fault.retry() {
            Retry::Never => RetryOn::default(),
            Retry::Unprocessed | Retry::IfIdempotent | Retry::ReusedOnly => reset.union(early),
        },
    }
}

fn of_status(status: u16) -> RetryOn {
    match status {
        502..=504 => RetryOn::SERVER_ERROR.union(RetryOn::GATEWAY_ERROR),
        500..=599 => RetryOn::SERVER_ERROR,
        409 => RetryOn::RETRIABLE_4XX,
        _ => RetryOn::default(),
    }
}

fn of_grpc_status(status: u8) -> RetryOn {
    match status {
        1 => RetryOn::GRPC_CANCELLED,
        4 => RetryOn::GRPC_DEADLINE_EXCEEDED,
        8 => RetryOn::GRPC_RESOURCE_EXHAUSTED,
        13 => RetryOn::GRPC_INTERNAL,
        14 => RetryOn::GRPC_UNAVAILABLE,
        _ => RetryOn::default(),
    }
}

#[cfg(test)]
mod tests;
