//! Paths of an Ingress as conditions of a route, and the order among them.

use std::cmp::Reverse;

use mesh_api::crd::common::StringMatch;
use mesh_api::crd::networking::virtual_service::HttpMatchRequest;
use mesh_api::text::Str;

/// The order of routes: longer paths first, and of two equal ones the exact one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Rank {
    length: Reverse<usize>,
    exact: Reverse<bool>,
}

impl Rank {
    /// After all paths.
    pub(super) const LAST: Self = Self { length: Reverse(0), exact: Reverse(false) };

    fn of(path: &str, exact: bool) -> Self {
        Self { length: Reverse(path.len()), exact: Reverse(exact) }
    }
}

/// The conditions of a path, of which one must hold; none is any path. `None` for a type that does not exist.
pub(super) fn matches(path_type: &str, path: &str) -> Option<(Rank, Vec<HttpMatchRequest>)> {
    match path_type {
        "Exact" => Some((Rank::of(path, true), vec![uri(StringMatch::Exact(Str::from(path)))])),
        "Prefix" => Some((Rank::of(path, false), prefix(path))),
        "ImplementationSpecific" | "" => Some(specific(path)),
        _ => None,
    }
}

/// By whole segments: `/a` takes `/a` and `/a/b`, not `/ab`; a slash at the end changes nothing.
fn prefix(path: &str) -> Vec<HttpMatchRequest> {
    let stem = path.trim_end_matches('/');
    if stem.is_empty() {
        return Vec::new();
    }
    vec![uri(StringMatch::Exact(Str::from(stem))), uri(StringMatch::Prefix(Str::from(format!("{stem}/"))))]
}

/// As Istio understands it: a star at the end makes a prefix, everything else is exact.
fn specific(path: &str) -> (Rank, Vec<HttpMatchRequest>) {
    if matches!(path, "" | "*" | "/*" | ".*") {
        return (Rank::LAST, Vec::new());
    }
    match path.strip_suffix(".*").or_else(|| path.strip_suffix("/*")) {
        Some(stem) => (Rank::of(stem, false), vec![uri(StringMatch::Prefix(Str::from(stem)))]),
        None => (Rank::of(path, true), vec![uri(StringMatch::Exact(Str::from(path)))]),
    }
}

fn uri(uri: StringMatch) -> HttpMatchRequest {
    HttpMatchRequest { uri: Some(uri), ..HttpMatchRequest::default() }
}
