//! Reference pages made from tables: compared with the files, or written when `UPDATE_GOLDEN` is set (`cargo xtask docs`).
#![expect(clippy::disallowed_methods, reason = "a test reads and writes the pages; the crate itself touches no file")]

use std::path::PathBuf;

use mesh_proxy_core::{flags, reply};

#[track_caller]
fn check(name: &str, page: &str) {
    let path: PathBuf = [env!("CARGO_MANIFEST_DIR"), "../../docs/reference", name].iter().collect();
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, page).unwrap();
    }
    let stored = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(stored == page, "{} is not up to date; run `cargo xtask docs`", path.display());
}

#[test]
fn golden_page_of_codes() {
    check("codes.md", &reply::page::reference_page());
}

#[test]
fn golden_page_of_response_flags() {
    check("response-flags.md", &flags::reference_page());
}
