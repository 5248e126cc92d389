//! The reference pages of findings and of what does not act yet, made from their tables: `cargo xtask docs` writes them,
//! `cargo test -p mesh-api` compares.

use std::{fmt::Write, fs, path::PathBuf};

use crate::{
    codes::Code,
    not_acting::{ANNOTATIONS, FIELDS, KINDS, MESH_CONFIG, PROXY_CONFIG},
};

const HEAD: &str = "<!-- Generated from mesh-api; do not edit: `cargo xtask docs` writes it anew. -->";

fn findings() -> String {
    let mut page = format!("# Findings\n\n{HEAD}\n\n");
    page += "What `meshctl validate`, the control plane's log and its status say about objects. A code keeps its meaning.\n";
    let parts = [
        (1, "Reading and syntax"),
        (2, "Rules of one object"),
        (3, "Objects together"),
        (4, "Known, but not acting yet"),
    ];
    for (thousand, title) in parts {
        let _ =
            write!(page, "\n## {thousand}xxx: {title}\n\n| Code | Name | Severity | Meaning |\n|---|---|---|---|\n");
        for code in Code::ALL.iter().filter(|code| code.number() / 1000 == thousand) {
            let doc = code.doc().split_whitespace().collect::<Vec<_>>().join(" ");
            let _ = writeln!(page, "| {code} | {} | {} | {doc} |", code.name(), code.severity());
        }
    }
    page
}

fn not_acting() -> String {
    let mut page = format!("# What does not act yet\n\n{HEAD}\n\n");
    page += "These parts of Istio's API are read and named in a finding (MESH4001, MESH4002), but change nothing yet, or do \
             what the note says. A `[]` stands for any item of a list, `**` for any way down.\n";
    let mut table = |title: &str, rows: Vec<(String, &str)>| {
        let _ = write!(page, "\n## {title}\n\n| What | Note |\n|---|---|\n");
        for (what, note) in rows {
            let _ = writeln!(page, "| `{what}` | {note} |");
        }
    };
    table("Kinds", KINDS.iter().map(|row| (format!("{} {}", row.0, row.1), row.2)).collect());
    table("Fields", FIELDS.iter().map(|row| (format!("{} {}", row.0, row.1), row.2)).collect());
    table("Annotations", ANNOTATIONS.iter().map(|row| (format!("{} {}", row.0, row.1), row.2)).collect());
    table("MeshConfig", MESH_CONFIG.iter().map(|row| (row.0.to_owned(), row.1)).collect());
    table("ProxyConfig", PROXY_CONFIG.iter().map(|row| (row.0.to_owned(), row.1)).collect());
    page
}

#[track_caller]
fn check(name: &str, page: &str) {
    let path: PathBuf = [env!("CARGO_MANIFEST_DIR"), "../docs/reference", name].iter().collect();
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, page).unwrap();
    }
    let stored = fs::read_to_string(&path).unwrap_or_default();
    assert!(stored == page, "docs/reference/{name} is not up to date; run `cargo xtask docs`");
}

#[test]
fn golden_page_of_findings() {
    check("findings.md", &findings());
}

#[test]
fn golden_page_of_what_does_not_act() {
    check("not-acting.md", &not_acting());
}
