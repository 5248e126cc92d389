//! The tables of conditions and safety, and: a request that must not run twice never does.

use mesh_api_xds::ir::Origin;
use proptest::prelude::*;

use super::*;
use crate::testing::rng;

fn mk_policy(words: &str, safety: RetrySafety) -> RetryPolicy {
    let on = words.split(',').filter_map(RetryOn::from_word).fold(RetryOn::default(), RetryOn::union);
    RetryPolicy {
        on,
        attempts: 2,
        per_try_timeout: None,
        statuses: [503].into(),
        avoid_previous: true,
        backoff: Duration::from_millis(25),
        safety,
        origin: Origin::default(),
    }
}

/// Istio's default.
const DEFAULT: &str = "connect-failure,refused-stream,unavailable,cancelled,retriable-status-codes";

/// A POST whose head went out on a fresh connection.
const POST: Attempt = Attempt {
    retries: 0,
    idempotent: false,
    bytes_sent: true,
    replayable: true,
    reused_connection: false,
    time_left: None,
};
const GET: Attempt = Attempt { idempotent: true, ..POST };

fn failed(policy: Option<&RetryPolicy>, kind: FaultKind, attempt: Attempt) -> Decision {
    decide(policy, &Outcome::Failed(&Fault::new(kind)), &attempt, &mut rng(1))
}

fn answered(policy: &RetryPolicy, status: u16, grpc_status: Option<u8>, attempt: Attempt) -> Decision {
    let outcome = Outcome::Answered { status, grpc_status, rate_limited: false, refused: false };
    decide(Some(policy), &outcome, &attempt, &mut rng(1))
}

fn is_again(decision: Decision) -> bool {
    matches!(decision, Decision::Again { counts: true, .. })
}

#[test]
fn methods_are_idempotent_by_the_rfc() {
    let idempotent = ["GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"];
    for method in ["GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE", "POST", "PATCH", "CONNECT", "PURGE", "get"] {
        let mut head = crate::head::Head::request();
        head.set_method(method.as_bytes()).unwrap();
        assert_eq!(is_idempotent(head.method()), idempotent.contains(&method), "{method}");
    }
}

#[test]
fn the_default_policy_never_repeats_what_may_have_run() {
    let policy = mk_policy(DEFAULT, RetrySafety::Safe);
    let fails = |kind, attempt| failed(Some(&policy), kind, attempt);
    assert!(is_again(fails(FaultKind::ConnectFailed, POST)));
    assert!(is_again(fails(FaultKind::UpstreamRefusedStream, POST)));
    assert!(is_again(answered(&policy, 503, None, GET)));
    assert_eq!(answered(&policy, 503, None, POST), Decision::Done(Why::Unsafe));
    assert_eq!(answered(&policy, 200, Some(14), POST), Decision::Done(Why::Unsafe));
    assert!(is_again(answered(&policy, 200, Some(14), GET)));
    assert_eq!(fails(FaultKind::UpstreamClosed, GET), Decision::Done(Why::NotWanted));
    assert_eq!(fails(FaultKind::ResponseTimeout, GET), Decision::Done(Why::NotWanted));
    assert_eq!(fails(FaultKind::UpstreamOverflow, GET), Decision::Done(Why::NotWanted));
    assert_eq!(answered(&policy, 500, None, GET), Decision::Done(Why::NotWanted));
}

#[test]
fn what_the_application_never_got_is_sent_again_whatever_its_method() {
    let refused = Outcome::Answered { status: 503, grpc_status: None, rate_limited: false, refused: true };
    let ask = |words, attempt| decide(Some(&mk_policy(words, RetrySafety::Safe)), &refused, &attempt, &mut rng(1));
    for words in [DEFAULT, "refused-stream", "connect-failure", "5xx"] {
        assert!(is_again(ask(words, POST)), "{words}");
    }
    // What the policy does not name, the body that is gone and the number of retries hold all the same.
    assert_eq!(ask("cancelled", POST), Decision::Done(Why::NotWanted));
    assert_eq!(ask(DEFAULT, Attempt { replayable: false, ..POST }), Decision::Done(Why::BodyGone));
    assert_eq!(ask(DEFAULT, Attempt { retries: 2, ..POST }), Decision::Done(Why::Exhausted));
    assert_eq!(decide(None, &refused, &POST, &mut rng(1)), Decision::Done(Why::NotWanted));
}

#[test]
fn a_written_policy_is_followed_as_in_istio() {
    let policy = mk_policy("5xx,reset", RetrySafety::AsConfigured);
    assert!(is_again(answered(&policy, 500, None, POST)));
    assert!(is_again(failed(Some(&policy), FaultKind::UpstreamClosed, POST)));
    assert!(is_again(failed(Some(&policy), FaultKind::PerTryTimeout, POST)));
    assert_eq!(failed(Some(&policy), FaultKind::UpstreamOverflow, POST), Decision::Done(Why::NotWanted));
    assert_eq!(failed(Some(&policy), FaultKind::ClientClosed, POST), Decision::Done(Why::NotWanted));
}

