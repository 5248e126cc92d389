//! Attempts of one request: what its policy allows, and the time that is left.

use std::sync::Arc;
use std::time::Duration;

use mesh_api_xds::ir::cluster::Limits;
use mesh_api_xds::ir::route::{RetryPolicy, RetrySafety};
use mesh_proxy_core::fault::{Fault, FaultKind};
use mesh_proxy_core::head::Head;
use mesh_proxy_core::head::known::KnownName;
use mesh_proxy_core::limit::concurrency::Permit;
use mesh_proxy_core::retry::budget::RetryAllowance;
use mesh_proxy_core::retry::policy::{self, Attempt, Outcome, Why};
use mesh_proxy_core::retry::resend;
use mesh_proxy_core::route::Timeouts;
use tokio::time::Instant;

use super::attempt::Forwarding;
use super::transfer::Deadline;

/// Request body bytes kept for another attempt (Envoy's default buffer limit is 1 MiB; most requests that are worth a retry
/// are far smaller).
const REPLAY_BYTES: usize = 64 * 1024;

/// Endpoints that one request is refused by at most.
const MOST_REFUSALS: usize = 10;

/// State of a request's attempts.
#[derive(Debug)]
pub struct Retries {
    policy: Option<Arc<RetryPolicy>>,
    timeouts: Timeouts,
    idempotent: bool,
    /// Retries that the policy has paid for.
    spent: u32,
    fresh: bool,
    /// End of the whole request, set when the request is complete.
    whole: Option<Instant>,
    permit: Option<Permit>,
    attempts: u32,
    count_header: bool,
    /// An attempt may have been executed.
    ran: bool,
    /// The last attempt was refused by a proxy whose application is gone, and was the last that the policy allows.
    refused: bool,
}

/// How much of the request an attempt sent.
#[derive(Clone, Copy, Debug)]
pub struct Sent {
    /// Bytes were handed to the connection.
    pub bytes: bool,
    /// The whole body so far can be sent again.
    pub replayable: bool,
    /// The connection had carried a request before.
    pub reused: bool,
}

/// What follows a failed attempt.
#[derive(Debug)]
pub enum Decision {
    /// Another attempt after a pause.
    Again(Duration),
    /// The failure is the request's.
    Give(Fault),
}

/// Whether another attempt is outside of the budget. A budget keeps retries from multiplying the load on an upstream that
/// fails; where no connection came about, or the application behind it never got the request, nothing was loaded, and
/// without this a few endpoints that are gone would use the budget up for all. A fixed number of retries holds for every
/// one of them.
fn is_free(limits: &Limits, outcome: &Outcome<'_>) -> bool {
    let by_share = matches!(RetryAllowance::of(limits), RetryAllowance::Budget(_));
    by_share
        && match outcome {
            Outcome::Failed(fault) => is_unconnected(fault.kind),
            Outcome::Answered { refused, .. } => *refused,
        }
}

const fn is_unconnected(kind: FaultKind) -> bool {
    matches!(kind, FaultKind::ConnectFailed | FaultKind::ConnectTimeout)
}

impl Retries {
    /// For a request that is about to be forwarded.
    #[must_use]
    pub fn new(forwarding: &Forwarding<'_>, head: &Head) -> Self {
        Self {
            policy: forwarding.routed.retry.clone(),
            timeouts: forwarding.routed.timeouts,
            idempotent: policy::is_idempotent(head.method()),
            spent: 0,
            fresh: false,
            whole: None,
            permit: None,
            attempts: 1,
            count_header: forwarding.routed.host.attempt_count,
            ran: false,
            refused: false,
        }
    }

    /// How much of the request's body is worth keeping. A stale connection may cost an attempt even without a policy.
    #[must_use]
    pub const fn replay_bytes(&self) -> usize {
        REPLAY_BYTES
    }

    /// Whether endpoints tried before are avoided.
    #[must_use]
    pub fn avoids_previous(&self) -> bool {
        self.policy.as_ref().is_some_and(|policy| policy.avoid_previous)
    }

    /// The request is complete: its time runs from now, if it does not yet.
    pub fn arm(&mut self) {
        if self.whole.is_none() {
            self.whole = self.timeouts.whole.map(|limit| Instant::now() + limit);
        }
    }

    /// When the request's time is over, once it runs.
    #[must_use]
    pub const fn ends_at(&self) -> Option<Instant> {
        self.whole
    }

    /// The deadline of the present attempt, now that the request is complete.
    pub fn deadline(&mut self) -> Deadline {
        self.arm();
        let now = Instant::now();
        let per_try = self.timeouts.per_try.map(|limit| now + limit);
        Deadline::at([self.whole, per_try].into_iter().flatten().min())
    }

