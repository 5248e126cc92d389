//! AuthorizationPolicy.
//!
//! What cannot be evaluated never opens a door. In an `ALLOW` policy the rule is left out, the policy stays: it allows less.
//! In a `DENY` policy the condition is taken for true: it denies more. `CUSTOM`, whose providers do not act yet, denies what
//! its rules match.

use std::sync::Arc;

use mesh_api::codes::Code;
use mesh_api::crd::security::authorization_policy::{
    Action, AuthorizationPolicy as Spec, Operation, Rule, RuleCondition, Source,
};
use mesh_api::finding::Finding;
use mesh_api::ids::ClusterId;
use mesh_api::names::DRY_RUN_ANNOTATION;
use mesh_api::object::Object;
use mesh_api::text::Str;
use mesh_api_xds::ir::authz::{AuthzAction, AuthzPolicy, Predicate};
use mesh_api_xds::ir::matcher::{Cidr, HeaderMatch, StringMatch, StringPattern, ValueTest};

use super::Context;
use crate::snapshot::mesh::Mesh;
use crate::snapshot::policies::AuthorizationPolicy;
use crate::snapshot::shard::Compiled;

/// Compiles an AuthorizationPolicy.
pub(crate) fn authorization_policy(
    mesh: &Mesh,
    object: &Object<Spec>,
    cluster: &ClusterId,
) -> Compiled<AuthorizationPolicy> {
    let mut cx = Context::new(mesh, object.key(), cluster);
    let Spec { selector, target_ref, target_refs, rules, action, provider: _ } = &object.spec;
    if target_ref.is_some() || !target_refs.is_empty() {
        // Such a policy never applies to sidecars and to gateways that are no Gateway API gateways.
        cx.report(Finding::new(Code::NotActing, "spec.targetRefs", "attached policies do not act yet"));
        return Compiled { values: vec![], findings: cx.into_findings() };
    }
    if object.meta.annotations.get(DRY_RUN_ANNOTATION).is_some_and(|value| value == "true") {
        let path = format!("metadata.annotations[{DRY_RUN_ANNOTATION}]");
        cx.report(Finding::new(Code::NotActing, path, "dry runs are neither enforced nor recorded yet"));
        return Compiled { values: vec![], findings: cx.into_findings() };
    }
    let action = match action {
        Action::Allow => AuthzAction::Allow,
        Action::Deny => AuthzAction::Deny,
        Action::Custom => {
            let message = "external authorization does not act yet; what the rules match is denied";
            cx.report(Finding::new(Code::NotActing, "spec.action", message));
            AuthzAction::Deny
        }
        Action::Audit => {
            cx.report(Finding::new(Code::NotActing, "spec.action", "nothing is audited yet"));
            return Compiled { values: vec![], findings: cx.into_findings() };
        }
    };
    let (mut http, mut tcp) = (Vec::new(), Vec::new());
    for (index, rule) in rules.iter().enumerate() {
        let name = format!("ns[{}]-policy[{}]-rule[{index}]", cx.key.namespace, cx.key.name);
        for (layer, into) in [(Layer::Http, &mut http), (Layer::Tcp, &mut tcp)] {
            let mut builder = Builder { cx: &mut cx, action, layer, cut: false };
            let (permission, principal) = builder.rule(index, rule);
            if !builder.cut {
                into.push(AuthzPolicy { name: Str::from(name.as_str()), permission, principal });
            }
        }
    }
    let value = AuthorizationPolicy {
        key: cx.key.clone(),
        created: object.meta.creation_timestamp,
        selector: selector.as_ref().map(|selector| selector.match_labels.clone()).filter(|s| !s.is_empty()),
        action,
        http: http.into(),
        tcp: tcp.into(),
    };
    Compiled { values: vec![value], findings: cx.into_findings() }
}

/// Which traffic a rule is built for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Layer {
    Http,
    Tcp,
}

struct Builder<'a, 'b> {
    cx: &'a mut Context<'b>,
    action: AuthzAction,
    layer: Layer,
    /// The rule cannot be used at all.
    cut: bool,
}

/// What a value is compared with.
enum Attribute {
    Principal,
    Namespace,
    ServiceAccount,
    TrustDomain,
    PeerAddress,
    RemoteAddress,
    DestinationAddress,
    Port,
    ServerName,
    Host,
    Method,
    Path,
    Header(Str),
    Token,
    Unknown,
}

/// Values of a list and of its `not` twin.
type Pair<'a> = (&'a [Str], &'a [Str]);

