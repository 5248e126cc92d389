//! What every process says of itself, under the names that Prometheus' own clients use.

use std::fmt;
use std::fs;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use rustix::param::{clock_ticks_per_second, page_size};
use rustix::process::{Resource, getrlimit};

use super::{Declaration, DuplicateMetric, Metrics};

const CPU: Declaration =
    Declaration::new("process_cpu_seconds_total", MetricType::Counter, "User and system CPU time spent, in seconds.");
const RESIDENT: Declaration =
    Declaration::new("process_resident_memory_bytes", MetricType::Gauge, "Resident memory, in bytes.");
const VIRTUAL: Declaration =
    Declaration::new("process_virtual_memory_bytes", MetricType::Gauge, "Virtual memory, in bytes.");
const OPEN_FILES: Declaration = Declaration::new("process_open_fds", MetricType::Gauge, "Open file descriptors.");
const MAX_FILES: Declaration =
    Declaration::new("process_max_fds", MetricType::Gauge, "How many file descriptors may be open.");
const THREADS: Declaration = Declaration::new("process_threads", MetricType::Gauge, "Threads.");
const START: Declaration = Declaration::new(
    "process_start_time_seconds",
    MetricType::Gauge,
    "When the process started, in seconds since 1970.",
);

/// Registers the process's own metrics. What the kernel does not tell is left out of a scrape.
///
/// # Errors
/// [`DuplicateMetric`] when it is called twice.
pub fn register(metrics: &mut Metrics) -> Result<(), DuplicateMetric> {
    let all = [CPU, RESIDENT, VIRTUAL, OPEN_FILES, MAX_FILES, THREADS, START];
    metrics.register_collector(&all, Box::new(Process))
}

#[derive(Debug)]
struct Process;

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        if let Some(stat) = fs::read_to_string("/proc/self/stat").ok().and_then(|text| Stat::parse(&text)) {
            let ticks = to_f64(clock_ticks_per_second());
            put(&mut encoder, &CPU, &ConstCounter::new(to_f64(stat.cpu_ticks) / ticks))?;
            put(&mut encoder, &THREADS, &ConstGauge::new(to_f64(stat.threads)))?;
            put(&mut encoder, &VIRTUAL, &ConstGauge::new(to_f64(stat.virtual_bytes)))?;
            let resident = stat.resident_pages.saturating_mul(u64::try_from(page_size()).unwrap_or_default());
            put(&mut encoder, &RESIDENT, &ConstGauge::new(to_f64(resident)))?;
            if let Some(boot) = fs::read_to_string("/proc/stat").ok().and_then(|text| boot_time(&text)) {
                let start = to_f64(boot) + to_f64(stat.start_ticks) / ticks;
                put(&mut encoder, &START, &ConstGauge::new(start))?;
            }
        }
        if let Ok(files) = fs::read_dir("/proc/self/fd") {
            // One of them is the folder that is being read.
            let open = u64::try_from(files.count()).unwrap_or_default().saturating_sub(1);
            put(&mut encoder, &OPEN_FILES, &ConstGauge::new(to_f64(open)))?;
        }
        let limit = getrlimit(Resource::Nofile).current.map_or(f64::INFINITY, to_f64);
        put(&mut encoder, &MAX_FILES, &ConstGauge::new(limit))
    }
}

fn put(encoder: &mut DescriptorEncoder<'_>, declaration: &Declaration, metric: &impl EncodeMetric) -> fmt::Result {
    let metric_encoder =
        encoder.encode_descriptor(declaration.family(), &declaration.help(), None, metric.metric_type())?;
    metric.encode(metric_encoder)
}

/// Exact up to 2^53, which no value here comes near.
fn to_f64(number: u64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "metrics are floating point numbers")]
    let number = number as f64;
    number
}

/// The fields of `/proc/self/stat` that are used (proc_pid_stat(5)).
#[derive(Debug, PartialEq, Eq)]
struct Stat {
    cpu_ticks: u64,
    threads: u64,
    start_ticks: u64,
    virtual_bytes: u64,
    resident_pages: u64,
}

impl Stat {
    fn parse(text: &str) -> Option<Self> {
        // The second field is the name in parentheses and may itself hold spaces and parentheses.
        let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
        // The manual counts from 1, and two fields are cut off.
        let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
        Some(Self {
            cpu_ticks: field(14)?.saturating_add(field(15)?),
            threads: field(20)?,
            start_ticks: field(22)?,
            virtual_bytes: field(23)?,
            resident_pages: field(24)?,
        })
    }
}

/// `btime` of `/proc/stat`: seconds since 1970.
fn boot_time(text: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Format;

    #[test]
    fn names_with_spaces_and_parentheses_do_not_shift_the_fields() {
        let text = "7 (a) b (c)) S 1 7 7 0 -1 4194304 100 0 0 0 30 12 0 0 20 0 5 0 4242 1048576 256 1 2";
        let expect =
            Stat { cpu_ticks: 42, threads: 5, start_ticks: 4242, virtual_bytes: 1_048_576, resident_pages: 256 };
        assert_eq!(Stat::parse(text), Some(expect));
        assert_eq!(Stat::parse("7 (a) S 1"), None);
        assert_eq!(boot_time("cpu 1\nbtime 1700000000\n"), Some(1_700_000_000));
    }

    #[test]
    fn this_process_has_memory_and_files() {
        let mut metrics = Metrics::new();
        register(&mut metrics).unwrap();
        let text = metrics.encode(Format::Prometheus).unwrap();
        let value = |name: &str| -> f64 {
            let line = text.lines().find(|line| line.starts_with(&format!("{name} "))).unwrap();
            line.rsplit_once(' ').unwrap().1.parse().unwrap()
        };
        assert!(value("process_resident_memory_bytes") > 1e5, "{text}");
        assert!(value("process_open_fds") >= 3.0 && value("process_open_fds") <= value("process_max_fds"), "{text}");
        assert!(value("process_start_time_seconds") > 1e9 && value("process_threads") >= 1.0, "{text}");
        assert!(value("process_cpu_seconds_total") >= 0.0);
        assert!(register(&mut metrics).is_err());
    }
}
