//! Virtual hosts.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use mesh_api::host::Hostname;
use mesh_api::names::PASSTHROUGH_CLUSTER;
use mesh_api::text::Str;
use mesh_api_xds::ir::Origin;
use mesh_api_xds::ir::route::{
    Action, Destination, Direct, Forward, HeaderEdits, Mirror, PathMatch, PathRewrite, RedirectPort, RetryPolicy,
    Route, RouteMatch, VirtualHost, WeightedCluster,
};

use super::memo::ByPtr;
use super::names;
use crate::scope::ProxyScope;
use crate::snapshot::mesh::Mesh;
use crate::snapshot::services::{Protocol, Resolution, Service};
use crate::snapshot::virtual_services::{Client, ForwardRule, HttpRule, RetryRule, RuleAction, Target, VirtualService};

/// Everything a virtual host is made of.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct HostKey {
    pub(crate) name: Str,
    pub(crate) domains: Vec<Str>,
    pub(crate) mesh: ByPtr<Mesh>,
    /// Port of the listener.
    pub(crate) port: u16,
    pub(crate) content: Content,
    pub(crate) require_tls: bool,
}

/// What a virtual host does.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Content {
    /// Everything to one cluster.
    Cluster(Str),
    /// By routes of these VirtualServices, in order; at gateways those that match everything come last.
    Routes { parts: Vec<RoutePart>, catch_alls_last: bool },
    /// Unknown destinations go where they want.
    AllowAny,
    /// Unknown destinations are refused.
    BlockAll,
    /// Nothing is there.
    NotFound,
}

/// The routes of one VirtualService as they apply to a client, with the cluster of every target.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct RoutePart {
    pub(crate) routes: ByPtr<VirtualService>,
    /// Rule and case, by position.
    pub(crate) chosen: Vec<(usize, usize)>,
    /// Clusters of all targets of all rules, in the order of [`targets`]; empty for a target that does not exist.
    pub(crate) clusters: Vec<Str>,
}

impl RoutePart {
    /// What of a VirtualService applies to a client; `None` when nothing does, and the host is as if it had none.
    ///
    /// `cluster` names the cluster of a target, or `None` when there is no such service, port or subset. Requests are not
    /// led there, so that objects may be applied in any order: the other targets of the rule share them, and a rule that is
    /// left without one is cut.
    pub(crate) fn new(
        routes: &Arc<VirtualService>,
        client: &Client<'_>,
        cluster: &dyn Fn(&Target) -> Option<Str>,
    ) -> Option<Self> {
        let mut chosen = Vec::new();
        let mut clusters = Vec::new();
        let mut done = false;
        for (number, rule) in routes.http.iter().enumerate() {
            let first = clusters.len();
            clusters.extend(targets(rule).map(|target| cluster(target).unwrap_or_default()));
            let of_rule = clusters.get(first..).unwrap_or_default();
            if done || !leads_somewhere(rule, of_rule) {
                continue;
            }
            for (position, case) in rule.cases.iter().enumerate() {
                if !case.on.holds(client) {
                    continue;
                }
                chosen.push((number, position));
                if is_catch_all(&case.matches) {
                    done = true;
                    break;
                }
            }
        }
        if chosen.is_empty() {
            return None;
        }
        Some(Self { routes: ByPtr(Arc::clone(routes)), chosen, clusters })
    }
}

/// Whether a rule has anything to do: `clusters` are those of its targets.
fn leads_somewhere(rule: &HttpRule, clusters: &[Str]) -> bool {
    match &rule.action {
        RuleAction::Forward(forward) => clusters.iter().take(forward.to.len()).any(|cluster| !cluster.is_empty()),
        RuleAction::Redirect(_) | RuleAction::Direct(_) => true,
    }
}

/// The cluster of a target on a listener's port.
pub(crate) fn cluster_of(
    target: &Target,
    port: u16,
    scope: &ProxyScope,
    lookup: &dyn Fn(&Hostname) -> Option<Arc<Service>>,
) -> Str {
    let service = scope.service(&target.host).cloned().or_else(|| lookup(&target.host));
    let host = match service.as_ref().map(|service| &service.resolution) {
        // An ExternalName service is another name of its target.
        Some(Resolution::Alias(host)) => host.clone(),
        _ => target.host.clone(),
    };
    let number = port_of(target, service.as_deref(), port);
    names::outbound(number, &target.subset, &host)
}

/// The port of a target: the one it names, else the service's only one, else the listener's.
pub(crate) fn port_of(target: &Target, service: Option<&Service>, port: u16) -> u16 {
    let only = |service: &Service| {
        let mut ports = service.ports.iter().filter(|port| port.protocol != Protocol::Udp);
        match (ports.next(), ports.next()) {
            (Some(only), None) => Some(only.number),
            _ => None,
        }
    };
    target.port.or_else(|| service.and_then(only)).unwrap_or(port)
}

/// Targets of a rule, in the order in which [`forward`] uses them.
fn targets(rule: &HttpRule) -> impl Iterator<Item = &Target> {
    let (to, mirrors) = match &rule.action {
        RuleAction::Forward(forward) => (&*forward.to, &*forward.mirrors),
        RuleAction::Redirect(_) | RuleAction::Direct(_) => (&[][..], &[][..]),
    };
    to.iter().map(|dest| &dest.to).chain(mirrors.iter().map(|mirror| &mirror.to))
}

/// Whether a route matches every request.
fn is_catch_all(matches: &RouteMatch) -> bool {
    let path = match &matches.path {
        PathMatch::Prefix(prefix) => prefix == "/",
        PathMatch::Regex(regex) => regex == ".*",
        PathMatch::Exact(_) | PathMatch::SeparatedPrefix(_) => false,
    };
    path && matches.headers.is_empty() && matches.query.is_empty()
}

