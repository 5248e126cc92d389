//! Authorization.
//!
//! Envoy has two languages where we have one [`Predicate`]: permissions speak of what is asked for, principals of who asks.
//! A predicate on the wrong side cannot be said and is an error: to leave it out could open a door.

use crate::codec::common::read_port;
use crate::codec::error::{At, DecodeError, EncodeError, bad, each, each_arc, fail, leftover, required};
use crate::codec::matcher::{cidr, header, path, read_cidr, read_header, read_path, read_string, string};
use crate::ir::authz::{Authz, AuthzAction, AuthzPolicy, Predicate};
use crate::pb::rbac::permission::{self, Rule};
use crate::pb::rbac::principal::{self, Identifier};
use crate::pb::rbac::{Permission, Policy, Principal, Rbac, rbac::Action};
use crate::pb::{http_rbac, network_rbac};

pub(super) fn encode_http(authz: &Authz) -> Result<http_rbac::Rbac, EncodeError> {
    Ok(http_rbac::Rbac { rules: Some(encode(authz)?), ..http_rbac::Rbac::default() })
}

pub(super) fn decode_http(mut message: http_rbac::Rbac) -> Result<Authz, DecodeError> {
    let rules = required(message.rules.take(), "rules")?;
    // Statistics only.
    message.rules_stat_prefix.clear();
    message.track_per_rule_stats = false;
    leftover(&message)?;
    decode(rules).at("rules")
}

pub(in crate::codec) fn encode_network(authz: &Authz, stat_prefix: &str) -> Result<network_rbac::Rbac, EncodeError> {
    let stat_prefix = stat_prefix.to_owned();
    Ok(network_rbac::Rbac { rules: Some(encode(authz)?), stat_prefix, ..network_rbac::Rbac::default() })
}

pub(in crate::codec) fn decode_network(mut message: network_rbac::Rbac) -> Result<Authz, DecodeError> {
    let rules = required(message.rules.take(), "rules")?;
    // Statistics only.
    message.stat_prefix.clear();
    leftover(&message)?;
    decode(rules).at("rules")
}

fn encode(authz: &Authz) -> Result<Rbac, EncodeError> {
    let action = match authz.action {
        AuthzAction::Allow => Action::Allow,
        AuthzAction::Deny => Action::Deny,
    };
    let mut message = Rbac { action: action.into(), ..Rbac::default() };
    for policy in &*authz.policies {
        let encoded = Policy {
            permissions: vec![permission(&policy.permission).at("permission").at(&policy.name)?],
            principals: vec![principal(&policy.principal).at("principal").at(&policy.name)?],
            ..Policy::default()
        };
        if message.policies.insert(policy.name.to_string(), encoded).is_some() {
            return fail("two policies of this name").at(&policy.name);
        }
    }
    Ok(message)
}

fn decode(mut message: Rbac) -> Result<Authz, DecodeError> {
    let action = match Action::try_from(std::mem::take(&mut message.action)) {
        Ok(Action::Allow) => AuthzAction::Allow,
        Ok(Action::Deny) => AuthzAction::Deny,
        Ok(Action::Log) | Err(_) => return fail("only ALLOW and DENY are supported").at("action"),
    };
    let mut policies: Vec<_> = std::mem::take(&mut message.policies).into_iter().collect();
    leftover(&message)?;
    policies.sort_by(|a, b| a.0.cmp(&b.0));
    let policies: Vec<_> = policies
        .into_iter()
        .map(|(name, policy)| decode_policy(&name, policy).at(&name).at("policies"))
        .collect::<Result<_, _>>()?;
    Ok(Authz { action, policies: policies.into() })
}

fn decode_policy(name: &str, mut message: Policy) -> Result<AuthzPolicy, DecodeError> {
    let permissions: Vec<_> = each("permissions", std::mem::take(&mut message.permissions), read_permission)?;
    let principals: Vec<_> = each("principals", std::mem::take(&mut message.principals), read_principal)?;
    leftover(&message)?;
    Ok(AuthzPolicy { name: name.into(), permission: one_of(permissions), principal: one_of(principals) })
}

/// Several alternatives as one predicate; a single one needs no list.
fn one_of(mut predicates: Vec<Predicate>) -> Predicate {
    match (predicates.pop(), predicates.is_empty()) {
        (Some(only), true) => only,
        (last, _) => Predicate::OneOf(predicates.into_iter().chain(last).collect()),
    }
}

fn permission(predicate: &Predicate) -> Result<Permission, EncodeError> {
    let set = |predicates: &[Predicate]| each("rules", predicates, permission).map(|rules| permission::Set { rules });
    let rule = match predicate {
        Predicate::Any => Rule::Any(true),
        Predicate::All(predicates) if predicates.is_empty() => Rule::Any(true),
        Predicate::OneOf(predicates) if predicates.is_empty() => {
            Rule::NotRule(Box::new(Permission { rule: Some(Rule::Any(true)) }))
        }
        Predicate::All(predicates) => Rule::AndRules(set(predicates)?),
        Predicate::OneOf(predicates) => Rule::OrRules(set(predicates)?),
        Predicate::Not(predicate) => Rule::NotRule(Box::new(permission(predicate)?)),
        Predicate::DestinationAddress(range) => Rule::DestinationIp(cidr(*range)),
        Predicate::DestinationPort(port) => Rule::DestinationPort((*port).into()),
        Predicate::ServerName(name) => Rule::RequestedServerName(string(name)),
        Predicate::Header(test) => Rule::Header(header(test)),
        Predicate::Path(test) => Rule::UrlPath(path(test)),
        Predicate::PeerIdentity(_)
        | Predicate::Authenticated
        | Predicate::PeerAddress(_)
        | Predicate::RemoteAddress(_) => {
            return fail(format!("{predicate:?} speaks of who asks, not of what is asked for"));
        }
    };
    Ok(Permission { rule: Some(rule) })
}

