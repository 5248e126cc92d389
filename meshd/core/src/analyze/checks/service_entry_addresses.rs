//! TCP services without an address: nothing tells their connections from others on the port.

use super::Check;
use crate::analyze::message::{ADDRESSES_REQUIRED, Messages};
use crate::analyze::objects::Objects;
use crate::analyze::sorts::Sort;
use crate::analyze::view;

pub(super) const CHECK: Check =
    Check { name: "serviceentry.addresses", doc: "ServiceEntries of TCP ports have addresses", needs: &[], run };

fn run(objects: &Objects, messages: &mut Messages) {
    for entry in objects.of(Sort::SERVICE_ENTRY) {
        let given = view::at(&entry.value, "spec.addresses").is_some();
        if given || !entry.list("status.addresses").is_empty() {
            continue;
        }
        for (index, port) in entry.list("spec.ports").iter().enumerate() {
            let protocol = view::text(port, "protocol");
            if protocol.is_empty() || protocol.eq_ignore_ascii_case("tcp") {
                let text = "ServiceEntry addresses are required for this protocol.";
                messages.tell(&ADDRESSES_REQUIRED, entry, format!("spec.ports[{index}].name"), text);
            }
        }
    }
}
