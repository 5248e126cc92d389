//! Annotations of Istio's that it does not know, that stand on the wrong kind, or that it retired.

use super::Check;
use crate::analyze::annotations::{ANY, DEFINED, IGNORED};
use crate::analyze::message::{
    DEPRECATED_ANNOTATION, INVALID_ANNOTATION, MISPLACED_ANNOTATION, Messages, UNKNOWN_ANNOTATION,
};
use crate::analyze::objects::{Objects, Subject};
use crate::analyze::sorts::Sort;
use crate::inject;

pub(super) const CHECK: Check = Check {
    name: "annotations",
    doc: "Annotations of the mesh are known and readable, and stand where they act",
    needs: &[],
    run,
};

const KINDS: [Sort; 4] = [Sort::NAMESPACE, Sort::SERVICE, Sort::POD, Sort::DEPLOYMENT];
const TEMPLATE: &str = "spec.template.metadata.annotations";
const INJECT: &str = "sidecar.istio.io/inject";

fn run(objects: &Objects, messages: &mut Messages) {
    for sort in KINDS {
        for subject in objects.of(sort) {
            for (name, value) in subject.pairs("metadata.annotations") {
                one(subject, sort, (name, value), messages);
            }
        }
    }
    // The pods of a Deployment have the annotations of its template.
    for deployment in objects.of(Sort::DEPLOYMENT) {
        for (name, value) in deployment.pairs(TEMPLATE) {
            invalid(deployment, format!("{TEMPLATE}.{name}"), (name, value), messages);
        }
    }
}

fn one(subject: &Subject, sort: Sort, (name, value): (&str, &str), messages: &mut Messages) {
    let ours = name == "kubernetes.io/ingress.class"
        || name.split_once('/').is_some_and(|(domain, _)| domain.ends_with("istio.io"));
    if !ours || IGNORED.contains(&name) {
        return;
    }
    let path = format!("metadata.annotations.{name}");
    let Some(defined) = DEFINED.iter().find(|defined| defined.name == name) else {
        messages.tell(&UNKNOWN_ANNOTATION, subject, path, format!("Unknown annotation: {name}"));
        return;
    };
    // With the label beside it the author knows, and wants both.
    if defined.is_deprecated && !(name == INJECT && subject.label(INJECT).is_some()) {
        let instead = if name == INJECT { " in favor of the \"sidecar.istio.io/inject\" label" } else { "" };
        let text =
            format!("Annotation {name:?} has been deprecated{instead} and may not work in future Istio versions.");
        messages.tell(&DEPRECATED_ANNOTATION, subject, path.clone(), text);
    }
    if defined.kinds != ANY && !defined.kinds.contains(&sort.kind) {
        let text = format!("Misplaced annotation: {name} can only be applied to {}", defined.kinds.join(", "));
        messages.tell(&MISPLACED_ANNOTATION, subject, path, text);
    } else {
        invalid(subject, path, (name, value), messages);
    }
}

/// A value that injection would refuse.
fn invalid(subject: &Subject, path: String, (name, value): (&str, &str), messages: &mut Messages) {
    if let Some(why) = inject::annotation_problem(name, value) {
        messages.tell(&INVALID_ANNOTATION, subject, path, format!("Invalid annotation {name}: {why}"));
    }
}
