//! What bytes may stand in a method, a field name, a field value, an authority and a request target.
//!
//! Every way into a [`Head`](super::Head) passes one of these, so what a head holds can be written to any wire as it is.

/// Whether `byte` is a `tchar` (RFC 9110 section 5.6.2).
#[must_use]
pub const fn is_token_byte(byte: u8) -> bool {
    matches!(byte, b'!' | b'#'..=b'\'' | b'*' | b'+' | b'-' | b'.' | b'0'..=b'9' | b'A'..=b'Z' | b'^'..=b'z' | b'|' | b'~')
}

/// Whether `text` is a non-empty token: a method or a field name.
#[must_use]
pub fn is_token(text: &[u8]) -> bool {
    !text.is_empty() && text.iter().all(|byte| is_token_byte(*byte))
}

/// Whether `value` is a field value (RFC 9110 section 5.5): visible bytes, obs-text, and blanks only inside.
#[must_use]
pub fn is_field_value(value: &[u8]) -> bool {
    let blank = |byte: Option<&u8>| matches!(byte, Some(b' ' | b'\t'));
    if blank(value.first()) || blank(value.last()) {
        return false;
    }
    // No early exit, so that the compiler can compare many bytes at a time.
    value.iter().fold(true, |good, byte| good & (((*byte >= b' ') & (*byte != 0x7f)) | (*byte == b'\t')))
}

/// Whether `text` can stand in a request line as a target: no blanks, no controls, no fragment.
///
/// Bytes above 0x7f are let through, as other proxies do: clients send unescaped UTF-8 and servers understand it.
#[must_use]
pub fn is_target(text: &[u8]) -> bool {
    !text.is_empty() && text.iter().fold(true, |good, byte| good & (*byte > b' ') & (*byte != 0x7f) & (*byte != b'#'))
}

/// Whether `text` is `uri-host [":" port]` (RFC 9110 section 7.2), or empty, which a URI without authority gives.
///
/// Stricter than the grammar in one point: a comma is refused, because it is what a merged second Host field looks like.
#[must_use]
pub fn is_authority(text: &[u8]) -> bool {
    let (host, port) = match text.first() {
        Some(b'[') => {
            let Some(end) = memchr::memchr(b']', text) else { return false };
            let (host, rest) = text.split_at(end + 1);
            let inner = host.get(1..end).unwrap_or_default();
            if inner.is_empty() || !inner.iter().all(|byte| byte.is_ascii_hexdigit() || matches!(byte, b':' | b'.')) {
                return false;
            }
            match rest.split_first() {
                None => return true,
                Some((b':', port)) => (host, port),
                Some(_) => return false,
            }
        }
        _ => match memchr::memchr(b':', text) {
            None => (text, &[][..]),
            Some(colon) => {
                let (host, rest) = text.split_at(colon);
                if host.is_empty() {
                    return false;
                }
                (host, rest.get(1..).unwrap_or_default())
            }
        },
    };
    let bracketed = host.first() == Some(&b'[');
    (bracketed || host.iter().all(|byte| is_reg_name_byte(*byte)))
        && port.len() <= 5
        && port.iter().all(u8::is_ascii_digit)
}

/// Unreserved, percent sign and sub-delims without the comma (RFC 3986 section 3.2.2).
const fn is_reg_name_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(
            byte,
            b'-' | b'.' | b'_' | b'~' | b'%' | b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b';' | b'='
        )
}

/// Whether `text` is a URI scheme (RFC 3986 section 3.1).
#[must_use]
pub fn is_scheme(text: &[u8]) -> bool {
    text.first().is_some_and(u8::is_ascii_alphabetic)
        && text.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.'))
}

/// Splits an authority into host and port. An IPv6 literal keeps its brackets; a missing, empty or too large port is `None`.
#[must_use]
pub fn split_port(authority: &[u8]) -> (&[u8], Option<u16>) {
    let colon = match memchr::memrchr(b':', authority) {
        Some(colon) if !authority.get(colon..).unwrap_or_default().contains(&b']') => colon,
        _ => return (authority, None),
    };
    let (host, rest) = authority.split_at(colon);
    let port = rest.get(1..).and_then(|digits| std::str::from_utf8(digits).ok()).and_then(|digits| digits.parse().ok());
    (host, port)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn token_bytes_are_those_of_the_rfc() {
        let rfc = b"!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
        for byte in 0..=255u8 {
            assert_eq!(is_token_byte(byte), rfc.contains(&byte), "{byte:#x}");
        }
        assert!(!is_token(b""));
    }

    #[test]
    fn values_have_no_controls_and_no_outer_blanks() {
        for good in [&b""[..], b"a", b"a b", b"a\tb", b"\xff\x80", b"~"] {
            assert!(is_field_value(good), "{good:?}");
        }
        for bad in [&b" a"[..], b"a ", b"\ta", b"a\rb", b"a\nb", b"a\0b", b"\x7f", b"\x1b", b" "] {
            assert!(!is_field_value(bad), "{bad:?}");
        }
    }

    #[test]
    fn authorities() {
        for good in ["", "a", "a.b:80", "a.b:", "[::1]", "[::1]:8080", "10.0.0.1:1", "a_b", "*.x"] {
            assert!(is_authority(good.as_bytes()), "{good}");
        }
        for bad in [
            "a b",
            "u@h",
            "a/b",
            "a,b",
            ":80",
            "a:80:90",
            "a:8x",
            "[::1",
            "::1",
            "[]",
            "[x]",
            "[fe80::1%25eth0]",
            "a:123456",
            "a#",
            "a?b",
            "é",
        ] {
            assert!(!is_authority(bad.as_bytes()), "{bad}");
        }
    }

    #[test]
    fn ports() {
        let check = |text: &str, host: &str, port| assert_eq!(split_port(text.as_bytes()), (host.as_bytes(), port));
        check("a", "a", None);
        check("a:80", "a", Some(80));
        check("a:", "a", None);
        check("a:99999", "a", None);
        check("[::1]", "[::1]", None);
        check("[::1]:443", "[::1]", Some(443));
    }
}
