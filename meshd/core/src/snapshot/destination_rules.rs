//! DestinationRules, compiled and merged, and the choice of the one that applies.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use mesh_api::host::Hostname;
use mesh_api::ids::{Namespace, ObjectKey};
use mesh_api::labels::{Labels, Selector};
use mesh_api::meta::Timestamp;
use mesh_api::text::Str;
use mesh_api_xds::ir::Origin;
use mesh_api_xds::ir::cluster::{Balance, Keepalive, Outlier, RetryBudget};

use super::services::ExportTo;

/// A DestinationRule.
#[derive(Clone, Debug, PartialEq)]
pub struct DestinationRule {
    /// The object; the oldest one when several were merged.
    pub key: ObjectKey,
    /// Its age.
    pub created: Option<Timestamp>,
    /// Host, possibly a wildcard.
    pub host: Hostname,
    /// Who sees it.
    pub export_to: ExportTo,
    /// Client workloads that it is for; `None` is all.
    pub selector: Option<Selector>,
    /// Policy of all subsets and ports; `None` when it has none.
    pub policy: Option<Policy>,
    /// Named parts.
    pub subsets: Arc<[Subset]>,
    /// The object, for dumps.
    pub origin: Origin,
}

/// A named part of a service.
#[derive(Clone, Debug, PartialEq)]
pub struct Subset {
    /// Name.
    pub name: Str,
    /// Labels of its endpoints.
    pub labels: Selector,
    /// What differs from the rule's policy.
    pub policy: Option<Policy>,
}

/// A policy with its exceptions by port.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Policy {
    /// What holds for ports without their own.
    pub blocks: Blocks,
    /// What holds for single ports, instead.
    pub ports: Arc<[(u16, Blocks)]>,
}

/// The blocks of a policy; `None` is not said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Blocks {
    /// Balancing.
    pub balance: Option<Balancing>,
    /// Connections and requests.
    pub pool: Option<Pool>,
    /// When an endpoint is left out.
    pub outlier: Option<OutlierRule>,
    /// TLS towards endpoints.
    pub tls: Option<ClientTls>,
    /// Limit of retries.
    pub retry_budget: Option<RetryBudget>,
}

/// Balancing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Balancing {
    /// Among the endpoints.
    Among(Balance),
    /// The address that the client connected to.
    Passthrough,
}

/// Connections and requests; `None` and zero durations are "the default".
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pool {
    /// Most connections.
    pub max_connections: Option<u32>,
    /// Time to connect.
    pub connect_timeout: Option<Duration>,
    /// TCP keep-alive.
    pub keepalive: Option<Keepalive>,
    /// Longest life of a connection.
    pub max_connection_duration: Option<Duration>,
    /// Longest idle time of a TCP connection.
    pub tcp_idle_timeout: Option<Duration>,
    /// Most requests that wait for a connection.
    pub max_pending: Option<u32>,
    /// Most requests in flight.
    pub max_requests: Option<u32>,
    /// Most requests of one connection.
    pub max_requests_per_connection: Option<u32>,
    /// Most retries in flight.
    pub max_retries: Option<u32>,
    /// Longest idle time of an HTTP connection.
    pub http_idle_timeout: Option<Duration>,
    /// HTTP/1.1 becomes HTTP/2 on the way; `None` as the mesh says.
    pub h2_upgrade: Option<bool>,
    /// The protocol is the client's.
    pub use_client_protocol: bool,
    /// Most streams of one HTTP/2 connection.
    pub max_concurrent_streams: Option<u32>,
}

/// When an endpoint is left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutlierRule {
    /// The detector.
    pub outlier: Outlier,
    /// Share of healthy endpoints under which health is ignored.
    pub panic_percent: u32,
}

/// TLS towards endpoints.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClientTls {
    /// None.
    Disable,
    /// With the mesh's certificates.
    Istio {
        /// Names that the server may have instead of its service accounts'.
        sans: Arc<[Str]>,
        /// Server name; empty is the default.
        sni: Str,
    },
    /// With anything else.
    Origination(Origination),
}

