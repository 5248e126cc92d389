//! Header edits of routes and weighted destinations.

use mesh_api::text::Str;
use mesh_api_xds::ir::route::{Edits, HeaderEdits};

use super::format::{Context, Format};
use crate::head::known::KnownName;
use crate::head::name::FieldName;
use crate::head::{FieldError, Head, syntax};
use crate::rejected::Reason;

/// Compiled [`HeaderEdits`].
#[derive(Clone, Debug, Default)]
pub struct HeaderRules {
    /// On requests.
    pub request: EditRules,
    /// On responses.
    pub response: EditRules,
}

/// Compiled [`Edits`].
#[derive(Clone, Debug, Default)]
pub struct EditRules {
    set: Box<[(FieldName, Format)]>,
    add: Box<[(FieldName, Format)]>,
    remove: Box<[FieldName]>,
}

impl HeaderRules {
    /// Compiles edits of both directions.
    ///
    /// # Errors
    /// For a name or value that no header can have, or an unknown format command.
    pub fn compile(edits: &HeaderEdits) -> Result<Self, Reason> {
        Ok(Self { request: EditRules::compile(&edits.request)?, response: EditRules::compile(&edits.response)? })
    }
}

impl EditRules {
    fn compile(edits: &Edits) -> Result<Self, Reason> {
        let pairs = |list: &[(Str, Str)], edit: Edit| {
            let pair = |(name, value): &(Str, Str)| Ok((field_name(name, edit)?, field_value(value)?));
            list.iter().map(pair).collect::<Result<Box<[_]>, Reason>>()
        };
        let remove = edits.remove.iter().map(|name| field_name(name, Edit::Remove)).collect::<Result<_, _>>()?;
        Ok(Self { set: pairs(&edits.set, Edit::Set)?, add: pairs(&edits.add, Edit::Add)?, remove })
    }

    /// Whether there is nothing to do.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.set.is_empty() && self.add.is_empty() && self.remove.is_empty()
    }

    /// Edits a request head: removes, sets, adds. A value that formats to nothing changes nothing, as in Envoy
    /// (`keep_empty_value: false`).
    ///
    /// # Errors
    /// [`FieldError::TooLarge`] when the head outgrows its bound.
    pub fn apply_request(&self, head: &mut Head, context: &Context<'_>) -> Result<(), FieldError> {
        self.apply(head, |format, head| format.format(context, head, None))
    }

    /// Edits a response head; `request` is the head that it answers.
    ///
    /// # Errors
    /// [`FieldError::TooLarge`] when the head outgrows its bound.
    pub fn apply_response(&self, head: &mut Head, request: &Head, context: &Context<'_>) -> Result<(), FieldError> {
        self.apply(head, |format, head| format.format(context, request, Some(head)))
    }

    fn apply(&self, head: &mut Head, format: impl Fn(&Format, &Head) -> super::format::Text) -> Result<(), FieldError> {
        // As Envoy does it (`HeaderParser::evaluateHeaders`): a name that is both removed and set ends up set.
        for name in &self.remove {
            head.remove(name);
        }
        for (name, value) in &self.set {
            edit(head, value, &format, |head, value| head.set(name, value))?;
        }
        for (name, value) in &self.add {
            edit(head, value, &format, |head, value| head.append(name, value))?;
        }
        Ok(())
    }
}

