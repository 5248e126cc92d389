//! Writes heads, chunks and trailers (RFC 9112). Everything is appended to the caller's buffer; nothing is allocated but by
//! its growth.

use super::Framing;
use crate::head::known::KnownName;
use crate::head::{Head, Method};

/// The interim response that lets a waiting client send its body.
pub const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";
/// End of a chunk's data.
pub const CHUNK_END: &[u8] = b"\r\n";

/// What the written head says about the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Connection {
    /// Nothing: HTTP/1.1 connections persist.
    Persist,
    /// `keep-alive`, for an HTTP/1.0 client that asked for it.
    KeepAlive,
    /// `close`.
    Close,
    /// `upgrade`; the head has the `upgrade` field.
    Upgrade,
}

/// Appends a request head. `content-length` and `transfer-encoding` are written from `framing`, whatever the head holds;
/// `connection` from `connection`. The authority becomes the target of CONNECT. A missing `host` is written empty, as
/// RFC 9112 section 3.2 demands.
pub fn request(head: &Head, framing: Framing, connection: Connection, out: &mut Vec<u8>) {
    out.extend_from_slice(head.method_text());
    out.push(b' ');
    if head.method() == Method::Connect {
        out.extend_from_slice(head.authority());
    } else if head.target().is_empty() {
        out.push(b'/');
    } else {
        out.extend_from_slice(head.target());
    }
    out.extend_from_slice(b" HTTP/1.1\r\n");
    if !head.contains(KnownName::Host) {
        out.extend_from_slice(b"host:\r\n");
    }
    let framing = match framing {
        // A request has no way to end with the connection.
        Framing::UntilClose => Framing::Chunked,
        framing => framing,
    };
    fields(head, framing, connection, framing == Framing::None, out);
}

/// Appends a response head; rules as for [`request`]. With [`Framing::None`] a `content-length` stays as information, in
/// answers to HEAD and in 304, but not in 1xx and 204, where it is forbidden (RFC 9110 section 8.6).
pub fn response(head: &Head, framing: Framing, connection: Connection, out: &mut Vec<u8>) {
    let status = head.status();
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(head.get(KnownName::PseudoStatus).unwrap_or(b"500"));
    out.push(b' ');
    match head.reason() {
        b"" => out.extend_from_slice(reason_phrase(status).as_bytes()),
        reason => out.extend_from_slice(reason),
    }
    out.extend_from_slice(b"\r\n");
    let drop_length = framing == Framing::None && matches!(status, 100..=199 | 204);
    fields(head, framing, connection, drop_length, out);
}

/// Framing to use towards a receiver that may not understand chunks.
#[must_use]
pub fn framing_for(version: crate::head::Version, framing: Framing) -> Framing {
    match (version, framing) {
        (crate::head::Version::Http10, Framing::Chunked) => Framing::UntilClose,
        (_, framing) => framing,
    }
}

/// Appends the size line of a chunk. An empty chunk would end the body, so nothing is written for one.
pub fn chunk_start(len: usize, out: &mut Vec<u8>) {
    if len > 0 {
        let digits = (usize::BITS - len.leading_zeros()).div_ceil(4);
        for place in (0..digits).rev() {
            let nibble = u8::try_from((len >> (place * 4)) & 0xf).unwrap_or_default();
            out.push(if nibble < 10 { b'0' + nibble } else { b'a' + nibble - 10 });
        }
        out.extend_from_slice(b"\r\n");
    }
}

/// Appends `data` as one chunk; nothing when it is empty.
pub fn chunk(data: &[u8], out: &mut Vec<u8>) {
    if !data.is_empty() {
        chunk_start(data.len(), out);
        out.extend_from_slice(data);
        out.extend_from_slice(CHUNK_END);
    }
}

/// Appends the last chunk and the trailers. Fields that may not be trailers (RFC 9110 section 6.5.1) are left out.
pub fn last_chunk(trailers: Option<&Head>, out: &mut Vec<u8>) {
    out.extend_from_slice(b"0\r\n");
    if let Some(trailers) = trailers {
        trailers.write_lines(out, |known| {
            matches!(
                known,
                Some(
                    KnownName::Host
                        | KnownName::ContentLength
                        | KnownName::TransferEncoding
                        | KnownName::Connection
                        | KnownName::Te
                        | KnownName::Trailer
                        | KnownName::Upgrade
                )
            )
        });
    }
    out.extend_from_slice(b"\r\n");
}

