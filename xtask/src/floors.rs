//! What may depend on what. The table below is the architecture's diagram as data; `cargo metadata` is what is true.

use anyhow::{Context, Result};
use cargo_metadata::{DependencyKind, Metadata, Package};
use std::collections::{BTreeMap, BTreeSet};

use crate::workspace;

/// The rules for one package of the workspace.
struct Floor {
    package: &'static str,
    /// The packages of the workspace that it may name in `[dependencies]`, and nothing else of ours.
    ours: &'static [&'static str],
    /// Further ones of ours for tests only.
    ours_in_tests: &'static [&'static str],
    /// What must not be in its graph at all, with its default features, tests left out.
    unreachable: &'static [&'static str],
    /// When given, the only packages from elsewhere that it may name in `[dependencies]`.
    theirs: Option<&'static [&'static str]>,
}

const KUBE: [&str; 5] = ["kube", "kube-core", "kube-client", "kube-runtime", "k8s-openapi"];
const KUBE_USERS: [&str; 3] = ["meshd", "meshctl", "e2e"];

/// The two pure crates: data in, data out.
const PURE: Option<&[&str]> = Some(&[
    "bytes",
    "http",
    "httparse",
    "memchr",
    "rand_core",
    "regex",
    "serde",
    "serde_json",
    "smallvec",
    "hashbrown",
    "thiserror",
    "tracing",
]);
const PURE_UNREACHABLE: &[&str] =
    &["tokio", "tonic", "kube", "k8s-openapi", "hyper", "rustls", "rand", "mesh-api-rt", "mesh-ca"];

const FLOORS: &[Floor] = &[
    Floor {
        package: "mesh-api",
        ours: &[],
        ours_in_tests: &[],
        unreachable: &["tokio", "kube", "k8s-openapi", "tonic", "prost", "hyper", "rustls"],
        theirs: None,
    },
    Floor {
        package: "mesh-api-xds",
        ours: &["mesh-api"],
        ours_in_tests: &[],
        unreachable: &["kube", "k8s-openapi", "rustls", "hyper", "tokio"],
        theirs: None,
    },
    Floor {
        package: "mesh-api-rt",
        ours: &["mesh-api"],
        ours_in_tests: &[],
        unreachable: &["kube", "k8s-openapi"],
        theirs: None,
    },
    Floor {
        package: "mesh-api-gotmpl",
        ours: &[],
        ours_in_tests: &[],
        unreachable: &["tokio", "kube", "k8s-openapi", "tonic", "hyper", "rustls", "rand", "mesh-api-rt"],
        theirs: None,
    },
    Floor {
        package: "mesh-ca",
        ours: &["mesh-api"],
        ours_in_tests: &[],
        unreachable: &["hyper", "kube", "k8s-openapi", "mesh-api-xds"],
        theirs: None,
    },
    Floor {
        package: "meshd-core",
        ours: &["mesh-api", "mesh-api-gotmpl", "mesh-api-xds"],
        ours_in_tests: &["mesh-proxy-core"],
        unreachable: PURE_UNREACHABLE,
        theirs: PURE,
    },
    Floor {
        package: "mesh-proxy-core",
        ours: &["mesh-api", "mesh-api-xds"],
        ours_in_tests: &[],
        unreachable: PURE_UNREACHABLE,
        theirs: PURE,
    },
    Floor {
        package: "meshd",
        ours: &[
            "mesh-api",
            "mesh-api-gotmpl",
            "mesh-api-xds",
            "mesh-api-rt",
            "mesh-ca",
            "meshd-core",
            "mesh-proxy-core",
        ],
        ours_in_tests: &[],
        unreachable: &["mesh-proxy"],
        theirs: None,
    },
    Floor {
        package: "mesh-proxy",
        ours: &["mesh-api", "mesh-api-xds", "mesh-api-rt", "mesh-ca", "mesh-proxy-core"],
        ours_in_tests: &[],
        unreachable: &["kube", "k8s-openapi", "meshd", "meshd-core"],
        theirs: None,
    },
    Floor {
        package: "meshctl",
        ours: &[
            "mesh-api",
            "mesh-api-gotmpl",
            "mesh-api-xds",
            "mesh-api-rt",
            "mesh-ca",
            "meshd-core",
            "mesh-proxy-core",
        ],
        // Namespaces are made here, redirection by the proxy: their tests need both.
        ours_in_tests: &["mesh-proxy"],
        unreachable: &["meshd", "mesh-proxy"],
        theirs: None,
    },
    Floor {
        package: "e2e",
        ours: &[
            "mesh-api",
            "mesh-api-xds",
            "mesh-api-rt",
            "mesh-ca",
            "meshd-core",
            "mesh-proxy-core",
            "meshd",
            "mesh-proxy",
        ],
        // Namespaces are made there.
        ours_in_tests: &["meshctl"],
        unreachable: &[],
        theirs: None,
    },
    Floor { package: "e2e-shop", ours: &[], ours_in_tests: &[], unreachable: &[], theirs: None },
    Floor { package: "xtask", ours: &[], ours_in_tests: &[], unreachable: &["tokio"], theirs: None },
];

