//! Rules of metadata: names, namespaces, labels, annotations.

use super::check::Check;
use crate::{
    codes::Code,
    host::is_dns_label,
    kinds::{Kind, Scope},
    labels::Labels,
    meta::Meta,
    names,
};

pub(super) fn check(kind: Kind, meta: &Meta, check: &mut Check) {
    check.field("metadata", |check| {
        if !is_dns_subdomain(&meta.name) {
            let message = format!("{:?} is not a name: lower-case letters, digits, inner '-' and '.'", &*meta.name);
            check.at("name", Code::InvalidName, message);
        }
        if kind.info().scope == Scope::Namespaced {
            check.dns_label("namespace", &meta.namespace);
        }
        check.field("labels", |check| labels(check, &meta.labels));
        let internal = meta.annotations.iter().filter(|(key, _)| key.starts_with(names::INTERNAL_ANNOTATION_PREFIX));
        for (key, _) in internal {
            check.at(
                &format!("annotations.{key}"),
                Code::InternalAnnotation,
                "only the control plane may set this annotation",
            );
        }
    });
}

/// Labels of an object or of a selector, by Kubernetes' syntax.
pub(super) fn labels(check: &mut Check, labels: &Labels) {
    for (key, value) in labels {
        let (prefix, name) = key.rsplit_once('/').map_or((None, &**key), |(prefix, name)| (Some(prefix), name));
        if !is_label_text(name) || name.is_empty() || prefix.is_some_and(|prefix| !is_dns_subdomain(prefix)) {
            check.at(key, Code::InvalidName, format!("{key:?} is not the key of a label"));
        }
        if !is_label_text(value) {
            let message =
                format!("{value:?} is not the value of a label: letters, digits, inner '-', '_', '.'; at most 63");
            check.at(key, Code::InvalidName, message);
        }
    }
}

/// Letters, digits and inner `-`, `_`, `.`; at most 63 characters; may be empty.
fn is_label_text(text: &str) -> bool {
    let outer = |b: u8| b.is_ascii_alphanumeric();
    text.len() <= 63
        && text.bytes().all(|b| outer(b) || matches!(b, b'-' | b'_' | b'.'))
        && text.bytes().next().is_none_or(outer)
        && text.bytes().last().is_none_or(outer)
}

/// DNS labels joined by dots, at most 253 characters (RFC 1123).
pub(super) fn is_dns_subdomain(text: &str) -> bool {
    text.len() <= 253 && text.split('.').all(is_dns_label)
}
