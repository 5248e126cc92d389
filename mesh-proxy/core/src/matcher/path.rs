//! Tests on the path, and an index that proposes which of many may pass.

use mesh_api_xds::ir::route::PathMatch;
use smallvec::SmallVec;

use super::pattern::Pattern;
use crate::rejected::BadPattern;

/// A compiled path condition.
#[derive(Clone, Debug)]
pub struct PathTest {
    kind: Kind,
    case_sensitive: bool,
}

#[derive(Clone, Debug)]
enum Kind {
    Prefix(Box<[u8]>),
    SeparatedPrefix(Box<[u8]>),
    Exact(Box<[u8]>),
    Regex(Box<Pattern>),
}

impl PathTest {
    /// Compiles a condition.
    ///
    /// # Errors
    /// Only a regular expression can be wrong.
    pub fn compile(path: &PathMatch, case_sensitive: bool) -> Result<Self, BadPattern> {
        let text = |text: &str| text.as_bytes().into();
        let kind = match path {
            PathMatch::Prefix(prefix) => Kind::Prefix(text(prefix)),
            PathMatch::SeparatedPrefix(prefix) => Kind::SeparatedPrefix(text(prefix)),
            PathMatch::Exact(path) => Kind::Exact(text(path)),
            PathMatch::Regex(pattern) => Kind::Regex(Box::new(Pattern::compile(pattern)?)),
        };
        Ok(Self { kind, case_sensitive })
    }

    /// Whether `path`, without its query, passes.
    #[must_use]
    pub fn matches(&self, path: &[u8]) -> bool {
        match &self.kind {
            Kind::Prefix(prefix) => self.starts(path, prefix),
            Kind::SeparatedPrefix(prefix) => {
                self.starts(path, prefix) && matches!(path.get(prefix.len()), None | Some(b'/'))
            }
            Kind::Exact(exact) => path.len() == exact.len() && self.starts(path, exact),
            Kind::Regex(pattern) => pattern.matches(path),
        }
    }

    /// How much of a matching path the condition names: what a prefix rewrite replaces. All of it for an exact path,
    /// nothing for a regular expression.
    #[must_use]
    pub fn matched_len(&self) -> usize {
        match &self.kind {
            Kind::Prefix(text) | Kind::SeparatedPrefix(text) | Kind::Exact(text) => text.len(),
            Kind::Regex(_) => 0,
        }
    }

    /// Whether the condition is a regular expression.
    #[must_use]
    pub const fn is_regex(&self) -> bool {
        matches!(self.kind, Kind::Regex(_))
    }

    fn starts(&self, path: &[u8], prefix: &[u8]) -> bool {
        path.get(..prefix.len())
            .is_some_and(|head| if self.case_sensitive { head == prefix } else { head.eq_ignore_ascii_case(prefix) })
    }
}

/// Proposes positions of conditions that may pass a path, in order and without gaps: every one that does pass is proposed.
#[derive(Clone, Debug, Default)]
pub struct PathIndex {
    sensitive: Trie,
    /// Over lower-cased texts.
    folded: Trie,
    /// Regular expressions: always proposed.
    always: Box<[u32]>,
}

/// Lists of proposed positions, each ascending.
pub(crate) type Proposals<'a> = SmallVec<[&'a [u32]; PROPOSALS]>;

/// Nested prefixes on one path that are followed without allocating: more than real configurations have.
const PROPOSALS: usize = 24;

/// A radix tree over bytes, in flat arrays.
#[derive(Clone, Debug)]
struct Trie {
    nodes: Box<[Node]>,
    labels: Box<[u8]>,
}

#[derive(Clone, Debug, Default)]
struct Node {
    /// Bytes from the parent to here, in `labels`.
    label: (u32, u32),
    /// Children in `nodes`, ordered by first byte of their labels.
    children: (u32, u32),
    here: Terminals,
}

/// Positions of conditions whose text ends at a node.
#[derive(Clone, Debug, Default)]
struct Terminals {
    prefix: Box<[u32]>,
    separated: Box<[u32]>,
    exact: Box<[u32]>,
}