#[test]
fn each_word_means_what_envoy_means() {
    #[track_caller]
    fn check(word: &str, outcome: Outcome<'_>, sent: bool, expect: bool) {
        let policy = mk_policy(word, RetrySafety::AsConfigured);
        let decision = decide(Some(&policy), &outcome, &Attempt { bytes_sent: sent, ..GET }, &mut rng(1));
        assert_eq!(is_again(decision), expect, "{word} {outcome:?}");
    }
    let status = |status| Outcome::Answered { status, grpc_status: None, rate_limited: false, refused: false };
    let grpc = |grpc| Outcome::Answered { status: 200, grpc_status: Some(grpc), rate_limited: false, refused: false };
    let limited = Outcome::Answered { status: 503, grpc_status: None, rate_limited: true, refused: false };
    let faults = [FaultKind::ConnectFailed, FaultKind::UpstreamRefusedStream, FaultKind::UpstreamReset].map(Fault::new);
    let [connect, refused, reset] = faults.each_ref().map(Outcome::Failed);
    check("5xx", status(500), true, true);
    check("5xx", status(499), true, false);
    check("5xx", reset, true, true);
    check("gateway-error", status(502), true, true);
    check("gateway-error", status(500), true, false);
    check("gateway-error", reset, true, true);
    check("reset", reset, true, true);
    check("reset", status(503), true, false);
    check("reset-before-request", reset, true, false);
    check("reset-before-request", reset, false, true);
    check("connect-failure", connect, false, true);
    check("connect-failure", reset, true, false);
    check("refused-stream", refused, true, true);
    check("refused-stream", reset, true, false);
    check("retriable-4xx", status(409), true, true);
    check("retriable-4xx", status(404), true, false);
    check("retriable-status-codes", status(503), true, true);
    check("retriable-status-codes", status(500), true, false);
    check("cancelled", grpc(1), true, true);
    check("deadline-exceeded", grpc(4), true, true);
    check("resource-exhausted", grpc(8), true, true);
    check("internal", grpc(13), true, true);
    check("unavailable", grpc(14), true, true);
    check("unavailable", grpc(13), true, false);
    check("5xx", limited, true, false);
    check("envoy-ratelimited", limited, true, true);
}

#[test]
fn a_stale_connection_is_no_attempt() {
    let reused = |attempt| Attempt { reused_connection: true, retries: 9, ..attempt };
    let fresh = Decision::Again { after: Duration::ZERO, counts: false, fresh_connection: true };
    let stale = |attempt| failed(None, FaultKind::ReusedClosed, attempt);
    assert_eq!(stale(reused(GET)), fresh);
    assert_eq!(stale(reused(POST)), Decision::Done(Why::NotWanted));
    assert_eq!(stale(reused(Attempt { bytes_sent: false, ..POST })), fresh);
    assert_eq!(stale(Attempt { replayable: false, ..reused(GET) }), Decision::Done(Why::BodyGone));
    assert_eq!(stale(GET), Decision::Done(Why::NotWanted));
}

#[test]
fn attempts_body_and_time_run_out() {
    let policy = mk_policy("5xx", RetrySafety::Safe);
    let done = |attempt| answered(&policy, 503, None, attempt);
    assert!(is_again(done(Attempt { retries: 1, ..GET })));
    assert_eq!(done(Attempt { retries: 2, ..GET }), Decision::Done(Why::Exhausted));
    assert_eq!(done(Attempt { replayable: false, ..GET }), Decision::Done(Why::BodyGone));
    assert_eq!(done(Attempt { time_left: Some(Duration::ZERO), ..GET }), Decision::Done(Why::NoTime));
}

fn any_kind() -> impl Strategy<Value = FaultKind> {
    prop::sample::select(FaultKind::ALL)
}

proptest! {
    /// Simulation: attempts that fail in random ways, some after the upstream ran the request. Under `Safe` a request that
    /// must not run twice runs once at most, whatever the policy's words.
    #[test]
    fn what_must_not_run_twice_never_does(
        on in any::<u32>(),
        crashes in prop::collection::vec((any_kind(), any::<bool>(), any::<bool>(), 500..600_u16, any::<bool>()), 1..8),
        seed: u64,
    ) {
        let policy = RetryPolicy { on: RetryOn(on), attempts: 10, ..mk_policy("", RetrySafety::Safe) };
        let (mut executions, mut retries, mut rng) = (0, 0, rng(seed));
        for (kind, answers, bytes_sent, status, reused_connection) in crashes {
            let fault = Fault::new(kind);
            // The worst that can be true of each outcome.
            let outcome = if answers { Outcome::Answered { status, grpc_status: Some(14), rate_limited: false, refused: false } } else { Outcome::Failed(&fault) };
            let bytes_sent = bytes_sent || answers;
            executions += u32::from(answers || (bytes_sent && fault.retry() != Retry::Unprocessed));
            let attempt = Attempt { retries, bytes_sent, reused_connection, ..POST };
            match decide(Some(&policy), &outcome, &attempt, &mut rng) {
                Decision::Done(_) => break,
                Decision::Again { counts, .. } => retries += u32::from(counts),
            }
        }
        prop_assert!(executions <= 1, "{executions} executions");
    }

    #[test]
    fn retries_never_exceed_the_policy(attempts in 0..5_u32, seed: u64) {
        let policy = RetryPolicy { attempts, ..mk_policy("5xx", RetrySafety::AsConfigured) };
        let (mut retries, mut rng) = (0, rng(seed));
        while let Decision::Again { counts: true, .. } = decide(
            Some(&policy),
            &Outcome::Answered { status: 500, grpc_status: None, rate_limited: false, refused: false },
            &Attempt { retries, ..POST },
            &mut rng,
        ) {
            retries += 1;
        }
        prop_assert_eq!(retries, attempts);
    }
}
