//! One compiled route.

use std::sync::Arc;
use std::time::Duration;

use mesh_api::text::Str;
use mesh_api_xds::ir::filter::{Fault, RouteFilter};
use mesh_api_xds::ir::route::{self as ir, Direct, Redirect};
use mesh_api_xds::ir::{Origin, PerMillion};
use rand_core::Rng;

use super::cluster::{ClusterPlan, ClusterRef};
use super::slots::{Slot, Slots};
use crate::draw;
use crate::filter::cors::CorsRules;
use crate::filter::headers::HeaderRules;
use crate::filter::rewrite::PathRule;
use crate::head::{Head, syntax};
use crate::matcher::header::HeaderTest;
use crate::matcher::path::PathTest;
use crate::matcher::query::QueryTest;
use crate::rejected::Reason;
use crate::trace::RouteLost;

/// A route.
#[derive(Clone, Debug)]
pub struct RoutePlan {
    /// `%ROUTE_NAME%`.
    pub name: Str,
    /// Object that asked for it.
    pub origin: Origin,
    test: RouteTest,
    /// What is done.
    pub action: ActionPlan,
    /// Header edits, after those of the chosen destination.
    pub headers: HeaderRules,
    /// Fault injection.
    pub fault: Option<Fault>,
    /// Cross-origin resource sharing.
    pub cors: Option<CorsRules>,
}

/// Conditions of a route.
#[derive(Clone, Debug)]
struct RouteTest {
    path: PathTest,
    headers: Box<[HeaderTest]>,
    query: Box<[QueryTest]>,
}

/// What a route does.
#[derive(Clone, Debug)]
pub enum ActionPlan {
    /// Send upstream.
    Forward(ForwardPlan),
    /// Answer with a redirect.
    Redirect(Redirect),
    /// Answer here.
    Direct(Direct),
}

/// Sending upstream.
#[derive(Clone, Debug)]
pub struct ForwardPlan {
    /// Destination.
    pub to: DestinationPlan,
    /// Whole time from the request's end to the response's end; `None` is no limit.
    pub timeout: Option<Duration>,
    /// Upper bound on a client's `grpc-timeout`; `None` ignores it, zero honours it unbounded.
    pub max_grpc_timeout: Option<Duration>,
    /// Retries; `None` is none.
    pub retry: Option<Arc<ir::RetryPolicy>>,
    /// Path edit.
    pub rewrite: PathRule,
    /// New authority.
    pub host_rewrite: Option<Str>,
    /// Copies of the request.
    pub mirrors: Box<[MirrorPlan]>,
}

/// Where a request goes.
#[derive(Clone, Debug)]
pub enum DestinationPlan {
    /// One cluster.
    One(ClusterRef),
    /// One of several.
    Weighted {
        /// Choices, each with a positive weight.
        choices: Box<[ChoicePlan]>,
        /// Sum of weights.
        total: u64,
    },
}

/// One choice of a weighted destination.
#[derive(Clone, Debug)]
pub struct ChoicePlan {
    /// Where to.
    pub cluster: ClusterRef,
    /// Relative weight, positive.
    pub weight: u32,
    /// Header edits, before those of the route.
    pub headers: HeaderRules,
}

/// A mirror.
#[derive(Clone, Debug)]
pub struct MirrorPlan {
    /// Where to.
    pub cluster: ClusterRef,
    /// Share of requests.
    pub share: PerMillion,
}

/// Table of clusters while a plan is built.
pub(crate) type ClusterSlots = Slots<Arc<ClusterPlan>>;

