//! Conditions that say no.

use serde_json::Value;

use super::Check;
use crate::analyze::message::{Messages, NEGATIVE_CONDITION};
use crate::analyze::objects::{Objects, Subject};
use crate::analyze::sorts::Sort;
use crate::analyze::view;

pub(super) const CHECK: Check =
    Check { name: "conditions", doc: "No controller says that an object does not work", needs: &[], run };

/// Kinds, and the conditions of theirs that should be true.
const CONDITIONS: [(Sort, &[&str]); 7] = [
    (Sort::SERVICE, &["istio.io/WaypointBound"]),
    (Sort::SERVICE_ENTRY, &["istio.io/WaypointBound"]),
    (Sort::WORKLOAD_ENTRY, &["istio.io/WaypointBound"]),
    (Sort::AUTHORIZATION_POLICY, &["ZtunnelAccepted", "WaypointAccepted"]),
    (Sort::K8S_GATEWAY, &["Accepted", "Programmed", "ResolvedRefs"]),
    (Sort::HTTP_ROUTE, &["Accepted", "Programmed", "ResolvedRefs"]),
    (Sort::GRPC_ROUTE, &["Accepted", "Programmed", "ResolvedRefs"]),
];

fn run(objects: &Objects, messages: &mut Messages) {
    for (sort, wanted) in CONDITIONS {
        for subject in objects.of(sort) {
            let own = subject.list("status.conditions").iter();
            let of_parents = subject.list("status.parents").iter().flat_map(|parent| view::list(parent, "conditions"));
            for condition in own.chain(of_parents) {
                let kind = view::text(condition, "type");
                let partly = kind == "WaypointAccepted" && view::text(condition, "reason") == "PartiallyInvalid";
                if partly || (wanted.contains(&kind) && view::text(condition, "status") == "False") {
                    tell(subject, condition, messages);
                }
            }
        }
    }
}

fn tell(subject: &Subject, condition: &Value, messages: &mut Messages) {
    let text = format!(
        "A condition with a negative status is present: type={}, reason={}, message={}.",
        view::text(condition, "type"),
        view::text(condition, "reason"),
        view::text(condition, "message")
    );
    messages.tell(&NEGATIVE_CONDITION, subject, "status", text);
}
