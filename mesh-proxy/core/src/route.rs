//! Which route takes a request, and where it goes.
//!
//! The rule: the most specific domain gives the virtual host; in it the first route whose conditions all hold. With a
//! [`Trace`] that listens the rule is followed by the word; without, indexes propose candidates and the rest is the same
//! code. Nothing here allocates.

use std::sync::Arc;
use std::time::Duration;

use mesh_api_xds::ir::route::RetryPolicy;
use rand_core::Rng;

use crate::facts::{RequestFacts, Transport};
use crate::filter::headers::HeaderRules;
use crate::head::Head;
use crate::head::known::KnownName;
use crate::matcher::host::{Domain, without_port};
use crate::plan::Plan;
use crate::plan::cluster::{ClusterPlan, ClusterRef};
use crate::plan::listener::{HttpPlan, RoutesRef};
use crate::plan::route::{ActionPlan, ForwardPlan, RoutePlan};
use crate::plan::routes::{HostPlan, RouteTable};
use crate::trace::{DomainLost, RouteLost, Step, Trace};

/// A selected route. It borrows from the plan, so that no count is shared between workers per request.
#[derive(Clone, Copy, Debug)]
pub struct Selected<'p> {
    /// Virtual host.
    pub host: &'p Arc<HostPlan>,
    /// Route.
    pub route: &'p Arc<RoutePlan>,
    /// Destination of a route that forwards.
    pub destination: Option<Destination<'p>>,
}

/// Where a request goes.
#[derive(Clone, Copy, Debug)]
pub struct Destination<'p> {
    /// The route's settings for forwarding.
    pub forward: &'p ForwardPlan,
    /// The chosen cluster's name and slot.
    pub reference: &'p ClusterRef,
    /// The cluster; `None` when the plan does not have it (yet).
    pub cluster: Option<&'p Arc<ClusterPlan>>,
    /// Header edits of the choice, before those of the route.
    pub headers: Option<&'p HeaderRules>,
}

/// Why no route takes a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Miss<'p> {
    /// The route configuration has not arrived; it may be worth waiting a bounded time.
    NotYet(&'p str),
    /// No virtual host covers the authority.
    Host,
    /// No route of the virtual host matches.
    Route,
    /// The virtual host wants TLS: `filter::redirect::to_https` answers.
    PlainHttp,
}

/// Time limits of a request; `None` is no limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// From the request's end to the response's end.
    pub whole: Option<Duration>,
    /// Of one attempt.
    pub per_try: Option<Duration>,
}

/// Selects the route of a request and draws its destination.
///
/// # Errors
/// Says what is missing.
pub fn select_route<'p>(
    plan: &'p Plan,
    http: &'p HttpPlan,
    head: &Head,
    facts: &RequestFacts<'_>,
    rng: &mut impl Rng,
    trace: &mut impl Trace,
) -> Result<Selected<'p>, Miss<'p>> {
    let table = table(plan, http)?;
    let (host, route) = find(table, head, facts, trace)?;
    let destination = match &route.action {
        ActionPlan::Forward(forward) => forward.to.choose(rng).map(|(reference, headers)| Destination {
            forward,
            reference,
            cluster: plan.cluster_at(reference.slot),
            headers,
        }),
        ActionPlan::Redirect(_) | ActionPlan::Direct(_) => None,
    };
    Ok(Selected { host, route, destination })
}

impl Selected<'_> {
    /// Time limits of a request: those of the route, or what a header asks for. Requests from outside the mesh have lost
    /// these headers before (`filter::forwarded`).
    #[must_use]
    pub fn timeouts(&self, head: &Head) -> Timeouts {
        let Some(destination) = &self.destination else { return Timeouts { whole: None, per_try: None } };
        let forward = destination.forward;
        let asked = milliseconds(head.get(KnownName::XEnvoyUpstreamRqTimeoutMs));
        let is_grpc = head.get(KnownName::ContentType).is_some_and(|value| value.starts_with(b"application/grpc"));
        let grpc = if is_grpc { grpc_timeout(head.get(KnownName::GrpcTimeout)) } else { None };
        let whole = match (asked, forward.max_grpc_timeout, grpc) {
            (Some(asked), ..) => nonzero(asked),
            (None, Some(max), Some(grpc)) => nonzero(max).map_or(Some(grpc), |max| Some(grpc.min(max))),
            (None, ..) => forward.timeout.and_then(nonzero),
        };
        let asked = milliseconds(head.get(KnownName::XEnvoyUpstreamRqPerTryTimeoutMs));
        let per_try = asked.or_else(|| self.retry().and_then(|retry| retry.per_try_timeout)).and_then(nonzero);
        // A limit of one attempt that is not below the whole one says nothing.
        Timeouts { whole, per_try: per_try.filter(|limit| whole.is_none_or(|whole| *limit < whole)) }
    }

    /// The route's retry policy.
    #[must_use]
    pub fn retry(&self) -> Option<&Arc<RetryPolicy>> {
        self.destination.as_ref().and_then(|destination| destination.forward.retry.as_ref())
    }
}

