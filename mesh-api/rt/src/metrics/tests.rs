use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric as _};
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;

use super::*;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByType {
    r#type: &'static str,
}

crate::metrics! {
    /// Metrics of a test.
    struct TestMetrics {
        /// Requests served,
        /// by type.
        requests: Family<ByType, Counter> = "istio_requests_total",
        /// Pushes sent.
        pushes: Counter = "pilot_xds_pushes",
        /// Proxies connected now.
        connected: Gauge = "pilot_xds",
        /// Seconds a push took.
        push_time: Histogram = "pilot_xds_push_time" => Histogram::new([0.1, 1.0]),
    }
}

fn mk_metrics() -> Metrics {
    let mut metrics = Metrics::new();
    let set: TestMetrics = metrics.register().unwrap();
    set.requests.get_or_create(&ByType { r#type: "a#b" }).inc();
    set.pushes.inc_by(3);
    set.connected.set(2);
    set.push_time.observe(0.5);
    metrics
}

#[test]
fn prometheus_text_has_the_declared_names_and_the_docs_as_help() {
    let text = mk_metrics().encode(Format::Prometheus).unwrap();
    let expect = r#"# HELP istio_requests_total Requests served, by type.
# TYPE istio_requests_total counter
istio_requests_total{type="a#b"} 1
# HELP pilot_xds_pushes Pushes sent.
# TYPE pilot_xds_pushes counter
pilot_xds_pushes 3
# HELP pilot_xds Proxies connected now.
# TYPE pilot_xds gauge
pilot_xds 2
# HELP pilot_xds_push_time Seconds a push took.
# TYPE pilot_xds_push_time histogram
pilot_xds_push_time_sum 0.5
pilot_xds_push_time_count 1
pilot_xds_push_time_bucket{le="0.1"} 0
pilot_xds_push_time_bucket{le="1"} 1
pilot_xds_push_time_bucket{le="+Inf"} 1
"#;
    assert_eq!(text, expect);
}

#[test]
fn openmetrics_text_names_counters_its_own_way_and_ends_with_eof() {
    let (content_type, text) = mk_metrics().scrape(Some("application/openmetrics-text")).unwrap();
    assert!(content_type.starts_with("application/openmetrics-text"));
    assert!(text.contains("# TYPE istio_requests counter\nistio_requests_total{type=\"a#b\"} 1\n"), "{text}");
    assert!(text.contains("pilot_xds_pushes_total 3\n") && text.ends_with("# EOF\n"), "{text}");
}

#[test]
fn a_name_is_declared_once() {
    let mut metrics = mk_metrics();
    assert_eq!(metrics.register::<TestMetrics>().unwrap_err(), DuplicateMetric("istio_requests_total"));
    let names: Vec<&str> = metrics.declarations().map(|declaration| declaration.name).collect();
    assert_eq!(names, ["istio_requests_total", "pilot_xds", "pilot_xds_push_time", "pilot_xds_pushes"]);
}

#[derive(Debug)]
struct Summed;

const SUMMED: Declaration = Declaration::new("envoy_sum", MetricType::Counter, " A sum.");

impl Collector for Summed {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let value = ConstCounter::new(7_u64);
        let metric = encoder.encode_descriptor(SUMMED.family(), &SUMMED.help(), None, value.metric_type())?;
        value.encode(metric)
    }
}

#[test]
fn a_collectors_metrics_keep_their_exact_names_too() {
    let mut metrics = Metrics::new();
    metrics.register_collector(&[SUMMED], Box::new(Summed)).unwrap();
    assert_eq!(
        metrics.encode(Format::Prometheus).unwrap(),
        "# HELP envoy_sum A sum\n# TYPE envoy_sum counter\nenvoy_sum 7\n"
    );
    assert!(metrics.register_collector(&[SUMMED], Box::new(Summed)).is_err());
}
