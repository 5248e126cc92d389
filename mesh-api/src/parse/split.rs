//! Cuts a text into its YAML documents, without reading them.

/// One document and the line (from 1) it begins at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Document<'a> {
    pub(super) text: &'a str,
    pub(super) line: usize,
}

/// The documents that hold more than comments. YAML 1.2, section 9.1.2 forbids `---` and `...` at the start of a line
/// within a document, whatever it holds, so the markers can be found without a parser.
pub(super) fn documents(text: &str) -> impl Iterator<Item = Document<'_>> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut rest = text;
    let mut line = 1;
    std::iter::from_fn(move || {
        while !rest.is_empty() {
            let (chunk, lines) = first_chunk(rest);
            let found = Document { text: chunk, line };
            rest = rest.get(chunk.len()..).unwrap_or_default();
            line += lines;
            if !is_blank(found.text) {
                return Some(found);
            }
        }
        None
    })
}

/// Up to the next marker. A `---` belongs to what follows it, a `...` to what precedes it.
fn first_chunk(text: &str) -> (&str, usize) {
    let mut end = 0;
    let mut lines = 0;
    for line in text.split_inclusive('\n') {
        if end > 0 && is_marker(line, "---") {
            break;
        }
        end += line.len();
        lines += 1;
        if is_marker(line, "...") {
            break;
        }
    }
    (text.get(..end).unwrap_or(text), lines)
}

fn is_marker(line: &str, marker: &str) -> bool {
    line.strip_prefix(marker).is_some_and(|after| after.is_empty() || after.starts_with([' ', '\t', '\r', '\n']))
}

/// Nothing but blank lines, comments, markers and directives.
fn is_blank(text: &str) -> bool {
    text.lines().all(|line| {
        let content = line.strip_prefix("---").or_else(|| line.strip_prefix("...")).unwrap_or(line).trim();
        content.is_empty() || content.starts_with('#') || line.starts_with('%')
    })
}

#[cfg(test)]
mod tests {
    use super::documents;
    use proptest::prelude::*;

    #[test]
    fn cuts_at_markers_and_counts_lines() {
        #[track_caller]
        fn check(text: &str, expect: &[(usize, &str)]) {
            let found: Vec<(usize, &str)> = documents(text).map(|d| (d.line, d.text)).collect();
            assert_eq!(found, expect, "{text:?}");
        }
        check("", &[]);
        check("\n# only a comment\n---\n---\n", &[]);
        check("a: 1", &[(1, "a: 1")]);
        check("a: 1\n---\nb: 2\n", &[(1, "a: 1\n"), (2, "---\nb: 2\n")]);
        check("---\r\na: 1\r\n---\r\nb: 2", &[(1, "---\r\na: 1\r\n"), (3, "---\r\nb: 2")]);
        check("# head\n--- # first\na: 1\n...\n\n# tail\n", &[(2, "--- # first\na: 1\n...\n")]);
        check("a: |\n  ---\n  x\n", &[(1, "a: |\n  ---\n  x\n")]);
        check("a: 1\n----\n", &[(1, "a: 1\n----\n")]);
        check("\u{feff}a: 1\n", &[(1, "a: 1\n")]);
        check("--- {a: 1}\n--- {b: 1}\n", &[(1, "--- {a: 1}\n"), (2, "--- {b: 1}\n")]);
    }

    proptest! {
        #[test]
        fn nothing_but_blank_is_lost(lines in proptest::collection::vec("(---|\\.\\.\\.|# c|a: 1|  - x|)", 0..20)) {
            let text = lines.join("\n");
            let kept: usize = documents(&text).map(|d| d.text.matches("a: 1").count() + d.text.matches("- x").count()).sum();
            prop_assert_eq!(kept, text.matches("a: 1").count() + text.matches("- x").count());
            for document in documents(&text) {
                let at = text.split_inclusive('\n').take(document.line - 1).map(str::len).sum::<usize>();
                prop_assert!(text[at..].starts_with(document.text));
            }
        }
    }
}
