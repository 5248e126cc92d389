//! What takes the place of a policy that cannot be read: one that lets nobody in, since what it wanted is not known.

use mesh_api::crd::common::WorkloadSelector;
use mesh_api::crd::security::authorization_policy::{Action, AuthorizationPolicy, Rule};
use mesh_api::crd::security::peer_authentication::{MtlsMode, MutualTls, PeerAuthentication};
use mesh_api::finding::Finding;
use mesh_api::kinds::Kind;
use mesh_api::object::AnyObject;
use mesh_api::object::Object;
use mesh_api::received::Refused;

/// What stands in for an object that cannot be read, and what to tell about it. No other kind than the policies gets one:
/// without a route or a rule for a destination, requests go the usual way.
pub(super) fn stand_in(kind: Kind, refused: &Refused) -> (Option<AnyObject>, Finding) {
    let meta = refused.meta.clone();
    let selector = refused.selector.clone().map(|match_labels| WorkloadSelector { match_labels });
    let (object, becomes): (Option<AnyObject>, _) = match kind {
        Kind::AuthorizationPolicy => {
            let rules = vec![Rule::default()];
            let spec = AuthorizationPolicy { selector, rules, action: Action::Deny, ..AuthorizationPolicy::default() };
            (Some(Object::new(meta, spec).into()), "all requests to what it selects are refused until it is repaired")
        }
        Kind::PeerAuthentication => {
            let mtls = Some(MutualTls { mode: MtlsMode::Strict });
            let spec = PeerAuthentication { selector, mtls, ..PeerAuthentication::default() };
            (Some(Object::new(meta, spec).into()), "what it selects demands mutual TLS until it is repaired")
        }
        _ => (None, "it has no effect until it is repaired"),
    };
    let finding = refused.finding.clone();
    let hint = if finding.hint.is_empty() { becomes.to_owned() } else { format!("{}; {becomes}", finding.hint) };
    (object, finding.hint(hint))
}

#[cfg(test)]
mod tests {
    use mesh_api::received::received;

    use super::*;

    #[track_caller]
    fn check(kind: Kind, spec: &str, expect: Option<&str>) {
        let json = format!(r#"{{"metadata":{{"name":"p","namespace":"shop"}},"spec":{spec}}}"#);
        let refused = received(kind, &json).unwrap_err();
        let (object, finding) = stand_in(kind, &refused);
        let spec = object.map(|object| serde_json::to_value(&object).unwrap()["spec"].to_string());
        assert_eq!(spec.as_deref(), expect);
        assert!(finding.is_error() && finding.hint.contains("until it is repaired"), "{finding}");
    }

    #[test]
    fn a_broken_policy_lets_nobody_in_where_it_applies() {
        check(
            Kind::AuthorizationPolicy,
            r#"{"selector":{"matchLabels":{"app":"web"}},"action":"MAYBE"}"#,
            Some(r#"{"action":"DENY","rules":[{}],"selector":{"matchLabels":{"app":"web"}}}"#),
        );
        check(Kind::AuthorizationPolicy, r#"{"rules":"none"}"#, Some(r#"{"action":"DENY","rules":[{}]}"#));
        check(Kind::PeerAuthentication, r#"{"mtls":{"mode":"SOMETIMES"}}"#, Some(r#"{"mtls":{"mode":"STRICT"}}"#));
    }

    #[test]
    fn a_broken_route_has_no_effect() {
        check(Kind::VirtualService, r#"{"hosts":"web"}"#, None);
    }
}
