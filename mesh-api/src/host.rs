//! Host names with Istio's prefix wildcards: matching, subset, specificity, short names.
//!
//! A wildcard host is `*` followed by any suffix and stands for every name that ends in that suffix: `*.shop.io`
//! covers `a.shop.io` and `a.b.shop.io`, but not `shop.io`. The rules are those of istio/istio: pkg/config/host/name.go.

use std::{borrow::Borrow, cmp::Ordering, fmt, net::IpAddr};

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};

use crate::text::Str;

/// A host name in lower case: exact (`web.shop.svc.cluster.local`), wildcard (`*.shop.io`) or everything (`*`).
///
/// Ordering and equality are those of the text; see [`Hostname::by_specificity`] for the order of precedence.
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, JsonSchema)]
#[serde(transparent)]
#[schemars(transparent)]
pub struct Hostname(Str);

/// Why a text is not a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HostError {
    /// Nothing there.
    #[error("is empty")]
    Empty,
    /// RFC 1035 section 2.3.4: 253 characters of text.
    #[error("is longer than 253 characters")]
    TooLong,
    /// RFC 1035 section 2.3.4: a label is 1 to 63 characters.
    #[error("has an empty label or one longer than 63 characters")]
    Label,
    /// A label holds something else than letters, digits, `-` and `_`, or starts or ends with `-`.
    #[error("holds a character that a DNS name cannot hold")]
    Character,
    /// `*` elsewhere than in front.
    #[error("has a '*' that is not in front")]
    Wildcard,
}

impl Hostname {
    /// Takes any text and lower-cases it. Nothing is checked: use [`Self::parse`] for text that a user wrote.
    #[must_use]
    pub fn new(text: &str) -> Self {
        if text.bytes().any(|b| b.is_ascii_uppercase()) {
            Self(Str::from(text.to_ascii_lowercase()))
        } else {
            Self(Str::from(text))
        }
    }

    /// Checks and lower-cases a host: a DNS name, an IP address, or a wildcard: `*`, `*.shop.io`, also `*-eu.shop.io`.
    ///
    /// # Errors
    /// Says which rule the text breaks.
    pub fn parse(text: &str) -> Result<Self, HostError> {
        if text.is_empty() {
            return Err(HostError::Empty);
        }
        if text.parse::<IpAddr>().is_ok() || text == "*" {
            return Ok(Self::new(text));
        }
        let name = match text.strip_prefix('*') {
            Some(suffix) => suffix.strip_prefix(['.', '-']).unwrap_or(suffix),
            None => text,
        };
        if name.contains('*') {
            return Err(HostError::Wildcard);
        }
        check_dns_name(name)?;
        Ok(Self::new(text))
    }

    /// Like Istio's short names: a host without a dot becomes `<host>.<namespace>.svc.<domain>`; `*`, wildcards and
    /// names with a dot stay as they are.
    #[must_use]
    pub fn expand(host: &str, namespace: &str, domain: &str) -> Self {
        if host.is_empty() || host.contains(['.', '*', ':']) {
            Self::new(host)
        } else {
            Self::new(&format!("{host}.{namespace}.svc.{domain}"))
        }
    }

    /// The host as plain text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The shared text.
    #[must_use]
    pub fn text(&self) -> &Str {
        &self.0
    }

    /// Whether it starts with `*`.
    #[must_use]
    pub fn is_wildcard(&self) -> bool {
        self.suffix().is_some()
    }

    /// What follows the `*` of a wildcard.
    fn suffix(&self) -> Option<&str> {
        self.0.strip_prefix('*')
    }

    /// Whether some concrete name is covered by both. Symmetrical.
    #[must_use]
    pub fn matches(&self, other: &Self) -> bool {
        match (self.suffix(), other.suffix()) {
            (Some(a), Some(b)) => a.ends_with(b) || b.ends_with(a),
            (Some(a), None) => other.0.ends_with(a),
            (None, Some(b)) => self.0.ends_with(b),
            (None, None) => self == other,
        }
    }