/// Nobody: one crypto provider, aws-lc-rs under rustls.
const BANNED: [&str; 4] = ["openssl", "openssl-sys", "native-tls", "ring"];
/// What our signatures are made of exists once in the graph.
const SINGLE: [&str; 8] = ["tokio", "hyper", "h2", "http", "rustls", "prost", "tonic", "bytes"];

/// Not looked behind: it always brings tonic's transport, for generated services that nobody of ours calls, and only
/// `mesh-api/xds/src/pb.rs` can name it.
const LEAF: &str = "envoy-types";

/// The part of `cargo metadata` that the rules read.
#[derive(Debug, Default)]
struct Graph {
    members: BTreeMap<String, Member>,
    /// Names and versions of everything that can be built, tests included.
    resolved: BTreeSet<(String, String)>,
}

#[derive(Debug, Default)]
struct Member {
    /// Folder below the workspace, `/` between its parts.
    path: String,
    normal: BTreeSet<String>,
    tests: BTreeSet<String>,
    /// Dependencies outside tests that turn on a feature `testing`.
    testing: BTreeSet<String>,
    /// Whether `testing` is among the default features.
    testing_by_default: bool,
    /// Everything in its own graph with default features, tests left out.
    reachable: BTreeSet<String>,
}

/// One line for each broken rule.
pub(crate) fn check() -> Result<Vec<String>> {
    let metadata = workspace::metadata()?;
    let mut graph = Graph::read(&metadata)?;
    graph.resolved = resolved()?;
    for floor in FLOORS.iter().filter(|floor| !floor.unreachable.is_empty()) {
        if let Some(member) = graph.members.get_mut(floor.package) {
            member.reachable = reachable(floor.package)?;
        }
    }
    Ok(problems(&graph))
}

/// Names and versions in the whole workspace's graph, on every platform. Not from the metadata: that, like the lock file,
/// lists optional packages behind weak features (`ring?/alloc`) that nothing turns on.
fn resolved() -> Result<BTreeSet<(String, String)>> {
    let whole = [
        "tree",
        "--locked",
        "--workspace",
        "--target",
        "all",
        "--edges",
        "normal,build,dev",
        "--prefix",
        "none",
        "--format",
        "{p}",
    ];
    let text = workspace::output(workspace::cargo().args(whole)).context("reading the whole graph")?;
    let words = text.lines().map(|line| line.split(' '));
    Ok(words.filter_map(|mut words| Some((words.next()?.to_owned(), words.next()?.to_owned()))).collect())
}

/// Everything in the package's own graph: `cargo tree` resolves features for it alone, which the workspace's metadata
/// does not.
fn reachable(package: &str) -> Result<BTreeSet<String>> {
    let edges = "normal,no-proc-macro";
    let text = workspace::output(workspace::cargo().args([
        "tree",
        "--locked",
        "--package",
        package,
        "--edges",
        edges,
        "--prefix",
        "depth",
        "--format",
        " {p}",
    ]))
    .with_context(|| format!("reading what {package} depends on"))?;
    let edges = edges_of(&text);
    let mut seen = BTreeSet::new();
    let mut open = vec![package.to_owned()];
    while let Some(name) = open.pop().filter(|name| name != LEAF) {
        for child in edges.get(&name).into_iter().flatten() {
            if seen.insert(child.clone()) {
                open.push(child.clone());
            }
        }
    }
    Ok(seen)
}

/// Who names whom. The tree shows what a package needs only at its first place, so the edges are gathered from all of it.
fn edges_of(tree: &str) -> BTreeMap<String, BTreeSet<String>> {
    let mut edges: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut above: Vec<String> = Vec::new();
    for line in tree.lines() {
        let mut words = line.split_whitespace();
        let (Some(Ok(depth)), Some(name)) = (words.next().map(str::parse::<usize>), words.next()) else { continue };
        above.truncate(depth);
        if let Some(parent) = above.last() {
            edges.entry(parent.clone()).or_default().insert(name.to_owned());
        }
        above.push(name.to_owned());
    }
    edges
}