fn everything() -> RouteMatch {
    RouteMatch {
        path: PathMatch::Prefix(Str::from("/")),
        case_sensitive: true,
        headers: Arc::default(),
        query: Arc::default(),
    }
}

/// Makes a virtual host.
pub(crate) fn virtual_host(key: &HostKey) -> VirtualHost {
    let routes: Arc<[Route]> = match &key.content {
        Content::Cluster(cluster) => Arc::from([plain_route(names::DEFAULT_ROUTE, cluster, key.mesh.retry.clone())]),
        Content::AllowAny => Arc::from([plain_route(names::ALLOW_ANY, PASSTHROUGH_CLUSTER, None)]),
        Content::BlockAll => Arc::from([direct_route(names::BLOCK_ALL, 502)]),
        Content::NotFound => Arc::default(),
        Content::Routes { parts, catch_alls_last } => {
            let mut routes: Vec<Route> = parts.iter().flat_map(|part| part_routes(key, part)).collect();
            if *catch_alls_last {
                // A stable sort: the order among the others, and among the catch-alls, is that of age.
                routes.sort_by_key(|route| is_catch_all(&route.matches));
            }
            routes.into()
        }
    };
    VirtualHost {
        name: key.name.clone(),
        domains: key.domains.iter().cloned().collect(),
        routes,
        require_tls: key.require_tls,
        attempt_count: true,
    }
}

/// A route to one cluster for everything.
pub(crate) fn plain_route(name: &str, cluster: &str, retry: Option<Arc<RetryPolicy>>) -> Route {
    let forward = Forward {
        to: Destination::Cluster(Str::from(cluster)),
        timeout: None,
        max_grpc_timeout: Some(Duration::ZERO),
        retry,
        rewrite: PathRewrite::Keep,
        host_rewrite: None,
        mirrors: Arc::default(),
    };
    route(name, Action::Forward(forward))
}

fn direct_route(name: &str, status: u16) -> Route {
    route(name, Action::Direct(Direct { status, body: Arc::default() }))
}

fn route(name: &str, action: Action) -> Route {
    Route {
        name: Str::from(name),
        matches: everything(),
        action,
        headers: HeaderEdits::default(),
        filters: Arc::default(),
        origin: Origin::default(),
    }
}

fn part_routes(key: &HostKey, part: &RoutePart) -> Vec<Route> {
    // Position of each rule's first target in the list of clusters.
    let mut first = HashMap::new();
    let mut position = 0;
    for (number, rule) in part.routes.http.iter().enumerate() {
        first.insert(number, position);
        position += targets(rule).count();
    }
    let made = part.chosen.iter().filter_map(|(number, position)| {
        let rule = part.routes.http.get(*number)?;
        let case = rule.cases.get(*position)?;
        let clusters = part.clusters.get(*first.get(number)?..)?;
        let name = match (rule.name.is_empty(), case.name.is_empty()) {
            (_, true) => rule.name.clone(),
            (_, false) => Str::from(format!("{}.{}", rule.name, case.name)),
        };
        Some(Route {
            name,
            matches: case.matches.clone(),
            action: action(key, rule, &case.matches, clusters)?,
            headers: rule.headers.clone(),
            filters: Arc::clone(&rule.filters),
            origin: rule.origin.clone(),
        })
    });
    made.collect()
}

fn action(key: &HostKey, rule: &HttpRule, matches: &RouteMatch, clusters: &[Str]) -> Option<Action> {
    Some(match &rule.action {
        RuleAction::Forward(rule) => Action::Forward(forward(key, rule, matches, clusters)?),
        RuleAction::Direct(direct) => Action::Direct(direct.clone()),
        RuleAction::Redirect(rule) => {
            let mut redirect = rule.redirect.clone();
            if rule.from_request_port {
                redirect.port = RedirectPort::Port(key.port);
            }
            Action::Redirect(redirect)
        }
    })
}

fn forward(key: &HostKey, rule: &ForwardRule, matches: &RouteMatch, clusters: &[Str]) -> Option<Forward> {
    let (to, rest) = clusters.split_at_checked(rule.to.len())?;
    let to = match to {
        [only] => Destination::Cluster(only.clone()),
        several => Destination::Weighted(
            rule.to
                .iter()
                .zip(several)
                .filter(|(_, cluster)| !cluster.is_empty())
                .map(|(dest, cluster)| WeightedCluster {
                    cluster: cluster.clone(),
                    weight: dest.weight,
                    headers: dest.headers.clone(),
                })
                .collect(),
        ),
    };
    let mirrors = rule.mirrors.iter().zip(rest).filter(|(_, cluster)| !cluster.is_empty());
    // Envoy replaces a matched prefix; where a pattern matched there is none.
    let rewrite = match (&rule.rewrite, &matches.path) {
        (PathRewrite::Prefix(_), PathMatch::Regex(_)) => PathRewrite::Keep,
        (rewrite, _) => rewrite.clone(),
    };
    Some(Forward {
        to,
        timeout: rule.timeout,
        max_grpc_timeout: Some(rule.timeout.unwrap_or_default()),
        retry: match &rule.retry {
            RetryRule::Default => key.mesh.retry.clone(),
            RetryRule::Off => None,
            RetryRule::Own(policy) => Some(Arc::clone(policy)),
        },
        rewrite,
        host_rewrite: rule.host_rewrite.clone(),
        mirrors: mirrors.map(|(mirror, cluster)| Mirror { cluster: cluster.clone(), share: mirror.share }).collect(),
    })
}
