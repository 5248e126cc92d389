//! The watch of one kind: list, then follow, for ever. What happens when either fails:
//!
//! | What | Then |
//! |---|---|
//! | the watch ends, or its connection breaks | it begins again where it was |
//! | the history is gone (410) | everything is listed again; what is not in the list is gone |
//! | the kind is not there (404) | another version is tried, then it counts as empty until it is there |
//! | refused, no answer, anything else | again after a pause; what is known stays, and a finding says so |
//!
//! Pauses grow and have some chance in them. A page that is too large is asked for in smaller parts.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use http::StatusCode;
use mesh_api::codes::Code;
use mesh_api::finding::Finding;
use mesh_api::kinds::Kind;
use mesh_api::meta::Meta;
use mesh_api::received::received;
use mesh_api::text::Str;
use mesh_api_rt::backoff::Backoff;
use mesh_api_rt::report::Report;
use rand::RngExt as _;
use rand::rngs::StdRng;
use tokio::sync::mpsc;
use tokio::time::sleep;

use super::api::{Api, ApiError, Events, Status};
use super::slice;
use super::store::Seen;
use crate::metrics::{ByKind, WatchMetrics};

/// First pause after a failure.
const RETRY_BASE: Duration = Duration::from_millis(500);
/// Longest pause.
const RETRY_MAX: Duration = Duration::from_secs(30);
/// Longest pause between looks for a kind that is not there.
const ABSENT_MAX: Duration = Duration::from_secs(10);
/// A watch that lasted this long was one, so that the next may follow at once.
const LASTED: Duration = Duration::from_secs(5);
/// Failures in a row after which a finding tells of them.
const FAILURES_TOLD: u32 = 2;
/// Times that a kind which was there must be missing before its objects count as gone.
const ABSENCES: u32 = 3;

/// What a watch tells its source.
#[derive(Debug)]
pub(super) enum Told {
    /// A list begins.
    Begun(Kind),
    /// Objects of a list, or what changed since.
    Seen {
        /// The kind.
        kind: Kind,
        /// When it was learned.
        at: Instant,
        /// The objects.
        seen: Vec<Seen>,
    },
    /// The list that was begun is complete.
    Listed(Kind),
    /// Further names of the revision.
    Tags(BTreeSet<Str>),
    /// What is wrong with the watch itself, if anything.
    Health(Kind, Option<Finding>),
}

/// The watch of one kind.
pub(super) struct Watch {
    /// The kind.
    pub(super) kind: Kind,
    /// How it is asked for.
    pub(super) api: Api,
    /// Who is told.
    pub(super) tell: mpsc::Sender<Told>,
    /// Chance, for pauses.
    pub(super) rng: StdRng,
    /// Where it counts.
    pub(super) metrics: WatchMetrics,
}

/// Where a watch stands.
struct Progress {
    /// What to follow from; `None` lists first.
    from: Option<String>,
    /// Whether a list was ever complete.
    listed: bool,
    absences: u32,
    failures: u32,
    /// Whether a finding tells of failures.
    blamed: bool,
    backoff: Backoff,
    absent: Backoff,
}

/// Nobody listens any more.
struct Unheard;

impl Watch {
    /// Watches until nobody listens.
    pub(super) async fn run(mut self) {
        let mut progress = Progress {
            from: None,
            listed: false,
            absences: 0,
            failures: 0,
            blamed: false,
            backoff: Backoff::new(RETRY_BASE, RETRY_MAX),
            absent: Backoff::new(RETRY_BASE, ABSENT_MAX),
        };
        while self.step(&mut progress).await.is_ok() {}
    }