impl RoutePlan {
    /// Compiles a route. Clusters that do not exist (yet) get a slot.
    ///
    /// # Errors
    /// The path of the wrong piece inside the route, and what is wrong with it.
    pub(crate) fn compile(route: &ir::Route, clusters: &mut ClusterSlots) -> Result<Self, (String, Reason)> {
        let at = |path: &str| {
            let path = path.to_owned();
            move |reason: Reason| (path, reason)
        };
        let test = RouteTest::compile(&route.matches)?;
        let action = match &route.action {
            ir::Action::Forward(forward) => ActionPlan::Forward(ForwardPlan::compile(forward, &test.path, clusters)?),
            ir::Action::Redirect(redirect) => ActionPlan::Redirect(check_redirect(redirect).map_err(at("redirect"))?),
            ir::Action::Direct(direct) => ActionPlan::Direct(check_direct(direct).map_err(at("direct_response"))?),
        };
        let headers = HeaderRules::compile(&route.headers).map_err(at("headers"))?;
        let (mut fault, mut cors) = (None, None);
        for filter in route.filters.iter() {
            match filter {
                RouteFilter::Fault(settings) => fault = Some(check_fault(settings).map_err(at("fault"))?),
                RouteFilter::Cors(settings) => {
                    cors = Some(CorsRules::compile(settings).map_err(Reason::from).map_err(at("cors"))?);
                }
            }
        }
        let (name, origin) = (route.name.clone(), route.origin.clone());
        Ok(Self { name, origin, test, action, headers, fault, cors })
    }

    /// Whether all conditions hold, else the first that does not.
    pub(crate) fn test<'a>(&'a self, head: &Head) -> Result<(), RouteLost<'a>> {
        if !self.test.path.matches(head.path()) {
            return Err(RouteLost::Path);
        }
        if let Some(test) = self.test.headers.iter().find(|test| !test.matches(head)) {
            return Err(RouteLost::Header(test.name()));
        }
        match self.test.query.iter().find(|test| !test.matches(head.query())) {
            Some(test) => Err(RouteLost::Query(test.name())),
            None => Ok(()),
        }
    }

    /// The condition on the path.
    pub(crate) const fn path(&self) -> &PathTest {
        &self.test.path
    }

    /// How much of a matching path the route's condition names.
    #[must_use]
    pub fn matched_len(&self) -> usize {
        self.test.path.matched_len()
    }

    /// Slots of all clusters that the route names.
    pub(crate) fn slots(&self) -> impl Iterator<Item = Slot> {
        let forward = match &self.action {
            ActionPlan::Forward(forward) => Some(forward),
            ActionPlan::Redirect(_) | ActionPlan::Direct(_) => None,
        };
        forward.into_iter().flat_map(|forward| {
            let (one, many) = match &forward.to {
                DestinationPlan::One(cluster) => (Some(cluster.slot), &[][..]),
                DestinationPlan::Weighted { choices, .. } => (None, &choices[..]),
            };
            let many = many.iter().map(|choice| choice.cluster.slot);
            one.into_iter().chain(many).chain(forward.mirrors.iter().map(|mirror| mirror.cluster.slot))
        })
    }
}

impl RouteTest {
    fn compile(matches: &ir::RouteMatch) -> Result<Self, (String, Reason)> {
        let path = PathTest::compile(&matches.path, matches.case_sensitive)
            .map_err(|bad| ("match.path".to_owned(), bad.into()))?;
        let mut headers = Vec::with_capacity(matches.headers.len());
        for (position, test) in matches.headers.iter().enumerate() {
            headers.push(HeaderTest::compile(test).map_err(|bad| (format!("match.headers[{position}]"), bad))?);
        }
        let mut query = Vec::with_capacity(matches.query.len());
        for (position, test) in matches.query.iter().enumerate() {
            query.push(QueryTest::compile(test).map_err(|bad| (format!("match.query[{position}]"), bad.into()))?);
        }
        Ok(Self { path, headers: headers.into(), query: query.into() })
    }
}

