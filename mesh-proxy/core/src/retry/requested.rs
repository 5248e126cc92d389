//! Retries that a request asks for by its own headers, on top of those of its route.
//!
//! envoyproxy/envoy: `source/common/router/retry_state_impl.cc`. A request from outside of the mesh has lost these headers
//! before (`filter::forwarded`), so whoever asks is trusted with the load that retries make; the budget holds all the same.

use std::sync::Arc;
use std::time::Duration;

use mesh_api_xds::ir::Origin;
use mesh_api_xds::ir::route::{RetryOn, RetryPolicy, RetrySafety};

use crate::head::Head;
use crate::head::known::KnownName;

/// Headers that speak to this proxy and go no further, whether they were understood or not.
pub const CONSUMED: &[KnownName] = &[
    KnownName::XEnvoyHedgeOnPerTryTimeout,
    KnownName::XEnvoyMaxRetries,
    KnownName::XEnvoyRetriableHeaderNames,
    KnownName::XEnvoyRetriableStatusCodes,
    KnownName::XEnvoyRetryGrpcOn,
    KnownName::XEnvoyRetryOn,
    KnownName::XEnvoyUpstreamAltStatName,
    KnownName::XEnvoyUpstreamRqPerTryTimeoutMs,
    KnownName::XEnvoyUpstreamRqTimeoutAltResponse,
    KnownName::XEnvoyUpstreamRqTimeoutMs,
];

/// Words of `x-envoy-retry-on` and `x-envoy-retry-grpc-on`, which Envoy keeps apart.
const GRPC: RetryOn = RetryOn::GRPC_CANCELLED
    .union(RetryOn::GRPC_DEADLINE_EXCEEDED)
    .union(RetryOn::GRPC_INTERNAL)
    .union(RetryOn::GRPC_RESOURCE_EXHAUSTED)
    .union(RetryOn::GRPC_UNAVAILABLE);

/// Retries of a request whose route and headers name no number (Envoy's default).
const DEFAULT_ATTEMPTS: u32 = 1;
/// Most retries that a header may ask for: more is a mistake.
const MOST_ATTEMPTS: u32 = 100;
/// Most statuses read of a header.
const MOST_STATUSES: usize = 64;
/// First pause between attempts where the route has none (Envoy's default).
const BACKOFF: Duration = Duration::from_millis(25);

/// The policy of a request: its route's, with what its headers ask for. Allocates only when they ask.
#[must_use]
pub fn policy(route: Option<&Arc<RetryPolicy>>, head: &Head) -> Option<Arc<RetryPolicy>> {
    let asks = [
        KnownName::XEnvoyRetryOn,
        KnownName::XEnvoyRetryGrpcOn,
        KnownName::XEnvoyMaxRetries,
        KnownName::XEnvoyRetriableStatusCodes,
    ];
    if !asks.into_iter().any(|name| head.contains(name)) {
        return route.cloned();
    }
    let http = words(head, KnownName::XEnvoyRetryOn, |word| !word.intersects(GRPC));
    let grpc = words(head, KnownName::XEnvoyRetryGrpcOn, |word| word.intersects(GRPC));
    let asked = http.union(grpc);
    let mut policy = match route {
        Some(route) => RetryPolicy::clone(route),
        // A number or statuses alone ask for nothing.
        None if asked == RetryOn::default() => return None,
        None => RetryPolicy {
            on: RetryOn::default(),
            attempts: DEFAULT_ATTEMPTS,
            per_try_timeout: None,
            statuses: Arc::default(),
            avoid_previous: true,
            backoff: BACKOFF,
            safety: RetrySafety::AsConfigured,
            origin: Origin::default(),
        },
    };
    if asked != RetryOn::default() {
        policy.on = policy.on.union(asked);
        // Who names conditions for this very request knows whether it may be sent twice.
        policy.safety = RetrySafety::AsConfigured;
    }
    if let Some(attempts) = text(head, KnownName::XEnvoyMaxRetries).and_then(|text| text.trim().parse::<u32>().ok()) {
        policy.attempts = attempts.min(MOST_ATTEMPTS);
    }
    if let Some(list) = text(head, KnownName::XEnvoyRetriableStatusCodes) {
        let more = list.split(',').filter_map(|code| code.trim().parse().ok()).take(MOST_STATUSES);
        policy.statuses = policy.statuses.iter().copied().chain(more).collect();
    }
    Some(Arc::new(policy))
}

