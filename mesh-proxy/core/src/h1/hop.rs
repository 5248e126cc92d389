//! Fields that belong to one connection and must not travel further (RFC 9110 section 7.6.1).

use crate::head::known::KnownName;
use crate::head::{FieldError, Head};

/// Whether a forwarded head keeps its wish to switch protocols.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeepUpgrade {
    /// `upgrade` is removed.
    No,
    /// `upgrade` stays, for a route that allows it; write the head with [`super::encode::Connection::Upgrade`].
    Yes,
}

/// Hop-by-hop fields, besides `te` and `upgrade`, which have rules of their own. `transfer-encoding` is written anew by the
/// encoder.
const HOP_BY_HOP: [KnownName; 6] = [
    KnownName::Connection,
    KnownName::KeepAlive,
    KnownName::ProxyConnection,
    KnownName::TransferEncoding,
    KnownName::Http2Settings,
    KnownName::Trailer,
];

/// Removes connection-specific fields from a head that is about to be forwarded, and those that `connection` names. Of `te`
/// only `trailers` survives, which gRPC needs. `trailer` goes too, because trailers may be dropped on the way.
///
/// # Errors
/// [`FieldError::TooLarge`] when the head has no room for the reduced `te`.
pub fn strip(head: &mut Head, upgrade: KeepUpgrade) -> Result<(), FieldError> {
    if head.contains(KnownName::Connection) {
        head.remove_nominated();
    }
    for name in HOP_BY_HOP {
        head.remove(name);
    }
    if upgrade == KeepUpgrade::No {
        head.remove(KnownName::Upgrade);
    }
    match head.get(KnownName::Te) {
        None | Some(b"trailers") => {}
        Some(_) if wants_trailers(head) => head.set(KnownName::Te, b"trailers")?,
        Some(_) => {
            head.remove(KnownName::Te);
        }
    }
    Ok(())
}

/// Removes from a trailer section what no trailer may carry; framing fields are refused earlier.
pub(super) fn strip_trailers(trailers: &mut Head) {
    for name in HOP_BY_HOP {
        trailers.remove(name);
    }
    for name in [KnownName::Te, KnownName::Upgrade, KnownName::Expect, KnownName::MaxForwards] {
        trailers.remove(name);
    }
}

/// Whether the sender of this head understands trailers (RFC 9110 section 10.1.4).
#[must_use]
pub fn wants_trailers(head: &Head) -> bool {
    head.get_all(KnownName::Te)
        .flat_map(|value| value.split(|byte| *byte == b','))
        .any(|coding| coding.trim_ascii().eq_ignore_ascii_case(b"trailers"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(fields: &[(&str, &str)], upgrade: KeepUpgrade, expect: &[&str]) {
        let mut head = Head::request();
        for (name, value) in fields {
            head.append(*name, value.as_bytes()).unwrap();
        }
        strip(&mut head, upgrade).unwrap();
        let left: Vec<_> = head.iter().map(|field| String::from_utf8_lossy(field.name).into_owned()).collect();
        assert_eq!(left, expect);
    }

    #[test]
    fn hop_by_hop_fields_go() {
        check(
            &[
                ("Host", "a"),
                ("Connection", "keep-alive, X-Private"),
                ("Keep-Alive", "timeout=5"),
                ("Proxy-Connection", "x"),
                ("X-Private", "1"),
                ("x-private", "2"),
                ("Upgrade", "websocket"),
                ("Trailer", "x"),
                ("HTTP2-Settings", "AAMAAABkAAQAAP__"),
                ("Accept", "*/*"),
            ],
            KeepUpgrade::No,
            &["host", "accept"],
        );
    }

    #[test]
    fn an_allowed_upgrade_stays() {
        check(&[("Connection", "Upgrade"), ("Upgrade", "websocket")], KeepUpgrade::Yes, &["upgrade"]);
    }

    /// CVE-2022-1388 class: a client asks the proxy to drop fields that a later hop trusts.
    #[test]
    fn end_to_end_fields_cannot_be_nominated() {
        let fields = [
            ("connection", "close, x-forwarded-for, authorization, cookie, host, x-request-id, content-length, own"),
            ("x-forwarded-for", "1"),
            ("authorization", "b"),
            ("cookie", "c"),
            ("host", "h"),
            ("x-request-id", "i"),
            ("content-length", "0"),
            ("own", "1"),
        ];
        check(
            &fields,
            KeepUpgrade::No,
            &["x-forwarded-for", "authorization", "cookie", "host", "x-request-id", "content-length"],
        );
    }

    #[test]
    fn te_is_reduced_to_trailers() {
        check(&[("te", "gzip"), ("a", "1")], KeepUpgrade::No, &["a"]);
        check(&[("te", "gzip, Trailers;q=1"), ("a", "1")], KeepUpgrade::No, &["a"]);
        check(&[("te", "gzip, Trailers"), ("a", "1")], KeepUpgrade::No, &["te", "a"]);
        let mut head = Head::request();
        head.append("te", b"gzip").unwrap();
        head.append("te", b"trailers").unwrap();
        strip(&mut head, KeepUpgrade::No).unwrap();
        assert_eq!(head.get_all("te").collect::<Vec<_>>(), [b"trailers"]);
    }
}
