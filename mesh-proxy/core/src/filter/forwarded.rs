//! What the client says of itself and of those before it: `x-forwarded-for`, `x-forwarded-proto`,
//! `x-forwarded-client-cert`, and Envoy's internal headers.
//!
//! envoyproxy/envoy: `source/common/http/conn_manager_utility.cc` (`mutateRequestHeaders`, `mutateXfccRequestHeader`).

use std::fmt::Write;
use std::net::{IpAddr, SocketAddr};

use mesh_api_xds::ir::http::{CertDetails, Edge, ForwardClientCert};
use smallvec::SmallVec;

use super::format::{Push, Text};
use crate::facts::{ConnFacts, Transport};
use crate::head::known::KnownName;
use crate::head::{FieldError, Head};

/// Headers that change how a proxy treats a request. A stranger may not send them.
const INTERNAL: &[KnownName] = &[
    KnownName::XEnvoyDecoratorOperation,
    KnownName::XEnvoyExpectedRqTimeoutMs,
    KnownName::XEnvoyForceTrace,
    KnownName::XEnvoyHedgeOnPerTryTimeout,
    KnownName::XEnvoyInternal,
    KnownName::XEnvoyIpTags,
    KnownName::XEnvoyIsTimeoutRetry,
    KnownName::XEnvoyMaxRetries,
    KnownName::XEnvoyOriginalPath,
    KnownName::XEnvoyRetriableHeaderNames,
    KnownName::XEnvoyRetriableStatusCodes,
    KnownName::XEnvoyRetryGrpcOn,
    KnownName::XEnvoyRetryOn,
    KnownName::XEnvoyUpstreamAltStatName,
    KnownName::XEnvoyUpstreamRqPerTryTimeoutMs,
    KnownName::XEnvoyUpstreamRqTimeoutAltResponse,
    KnownName::XEnvoyUpstreamRqTimeoutMs,
];

/// Edits a request's forwarding headers and scheme; returns the client's address after trusted proxies, without port
/// where it comes from a header.
///
/// # Errors
/// [`FieldError`] when the head outgrows its bound.
pub fn apply(edge: Edge, conn: &ConnFacts, head: &mut Head) -> Result<SocketAddr, FieldError> {
    let scheme: &[u8] = match conn.transport {
        Transport::Tls => b"https",
        Transport::Raw => b"http",
    };
    let peer = conn.source.ip().to_canonical();
    let client = match edge {
        Edge::Internal => {
            head.remove(KnownName::XEnvoyInternal);
            if !head.contains(KnownName::XForwardedProto) {
                head.set(KnownName::XForwardedProto, scheme)?;
            }
            nth_from_right(head, 0)
        }
        Edge::Public { trusted_hops } => {
            let client = trusted_hops.checked_sub(1).and_then(|hops| nth_from_right(head, hops));
            let mut text = Text::new();
            // Writing to memory does not fail.
            write!(Push(&mut text), "{peer}").unwrap_or_default();
            head.append_to_list(KnownName::XForwardedFor, &text)?;
            if trusted_hops == 0 || !head.contains(KnownName::XForwardedProto) {
                head.set(KnownName::XForwardedProto, scheme)?;
            }
            for name in INTERNAL {
                head.remove(*name);
            }
            text.clear();
            write!(Push(&mut text), "{}", client.unwrap_or(peer)).unwrap_or_default();
            head.set(KnownName::XEnvoyExternalAddress, &text)?;
            client
        }
    };
    set_scheme(head, scheme)?;
    Ok(client.map_or(conn.source, |ip| SocketAddr::new(ip, 0)))
}

/// The scheme is what the client used in front of all proxies.
fn set_scheme(head: &mut Head, connection: &[u8]) -> Result<(), FieldError> {
    let is = |scheme: &[u8]| head.get(KnownName::XForwardedProto).is_some_and(|text| text.eq_ignore_ascii_case(scheme));
    let scheme: &[u8] = match (is(b"https"), is(b"http")) {
        (true, _) => b"https",
        (_, true) => b"http",
        (false, false) => connection,
    };
    head.set_scheme(scheme)
}

