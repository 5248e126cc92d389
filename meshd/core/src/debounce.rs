//! When a burst of changes becomes a snapshot.
//!
//! The first change after a quiet time fires at once, so that a single edit pays nothing. What follows closely is held
//! until [`DebounceConfig::quiet`] passes without a change, and never longer than [`DebounceConfig::max`]. Endpoint-only
//! changes do not wait: they fire at once when nothing is held, and never prolong the wait of what is.
//!
//! No clock: the hub passes `now` and sleeps until the answer.

use std::time::{Duration, Instant};

/// Settings of [`Debounce`]; the shell fills them from `PILOT_DEBOUNCE_AFTER`, `PILOT_DEBOUNCE_MAX` and
/// `PILOT_ENABLE_EDS_DEBOUNCE` when those are set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DebounceConfig {
    /// Time without a change after which held changes fire. Default 10 ms (Istio: 100 ms).
    pub quiet: Duration,
    /// Longest time a change is held. Default 250 ms (Istio: 10 s).
    pub max: Duration,
    /// Treatment of endpoint-only changes.
    pub endpoints: EndpointLane,
}

/// Treatment of endpoint-only changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndpointLane {
    /// They fire at once unless something is held, which they then join.
    Fast,
    /// They wait like any other (`PILOT_ENABLE_EDS_DEBOUNCE=true`).
    WithConfig,
}

impl Default for DebounceConfig {
    fn default() -> Self {
        Self { quiet: Duration::from_millis(10), max: Duration::from_millis(250), endpoints: EndpointLane::Fast }
    }
}

/// What a change consists of, as far as waiting goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Urgency {
    /// Anything.
    Config,
    /// Only endpoints of known services.
    Endpoints,
}

/// What to do now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    /// Build a snapshot of everything changed so far.
    Fire,
    /// Ask again at this time.
    WakeAt(Instant),
    /// Nothing is held.
    Idle,
}

/// The machine. One per hub.
#[derive(Clone, Debug)]
pub struct Debounce {
    config: DebounceConfig,
    /// Time of the last change that counts as noise, fired or held.
    last_change: Option<Instant>,
    held: Option<Held>,
}

#[derive(Clone, Copy, Debug)]
struct Held {
    first: Instant,
    last: Instant,
}

impl Debounce {
    /// A machine that has seen nothing.
    #[must_use]
    pub const fn new(config: DebounceConfig) -> Self {
        Self { config, last_change: None, held: None }
    }

    /// Takes note of a change.
    pub fn on_change(&mut self, now: Instant, urgency: Urgency) -> Due {
        if urgency == Urgency::Endpoints && self.config.endpoints == EndpointLane::Fast {
            return if self.held.is_some() { self.poll(now) } else { Due::Fire };
        }
        let quiet_before = self.last_change.is_none_or(|last| now.saturating_duration_since(last) >= self.config.quiet);
        self.last_change = Some(now);
        match &mut self.held {
            Some(held) => held.last = now,
            None if quiet_before => return Due::Fire,
            None => self.held = Some(Held { first: now, last: now }),
        }
        self.poll(now)
    }

