//! TLS to servers whose certificates nobody verifies.

use serde_json::Value;

use super::Check;
use crate::analyze::message::{Messages, NO_CA_DESTINATION, NO_CA_PORT};
use crate::analyze::objects::{Objects, Subject};
use crate::analyze::sorts::Sort;
use crate::analyze::view;

pub(super) const CHECK: Check = Check {
    name: "destinationrule.tls",
    doc: "DestinationRules that begin TLS say whose certificates they trust",
    needs: &[],
    run,
};

fn run(objects: &Objects, messages: &mut Messages) {
    for rule in objects.of(Sort::DESTINATION_RULE) {
        let (name, namespace, host) = (rule.full_name(), rule.namespace.as_str(), rule.text("spec.host"));
        let start = |mode: &str| {
            format!(
                "DestinationRule {name} in namespace {namespace} has TLS mode set to {mode} but no caCertificates are set to \
                 validate server identity for host: {host}"
            )
        };
        if let Some(mode) = view::at(&rule.value, "spec.trafficPolicy.tls").and_then(|tls| unverified(rule, tls)) {
            messages.tell(&NO_CA_DESTINATION, rule, "spec.trafficPolicy.tls.caCertificates", start(mode));
        }
        for (index, port) in rule.list("spec.trafficPolicy.portLevelSettings").iter().enumerate() {
            if let Some(mode) = view::at(port, "tls").and_then(|tls| unverified(rule, tls)) {
                let number = view::number(port, "port.number").unwrap_or_default();
                let path = format!("spec.trafficPolicy.portLevelSettings[{index}].tls.caCertificates");
                messages.tell(&NO_CA_PORT, rule, path, format!("{} at port number:{number}", start(mode)));
            }
        }
    }
}

/// The mode, if it is one with server certificates that nothing verifies.
fn unverified<'a>(rule: &Subject, tls: &'a Value) -> Option<&'a str> {
    let mode = view::text(tls, "mode");
    let by_credential =
        !view::text(tls, "credentialName").is_empty() && view::at(&rule.value, "spec.workloadSelector").is_some();
    let verified = !view::text(tls, "caCertificates").is_empty() || by_credential;
    (matches!(mode, "SIMPLE" | "MUTUAL") && !verified).then_some(mode)
}
