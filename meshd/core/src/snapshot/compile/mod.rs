//! From API objects to what snapshots hold: names resolved, defaults filled in, texts checked, once per object.
//!
//! What cannot be used is cut out by a fixed table and never opens a door: of a VirtualService the route, of an `ALLOW`
//! policy the rule (the policy stays), of a `DENY` policy the rule becomes "deny what the policy covers". Every cut is a
//! finding with the field's path.

mod authorization_policy;
mod destination_rule;
mod endpoints;
mod gateway;
mod headers;
mod http_action;
mod http_match;
mod mesh;
mod peer_authentication;
mod secret;
mod service;
mod sidecar;
mod virtual_service;
mod workload;

use std::sync::Arc;

use mesh_api::codes::Code;
use mesh_api::finding::Finding;
use mesh_api::ids::{ClusterId, Name, Namespace, ObjectKey};
use mesh_api::names::MESH_GATEWAY;
use mesh_api::text::Str;
use mesh_api_xds::ir::Origin;

use crate::snapshot::mesh::Mesh;
use crate::snapshot::virtual_services::GatewayRef;

pub(crate) use authorization_policy::authorization_policy;
pub(crate) use destination_rule::destination_rule;
pub(crate) use endpoints::endpoints;
pub(crate) use gateway::gateway;
pub(crate) use mesh::mesh;
pub(crate) use peer_authentication::peer_authentication;
pub(crate) use secret::secret;
pub(crate) use service::{kube_service, service_entry};
pub(crate) use sidecar::sidecar;
pub(crate) use virtual_service::virtual_service;

/// Longest regular expression of Istio's validation.
const MAX_REGEX_BYTES: usize = 1024;
/// Largest compiled form of a pattern; the proxy has the same bound.
const MAX_REGEX_PROGRAM_BYTES: usize = 1 << 20;

/// What compiling an object needs besides the object, and where it reports.
pub(crate) struct Context<'a> {
    pub(crate) mesh: &'a Mesh,
    pub(crate) key: ObjectKey,
    findings: Vec<Finding>,
}

impl<'a> Context<'a> {
    pub(crate) fn new(mesh: &'a Mesh, key: ObjectKey, cluster: &ClusterId) -> Self {
        Self { mesh, key: key.in_cluster(cluster.clone()), findings: Vec::new() }
    }

    pub(crate) const fn namespace(&self) -> &Namespace {
        &self.key.namespace
    }

    /// `kind/namespace/name`, for logs and dumps.
    pub(crate) fn origin(&self) -> Origin {
        Origin(Str::from(self.key.to_string()))
    }

    pub(crate) fn report(&mut self, finding: Finding) {
        self.findings.push(finding);
    }

    /// Reports, and is `None`: the part that was looked at is left out.
    pub(crate) fn cut<T>(&mut self, code: Code, path: &str, message: impl Into<Str>) -> Option<T> {
        self.report(Finding::new(code, path, message).hint("this part is left out; the rest of the object works"));
        None
    }

    pub(crate) fn into_findings(self) -> Vec<Finding> {
        self.findings
    }

    /// A pattern that compiles within bounds.
    pub(crate) fn regex(&mut self, path: &str, pattern: &Str) -> Option<Str> {
        if pattern.is_empty() || pattern.len() > MAX_REGEX_BYTES {
            return self.cut(
                Code::InvalidRegex,
                path,
                format!("a regular expression has 1 to {MAX_REGEX_BYTES} bytes"),
            );
        }
        let anchored = format!("^(?:{pattern})$");
        match regex::RegexBuilder::new(&anchored).size_limit(MAX_REGEX_PROGRAM_BYTES).build() {
            Ok(_) => Some(pattern.clone()),
            Err(error) => {
                let reason = error.to_string();
                let reason = reason.lines().last().unwrap_or("does not compile").trim();
                self.cut(Code::InvalidRegex, path, format!("{pattern:?} is not a regular expression: {reason}"))
            }
        }
    }

    /// A port number.
    pub(crate) fn port(&mut self, path: &str, number: u32) -> Option<u16> {
        match u16::try_from(number) {
            Ok(number) if number > 0 => Some(number),
            _ => self.cut(Code::InvalidValue, path, format!("{number} is not a port: 1 to 65535")),
        }
    }
}

/// `mesh`, `name`, `namespace/name` and `name.namespace.svc.…` (istio/istio: pilot/pkg/model/config.go, resolveGatewayName).
fn gateway_refs(cx: &Context<'_>, gateways: &[Str]) -> Arc<[GatewayRef]> {
    let own = cx.namespace().clone();
    let resolve = |text: &Str| {
        if text == MESH_GATEWAY {
            return GatewayRef::Mesh;
        }
        if let Some((namespace, name)) = text.split_once('/') {
            return GatewayRef::Named(Namespace::from(namespace), Name::from(name));
        }
        match text.split_once('.') {
            Some((name, rest)) => {
                let namespace = rest.split('.').next().unwrap_or_default();
                GatewayRef::Named(Namespace::from(namespace), Name::from(name))
            }
            None => GatewayRef::Named(own.clone(), Name::from(text)),
        }
    };
    gateways.iter().map(resolve).collect()
}
