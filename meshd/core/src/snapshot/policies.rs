//! Security policies, compiled, and those that apply to a workload.

use std::collections::BTreeMap;
use std::sync::Arc;

use mesh_api::ids::{Namespace, ObjectKey};
use mesh_api::labels::{Labels, Selector};
use mesh_api::meta::Timestamp;
use mesh_api_xds::ir::authz::{Authz, AuthzAction, AuthzPolicy};

/// A PeerAuthentication.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerAuthentication {
    /// The object.
    pub key: ObjectKey,
    /// Its age.
    pub created: Option<Timestamp>,
    /// Workloads; `None` is the namespace or the mesh.
    pub selector: Option<Selector>,
    /// Mode; `None` inherits.
    pub mode: Option<MtlsMode>,
    /// Modes of single workload ports; `None` inherits the workload's.
    pub ports: BTreeMap<u16, Option<MtlsMode>>,
}

/// Whether mutual TLS is demanded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum MtlsMode {
    /// Plaintext only.
    Disable,
    /// Both.
    Permissive,
    /// Mutual TLS only.
    Strict,
}

/// The modes of a workload.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct MtlsModes {
    /// Of ports without their own.
    pub workload: MtlsMode,
    /// Of single ports.
    pub ports: BTreeMap<u16, MtlsMode>,
}

impl MtlsModes {
    /// The mode of a workload port.
    #[must_use]
    pub fn of(&self, port: u16) -> MtlsMode {
        self.ports.get(&port).copied().unwrap_or(self.workload)
    }
}

/// An AuthorizationPolicy.
#[derive(Clone, Debug, PartialEq)]
pub struct AuthorizationPolicy {
    /// The object.
    pub key: ObjectKey,
    /// Its age.
    pub created: Option<Timestamp>,
    /// Workloads; `None` is the namespace or the mesh.
    pub selector: Option<Selector>,
    /// What a match means.
    pub action: AuthzAction,
    /// Rules for requests.
    pub http: Arc<[AuthzPolicy]>,
    /// Rules for connections.
    pub tcp: Arc<[AuthzPolicy]>,
}

/// What a workload's policies amount to, in order of evaluation.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct WorkloadAuthz {
    /// For requests.
    pub http: Arc<[Authz]>,
    /// For connections.
    pub tcp: Arc<[Authz]>,
}

trait Scoped {
    fn age(&self) -> (Option<Timestamp>, &ObjectKey);
}

impl Scoped for PeerAuthentication {
    fn age(&self) -> (Option<Timestamp>, &ObjectKey) {
        (self.created, &self.key)
    }
}

impl Scoped for AuthorizationPolicy {
    fn age(&self) -> (Option<Timestamp>, &ObjectKey) {
        (self.created, &self.key)
    }
}

fn oldest<'a, T: Scoped>(policies: impl Iterator<Item = &'a T>) -> Option<&'a T> {
    policies.min_by(|a, b| by_age(*a, *b))
}

fn by_age<T: Scoped>(a: &T, b: &T) -> std::cmp::Ordering {
    let ((at_a, a), (at_b, b)) = (a.age(), b.age());
    (at_a, &a.name, &a.namespace).cmp(&(at_b, &b.name, &b.namespace))
}

/// The mode of a namespace: its own policy, else the mesh's, else PERMISSIVE. This is what clients assume of a server.
pub(crate) fn namespace_mode<'a>(
    own: impl Iterator<Item = &'a Arc<PeerAuthentication>>,
    root: impl Iterator<Item = &'a Arc<PeerAuthentication>>,
) -> MtlsMode {
    fn mode<'a>(policies: impl Iterator<Item = &'a Arc<PeerAuthentication>>) -> Option<MtlsMode> {
        oldest(policies.map(|policy| &**policy).filter(|policy| policy.selector.is_none()))
            .and_then(|policy| policy.mode)
    }
    mode(own).or_else(|| mode(root)).unwrap_or(MtlsMode::Permissive)
}

/// The modes of a workload: port, then workload, then `inherited` of its namespace.
pub(crate) fn workload_modes<'a>(
    own: impl Iterator<Item = &'a Arc<PeerAuthentication>>,
    labels: &Labels,
    inherited: MtlsMode,
) -> MtlsModes {
    let selecting = own.map(|policy| &**policy);
    let selecting =
        selecting.filter(|policy| policy.selector.as_ref().is_some_and(|selector| selector.matches(labels)));
    let Some(policy) = oldest(selecting) else { return MtlsModes { workload: inherited, ports: BTreeMap::new() } };
    let workload = policy.mode.unwrap_or(inherited);
    let ports = policy.ports.iter().map(|(port, mode)| (*port, mode.unwrap_or(workload))).collect();
    MtlsModes { workload, ports }
}

/// All policies that apply to a workload: DENY before ALLOW. `policies` are those of the root namespace and of its own.
pub(crate) fn workload_authz<'a>(
    policies: impl Iterator<Item = &'a Arc<AuthorizationPolicy>>,
    labels: &Labels,
) -> WorkloadAuthz {
    let mut applying: Vec<&AuthorizationPolicy> = policies
        .map(|policy| &**policy)
        .filter(|policy| policy.selector.as_ref().is_none_or(|selector| selector.matches(labels)))
        .collect();
    applying.sort_by(|a, b| by_age(*a, *b));
    let of = |action: AuthzAction, rules: &dyn Fn(&AuthorizationPolicy) -> Arc<[AuthzPolicy]>| -> Option<Authz> {
        let chosen: Vec<_> = applying.iter().filter(|policy| policy.action == action).collect();
        // Ordered by name, as they travel; of objects of one name in several clusters the older one counts.
        let mut policies: Vec<AuthzPolicy> = chosen.iter().flat_map(|policy| rules(policy).to_vec()).collect();
        policies.sort_by(|a, b| a.name.cmp(&b.name));
        policies.dedup_by(|later, first| later.name == first.name);
        // An ALLOW policy without rules allows nothing; a DENY policy without rules denies nothing.
        let acts = if action == AuthzAction::Allow { !chosen.is_empty() } else { !policies.is_empty() };
        acts.then(|| Authz { action, policies: policies.into() })
    };
    let both = |rules: &dyn Fn(&AuthorizationPolicy) -> Arc<[AuthzPolicy]>| -> Arc<[Authz]> {
        [of(AuthzAction::Deny, rules), of(AuthzAction::Allow, rules)].into_iter().flatten().collect()
    };
    WorkloadAuthz { http: both(&|policy| Arc::clone(&policy.http)), tcp: both(&|policy| Arc::clone(&policy.tcp)) }
}

/// Whether a policy of `namespace` may apply to workloads of `workload`.
#[must_use]
pub fn reaches(namespace: &Namespace, workload: &Namespace, root: &Namespace) -> bool {
    namespace == workload || namespace == root
}
