//! Annotations and labels: of pods and what makes them, of namespaces, Services and the mesh's own objects.

use mesh_api::inject::surface::{self, Carrier, Effect, Row as Mark};
use serde_json::Value;

use super::{Row, Weight, row};
use crate::objects::Found;

/// Marks of installations and of what was made for objects: nobody's wish.
const MADE: [&str; 4] =
    ["operator.istio.io/*", "gateway.istio.io/managed", "gateway.networking.k8s.io/*", "gateway.istio.io/*"];
/// Marks that put workloads under a data plane which is not there: what it enforced would be enforced by nobody.
const AMBIENT: [&str; 2] = ["istio.io/dataplane-mode", "istio.io/use-waypoint*"];

pub(super) fn rows(found: &Found) -> Vec<Row> {
    let mut rows = Vec::new();
    for (place, carriers) in places(&found.subject.kind) {
        let all = found.subject.value.pointer(place).and_then(Value::as_object);
        for (name, value) in all.into_iter().flatten() {
            let Some(mark) = surface::rows().find(|mark| carriers.contains(&mark.carrier) && mark.covers(name)) else {
                continue;
            };
            let field = format!("{}.{name}", place.trim_start_matches('/').replace('/', "."));
            rows.extend(of_mark(found, mark, &field, value.as_str().unwrap_or_default()));
        }
    }
    rows
}

/// Where an object of this kind has annotations and labels, and what they are those of.
fn places(kind: &str) -> &'static [(&'static str, &'static [Carrier])] {
    use Carrier::{NamespaceLabel, OtherAnnotation, OtherLabel, PodAnnotation, PodLabel};
    match kind {
        // It was injected already, with what its own mesh made of it; what is made next comes from the template.
        "Pod" => &[("/metadata/annotations", &[PodAnnotation]), ("/metadata/labels", &[PodLabel, OtherLabel])],
        "Namespace" => {
            &[("/metadata/annotations", &[OtherAnnotation]), ("/metadata/labels", &[NamespaceLabel, OtherLabel])]
        }
        _ => &[
            ("/metadata/annotations", &[OtherAnnotation]),
            ("/metadata/labels", &[OtherLabel]),
            ("/spec/template/metadata/annotations", &[PodAnnotation]),
            ("/spec/template/metadata/labels", &[PodLabel, OtherLabel]),
            ("/spec/jobTemplate/spec/template/metadata/annotations", &[PodAnnotation]),
            ("/spec/jobTemplate/spec/template/metadata/labels", &[PodLabel, OtherLabel]),
        ],
    }
}

fn of_mark(found: &Found, mark: &Mark, field: &str, value: &str) -> Option<Row> {
    if MADE.contains(&mark.name) || value == "none" {
        return None;
    }
    let or = |why: &str| if why.is_empty() { format!("it is about {}", mark.meaning) } else { why.to_owned() };
    match mark.effect {
        Effect::Refused(why) => Some(row(found, Weight::Blocks, field, "what has it is refused", why)),
        Effect::Named(why) => Some(row(found, Weight::Differs, field, "it has no effect", or(why))),
        Effect::NotYet(why) if AMBIENT.contains(&mark.name) => {
            let todo = format!("{}: enable injection, or leave its workloads with Istio", or(why));
            Some(row(found, Weight::Blocks, field, "there is no ambient mode", todo))
        }
        Effect::NotYet(why) => Some(row(found, Weight::Differs, field, "nobody reads it yet", or(why))),
        Effect::Acts | Effect::Written | Effect::Elsewhere(_) => None,
    }
}