impl PathIndex {
    /// Indexes conditions by their position.
    pub fn new<'a>(tests: impl Iterator<Item = &'a PathTest>) -> Self {
        let (mut sensitive, mut folded, mut always) = (Vec::new(), Vec::new(), Vec::new());
        for (position, test) in (0..).zip(tests) {
            let (Kind::Prefix(text) | Kind::SeparatedPrefix(text) | Kind::Exact(text)) = &test.kind else {
                always.push(position);
                continue;
            };
            if test.case_sensitive {
                sensitive.push((text.to_vec(), &test.kind, position));
            } else {
                folded.push((text.to_ascii_lowercase(), &test.kind, position));
            }
        }
        Self { sensitive: Trie::new(sensitive), folded: Trie::new(folded), always: always.into() }
    }

    /// The positions to try for `path`, ascending.
    pub fn candidates<'a>(&'a self, path: &[u8]) -> impl Iterator<Item = u32> + 'a {
        let mut lists = Proposals::new();
        self.sensitive.walk(path, |byte| byte, &mut lists);
        self.folded.walk(path, |byte| byte.to_ascii_lowercase(), &mut lists);
        if !self.always.is_empty() {
            lists.push(&self.always);
        }
        Merge { lists }
    }
}

/// Merges ascending lists of distinct numbers. The lists are few, so the least head is found by looking at all.
struct Merge<'a> {
    lists: Proposals<'a>,
}

impl Iterator for Merge<'_> {
    type Item = u32;

    fn next(&mut self) -> Option<u32> {
        let least = self.lists.iter_mut().filter(|list| !list.is_empty()).min_by_key(|list| list.first().copied())?;
        let (first, rest) = least.split_first()?;
        let first = *first;
        *least = rest;
        Some(first)
    }
}

impl Default for Trie {
    fn default() -> Self {
        Self { nodes: Box::new([Node::default()]), labels: Box::default() }
    }
}

impl Trie {
    fn new(mut texts: Vec<(Vec<u8>, &Kind, u32)>) -> Self {
        if texts.is_empty() {
            return Self::default();
        }
        // By text, then by position: equal texts stand together with ascending positions.
        texts.sort_by(|a, b| (&a.0, a.2).cmp(&(&b.0, b.2)));
        let mut labels = Vec::new();
        let mut nodes = vec![Node::default()];
        // Breadth first, so that the children of a node are neighbours. Each entry: node, its texts, bytes consumed.
        let mut todo = std::collections::VecDeque::from([(0_usize, 0..texts.len(), 0_usize)]);
        while let Some((node, range, depth)) = todo.pop_front() {
            let Some(texts) = texts.get(range.clone()) else { continue };
            let ending = texts.iter().take_while(|(text, ..)| text.len() == depth).count();
            let here = Terminals::new(texts.iter().take(ending));
            let first_child = nodes.len();
            let mut start = ending;
            while let Some((text, ..)) = texts.get(start) {
                let byte = text.get(depth);
                let count = texts.iter().skip(start).take_while(|(other, ..)| other.get(depth) == byte).count();
                let last = texts.get(start + count - 1).map_or(&[][..], |(text, ..)| text);
                // Sorted: what the first and the last have in common, all have.
                let common = text.iter().zip(last).skip(depth).take_while(|(a, b)| a == b).count();
                let label = (narrow(labels.len()), narrow(common));
                labels.extend(text.iter().skip(depth).take(common));
                todo.push_back((nodes.len(), range.start + start..range.start + start + count, depth + common));
                nodes.push(Node { label, ..Node::default() });
                start += count;
            }
            let children = (narrow(first_child), narrow(nodes.len() - first_child));
            if let Some(node) = nodes.get_mut(node) {
                node.children = children;
                node.here = here;
            }
        }
        Self { nodes: nodes.into(), labels: labels.into() }
    }

    /// Collects the lists of all texts that may pass `path`, whose bytes are compared after `fold`.
    fn walk<'a>(&'a self, path: &[u8], fold: impl Fn(u8) -> u8 + Copy, lists: &mut Proposals<'a>) {
        let mut rest = path;
        let mut node = self.nodes.first();
        while let Some(here) = node {
            here.here.propose(rest.first().copied(), lists);
            let Some(&next) = rest.first() else { return };
            let children = slice(&self.nodes, here.children);
            let byte = fold(next);
            let first = |child: &Node| slice(&self.labels, child.label).first().copied();
            node =
                children.binary_search_by(|child| first(child).cmp(&Some(byte))).ok().and_then(|at| children.get(at));
            let Some(child) = node else { return };
            let label = slice(&self.labels, child.label);
            let Some((head, tail)) = rest.split_at_checked(label.len()) else { return };
            if !head.iter().zip(label).all(|(byte, expected)| fold(*byte) == *expected) {
                return;
            }
            rest = tail;
        }
    }
}

impl Terminals {
    fn new<'a>(texts: impl Iterator<Item = &'a (Vec<u8>, &'a Kind, u32)> + Clone) -> Self {
        let positions = |wanted: fn(&Kind) -> bool| {
            texts.clone().filter(|(_, kind, _)| wanted(kind)).map(|(_, _, position)| *position).collect()
        };
        Self {
            prefix: positions(|kind| matches!(kind, Kind::Prefix(_))),
            separated: positions(|kind| matches!(kind, Kind::SeparatedPrefix(_))),
            exact: positions(|kind| matches!(kind, Kind::Exact(_))),
        }
    }

