//! VirtualServices, compiled: hosts and gateways resolved, conditions and actions in the form of the IR, except for what
//! depends on the proxy.

use std::sync::Arc;
use std::time::Duration;

use mesh_api::host::Hostname;
use mesh_api::ids::{Name, Namespace, ObjectKey};
use mesh_api::labels::{Labels, Selector};
use mesh_api::meta::Timestamp;
use mesh_api::text::Str;
use mesh_api_xds::ir::Origin;
use mesh_api_xds::ir::PerMillion;
use mesh_api_xds::ir::filter::RouteFilter;
use mesh_api_xds::ir::matcher::Cidr;
use mesh_api_xds::ir::route::{Direct, HeaderEdits, PathRewrite, Redirect, RetryPolicy, RouteMatch};

use super::services::ExportTo;

/// A VirtualService.
#[derive(Clone, Debug, PartialEq)]
pub struct VirtualService {
    /// The object.
    pub key: ObjectKey,
    /// Its age.
    pub created: Option<Timestamp>,
    /// Hosts, short names expanded.
    pub hosts: Arc<[Hostname]>,
    /// Where its routes apply; never empty.
    pub gateways: Arc<[GatewayRef]>,
    /// Who sees it.
    pub export_to: ExportTo,
    /// Routes of HTTP traffic; first match wins.
    pub http: Arc<[HttpRule]>,
    /// Routes of TLS traffic that is passed through.
    pub tls: Arc<[TlsRule]>,
    /// Routes of other traffic.
    pub tcp: Arc<[TcpRule]>,
}

/// A place where routes apply.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum GatewayRef {
    /// All sidecars.
    Mesh,
    /// A Gateway.
    Named(Namespace, Name),
}

/// Conditions that are decided when configuration is made, not per request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StaticMatch {
    /// Port of the listener.
    pub port: Option<u16>,
    /// Labels of the client workload; ignored when `gateways` is given.
    pub source_labels: Selector,
    /// Namespace of the client workload; ignored when `gateways` is given.
    pub source_namespace: Option<Namespace>,
    /// Overrides the object's gateways.
    pub gateways: Option<Arc<[GatewayRef]>>,
}

/// For whom routes are made.
#[derive(Clone, Copy, Debug)]
pub struct Client<'a> {
    /// Labels of the proxy's workload.
    pub labels: &'a Labels,
    /// Its namespace.
    pub namespace: &'a Namespace,
    /// `Mesh` for a sidecar, else the Gateways merged into the server at hand.
    pub gateways: &'a [GatewayRef],
    /// Port of the listener.
    pub port: u16,
}

impl StaticMatch {
    /// Whether the conditions hold (istio/istio: pilot/pkg/networking/core/route, `sourceMatchHTTP`).
    #[must_use]
    pub fn holds(&self, client: &Client<'_>) -> bool {
        if self.port.is_some_and(|port| port != client.port) {
            return false;
        }
        match &self.gateways {
            Some(gateways) => gateways.iter().any(|gateway| client.gateways.contains(gateway)),
            None => {
                self.source_labels.matches(client.labels)
                    && self.source_namespace.as_ref().is_none_or(|namespace| namespace == client.namespace)
            }
        }
    }
}

/// One HTTP route with its alternatives.
#[derive(Clone, Debug, PartialEq)]
pub struct HttpRule {
    /// Name for logs.
    pub name: Str,
    /// Conditions, any of which may hold; never empty.
    pub cases: Arc<[HttpCase]>,
    /// What is done.
    pub action: RuleAction,
    /// Header edits.
    pub headers: HeaderEdits,
    /// Faults, CORS.
    pub filters: Arc<[RouteFilter]>,
    /// The object.
    pub origin: Origin,
}

/// One alternative of a route.
#[derive(Clone, Debug, PartialEq)]
pub struct HttpCase {
    /// Conditions on the client.
    pub on: StaticMatch,
    /// Name for logs, appended to the route's.
    pub name: Str,
    /// Conditions on the request.
    pub matches: RouteMatch,
}

/// What a route does.
#[derive(Clone, Debug, PartialEq)]
pub enum RuleAction {
    /// Sends on.
    Forward(ForwardRule),
    /// Redirects.
    Redirect(RedirectRule),
    /// Answers.
    Direct(Direct),
}

