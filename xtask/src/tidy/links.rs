//! Pages that name files which do not exist.

use std::collections::BTreeSet;

use crate::tidy::tree::File;

/// Checks code spans that look like paths of this tree, and links to files, in every page.
pub(crate) fn check(files: &[File], found: &mut Vec<String>) {
    let known = Known::new(files);
    for page in files.iter().filter(|file| file.path.ends_with(".md")) {
        let mut fenced = false;
        for (at, line) in page.text.lines().enumerate() {
            if line.trim_start().starts_with("```") {
                fenced = !fenced;
            }
            if fenced {
                continue;
            }
            let place = format!("{}:{}", page.path, at + 1);
            for span in spans(line).filter(|span| known.looks_like_path(span) && !known.has(span)) {
                found.push(format!("{place}: names `{span}`, which does not exist"));
            }
            for link in links(line).filter(|link| !known.has(&resolve(&page.path, link))) {
                found.push(format!("{place}: links to {link}, which does not exist"));
            }
        }
    }
}

/// Files, and the folders they are in.
struct Known<'a> {
    paths: BTreeSet<&'a str>,
    tops: BTreeSet<&'a str>,
}

impl<'a> Known<'a> {
    fn new(files: &'a [File]) -> Self {
        let mut paths = BTreeSet::new();
        let mut tops = BTreeSet::new();
        for File { path, .. } in files {
            paths.insert(path.as_str());
            paths.extend(path.match_indices('/').map(|(at, _)| &path[..at]));
            tops.extend(path.split_once('/').map(|(top, _)| top));
        }
        Self { paths, tops }
    }

    fn has(&self, path: &str) -> bool {
        self.paths.contains(path.trim_end_matches('/'))
    }

    /// `top/…` with nothing but names in it, where `top` is a folder of ours: no pattern, no placeholder, no command.
    fn looks_like_path(&self, span: &str) -> bool {
        let plain = |c: char| c.is_ascii_alphanumeric() || "/._-".contains(c);
        span.split_once('/').is_some_and(|(top, _)| self.tops.contains(top)) && span.chars().all(plain)
    }
}

/// What stands between backticks.
fn spans(line: &str) -> impl Iterator<Item = &str> {
    line.split('`').skip(1).step_by(2)
}

/// Targets of `[text](target)` that are files, without their anchors.
fn links(line: &str) -> impl Iterator<Item = &str> {
    let targets = line.split("](").skip(1).filter_map(|rest| rest.split_once(')').map(|(target, _)| target));
    let files = targets.map(|target| target.split_once('#').map_or(target, |(file, _)| file));
    files.filter(|file| !file.is_empty() && !file.contains("://") && !file.contains(' '))
}

/// `link` as seen from the page, below the root.
fn resolve(page: &str, link: &str) -> String {
    let mut parts: Vec<&str> = page.split('/').collect();
    parts.pop();
    for part in link.split('/') {
        match part {
            "." => {}
            ".." => _ = parts.pop(),
            part => parts.push(part),
        }
    }
    parts.join("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_page(text: &str, expect: &[&str]) {
        let file = |path: &str, text: &str| File { path: path.to_owned(), text: text.to_owned() };
        let files = [file("docs/a.md", text), file("docs/b.md", ""), file("meshd/src/hub.rs", "")];
        let mut found = Vec::new();
        check(&files, &mut found);
        assert_eq!(found, expect);
    }

    #[test]
    fn what_exists_is_fine() {
        check_page("see `meshd/src/hub.rs`, `meshd/src/`, [b](b.md#part) and [hub](../meshd/src/hub.rs)", &[]);
    }

    #[test]
    fn what_is_gone_is_named() {
        check_page("\nsee `meshd/src/gone.rs`", &["docs/a.md:2: names `meshd/src/gone.rs`, which does not exist"]);
        check_page("[c](c.md)", &["docs/a.md:1: links to c.md, which does not exist"]);
    }

    #[test]
    fn patterns_commands_and_fences_are_no_paths() {
        check_page("`meshd/src/*.rs`, `meshd/src/x --flag`, `other/x.rs`, [w](https://example.com/x)", &[]);
        check_page("```\n`meshd/src/gone.rs`\n```", &[]);
    }
}