    async fn step(&mut self, progress: &mut Progress) -> Result<(), Unheard> {
        let begun = tokio::time::Instant::now();
        let from = progress.from.clone();
        let lists = from.is_none();
        let result = match from {
            None => self.list(progress).await?,
            Some(from) => self.follow(from, progress).await?,
        };
        let lasted = begun.elapsed() >= LASTED;
        if lasted {
            progress.backoff.reset();
        }
        let pause = match result {
            Ok(()) => {
                self.healthy(progress).await?;
                // A server that ends every watch at once must not be asked without a pause.
                (!lists && !lasted).then(|| progress.backoff.next_delay(&mut self.rng))
            }
            Err(ApiError::Expired) => {
                tracing::info!(kind = %self.kind, "History of the watch is gone, listing again");
                progress.from = None;
                Some(progress.backoff.next_delay(&mut self.rng))
            }
            Err(ApiError::Absent) => Some(self.absent(progress).await?),
            Err(ApiError::TooLarge(limit)) if lists && self.api.smaller_pages() => {
                tracing::info!(kind = %self.kind, limit, "Page is too large, asking for smaller ones");
                None
            }
            Err(error) => Some(self.failed(progress, &error).await?),
        };
        if let Some(pause) = pause {
            sleep(pause).await;
        }
        Ok(())
    }

    /// Lists all objects, page by page.
    async fn list(&self, progress: &mut Progress) -> Result<Result<(), ApiError>, Unheard> {
        let by_kind = ByKind { kind: self.kind.as_str() };
        self.metrics.lists.get_or_create(&by_kind).inc();
        let mut next = String::new();
        let mut begun = false;
        loop {
            let page = match self.api.list(&next).await {
                Ok(page) => page,
                Err(error) => return Ok(Err(error)),
            };
            let at = now();
            let seen = match page.objects() {
                Ok(objects) => objects.into_iter().map(|object| read(self.kind, object)).collect(),
                Err(error) => return Ok(Err(error)),
            };
            if !begun {
                begun = true;
                self.tell(Told::Begun(self.kind)).await?;
            }
            self.tell(Told::Seen { kind: self.kind, at, seen }).await?;
            if page.next.is_empty() {
                self.tell(Told::Listed(self.kind)).await?;
                progress.from = Some(page.version);
                progress.listed = true;
                progress.absences = 0;
                progress.backoff.reset();
                progress.absent.reset();
                return Ok(Ok(()));
            }
            next = page.next;
        }
    }

    /// Follows what changes until the watch ends.
    async fn follow(&mut self, from: String, progress: &mut Progress) -> Result<Result<(), ApiError>, Unheard> {
        let mut events = match self.api.watch(&from, self.rng.random()).await {
            Ok(events) => events,
            Err(error) => return Ok(Err(error)),
        };
        self.healthy(progress).await?;
        self.events(&mut events, progress).await
    }

    async fn events(&self, events: &mut Events, progress: &mut Progress) -> Result<Result<(), ApiError>, Unheard> {
        loop {
            let lines = match events.next().await {
                Ok(Some(lines)) => lines,
                Ok(None) => return Ok(Ok(())),
                Err(error) => return Ok(Err(error)),
            };
            let at = now();
            let mut seen = Vec::new();
            let mut ended = None;
            for line in lines.split(|byte| *byte == b'\n').filter(|line| !line.trim_ascii().is_empty()) {
                match event(self.kind, line) {
                    Ok(event) => {
                        progress.backoff.reset();
                        if !event.version.is_empty() {
                            progress.from = Some(event.version);
                        }
                        seen.extend(event.seen);
                    }
                    Err(error) => {
                        ended = Some(error);
                        break;
                    }
                }
            }
            if !seen.is_empty() {
                self.tell(Told::Seen { kind: self.kind, at, seen }).await?;
            }
            if let Some(error) = ended {
                return Ok(Err(error));
            }
        }
    }

    async fn healthy(&self, progress: &mut Progress) -> Result<(), Unheard> {
        progress.failures = 0;
        if std::mem::take(&mut progress.blamed) {
            tracing::info!(kind = %self.kind, "Watch works again");
            self.tell(Told::Health(self.kind, None)).await?;
        }
        Ok(())
    }

