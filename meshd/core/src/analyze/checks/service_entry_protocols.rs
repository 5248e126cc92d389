//! One host and port with two protocols in two ServiceEntries.

use std::collections::{BTreeMap, BTreeSet};

use super::Check;
use crate::analyze::hosts::scopes;
use crate::analyze::message::{CONFLICTING_ENTRY_PROTOCOL, Messages};
use crate::analyze::objects::{Objects, Subject};
use crate::analyze::sorts::Sort;
use crate::analyze::view;

pub(super) const CHECK: Check = Check {
    name: "serviceentry.protocols",
    doc: "ServiceEntries agree on the protocol of a host's port",
    needs: &[],
    run,
};

/// A host's port as one namespace sees it.
type Port<'a> = (String, &'a str, u64);

fn run(objects: &Objects, messages: &mut Messages) {
    let mut by_port: BTreeMap<Port<'_>, Vec<(String, &Subject)>> = BTreeMap::new();
    for entry in objects.of(Sort::SERVICE_ENTRY) {
        for scope in scopes(entry.texts("spec.exportTo"), &entry.namespace) {
            for host in entry.texts("spec.hosts") {
                for port in entry.list("spec.ports") {
                    let number = view::number(port, "number").unwrap_or_default();
                    let protocol = view::text(port, "protocol").to_ascii_uppercase();
                    by_port.entry((scope.clone(), host, number)).or_default().push((protocol, entry));
                }
            }
        }
    }
    let mut told = BTreeSet::new();
    for ((scope, host, port), entries) in &by_port {
        let mut all: Vec<&(String, &Subject)> = entries.iter().collect();
        if scope != "*" {
            all.extend(by_port.get(&("*".to_owned(), *host, *port)).into_iter().flatten());
        }
        let protocols: BTreeSet<&str> = all.iter().map(|(protocol, _)| protocol.as_str()).collect();
        if protocols.len() < 2 {
            continue;
        }
        let names: BTreeSet<String> = all.iter().map(|(_, entry)| entry.full_name()).collect();
        let names: Vec<String> = names.into_iter().collect();
        let protocols: Vec<&str> = protocols.into_iter().collect();
        for (_, entry) in all {
            if told.insert(entry.index) {
                let text = format!(
                    "Multiple ServiceEntries ({}) define the same host {host:?} and port {port} with conflicting protocols \
                     ({}).",
                    names.join(", "),
                    protocols.join(", ")
                );
                messages.tell(&CONFLICTING_ENTRY_PROTOCOL, entry, "metadata.name", text);
            }
        }
    }
}
