//! Rules of metadata: names, namespaces, labels, annotations.

use super::check::{Check, is_dns_subdomain};
use crate::{
    codes::Code,
    kinds::{Kind, Scope},
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
        check.field("labels", |check| check.labels(&meta.labels));
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
