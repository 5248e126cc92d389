//! The shape of the tree: sizes, names, imports, module cycles, repeated bans. One line for each thing out of place.

mod bans;
mod cycles;
mod links;
mod rules;
mod tree;

use anyhow::Result;
use std::path::Path;

use crate::source::lex;

/// The crates in which sibling modules must not need each other.
const LAYERED_CRATES: [&str; 11] = [
    "mesh-api",
    "mesh-api/gotmpl",
    "mesh-api/rt",
    "mesh-api/xds",
    "mesh-ca",
    "meshctl",
    "meshd",
    "meshd/core",
    "mesh-proxy/core",
    "e2e/shop",
    "xtask",
];

/// One line for each broken rule in the workspace at `root`.
pub(crate) fn check(root: &Path) -> Result<Vec<String>> {
    let files = tree::read(root)?;
    let mut found = Vec::new();
    for file in &files {
        rules::text(file, &mut found);
        if file.path.ends_with(".rs") {
            rules::rust(file, &lex::tokens(&file.text), &mut found);
        }
    }
    for folder in LAYERED_CRATES {
        cycles::check(folder, &files, &mut found);
    }
    bans::check(&files, &mut found);
    links::check(&files, &mut found);
    Ok(found)
}

#[cfg(test)]
mod tests {
    #[test]
    fn this_tree_is_tidy() {
        let found = super::check(&crate::workspace::root()).unwrap();
        assert!(found.is_empty(), "{}", found.join("\n"));
    }
}