/// The address that many places from the right of `x-forwarded-for`; `None` when there is none or it is no address.
fn nth_from_right(head: &Head, hops: u32) -> Option<IpAddr> {
    let hops = usize::try_from(hops).ok()?;
    // Several lines are one list. Lines come in order, so the right end is in the last one.
    let places = head.get_all(KnownName::XForwardedFor).flat_map(|line| line.split(|byte| *byte == b',')).count();
    let wanted = places.checked_sub(hops + 1)?;
    let text = head.get_all(KnownName::XForwardedFor).flat_map(|line| line.split(|byte| *byte == b',')).nth(wanted)?;
    std::str::from_utf8(text).ok()?.trim().parse().ok()
}

/// Edits `x-forwarded-client-cert`.
///
/// # Errors
/// [`FieldError`] when the head outgrows its bound.
pub fn client_cert(mode: ForwardClientCert, conn: &ConnFacts, head: &mut Head) -> Result<(), FieldError> {
    const NAME: KnownName = KnownName::XForwardedClientCert;
    let mutual = conn.peer.is_some();
    match mode {
        ForwardClientCert::AlwaysForwardOnly => {}
        ForwardClientCert::ForwardOnly if mutual => {}
        ForwardClientCert::AppendForward(details) if mutual => head.append_to_list(NAME, &element(details, conn))?,
        ForwardClientCert::SanitizeSet(details) if mutual => head.set(NAME, &element(details, conn))?,
        ForwardClientCert::Sanitize
        | ForwardClientCert::ForwardOnly
        | ForwardClientCert::AppendForward(_)
        | ForwardClientCert::SanitizeSet(_) => drop(head.remove(NAME)),
    }
    Ok(())
}

/// One hop's element; on the stack unless the certificate itself is in it.
type Element = SmallVec<[u8; 512]>;