impl Builder<'_, '_> {
    /// Permission and principal of a rule.
    fn rule(&mut self, index: usize, rule: &Rule) -> (Predicate, Predicate) {
        let path = format!("spec.rules[{index}]");
        let mut principals = Vec::new();
        let mut permissions = Vec::new();
        let mut sources = Vec::new();
        for (n, from) in rule.from.iter().enumerate() {
            let source = from.source.clone().unwrap_or_default();
            if source == Source::default() {
                self.drop_condition(
                    Code::Required,
                    &format!("{path}.from[{n}].source"),
                    "an empty source is everybody",
                );
            }
            sources.push(self.source(&format!("{path}.from[{n}].source"), &source));
        }
        if !sources.is_empty() {
            principals.push(one_of(sources));
        }
        let mut operations = Vec::new();
        for (n, to) in rule.to.iter().enumerate() {
            let operation = to.operation.clone().unwrap_or_default();
            if operation == Operation::default() {
                let message = "an empty operation is everything";
                self.drop_condition(Code::Required, &format!("{path}.to[{n}].operation"), message);
            }
            operations.push(self.operation(&format!("{path}.to[{n}].operation"), &operation));
        }
        if !operations.is_empty() {
            permissions.push(one_of(operations));
        }
        for (n, condition) in rule.when.iter().enumerate() {
            let path = format!("{path}.when[{n}]");
            let at_destination =
                matches!(condition.key.as_str(), "destination.ip" | "destination.port" | "connection.sni");
            let predicate = self.condition(&path, condition);
            if at_destination { permissions.push(predicate) } else { principals.push(predicate) }
        }
        (all(permissions), all(principals))
    }

