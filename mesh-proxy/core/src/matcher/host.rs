//! Which virtual host takes a request: exact name, longest suffix wildcard, longest prefix wildcard, `*`.
//!
//! envoyproxy/envoy: `source/common/router/config_impl.cc` (`RouteMatcher::findVirtualHost`). A wildcard stands for at
//! least one character.

use hashbrown::HashMap;

/// A domain pattern of a virtual host, by kind. Lower-case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Domain<'a> {
    /// This name.
    Exact(&'a str),
    /// `*` and this.
    Suffix(&'a str),
    /// This and `*`.
    Prefix(&'a str),
    /// `*`.
    Any,
}

impl<'a> Domain<'a> {
    /// Reads a domain; `None` when `*` stands anywhere but at one end.
    #[must_use]
    pub fn parse(text: &'a str) -> Option<Self> {
        let domain = match (text.strip_prefix('*'), text.strip_suffix('*')) {
            (Some(""), _) => return Some(Self::Any),
            (Some(suffix), None) => Self::Suffix(suffix),
            (None, Some(prefix)) => Self::Prefix(prefix),
            (None, None) => Self::Exact(text),
            (Some(_), Some(_)) => return None,
        };
        match domain {
            Self::Exact(inner) | Self::Suffix(inner) | Self::Prefix(inner)
                if inner.contains('*') || inner.is_empty() =>
            {
                None
            }
            other => Some(other),
        }
    }

    /// Whether `host`, in lower case, is covered.
    #[must_use]
    pub fn covers(self, host: &[u8]) -> bool {
        match self {
            Self::Exact(name) => host == name.as_bytes(),
            Self::Suffix(suffix) => host.len() > suffix.len() && host.ends_with(suffix.as_bytes()),
            Self::Prefix(prefix) => host.len() > prefix.len() && host.starts_with(prefix.as_bytes()),
            Self::Any => true,
        }
    }

    /// Order of precedence: the greatest covering domain wins.
    #[must_use]
    pub fn rank(self) -> (u8, usize) {
        match self {
            Self::Exact(_) => (3, 0),
            Self::Suffix(suffix) => (2, suffix.len()),
            Self::Prefix(prefix) => (1, prefix.len()),
            Self::Any => (0, 0),
        }
    }
}

/// Domains by text, each with the position of its virtual host.
#[derive(Clone, Debug, Default)]
pub struct HostIndex {
    exact: HashMap<Box<[u8]>, u32>,
    suffixes: Wildcards,
    prefixes: Wildcards,
    any: Option<u32>,
}

#[derive(Clone, Debug, Default)]
struct Wildcards {
    /// Lengths that occur, longest first.
    lengths: Vec<usize>,
    texts: HashMap<Box<[u8]>, u32>,
}

impl HostIndex {
    /// An empty index with room for so many names.
    #[must_use]
    pub fn with_capacity(names: usize) -> Self {
        Self { exact: HashMap::with_capacity(names), ..Self::default() }
    }

    /// Adds a domain; false when it is there already.
    pub fn add(&mut self, domain: Domain<'_>, position: u32) -> bool {
        match domain {
            Domain::Exact(name) => self.exact.try_insert(name.as_bytes().into(), position).is_ok(),
            Domain::Suffix(suffix) => self.suffixes.add(suffix, position),
            Domain::Prefix(prefix) => self.prefixes.add(prefix, position),
            Domain::Any => {
                let free = self.any.is_none();
                self.any.get_or_insert(position);
                free
            }
        }
    }

    /// Position of the virtual host of `host`, in lower case.
    #[must_use]
    pub fn find(&self, host: &[u8]) -> Option<u32> {
        let exact = self.exact.get(host).copied();
        exact
            .or_else(|| self.suffixes.find(host, |length| host.len().checked_sub(length).and_then(|at| host.get(at..))))
            .or_else(|| self.prefixes.find(host, |length| host.get(..length)))
            .or(self.any)
    }
}

impl Wildcards {
    fn add(&mut self, text: &str, position: u32) -> bool {
        if self.texts.try_insert(text.as_bytes().into(), position).is_err() {
            return false;
        }
        if let Err(at) = self.lengths.binary_search_by(|length| text.len().cmp(length)) {
            self.lengths.insert(at, text.len());
        }
        true
    }

    fn find<'a>(&self, host: &[u8], part: impl Fn(usize) -> Option<&'a [u8]>) -> Option<u32> {
        let shorter = self.lengths.iter().filter(|&&length| length < host.len());
        shorter.filter_map(|&length| part(length)).find_map(|text| self.texts.get(text).copied())
    }
}

/// `host` without its port: digits after the last `:` that is not inside an IPv6 literal's brackets.
#[must_use]
pub fn without_port(host: &[u8]) -> &[u8] {
    let Some(colon) = memchr::memrchr(b':', host) else { return host };
    let (name, port) = (host.get(..colon).unwrap_or_default(), host.get(colon + 1..).unwrap_or_default());
    let bare_v6 = memchr::memchr(b':', name).is_some() && !name.ends_with(b"]");
    if bare_v6 || port.is_empty() || !port.iter().all(u8::is_ascii_digit) { host } else { name }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn domains_are_read_by_kind() {
        let check = |text, expect| assert_eq!(Domain::parse(text), expect, "{text}");
        check("*", Some(Domain::Any));
        check("a.b", Some(Domain::Exact("a.b")));
        check("*.b", Some(Domain::Suffix(".b")));
        check("*-x.b", Some(Domain::Suffix("-x.b")));
        check("a.*", Some(Domain::Prefix("a.")));
        for bad in ["", "a*b", "**", "*a*", "*.*"] {
            check(bad, None);
        }
    }

    #[test]
    fn ports_are_told_from_ipv6() {
        let check = |host: &str, expect: &str| assert_eq!(without_port(host.as_bytes()), expect.as_bytes(), "{host}");
        check("a.b:80", "a.b");
        check("a.b", "a.b");
        check("a.b:", "a.b:");
        check("a.b:x", "a.b:x");
        check("[::1]:80", "[::1]");
        check("[::1]", "[::1]");
        check("::1", "::1");
        check(":80", "");
    }

    fn any_domain() -> impl Strategy<Value = String> {
        prop_oneof![Just("*".to_owned()), "[ab]{1,3}", r"\*[.ab]{1,3}", r"[.ab]{1,3}\*"]
    }

    proptest! {
        #[test]
        fn index_agrees_with_ranks(domains in prop::collection::vec(any_domain(), 0..12), host in "[.ab]{0,5}") {
            let mut index = HostIndex::default();
            for (position, domain) in (0..).zip(&domains) {
                let first = domains.iter().position(|other| other == domain) == usize::try_from(position).ok();
                prop_assert_eq!(index.add(Domain::parse(domain).unwrap(), position), first);
            }
            let covering = domains.iter().map(|text| Domain::parse(text).unwrap()).enumerate().filter(|(_, d)| d.covers(host.as_bytes()));
            // Of equal ones the first counts.
            let expect = covering.rev().max_by_key(|(_, domain)| domain.rank()).map(|(at, _)| domains.iter().position(|d| *d == domains[at]).unwrap());
            prop_assert_eq!(index.find(host.as_bytes()).map(|at| at as usize), expect);
        }
    }
}