/// Unknown words are left out, as Envoy does.
fn words(head: &Head, name: KnownName, fits: impl Fn(RetryOn) -> bool) -> RetryOn {
    let list = text(head, name).unwrap_or_default().split(',');
    let known = list.filter_map(|word| RetryOn::from_word(word.trim())).filter(|word| fits(*word));
    known.fold(RetryOn::default(), RetryOn::union)
}

fn text(head: &Head, name: KnownName) -> Option<&str> {
    std::str::from_utf8(head.get(name)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mk_route(safety: RetrySafety) -> Arc<RetryPolicy> {
        Arc::new(RetryPolicy {
            on: RetryOn::CONNECT_FAILURE,
            attempts: 2,
            per_try_timeout: None,
            statuses: [429].into(),
            avoid_previous: true,
            backoff: BACKOFF,
            safety,
            origin: Origin::default(),
        })
    }

    fn ask(route: Option<&Arc<RetryPolicy>>, fields: &[(KnownName, &str)]) -> Option<Arc<RetryPolicy>> {
        let mut head = Head::default();
        for (name, value) in fields {
            head.set(*name, value.as_bytes()).unwrap();
        }
        policy(route, &head)
    }

    #[test]
    fn a_request_without_such_headers_keeps_its_route() {
        let route = mk_route(RetrySafety::Safe);
        assert!(ask(None, &[]).is_none());
        assert!(Arc::ptr_eq(&ask(Some(&route), &[(KnownName::UserAgent, "x")]).unwrap(), &route));
    }

    #[test]
    fn conditions_are_added_and_the_number_replaced() {
        let route = mk_route(RetrySafety::Safe);
        let asked = ask(
            Some(&route),
            &[
                (KnownName::XEnvoyRetryOn, "5xx, nonsense,unavailable"),
                (KnownName::XEnvoyRetryGrpcOn, "cancelled,5xx"),
                (KnownName::XEnvoyMaxRetries, "7"),
                (KnownName::XEnvoyRetriableStatusCodes, "418,x"),
            ],
        );
        let asked = asked.unwrap();
        assert_eq!(asked.on.words(), "5xx,connect-failure,cancelled");
        assert_eq!((asked.attempts, &*asked.statuses, asked.safety), (7, &[429, 418][..], RetrySafety::AsConfigured));
    }

    #[test]
    fn without_a_route_policy_conditions_bring_one_retry() {
        let asked = ask(None, &[(KnownName::XEnvoyRetryOn, "reset")]).unwrap();
        assert_eq!((asked.on, asked.attempts), (RetryOn::RESET, 1));
        assert!(ask(None, &[(KnownName::XEnvoyMaxRetries, "5")]).is_none());
        assert!(ask(None, &[(KnownName::XEnvoyRetryOn, "nonsense")]).is_none());
    }

    #[test]
    fn a_number_alone_does_not_make_retries_unsafe() {
        let route = mk_route(RetrySafety::Safe);
        let asked = ask(Some(&route), &[(KnownName::XEnvoyMaxRetries, "4000000000")]).unwrap();
        assert_eq!((asked.attempts, asked.safety), (MOST_ATTEMPTS, RetrySafety::Safe));
        assert_eq!(ask(Some(&route), &[(KnownName::XEnvoyMaxRetries, "-1")]).unwrap().attempts, 2);
        assert_eq!(ask(Some(&route), &[(KnownName::XEnvoyMaxRetries, "0")]).unwrap().attempts, 0);
    }
}
