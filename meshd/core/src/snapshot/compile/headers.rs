//! Header edits.

use std::sync::Arc;

use mesh_api::codes::Code;
use mesh_api::crd::networking::virtual_service::{HeaderOperations, Headers};
use mesh_api::finding::Finding;
use mesh_api::labels::Labels;
use mesh_api::text::Str;
use mesh_api_xds::ir::route::{Edits, HeaderEdits};

use super::Context;

/// Edits and, where the authority is among them, its new value.
#[derive(Debug, Default)]
pub(super) struct Edited {
    pub(super) headers: HeaderEdits,
    pub(super) host: Option<Str>,
}

/// Header edits of one level.
pub(super) fn headers(cx: &mut Context<'_>, path: &str, headers: Option<&Headers>) -> Edited {
    let Some(headers) = headers else { return Edited::default() };
    let (request, host) = match &headers.request {
        Some(operations) => edits(cx, &format!("{path}.request"), operations),
        None => (Edits::default(), None),
    };
    let (response, response_host) = match &headers.response {
        Some(operations) => edits(cx, &format!("{path}.response"), operations),
        None => (Edits::default(), None),
    };
    if response_host.is_some() {
        let message = "a response has no authority";
        cx.report(Finding::new(Code::Ineffective, format!("{path}.response"), message));
    }
    Edited { headers: HeaderEdits { request, response }, host }
}

/// The level above and the level below as one: what is below comes first, as on a route with one destination.
pub(super) fn joined(outer: &HeaderEdits, inner: &HeaderEdits) -> HeaderEdits {
    let join = |outer: &Edits, inner: &Edits| Edits {
        set: outer.set.iter().chain(inner.set.iter()).cloned().collect(),
        add: outer.add.iter().chain(inner.add.iter()).cloned().collect(),
        remove: outer.remove.iter().chain(inner.remove.iter()).cloned().collect(),
    };
    HeaderEdits { request: join(&outer.request, &inner.request), response: join(&outer.response, &inner.response) }
}

/// Edits of one direction; the new authority, where one of them is of `host` or `:authority`, `set` before `add`.
fn edits(cx: &mut Context<'_>, path: &str, operations: &HeaderOperations) -> (Edits, Option<Str>) {
    let mut host = None;
    let mut values = |cx: &mut Context<'_>, what: &str, pairs: &Labels| -> Arc<[(Str, Str)]> {
        let mut kept = Vec::new();
        for (name, value) in pairs {
            let lower = name.to_ascii_lowercase();
            if lower == "host" || lower == ":authority" {
                host.get_or_insert_with(|| value.clone());
            } else if is_header_name(&lower) && is_header_value(value) {
                kept.push((Str::from(lower), value.clone()));
            } else {
                cx.cut::<()>(Code::InvalidValue, &format!("{path}.{what}[{name}]"), "is not a header and its value");
            }
        }
        kept.into()
    };
    let set = values(cx, "set", &operations.set);
    let add = values(cx, "add", &operations.add);
    let mut remove = Vec::new();
    for (index, name) in operations.remove.iter().enumerate() {
        let lower = name.to_ascii_lowercase();
        if lower.starts_with(':') || lower == "host" {
            let path = format!("{path}.remove[{index}]");
            cx.report(Finding::new(Code::Ineffective, path, format!("{name} cannot be removed")));
        } else if is_header_name(&lower) {
            remove.push(Str::from(lower));
        } else {
            cx.cut::<()>(Code::InvalidValue, &format!("{path}.remove[{index}]"), format!("{name:?} is not a header"));
        }
    }
    (Edits { set, add, remove: remove.into() }, host)
}

/// A field name by RFC 9110 section 5.1 (`token`), lower-case.
pub(super) fn is_header_name(name: &str) -> bool {
    !name.is_empty()
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"!#$%&'*+-.^_`|~".contains(&b))
}

/// A field value without what would end it (RFC 9110 section 5.5).
fn is_header_value(value: &str) -> bool {
    value.bytes().all(|b| b == b'\t' || (b >= 0x20 && b != 0x7f))
}