/// Sending on.
#[derive(Clone, Debug, PartialEq)]
pub struct ForwardRule {
    /// Destinations with a positive share; never empty.
    pub to: Arc<[Dest]>,
    /// Whole time; `None` is no limit.
    pub timeout: Option<Duration>,
    /// Retries.
    pub retry: RetryRule,
    /// Path edit.
    pub rewrite: PathRewrite,
    /// New authority.
    pub host_rewrite: Option<Str>,
    /// Copies.
    pub mirrors: Arc<[MirrorRule]>,
}

/// Retries of a route.
#[derive(Clone, Debug, PartialEq)]
pub enum RetryRule {
    /// The mesh's policy.
    Default,
    /// None.
    Off,
    /// Its own.
    Own(Arc<RetryPolicy>),
}

/// A destination with its share.
#[derive(Clone, Debug, PartialEq)]
pub struct Dest {
    /// Where to.
    pub to: Target,
    /// Relative share, positive.
    pub weight: u32,
    /// Header edits.
    pub headers: HeaderEdits,
}

/// A service, a subset of it, and its port.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Target {
    /// Host.
    pub host: Hostname,
    /// Subset; empty is none.
    pub subset: Str,
    /// Port; `None` is to be inferred.
    pub port: Option<u16>,
}

/// A copy of requests.
#[derive(Clone, Debug, PartialEq)]
pub struct MirrorRule {
    /// Where to.
    pub to: Target,
    /// Share of requests, positive.
    pub share: PerMillion,
}

/// A redirect.
#[derive(Clone, Debug, PartialEq)]
pub struct RedirectRule {
    /// The redirect, its port aside when it follows from the listener.
    pub redirect: Redirect,
    /// The port is the listener's.
    pub from_request_port: bool,
}

/// One TLS route.
#[derive(Clone, Debug, PartialEq)]
pub struct TlsRule {
    /// Conditions, any of which may hold; never empty.
    pub cases: Arc<[TlsCase]>,
    /// Destinations; never empty.
    pub to: Arc<[Dest]>,
    /// The object.
    pub origin: Origin,
}

/// One alternative of a TLS route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsCase {
    /// Conditions on the client.
    pub on: StaticMatch,
    /// Server names.
    pub sni: Arc<[Hostname]>,
    /// Destination addresses; empty is any.
    pub destinations: Arc<[Cidr]>,
}

/// One TCP route.
#[derive(Clone, Debug, PartialEq)]
pub struct TcpRule {
    /// Conditions, any of which may hold; never empty.
    pub cases: Arc<[TcpCase]>,
    /// Destinations; never empty.
    pub to: Arc<[Dest]>,
    /// The object.
    pub origin: Origin,
}

/// One alternative of a TCP route.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TcpCase {
    /// Conditions on the client.
    pub on: StaticMatch,
    /// Destination addresses; empty is any.
    pub destinations: Arc<[Cidr]>,
}

impl VirtualService {
    /// Whether its routes apply at a place. Matches may name gateways that the object does not.
    #[must_use]
    pub fn applies_at(&self, gateway: &GatewayRef) -> bool {
        self.gateways.contains(gateway)
    }

    /// Order of age: creation time, then name, then namespace.
    #[must_use]
    pub fn by_age(a: &Self, b: &Self) -> std::cmp::Ordering {
        (a.created, &a.key.name, &a.key.namespace, &a.key.cluster).cmp(&(
            b.created,
            &b.key.name,
            &b.key.namespace,
            &b.key.cluster,
        ))
    }

    /// Every target that its routes name, with repetitions.
    pub fn targets(&self) -> impl Iterator<Item = &Target> {
        let http = self.http.iter().flat_map(|rule| {
            let (to, mirrors) = match &rule.action {
                RuleAction::Forward(forward) => (&*forward.to, &*forward.mirrors),
                RuleAction::Redirect(_) | RuleAction::Direct(_) => (&[][..], &[][..]),
            };
            to.iter().map(|dest| &dest.to).chain(mirrors.iter().map(|mirror| &mirror.to))
        });
        let tls = self.tls.iter().flat_map(|rule| rule.to.iter().map(|dest| &dest.to));
        let tcp = self.tcp.iter().flat_map(|rule| rule.to.iter().map(|dest| &dest.to));
        http.chain(tls).chain(tcp)
    }
}
