//! Injection webhooks that lead nowhere, or of which two take one pod.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::Check;
use crate::analyze::message::{INVALID_WEBHOOK, Messages, brackets};
use crate::analyze::objects::{Objects, Subject};
use crate::analyze::sorts::Sort;
use crate::analyze::view;

pub(super) const CHECK: Check = Check {
    name: "webhooks",
    doc: "Each pod is taken by one injection webhook, whose Service exists",
    needs: &[Sort::MUTATING_WEBHOOK, Sort::SERVICE],
    run,
};

const REVISION: &str = "istio.io/rev";

struct Webhook<'a> {
    configuration: &'a Subject,
    value: &'a Value,
    name: String,
}

fn run(objects: &Objects, messages: &mut Messages) {
    let mut webhooks = Vec::new();
    let mut revisions = BTreeSet::new();
    for configuration in objects.of(Sort::MUTATING_WEBHOOK) {
        let all = configuration.list("webhooks");
        let own: BTreeSet<&str> = configuration.label(REVISION).into_iter().chain(all.iter().flat_map(named)).collect();
        let of_istio = all.iter().any(|webhook| view::text(webhook, "name").ends_with("istio.io"));
        if own.is_empty() && !of_istio {
            continue;
        }
        revisions.extend(own);
        webhooks.extend(all.iter().map(|value| Webhook {
            configuration,
            value,
            name: format!("{}/{}", configuration.full_name(), view::text(value, "name")),
        }));
    }
    overlaps(&webhooks, &revisions, messages);
    for webhook in &webhooks {
        let Some(service) = view::at(webhook.value, "clientConfig.service") else { continue };
        let (namespace, name) = (view::text(service, "namespace"), view::text(service, "name"));
        if objects.find(Sort::SERVICE, namespace, name).is_none() {
            let text = format!("Injector refers to a control plane service that does not exist: {namespace}/{name}.");
            messages.tell(&INVALID_WEBHOOK, webhook.configuration, "webhooks", text);
        }
    }
}

/// Every combination of labels that decides about injection is taken by one webhook at most.
fn overlaps(webhooks: &[Webhook<'_>], revisions: &BTreeSet<&str>, messages: &mut Messages) {
    let with_revisions = |key: &'static str, values: [&'static str; 2]| {
        let mut all: Vec<BTreeMap<&str, &str>> = vec![BTreeMap::new()];
        all.extend(values.map(|value| BTreeMap::from([(key, value)])));
        let bases = all.clone();
        for revision in revisions {
            all.extend(bases.iter().map(|base| {
                let mut base = base.clone();
                base.insert(REVISION, revision);
                base
            }));
        }
        all
    };
    let namespaces = with_revisions("istio-injection", ["enabled", "disabled"]);
    let objects = with_revisions("sidecar.istio.io/inject", ["true", "false"]);
    let mut told = BTreeSet::new();
    for namespace in &namespaces {
        for object in &objects {
            let takes = |webhook: &&Webhook<'_>| {
                view::fits(view::at(webhook.value, "namespaceSelector"), namespace)
                    && view::fits(view::at(webhook.value, "objectSelector"), object)
            };
            let taking: Vec<&Webhook<'_>> = webhooks.iter().filter(takes).collect();
            for webhook in &taking {
                let others: BTreeSet<&str> =
                    taking.iter().filter(|other| other.name != webhook.name).map(|other| other.name.as_str()).collect();
                if !others.is_empty() && told.insert((webhook.name.clone(), others.clone())) {
                    let text = format!(
                        "Webhook overlaps with others: {}. This may cause injection to occur twice.",
                        brackets(others)
                    );
                    messages.tell(&INVALID_WEBHOOK, webhook.configuration, "webhooks", text);
                }
            }
        }
    }
}

/// Revisions that a webhook's selectors name.
fn named(webhook: &Value) -> Vec<&str> {
    let selectors = ["namespaceSelector", "objectSelector"].map(|field| view::at(webhook, field));
    let mut all = Vec::new();
    for selector in selectors.into_iter().flatten() {
        all.extend(view::pairs(selector, "matchLabels").get(REVISION).copied());
        let terms = view::list(selector, "matchExpressions").iter();
        all.extend(
            terms.filter(|term| view::text(term, "key") == REVISION).flat_map(|term| view::texts(term, "values")),
        );
    }
    all
}