    /// The kind is not there: in another version perhaps, or not at all.
    async fn absent(&mut self, progress: &mut Progress) -> Result<Duration, Unheard> {
        progress.from = None;
        self.api.next_version();
        progress.absences += 1;
        let versions = u32::try_from(self.kind.info().versions.len()).unwrap_or(1);
        if progress.absences < versions {
            return Ok(Duration::from_millis(1));
        }
        // At the start that is an answer; later it may be a server that is just coming up.
        if progress.absences == if progress.listed { ABSENCES * versions } else { versions } {
            tracing::info!(kind = %self.kind, "Cluster does not have the kind, looking for it from time to time");
            self.tell(Told::Begun(self.kind)).await?;
            self.tell(Told::Listed(self.kind)).await?;
        }
        self.healthy(progress).await?;
        // After the pause every version is tried again.
        let pause = progress.absent.next_delay(&mut self.rng);
        Ok(if progress.absences.is_multiple_of(versions) { pause } else { Duration::from_millis(1) })
    }

    async fn failed(&mut self, progress: &mut Progress, error: &ApiError) -> Result<Duration, Unheard> {
        let by_kind = ByKind { kind: self.kind.as_str() };
        self.metrics.failures.get_or_create(&by_kind).inc();
        progress.failures += 1;
        let pause = progress.backoff.next_delay(&mut self.rng);
        let (failures, error) = (progress.failures, Report::new(error).to_string());
        // The first failure is the usual end of a connection.
        if failures >= FAILURES_TOLD {
            tracing::warn!(kind = %self.kind, failures, error, again_in = ?pause, "Watch fails");
        } else {
            tracing::info!(kind = %self.kind, error, again_in = ?pause, "Watch broke");
        }
        if failures == FAILURES_TOLD {
            progress.blamed = true;
            let known = if progress.listed { "what was last read of it stays in force" } else { "" };
            let message = format!("{} cannot be read: {error}", self.kind.info().plural);
            let finding = Finding::new(Code::Unreadable, "", message).hint(known);
            self.tell(Told::Health(self.kind, Some(finding))).await?;
        }
        Ok(pause)
    }

    async fn tell(&self, told: Told) -> Result<(), Unheard> {
        self.tell.send(told).await.map_err(|_| Unheard)
    }
}

/// An event of a watch.
#[derive(Debug)]
struct Event {
    /// What to follow from after it; empty when it does not say.
    version: String,
    seen: Option<Seen>,
}

fn event(kind: Kind, line: &[u8]) -> Result<Event, ApiError> {
    const EVENT: ApiError = ApiError::Malformed("an event of a watch");
    let line = std::str::from_utf8(line).map_err(|_| EVENT)?;
    let fields = slice::fields(line).ok_or(EVENT)?;
    let part = |name| fields.iter().find(|(field, _)| *field == name).map(|(_, value)| *value);
    let (r#type, object) = (part("type").ok_or(EVENT)?, part("object").ok_or(EVENT)?);
    match r#type.trim_matches('"') {
        "ADDED" | "MODIFIED" => {
            let seen = read(kind, object);
            let version = match &seen {
                Seen::There(there) => there.object.meta().resource_version.to_string(),
                Seen::Refused(refused) => refused.meta.resource_version.to_string(),
                Seen::Gone(..) => String::new(),
            };
            Ok(Event { version, seen: Some(seen) })
        }
        "DELETED" => {
            let meta = meta(object).ok_or(EVENT)?;
            let version = meta.resource_version.to_string();
            Ok(Event { version, seen: Some(Seen::Gone(meta.namespace, meta.name)) })
        }
        "BOOKMARK" => {
            let version = meta(object).ok_or(EVENT)?.resource_version.to_string();
            Ok(Event { version, seen: None })
        }
        "ERROR" => {
            let status: Status = serde_json::from_str(object).map_err(|_| EVENT)?;
            let code = StatusCode::from_u16(status.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            Err(if status.reason == "Expired" { ApiError::Expired } else { ApiError::of(code, &status) })
        }
        _ => Err(EVENT),
    }
}

fn read(kind: Kind, json: &str) -> Seen {
    match received(kind, json) {
        Ok(received) => Seen::There(Box::new(received)),
        Err(refused) => Seen::Refused(refused),
    }
}

fn meta(object: &str) -> Option<Meta> {
    let fields = slice::fields(object)?;
    let (_, meta) = fields.iter().find(|(field, _)| *field == "metadata")?;
    serde_json::from_str(meta).ok()
}

fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

#[cfg(test)]
mod tests;
