//! Patches that Istio would not apply, or not always. (That this release applies none is another message.)

use std::collections::BTreeSet;

use serde_json::Value;

use super::Check;
use crate::analyze::message::{
    FILTER_ADD, FILTER_RELATIVE, FILTER_RELATIVE_VERSION, FILTER_REMOVE, FILTER_REPLACE, Messages,
};
use crate::analyze::objects::{Objects, Subject};
use crate::analyze::sorts::Sort;
use crate::analyze::view;

pub(super) const CHECK: Check =
    Check { name: "envoyfilter.patches", doc: "Patches of EnvoyFilters can be applied", needs: &[], run };

const RELATIVE: &str = "This EnvoyFilter does not have a priority and has a relative patch operation set which can cause the \
    EnvoyFilter not to be applied. Using the INSERT_FIRST of ADD option or setting the priority may help in ensuring the \
    EnvoyFilter is applied correctly.";
const RELATIVE_VERSION: &str = "This EnvoyFilter does not have a priority and has a relative patch operation \
    (INSERT_BEFORE/AFTER, REPLACE, MERGE, DELETE) and proxyVersion set which can cause the EnvoyFilter not to be applied \
    during an upgrade. Using the INSERT_FIRST or ADD option or setting the priority may help in ensuring the EnvoyFilter is \
    applied correctly.";

fn run(objects: &Objects, messages: &mut Messages) {
    let mut with_version = BTreeSet::new();
    for filter in objects.of(Sort::ENVOY_FILTER) {
        for (index, patch) in filter.list("spec.configPatches").iter().enumerate() {
            if view::at(patch, "patch").is_none() {
                break;
            }
            let name = patched(patch);
            one(
                filter,
                patch,
                &format!("spec.configPatches[{index}].patch.value"),
                with_version.contains(&name),
                messages,
            );
            if !view::text(patch, "match.proxy.proxyVersion").is_empty() {
                with_version.insert(name);
            }
        }
    }
}

fn one(filter: &Subject, patch: &Value, path: &str, versioned: bool, messages: &mut Messages) {
    let target = view::text(patch, "applyTo");
    let routes = matches!(target, "ROUTE_CONFIGURATION" | "HTTP_ROUTE");
    let relative = |messages: &mut Messages| {
        if view::at(&filter.value, "spec.priority").and_then(Value::as_i64).unwrap_or_default() == 0 {
            let (code, text) =
                if versioned { (&FILTER_RELATIVE_VERSION, RELATIVE_VERSION) } else { (&FILTER_RELATIVE, RELATIVE) };
            messages.tell(code, filter, path, text);
        }
    };
    match view::text(patch, "patch.operation") {
        "ADD" if routes => {
            let text = "The ADD operation will be ignored when applyTo is set to ROUTE_CONFIGURATION, or HTTP_ROUTE.";
            messages.tell(&FILTER_ADD, filter, path, text);
        }
        "REMOVE" if routes => {
            let text =
                "The REMOVE operation will be ignored when applyTo is set to ROUTE_CONFIGURATION, or HTTP_ROUTE.";
            messages.tell(&FILTER_REMOVE, filter, path, text);
        }
        "REPLACE" if !matches!(target, "NETWORK_FILTER" | "HTTP_FILTER" | "VIRTUAL_HOST") => {
            let text = "The REPLACE operation is only valid for HTTP_FILTER and NETWORK_FILTER.";
            messages.tell(&FILTER_REPLACE, filter, path, text);
        }
        "REMOVE" | "REPLACE" | "INSERT_BEFORE" | "INSERT_AFTER" => relative(messages),
        _ => {}
    }
}

/// What is patched, by its name.
fn patched(patch: &Value) -> String {
    let Some(value) = view::at(patch, "patch.value") else { return String::new() };
    match view::text(value, "name") {
        "" => view::text(patch, "match.listener.filterChain.filter.name").to_owned(),
        name => name.to_owned(),
    }
}
