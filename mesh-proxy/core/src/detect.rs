//! Tells from the first bytes of a connection which protocol it speaks.
//!
//! The answer is never revised by later bytes and never guessed from a part: while two protocols are possible it is
//! [`Detection::NeedMore`]. What is not TLS, HTTP/1 or HTTP/2 beyond doubt is [`Detection::Opaque`] and passed through as
//! bytes; policies that need HTTP then fail closed. Called by the shell on every read until the answer is another one; how
//! long to wait is the shell's decision.

use crate::head::syntax::is_token_byte;

/// The client connection preface (RFC 9113 section 3.4).
pub const HTTP2_PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Bytes after which an unfinished request line counts as HTTP/1: the HTTP reader then refuses it by its own limits. No other
/// protocol starts with a method, a path and this much text without a line end.
pub const MAX_LINE_BYTES: usize = 8 << 10;
/// Longest method looked at; the longest registered one has 17 bytes (UPDATEREDIRECTREF).
const MAX_METHOD_BYTES: usize = 32;
/// Empty lines that an HTTP/1 client may send first, as [`crate::h1::head`] accepts.
const MAX_EMPTY_LINES: usize = 4;

/// What the bytes so far show.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Detection {
    /// A TLS ClientHello begins; see [`crate::hello`].
    Tls,
    /// An HTTP/1.1 request, or a malformed later 1.x that the reader will answer.
    Http1,
    /// An HTTP/1.0 request. Istio's sidecars pass it through as bytes unless told otherwise.
    Http10,
    /// HTTP/2 with prior knowledge.
    Http2,
    /// None of these.
    Opaque,
    /// Not decided yet.
    NeedMore,
}

/// Looks at all bytes received so far.
#[must_use]
pub fn detect(bytes: &[u8]) -> Detection {
    match bytes.first() {
        None => Detection::NeedMore,
        Some(0x16) => detect_tls(bytes),
        Some(_) if HTTP2_PREFACE.starts_with(bytes) => {
            if bytes.len() == HTTP2_PREFACE.len() {
                Detection::Http2
            } else {
                Detection::NeedMore
            }
        }
        Some(_) if bytes.starts_with(HTTP2_PREFACE) => Detection::Http2,
        Some(_) => detect_http1(bytes),
    }
}

/// A handshake record (RFC 8446 section 5.1) whose first message is a ClientHello: type 22, major version 3, a length that
/// is not zero and not above 2¹⁴, handshake type 1.
fn detect_tls(bytes: &[u8]) -> Detection {
    let field = |place: usize| bytes.get(place).copied();
    let good = field(1).is_none_or(|major| major == 3)
        && field(2).is_none_or(|minor| minor <= 4)
        && field(3).is_none_or(|high| high <= 0x40)
        && match (field(3), field(4)) {
            (Some(high), Some(low)) => (1..=1 << 14).contains(&u16::from_be_bytes([high, low])),
            _ => true,
        }
        && field(5).is_none_or(|kind| kind == 1);
    match (good, bytes.len()) {
        (false, _) => Detection::Opaque,
        (true, 6..) => Detection::Tls,
        (true, _) => Detection::NeedMore,
    }
}

/// `method SP target SP HTTP/1.x` up to its line end.
fn detect_http1(bytes: &[u8]) -> Detection {
    let mut rest = bytes;
    for _ in 0..MAX_EMPTY_LINES {
        match rest {
            [b'\r', b'\n', tail @ ..] => rest = tail,
            _ => break,
        }
    }
    if matches!(rest, [] | [b'\r']) {
        return Detection::NeedMore;
    }
    let method_len = rest.iter().take(MAX_METHOD_BYTES + 1).take_while(|byte| is_token_byte(**byte)).count();
    let target = match rest.get(method_len) {
        _ if method_len == 0 || method_len > MAX_METHOD_BYTES => return Detection::Opaque,
        None => return Detection::NeedMore,
        Some(b' ') => rest.get(method_len + 1..).unwrap_or_default(),
        Some(_) => return Detection::Opaque,
    };
    // A target has no blanks and no controls.
    let Some(end) = target.iter().position(|byte| *byte <= b' ' || *byte == 0x7f) else {
        return undecided(rest, target);
    };
    if end == 0 || target.get(end) != Some(&b' ') {
        return Detection::Opaque;
    }
    version(target.get(end + 1..).unwrap_or_default())
}