    fn source(&mut self, path: &str, source: &Source) -> Predicate {
        let Source {
            principals,
            not_principals,
            request_principals,
            not_request_principals,
            namespaces,
            not_namespaces,
            service_accounts,
            not_service_accounts,
            ip_blocks,
            not_ip_blocks,
            remote_ip_blocks,
            not_remote_ip_blocks,
            trust_domains,
            not_trust_domains,
        } = source;
        let mut parts = Vec::new();
        let mut add = |this: &mut Self, field: &str, pair: Pair<'_>, attribute: Attribute| {
            let mut letters = field.chars();
            let not =
                letters.next().map(|first| format!("{path}.not{}{}", first.to_ascii_uppercase(), letters.as_str()));
            let paths = (&*format!("{path}.{field}"), not.as_deref().unwrap_or(path));
            parts.extend(this.pair(paths, pair, &attribute));
        };
        add(self, "principals", (principals, not_principals), Attribute::Principal);
        add(self, "requestPrincipals", (request_principals, not_request_principals), Attribute::Token);
        add(self, "namespaces", (namespaces, not_namespaces), Attribute::Namespace);
        add(self, "serviceAccounts", (service_accounts, not_service_accounts), Attribute::ServiceAccount);
        add(self, "ipBlocks", (ip_blocks, not_ip_blocks), Attribute::PeerAddress);
        add(self, "remoteIpBlocks", (remote_ip_blocks, not_remote_ip_blocks), Attribute::RemoteAddress);
        add(self, "trustDomains", (trust_domains, not_trust_domains), Attribute::TrustDomain);
        all(parts)
    }

    fn operation(&mut self, path: &str, operation: &Operation) -> Predicate {
        let Operation { hosts, not_hosts, ports, not_ports, methods, not_methods, paths, not_paths } = operation;
        let mut parts = Vec::new();
        let mut add = |this: &mut Self, field: &str, pair: Pair<'_>, attribute: Attribute| {
            let mut letters = field.chars();
            let not =
                letters.next().map(|first| format!("{path}.not{}{}", first.to_ascii_uppercase(), letters.as_str()));
            let paths = (&*format!("{path}.{field}"), not.as_deref().unwrap_or(path));
            parts.extend(this.pair(paths, pair, &attribute));
        };
        add(self, "hosts", (hosts, not_hosts), Attribute::Host);
        add(self, "ports", (ports, not_ports), Attribute::Port);
        add(self, "methods", (methods, not_methods), Attribute::Method);
        add(self, "paths", (paths, not_paths), Attribute::Path);
        all(parts)
    }

    fn condition(&mut self, path: &str, condition: &RuleCondition) -> Predicate {
        let RuleCondition { key, values, not_values } = condition;
        if let Some(header) = key.strip_prefix("request.headers[").and_then(|rest| rest.strip_suffix(']')) {
            let attribute = Attribute::Header(Str::from(header.to_ascii_lowercase()));
            return self.values(path, (values, not_values), &attribute);
        }
        let attribute = match key.as_str() {
            "source.ip" => Attribute::PeerAddress,
            "remote.ip" => Attribute::RemoteAddress,
            "source.namespace" => Attribute::Namespace,
            "source.serviceAccount" => Attribute::ServiceAccount,
            "source.principal" => Attribute::Principal,
            "source.trustDomain" => Attribute::TrustDomain,
            "destination.ip" => Attribute::DestinationAddress,
            "destination.port" => Attribute::Port,
            "connection.sni" => Attribute::ServerName,
            key if key.starts_with("request.auth.") => Attribute::Token,
            _ => Attribute::Unknown,
        };
        self.values(path, (values, not_values), &attribute)
    }

    /// The values of a condition. Without any it says nothing, and must not be taken for "everything".
    fn values(&mut self, path: &str, (values, not_values): Pair<'_>, attribute: &Attribute) -> Predicate {
        if values.is_empty() && not_values.is_empty() {
            self.drop_condition(Code::Required, &format!("{path}.values"), "a condition needs values");
        }
        // What is wrong with the key is said of the key.
        let at_key = matches!(attribute, Attribute::Token | Attribute::Unknown);
        let (yes, no) = if at_key { ("key", "key") } else { ("values", "notValues") };
        all(self.pair((&format!("{path}.{yes}"), &format!("{path}.{no}")), (values, not_values), attribute))
    }

    /// A condition that cannot be evaluated: an ALLOW rule goes, a DENY rule loses the condition.
    fn drop_condition(&mut self, code: Code, path: &str, message: &str) {
        self.bad(code, path, message.to_owned());
        self.cut |= self.action == AuthzAction::Allow;
    }

    /// A list and its twin: one of the values, and none of the others.
    fn pair(
        &mut self,
        (yes, no): (&str, &str),
        (values, not_values): Pair<'_>,
        attribute: &Attribute,
    ) -> Vec<Predicate> {
        let mut parts = Vec::new();
        for (path, list, negated) in [(yes, values, false), (no, not_values, true)] {
            if list.is_empty() {
                continue;
            }
            let made: Option<Vec<_>> = list.iter().map(|value| self.value(attribute, path, value)).collect();
            match made {
                Some(made) if negated => parts.push(Predicate::Not(Arc::new(one_of(made)))),
                Some(made) => parts.push(one_of(made)),
                // The list cannot be evaluated: an ALLOW rule goes, a DENY rule loses the condition.
                None if self.action == AuthzAction::Allow => self.cut = true,
                None => {}
            }
        }
        parts
    }

    /// One value; `None` when it cannot be evaluated here.
    fn value(&mut self, attribute: &Attribute, path: &str, value: &Str) -> Option<Predicate> {
        match attribute {
            Attribute::Principal => Some(self.principal(value)),
            Attribute::Namespace => {
                Some(identity(StringPattern::Regex(Str::from(format!(".*/ns/{}/.*", glob(value, "[^/]*"))))))
            }
            Attribute::ServiceAccount => Some(self.service_account(value)),
            Attribute::TrustDomain => {
                Some(identity(StringPattern::Regex(Str::from(format!("spiffe://{}/.*", glob(value, "[^/]*"))))))
            }
            Attribute::PeerAddress => self.cidr(path, value).map(Predicate::PeerAddress),
            Attribute::RemoteAddress => self.cidr(path, value).map(Predicate::RemoteAddress),
            Attribute::DestinationAddress => self.cidr(path, value).map(Predicate::DestinationAddress),
            Attribute::Port => match value.parse::<u16>() {
                Ok(port) if port > 0 => Some(Predicate::DestinationPort(port)),
                _ => self.bad(Code::InvalidValue, path, format!("{value:?} is not a port")),
            },
            Attribute::ServerName => {
                Some(Predicate::ServerName(StringMatch::new(pattern(value).unwrap_or_else(any_text))))
            }
            Attribute::Host => self.header(":authority", value, true),
            Attribute::Method => self.header(":method", value, false),
            Attribute::Header(name) => self.header(name, value, false),
            Attribute::Path => self.path(path, value),
            Attribute::Token => {
                // No token is verified yet, so that nothing can be said of one.
                self.http_only()?;
                self.bad(Code::NotActing, path, "tokens are not verified yet".to_owned())
            }
            Attribute::Unknown => self.bad(Code::InvalidValue, path, "is not a known attribute".to_owned()),
        }
    }

    /// What only requests have. On connections nobody is told: Istio's asymmetric treatment is documented behaviour.
    fn http_only(&self) -> Option<()> {
        (self.layer == Layer::Http).then_some(())
    }

    /// Reports once for the two layers, and is `None`.
    fn bad(&mut self, code: Code, path: &str, message: String) -> Option<Predicate> {
        if self.layer == Layer::Http {
            let hint = match self.action {
                AuthzAction::Allow => "the rule is left out: it allows nothing",
                AuthzAction::Deny => "the condition is left out: more is denied",
            };
            self.cx.report(Finding::new(code, path, message).hint(hint));
        }
        None
    }

    fn principal(&self, value: &Str) -> Predicate {
        if value == "*" {
            return Predicate::Authenticated;
        }
        if let Some(suffix) = value.strip_prefix('*') {
            return identity(StringPattern::Suffix(Str::from(suffix)));
        }
        let (domain, rest) = value.split_once('/').unwrap_or((value, ""));
        let mesh = self.cx.mesh;
        let own = std::iter::once(&mesh.trust_domain).chain(mesh.trust_domain_aliases.iter());
        let own: Vec<&str> = own.map(|domain| domain.as_str()).collect();
        // Workloads of an alias are the mesh's own, and the other way round.
        let domains = if own.contains(&domain) && !rest.is_empty() { own } else { vec![domain] };
        let alternatives = domains.into_iter().map(|domain| {
            let text = if rest.is_empty() { format!("spiffe://{domain}") } else { format!("spiffe://{domain}/{rest}") };
            identity(match text.strip_suffix('*') {
                Some(prefix) => StringPattern::Prefix(Str::from(prefix)),
                None => StringPattern::Exact(Str::from(text)),
            })
        });
        one_of(alternatives.collect())
    }

    fn service_account(&self, value: &Str) -> Predicate {
        let (namespace, account) = value.split_once('/').unwrap_or((self.cx.namespace(), value));
        let pattern = format!("spiffe://[^/]+/ns/{}/sa/{}", regex::escape(namespace), regex::escape(account));
        identity(StringPattern::Regex(Str::from(pattern)))
    }

    fn cidr(&mut self, path: &str, value: &Str) -> Option<Cidr> {
        let cidr = Cidr::parse(value);
        if cidr.is_none() {
            self.bad(Code::InvalidValue, path, format!("{value:?} is neither an address nor a range"));
        }
        cidr
    }

    fn header(&self, name: &str, value: &Str, ignore_case: bool) -> Option<Predicate> {
        self.http_only()?;
        let test = match pattern(value) {
            None => ValueTest::Present,
            Some(pattern) => ValueTest::Matches(StringMatch { pattern, ignore_case }),
        };
        Some(Predicate::Header(HeaderMatch { name: Str::from(name), test, invert: false, missing_is_empty: false }))
    }

    fn path(&mut self, path: &str, value: &Str) -> Option<Predicate> {
        self.http_only()?;
        if value.contains('{') {
            return match template(value) {
                Some(regex) => Some(Predicate::Path(StringMatch::new(StringPattern::Regex(regex)))),
                None => self.bad(Code::InvalidValue, path, format!("{value:?} is not a path template")),
            };
        }
        Some(Predicate::Path(StringMatch::new(pattern(value).unwrap_or_else(|| StringPattern::Prefix(Str::from("/"))))))
    }
}

