//! Rules of AuthorizationPolicy. istio/istio: pkg/config/validation ValidateAuthorizationPolicy and
//! pilot/pkg/security/authz.

use super::check::Check;
use crate::{
    codes::Code,
    crd::{
        common::PolicyTargetReference,
        security::authorization_policy::{Action, AuthorizationPolicy, Operation, Rule, RuleCondition, Source},
    },
    text::Str,
};

/// The most targets of one policy.
const MAX_TARGETS: usize = 16;

/// Keys of conditions; those that end in `[` go on with a name and `]`, those that end in `.` with anything.
const CONDITION_KEYS: &[&str] = &[
    "request.headers[",
    "source.ip",
    "remote.ip",
    "source.namespace",
    "source.principal",
    "source.serviceAccount",
    "source.trustDomain",
    "request.auth.principal",
    "request.auth.audiences",
    "request.auth.presenter",
    "request.auth.claims[",
    "destination.ip",
    "destination.port",
    "connection.sni",
    "experimental.envoy.filters.",
];

pub(super) fn check(namespace: &str, spec: &AuthorizationPolicy, check: &mut Check) {
    check.some("selector", spec.selector.as_ref(), |check, selector| {
        check.field("matchLabels", |check| check.labels(&selector.match_labels.0));
    });
    check.exclusive(&[("selector", spec.selector.is_some()), ("targetRefs", !spec.target_refs.is_empty())]);
    check.exclusive(&[("selector", spec.selector.is_some()), ("targetRef", spec.target_ref.is_some())]);
    if spec.target_ref.is_some() {
        check.hinted("targetRef", Code::Deprecated, "is deprecated", "use targetRefs");
    }
    if spec.target_refs.len() > MAX_TARGETS {
        check.at("targetRefs", Code::InvalidValue, format!("has more than {MAX_TARGETS} entries"));
    }
    check.each("targetRefs", &spec.target_refs, |check, target| target_ref(check, namespace, target));
    action(spec, check);
    check.each("rules", &spec.rules, |check, r| rule(check, r, spec.action));
}

fn target_ref(check: &mut Check, namespace: &str, target: &PolicyTargetReference) {
    check.required("kind", !target.kind.is_empty());
    check.required("name", !target.name.is_empty());
    if !target.namespace.is_empty() && target.namespace != *namespace {
        check.at("namespace", Code::InvalidValue, "is another namespace than the policy's, so it never matches");
    }
}

fn action(spec: &AuthorizationPolicy, check: &mut Check) {
    match spec.action {
        Action::Custom => {
            check.required("rules", !spec.rules.is_empty());
            check.required("provider.name", spec.provider.as_ref().is_some_and(|p| !p.name.is_empty()));
        }
        Action::Deny if spec.rules.is_empty() => {
            check.hinted(
                "rules",
                Code::Ineffective,
                "is empty, so nothing is refused",
                "write rules: [{}] to refuse all",
            );
        }
        Action::Allow | Action::Deny | Action::Audit => {}
    }
    if spec.action != Action::Custom && spec.provider.is_some() {
        check.at("provider", Code::Conflict, "is for action CUSTOM only");
    }
}

fn rule(check: &mut Check, rule: &Rule, action: Action) {
    check.each("from", &rule.from, |check, from| match &from.source {
        None => check.required("source", false),
        Some(source) => check.field("source", |check| source_of(check, source, action)),
    });
    check.each("to", &rule.to, |check, to| match &to.operation {
        None => check.required("operation", false),
        Some(operation) => check.field("operation", |check| operation_of(check, operation)),
    });
    check.each("when", &rule.when, |check, when| condition(check, when, action));
}

/// Nothing in a list may be empty: an empty text would match nothing, or with `not` everything.
fn texts(check: &mut Check, lists: &[(&str, &[Str])]) {
    for (field, list) in lists {
        check.each(field, *list, |check, text| check.required("", !text.is_empty()));
    }
}

/// A `*` may stand alone, in front or at the end.
fn patterns(check: &mut Check, lists: &[(&str, &[Str])]) {
    texts(check, lists);
    for (field, list) in lists {
        check.each(field, *list, |check, text| {
            let middle = text.strip_prefix('*').or_else(|| text.strip_suffix('*')).unwrap_or(text);
            if middle.contains('*') {
                let message =
                    format!("{text:?} has a '*' that is neither in front nor at the end: it is taken literally");
                check.here(Code::Ineffective, message);
            }
        });
    }
}

