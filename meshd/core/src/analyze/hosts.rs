//! Which service a host means, seen from a namespace.

use std::collections::BTreeMap;

use mesh_api::host::Hostname;

use super::objects::{Objects, Subject};
use super::sorts::Sort;
use super::view;

/// The cluster's own domain.
pub(super) const DOMAIN: &str = "cluster.local";
/// Visible to all.
const ALL: &str = "*";

/// A service as far as checks need it.
pub(super) struct Known<'a> {
    /// Where it is defined.
    pub(super) subject: &'a Subject,
    /// Numbers of its ports.
    pub(super) ports: Vec<u64>,
}

/// All hosts, each with the namespaces that see it.
pub(super) struct Hosts<'a>(BTreeMap<(String, String), Known<'a>>);

impl<'a> Hosts<'a> {
    pub(super) fn new(objects: &'a Objects) -> Self {
        let mut hosts = BTreeMap::new();
        for entry in objects.of(Sort::SERVICE_ENTRY) {
            for scope in scopes(entry.texts("spec.exportTo"), &entry.namespace) {
                for host in entry.texts("spec.hosts") {
                    let ports =
                        entry.list("spec.ports").iter().filter_map(|port| view::number(port, "number")).collect();
                    hosts.insert((scope.clone(), full(host, &entry.namespace)), Known { subject: entry, ports });
                }
            }
        }
        for service in objects.of(Sort::SERVICE) {
            let exported = service.annotation("networking.istio.io/exportTo").unwrap_or_default();
            let exported = exported.split(',').map(str::trim).filter(|scope| !scope.is_empty()).collect();
            for scope in scopes(exported, &service.namespace) {
                let ports = service.list("spec.ports").iter().filter_map(|port| view::number(port, "port")).collect();
                hosts.insert((scope, full(&service.name, &service.namespace)), Known { subject: service, ports });
            }
        }
        Self(hosts)
    }

    /// The service that `host` means in an object of `namespace` that is itself visible to `export_to`.
    pub(super) fn find(&self, namespace: &str, export_to: &[&str], host: &str) -> Option<&Known<'a>> {
        let name = full(host, namespace);
        let in_scope = |scope: &str| self.0.get(&(scope.to_owned(), name.clone()));
        if let Some(known) = in_scope(ALL).or_else(|| in_scope(namespace)) {
            return Some(known);
        }
        let own = export_to.iter().map(|scope| if *scope == "." { namespace } else { scope });
        if let Some(known) = own.into_iter().find_map(in_scope) {
            return Some(known);
        }
        let wanted = Hostname::new(host);
        let seen = self.0.iter().filter(|((scope, _), _)| scope == ALL || scope == namespace);
        let mut fits = seen.filter(|((_, known), _)| known.starts_with('*') && wanted.subset_of(&Hostname::new(known)));
        fits.next().map(|(_, known)| known)
    }
}

/// The namespaces that `exportTo` names; all without one.
pub(super) fn scopes(export_to: Vec<&str>, namespace: &str) -> Vec<String> {
    if export_to.is_empty() || export_to.contains(&ALL) {
        return vec![ALL.to_owned()];
    }
    export_to.into_iter().map(|scope| if scope == "." { namespace.to_owned() } else { scope.to_owned() }).collect()
}

/// The whole name of a host.
pub(super) fn full(host: &str, namespace: &str) -> String {
    Hostname::expand(host, namespace, DOMAIN).as_str().to_owned()
}

/// Namespace and name of the service that a host means if it is one of the cluster's; else the host in its own namespace.
pub(super) fn service_name(host: &str, namespace: &str) -> (String, String) {
    let short = host.strip_suffix(DOMAIN).and_then(|host| host.strip_suffix(".svc."));
    match short.and_then(|short| short.rsplit_once('.')) {
        Some((name, space)) => (space.to_owned(), name.to_owned()),
        None => (namespace.to_owned(), host.to_owned()),
    }
}
