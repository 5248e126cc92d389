//! Rules of PeerAuthentication.

use super::check::Check;
use crate::{codes::Code, crd::security::peer_authentication::PeerAuthentication};

pub(super) fn check(spec: &PeerAuthentication, check: &mut Check) {
    check.some("selector", spec.selector.as_ref(), |check, selector| {
        check.field("matchLabels", |check| check.labels(&selector.match_labels.0));
    });
    let selects = spec.selector.as_ref().is_some_and(|s| !s.match_labels.is_empty());
    if !spec.port_level_mtls.is_empty() && !selects {
        check.hinted(
            "portLevelMtls",
            Code::Conflict,
            "ports are those of single workloads, so a selector is needed",
            "add selector.matchLabels",
        );
    }
    for port in spec.port_level_mtls.keys() {
        check.port(&format!("portLevelMtls.{port}"), *port);
    }
}
