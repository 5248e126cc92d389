//! The destinations of a VirtualService. No check, but what several of them walk over.

use serde_json::Value;

use crate::analyze::objects::Subject;
use crate::analyze::view;

/// Where a destination stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Tcp,
    Tls,
    Http,
    /// Requests are copied to it.
    Mirror,
}

/// A destination.
pub(super) struct Route<'a> {
    pub(super) place: Place,
    /// Its field.
    pub(super) path: String,
    pub(super) destination: &'a Value,
}

/// All destinations of a VirtualService, mirrors last.
pub(super) fn routes(service: &Subject) -> Vec<Route<'_>> {
    let mut found = Vec::new();
    for (place, list) in [(Place::Tcp, "tcp"), (Place::Tls, "tls"), (Place::Http, "http")] {
        for (rule, value) in service.list(&format!("spec.{list}")).iter().enumerate() {
            for (index, route) in view::list(value, "route").iter().enumerate() {
                if let Some(destination) = route.get("destination") {
                    let path = format!("spec.{list}[{rule}].route[{index}].destination");
                    found.push(Route { place, path, destination });
                }
            }
        }
    }
    for (rule, value) in service.list("spec.http").iter().enumerate() {
        if let Some(destination) = view::at(value, "mirror") {
            found.push(Route { place: Place::Mirror, path: format!("spec.http[{rule}].mirror"), destination });
        }
        for (index, mirror) in view::list(value, "mirrors").iter().enumerate() {
            if let Some(destination) = mirror.get("destination") {
                let path = format!("spec.http[{rule}].mirrors[{index}].destination");
                found.push(Route { place: Place::Mirror, path, destination });
            }
        }
    }
    found
}