/// Appends `value` in decimal digits.
pub fn decimal(value: u64, out: &mut Vec<u8>) {
    let mut digits = [0u8; 20];
    let mut start = digits.len();
    let mut rest = value;
    for slot in digits.iter_mut().rev() {
        *slot = b'0' + u8::try_from(rest % 10).unwrap_or_default();
        rest /= 10;
        start -= 1;
        if rest == 0 {
            break;
        }
    }
    out.extend_from_slice(digits.get(start..).unwrap_or_default());
}

fn fields(head: &Head, framing: Framing, connection: Connection, drop_length: bool, out: &mut Vec<u8>) {
    // The length as received can stay where it is when it says the same: the usual case, and one run less to break.
    let keep_length = match framing {
        Framing::None => !drop_length,
        Framing::Length(length) => says_length(head, length),
        Framing::Chunked | Framing::UntilClose => false,
    };
    head.write_lines(out, |known| match known {
        Some(KnownName::ContentLength) => !keep_length,
        Some(KnownName::TransferEncoding | KnownName::Connection) => true,
        _ => false,
    });
    match framing {
        Framing::Length(length) if !keep_length => {
            out.extend_from_slice(b"content-length: ");
            decimal(length, out);
            out.extend_from_slice(b"\r\n");
        }
        Framing::Chunked => out.extend_from_slice(b"transfer-encoding: chunked\r\n"),
        Framing::None | Framing::Length(_) | Framing::UntilClose => {}
    }
    let connection = if framing == Framing::UntilClose { Connection::Close } else { connection };
    out.extend_from_slice(match connection {
        Connection::Persist => b"",
        Connection::KeepAlive => b"connection: keep-alive\r\n",
        Connection::Close => b"connection: close\r\n",
        Connection::Upgrade => b"connection: upgrade\r\n",
    });
    out.extend_from_slice(b"\r\n");
}

/// Whether the head has exactly one `content-length`, and it is `length` in its shortest form.
fn says_length(head: &Head, length: u64) -> bool {
    let mut values = head.get_all(KnownName::ContentLength);
    let (Some(text), None) = (values.next(), values.next()) else { return false };
    let plain = text.len() == 1 || text.first() != Some(&b'0');
    plain && std::str::from_utf8(text).ok().and_then(|text| text.parse().ok()) == Some(length)
}

/// Reason phrase for a status code (RFC 9110 section 15 and the IANA registry); empty for others.
#[must_use]
pub fn reason_phrase(status: u16) -> &'static str {
    match status {
        100 => "Continue",
        101 => "Switching Protocols",
        103 => "Early Hints",
        200 => "OK",
        201 => "Created",
        202 => "Accepted",
        203 => "Non-Authoritative Information",
        204 => "No Content",
        205 => "Reset Content",
        206 => "Partial Content",
        207 => "Multi-Status",
        300 => "Multiple Choices",
        301 => "Moved Permanently",
        302 => "Found",
        303 => "See Other",
        304 => "Not Modified",
        307 => "Temporary Redirect",
        308 => "Permanent Redirect",
        400 => "Bad Request",
        401 => "Unauthorized",
        402 => "Payment Required",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        406 => "Not Acceptable",
        407 => "Proxy Authentication Required",
        408 => "Request Timeout",
        409 => "Conflict",
        410 => "Gone",
        411 => "Length Required",
        412 => "Precondition Failed",
        413 => "Content Too Large",
        414 => "URI Too Long",
        415 => "Unsupported Media Type",
        416 => "Range Not Satisfiable",
        417 => "Expectation Failed",
        421 => "Misdirected Request",
        422 => "Unprocessable Content",
        423 => "Locked",
        424 => "Failed Dependency",
        425 => "Too Early",
        426 => "Upgrade Required",
        428 => "Precondition Required",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        451 => "Unavailable For Legal Reasons",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        507 => "Insufficient Storage",
        508 => "Loop Detected",
        511 => "Network Authentication Required",
        _ => "",
    }
}
