//! Kinds of which one object applies to a workload: Sidecars and Telemetries. Several for one pod, or several for a whole
//! namespace, are not defined; one for no pod has no effect.

use std::collections::BTreeMap;

use super::Check;
use crate::analyze::message::{
    CONFLICTING_SIDECARS, CONFLICTING_TELEMETRIES, Code, MULTIPLE_SIDECARS, MULTIPLE_TELEMETRIES, Messages, brackets,
};
use crate::analyze::objects::{Objects, Subject};
use crate::analyze::sorts::Sort;
use crate::analyze::view;

pub(super) const SIDECARS: Check = Check {
    name: "sidecar.selectors",
    doc: "One Sidecar applies to each pod",
    needs: &[Sort::POD],
    run: |objects, messages| run(objects, &OF_SIDECARS, messages),
};

pub(super) const TELEMETRIES: Check = Check {
    name: "telemetry.selectors",
    doc: "One Telemetry with a selector applies to each pod",
    needs: &[Sort::POD],
    run: |objects, messages| run(objects, &OF_TELEMETRIES, messages),
};

struct Selecting {
    sort: Sort,
    plural: &'static str,
    /// Where the labels are.
    selector: &'static str,
    conflict: &'static Code,
    several: &'static Code,
}

const OF_SIDECARS: Selecting = Selecting {
    sort: Sort::SIDECAR,
    plural: "Sidecars",
    selector: "spec.workloadSelector.labels",
    conflict: &CONFLICTING_SIDECARS,
    several: &MULTIPLE_SIDECARS,
};

const OF_TELEMETRIES: Selecting = Selecting {
    sort: Sort::TELEMETRY,
    plural: "Telemetries",
    selector: "spec.selector.matchLabels",
    conflict: &CONFLICTING_TELEMETRIES,
    several: &MULTIPLE_TELEMETRIES,
};

fn run(objects: &Objects, of: &Selecting, messages: &mut Messages) {
    let mut by_pod: BTreeMap<(&str, &str), Vec<&Subject>> = BTreeMap::new();
    let mut wide: BTreeMap<&str, Vec<&Subject>> = BTreeMap::new();
    for subject in objects.of(of.sort) {
        let selector = subject.pairs(of.selector);
        let Some(first) = selector.keys().next() else {
            wide.entry(&subject.namespace).or_default().push(subject);
            continue;
        };
        let mut found = false;
        for pod in objects.of(Sort::POD) {
            if pod.namespace == subject.namespace && view::selects(&selector, &pod.labels()) {
                found = true;
                by_pod.entry((&pod.namespace, &pod.name)).or_default().push(subject);
            }
        }
        if !found {
            messages.not_found(subject, format!("{}.{first}", of.selector), "selector", &view::written(&selector));
        }
    }
    for ((namespace, pod), subjects) in by_pod.iter().filter(|(_, subjects)| subjects.len() > 1) {
        for subject in subjects {
            let text = format!(
                "The {} {} in namespace {namespace:?} select the same workload pod {pod:?}, which can lead to undefined \
                 behavior.",
                of.plural,
                names(subjects)
            );
            messages.tell(of.conflict, subject, "metadata.name", text);
        }
    }
    for (namespace, subjects) in wide.iter().filter(|(_, subjects)| subjects.len() > 1) {
        for subject in subjects {
            let text = format!(
                "The {} {} in namespace {namespace:?} have no workload selector, which can lead to undefined behavior.",
                of.plural,
                names(subjects)
            );
            messages.tell(of.several, subject, "metadata.name", text);
        }
    }
}

fn names(subjects: &[&Subject]) -> String {
    let mut names: Vec<&str> = subjects.iter().map(|subject| subject.name.as_str()).collect();
    names.sort_unstable();
    brackets(names)
}