    /// Whether every concrete name covered by `self` is covered by `other`.
    #[must_use]
    pub fn subset_of(&self, other: &Self) -> bool {
        match (self.suffix(), other.suffix()) {
            (Some(a), Some(b)) => a.ends_with(b),
            (Some(_), None) => false,
            (None, Some(b)) => self.0.ends_with(b),
            (None, None) => self == other,
        }
    }

    /// The order of precedence: exact before wildcard, longer before shorter, then by text.
    /// The least element is the most specific.
    #[must_use]
    pub fn by_specificity(a: &Self, b: &Self) -> Ordering {
        (a.is_wildcard(), b.0.len(), &a.0).cmp(&(b.is_wildcard(), a.0.len(), &b.0))
    }

    /// The most specific of `candidates` that covers all of `self`.
    pub fn most_specific<'a>(&self, candidates: impl IntoIterator<Item = &'a Self>) -> Option<&'a Self> {
        candidates.into_iter().filter(|c| self.subset_of(c)).min_by(|a, b| Self::by_specificity(a, b))
    }
}

impl<'de> Deserialize<'de> for Hostname {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self::new(&Str::deserialize(deserializer)?))
    }
}

impl fmt::Display for Hostname {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Debug for Hostname {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl Borrow<str> for Hostname {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl AsRef<str> for Hostname {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl From<&str> for Hostname {
    fn from(text: &str) -> Self {
        Self::new(text)
    }
}

impl PartialEq<str> for Hostname {
    fn eq(&self, other: &str) -> bool {
        self.0 == *other
    }
}

impl PartialEq<&str> for Hostname {
    fn eq(&self, other: &&str) -> bool {
        self.0 == **other
    }
}

/// A DNS name without wildcard; one trailing dot is allowed. Underscores are, too: real service names have them.
///
/// # Errors
/// Says which rule the text breaks.
pub fn check_dns_name(name: &str) -> Result<(), HostError> {
    if name.is_empty() {
        return Err(HostError::Empty);
    }
    let name = name.strip_suffix('.').unwrap_or(name);
    if name.len() > 253 {
        return Err(HostError::TooLong);
    }
    for label in name.split('.') {
        if label.is_empty() || label.len() > 63 {
            return Err(HostError::Label);
        }
        let legal = label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
        if !legal || label.starts_with('-') || label.ends_with('-') {
            return Err(HostError::Character);
        }
    }
    Ok(())
}

/// A DNS label by RFC 1123: lower-case letters, digits and inner `-`, 1 to 63 characters. Kubernetes names namespaces,
/// services and ports so; Istio also its subsets.
#[must_use]
pub fn is_dns_label(text: &str) -> bool {
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    (1..=63).contains(&text.len()) && text.bytes().all(inner) && !text.starts_with('-') && !text.ends_with('-')
}

#[cfg(test)]
mod tests {
    use super::{HostError, Hostname, is_dns_label};
    use proptest::prelude::*;
    use std::cmp::Ordering;

    #[test]
    fn matching_follows_istio() {
        #[track_caller]
        fn check(a: &str, b: &str, matches: bool, subset: bool) {
            let (a, b) = (Hostname::new(a), Hostname::new(b));
            assert_eq!(a.matches(&b), matches, "{a} matches {b}");
            assert_eq!(b.matches(&a), matches, "{b} matches {a}");
            assert_eq!(a.subset_of(&b), subset, "{a} subset of {b}");
        }
        check("foo.com", "foo.com", true, true);
        check("Foo.COM", "foo.com", true, true);
        check("foo.com", "bar.com", false, false);
        check("a.foo.com", "*.foo.com", true, true);
        check("a.b.foo.com", "*.foo.com", true, true);
        check("foo.com", "*.foo.com", false, false);
        check("*.foo.com", "a.foo.com", true, false);
        check("*.foo.com", "*.com", true, true);
        check("*.com", "*.foo.com", true, false);
        check("*.foo.com", "*.bar.com", false, false);
        check("*", "*.bar.com", true, false);
        check("x", "*", true, true);
        check("*", "*", true, true);
    }