    /// Whether what is held must go now.
    pub fn poll(&mut self, now: Instant) -> Due {
        let Some(held) = self.held else { return Due::Idle };
        let due = (held.last + self.config.quiet).min(held.first + self.config.max);
        if now >= due {
            self.held = None;
            Due::Fire
        } else {
            Due::WakeAt(due)
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[expect(clippy::disallowed_methods, reason = "an origin of made-up time")]
    fn origin() -> Instant {
        Instant::now()
    }

    #[test]
    fn a_lone_change_pays_nothing() {
        let t0 = origin();
        let mut debounce = Debounce::new(DebounceConfig::default());
        assert_eq!(debounce.on_change(t0, Urgency::Config), Due::Fire);
        assert_eq!(debounce.poll(t0), Due::Idle);
        assert_eq!(debounce.on_change(t0 + 10 * MS, Urgency::Config), Due::Fire);
    }

    #[test]
    fn a_burst_waits_for_quiet() {
        let t0 = origin();
        let mut debounce = Debounce::new(DebounceConfig::default());
        assert_eq!(debounce.on_change(t0, Urgency::Config), Due::Fire);
        assert_eq!(debounce.on_change(t0 + MS, Urgency::Config), Due::WakeAt(t0 + 11 * MS));
        assert_eq!(debounce.on_change(t0 + 5 * MS, Urgency::Config), Due::WakeAt(t0 + 15 * MS));
        assert_eq!(debounce.poll(t0 + 14 * MS), Due::WakeAt(t0 + 15 * MS));
        assert_eq!(debounce.poll(t0 + 15 * MS), Due::Fire);
        assert_eq!(debounce.poll(t0 + 16 * MS), Due::Idle);
    }

    #[test]
    fn a_steady_stream_fires_at_the_maximum() {
        let t0 = origin();
        let mut debounce = Debounce::new(DebounceConfig::default());
        let fired: Vec<u32> =
            (0..1000).step_by(5).filter(|ms| debounce.on_change(t0 + *ms * MS, Urgency::Config) == Due::Fire).collect();
        assert_eq!(fired, [0, 255, 510, 765]);
    }

    #[test]
    fn endpoints_fire_at_once_and_do_not_prolong_a_wait() {
        let t0 = origin();
        let mut debounce = Debounce::new(DebounceConfig::default());
        assert_eq!(debounce.on_change(t0, Urgency::Endpoints), Due::Fire);
        assert_eq!(debounce.on_change(t0 + MS, Urgency::Endpoints), Due::Fire);
        assert_eq!(debounce.on_change(t0 + 2 * MS, Urgency::Config), Due::Fire);
        assert_eq!(debounce.on_change(t0 + 3 * MS, Urgency::Config), Due::WakeAt(t0 + 13 * MS));
        assert_eq!(debounce.on_change(t0 + 9 * MS, Urgency::Endpoints), Due::WakeAt(t0 + 13 * MS));
        assert_eq!(debounce.on_change(t0 + 13 * MS, Urgency::Endpoints), Due::Fire);
        let slow = DebounceConfig { endpoints: EndpointLane::WithConfig, ..DebounceConfig::default() };
        let mut debounce = Debounce::new(slow);
        assert_eq!(debounce.on_change(t0, Urgency::Endpoints), Due::Fire);
        assert_eq!(debounce.on_change(t0 + MS, Urgency::Endpoints), Due::WakeAt(t0 + 11 * MS));
    }

    proptest! {
        /// Whatever comes, no change waits longer than the maximum, and none is forgotten.
        #[test]
        fn no_change_waits_longer_than_the_maximum(gaps in proptest::collection::vec((0..40u32, any::<bool>()), 1..200)) {
            let config = DebounceConfig::default();
            let mut debounce = Debounce::new(config);
            let mut now = origin();
            let mut waiting: Option<Instant> = None;
            for (gap, endpoints) in gaps {
                let next = now + gap * MS;
                while let Due::WakeAt(at) = debounce.poll(now) {
                    if at > next { break; }
                    now = at;
                    if debounce.poll(now) == Due::Fire {
                        prop_assert!(now - waiting.take().unwrap() <= config.max);
                        break;
                    }
                }
                now = next;
                let urgency = if endpoints { Urgency::Endpoints } else { Urgency::Config };
                let since = *waiting.get_or_insert(now);
                match debounce.on_change(now, urgency) {
                    Due::Fire => { prop_assert!(now - since <= config.max); waiting = None; }
                    Due::WakeAt(at) => prop_assert!(at - since <= config.max),
                    Due::Idle => prop_assert!(false, "a change was forgotten"),
                }
            }
        }
    }
}