/// `By=…;Hash=…;Cert="…";Subject="…";URI=…;DNS=…`
fn element(details: CertDetails, conn: &ConnFacts) -> Element {
    let mut out = Element::new();
    let mut part = |key: &str, value: &str, quoted: bool| {
        if !out.is_empty() {
            out.push(b';');
        }
        out.extend_from_slice(key.as_bytes());
        out.push(b'=');
        if quoted {
            out.push(b'"');
            for byte in value.bytes() {
                if matches!(byte, b'"' | b'\\') {
                    out.push(b'\\');
                }
                out.push(byte);
            }
            out.push(b'"');
        } else {
            out.extend_from_slice(value.as_bytes());
        }
    };
    if let Some(local) = &conn.local_identity {
        part("By", local, false);
    }
    let Some(peer) = &conn.peer else { return out };
    part("Hash", &peer.sha256, false);
    if details.cert {
        part("Cert", &peer.pem_url_encoded, true);
    }
    if details.subject {
        part("Subject", &peer.subject, true);
    }
    if details.uri {
        // An empty one says that the certificate has none.
        let none = [mesh_api::text::Str::empty()];
        let uris = if peer.uris.is_empty() { &none[..] } else { &peer.uris };
        uris.iter().for_each(|uri| part("URI", uri, false));
    }
    if details.dns {
        peer.dns_names.iter().for_each(|name| part("DNS", name, false));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::Peer;
    use mesh_api::text::Str;
    use std::sync::Arc;

    fn mk_conn(transport: Transport) -> ConnFacts {
        let address = |n, port| SocketAddr::from(([10, 0, 0, n], port));
        ConnFacts { transport, ..ConnFacts::new(address(1, 4000), address(2, 80)) }
    }

    fn mk_head(fields: &[(&str, &str)]) -> Head {
        let mut head = Head::request();
        for (name, value) in fields {
            head.append(*name, value.as_bytes()).unwrap();
        }
        head
    }

    fn get(head: &Head, name: &str) -> String {
        let values: Vec<_> = head.get_all(name).map(|value| String::from_utf8_lossy(value).into_owned()).collect();
        values.join("|")
    }

    /// Client's address, `x-forwarded-for`, `x-forwarded-proto`.
    #[track_caller]
    fn check(edge: Edge, transport: Transport, fields: &[(&str, &str)], expect: [&str; 3]) {
        let mut head = mk_head(fields);
        let client = apply(edge, &mk_conn(transport), &mut head).unwrap();
        let [xff, proto] = ["x-forwarded-for", "x-forwarded-proto"].map(|name| get(&head, name));
        assert_eq!([client.ip().to_string().as_str(), &xff, &proto], expect, "{fields:?}");
        assert_eq!(head.scheme(), Some(proto.as_bytes()));
    }

    #[test]
    fn inside_the_mesh_the_client_is_believed() {
        let edge = Edge::Internal;
        check(edge, Transport::Raw, &[], ["10.0.0.1", "", "http"]);
        check(edge, Transport::Tls, &[], ["10.0.0.1", "", "https"]);
        check(
            edge,
            Transport::Raw,
            &[("x-forwarded-for", "1.1.1.1, 2.2.2.2")],
            ["2.2.2.2", "1.1.1.1, 2.2.2.2", "http"],
        );
        check(edge, Transport::Raw, &[("x-forwarded-for", "junk")], ["10.0.0.1", "junk", "http"]);
        check(edge, Transport::Raw, &[("x-forwarded-proto", "https")], ["10.0.0.1", "", "https"]);
    }

    #[test]
    fn at_the_edge_only_trusted_hops_are_believed() {
        let edge = |trusted_hops| Edge::Public { trusted_hops };
        let forged: &[_] = &[("x-forwarded-for", "1.1.1.1, 2.2.2.2"), ("x-forwarded-proto", "https")];
        check(edge(0), Transport::Raw, &[], ["10.0.0.1", "10.0.0.1", "http"]);
        check(edge(0), Transport::Raw, forged, ["10.0.0.1", "1.1.1.1, 2.2.2.2, 10.0.0.1", "http"]);
        check(edge(1), Transport::Raw, forged, ["2.2.2.2", "1.1.1.1, 2.2.2.2, 10.0.0.1", "https"]);
        check(edge(2), Transport::Raw, forged, ["1.1.1.1", "1.1.1.1, 2.2.2.2, 10.0.0.1", "https"]);
        check(edge(3), Transport::Raw, forged, ["10.0.0.1", "1.1.1.1, 2.2.2.2, 10.0.0.1", "https"]);
    }

    #[test]
    fn strangers_lose_internal_headers() {
        let fields = [("x-envoy-upstream-rq-timeout-ms", "1"), ("x-envoy-retry-on", "5xx"), ("x-mine", "1")];
        let mut head = mk_head(&fields);
        apply(Edge::Public { trusted_hops: 0 }, &mk_conn(Transport::Raw), &mut head).unwrap();
        let names: Vec<_> = head.iter().map(|field| String::from_utf8_lossy(field.name).into_owned()).collect();
        assert_eq!(names, ["x-mine", "x-forwarded-for", "x-forwarded-proto", "x-envoy-external-address"]);
        let mut head = mk_head(&fields);
        apply(Edge::Internal, &mk_conn(Transport::Raw), &mut head).unwrap();
        assert_eq!(get(&head, "x-envoy-retry-on"), "5xx");
    }

    #[test]
    fn client_certificates_are_told_on_only_over_mutual_tls() {
        use ForwardClientCert::{AlwaysForwardOnly, AppendForward, ForwardOnly, Sanitize, SanitizeSet};
        let details = CertDetails { subject: true, uri: true, dns: true, cert: false };
        let mut mutual = mk_conn(Transport::Tls);
        mutual.local_identity = Some(Str::from("spiffe://td/ns/a/sa/server"));
        mutual.peer = Some(Arc::new(Peer {
            uris: vec![Str::from("spiffe://td/ns/a/sa/client")],
            dns_names: vec![Str::from("c.a")],
            subject: Str::from("O=\"x\""),
            sha256: Str::from("ab12"),
            pem_url_encoded: Str::empty(),
        }));
        let hop = r#"By=spiffe://td/ns/a/sa/server;Hash=ab12;Subject="O=\"x\"";URI=spiffe://td/ns/a/sa/client;DNS=c.a"#;
        let plain = mk_conn(Transport::Raw);
        let check = |mode, conn: &ConnFacts, expect: &str| {
            let mut head = mk_head(&[("x-forwarded-client-cert", "By=old")]);
            client_cert(mode, conn, &mut head).unwrap();
            assert_eq!(get(&head, "x-forwarded-client-cert"), expect, "{mode:?}");
        };
        check(Sanitize, &mutual, "");
        check(ForwardOnly, &mutual, "By=old");
        check(ForwardOnly, &plain, "");
        check(AppendForward(details), &mutual, &format!("By=old, {hop}"));
        check(AppendForward(details), &plain, "");
        check(SanitizeSet(details), &mutual, hop);
        check(SanitizeSet(details), &plain, "");
        check(AlwaysForwardOnly, &plain, "By=old");
    }
}
