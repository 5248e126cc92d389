//! Cycles between sibling modules. A parent and its child may need each other; two children (with all below them) may not:
//! neither could then be read, tested or moved alone.

use std::collections::{BTreeMap, BTreeSet};

use crate::source::lex;
use crate::source::paths::{paths, without_tests};
use crate::tidy::tree::File;

/// The module's path below the crate: `["plan", "build"]`, empty for the crate itself.
type Module = Vec<String>;

/// A crate's modules, what each names, and what each re-exports.
#[derive(Default)]
struct Modules {
    names: BTreeMap<Module, Vec<Named>>,
    /// (module, name that it gives away) → the path behind it.
    exports: BTreeMap<(Module, String), Module>,
}

/// A path below the crate and where it stands.
struct Named {
    target: Module,
    place: String,
}

/// One line for each group of siblings in `folder` (a crate) that need each other.
pub(crate) fn check(folder: &str, files: &[File], found: &mut Vec<String>) {
    let modules = Modules::read(&format!("{folder}/src/"), files);
    for (parent, edges) in modules.siblings() {
        for group in groups(&edges) {
            let inside = edges.iter().filter(|((from, to), _)| group.contains(from) && group.contains(to));
            let list: Vec<String> = inside.map(|((from, to), place)| format!("{from} → {to} ({place})")).collect();
            let scope = if parent.is_empty() { folder.to_owned() } else { format!("{folder} {}", parent.join("::")) };
            found.push(format!("{scope}: sibling modules need each other: {}", list.join(", ")));
        }
    }
}

/// Edges between the children of one module, each with the first place that makes it.
type Edges = BTreeMap<(String, String), String>;

impl Modules {
    fn read(source: &str, files: &[File]) -> Self {
        let mut modules = Self::default();
        let own: Vec<(Module, &File)> =
            files.iter().filter_map(|file| Some((module(file.path.strip_prefix(source)?)?, file))).collect();
        for (module, _) in &own {
            modules.names.insert(module.clone(), Vec::new());
        }
        for (module, file) in own {
            modules.add(&module, file);
        }
        modules
    }

    fn add(&mut self, module: &Module, file: &File) {
        let tokens = without_tests(&lex::tokens(&file.text));
        let mut named = Vec::new();
        for path in paths(&tokens) {
            let Some(target) = self.absolute(module, &path.segments) else { continue };
            if let (true, Some(name)) = (path.public, target.last()) {
                self.exports.insert((module.clone(), name.clone()), target.clone());
            }
            named.push(Named { target, place: format!("{}:{}", file.path, path.line) });
        }
        self.names.insert(module.clone(), named);
    }

    /// The path from the crate's root; none when it leads to another crate.
    fn absolute(&self, module: &Module, segments: &[&str]) -> Option<Module> {
        let mut at = module.clone();
        let mut rest = segments;
        match segments.first()? {
            &"crate" => {
                at.clear();
                rest = &rest[1..];
            }
            &"self" => rest = &rest[1..],
            &"super" => {
                while let Some((&"super", after)) = rest.split_first() {
                    at.pop();
                    rest = after;
                }
            }
            child => {
                at.push((*child).to_owned());
                if !self.names.contains_key(&at) {
                    return None;
                }
                at.pop();
            }
        }
        at.extend(
            rest.iter().filter(|segment| !matches!(**segment, "self" | "*")).map(|segment| (*segment).to_owned()),
        );
        Some(at)
    }

    /// The module in which the item behind `target` lives, through re-exports.
    fn home(&self, target: &Module) -> Module {
        let mut target = target.clone();
        // Bounded: a chain of re-exports this long is a cycle.
        for _ in 0..8 {
            let depth = (0..=target.len()).rev().find(|depth| self.names.contains_key(&target[..*depth])).unwrap_or(0);
            let module = target[..depth].to_vec();
            let Some(name) = target.get(depth) else { return module };
            match self.exports.get(&(module.clone(), name.clone())) {
                Some(behind) if *behind != target => target = [behind, &target[depth + 1..]].concat(),
                _ => return module,
            }
        }
        target
    }

    /// For each module, the edges between its children's subtrees.
    fn siblings(&self) -> BTreeMap<Module, Edges> {
        let mut all: BTreeMap<Module, Edges> = BTreeMap::new();
        for (from, named) in &self.names {
            for Named { target, place } in named {
                let to = self.home(target);
                let common = from.iter().zip(&to).take_while(|(a, b)| a == b).count();
                if let (Some(a), Some(b)) = (from.get(common), to.get(common)) {
                    let edges = all.entry(from[..common].to_vec()).or_default();
                    edges.entry((a.clone(), b.clone())).or_insert_with(|| place.clone());
                }
            }
        }
        all
    }
}

