//! Fields that Istio retired, and which are still read.

use super::Check;
use crate::analyze::message::{DEPRECATED, Messages};
use crate::analyze::objects::Objects;
use crate::analyze::sorts::Sort;
use crate::analyze::view;

pub(super) const CHECK: Check = Check { name: "deprecation", doc: "No retired field is used", needs: &[], run };

fn run(objects: &Objects, messages: &mut Messages) {
    for service in objects.of(Sort::VIRTUAL_SERVICE) {
        // The rules of the kind tell it, too; once is enough.
        let told = |path: &str| service.findings.iter().any(|finding| finding.path == *path);
        for (index, route) in service.list("spec.http").iter().enumerate() {
            let path = format!("spec.http[{index}].fault.delay.percent");
            if view::number(route, "fault.delay.percent").is_some_and(|percent| percent > 0) && !told(&path) {
                let text =
                    "Deprecated: HTTPRoute.fault.delay.percent is deprecated; use HTTPRoute.fault.delay.percentage";
                messages.tell(&DEPRECATED, service, path, text);
            }
        }
    }
    for sidecar in objects.of(Sort::SIDECAR) {
        if view::at(&sidecar.value, "spec.outboundTrafficPolicy.egressProxy").is_some() {
            let text = "Deprecated: OutboundTrafficPolicy.EgressProxy ignored";
            messages.tell(&DEPRECATED, sidecar, "spec.outboundTrafficPolicy.egressProxy", text);
        }
    }
}
