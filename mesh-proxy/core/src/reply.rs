//! The answer that the proxy gives itself: the only mapping from a [`Fault`] to status, gRPC status, text and flags.

pub mod page;

use std::borrow::Cow;

use crate::fault::{Body, Code, Fault, FaultKind};
use crate::flags::Flags;
use crate::h1::encode;
use crate::head::known::KnownName;
use crate::head::{FieldError, Head, Kind};

/// A local reply, ready to be written by any codec and to be logged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalReply {
    /// HTTP status; 200 to gRPC clients. 0 when no answer can be given: end the stream or connection.
    pub status: u16,
    /// gRPC status, to gRPC clients.
    pub grpc_status: Option<u8>,
    /// Fields besides `content-length`.
    pub headers: Vec<(KnownName, Cow<'static, str>)>,
    /// Body; empty to gRPC clients, whose text is in `grpc-message`.
    pub body: Cow<'static, str>,
    /// Response flags for log and metrics.
    pub flags: Flags,
    /// Stable code.
    pub code: Code,
    /// `%RESPONSE_CODE_DETAILS%`, without blanks.
    pub details: Cow<'static, str>,
}

/// Makes the answer to `fault`.
///
/// Bodies and details are Envoy's, because users search for them. gRPC clients get an HTTP 200 with trailers only, and the
/// status that Envoy derives from the HTTP status (`source/common/grpc/status.cc`).
#[must_use]
pub fn reply_for(fault: &Fault, is_grpc: bool) -> LocalReply {
    let meaning = fault.meaning();
    let status = fault.status.unwrap_or(meaning.status);
    let text = body_of(fault);
    let mut headers = Vec::with_capacity(5);
    if status != 0 {
        headers.push((KnownName::XMeshCode, Cow::Owned(fault.code().to_string())));
        match fault.kind {
            FaultKind::UpstreamOverflow | FaultKind::Overloaded => {
                headers.push((KnownName::XEnvoyOverloaded, Cow::Borrowed("true")));
            }
            FaultKind::RateLimitedGlobally => {
                headers.push((KnownName::XEnvoyRateLimited, Cow::Borrowed("true")));
            }
            FaultKind::TokenMissing => {
                headers.push((KnownName::WwwAuthenticate, Cow::Borrowed("Bearer")));
            }
            FaultKind::TokenInvalid => {
                headers.push((KnownName::WwwAuthenticate, Cow::Borrowed("Bearer error=\"invalid_token\"")));
            }
            _ => {}
        }
    }
    let grpc = is_grpc && status != 0;
    let grpc_status = grpc.then(|| fault.grpc_status.unwrap_or_else(|| grpc_status_of(status)));
    let body = match grpc_status {
        Some(grpc_status) => {
            headers.push((KnownName::ContentType, Cow::Borrowed("application/grpc")));
            headers.push((KnownName::GrpcStatus, Cow::Owned(grpc_status.to_string())));
            if !text.is_empty() {
                headers.push((KnownName::GrpcMessage, percent_encode(text)));
            }
            Cow::Borrowed("")
        }
        None if status == 0 => Cow::Borrowed(""),
        None => {
            if !text.is_empty() {
                headers.push((KnownName::ContentType, Cow::Borrowed("text/plain")));
            }
            text
        }
    };
    LocalReply {
        status: if grpc { 200 } else { status },
        grpc_status,
        headers,
        body,
        flags: fault.flags(),
        code: fault.code(),
        details: details_of(fault),
    }
}

impl LocalReply {
    /// Writes status and fields into `head`, with the length of the body.
    ///
    /// # Errors
    /// [`FieldError`] when the status is 0 or not a status, so that no head can be written.
    pub fn write_head(&self, head: &mut Head) -> Result<(), FieldError> {
        head.reset(Kind::Response);
        head.set_status(self.status)?;
        // RFC 9110 section 8.6; gRPC answers are trailers only and have no length (gRPC over HTTP/2, Responses).
        if self.grpc_status.is_none() && !matches!(self.status, 100..=199 | 204) {
            let mut length = Vec::with_capacity(20);
            encode::decimal(self.body.len() as u64, &mut length);
            head.append(KnownName::ContentLength, &length)?;
        }
        self.headers.iter().try_for_each(|(name, value)| head.append(*name, value.as_bytes()))
    }
}

