//! Which Ingresses are ours (istio-surface section 2.8).

use mesh_api::crd::core::ingress::{Ingress, IngressClass};
use mesh_api::mesh_config::IngressControllerMode;
use mesh_api::object::Object;
use mesh_api::text::Str;

use super::Settings;

/// The older form of `spec.ingressClassName`.
const CLASS_ANNOTATION: &str = "kubernetes.io/ingress.class";
/// Controller of the classes that are ours.
const CONTROLLER: &str = "istio.io/ingress-controller";

/// Whether an Ingress is ours; `class` finds a class by its name.
pub(super) fn is_ours<'a>(
    settings: &Settings,
    object: &Object<Ingress>,
    class: &dyn Fn(&str) -> Option<&'a Object<IngressClass>>,
) -> bool {
    let mode = settings.mode;
    if mode == IngressControllerMode::Off {
        return false;
    }
    // The annotation wins over the field, since those who still write it mean it.
    if let Some(annotated) = object.meta.annotations.get(CLASS_ANNOTATION) {
        return *annotated == settings.class;
    }
    match object.spec.ingress_class_name.as_ref().filter(|name| !name.is_empty()) {
        Some(name) => class(name).is_some_and(|class| class.spec.controller == CONTROLLER),
        None => mode == IngressControllerMode::Default,
    }
}

/// The class that Istio's own installation names.
pub(super) fn default_class() -> Str {
    Str::from("istio")
}
