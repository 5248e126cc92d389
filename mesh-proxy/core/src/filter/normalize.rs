//! Path normalisation before routing and authorization, so that both see the path that the upstream will see.
//!
//! Order as in Envoy (`ConnectionManagerUtility::maybeNormalizePath`): escaped slashes, then RFC 3986 section 6.2.2, then
//! adjacent slashes. A path that has nothing to normalise is recognised by one scan and left untouched.

use mesh_api_xds::ir::http::{EscapedSlashes, PathPolicy};
use smallvec::SmallVec;

use super::{Answer, Flow, Reply};
use crate::fault::{Fault, FaultKind};
use crate::head::known::KnownName;
use crate::head::{FieldError, Head};

type Path = SmallVec<[u8; 256]>;

/// Normalises the path of a request.
///
/// # Errors
/// [`FieldError`] when the head outgrows its bound.
pub fn normalize(policy: &PathPolicy, head: &mut Head) -> Result<Flow, FieldError> {
    let path = head.path();
    if path.first() != Some(&b'/') || !may_change(path) {
        return Ok(Flow::Continue);
    }
    let mut path = Path::from_slice(path);
    let mut redirect = false;
    if has_escaped_slash(&path) {
        match policy.escaped_slashes {
            EscapedSlashes::Keep => {}
            EscapedSlashes::Reject => return Ok(refusal()),
            EscapedSlashes::UnescapeAndForward => path = unescape_slashes(&path),
            EscapedSlashes::UnescapeAndRedirect => {
                path = unescape_slashes(&path);
                redirect = true;
            }
        }
    }
    if policy.normalize {
        let Some(canonical) = canonical(&path) else { return Ok(refusal()) };
        path = canonical;
    }
    if policy.merge_slashes {
        path.dedup_by(|next, previous| *next == b'/' && *previous == b'/');
    }
    if path[..] == *head.path() {
        return Ok(Flow::Continue);
    }
    path.extend_from_slice(head.target().get(head.path().len()..).unwrap_or_default());
    if redirect {
        let answer = Answer::new(307, "path_normalization_failed").with(KnownName::Location, path.to_vec());
        return Ok(answer.into_flow());
    }
    head.set_target(&path)?;
    Ok(Flow::Continue)
}

fn refusal() -> Flow {
    Flow::Reply(Box::new(Reply::Fault(Fault::new(FaultKind::InvalidPath))))
}

/// Whether any rule could change the path.
fn may_change(path: &[u8]) -> bool {
    let mut previous = 0;
    path.iter().any(|&byte| {
        let after_slash = previous == b'/' && matches!(byte, b'/' | b'.');
        previous = byte;
        after_slash || matches!(byte, b'%' | b'\\')
    })
}

fn has_escaped_slash(path: &[u8]) -> bool {
    path.windows(3).any(|three| unescape_slash(three).is_some())
}

fn unescape_slash(three: &[u8]) -> Option<u8> {
    match three {
        [b'%', b'2', b'f' | b'F'] => Some(b'/'),
        [b'%', b'5', b'c' | b'C'] => Some(b'\\'),
        _ => None,
    }
}

fn unescape_slashes(path: &[u8]) -> Path {
    let mut out = Path::with_capacity(path.len());
    let mut rest = path;
    while let Some((&first, after)) = rest.split_first() {
        match rest.get(..3).and_then(unescape_slash) {
            Some(slash) => {
                out.push(slash);
                rest = rest.get(3..).unwrap_or_default();
            }
            None => {
                out.push(first);
                rest = after;
            }
        }
    }
    out
}

/// RFC 3986 section 6.2.2: percent-encodings in upper case, unreserved characters decoded, dot segments removed. A
/// backslash is a slash, as browsers and Envoy have it. `None` for an encoded NUL; other broken encodings pass as they are.
fn canonical(path: &[u8]) -> Option<Path> {
    let mut decoded = Path::with_capacity(path.len());
    let mut rest = path;
    while let Some((&first, after)) = rest.split_first() {
        rest = after;
        match (first, after) {
            (b'\\', _) => decoded.push(b'/'),
            (b'%', [high, low, tail @ ..]) if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => {
                match hex(*high) << 4 | hex(*low) {
                    0 => return None,
                    byte if is_unreserved(byte) => decoded.push(byte),
                    _ => decoded.extend_from_slice(&[b'%', high.to_ascii_uppercase(), low.to_ascii_uppercase()]),
                }
                rest = tail;
            }
            _ => decoded.push(first),
        }
    }
    Some(without_dot_segments(&decoded))
}

fn without_dot_segments(path: &[u8]) -> Path {
    let mut out = Path::with_capacity(path.len());
    let mut segments = path.split(|byte| *byte == b'/').skip(1).peekable();
    while let Some(segment) = segments.next() {
        let last = segments.peek().is_none();
        match segment {
            b"." => {}
            b".." => {
                let parent = out.iter().rposition(|byte| *byte == b'/').unwrap_or(0);
                out.truncate(parent);
            }
            name => {
                out.push(b'/');
                out.extend_from_slice(name);
                continue;
            }
        }
        // `/a/.` and `/a/..` name a folder.
        if last {
            out.push(b'/');
        }
    }
    if out.is_empty() {
        out.push(b'/');
    }
    out
}

const fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

const fn hex(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        b'a'..=b'f' => digit - b'a' + 10,
        _ => digit.wrapping_sub(b'A').wrapping_add(10) & 0xF,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NONE: PathPolicy =
        PathPolicy { normalize: false, merge_slashes: false, escaped_slashes: EscapedSlashes::Keep };
    const BASE: PathPolicy = PathPolicy { normalize: true, ..NONE };
    const MERGE: PathPolicy = PathPolicy { merge_slashes: true, ..BASE };
    const DECODE: PathPolicy = PathPolicy { escaped_slashes: EscapedSlashes::UnescapeAndForward, ..MERGE };

    fn mk_head(target: &str) -> Head {
        let mut head = Head::request();
        head.set_target(target.as_bytes()).unwrap();
        head
    }

    #[track_caller]
    fn check(policy: PathPolicy, target: &str, expect: &str) {
        let mut head = mk_head(target);
        assert_eq!(normalize(&policy, &mut head), Ok(Flow::Continue), "{target}");
        assert_eq!(String::from_utf8_lossy(head.target()), expect, "{target}");
    }

    /// Istio's table, `MeshConfig.pathNormalization`.
    #[test]
    fn each_level_does_what_istio_says() {
        check(NONE, "/a/../b//c%2fd\\e", "/a/../b//c%2fd\\e");
        check(BASE, "/a/../b", "/b");
        check(BASE, "/a\\b", "/a/b");
        check(BASE, "/a//b%2fc", "/a//b%2Fc");
        check(MERGE, "/a//b///c%2fd", "/a/b/c%2Fd");
        check(DECODE, "/a%2fb%5c%5Cc", "/a/b/c");
        check(DECODE, "/a%2F..%2fb", "/b");
    }

    #[test]
    fn dot_segments_go_and_queries_stay() {
        for (path, expect) in [
            ("/", "/"),
            ("/.", "/"),
            ("/..", "/"),
            ("/../../a", "/a"),
            ("/a/.", "/a/"),
            ("/a/..", "/"),
            ("/a/b/..", "/a/"),
            ("/a/b/../", "/a/"),
            ("/a/./b", "/a/b"),
            ("/a/...", "/a/..."),
            ("/a/.b", "/a/.b"),
            ("/a/%2e%2E/b", "/b"),
            ("/%61dmin", "/admin"),
            ("/a%7e%20%zz%", "/a~%20%zz%"),
            ("/a/../b?x=/../y", "/b?x=/../y"),
            ("/a//../b", "/a/b"),
        ] {
            check(BASE, path, expect);
        }
    }

    #[test]
    fn escaped_slashes_can_be_refused_or_redirected() {
        let with = |escaped_slashes| PathPolicy { escaped_slashes, ..BASE };
        let outcome = |policy: PathPolicy, target: &str| normalize(&policy, &mut mk_head(target)).unwrap();
        assert_eq!(outcome(with(EscapedSlashes::Reject), "/a%2Fb"), refusal());
        assert_eq!(outcome(with(EscapedSlashes::Reject), "/a/b"), Flow::Continue);
        let Flow::Reply(reply) = outcome(with(EscapedSlashes::UnescapeAndRedirect), "/a%2fb?q") else { panic!() };
        let Reply::Answer(answer) = *reply else { panic!() };
        assert_eq!((answer.status, &*answer.headers[0].1), (307, &b"/a/b?q"[..]));
        assert_eq!(outcome(BASE, "/a%00b"), refusal());
    }

    #[test]
    fn what_is_no_path_is_left_alone() {
        let mut star = mk_head("*");
        assert_eq!(normalize(&DECODE, &mut star), Ok(Flow::Continue));
        assert_eq!(star.target(), b"*");
    }

    proptest! {
        /// Once is enough, and no dot segment is left for the upstream to understand otherwise.
        #[test]
        fn normal_paths_are_normal(target in "/([./\\\\a]|%2[eEfF]|%5c|%41){0,12}") {
            let mut head = mk_head(&target);
            prop_assert_eq!(normalize(&DECODE, &mut head).unwrap(), Flow::Continue);
            let once = head.target().to_vec();
            prop_assert_eq!(normalize(&DECODE, &mut head).unwrap(), Flow::Continue);
            prop_assert_eq!(&once, &head.target().to_vec());
            let segments: Vec<&[u8]> = once.split(|byte| *byte == b'/').collect();
            prop_assert!(!segments.contains(&&b"."[..]) && !segments.contains(&&b".."[..]));
            prop_assert!(!once.contains(&b'\\') && !once.windows(2).any(|two| two == b"//"));
        }
    }
}