fn table<'p>(plan: &'p Plan, http: &'p HttpPlan) -> Result<&'p RouteTable, Miss<'p>> {
    match &http.routes {
        RoutesRef::Inline(table) => Ok(table),
        RoutesRef::Named { slot, name } => plan.routes_at(*slot).map(|table| &**table).ok_or(Miss::NotYet(name)),
    }
}

/// The virtual host and route of a request.
fn find<'p, T: Trace>(
    table: &'p RouteTable,
    head: &Head,
    facts: &RequestFacts<'_>,
    trace: &mut T,
) -> Result<(&'p Arc<HostPlan>, &'p Arc<RoutePlan>), Miss<'p>> {
    let authority = head.host_lower();
    let authority = if table.ignore_port { without_port(authority) } else { authority };
    let host = if T::ON { find_host(table, authority, trace) } else { table.find_host(authority) };
    let host = host.ok_or(Miss::Host)?;
    if host.require_tls && !is_https(head, facts) {
        return Err(Miss::PlainHttp);
    }
    let route = if T::ON {
        find_route(host, head, trace)
    } else {
        host.candidates(head.path()).find(|route| route.test(head).is_ok())
    };
    Ok((host, route.ok_or(Miss::Route)?))
}

/// The rule for virtual hosts.
fn find_host<'p>(table: &'p RouteTable, authority: &[u8], trace: &mut impl Trace) -> Option<&'p Arc<HostPlan>> {
    let all = || {
        let domains = |host: &'p Arc<HostPlan>| host.domains().iter().map(move |domain| (host, domain));
        table.hosts().iter().flat_map(domains).filter_map(|(host, domain)| Some((host, domain, Domain::parse(domain)?)))
    };
    let covering = all().filter(|(.., domain)| domain.covers(authority));
    // Of equal ranks the first counts: a domain that an earlier virtual host has is cut.
    let best = covering.reduce(|best, next| if next.2.rank() > best.2.rank() { next } else { best });
    let best_domain = best.map(|(.., domain)| domain);
    let mut won = false;
    for (host, domain, parsed) in all() {
        let lost = if !parsed.covers(authority) {
            Some(DomainLost::NotCovered)
        } else if Some(parsed) != best_domain || std::mem::replace(&mut won, true) {
            Some(DomainLost::LessSpecific)
        } else {
            None
        };
        trace.step(Step::Domain { host: &host.name, domain, lost });
    }
    best.map(|(host, ..)| host)
}

/// The rule for routes.
fn find_route<'p>(host: &'p HostPlan, head: &Head, trace: &mut impl Trace) -> Option<&'p Arc<RoutePlan>> {
    let mut found = None;
    for (position, route) in host.routes().iter().enumerate() {
        let lost = match found {
            Some(_) => Some(RouteLost::Later),
            None => route.test(head).err(),
        };
        trace.step(Step::Route { position, name: &route.name, lost });
        if lost.is_none() {
            found = Some(route);
        }
    }
    found
}

/// What the client used, as far as we believe it: `x-forwarded-proto`, which strangers cannot set, else the connection.
fn is_https(head: &Head, facts: &RequestFacts<'_>) -> bool {
    match head.get(KnownName::XForwardedProto) {
        Some(scheme) => scheme.eq_ignore_ascii_case(b"https"),
        None => facts.conn.transport == Transport::Tls,
    }
}

fn milliseconds(value: Option<&[u8]>) -> Option<Duration> {
    std::str::from_utf8(value?).ok()?.parse().ok().map(Duration::from_millis)
}

/// Zero means no limit.
fn nonzero(duration: Duration) -> Option<Duration> {
    (!duration.is_zero()).then_some(duration)
}

/// `grpc-timeout` (gRPC over HTTP/2, "Timeout"): at most 8 digits and a unit.
fn grpc_timeout(value: Option<&[u8]>) -> Option<Duration> {
    let (unit, digits) = value?.split_last()?;
    if digits.is_empty() || digits.len() > 8 || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let number: u64 = std::str::from_utf8(digits).ok()?.parse().ok()?;
    Some(match unit {
        b'H' => Duration::from_secs(number * 3600),
        b'M' => Duration::from_secs(number * 60),
        b'S' => Duration::from_secs(number),
        b'm' => Duration::from_millis(number),
        b'u' => Duration::from_micros(number),
        b'n' => Duration::from_nanos(number),
        _ => return None,
    })
}

#[cfg(test)]
mod tests;
