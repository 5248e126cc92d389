//! Secrets of gateways. Workload certificates (`default`, `ROOTCA`) are not among them: proxies fetch their own.

use std::collections::BTreeSet;

use mesh_api::codes::Code;
use mesh_api::finding::Finding;
use mesh_api::ids::ObjectKey;
use mesh_api::kinds::Kind;
use mesh_api::text::Str;
use mesh_api_xds::ir::chain::{ClientCertificate, DownstreamTls};
use mesh_api_xds::ir::secret::Secret;

use super::gateway::Socket;
use super::view::View;
use crate::snapshot::destination_rules::{Blocks, ClientTls, DestinationRule};
use crate::snapshot::gateways::Serves;

/// Beginning of the names of secrets from Kubernetes.
const KUBERNETES: &str = "kubernetes://";
/// End of the names of trust anchors.
const TRUST: &str = "-cacert";

/// The secrets that a gateway's servers and destinations name, from its own namespace.
pub(crate) fn secrets(view: &View<'_>, sockets: &[Socket]) -> Vec<Secret> {
    if !view.is_router() {
        return Vec::new();
    }
    let mut names: BTreeSet<Str> = BTreeSet::new();
    for opened in sockets.iter().flat_map(|socket| &socket.servers) {
        if let Serves::Https(tls) | Serves::TlsTerminated(tls) = &opened.server.serves {
            for name in server_names(tls) {
                if lookup(view, &name).is_none() && name.starts_with(KUBERNETES) {
                    report(view, &opened.gateway.key, opened.server.index, &name);
                }
                names.insert(name);
            }
        }
    }
    for namespace in view.snapshot.destination_rules.namespaces.values() {
        names.extend(namespace.rules().flat_map(|rule| rule_names(rule)));
    }
    names.iter().filter_map(|name| lookup(view, name)).collect()
}

fn server_names(tls: &DownstreamTls) -> Vec<Str> {
    let client = match &tls.client {
        ClientCertificate::None => None,
        ClientCertificate::Optional(validation) | ClientCertificate::Required(validation) => Some(&validation.trust),
    };
    tls.certificates.iter().chain(client).cloned().collect()
}

fn rule_names(rule: &DestinationRule) -> Vec<Str> {
    let policies = rule.policy.iter().chain(rule.subsets.iter().filter_map(|subset| subset.policy.as_ref()));
    let blocks = policies.flat_map(|policy| {
        std::iter::once(&policy.blocks).chain(policy.ports.iter().map(|(_, blocks): &(u16, Blocks)| blocks))
    });
    let tls = blocks.filter_map(|blocks| match &blocks.tls {
        Some(ClientTls::Origination(origination)) if origination.credential => Some(origination),
        _ => None,
    });
    tls.flat_map(|origination| origination.certificate.iter().chain(&origination.trust).cloned()).collect()
}

fn lookup(view: &View<'_>, name: &Str) -> Option<Secret> {
    let plain = name.strip_prefix(KUBERNETES)?;
    let of = |name: &str| view.snapshot.credential(&view.proxy.namespace, name);
    let content = match plain.strip_suffix(TRUST) {
        // Trust anchors lie in a secret of that name, else beside the certificate.
        Some(base) => of(plain).or_else(|| of(base)).and_then(|credential| credential.as_trust()),
        None => of(plain).and_then(|credential| credential.as_certificate().or_else(|| credential.as_trust())),
    }?;
    Some(Secret { name: name.clone(), content })
}

fn report(view: &View<'_>, gateway: &ObjectKey, server: usize, name: &str) {
    let plain = name.trim_start_matches(KUBERNETES);
    let secret = ObjectKey::new(Kind::Secret, view.proxy.namespace.clone(), plain);
    let message = format!("{secret} does not exist or holds no PEM certificate");
    let finding = Finding::new(Code::MissingReference, format!("spec.servers[{server}].tls"), message);
    view.report(finding.on(gateway.clone()).hint("until it does, connections to these hosts are refused"));
}
