//! In which order the proxy ends: decides, does nothing itself.
//!
//! Inbound connections are asked to go elsewhere from the first moment, but both sides stay open: peers learn of the withdrawn
//! endpoint later than we, and the application may need its outbound connections to finish.
//!
//! | Told by | Then | Ends |
//! |---|---|---|
//! | SIGTERM | inbound drains | after `terminationDrainDuration`, or when idle after a minimum where that is asked for |
//! | SIGINT | inbound drains | as above, or as soon as nothing is connected: somebody waits at a terminal |
//! | `POST /drain` | inbound drains | not by itself |
//! | SIGTERM or SIGINT after `/drain` | | at once: the kubelet ends a native sidecar after the application has ended |
//! | a second signal, `POST /quitquitquit` | | at once |

use std::fmt;
use std::time::Duration;

use tokio::time::Instant;

use crate::bootstrap::DrainSettings;

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// SIGTERM.
    Terminate,
    /// SIGINT.
    Interrupt,
    /// `POST /drain`.
    Drain,
    /// `POST /quitquitquit`.
    Quit,
}

/// What to do about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Nothing.
    Nothing,
    /// Ask inbound connections to go elsewhere (at a gateway: all).
    Drain,
    /// End the process.
    Exit(Why),
}

/// Why the process ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// It was asked to, at once.
    Asked,
    /// A signal came after `/drain`.
    Drained,
    /// A second signal came.
    SecondSignal,
    /// The time is over.
    Elapsed,
    /// No connection is left.
    Idle,
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Asked => "it was asked to end at once",
            Self::Drained => "it was told to end after it had drained",
            Self::SecondSignal => "a second signal came",
            Self::Elapsed => "the time to drain is over",
            Self::Idle => "no connection is left",
        })
    }
}

/// How far it has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Serving,
    /// By `/drain`, with no end of its own.
    Draining,
    /// By a signal.
    Ending {
        /// When it came.
        since: Instant,
        /// It ends early when nothing is connected.
        when_idle: bool,
    },
}

/// The end of a process.
#[derive(Clone, Copy, Debug)]
pub struct Ending {
    settings: DrainSettings,
    stage: Stage,
}

impl Ending {
    /// A process that serves.
    #[must_use]
    pub const fn new(settings: DrainSettings) -> Self {
        Self { settings, stage: Stage::Serving }
    }

    /// Takes an event.
    #[must_use]
    pub fn on(&mut self, event: Event, now: Instant) -> Action {
        match (event, self.stage) {
            (Event::Quit, _) => Action::Exit(Why::Asked),
            (Event::Drain, Stage::Serving) => {
                self.stage = Stage::Draining;
                Action::Drain
            }
            (Event::Drain, Stage::Draining | Stage::Ending { .. }) => Action::Nothing,
            (Event::Terminate | Event::Interrupt, Stage::Serving) => {
                self.stage = Stage::Ending { since: now, when_idle: event == Event::Interrupt };
                Action::Drain
            }
            (Event::Terminate | Event::Interrupt, Stage::Draining) => Action::Exit(Why::Drained),
            (Event::Terminate | Event::Interrupt, Stage::Ending { .. }) => Action::Exit(Why::SecondSignal),
        }
    }

    /// Whether it ends now that this many connections are open.
    #[must_use]
    pub fn check(&self, now: Instant, connections: usize) -> Option<Why> {
        let Stage::Ending { since, when_idle } = self.stage else { return None };
        let elapsed = now.saturating_duration_since(since);
        let is_idle = connections == 0;
        match self.settings.until_idle {
            _ if when_idle && is_idle => Some(Why::Idle),
            Some(minimum) => (elapsed >= minimum && is_idle).then_some(Why::Idle),
            None => (elapsed >= self.settings.duration).then_some(Why::Elapsed),
        }
    }

    /// Whether it has been told to end, so that [`check`](Self::check) is to be asked again.
    #[must_use]
    pub const fn is_ending(&self) -> bool {
        matches!(self.stage, Stage::Ending { .. })
    }
}

/// How often [`Ending::check`] is asked while the process ends.
pub const CHECK: Duration = Duration::from_millis(50);

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn mk_ending(until_idle: Option<Duration>) -> Ending {
        Ending::new(DrainSettings { duration: 5 * SECOND, until_idle })
    }

    #[tokio::test(start_paused = true)]
    async fn sigterm_serves_on_for_the_whole_time_even_with_no_connection() {
        let (mut ending, start) = (mk_ending(None), Instant::now());
        assert_eq!(ending.check(start, 0), None);
        assert_eq!(ending.on(Event::Terminate, start), Action::Drain);
        assert_eq!(ending.check(start + 4 * SECOND, 0), None);
        assert_eq!(ending.check(start + 5 * SECOND, 3), Some(Why::Elapsed));
    }

    #[tokio::test(start_paused = true)]
    async fn until_idle_waits_for_the_minimum_then_for_the_last_connection() {
        let (mut ending, start) = (mk_ending(Some(3 * SECOND)), Instant::now());
        assert_eq!(ending.on(Event::Terminate, start), Action::Drain);
        assert_eq!(ending.check(start + 2 * SECOND, 0), None);
        assert_eq!(ending.check(start + 3 * SECOND, 1), None);
        assert_eq!(ending.check(start + 300 * SECOND, 1), None);
        assert_eq!(ending.check(start + 300 * SECOND, 0), Some(Why::Idle));
    }

    #[tokio::test(start_paused = true)]
    async fn a_native_sidecar_drains_for_as_long_as_the_application_lives() {
        let (mut ending, start) = (mk_ending(None), Instant::now());
        assert_eq!(ending.on(Event::Drain, start), Action::Drain);
        assert_eq!(ending.on(Event::Drain, start), Action::Nothing);
        assert!(!ending.is_ending());
        assert_eq!(ending.check(start + 3600 * SECOND, 0), None);
        assert_eq!(ending.on(Event::Terminate, start + 3600 * SECOND), Action::Exit(Why::Drained));
    }

    #[tokio::test(start_paused = true)]
    async fn somebody_at_a_terminal_does_not_wait_for_nothing() {
        let (mut ending, start) = (mk_ending(None), Instant::now());
        assert_eq!(ending.on(Event::Interrupt, start), Action::Drain);
        assert_eq!(ending.check(start, 1), None);
        assert_eq!(ending.check(start, 0), Some(Why::Idle));
        assert_eq!(ending.on(Event::Interrupt, start), Action::Exit(Why::SecondSignal));
    }

    #[tokio::test(start_paused = true)]
    async fn quit_ends_it_in_any_stage() {
        for before in [None, Some(Event::Drain), Some(Event::Terminate)] {
            let mut ending = mk_ending(None);
            if let Some(event) = before {
                assert_eq!(ending.on(event, Instant::now()), Action::Drain);
            }
            assert_eq!(ending.on(Event::Quit, Instant::now()), Action::Exit(Why::Asked));
        }
    }
}