fn body_of(fault: &Fault) -> Cow<'static, str> {
    let reason = match fault.meaning().body {
        Body::Text(text) => return Cow::Borrowed(text),
        Body::Reset(reason) => reason,
    };
    let lead = if fault.retried { "retried and the latest reset reason" } else { "reset reason" };
    let mut text = format!("upstream connect error or disconnect/reset before headers. {lead}: {reason}");
    if let Some(detail) = &fault.detail {
        text.push_str(", transport failure reason: ");
        text.push_str(detail);
    }
    Cow::Owned(text)
}

/// Details with their particular, in Envoy's punctuation. Blanks become underscores, so that a log line can be split.
fn details_of(fault: &Fault) -> Cow<'static, str> {
    let meaning = fault.meaning();
    let detail = fault.detail.as_deref();
    let text = match (fault.kind, meaning.body, detail) {
        (FaultKind::AccessDenied, _, detail) => format!("{}[{}]", meaning.details, detail.unwrap_or("none")),
        (_, Body::Reset(reason), None) => format!("{}{{{reason}}}", meaning.details),
        (_, Body::Reset(reason), Some(detail)) => format!("{}{{{reason}|{detail}}}", meaning.details),
        (_, Body::Text(_), None) => return Cow::Borrowed(meaning.details),
        (_, Body::Text(_), Some(detail)) => format!("{}{{{detail}}}", meaning.details),
    };
    Cow::Owned(text.split_whitespace().collect::<Vec<_>>().join("_"))
}

/// gRPC status for an HTTP status, as Envoy has it (gRPC's own list, with 429 added).
#[must_use]
pub const fn grpc_status_of(status: u16) -> u8 {
    match status {
        // INTERNAL
        400 => 13,
        // UNAUTHENTICATED
        401 => 16,
        // PERMISSION_DENIED
        403 => 7,
        // UNIMPLEMENTED
        404 => 12,
        // UNAVAILABLE
        429 | 502 | 503 | 504 => 14,
        // UNKNOWN
        _ => 2,
    }
}

