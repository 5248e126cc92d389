//! Prometheus' text format, and the same samples under the same names as OpenMetrics.

use std::borrow::Cow;

/// Prefix of the metrics of this process on the merged page: the application has its own of the same names. Istio's agent does
/// the same.
const PROCESS: &str = "process_";
const RENAMED: &str = "istio_agent_process_";

/// Renames the metrics of the process.
pub(super) fn rename_process(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 1024);
    for line in text.lines() {
        let renamed = match comment(line) {
            Some((keyword, rest)) if rest.starts_with(PROCESS) => {
                Cow::Owned(format!("# {keyword} {RENAMED}{}", rest.trim_start_matches(PROCESS)))
            }
            None if line.starts_with(PROCESS) => Cow::Owned(format!("{RENAMED}{}", line.trim_start_matches(PROCESS))),
            _ => Cow::Borrowed(line),
        };
        out.push_str(&renamed);
        out.push('\n');
    }
    out
}

/// Rewrites text format 0.0.4. A counter whose name does not end as OpenMetrics wants it becomes `unknown`, so that its name
/// stays; timestamps change from milliseconds to seconds.
pub(super) fn to_open_metrics(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut help: Option<&str> = None;
    for line in text.lines().filter(|line| !line.trim().is_empty()) {
        match comment(line) {
            Some(("HELP", rest)) => help = Some(rest),
            Some(("TYPE", rest)) => {
                let (name, kind) = rest.split_once(' ').unwrap_or((rest, "untyped"));
                let (family, kind) = match (kind.trim(), name.strip_suffix("_total")) {
                    ("counter", Some(family)) => (family, "counter"),
                    ("counter", None) | ("untyped", _) => (name, "unknown"),
                    (kind, _) => (name, kind),
                };
                push(&mut out, &["# TYPE ", family, " ", kind]);
                if let Some((_, words)) =
                    help.take().and_then(|help| help.split_once(' ')).filter(|(of, _)| *of == name)
                {
                    push(&mut out, &["# HELP ", family, " ", words]);
                }
            }
            // Other comments have no place in OpenMetrics.
            Some(_) => {}
            None => push_sample(&mut out, line),
        }
    }
    out
}

/// OpenMetrics text without its terminator; ends with a line's end.
pub(super) fn without_end(text: &str) -> String {
    let body = text.trim_end();
    let body = body.strip_suffix("# EOF").unwrap_or(body).trim_end();
    if body.is_empty() { String::new() } else { format!("{body}\n") }
}

fn push_sample(out: &mut String, line: &str) {
    // Labels may contain spaces; what follows them is a value and perhaps a timestamp.
    let end = line.rfind('}').map_or_else(|| line.find(' ').unwrap_or(line.len()), |brace| brace + 1);
    let (series, rest) = line.split_at(end);
    let mut words = rest.split_whitespace();
    let value = words.next().unwrap_or("NaN");
    match words.next().and_then(|time| time.parse::<i64>().ok()) {
        Some(milliseconds) => {
            let sign = if milliseconds < 0 { "-" } else { "" };
            let time = milliseconds.unsigned_abs();
            push(out, &[series, " ", value, " ", &format!("{sign}{}.{:03}", time / 1000, time % 1000)]);
        }
        None => push(out, &[series, " ", value]),
    }
}

fn push(out: &mut String, parts: &[&str]) {
    parts.iter().for_each(|part| out.push_str(part));
    out.push('\n');
}

/// Keyword and rest of a comment; the keyword of one without is empty.
fn comment(line: &str) -> Option<(&str, &str)> {
    let text = line.strip_prefix('#')?.trim_start();
    ["HELP", "TYPE"]
        .into_iter()
        .find_map(|keyword| Some((keyword, text.strip_prefix(keyword)?.strip_prefix(' ')?.trim_start())))
        .or(Some(("", text)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_when_the_format_changes() {
        let text = "# HELP a_total Things done\n# TYPE a_total counter\na_total{x=\"b } c\"} 1\n\n# note\n\
                    # HELP b Others\n# TYPE b counter\nb 2 1500\n# TYPE c untyped\nc 3\n\
                    # TYPE h histogram\nh_bucket{le=\"+Inf\"} 4\nh_sum 5\nh_count 4\nd{e=\"f\"} NaN -1\n";
        let expect = "# TYPE a counter\n# HELP a Things done\na_total{x=\"b } c\"} 1\n\
                      # TYPE b unknown\n# HELP b Others\nb 2 1.500\n# TYPE c unknown\nc 3\n\
                      # TYPE h histogram\nh_bucket{le=\"+Inf\"} 4\nh_sum 5\nh_count 4\nd{e=\"f\"} NaN -0.001\n";
        assert_eq!(to_open_metrics(text), expect);
    }

    #[test]
    fn only_metrics_of_the_process_are_renamed() {
        let text = "# HELP process_x Of us\n# TYPE process_x gauge\nprocess_x 1\nistio_process_y 2\n";
        let expect = "# HELP istio_agent_process_x Of us\n# TYPE istio_agent_process_x gauge\nistio_agent_process_x 1\n\
                      istio_process_y 2\n";
        assert_eq!(rename_process(text), expect);
    }

    #[test]
    fn the_terminator_is_cut() {
        for (text, expect) in [("a 1\n# EOF\n", "a 1\n"), ("a 1", "a 1\n"), ("# EOF", ""), ("a 1\n# EOF", "a 1\n")] {
            assert_eq!(without_end(text), expect, "{text:?}");
        }
    }
}