fn read_permission(message: Permission) -> Result<Predicate, DecodeError> {
    let set = |set: permission::Set| each_arc("rules", set.rules, read_permission);
    match required(message.rule, "rule")? {
        Rule::Any(true) => Ok(Predicate::Any),
        Rule::Any(false) => fail("only true is supported").at("any"),
        Rule::AndRules(rules) => set(rules).map(Predicate::All).at("and_rules"),
        Rule::OrRules(rules) => set(rules).map(Predicate::OneOf).at("or_rules"),
        Rule::NotRule(rule) => read_permission(*rule).map(|rule| Predicate::Not(rule.into())).at("not_rule"),
        Rule::DestinationIp(range) => read_cidr(range).map(Predicate::DestinationAddress).at("destination_ip"),
        Rule::DestinationPort(port) => read_port(port, "destination_port").map(Predicate::DestinationPort),
        Rule::RequestedServerName(name) => read_string(name).map(Predicate::ServerName).at("requested_server_name"),
        Rule::Header(test) => read_header(test).map(Predicate::Header).at("header"),
        Rule::UrlPath(test) => read_path(test).map(Predicate::Path).at("url_path"),
        other => bad("a supported rule", rule_name(&format!("{other:?}"))),
    }
}

fn principal(predicate: &Predicate) -> Result<Principal, EncodeError> {
    let set = |predicates: &[Predicate]| each("ids", predicates, principal).map(|ids| principal::Set { ids });
    let authenticated = |name| Identifier::Authenticated(principal::Authenticated { principal_name: name });
    let identifier = match predicate {
        Predicate::Any => Identifier::Any(true),
        Predicate::All(predicates) if predicates.is_empty() => Identifier::Any(true),
        Predicate::OneOf(predicates) if predicates.is_empty() => {
            Identifier::NotId(Box::new(Principal { identifier: Some(Identifier::Any(true)) }))
        }
        Predicate::All(predicates) => Identifier::AndIds(set(predicates)?),
        Predicate::OneOf(predicates) => Identifier::OrIds(set(predicates)?),
        Predicate::Not(predicate) => Identifier::NotId(Box::new(principal(predicate)?)),
        Predicate::PeerIdentity(name) => authenticated(Some(string(name))),
        Predicate::Authenticated => authenticated(None),
        Predicate::PeerAddress(range) => Identifier::DirectRemoteIp(cidr(*range)),
        Predicate::RemoteAddress(range) => Identifier::RemoteIp(cidr(*range)),
        Predicate::Header(test) => Identifier::Header(header(test)),
        Predicate::Path(test) => Identifier::UrlPath(path(test)),
        Predicate::DestinationAddress(_) | Predicate::DestinationPort(_) | Predicate::ServerName(_) => {
            return fail(format!("{predicate:?} speaks of what is asked for, not of who asks"));
        }
    };
    Ok(Principal { identifier: Some(identifier) })
}

fn read_principal(message: Principal) -> Result<Predicate, DecodeError> {
    let set = |set: principal::Set| each_arc("ids", set.ids, read_principal);
    match required(message.identifier, "identifier")? {
        Identifier::Any(true) => Ok(Predicate::Any),
        Identifier::Any(false) => fail("only true is supported").at("any"),
        Identifier::AndIds(ids) => set(ids).map(Predicate::All).at("and_ids"),
        Identifier::OrIds(ids) => set(ids).map(Predicate::OneOf).at("or_ids"),
        Identifier::NotId(id) => read_principal(*id).map(|id| Predicate::Not(id.into())).at("not_id"),
        Identifier::Authenticated(peer) => match peer.principal_name {
            None => Ok(Predicate::Authenticated),
            Some(name) => read_string(name).map(Predicate::PeerIdentity).at("authenticated.principal_name"),
        },
        Identifier::DirectRemoteIp(range) => read_cidr(range).map(Predicate::PeerAddress).at("direct_remote_ip"),
        Identifier::RemoteIp(range) => read_cidr(range).map(Predicate::RemoteAddress).at("remote_ip"),
        Identifier::Header(test) => read_header(test).map(Predicate::Header).at("header"),
        Identifier::UrlPath(test) => read_path(test).map(Predicate::Path).at("url_path"),
        other => bad("a supported identifier", rule_name(&format!("{other:?}"))),
    }
}

/// The variant's name in a debug text.
fn rule_name(debug: &str) -> &str {
    debug.split(['(', ' ']).next().unwrap_or(debug)
}