/// The target goes on: wait, unless it can only be HTTP any more.
fn undecided(line: &[u8], target: &[u8]) -> Detection {
    if line.len() < MAX_LINE_BYTES {
        return Detection::NeedMore;
    }
    let like_http = target.first() == Some(&b'/') || target.starts_with(b"http");
    if like_http { Detection::Http1 } else { Detection::Opaque }
}

/// What follows the second blank of a request line.
fn version(rest: &[u8]) -> Detection {
    const PREFIX: &[u8] = b"HTTP/1.";
    if rest.len() <= PREFIX.len() {
        return if PREFIX.starts_with(rest) { Detection::NeedMore } else { Detection::Opaque };
    }
    let (prefix, minor) = rest.split_at(PREFIX.len());
    match (prefix == PREFIX, minor) {
        (false, _) => Detection::Opaque,
        (true, [digit, ..]) if !digit.is_ascii_digit() => Detection::Opaque,
        (true, [_] | [_, b'\r']) => Detection::NeedMore,
        // A bare LF is for the HTTP reader to refuse: passing it on as bytes would bypass policy.
        (true, [b'0', b'\r', b'\n', ..] | [b'0', b'\n', ..]) => Detection::Http10,
        (true, [_, b'\r', b'\n', ..] | [_, b'\n', ..]) => Detection::Http1,
        (true, _) => Detection::Opaque,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// All of `bytes` gives `expect`, and no prefix gives anything but that or "need more".
    #[track_caller]
    fn check(bytes: &[u8], expect: Detection) {
        assert_eq!(detect(bytes), expect, "{}", bytes.escape_ascii());
        for end in 0..bytes.len() {
            let early = detect(&bytes[..end]);
            assert!(early == Detection::NeedMore || early == expect, "{}: {early:?}", bytes[..end].escape_ascii());
        }
    }

    #[test]
    fn http1() {
        for line in [
            "GET / HTTP/1.1\r\n",
            "GET /a?b=c HTTP/1.1\r\nHost: a\r\n\r\n",
            "POST http://a/b HTTP/1.1\r\n",
            "OPTIONS * HTTP/1.1\r\n",
            "CONNECT a:1 HTTP/1.1\r\n",
            "PROPFIND / HTTP/1.1\r\n",
            "get / HTTP/1.1\r\n",
            "PRI / HTTP/1.1\r\n",
            "PRI * HTTP/1.1\r\n",
            "\r\n\r\nGET / HTTP/1.1\r\n",
            "GET / HTTP/1.1\n",
            "GET / HTTP/1.2\r\n",
        ] {
            check(line.as_bytes(), Detection::Http1);
        }
        check(b"GET / HTTP/1.0\r\n", Detection::Http10);
        check(b"GET / HTTP/1.0\n", Detection::Http10);
    }

    #[test]
    fn http2() {
        check(HTTP2_PREFACE, Detection::Http2);
        check(&[HTTP2_PREFACE, &b"\0\0\0\x04\0\0\0\0\0"[..]].concat(), Detection::Http2);
        check(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\r", Detection::Opaque);
        check(b"PRI * HTTP/2.0\r\nHost: a\r\n", Detection::Opaque);
    }

    #[test]
    fn tls() {
        check(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", Detection::Tls);
        check(b"\x16\x03\x03\x40\x00\x01", Detection::Tls);
        check(b"\x16\x03\x01\x00\x01\x01", Detection::Tls);
        check(b"\x16\x03\x01\x02\x00\x02", Detection::Opaque);
        check(b"\x16\x03\x01\x00\x00\x01", Detection::Opaque);
        check(b"\x16\x03\x01\x40\x01\x01", Detection::Opaque);
        check(b"\x16\x02\x01\x02\x00\x01", Detection::Opaque);
        check(b"\x16\x03\x05", Detection::Opaque);
        check(b"\x17\x03\x03\x02\x00\x01", Detection::Opaque);
    }

    /// First bytes of protocols that are none of ours, client side.
    #[test]
    fn other_protocols_are_opaque() {
        let rows: [&[u8]; 24] = [
            b"SSH-2.0-OpenSSH_9.6\r\n",
            b"EHLO mail.example\r\n",
            b"USER anonymous\r\n",
            b"*1\r\n$4\r\nPING\r\n",
            b"PING\r\n",
            b"set key 0 60 5\r\nhello\r\n",
            b"\x00\x00\x00\x08\x04\xd2\x16\x2f",
            b"\x00\x00\x00\x54\x00\x03\x00\x00user\0",
            b"\x3f\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\xd4\x07",
            b"AMQP\x00\x00\x09\x01",
            b"\x10\x10\x00\x04MQTT\x04",
            b"\x04\x00\x00\x00\x05\x00",
            b"\x05\x01\x00",
            b"\x80\x2e\x01\x00\x02",
            b"INVITE sip:bob@b.example SIP/2.0\r\n",
            b"OPTIONS rtsp://a/b RTSP/1.0\r\n",
            b"CONNECT\naccept-version:1.2\n\n\0",
            b"PROXY TCP4 1.1.1.1 2.2.2.2 1 2\r\nGET / HTTP/1.1\r\n",
            b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x0c",
            b"GET /\r\n",
            b"GET / HTTP/3.0\r\n",
            b"GET / HTTP/1.x\r\n",
            b"GET / HTTP/1.11\r\n",
            b"CONNECT {\"verbose\":false}\r\nPING\r\n",
        ];
        for bytes in rows {
            check(bytes, Detection::Opaque);
        }
    }

    #[test]
    fn nothing_is_not_an_answer() {
        for bytes in [
            &b""[..],
            b"\r",
            b"\r\n",
            b"\r\n\r\n",
            b"G",
            b"GET",
            b"GET ",
            b"GET /",
            b"GET / ",
            b"GET / HTTP/1.1\r",
            b"P",
        ] {
            assert_eq!(detect(bytes), Detection::NeedMore, "{}", bytes.escape_ascii());
        }
        assert_eq!(detect(b"\r\n\r\n\r\n\r\n\r\n"), Detection::Opaque);
    }

    #[test]
    fn long_lines_are_decided_at_the_bound() {
        let path = format!("GET /{}", "a".repeat(MAX_LINE_BYTES));
        assert_eq!(detect(&path.as_bytes()[..MAX_LINE_BYTES - 1]), Detection::NeedMore);
        assert_eq!(detect(path.as_bytes()), Detection::Http1);
        assert_eq!(detect(format!("get {}", "a".repeat(MAX_LINE_BYTES)).as_bytes()), Detection::Opaque);
        assert_eq!(detect(&[b'A'; 33]), Detection::Opaque);
        assert_eq!(detect(&[b'A'; 32]), Detection::NeedMore);
    }

    proptest! {
        /// Once decided, more bytes do not change the answer; and nothing panics.
        #[test]
        fn answers_are_final(
            start in prop::sample::select(vec![&b""[..], b"\x16\x03", b"GET ", b"GET / HTTP/1.", b"PRI * HTTP/2.0\r\n\r\n", b"\r\n", b"A"]),
            noise in prop::collection::vec(prop_oneof![any::<u8>(), prop::sample::select(b"\r\n /HTP1.0".to_vec())], 0..60),
        ) {
            let bytes = [start, &noise].concat();
            let mut answer = Detection::NeedMore;
            for end in 0..=bytes.len() {
                let now = detect(&bytes[..end]);
                prop_assert!(answer == Detection::NeedMore || answer == now, "{answer:?} became {now:?}");
                answer = now;
            }
        }
    }
}
