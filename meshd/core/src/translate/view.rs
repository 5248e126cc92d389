//! What translation looks at.

use std::cell::RefCell;
use std::sync::Arc;

use mesh_api::finding::Finding;

use super::memo::ByPtr;
use crate::proxy::ProxyView;
use crate::scope::ProxyScope;
use crate::snapshot::Snapshot;
use crate::snapshot::destination_rules::{Client as RuleClient, DestinationRule};
use crate::snapshot::mesh::Mesh;
use crate::snapshot::services::Service;

/// What translation looks at: a snapshot with a proxy's eyes.
pub(crate) struct View<'a> {
    pub(crate) snapshot: &'a Snapshot,
    pub(crate) proxy: &'a ProxyView,
    pub(crate) scope: &'a ProxyScope,
    findings: RefCell<Vec<Finding>>,
}

impl<'a> View<'a> {
    pub(crate) const fn new(snapshot: &'a Snapshot, proxy: &'a ProxyView, scope: &'a ProxyScope) -> Self {
        Self { snapshot, proxy, scope, findings: RefCell::new(Vec::new()) }
    }

    pub(crate) fn report(&self, finding: Finding) {
        self.findings.borrow_mut().push(finding);
    }

    /// What was reported, once.
    pub(crate) fn take_findings(&self) -> Vec<Finding> {
        self.findings.take()
    }

    pub(crate) fn mesh_ptr(&self) -> ByPtr<Mesh> {
        ByPtr(Arc::clone(&self.snapshot.mesh))
    }

    /// The DestinationRule that the proxy applies to a service.
    pub(crate) fn rule(&self, service: &Service) -> Option<Arc<DestinationRule>> {
        let client = RuleClient { namespace: &self.proxy.namespace, labels: Some(&self.proxy.labels) };
        self.lookup(service, &client)
    }

    /// The rule that a service's own proxies apply to traffic for it: never one for some clients.
    pub(crate) fn server_rule(&self, service: &Service) -> Option<Arc<DestinationRule>> {
        self.lookup(service, &RuleClient { namespace: &self.proxy.namespace, labels: None })
    }

    fn lookup(&self, service: &Service, client: &RuleClient<'_>) -> Option<Arc<DestinationRule>> {
        let root = &self.snapshot.mesh.root_namespace;
        self.snapshot.destination_rules.lookup(&service.host, &service.namespace, client, root)
    }
}