fn identity(pattern: StringPattern) -> Predicate {
    Predicate::PeerIdentity(StringMatch::new(pattern))
}

/// `*` is presence (`None`), `abc*` a prefix, `*abc` a suffix, anything else exact.
fn pattern(value: &str) -> Option<StringPattern> {
    Some(match (value.strip_prefix('*'), value.strip_suffix('*')) {
        (Some(""), _) => return None,
        (Some(suffix), _) => StringPattern::Suffix(Str::from(suffix)),
        (None, Some(prefix)) => StringPattern::Prefix(Str::from(prefix)),
        (None, None) => StringPattern::Exact(Str::from(value)),
    })
}

/// Any text that is there.
fn any_text() -> StringPattern {
    StringPattern::Regex(Str::from(".+"))
}

/// A regular expression for a text with a star in front or at the end.
fn glob(value: &str, star: &str) -> String {
    match (value.strip_prefix('*'), value.strip_suffix('*')) {
        (Some(""), _) => star.to_owned(),
        (Some(suffix), _) => format!("{star}{}", regex::escape(suffix)),
        (None, Some(prefix)) => format!("{}{star}", regex::escape(prefix)),
        (None, None) => regex::escape(value),
    }
}

/// A path template: `{*}` is one segment, `{**}` any number of them.
fn template(value: &str) -> Option<Str> {
    let mut regex = String::new();
    for (number, segment) in value.split('/').enumerate() {
        if number > 0 {
            regex.push('/');
        }
        match segment {
            "{*}" => regex.push_str("[^/]+"),
            "{**}" => regex.push_str(".*"),
            other if other.contains(['{', '}', '*']) => return None,
            other => regex.push_str(&regex::escape(other)),
        }
    }
    Some(Str::from(regex))
}

/// All of them; nothing is no condition.
fn all(mut parts: Vec<Predicate>) -> Predicate {
    match parts.len() {
        0 => Predicate::Any,
        1 => parts.remove(0),
        _ => Predicate::All(parts.into()),
    }
}

fn one_of(mut parts: Vec<Predicate>) -> Predicate {
    if parts.len() == 1 { parts.remove(0) } else { Predicate::OneOf(parts.into()) }
}