impl Graph {
    fn read(metadata: &Metadata) -> Result<Self> {
        let root = metadata.workspace_root.as_std_path();
        let mut graph = Self::default();
        for package in metadata.workspace_packages() {
            let manifest = package.manifest_path.as_std_path();
            let folder = manifest.parent().and_then(|folder| folder.strip_prefix(root).ok());
            let folder = folder.with_context(|| format!("{} lies outside the workspace", package.name))?;
            graph.members.insert(package.name.to_string(), Member::read(package, &folder.to_string_lossy()));
        }
        Ok(graph)
    }
}

impl Member {
    fn read(package: &Package, path: &str) -> Self {
        let mut member = Self { path: path.to_owned(), ..Self::default() };
        for dependency in &package.dependencies {
            if dependency.kind == DependencyKind::Development {
                member.tests.insert(dependency.name.clone());
                continue;
            }
            if dependency.features.iter().any(|feature| feature == "testing") {
                member.testing.insert(dependency.name.clone());
            }
            if dependency.kind == DependencyKind::Normal {
                member.normal.insert(dependency.name.clone());
            }
        }
        let defaults = package.features.get("default");
        member.testing_by_default = defaults.is_some_and(|names| names.iter().any(|name| name == "testing"));
        member
    }
}

fn problems(graph: &Graph) -> Vec<String> {
    let mut found = Vec::new();
    for (name, member) in &graph.members {
        let expected = member.path.replace('/', "-");
        if *name != expected {
            found.push(format!("{}: the package is named `{name}`, its path asks for `{expected}`", member.path));
        }
        match FLOORS.iter().find(|floor| floor.package == name) {
            Some(floor) => floor.check(graph, member, &mut found),
            None => found.push(format!("{name}: no floor; add a row to FLOORS in xtask/src/floors.rs")),
        }
        for dependency in &member.testing {
            found.push(format!("{name}: feature `testing` of {dependency} is for [dev-dependencies] only"));
        }
        if member.testing_by_default {
            found.push(format!("{name}: feature `testing` must not be a default feature"));
        }
        if !KUBE_USERS.contains(&name.as_str()) {
            for kube in KUBE.iter().filter(|kube| member.normal.contains(**kube) || member.tests.contains(**kube)) {
                found.push(format!("{name}: names {kube}; only {} may", KUBE_USERS.join(", ")));
            }
        }
    }
    for name in BANNED {
        if graph.resolved.iter().any(|(resolved, _)| resolved == name) {
            found.push(format!(
                "the graph: {name} is banned (`cargo tree --workspace --target all --invert {name}` says who brings it)"
            ));
        }
    }
    for name in SINGLE {
        let versions: Vec<&str> = graph
            .resolved
            .iter()
            .filter(|(resolved, _)| resolved == name)
            .map(|(_, version)| version.as_str())
            .collect();
        if versions.len() > 1 {
            found.push(format!("the graph: {name} must exist once, found {}", versions.join(" and ")));
        }
    }
    found
}

impl Floor {
    fn check(&self, graph: &Graph, member: &Member, found: &mut Vec<String>) {
        let Self { package, ours, ours_in_tests, unreachable, theirs } = self;
        let is_ours = |name: &String| graph.members.contains_key(name);
        for name in member.normal.iter().filter(|name| is_ours(name) && !ours.contains(&name.as_str())) {
            found.push(format!("{package}: must not depend on {name}"));
        }
        for name in member.tests.iter().filter(|name| is_ours(name) && name != package) {
            if !ours.contains(&name.as_str()) && !ours_in_tests.contains(&name.as_str()) {
                found.push(format!("{package}: its tests must not depend on {name}"));
            }
        }
        for name in unreachable.iter().filter(|name| member.reachable.contains(**name)) {
            let why = format!("`cargo tree -p {package} -e normal --invert {name}` says how");
            found.push(format!("{package}: {name} must not be in its graph ({why})"));
        }
        if let Some(theirs) = theirs {
            for name in member.normal.iter().filter(|name| !is_ours(name) && !theirs.contains(&name.as_str())) {
                found.push(format!(
                    "{package}: may not name {name}; a pure crate's list is PURE in xtask/src/floors.rs"
                ));
            }
        }
    }
}

#[cfg(test)]
mod tests;
