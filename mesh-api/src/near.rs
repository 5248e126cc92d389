//! The near name on a typing error: "did you mean …?".

/// The candidate that `text` was probably meant to be: equal but for case, `_` and `-`, or one or two letters away.
pub fn nearest<'a>(text: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // Quadratic in the length: nobody mistypes a name of a hundred letters.
    if text.len() > 100 {
        return None;
    }
    let plain = simplified(text);
    let allowed = if plain.len() < 4 { 1 } else { 2 };
    candidates
        .into_iter()
        .map(|candidate| (distance(&plain, &simplified(candidate)), candidate))
        .filter(|(distance, candidate)| *distance <= allowed && *distance < candidate.len())
        .min()
        .map(|(_, candidate)| candidate)
}

fn simplified(text: &str) -> Vec<char> {
    text.chars().filter(|c| *c != '_' && *c != '-').map(|c| c.to_ascii_lowercase()).collect()
}

/// Edits (insert, drop, change, swap of neighbours) from `a` to `b`: Damerau's distance, restricted form.
fn distance(a: &[char], b: &[char]) -> usize {
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut row = Vec::with_capacity(last.len());
        row.push(i + 1);
        for (j, y) in b.iter().enumerate() {
            let at = |row: &[usize], j: usize| row.get(j).copied().unwrap_or(usize::MAX / 2);
            let mut best = (at(&last, j) + usize::from(x != y)).min(at(&last, j + 1) + 1).min(at(&row, j) + 1);
            let swapped = i > 0 && j > 0 && a.get(i - 1) == Some(y) && b.get(j - 1) == Some(x);
            if swapped {
                best = best.min(at(&before, j - 1) + 1);
            }
            row.push(best);
        }
        before = std::mem::replace(&mut last, row);
    }
    last.last().copied().unwrap_or(a.len())
}

#[cfg(test)]
mod tests {
    use super::nearest;

    #[test]
    fn finds_what_was_meant() {
        let fields = ["hosts", "gateways", "http", "tls", "tcp", "exportTo", "retries"];
        for (text, expect) in [
            ("host", Some("hosts")),
            ("Hosts", Some("hosts")),
            ("export_to", Some("exportTo")),
            ("htpp", Some("http")),
            ("gateway", Some("gateways")),
            ("reties", Some("retries")),
            ("x", None),
            ("somethingElse", None),
            ("", None),
        ] {
            assert_eq!(nearest(text, fields), expect, "{text}");
        }
        assert_eq!(nearest(&"h".repeat(10_000), fields), None);
    }
}
