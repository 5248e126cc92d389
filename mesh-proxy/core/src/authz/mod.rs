//! Authorization: compiled policies over connections and requests.
//!
//! Evaluation is linear with a trace; policies of one workload are few. A predicate that asks for what a connection does
//! not have (a header, a path) is false there, and stays false under `Not`'s operand rule of Envoy: `Not` of it is true.

pub mod predicate;

#[cfg(test)]
mod tests;

use mesh_api::text::Str;
use mesh_api_xds::ir::Origin;
use mesh_api_xds::ir::authz::{self as ir, AuthzAction};

use crate::rejected::{Effect, Report};
use crate::trace::{Step, Trace};
use predicate::{Predicate, Subject};

/// A compiled set of policies with one action.
#[derive(Clone, Debug)]
pub struct Authz {
    action: AuthzAction,
    policies: Box<[Policy]>,
}

#[derive(Clone, Debug)]
struct Policy {
    name: Str,
    permission: Predicate,
    principal: Predicate,
}

/// The outcome of one set, or of several in a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It may pass.
    Allow,
    /// It may not.
    Deny {
        /// The DENY policy that matched; `None` when no ALLOW policy did.
        policy: Option<Str>,
    },
}

impl Authz {
    /// Compiles a set. A policy that cannot be compiled is cut from an ALLOW set; in a DENY set it denies everything.
    pub(crate) fn compile(authz: &ir::Authz, path: &str, report: &mut Report<'_>) -> Self {
        let mut policies = Vec::with_capacity(authz.policies.len());
        for (position, policy) in authz.policies.iter().enumerate() {
            let permission = Predicate::compile(&policy.permission);
            let principal = Predicate::compile(&policy.principal);
            let (permission, principal) = match (permission, principal) {
                (Ok(permission), Ok(principal)) => (permission, principal),
                (Err(reason), _) | (_, Err(reason)) => {
                    let effect = match authz.action {
                        AuthzAction::Allow => Effect::Cut,
                        AuthzAction::Deny => Effect::Denies,
                    };
                    let path = format!("{path}.policies[{position}]({})", policy.name);
                    report.add(path, reason, effect, &Origin(policy.name.clone()));
                    match authz.action {
                        AuthzAction::Allow => continue,
                        AuthzAction::Deny => (Predicate::Any, Predicate::Any),
                    }
                }
            };
            policies.push(Policy { name: policy.name.clone(), permission, principal });
        }
        Self { action: authz.action, policies: policies.into() }
    }

    /// Asks the policies in order; the first that matches decides.
    #[must_use]
    pub fn check(&self, subject: &Subject<'_>, trace: &mut impl Trace) -> Verdict {
        for policy in &self.policies {
            let permission = policy.permission.holds(subject);
            let principal = permission.then(|| policy.principal.holds(subject));
            trace.step(Step::Policy { name: &policy.name, action: self.action, permission, principal });
            if principal == Some(true) {
                return match self.action {
                    AuthzAction::Allow => Verdict::Allow,
                    AuthzAction::Deny => Verdict::Deny { policy: Some(policy.name.clone()) },
                };
            }
        }
        match self.action {
            AuthzAction::Allow => Verdict::Deny { policy: None },
            AuthzAction::Deny => Verdict::Allow,
        }
    }
}

/// Asks several sets in order; all must let pass.
#[must_use]
pub fn check_all<'a>(
    sets: impl IntoIterator<Item = &'a Authz>,
    subject: &Subject<'_>,
    trace: &mut impl Trace,
) -> Verdict {
    for set in sets {
        let verdict = set.check(subject, trace);
        if verdict != Verdict::Allow {
            return verdict;
        }
    }
    Verdict::Allow
}