    #[test]
    fn parse_names_the_broken_rule() {
        let long = "a".repeat(64);
        let longer = ["a".repeat(63), "b".repeat(63), "c".repeat(63), "d".repeat(63)].join(".");
        for (text, expect) in [
            ("", HostError::Empty),
            ("a..b", HostError::Label),
            (long.as_str(), HostError::Label),
            (longer.as_str(), HostError::TooLong),
            ("a b", HostError::Character),
            ("-a.b", HostError::Character),
            ("a.*.b", HostError::Wildcard),
            ("**", HostError::Wildcard),
            ("a:80", HostError::Character),
            ("*.", HostError::Empty),
            ("*-", HostError::Empty),
            ("*..a", HostError::Label),
            ("**.a", HostError::Wildcard),
        ] {
            assert_eq!(Hostname::parse(text), Err(expect), "{text}");
        }
        for text in ["*", "*.a", "*a.b", "*-a", "a", "a.b.", "10.0.0.1", "::1", "under_score.io"] {
            assert!(Hostname::parse(text).is_ok(), "{text}");
        }
    }

    #[test]
    fn short_names_expand() {
        #[track_caller]
        fn check(host: &str, expect: &str) {
            assert_eq!(Hostname::expand(host, "shop", "cluster.local"), expect);
        }
        check("web", "web.shop.svc.cluster.local");
        check("Web", "web.shop.svc.cluster.local");
        check("web.prod", "web.prod");
        check("*", "*");
        check("*.io", "*.io");
    }

    #[test]
    fn dns_labels() {
        for (text, expect) in [("v1", true), ("a-b", true), ("", false), ("-a", false), ("A", false), ("a.b", false)] {
            assert_eq!(is_dns_label(text), expect, "{text}");
        }
    }

    /// All names over a tiny alphabet up to a length: enough to tell any two of the generated hosts apart.
    fn universe() -> Vec<String> {
        let mut names = vec![String::new()];
        let mut last = names.clone();
        for _ in 0..7 {
            last = last.iter().flat_map(|n| ['a', '.'].map(|c| format!("{n}{c}"))).collect();
            names.extend(last.iter().cloned());
        }
        names
    }

    fn covers(host: &Hostname, name: &str) -> bool {
        match host.as_str().strip_prefix('*') {
            Some(suffix) => name.ends_with(suffix),
            None => host.as_str() == name,
        }
    }

    fn any_host() -> impl Strategy<Value = Hostname> {
        r"\*?[a.]{0,4}".prop_map(|text| Hostname::new(&text))
    }

    proptest! {
        /// The oracle enumerates concrete names; no rule about suffixes is used.
        #[test]
        fn matches_and_subset_are_set_operations(a in any_host(), b in any_host()) {
            let universe = universe();
            let both = universe.iter().any(|n| covers(&a, n) && covers(&b, n));
            let within = universe.iter().all(|n| !covers(&a, n) || covers(&b, n));
            prop_assert_eq!(a.matches(&b), both);
            prop_assert_eq!(a.subset_of(&b), within);
        }

        #[test]
        fn specificity_is_a_total_order_that_respects_subsets(a in any_host(), b in any_host(), c in any_host()) {
            let order = Hostname::by_specificity;
            prop_assert_eq!(order(&a, &b), order(&b, &a).reverse());
            prop_assert_eq!(order(&a, &b) == Ordering::Equal, a == b);
            if order(&a, &b).is_le() && order(&b, &c).is_le() {
                prop_assert!(order(&a, &c).is_le());
            }
            if a != b && a.subset_of(&b) {
                prop_assert_eq!(order(&a, &b), Ordering::Less);
            }
        }

        #[test]
        fn most_specific_is_the_first_in_sorted_order(needle in any_host(), mut all in proptest::collection::vec(any_host(), 0..6)) {
            let found = needle.most_specific(&all).cloned();
            all.sort_by(Hostname::by_specificity);
            prop_assert_eq!(found, all.into_iter().find(|h| needle.subset_of(h)));
        }

        #[test]
        fn parse_never_panics(text in "\\PC{0,40}") {
            let _ = Hostname::parse(&text);
        }
    }
}