/// Percent-encoding of `grpc-message` (gRPC over HTTP/2): visible ASCII but `%` stands for itself.
fn percent_encode(text: Cow<'static, str>) -> Cow<'static, str> {
    if text.bytes().all(|byte| matches!(byte, b' '..=b'~') && byte != b'%') {
        return text;
    }
    let mut out = String::with_capacity(text.len() + 16);
    for byte in text.bytes() {
        if matches!(byte, b' '..=b'~') && byte != b'%' {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    Cow::Owned(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(fault: Fault, status: u16, body: &str, flags: &str, details: &str) {
        let reply = reply_for(&fault, false);
        assert_eq!(
            (reply.status, &*reply.body, reply.flags.to_string().as_str(), &*reply.details),
            (status, body, flags, details)
        );
        assert_eq!(reply.grpc_status, None);
    }

    /// Texts that users search for.
    #[test]
    fn answers_have_envoys_words() {
        let lead = "upstream connect error or disconnect/reset before headers.";
        check(FaultKind::NoHealthyUpstream.into(), 503, "no healthy upstream", "UH", "no_healthy_upstream");
        check(FaultKind::NoRoute.into(), 404, "", "NR", "route_not_found");
        check(FaultKind::ResponseTimeout.into(), 504, "upstream request timeout", "UT", "response_timeout");
        check(
            Fault::new(FaultKind::ConnectFailed).with_detail("delayed connect error: Connection refused"),
            503,
            &format!(
                "{lead} reset reason: remote connection failure, transport failure reason: delayed connect error: Connection refused"
            ),
            "UF",
            "upstream_reset_before_response_started{remote_connection_failure|delayed_connect_error:_Connection_refused}",
        );
        check(
            Fault { retried: true, exhausted: true, ..Fault::new(FaultKind::UpstreamClosed) },
            503,
            &format!("{lead} retried and the latest reset reason: connection termination"),
            "UC,URX",
            "upstream_reset_before_response_started{connection_termination}",
        );
        check(
            Fault::new(FaultKind::AccessDenied).with_detail("ns[shop]-policy[deny all]-rule[0]"),
            403,
            "RBAC: access denied",
            "-",
            "rbac_access_denied_matched_policy[ns[shop]-policy[deny_all]-rule[0]]",
        );
        check(
            FaultKind::AccessDenied.into(),
            403,
            "RBAC: access denied",
            "-",
            "rbac_access_denied_matched_policy[none]",
        );
        check(
            Fault::new(FaultKind::AbortInjected).with_status(418),
            418,
            "fault filter abort",
            "FI",
            "fault_filter_abort",
        );
        check(FaultKind::ClientClosed.into(), 0, "", "DC", "downstream_remote_disconnect");
    }

    #[test]
    fn grpc_clients_get_trailers_only() {
        let reply = reply_for(&Fault::new(FaultKind::UpstreamOverflow), true);
        assert_eq!((reply.status, reply.grpc_status, &*reply.body), (200, Some(14), ""));
        let mut head = Head::response();
        reply.write_head(&mut head).unwrap();
        let lines: Vec<_> = head.iter().map(|field| [field.name, b"=", field.value].concat()).collect();
        let lines: Vec<_> = lines.iter().map(|line| std::str::from_utf8(line).unwrap()).collect();
        assert_eq!(
            lines,
            [
                "x-mesh-code=LTN-3006",
                "x-envoy-overloaded=true",
                "content-type=application/grpc",
                "grpc-status=14",
                "grpc-message=upstream connect error or disconnect/reset before headers. reset reason: overflow",
            ]
        );
        let injected = reply_for(&Fault::new(FaultKind::AbortInjected).with_grpc_status(8), true);
        assert_eq!((injected.status, injected.grpc_status), (200, Some(8)));
        let plain = reply_for(&Fault::new(FaultKind::AbortInjected).with_grpc_status(8), false);
        assert_eq!((plain.status, plain.grpc_status, &*plain.body), (200, None, "fault filter abort"));
    }

    #[test]
    fn messages_are_percent_encoded() {
        let encode = |text: &'static str| percent_encode(Cow::Borrowed(text)).into_owned();
        assert_eq!(encode("plain text"), "plain text");
        assert_eq!(encode("50% é\n"), "50%25 %C3%A9%0A");
    }

    #[test]
    fn plain_answers_have_a_length() {
        let mut head = Head::response();
        reply_for(&FaultKind::NoRoute.into(), false).write_head(&mut head).unwrap();
        assert_eq!((head.status(), head.get("content-length"), head.get("content-type")), (404, Some(&b"0"[..]), None));
        reply_for(&FaultKind::NoHealthyUpstream.into(), false).write_head(&mut head).unwrap();
        assert_eq!(
            (head.get("content-length"), head.get("content-type")),
            (Some(&b"19"[..]), Some(&b"text/plain"[..]))
        );
        assert_eq!(reply_for(&FaultKind::ClientClosed.into(), false).write_head(&mut head), Err(FieldError::Value));
    }

    /// Every kind gives an answer that a codec can write, to both sorts of clients, or none at all.
    #[test]
    fn every_kind_has_an_answer() {
        let mut head = Head::response();
        for kind in FaultKind::ALL {
            for is_grpc in [false, true] {
                let reply = reply_for(&Fault::new(*kind).with_detail("a reason"), is_grpc);
                assert_eq!(reply.write_head(&mut head).is_ok(), reply.status != 0, "{kind:?}");
                assert_eq!(reply.grpc_status.is_some(), is_grpc && reply.status != 0, "{kind:?}");
                assert!(!reply.details.contains(char::is_whitespace), "{kind:?}");
                if reply.status != 0 {
                    assert_eq!(head.get("x-mesh-code"), Some(kind.code().to_string().as_bytes()), "{kind:?}");
                    assert!(reply.body.is_empty() || !is_grpc, "{kind:?}");
                }
            }
        }
    }
}
