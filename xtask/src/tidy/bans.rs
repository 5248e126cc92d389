//! Clippy reads the nearest `clippy.toml` and does not merge: a crate's own file has to repeat the root's lines.

use crate::tidy::tree::File;

const NAME: &str = "clippy.toml";
/// The pure crates.
const PURE_CRATES: [&str; 2] = ["meshd/core", "mesh-proxy/core"];

pub(crate) fn check(files: &[File], found: &mut Vec<String>) {
    let Some(root) = files.iter().find(|file| file.path == NAME) else {
        found.push(format!("{NAME}: missing at the root"));
        return;
    };
    let suffix = format!("/{NAME}");
    for file in files.iter().filter(|file| file.path.ends_with(&suffix)) {
        let own: Vec<&str> = settings(&file.text).collect();
        for line in settings(&root.text).filter(|line| !own.contains(line)) {
            found.push(format!("{}: does not repeat the root's line `{line}`", file.path));
        }
    }
    for folder in PURE_CRATES {
        let path = format!("{folder}{suffix}");
        if !files.iter().any(|file| file.path == path) {
            found.push(format!("{path}: missing; a pure crate bans clocks, sockets, files and threads there"));
        }
    }
}

/// The lines that say something: a setting or one entry of a list.
fn settings(text: &str) -> impl Iterator<Item = &str> {
    let opens_or_closes = |line: &str| line.ends_with('[') || line == "]" || line.ends_with("[]");
    text.lines().map(str::trim).filter(move |line| !line.is_empty() && !line.starts_with('#') && !opens_or_closes(line))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_pair(root: &str, own: &str, expect: &[&str]) {
        let file = |path: &str, text: &str| File { path: path.to_owned(), text: text.to_owned() };
        let pure = PURE_CRATES.map(|folder| file(&format!("{folder}/{NAME}"), root));
        let mut files = vec![file(NAME, root), file("a/clippy.toml", own)];
        files.extend(pure);
        let mut found = Vec::new();
        check(&files, &mut found);
        assert_eq!(found, expect);
    }

    const ROOT: &str = "limit = 1\ndisallowed-methods = [\n    # Why.\n    { path = \"a::b\" },\n]\n";

    #[test]
    fn a_file_that_repeats_the_root_may_add() {
        check_pair(ROOT, &ROOT.replace("]", "    { path = \"c::d\" },\n]"), &[]);
    }

    #[test]
    fn a_missing_ban_or_setting_is_named() {
        check_pair(ROOT, "limit = 1\n", &["a/clippy.toml: does not repeat the root's line `{ path = \"a::b\" },`"]);
        check_pair(ROOT, &ROOT.replace('1', "2"), &["a/clippy.toml: does not repeat the root's line `limit = 1`"]);
    }

    #[test]
    fn pure_crates_need_their_own_file() {
        let files = [File { path: NAME.to_owned(), text: ROOT.to_owned() }];
        let mut found = Vec::new();
        check(&files, &mut found);
        assert_eq!(found.len(), PURE_CRATES.len(), "{found:?}");
    }
}