    /// Adds what passes when the path goes on with `next`.
    fn propose<'a>(&'a self, next: Option<u8>, lists: &mut Proposals<'a>) {
        let separated = matches!(next, None | Some(b'/'));
        for (list, passes) in [(&self.prefix, true), (&self.separated, separated), (&self.exact, next.is_none())] {
            if passes && !list.is_empty() {
                lists.push(list);
            }
        }
    }
}

fn slice<T>(all: &[T], (start, len): (u32, u32)) -> &[T] {
    let start = start as usize;
    all.get(start..start + len as usize).unwrap_or_default()
}

/// Offsets fit 32 bits: a message that carries routes is far smaller than 4 GiB.
fn narrow(offset: usize) -> u32 {
    u32::try_from(offset).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use mesh_api::text::Str;
    use proptest::prelude::*;

    #[test]
    fn conditions_follow_envoy() {
        type Make = fn(Str) -> PathMatch;
        #[track_caller]
        fn check(make: Make, text: &str, case_sensitive: bool, path: &str, expect: bool) {
            let test = PathTest::compile(&make(Str::from(text)), case_sensitive).unwrap();
            assert_eq!(test.matches(path.as_bytes()), expect, "{text} {path}");
        }
        use PathMatch::{Exact, Prefix, Regex, SeparatedPrefix};
        check(Prefix, "/", true, "/anything", true);
        check(Prefix, "/foo", true, "/foobar", true);
        check(Prefix, "/foo", true, "/Foo", false);
        check(Prefix, "/foo", false, "/FOObar", true);
        check(SeparatedPrefix, "/foo", true, "/foo", true);
        check(SeparatedPrefix, "/foo", true, "/foo/bar", true);
        check(SeparatedPrefix, "/foo", true, "/foobar", false);
        check(SeparatedPrefix, "/foo", false, "/FOO/x", true);
        check(Exact, "/foo", true, "/foo", true);
        check(Exact, "/foo", true, "/foo/", false);
        check(Exact, "/foo", false, "/fOO", true);
        check(Regex, "/foo/[0-9]+", true, "/foo/12", true);
        check(Regex, "/foo/[0-9]+", true, "/foo/12/", false);
    }

    fn any_path() -> impl Strategy<Value = String> {
        prop_oneof![3 => "(/[abAB]{0,2}){0,4}/?", 1 => "/[ab]{0,6}"]
    }

    fn any_test() -> impl Strategy<Value = PathTest> {
        let kind = prop_oneof![
            any_path().prop_map(|text| PathMatch::Prefix(Str::from(text))),
            any_path().prop_map(|text| PathMatch::SeparatedPrefix(Str::from(text.trim_end_matches('/')))),
            any_path().prop_map(|text| PathMatch::Exact(Str::from(text))),
            any_path().prop_map(|text| PathMatch::Regex(Str::from(format!("{text}.*")))),
        ];
        (kind, any::<bool>()).prop_map(|(path, case_sensitive)| PathTest::compile(&path, case_sensitive).unwrap())
    }

    proptest! {
        #[test]
        fn proposals_hold_every_match_and_ascend(tests in prop::collection::vec(any_test(), 0..24), path in any_path()) {
            let index = PathIndex::new(tests.iter());
            let proposed: Vec<_> = index.candidates(path.as_bytes()).collect();
            prop_assert!(proposed.is_sorted_by(|a, b| a < b));
            let matching: Vec<u32> = (0..).zip(&tests).filter(|(_, test)| test.matches(path.as_bytes())).map(|(at, _)| at).collect();
            prop_assert!(matching.iter().all(|at| proposed.contains(at)), "{matching:?} {proposed:?}");
            // All but regular expressions are proposed only when they match.
            let wrong = proposed.iter().filter(|at| !matching.contains(at));
            prop_assert!(wrong.clone().all(|at| matches!(tests[*at as usize].kind, Kind::Regex(_))));
        }
    }

    #[test]
    fn ten_thousand_prefixes_propose_one() {
        let tests: Vec<_> = (0..10_000)
            .map(|n| PathTest::compile(&PathMatch::Prefix(Str::from(format!("/route-{n:05}/"))), true).unwrap())
            .collect();
        let index = PathIndex::new(tests.iter());
        assert_eq!(index.candidates(b"/route-07777/x").collect::<Vec<_>>(), [7_777]);
        assert_eq!(index.candidates(b"/route-1").count(), 0);
    }
}