/// TLS to a server that is not of the mesh.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origination {
    /// Name of the client's certificate secret; `None` presents none.
    pub certificate: Option<Str>,
    /// Name of the secret with the roots; `None` verifies nothing.
    pub trust: Option<Str>,
    /// Names of which the server must have one; empty is the host's.
    pub sans: Arc<[Str]>,
    /// Server name; empty is the request's host.
    pub sni: Str,
    /// The secrets come from Kubernetes, so they exist for gateways only.
    pub credential: bool,
}

impl DestinationRule {
    /// The policy of a port of a subset (istio-surface section 1.4, "Policy layering").
    #[must_use]
    pub fn blocks(&self, subset: Option<&Subset>, port: u16) -> Blocks {
        let of_port = |policy: &Policy| policy.ports.iter().find(|(number, _)| *number == port).map(|(_, b)| b.clone());
        let top = self.policy.as_ref().map(|policy| of_port(policy).unwrap_or_else(|| policy.blocks.clone()));
        let mut blocks = top.unwrap_or_default();
        if let Some(policy) = subset.and_then(|subset| subset.policy.as_ref()) {
            let own = policy.blocks.clone();
            blocks.balance = own.balance.or(blocks.balance);
            blocks.pool = own.pool.or(blocks.pool);
            blocks.outlier = own.outlier.or(blocks.outlier);
            blocks.tls = own.tls.or(blocks.tls);
            blocks.retry_budget = own.retry_budget.or(blocks.retry_budget);
            if let Some(port_blocks) = of_port(policy) {
                let retry_budget = blocks.retry_budget;
                blocks = Blocks { retry_budget, ..port_blocks };
            }
        }
        blocks
    }

    /// The subset of a name.
    #[must_use]
    pub fn subset(&self, name: &str) -> Option<&Subset> {
        self.subsets.iter().find(|subset| subset.name == *name)
    }

    fn by_age(a: &Self, b: &Self) -> std::cmp::Ordering {
        (a.created, &a.key.name, &a.key.namespace, &a.key.cluster).cmp(&(
            b.created,
            &b.key.name,
            &b.key.namespace,
            &b.key.cluster,
        ))
    }
}

/// The rules of one namespace, merged, most specific host first.
#[derive(Clone, Debug, Default)]
pub struct NamespaceRules {
    /// Those for some client workloads.
    selected: Vec<Arc<DestinationRule>>,
    /// Those for all.
    general: Vec<Arc<DestinationRule>>,
    exact: BTreeMap<Hostname, usize>,
}

/// What one namespace's rules give for a client.
type Found = Option<Arc<DestinationRule>>;

