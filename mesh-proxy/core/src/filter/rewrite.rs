//! Rewriting of path and authority before a request is forwarded.

use mesh_api_xds::ir::route::PathRewrite;
use smallvec::SmallVec;

use crate::head::known::KnownName;
use crate::head::{FieldError, Head};
use crate::matcher::path::PathTest;
use crate::matcher::pattern::Substitution;
use crate::rejected::Reason;

/// A compiled [`PathRewrite`].
#[derive(Clone, Debug)]
pub enum PathRule {
    /// None.
    Keep,
    /// The first bytes of the path, as many as the route's condition names, become this.
    Prefix {
        /// Bytes replaced.
        matched: usize,
        /// What they become.
        with: Box<[u8]>,
    },
    /// Every match becomes the substitution.
    Regex(Box<Substitution>),
}

impl PathRule {
    /// Compiles the rewrite of a route with this path condition.
    ///
    /// # Errors
    /// For a bad pattern, or a prefix rewrite where no prefix is known.
    pub fn compile(rewrite: &PathRewrite, path: &PathTest) -> Result<Self, Reason> {
        Ok(match rewrite {
            PathRewrite::Keep => Self::Keep,
            PathRewrite::Prefix(_) if path.is_regex() => return Err(Reason::PrefixOfRegex),
            PathRewrite::Prefix(with) => Self::Prefix { matched: path.matched_len(), with: with.as_bytes().into() },
            PathRewrite::Regex { pattern, substitution } => {
                Self::Regex(Box::new(Substitution::compile(pattern, substitution)?))
            }
        })
    }

    /// Rewrites the path; the query stays. The path as it was goes to `x-envoy-original-path`, which access logs print.
    ///
    /// # Errors
    /// [`FieldError`] when the result is no request target or the head outgrows its bound; the head is unchanged then.
    pub fn apply(&self, head: &mut Head) -> Result<(), FieldError> {
        let mut target = SmallVec::<[u8; 256]>::new();
        match self {
            Self::Keep => return Ok(()),
            Self::Prefix { matched, with } => {
                target.extend_from_slice(with);
                target.extend_from_slice(head.target().get(*matched..).unwrap_or_default());
            }
            Self::Regex(substitution) => {
                target.extend_from_slice(&substitution.apply(head.path()));
                if let Some(query) = head.query() {
                    target.push(b'?');
                    target.extend_from_slice(query);
                }
            }
        }
        if target.first() != Some(&b'/') {
            target.insert(0, b'/');
        }
        let original = SmallVec::<[u8; 256]>::from_slice(head.target());
        head.set_target(&target)?;
        head.set(KnownName::XEnvoyOriginalPath, &original)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mesh_api::text::Str;
    use mesh_api_xds::ir::route::PathMatch;

    #[track_caller]
    fn check(path: PathMatch, rewrite: PathRewrite, target: &str, expect: &str) {
        let path = PathTest::compile(&path, true).unwrap();
        let mut head = Head::request();
        head.set_target(target.as_bytes()).unwrap();
        PathRule::compile(&rewrite, &path).unwrap().apply(&mut head).unwrap();
        assert_eq!(String::from_utf8_lossy(head.target()), expect, "{rewrite:?} {target}");
        assert_eq!(head.get("x-envoy-original-path"), Some(target.as_bytes()));
    }

    #[test]
    fn prefixes_and_patterns_are_replaced_and_queries_kept() {
        let prefix = |text: &str| PathMatch::Prefix(Str::from(text));
        let to = |text: &str| PathRewrite::Prefix(Str::from(text));
        check(prefix("/foo"), to("/bar"), "/foo/x?q=1", "/bar/x?q=1");
        check(prefix("/foo"), to("/bar"), "/foobar", "/barbar");
        check(prefix("/foo/"), to("/"), "/foo/x", "/x");
        check(prefix("/foo"), to("/"), "/foo/x", "//x");
        check(prefix("/foo"), to(""), "/foo", "/");
        check(PathMatch::Exact(Str::from("/a")), to("/b"), "/a?x", "/b?x");
        let regex = |pattern: &str, substitution: &str| PathRewrite::Regex {
            pattern: Str::from(pattern),
            substitution: Str::from(substitution),
        };
        check(
            prefix("/"),
            regex("^/service/([^/]+)(/.*)$", r"\2/instance/\1"),
            "/service/foo/v1?a=/service/x",
            "/v1/instance/foo?a=/service/x",
        );
        check(prefix("/"), regex("one", "two"), "/one/one", "/two/two");
    }

    #[test]
    fn a_prefix_of_a_pattern_is_refused() {
        let path = PathTest::compile(&PathMatch::Regex(Str::from("/a.*")), true).unwrap();
        let refused = PathRule::compile(&PathRewrite::Prefix(Str::from("/b")), &path);
        assert_eq!(refused.unwrap_err(), Reason::PrefixOfRegex);
    }
}
