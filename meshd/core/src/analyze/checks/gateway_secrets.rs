//! Secrets that Gateways name: whether they are there, beside the gateway's pods, and hold a certificate.

use mesh_api::kinds::Kind;
use mesh_api::object::AnyObject;

use super::Check;
use crate::analyze::message::{INVALID_CREDENTIAL, Messages};
use crate::analyze::objects::{Objects, Subject};
use crate::analyze::sorts::Sort;
use crate::analyze::view;

pub(super) const CHECK: Check = Check {
    name: "gateway.secrets",
    doc: "Secrets that Gateways name exist and hold a certificate",
    needs: &[Sort::POD, Sort::SECRET],
    run,
};

/// Entries with certificates: of `kubernetes.io/tls`, and of Istio's older form.
const CERTIFICATES: [&str; 2] = ["tls.crt", "cert"];

fn run(objects: &Objects, messages: &mut Messages) {
    for gateway in objects.of(Sort::GATEWAY) {
        let selector = gateway.pairs("spec.selector");
        // Without pods there is no namespace to look in; that is another check's message.
        let Some(pod) = objects.of(Sort::POD).find(|pod| view::selects(&selector, &pod.labels())) else { continue };
        for (index, server) in gateway.list("spec.servers").iter().enumerate() {
            let name = view::text(server, "tls.credentialName");
            if name.is_empty() {
                continue;
            }
            let path = format!("spec.servers[{index}].tls.credentialName");
            let (namespace, bare) = super::qualified(name, &pod.namespace);
            match objects.find(Sort::SECRET, namespace, bare) {
                None => messages.not_found(gateway, path, "credentialName", name),
                Some(secret) if !holds_certificate(secret) => {
                    let text = format!(
                        "The credential referenced by the Gateway {} in namespace {} is invalid, which can cause the traffic \
                         not to work as expected.",
                        gateway.name, pod.namespace
                    );
                    messages.tell(&INVALID_CREDENTIAL, gateway, path, text);
                }
                Some(_) => {}
            }
        }
    }
}

fn holds_certificate(secret: &Subject) -> bool {
    let Ok(AnyObject::Secret(secret)) = AnyObject::from_value(Kind::Secret, &secret.value) else { return false };
    let texts = CERTIFICATES.iter().filter_map(|name| secret.spec.content(name));
    texts.into_iter().any(|text| text.windows(BEGIN.len()).any(|window| window == BEGIN))
}

/// How a certificate begins as PEM (RFC 7468).
const BEGIN: &[u8] = b"-----BEGIN CERTIFICATE-----";
