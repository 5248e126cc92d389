//! Rules that need one file only.

use crate::source::functions::functions;
use crate::source::lex::Token;
use crate::source::paths::paths;
use crate::tidy::tree::File;

/// Above this a source file is not one idea (lines).
const FILE_LINES: usize = 800;
/// As clippy's `too-many-lines-threshold`, but all lines between `fn` and the closing brace count.
const FUNCTION_LINES: usize = 100;
/// The first lines of a generated file say so.
const GENERATED: &str = "@generated";
/// Top folders of people's and build machines' file systems.
const MACHINE_FOLDERS: [&str; 4] = ["work", "root", "home", "Users"];

/// Rules for any text.
pub(crate) fn text(file: &File, found: &mut Vec<String>) {
    let File { path, text } = file;
    let lines = text.lines().count();
    let source = [".rs", ".py", ".sh"].iter().any(|end| path.ends_with(end));
    let generated = text.lines().take(5).any(|line| line.contains(GENERATED));
    if source && lines > FILE_LINES && !generated {
        found.push(format!("{path}: {lines} lines, more than {FILE_LINES}; split it"));
    }
    for (at, line) in text.lines().enumerate() {
        if let Some(folder) = MACHINE_FOLDERS.iter().find(|folder| names_folder(line, folder)) {
            found.push(format!("{path}:{}: names a path of one machine (/{folder}/)", at + 1));
        }
    }
}

/// Whether `line` holds `/folder/` as the beginning of an absolute path.
fn names_folder(line: &str, folder: &str) -> bool {
    let path = format!("/{folder}/");
    line.match_indices(&path).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        !before.is_some_and(|c| c.is_alphanumeric() || "._-/}*".contains(c))
    })
}

/// Rules for Rust.
pub(crate) fn rust(file: &File, tokens: &[Token<'_>], found: &mut Vec<String>) {
    let path = file.path.as_str();
    for function in functions(tokens).iter().filter(|function| function.lines > FUNCTION_LINES) {
        let (name, line, lines) = (function.name, function.line, function.lines);
        found.push(format!("{path}:{line}: fn {name} has {lines} lines, more than {FUNCTION_LINES}"));
    }
    if tokens.windows(2).any(|pair| pair[0].is("mod") && pair[1].is("prelude")) || path.ends_with("/prelude.rs") {
        found.push(format!("{path}: a prelude module; one name, one path"));
    }
    for named in paths(tokens) {
        let mut complain =
            |text: &str| found.push(format!("{path}:{}: {} {text}", named.line, named.segments.join("::")));
        let [first, rest @ ..] = named.segments.as_slice() else { continue };
        let glob = named.import && rest.last() == Some(&"*");
        if glob && named.public && path != PB {
            complain("is re-exported with a glob; name what is meant");
        }
        if glob && named.segments == ["crate", "*"] {
            complain("imports the whole crate; name what is meant");
        }
        if *first == "envoy_types" && path != PB {
            complain("is named outside mesh-api/xds/src/pb.rs");
        }
        let in_xds = path.starts_with("mesh-api/xds/");
        if in_xds && !may_name_pb(path) && named.segments.contains(&"pb") {
            complain("names Envoy's messages outside pb and codec");
        }
        if path.starts_with("mesh-proxy/") && *first == "mesh_api" && matches!(rest, ["crd" | "validate", ..]) {
            complain("belongs to the control plane");
        }
        if path.starts_with("meshd/src/") && *first == "mesh_proxy_core" && path != "meshd/src/debug/explain.rs" {
            complain("is for meshd/src/debug/explain.rs only");
        }
    }
}

/// The only file that names the crate of Envoy's messages.
const PB: &str = "mesh-api/xds/src/pb.rs";

fn may_name_pb(path: &str) -> bool {
    path == PB || path == "mesh-api/xds/src/patch.rs" || path.starts_with("mesh-api/xds/src/codec")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::lex::tokens;

    /// Expects one complaint with `expect`, or none when it is empty.
    #[track_caller]
    fn check(path: &str, source: &str, expect: &str) {
        let file = File { path: path.to_owned(), text: source.to_owned() };
        let mut found = Vec::new();
        text(&file, &mut found);
        if path.ends_with(".rs") {
            rust(&file, &tokens(source), &mut found);
        }
        match expect {
            "" => assert_eq!(found, Vec::<String>::new()),
            _ => assert!(found.len() == 1 && found[0].contains(expect), "expected {expect:?}, found {found:#?}"),
        }
    }

    #[test]
    fn long_files_are_named_unless_generated() {
        check("a/src/a.rs", &"\n".repeat(800), "");
        check("a/src/a.rs", &"\n".repeat(801), "801 lines");
        check("a/src/a.rs", &format!("// @generated\n{}", "\n".repeat(801)), "");
        check("a/data.yaml", &"\n".repeat(801), "");
    }

    #[test]
    fn long_functions_are_named() {
        check("a.rs", &format!("fn f() {{{}}}", "\n".repeat(99)), "");
        check("a.rs", &format!("\nfn f() {{{}}}", "\n".repeat(100)), "a.rs:2: fn f has 101 lines");
    }

    #[test]
    fn globs_that_hide_names_are_named() {
        check("a.rs", "pub use other::*;", "re-exported with a glob");
        check("a.rs", "pub(crate) use self::b::{c::*, D};", "re-exported with a glob");
        check("a.rs", "use crate::*;", "imports the whole crate");
        check("a.rs", "#[cfg(test)] mod tests { use super::*; use proptest::prelude::*; }", "");
        check("mesh-api/xds/src/pb.rs", "pub(crate) use envoy_types::pb::*;", "");
    }

    #[test]
    fn preludes_are_named() {
        check("a.rs", "pub mod prelude { }", "a prelude module");
        check("a/src/prelude.rs", "", "a prelude module");
    }

    #[test]
    fn envoys_messages_stay_in_their_room() {
        check("mesh-api/xds/src/ir/route.rs", "use crate::pb::Route;", "outside pb and codec");
        check("mesh-api/xds/src/ads/server.rs", "fn f() { pb::Route::default() }", "outside pb and codec");
        check("mesh-api/xds/src/codec/route.rs", "use crate::pb::Route;", "");
        check("meshd/src/a.rs", "use envoy_types::pb;", "outside mesh-api/xds/src/pb.rs");
    }

    #[test]
    fn the_proxy_does_not_read_the_control_planes_objects() {
        check("mesh-proxy/core/src/a.rs", "use mesh_api::crd::VirtualService;", "belongs to the control plane");
        check("mesh-proxy/src/a.rs", "fn f() { mesh_api::validate::validate(x) }", "belongs to the control plane");
        check("mesh-proxy/src/a.rs", "use mesh_api::text::Str;", "");
        check("meshd/src/push/queue.rs", "use mesh_proxy_core::route::select_route;", "debug/explain.rs only");
        check("meshd/src/debug/explain.rs", "use mesh_proxy_core::route::select_route;", "");
    }

    #[test]
    fn paths_of_one_machine_are_named() {
        for folder in MACHINE_FOLDERS {
            check("a.md", &format!("see /{folder}/x"), "path of one machine");
            check("a.md", &format!("see net/{folder}/x and ../{folder}/y"), "");
        }
    }
}