fn source_of(check: &mut Check, source: &Source, action: Action) {
    if *source == Source::default() {
        check.here(Code::Required, "is empty").hint = "leave from out to match every client".into();
    }
    let identities: [(&str, &[Str]); 6] = [
        ("principals", &source.principals),
        ("notPrincipals", &source.not_principals),
        ("namespaces", &source.namespaces),
        ("notNamespaces", &source.not_namespaces),
        ("trustDomains", &source.trust_domains),
        ("notTrustDomains", &source.not_trust_domains),
    ];
    let tokens: [(&str, &[Str]); 2] =
        [("requestPrincipals", &source.request_principals), ("notRequestPrincipals", &source.not_request_principals)];
    let accounts: [(&str, &[Str]); 2] =
        [("serviceAccounts", &source.service_accounts), ("notServiceAccounts", &source.not_service_accounts)];
    patterns(check, &identities);
    patterns(check, &tokens);
    texts(check, &accounts);
    for (field, list) in [
        ("ipBlocks", &source.ip_blocks),
        ("notIpBlocks", &source.not_ip_blocks),
        ("remoteIpBlocks", &source.remote_ip_blocks),
        ("notRemoteIpBlocks", &source.not_remote_ip_blocks),
    ] {
        check.each(field, list, |check, text| check.cidr("", text));
    }
    let has_accounts = accounts.iter().any(|a| !a.1.is_empty());
    for (field, list) in &identities[..4] {
        check.exclusive(&[
            ("serviceAccounts", has_accounts && !list.is_empty()),
            (field, has_accounts && !list.is_empty()),
        ]);
    }
    for (field, list) in accounts {
        check.each(field, list, |check, text| {
            if text.split('/').count() > 2 || text.contains('*') {
                check.here(Code::InvalidName, format!("{text:?} is not [namespace/]account"));
            }
        });
    }
    if action == Action::Custom {
        for (field, list) in identities.into_iter().chain(tokens).chain(accounts) {
            if !list.is_empty() {
                check.at(field, Code::Conflict, "cannot be used with action CUSTOM");
            }
        }
    }
}

fn operation_of(check: &mut Check, operation: &Operation) {
    if *operation == Operation::default() {
        check.here(Code::Required, "is empty").hint = "leave to out to match every request".into();
    }
    patterns(
        check,
        &[
            ("hosts", &operation.hosts),
            ("notHosts", &operation.not_hosts),
            ("methods", &operation.methods),
            ("notMethods", &operation.not_methods),
        ],
    );
    for (field, list) in [("ports", &operation.ports), ("notPorts", &operation.not_ports)] {
        check.each(field, list, |check, text| port(check, text));
    }
    for (field, list) in [("paths", &operation.paths), ("notPaths", &operation.not_paths)] {
        check.each(field, list, |check, text| path(check, text));
    }
}

fn port(check: &mut Check, text: &str) {
    match text.parse::<u32>() {
        Ok(number) => check.port("", number),
        Err(_) => {
            check.here(Code::InvalidValue, format!("{text:?} is not a port"));
        }
    }
}

/// A path, one with a `*` in front or at the end, or a template of whole segments `{*}` and a last-but-any `{**}`.
fn path(check: &mut Check, text: &str) {
    if text.is_empty() {
        return check.required("", false);
    }
    if !text.contains(['{', '}']) {
        return patterns(check, &[("", &[text.into()])]);
    }
    let bad = text.split('/').any(|segment| segment.contains(['{', '}', '*']) && segment != "{*}" && segment != "{**}");
    let after_any = text.split_once("{**}").map_or("", |(_, after)| after);
    if bad {
        check.here(
            Code::InvalidValue,
            format!("{text:?} is not a path template: each {{*}} and {{**}} is a whole segment"),
        );
    } else if after_any.contains('{') {
        check.here(Code::InvalidValue, "nothing that varies can follow {**} in a path template");
    }
}

fn condition(check: &mut Check, when: &RuleCondition, action: Action) {
    let key = &*when.key;
    let known = CONDITION_KEYS.iter().any(|known| match known.chars().last() {
        Some('[') => key.starts_with(known) && key.ends_with(']') && key.len() > known.len() + 1,
        Some('.') => key.starts_with(known) && key.len() > known.len(),
        _ => key == *known,
    });
    if key.is_empty() {
        check.required("key", false);
    } else if !known {
        let near = crate::near::nearest(key, CONDITION_KEYS.iter().copied());
        let hint = near.map(|near| format!("did you mean {near}?")).unwrap_or_default();
        check.hinted("key", Code::InvalidValue, format!("{key:?} is not an attribute"), hint);
    }
    if when.values.is_empty() && when.not_values.is_empty() {
        check.here(Code::Required, "needs values or notValues");
    }
    for (field, list) in [("values", &when.values), ("notValues", &when.not_values)] {
        check.each(field, list, |check, text| match key {
            "source.ip" | "remote.ip" | "destination.ip" => check.cidr("", text),
            "destination.port" => port(check, text),
            _ => check.required("", !text.is_empty()),
        });
    }
    let of_peer = ["source.namespace", "source.serviceAccount", "source.trustDomain", "source.principal"];
    if action == Action::Custom && (of_peer.contains(&key) || key.starts_with("request.auth.")) {
        check.at("key", Code::Conflict, "cannot be used with action CUSTOM");
    }
}
