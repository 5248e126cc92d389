//! The two text formats of a scrape.
//!
//! The encoder writes OpenMetrics 1.0. Prometheus' older text format 0.0.4 is what Istio's and Envoy's endpoints serve and
//! what their dashboards were written for: there the name of a counter is exactly what was declared, with or without
//! `_total`. So it is our default, and it is derived here line by line.

/// Text format of a scrape.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// `text/plain; version=0.0.4`
    Prometheus,
    /// `application/openmetrics-text; version=1.0.0`
    OpenMetrics,
}

impl Format {
    /// OpenMetrics only for a client that accepts nothing else: the names of some counters differ in it.
    #[must_use]
    pub fn negotiate(accept: Option<&str>) -> Self {
        let accept = accept.unwrap_or("*/*").to_ascii_lowercase();
        let takes = |what: &str| accept.split(',').any(|range| range.trim_start().starts_with(what));
        if takes("application/openmetrics-text") && !takes("text/") && !takes("*/") {
            Self::OpenMetrics
        } else {
            Self::Prometheus
        }
    }

    /// Value of the `content-type` header.
    #[must_use]
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// The family whose lines are being read.
#[derive(Default)]
struct Family {
    /// What sample lines of a counter begin with in OpenMetrics; empty for other types.
    counter_sample: String,
    /// What they are to begin with.
    exact: String,
    /// Its buckets have bounds.
    is_histogram: bool,
}

/// Rewrites OpenMetrics text; `exact` gives the declared name of a family.
pub(super) fn to_prometheus(open_metrics: &str, exact: impl Fn(&str) -> Option<&'static str>) -> String {
    let mut out = String::with_capacity(open_metrics.len() + open_metrics.len() / 8);
    let mut family = Family::default();
    let mut help: Option<(&str, &str)> = None;
    for line in open_metrics.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            help = Some(rest.split_once(' ').unwrap_or((rest, "")));
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap_or((rest, "unknown"));
            family = Family::start(name, kind, &exact);
            if let Some((_, text)) = help.take().filter(|(of, _)| *of == name) {
                push_line(&mut out, &["# HELP ", &family.exact, " ", text]);
            }
            push_line(&mut out, &["# TYPE ", &family.exact, " ", prometheus_type(kind)]);
        } else if !line.starts_with('#') {
            let sample = without_exemplar(line);
            match sample.strip_prefix(family.counter_sample.as_str()) {
                Some(rest) if !family.counter_sample.is_empty() => push_line(&mut out, &[&family.exact, rest]),
                _ if family.is_histogram => {
                    let (before, after) = without_fraction(sample);
                    push_line(&mut out, &[before, after]);
                }
                _ => push_line(&mut out, &[sample]),
            }
        }
        // What is left are `# UNIT` and `# EOF`, which the older format does not have.
    }
    out
}

impl Family {
    fn start(name: &str, kind: &str, exact: &impl Fn(&str) -> Option<&'static str>) -> Self {
        match kind {
            "counter" => {
                let counter_sample = format!("{name}_total");
                let exact = exact(name).map_or_else(|| counter_sample.clone(), str::to_owned);
                Self { counter_sample, exact, is_histogram: false }
            }
            "info" => Self { exact: format!("{name}_info"), ..Self::default() },
            _ => Self { exact: name.to_owned(), is_histogram: kind == "histogram", ..Self::default() },
        }
    }
}

fn prometheus_type(kind: &str) -> &str {
    match kind {
        "unknown" => "untyped",
        "info" | "stateset" => "gauge",
        "gaugehistogram" => "histogram",
        other => other,
    }
}

/// Cuts ` # {…} value` behind a sample. A `#` inside a quoted label value is no exemplar.
fn without_exemplar(line: &str) -> &str {
    let mut quoted = false;
    let mut escaped = false;
    for (at, byte) in line.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b'#' if !quoted => return line.get(..at).unwrap_or(line).trim_end(),
            _ => {}
        }
    }
    line
}

/// Splits a bucket's sample so that the fraction of a whole bound is left out: `le="1"`, as Envoy writes it and as queries and
/// recording rules for Istio have it, not `le="1.0"`.
fn without_fraction(sample: &str) -> (&str, &str) {
    let mut quoted = false;
    let mut escaped = false;
    let mut start = None;
    for (at, byte) in sample.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' if quoted => {
                let bound = start.take().and_then(|start| sample.get(start..at));
                if bound.is_some_and(|bound: &str| bound.ends_with(".0")) {
                    return (sample.get(..at - 2).unwrap_or(sample), sample.get(at..).unwrap_or_default());
                }
                quoted = false;
            }
            b'"' => {
                quoted = true;
                let name = sample.get(..at).unwrap_or_default();
                start = (name.ends_with("{le=") || name.ends_with(",le=")).then_some(at + 1);
            }
            _ => {}
        }
    }
    (sample, "")
}

fn push_line(out: &mut String, parts: &[&str]) {
    parts.iter().for_each(|part| out.push_str(part));
    out.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn openmetrics_only_when_nothing_else_is_accepted() {
        let check = |accept, expect| assert_eq!(Format::negotiate(accept), expect, "{accept:?}");
        check(None, Format::Prometheus);
        check(Some("*/*"), Format::Prometheus);
        check(Some("application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5"), Format::Prometheus);
        check(Some("application/openmetrics-text; version=1.0.0"), Format::OpenMetrics);
        check(Some("application/openmetrics-text,*/*;q=0.1"), Format::Prometheus);
    }

    #[test]
    fn whole_bounds_have_no_fraction() {
        let check = |sample, expect: &str| {
            let (before, after) = without_fraction(sample);
            assert_eq!([before, after].concat(), expect);
        };
        check(r#"a_bucket{le="1.0"} 2"#, r#"a_bucket{le="1"} 2"#);
        check(r#"a_bucket{x=",le=\"3.0",le="10000.0"} 2"#, r#"a_bucket{x=",le=\"3.0",le="10000"} 2"#);
        for same in [r#"a_bucket{le="0.5"} 2.0"#, r#"a_bucket{le="+Inf"} 2"#, r#"a_bucket{role="1.0"} 2"#, "a_sum 1.0"]
        {
            check(same, same);
        }
    }

    #[test]
    fn exemplars_are_cut_but_hashes_in_labels_stay() {
        assert_eq!(without_exemplar(r#"a_total{x="1"} 2 # {id="q"} 1.0"#), r#"a_total{x="1"} 2"#);
        assert_eq!(without_exemplar(r#"a{x="\" # {"} 2"#), r#"a{x="\" # {"} 2"#);
    }
}
