//! One certificate in several Gateways: browsers then use one connection for the hosts of both, and find 404.

use serde_json::Value;

use super::Check;
use crate::analyze::message::{DUPLICATE_CERTIFICATE, Messages, brackets};
use crate::analyze::objects::Objects;
use crate::analyze::sorts::Sort;
use crate::analyze::view;

pub(super) const CHECK: Check = Check {
    name: "gateway.certificates",
    doc: "No two Gateways of the same pods have one certificate",
    needs: &[],
    run,
};

fn run(objects: &Objects, messages: &mut Messages) {
    for gateway in objects.of(Sort::GATEWAY) {
        let selector = gateway.pairs("spec.selector");
        for other in objects.of(Sort::GATEWAY).filter(|other| other.index != gateway.index) {
            if !view::selects(&selector, &other.pairs("spec.selector")) {
                continue;
            }
            let servers = gateway.list("spec.servers").iter().filter_map(|server| view::at(server, "tls"));
            for tls in servers {
                let theirs = other.list("spec.servers").iter().filter_map(|server| view::at(server, "tls"));
                for _ in theirs.filter(|theirs| same(tls, theirs)) {
                    let names = brackets([gateway.full_name(), other.full_name()]);
                    let text = format!(
                        "Duplicate certificate in multiple gateways {names} may cause 404s if clients re-use HTTP2 \
                         connections."
                    );
                    messages.tell(&DUPLICATE_CERTIFICATE, gateway, "metadata.name", text);
                }
            }
        }
    }
}

fn same(one: &Value, other: &Value) -> bool {
    let equal = |field: &str| {
        let (one, other) = (view::text(one, field), view::text(other, field));
        (!one.is_empty() && !other.is_empty()).then_some(one == other)
    };
    let none = |field: &str| view::text(one, field).is_empty() && view::text(other, field).is_empty();
    match equal("credentialName") {
        Some(equal) => equal,
        None => none("credentialName") && equal("serverCertificate") == Some(true) && equal("privateKey") == Some(true),
    }
}