/// The module of a file below `src/`; none for binaries and test modules in files of their own.
fn module(path: &str) -> Option<Module> {
    let path = path.strip_suffix(".rs")?;
    let mut parts: Module = path.split('/').map(str::to_owned).collect();
    match parts.last().map(String::as_str) {
        Some("tests" | "testing") => return None,
        Some("mod") => _ = parts.pop(),
        Some("lib") if parts.len() == 1 => _ = parts.pop(),
        _ => {}
    }
    let tests = |part: &String| matches!(part.as_str(), "tests" | "testing" | "bin");
    (!parts.iter().any(tests)).then_some(parts)
}

/// Groups of more than one node that all reach each other.
fn groups(edges: &Edges) -> Vec<BTreeSet<String>> {
    let nodes: BTreeSet<&String> = edges.keys().flat_map(|(from, to)| [from, to]).collect();
    let reach: BTreeMap<&String, BTreeSet<&String>> =
        nodes.iter().map(|node| (*node, reachable(node, edges))).collect();
    let mut groups: Vec<BTreeSet<String>> = Vec::new();
    for node in &nodes {
        let mates = nodes.iter().filter(|other| reach[*node].contains(**other) && reach[**other].contains(*node));
        let mut group: BTreeSet<String> = mates.map(|mate| (*mate).clone()).collect();
        group.insert((*node).clone());
        if group.len() > 1 && !groups.contains(&group) {
            groups.push(group);
        }
    }
    groups
}

fn reachable<'e>(from: &'e String, edges: &'e Edges) -> BTreeSet<&'e String> {
    let mut seen = BTreeSet::new();
    let mut open = vec![from];
    while let Some(node) = open.pop() {
        for (_, to) in edges.keys().filter(|(start, _)| start == node) {
            if seen.insert(to) {
                open.push(to);
            }
        }
    }
    seen
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_crate(files: &[(&str, &str)], expect: &[&str]) {
        let files: Vec<File> =
            files.iter().map(|(path, text)| File { path: format!("c/src/{path}"), text: (*text).to_owned() }).collect();
        let mut found = Vec::new();
        check("c", &files, &mut found);
        assert_eq!(found, expect);
    }

    #[test]
    fn one_direction_is_fine() {
        check_crate(&[("lib.rs", "mod a; mod b;"), ("a.rs", "use crate::b::B;"), ("b.rs", "")], &[]);
    }

    #[test]
    fn siblings_that_need_each_other_are_named_with_their_places() {
        check_crate(
            &[("lib.rs", ""), ("a.rs", "use crate::b::B;"), ("b.rs", "\nfn f(a: super::a::A) {}")],
            &["c: sibling modules need each other: a → b (c/src/a.rs:1), b → a (c/src/b.rs:2)"],
        );
    }

    #[test]
    fn a_subtree_counts_as_one_sibling() {
        check_crate(
            &[
                ("lib.rs", ""),
                ("a/mod.rs", ""),
                ("a/x.rs", "use crate::b::B;"),
                ("a/y.rs", ""),
                ("b.rs", "use crate::a::y::Y;"),
            ],
            &["c: sibling modules need each other: a → b (c/src/a/x.rs:1), b → a (c/src/b.rs:1)"],
        );
    }

    #[test]
    fn longer_cycles_are_found_below_a_module_too() {
        check_crate(
            &[
                ("lib.rs", ""),
                ("m/mod.rs", ""),
                ("m/a.rs", "use super::b::B;"),
                ("m/b.rs", "use super::c::C;"),
                ("m/c.rs", "use crate::m::a::A;"),
            ],
            &[
                "c m: sibling modules need each other: a → b (c/src/m/a.rs:1), b → c (c/src/m/b.rs:1), c → a (c/src/m/c.rs:1)",
            ],
        );
    }

    #[test]
    fn parent_and_child_may_need_each_other() {
        check_crate(
            &[("lib.rs", ""), ("a/mod.rs", "mod b; use self::b::B;"), ("a/b.rs", "use super::A; use crate::a::C;")],
            &[],
        );
    }

    #[test]
    fn re_exports_do_not_hide_a_cycle() {
        check_crate(
            &[("lib.rs", "pub use a::A;"), ("a.rs", "use crate::b::B;"), ("b.rs", "use crate::A;")],
            &["c: sibling modules need each other: a → b (c/src/a.rs:1), b → a (c/src/b.rs:1)"],
        );
    }

    #[test]
    fn tests_may_use_anything() {
        check_crate(
            &[("lib.rs", ""), ("a.rs", "use crate::b::B;"), ("b.rs", "#[cfg(test)] mod tests { use crate::a::A; }")],
            &[],
        );
    }
}