impl NamespaceRules {
    /// Merges the rules of a namespace. Rules of one host are one rule when their visibility and selectors are equal:
    /// subsets add up (the first of a name wins), the oldest policy wins whole.
    pub(crate) fn merge<'a>(rules: impl Iterator<Item = &'a Arc<DestinationRule>>, prev: Option<&Self>) -> Self {
        let mut rules: Vec<_> = rules.collect();
        rules.sort_by(|a, b| DestinationRule::by_age(a, b));
        let mut merged: Vec<Arc<DestinationRule>> = Vec::new();
        for rule in rules {
            let same = |m: &&mut Arc<DestinationRule>| {
                m.host == rule.host && m.selector == rule.selector && m.export_to == rule.export_to
            };
            match merged.iter_mut().find(same) {
                None => merged.push(Arc::clone(rule)),
                Some(into) => {
                    let new = |s: &&Subset| into.subset(&s.name).is_none();
                    let added: Vec<_> = rule.subsets.iter().filter(new).cloned().collect();
                    let subsets = into.subsets.iter().cloned().chain(added).collect();
                    let policy = into.policy.clone().or_else(|| rule.policy.clone());
                    *into = Arc::new(DestinationRule { subsets, policy, ..DestinationRule::clone(into) });
                }
            }
        }
        // What merged to the same as before keeps its address.
        if let Some(prev) = prev {
            for rule in &mut merged {
                if let Some(old) = prev.selected.iter().chain(&prev.general).find(|old| *old == rule) {
                    *rule = Arc::clone(old);
                }
            }
        }
        let specificity =
            |a: &Arc<DestinationRule>, b: &Arc<DestinationRule>| Hostname::by_specificity(&a.host, &b.host);
        let (mut selected, mut general): (Vec<_>, Vec<_>) =
            merged.into_iter().partition(|rule| rule.selector.is_some());
        selected.sort_by(specificity);
        general.sort_by(specificity);
        let mut exact = BTreeMap::new();
        for (position, rule) in general.iter().enumerate() {
            // Of rules that differ in visibility, the older comes first; each is looked at from there on.
            exact.entry(rule.host.clone()).or_insert(position);
        }
        Self { selected, general, exact }
    }

    /// The most specific rule for a host that a client sees. `labels` are given for clients of the rules' own namespace,
    /// because rules for some workloads are private to it.
    fn find(&self, host: &Hostname, client: &Namespace, labels: Option<&Labels>) -> Found {
        if let Some(labels) = labels {
            let selects = |rule: &&Arc<DestinationRule>| {
                rule.selector.as_ref().is_some_and(|selector| selector.matches(labels)) && host.subset_of(&rule.host)
            };
            if let Some(found) = self.selected.iter().find(selects) {
                return Some(Arc::clone(found));
            }
        }
        let from = self.exact.get(host).copied();
        let wildcards = || self.general.partition_point(|rule| !rule.host.is_wildcard());
        let from = from.unwrap_or_else(wildcards);
        let tail = self.general.get(from..).unwrap_or_default();
        tail.iter().find(|rule| host.subset_of(&rule.host) && rule.export_to.reaches(client)).cloned()
    }

    /// Whether what a client gets may depend on its labels.
    #[must_use]
    pub fn selects_by_labels(&self) -> bool {
        !self.selected.is_empty()
    }

    /// All rules.
    pub fn rules(&self) -> impl Iterator<Item = &Arc<DestinationRule>> {
        self.selected.iter().chain(&self.general)
    }
}

/// All rules by namespace.
#[derive(Clone, Debug, Default)]
pub struct DestinationRules {
    /// Merged rules.
    pub(crate) namespaces: BTreeMap<Namespace, Arc<NamespaceRules>>,
}

impl DestinationRules {
    /// The rule that a client's proxy applies to a service: of the client's namespace, else of the service's, else of the
    /// root namespace. The first namespace with a match wins; nothing is inherited.
    #[must_use]
    pub fn lookup(&self, host: &Hostname, service: &Namespace, client: &Client<'_>, root: &Namespace) -> Found {
        let of = |namespace: &Namespace| self.namespaces.get(namespace);
        if client.namespace != root {
            let own = of(client.namespace).and_then(|rules| rules.find(host, client.namespace, client.labels));
            if own.is_some() {
                return own;
            }
        }
        let service_rule = of(service).and_then(|rules| rules.find(host, client.namespace, None));
        service_rule.or_else(|| of(root).and_then(|rules| rules.find(host, client.namespace, None)))
    }

    /// Whether rules of a namespace select client workloads.
    #[must_use]
    pub fn selects_by_labels(&self, namespace: &Namespace) -> bool {
        self.namespaces.get(namespace).is_some_and(|rules| rules.selects_by_labels())
    }
}

/// Whose rule is looked up.
#[derive(Clone, Copy, Debug)]
pub struct Client<'a> {
    /// Namespace of the client.
    pub namespace: &'a Namespace,
    /// Labels of the client's workload; `None` looks at rules for all workloads only.
    pub labels: Option<&'a Labels>,
}
