//! Reading the proxies' metrics: Prometheus text to samples, and samples to the figures that the demo shows.

use std::collections::BTreeMap;

/// One line of Prometheus text.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// Name of the metric.
    pub name: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its value.
    pub value: f64,
}

impl Sample {
    /// A label's value; empty without the label.
    #[must_use]
    pub fn label(&self, name: &str) -> &str {
        self.labels.get(name).map_or("", String::as_str)
    }
}

/// The samples of a page whose names begin with `prefix`. Lines that are no samples are left out.
#[must_use]
pub fn parse(text: &str, prefix: &str) -> Vec<Sample> {
    text.lines().filter(|line| line.starts_with(prefix)).filter_map(sample).collect()
}

fn sample(line: &str) -> Option<Sample> {
    let end = line.find(['{', ' '])?;
    let (name, rest) = line.split_at_checked(end)?;
    let mut labels = BTreeMap::new();
    let mut rest = rest;
    if let Some(mut inside) = rest.strip_prefix('{') {
        loop {
            inside = inside.trim_start_matches(',');
            if let Some(after) = inside.strip_prefix('}') {
                rest = after;
                break;
            }
            let (key, after) = inside.split_once("=\"")?;
            let (value, after) = quoted(after)?;
            labels.insert(key.to_owned(), value);
            inside = after;
        }
    }
    let value = rest.split_ascii_whitespace().next()?.parse().ok()?;
    Some(Sample { name: name.to_owned(), labels, value })
}

/// Text up to the closing quote, unescaped, and what follows.
fn quoted(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut escaped = false;
    for (at, letter) in text.char_indices() {
        match (escaped, letter) {
            (true, 'n') => value.push('\n'),
            (true, other) => value.push(other),
            (false, '\\') => {
                escaped = true;
                continue;
            }
            (false, '"') => return Some((value, text.get(at + 1..)?)),
            (false, other) => value.push(other),
        }
        escaped = false;
    }
    None
}

/// A value below which a share of a histogram lies, from its cumulative buckets (upper bound to count), interpolated
/// within the bucket; `None` without observations.
#[must_use]
pub fn quantile(buckets: &[(f64, f64)], share: f64) -> Option<f64> {
    let total = buckets.last()?.1;
    if total <= 0.0 {
        return None;
    }
    let rank = share * total;
    let (mut low, mut below) = (0.0, 0.0);
    for (bound, count) in buckets {
        if *count >= rank {
            if bound.is_infinite() {
                return Some(low);
            }
            let inside = count - below;
            let part = if inside > 0.0 { (rank - below) / inside } else { 1.0 };
            return Some(low + (bound - low) * part);
        }
        (low, below) = (*bound, *count);
    }
    Some(low)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_have_names_labels_and_values() {
        let text =
            "# HELP a b\n# TYPE istio_x counter\nistio_x_total{a=\"1\",b=\"q\\\"\\\\,}\"} 3\nistio_y 2.5 17\nother 1\n";
        let samples = parse(text, "istio_");
        assert_eq!(samples.len(), 2);
        assert_eq!(
            (samples[0].name.as_str(), samples[0].label("b"), samples[0].value),
            ("istio_x_total", "q\"\\,}", 3.0)
        );
        assert_eq!((samples[1].label("a"), samples[1].value), ("", 2.5));
    }

    #[test]
    fn broken_lines_are_left_out() {
        assert_eq!(parse("a{b=\"c\na{b} 1\na x\na\n", "a"), []);
    }

    #[test]
    fn quantiles_are_interpolated() {
        let buckets = [(1.0, 50.0), (5.0, 100.0), (f64::INFINITY, 100.0)];
        assert_eq!(quantile(&buckets, 0.5), Some(1.0));
        assert_eq!(quantile(&buckets, 0.75), Some(3.0));
        assert_eq!(quantile(&[(1.0, 0.0), (f64::INFINITY, 10.0)], 0.5), Some(1.0));
        assert_eq!(quantile(&[(1.0, 0.0)], 0.5), None);
    }
}