impl ForwardPlan {
    fn compile(forward: &ir::Forward, path: &PathTest, clusters: &mut ClusterSlots) -> Result<Self, (String, Reason)> {
        let rewrite = PathRule::compile(&forward.rewrite, path).map_err(|bad| ("rewrite".to_owned(), bad))?;
        if let Some(host) = forward.host_rewrite.as_ref().filter(|host| !syntax::is_authority(host.as_bytes())) {
            return Err(("host_rewrite".to_owned(), Reason::FieldValue(host.clone())));
        }
        let to = DestinationPlan::compile(&forward.to, clusters)?;
        let mirror =
            |mirror: &ir::Mirror| MirrorPlan { cluster: refer(&mirror.cluster, clusters), share: mirror.share };
        let mirrors = forward.mirrors.iter().map(mirror).collect();
        Ok(Self {
            to,
            timeout: forward.timeout,
            max_grpc_timeout: forward.max_grpc_timeout,
            retry: forward.retry.clone(),
            rewrite,
            host_rewrite: forward.host_rewrite.clone(),
            mirrors,
        })
    }
}

impl DestinationPlan {
    fn compile(to: &ir::Destination, clusters: &mut ClusterSlots) -> Result<Self, (String, Reason)> {
        let choices = match to {
            ir::Destination::Cluster(name) => return Ok(Self::One(refer(name, clusters))),
            ir::Destination::Weighted(choices) => choices,
        };
        let mut plans = Vec::with_capacity(choices.len());
        let mut total = 0_u64;
        for (position, choice) in choices.iter().enumerate().filter(|(_, choice)| choice.weight > 0) {
            let headers = HeaderRules::compile(&choice.headers)
                .map_err(|bad| (format!("weighted_clusters[{position}].headers"), bad))?;
            total += u64::from(choice.weight);
            plans.push(ChoicePlan { cluster: refer(&choice.cluster, clusters), weight: choice.weight, headers });
        }
        if plans.is_empty() {
            return Err(("weighted_clusters".to_owned(), Reason::NoWeight));
        }
        Ok(Self::Weighted { choices: plans.into(), total })
    }

    /// Chooses a cluster, with its header edits; of several by weight. There always is one.
    #[must_use]
    pub fn choose(&self, rng: &mut impl Rng) -> Option<(&ClusterRef, Option<&HeaderRules>)> {
        match self {
            Self::One(cluster) => Some((cluster, None)),
            Self::Weighted { choices, total } => {
                let mut at = draw::below(rng, *total);
                choices.iter().find_map(|choice| {
                    let weight = u64::from(choice.weight);
                    if at < weight {
                        return Some((&choice.cluster, Some(&choice.headers)));
                    }
                    at -= weight;
                    None
                })
            }
        }
    }
}

/// A reference to a cluster by name.
pub(crate) fn refer(name: &Str, clusters: &mut ClusterSlots) -> ClusterRef {
    ClusterRef { slot: clusters.slot(name), name: name.clone() }
}

fn check_redirect(redirect: &Redirect) -> Result<Redirect, Reason> {
    if !matches!(redirect.status, 301 | 302 | 303 | 307 | 308) {
        return Err(Reason::Status(redirect.status));
    }
    let texts = [redirect.scheme.as_ref(), redirect.authority.as_ref()];
    let path = match &redirect.path {
        ir::RedirectPath::Keep => None,
        ir::RedirectPath::Full(path) | ir::RedirectPath::Prefix(path) => Some(path),
    };
    // They become part of a header: what is no header value would otherwise fail each request.
    match texts.into_iter().flatten().chain(path).find(|text| !syntax::is_field_value(text.as_bytes())) {
        Some(bad) => Err(Reason::FieldValue(bad.clone())),
        None => Ok(redirect.clone()),
    }
}

fn check_direct(direct: &Direct) -> Result<Direct, Reason> {
    if (200..600).contains(&direct.status) { Ok(direct.clone()) } else { Err(Reason::Status(direct.status)) }
}

fn check_fault(fault: &Fault) -> Result<Fault, Reason> {
    use mesh_api_xds::ir::filter::AbortStatus;
    match fault.abort.map(|abort| abort.status) {
        Some(AbortStatus::Http(status)) if !(200..600).contains(&status) => Err(Reason::Status(status)),
        Some(AbortStatus::Grpc(status)) if status > 16 => Err(Reason::Status(status)),
        _ => Ok(fault.clone()),
    }
}