    /// The deadline of a response's body: that of the whole request.
    pub fn body_deadline(&mut self) -> Deadline {
        self.arm();
        Deadline::at(self.whole)
    }

    /// Decides after a failed attempt.
    pub fn after_failure(&mut self, forwarding: &Forwarding<'_>, fault: &Fault, sent: Sent) -> Decision {
        self.ran |= resend::may_have_run(fault, sent.bytes);
        match self.ask(forwarding, &Outcome::Failed(fault), sent) {
            Ok(pause) => Decision::Again(pause),
            Err(why) => {
                self.refused = why == Why::Exhausted && fault.kind == FaultKind::UpstreamRefusedStream;
                Decision::Give(Fault {
                    retried: self.attempts > 1,
                    exhausted: why == Why::Exhausted && self.spent > 0,
                    resend: resend::is_safe(fault, self.ran, self.idempotent),
                    ..fault.clone()
                })
            }
        }
    }

    /// Whether a response is to be thrown away for another attempt, and after which pause. `by_mesh`: a proxy of the mesh
    /// gave it, whose word on the request counts.
    pub fn after_response(
        &mut self,
        forwarding: &Forwarding<'_>,
        head: &Head,
        sent: Sent,
        by_mesh: bool,
    ) -> Option<Duration> {
        let refused = by_mesh && resend::is_asked(head);
        self.ran |= !refused;
        // A response is final unless a policy says otherwise.
        self.policy.as_ref()?;
        let outcome = Outcome::Answered {
            status: head.status(),
            grpc_status: super::transfer::grpc_status(head),
            rate_limited: head.contains(KnownName::XEnvoyRateLimited),
            refused,
        };
        let asked = self.ask(forwarding, &outcome, sent);
        self.refused = refused && asked == Err(Why::Exhausted);
        asked.ok()
    }

    /// Whether an endpoint that was not tried yet is worth a look, after `tried` of them. A policy that somebody wrote is
    /// followed to the letter.
    #[must_use]
    pub fn wants_another(&self, tried: usize) -> bool {
        let is_default = |policy: &Arc<RetryPolicy>| policy.safety == RetrySafety::Safe && policy.avoid_previous;
        self.refused && tried < MOST_REFUSALS && self.policy.as_ref().is_some_and(is_default)
    }

    fn ask(&mut self, forwarding: &Forwarding<'_>, outcome: &Outcome<'_>, sent: Sent) -> Result<Duration, Why> {
        let attempt = Attempt {
            retries: self.spent,
            idempotent: self.idempotent,
            bytes_sent: sent.bytes,
            replayable: sent.replayable,
            reused_connection: sent.reused,
            time_left: self.whole.map(|whole| whole.saturating_duration_since(Instant::now())),
        };
        let policy = self.policy.as_deref();
        match forwarding.worker.with_rng(|rng| policy::decide(policy, outcome, &attempt, rng)) {
            policy::Decision::Done(why) => Err(why),
            policy::Decision::Again { after, counts, fresh_connection } => {
                if counts {
                    // The permit of the attempt before is given back first: one request never needs two.
                    self.permit = None;
                    let limits = &forwarding.cluster.settings.limits;
                    if !is_free(limits, outcome) {
                        let permit = forwarding.cluster.state.circuit.retry(limits);
                        self.permit = Some(permit.ok_or(Why::Exhausted)?);
                    }
                    self.spent += 1;
                }
                self.fresh = fresh_connection;
                Ok(after)
            }
        }
    }

    /// Whether the present attempt must not use a pooled connection.
    #[must_use]
    pub const fn wants_fresh_connection(&self) -> bool {
        self.fresh
    }

    /// What passed: the attempt's time or the request's.
    #[must_use]
    pub fn timed_out(&self) -> Fault {
        let whole = self.is_over();
        Fault::new(if whole { FaultKind::ResponseTimeout } else { FaultKind::PerTryTimeout })
    }

    fn is_over(&self) -> bool {
        self.whole.is_some_and(|whole| whole <= Instant::now())
    }

    /// The next attempt begins.
    pub fn note_attempt(&mut self, head: &mut Head) {
        self.attempts += 1;
        if self.count_header {
            let mut text = Vec::with_capacity(4);
            mesh_proxy_core::h1::encode::decimal(u64::from(self.attempts), &mut text);
            let _ = head.set(KnownName::XEnvoyAttemptCount, &text);
        }
    }
}
