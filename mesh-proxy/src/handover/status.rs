//! What others see of a hand-over: the page `/handover`, metrics, and the parts of the process that have to follow.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use mesh_api_rt::metrics::{Declaration, DuplicateMetric, Metrics};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use serde_json::{Value, json};
use tokio::sync::watch;

use super::giver::Stage;
use super::message::{Offer, ProcessInfo};

const GENERATION: Declaration = Declaration::new(
    "envoy_server_hot_restart_generation",
    MetricType::Gauge,
    "How many processes handed the sockets on before this one, under Envoy's name.",
);
const HANDOVERS: Declaration = Declaration::new(
    "mesh_proxy_handovers_total",
    MetricType::Counter,
    "Hand-overs of the sockets: taken by this process; refused, failed before the new process served, or taken back because it died soon after.",
);

/// How an attempt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// This process took the sockets of another.
    Taken,
    /// A process that asked did not get them.
    Refused,
    /// A process that got them did not serve.
    Failed,
    /// A process that served died soon after, and this one serves again.
    Resumed,
}

impl Outcome {
    const ALL: [Self; 4] = [Self::Taken, Self::Refused, Self::Failed, Self::Resumed];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Taken => "taken",
            Self::Refused => "refused",
            Self::Failed => "failed",
            Self::Resumed => "resumed",
        }
    }
}

/// What is known of hand-overs in this process.
#[derive(Debug)]
pub struct Status {
    generation: u32,
    first_started: SystemTime,
    predecessor: Option<ProcessInfo>,
    successor: Mutex<Option<ProcessInfo>>,
    /// A successor was started by this process and has not ended.
    replaced_soon: AtomicBool,
    door: OnceLock<String>,
    stage: watch::Sender<Stage>,
    counts: [AtomicU64; Outcome::ALL.len()],
}

impl Status {
    /// Of a process that opened its sockets itself.
    #[must_use]
    pub fn first() -> Self {
        Self {
            generation: 0,
            first_started: SystemTime::now(),
            predecessor: None,
            successor: Mutex::default(),
            replaced_soon: AtomicBool::new(false),
            door: OnceLock::new(),
            stage: watch::Sender::new(Stage::Serving),
            counts: Default::default(),
        }
    }

    /// Of a process that takes them over.
    #[must_use]
    pub fn after(offer: &Offer) -> Self {
        Self {
            generation: offer.generation.saturating_add(1),
            first_started: UNIX_EPOCH + Duration::from_secs(offer.first_started),
            predecessor: Some(offer.process.clone()),
            ..Self::first()
        }
    }

    /// How many processes came before.
    #[must_use]
    pub const fn generation(&self) -> u32 {
        self.generation
    }

    /// When the first of them started, in seconds since 1970.
    #[must_use]
    pub fn first_started(&self) -> u64 {
        self.first_started.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
    }

    /// How long the sockets have been served, by this process and those before.
    #[must_use]
    pub fn since_the_first(&self, now: SystemTime) -> Duration {
        now.duration_since(self.first_started).unwrap_or_default()
    }

    /// How far handing over has come.
    #[must_use]
    pub fn stage(&self) -> Stage {
        *self.stage.borrow()
    }

    /// Sees later stages.
    #[must_use]
    pub fn stages(&self) -> watch::Receiver<Stage> {
        self.stage.subscribe()
    }

    /// Tells how far it has come.
    pub fn set_stage(&self, stage: Stage) {
        self.stage.send_if_modified(|now| std::mem::replace(now, stage) != stage);
    }

    /// Tells who asked last.
    pub fn set_successor(&self, process: ProcessInfo) {
        *self.successor.lock().unwrap_or_else(PoisonError::into_inner) = Some(process);
    }

    /// Whether a successor that this process started is on its way.
    #[must_use]
    pub fn is_replaced_soon(&self) -> bool {
        self.replaced_soon.load(Relaxed)
    }

    /// Tells whether one is.
    pub fn set_replaced_soon(&self, soon: bool) {
        self.replaced_soon.store(soon, Relaxed);
    }

    /// Tells under which name successors ask.
    pub fn set_door(&self, name: String) {
        let _ = self.door.set(name);
    }

    /// Counts an attempt.
    pub fn count(&self, outcome: Outcome) {
        if let Some(count) = self.counts.get(outcome as usize) {
            count.fetch_add(1, Relaxed);
        }
    }

    /// Makes the numbers part of a scrape.
    ///
    /// # Errors
    /// When a name is taken.
    pub fn register(self: &Arc<Self>, metrics: &mut Metrics) -> Result<(), DuplicateMetric> {
        metrics.register_collector(&[GENERATION, HANDOVERS], Box::new(Scrape(Arc::clone(self))))
    }

    /// For `/handover`.
    #[must_use]
    pub fn dump(&self) -> Value {
        let process = |process: &ProcessInfo| json!({ "pid": process.pid, "build": process.build });
        let successor = self.successor.lock().unwrap_or_else(PoisonError::into_inner);
        json!({
            "process": process(&ProcessInfo::this()),
            "generation": self.generation,
            "state": match self.stage() {
                Stage::Serving => "serving",
                Stage::Warming { .. } => "successor-warms-up",
                Stage::Going { .. } => "successor-begins",
                Stage::Probation { .. } => "successor-on-probation",
                Stage::Gone => "handed-over",
            },
            "door": self.door.get(),
            "predecessor": self.predecessor.as_ref().map(process),
            "last_asked_by": successor.as_ref().map(process),
        })
    }
}

#[derive(Debug)]
struct Scrape(Arc<Status>);

impl Collector for Scrape {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let help = GENERATION.help();
        let mut metric = encoder.encode_descriptor(GENERATION.family(), &help, None, GENERATION.kind)?;
        metric.encode_gauge(&u64::from(self.0.generation))?;
        let help = HANDOVERS.help();
        let mut metric = encoder.encode_descriptor(HANDOVERS.family(), &help, None, HANDOVERS.kind)?;
        Outcome::ALL.iter().zip(&self.0.counts).try_for_each(|(outcome, count)| {
            let labels = [("outcome", outcome.as_str())];
            metric.encode_family(&labels)?.encode_counter::<NoLabelSet, u64, f64>(&count.load(Relaxed), None)
        })
    }
}

#[cfg(test)]
mod tests {
    use mesh_api_rt::metrics::Format;

    use super::*;

    #[test]
    fn a_successor_counts_on_from_its_predecessor() {
        let offer = Offer {
            version: 1,
            process: ProcessInfo { pid: 7, build: "1-a".to_owned() },
            generation: 2,
            first_started: 1000,
            sockets: 0,
            captured: None,
            credential: None,
        };
        let status = Arc::new(Status::after(&offer));
        status.count(Outcome::Taken);
        let mut metrics = Metrics::new();
        status.register(&mut metrics).unwrap();
        let text = metrics.encode(Format::Prometheus).unwrap();
        assert!(text.contains("envoy_server_hot_restart_generation 3\n"), "{text}");
        assert!(text.contains("mesh_proxy_handovers_total{outcome=\"taken\"} 1\n"), "{text}");
        assert!(text.contains("mesh_proxy_handovers_total{outcome=\"resumed\"} 0\n"), "{text}");
        assert_eq!(status.since_the_first(UNIX_EPOCH + Duration::from_secs(1500)), Duration::from_secs(500));
        let page = status.dump();
        assert_eq!((&page["generation"], &page["predecessor"]["pid"]), (&3.into(), &7.into()));
    }
}