fn edit(
    head: &mut Head,
    value: &Format,
    format: impl Fn(&Format, &Head) -> super::format::Text,
    put: impl Fn(&mut Head, &[u8]) -> Result<(), FieldError>,
) -> Result<(), FieldError> {
    match value.literal() {
        Some([]) => Ok(()),
        Some(text) => put(head, text),
        None => {
            let text = format(value, head);
            if text.is_empty() { Ok(()) } else { put(head, &text) }
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Edit {
    Set,
    Add,
    Remove,
}

/// Pseudo headers are changed by rewrites, not by edits. What frames a message is the codec's, and a request has one host:
/// it can be replaced, but neither doubled nor dropped.
fn field_name(text: &Str, edit: Edit) -> Result<FieldName, Reason> {
    use KnownName::{
        Connection, ContentLength, Host, Http2Settings, KeepAlive, ProxyConnection, TransferEncoding, Upgrade,
    };
    let name =
        FieldName::parse(text).filter(|_| !text.starts_with(':')).ok_or_else(|| Reason::FieldName(text.clone()))?;
    let own = match &name {
        FieldName::Known(
            Connection | ContentLength | Http2Settings | KeepAlive | ProxyConnection | TransferEncoding | Upgrade,
        ) => true,
        FieldName::Known(Host) => edit != Edit::Set,
        FieldName::Known(_) | FieldName::Other(_) => false,
    };
    if own { Err(Reason::OwnField(text.clone())) } else { Ok(name) }
}

fn field_value(value: &Str) -> Result<Format, Reason> {
    if !syntax::is_field_value(value.as_bytes()) {
        return Err(Reason::FieldValue(value.clone()));
    }
    Ok(Format::compile(value)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::{ConnFacts, RequestFacts};
    use std::net::SocketAddr;

    fn pairs(list: &[(&str, &str)]) -> std::sync::Arc<[(Str, Str)]> {
        list.iter().map(|(name, value)| (Str::from(*name), Str::from(*value))).collect()
    }

    fn mk_edits(set: &[(&str, &str)], add: &[(&str, &str)], remove: &[&str]) -> Edits {
        Edits { set: pairs(set), add: pairs(add), remove: remove.iter().map(|name| Str::from(*name)).collect() }
    }

    #[track_caller]
    fn check(edits: &Edits, before: &[(&str, &str)], expect: &[(&str, &str)]) {
        let conn = ConnFacts::new(SocketAddr::from(([10, 0, 0, 1], 1)), SocketAddr::from(([10, 0, 0, 2], 80)));
        let context = Context {
            facts: RequestFacts::direct(&conn),
            route: "r",
            cluster: "c",
            upstream: None,
            start_time: std::time::SystemTime::UNIX_EPOCH,
        };
        let mut head = Head::request();
        for (name, value) in before {
            head.append(*name, value.as_bytes()).unwrap();
        }
        EditRules::compile(edits).unwrap().apply_request(&mut head, &context).unwrap();
        let fields: Vec<_> =
            head.iter().map(|f| (String::from_utf8_lossy(f.name), String::from_utf8_lossy(f.value))).collect();
        let fields: Vec<_> = fields.iter().map(|(name, value)| (&**name, &**value)).collect();
        assert_eq!(fields, expect);
    }

    #[test]
    fn remove_then_set_then_add() {
        check(&mk_edits(&[("a", "1")], &[("a", "2")], &[]), &[("a", "0")], &[("a", "1"), ("a", "2")]);
        check(&mk_edits(&[("a", "1")], &[("b", "2")], &["a"]), &[("a", "0")], &[("a", "1"), ("b", "2")]);
        check(&mk_edits(&[("a", "%REQ(b)%")], &[], &["b"]), &[("b", "x")], &[]);
        check(&mk_edits(&[("a", "%REQ(b)%")], &[], &[]), &[("b", "x")], &[("b", "x"), ("a", "x")]);
        check(&mk_edits(&[("a", "%REQ(none)%")], &[("b", "")], &[]), &[("a", "kept")], &[("a", "kept")]);
        check(&mk_edits(&[("host", "new.io")], &[], &[]), &[("host", "old.io")], &[("host", "new.io")]);
        check(&mk_edits(&[], &[("x", "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%")], &[]), &[], &[("x", "10.0.0.1")]);
    }

    #[test]
    fn impossible_edits_are_refused() {
        for edits in [
            mk_edits(&[(":path", "/x")], &[], &[]),
            mk_edits(&[("a b", "x")], &[], &[]),
            mk_edits(&[("a", "x\ny")], &[], &[]),
            mk_edits(&[], &[("a", "%NOPE%")], &[]),
            mk_edits(&[], &[], &["a:"]),
            mk_edits(&[("Content-Length", "1")], &[], &[]),
            mk_edits(&[], &[("transfer-encoding", "chunked")], &[]),
            mk_edits(&[], &[], &["connection"]),
            mk_edits(&[], &[("host", "x")], &[]),
            mk_edits(&[], &[], &["host"]),
        ] {
            assert!(EditRules::compile(&edits).is_err(), "{edits:?}");
        }
    }
}
