//! In which order the proxy ends: decides, does nothing itself.
//!
//! Inbound connections are asked to go elsewhere from the first moment, but both sides stay open: peers learn of the withdrawn
//! endpoint later than we, and the application may need its outbound connections to finish. An application may be gone long
//! before its last client has heard of it; then its requests are refused here, in words that send them elsewhere, and a
//! connection that were cut instead would take one with it.
//!
//! | Told by | Then | Ends |
//! |---|---|---|
//! | SIGTERM | inbound drains | after `terminationDrainDuration`, or when idle after a minimum where that is asked for |
//! | SIGINT | inbound drains | as above, or as soon as nothing is connected: somebody waits at a terminal |
//! | `POST /drain` | inbound drains | not by itself |
//! | SIGTERM after `/drain` | the kubelet ends a native sidecar after the application has ended | when no client has been connected for two seconds, at once if there never was one, at the latest after `terminationDrainDuration` |
//! | SIGINT after `/drain` | | at once |
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
    /// A signal came after `/drain`, and no client is left.
    Drained,
    /// A second signal came.
    SecondSignal,
    /// The time is over.
    Elapsed,
    /// No connection is left.
    Idle,
    /// Another process took over, and has ended.
    Succeeded,
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Asked => "it was asked to end at once",
            Self::Drained => "it was told to end after it had drained, and no client is left",
            Self::SecondSignal => "a second signal came",
            Self::Elapsed => "the time to drain is over",
            Self::Idle => "no connection is left",
            Self::Succeeded => "the process that took over has ended",
        })
    }
}

impl Why {
    /// Whether requests under way may end first. Who asked for an end at once does not wait for them.
    #[must_use]
    pub const fn lets_requests_end(self) -> bool {
        match self {
            Self::Asked | Self::SecondSignal => false,
            Self::Drained | Self::Elapsed | Self::Idle | Self::Succeeded => true,
        }
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
        /// What ends it early.
        early: Early,
    },
}

/// What ends a process before its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Early {
    /// Nothing.
    No,
    /// That nothing is connected.
    Unconnected,
    /// That no client is connected.
    NoClient,
}

/// Connections that are open.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Open {
    /// All of them.
    pub all: usize,
    /// Those of clients: at a gateway all, beside an application those to it.
    pub clients: usize,
    /// Connections to the application since the start.
    pub inbound: u64,
}

/// How long no client may have been connected before it is believed that none comes any more. One that was asked to go
/// elsewhere comes back for as long as it knows nothing else; an address that is gone would let it wait for a connection.
const QUIET: Duration = Duration::from_secs(2);

/// The end of a process.
#[derive(Clone, Copy, Debug)]
pub struct Ending {
    settings: DrainSettings,
    stage: Stage,
    /// Since when no client has been connected, and how many had been until then.
    quiet: Option<(Instant, u64)>,
}

impl Ending {
    /// A process that serves.
    #[must_use]
    pub const fn new(settings: DrainSettings) -> Self {
        Self { settings, stage: Stage::Serving, quiet: None }
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
                let early = if event == Event::Interrupt { Early::Unconnected } else { Early::No };
                self.stage = Stage::Ending { since: now, early };
                Action::Drain
            }
            (Event::Terminate, Stage::Draining) => {
                self.stage = Stage::Ending { since: now, early: Early::NoClient };
                Action::Nothing
            }
            (Event::Interrupt, Stage::Draining) => Action::Exit(Why::Drained),
            (Event::Terminate | Event::Interrupt, Stage::Ending { since, .. })
                if now.saturating_duration_since(since) < ONE_SIGNAL =>
            {
                Action::Nothing
            }
            (Event::Terminate | Event::Interrupt, Stage::Ending { .. }) => Action::Exit(Why::SecondSignal),
        }
    }

    /// Whether it ends now that these connections are open.
    #[must_use]
    pub fn check(&mut self, now: Instant, open: Open) -> Option<Why> {
        let Stage::Ending { since, early } = self.stage else { return None };
        let elapsed = now.saturating_duration_since(since);
        let is_idle = open.all == 0;
        match (early, self.settings.until_idle) {
            (Early::Unconnected, _) if is_idle => Some(Why::Idle),
            (Early::NoClient, _) if self.is_forgotten(now, open) => Some(Why::Drained),
            // The application is gone: to wait for a client that stays would serve nobody.
            (Early::NoClient, _) => (elapsed >= self.settings.duration).then_some(Why::Elapsed),
            (_, Some(minimum)) => (elapsed >= minimum && is_idle).then_some(Why::Idle),
            (_, None) => (elapsed >= self.settings.duration).then_some(Why::Elapsed),
        }
    }

    /// Whether no client knows this workload any more. A Job never had one.
    fn is_forgotten(&mut self, now: Instant, open: Open) -> bool {
        if open.inbound == 0 {
            return open.clients == 0;
        }
        match self.quiet {
            _ if open.clients > 0 => self.quiet = None,
            Some((since, inbound)) if inbound == open.inbound => return now.saturating_duration_since(since) >= QUIET,
            Some(_) | None => self.quiet = Some((now, open.inbound)),
        }
        false
    }

    /// Whether it has been told to end, so that [`check`](Self::check) is to be asked again.
    #[must_use]
    pub const fn is_ending(&self) -> bool {
        matches!(self.stage, Stage::Ending { .. })
    }
}

/// Signals within this time are one: a terminal and a service manager tell all processes of a group, and a process passes the
/// signal on to its successor.
const ONE_SIGNAL: Duration = Duration::from_millis(250);

/// How often [`Ending::check`] is asked while the process ends.
pub const CHECK: Duration = Duration::from_millis(50);

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn mk_ending(until_idle: Option<Duration>) -> Ending {
        Ending::new(DrainSettings { duration: 5 * SECOND, until_idle })
    }

    const fn mk_open(all: usize, clients: usize) -> Open {
        Open { all, clients, inbound: 0 }
    }

    #[tokio::test(start_paused = true)]
    async fn sigterm_serves_on_for_the_whole_time_even_with_no_connection() {
        let (mut ending, start) = (mk_ending(None), Instant::now());
        assert_eq!(ending.check(start, mk_open(0, 0)), None);
        assert_eq!(ending.on(Event::Terminate, start), Action::Drain);
        assert_eq!(ending.check(start + 4 * SECOND, mk_open(0, 0)), None);
        assert_eq!(ending.check(start + 5 * SECOND, mk_open(3, 0)), Some(Why::Elapsed));
    }

    #[tokio::test(start_paused = true)]
    async fn until_idle_waits_for_the_minimum_then_for_the_last_connection() {
        let (mut ending, start) = (mk_ending(Some(3 * SECOND)), Instant::now());
        assert_eq!(ending.on(Event::Terminate, start), Action::Drain);
        assert_eq!(ending.check(start + 2 * SECOND, mk_open(0, 0)), None);
        assert_eq!(ending.check(start + 3 * SECOND, mk_open(1, 0)), None);
        assert_eq!(ending.check(start + 300 * SECOND, mk_open(1, 0)), None);
        assert_eq!(ending.check(start + 300 * SECOND, mk_open(0, 0)), Some(Why::Idle));
    }

    #[tokio::test(start_paused = true)]
    async fn a_native_sidecar_drains_for_as_long_as_the_application_lives() {
        let (mut ending, start) = (mk_ending(None), Instant::now());
        assert_eq!(ending.on(Event::Drain, start), Action::Drain);
        assert_eq!(ending.on(Event::Drain, start), Action::Nothing);
        assert!(!ending.is_ending());
        assert_eq!(ending.check(start + 3600 * SECOND, mk_open(0, 0)), None);
        let told = start + 3600 * SECOND;
        assert_eq!(ending.on(Event::Terminate, told), Action::Nothing);
        assert_eq!(ending.check(told, mk_open(2, 0)), Some(Why::Drained), "a Job's proxy does not outlive it");
    }

    #[tokio::test(start_paused = true)]
    async fn after_its_application_it_refuses_until_the_last_client_has_gone() {
        for until_idle in [None, Some(SECOND)] {
            let (mut ending, start) = (mk_ending(until_idle), Instant::now());
            assert_eq!(ending.on(Event::Drain, start), Action::Drain);
            assert_eq!(ending.on(Event::Terminate, start + SECOND), Action::Nothing);
            let open = |clients, inbound| Open { all: 2 + clients, clients, inbound };
            assert_eq!(ending.check(start + SECOND, open(1, 3)), None);
            assert_eq!(ending.check(start + SECOND, open(0, 3)), None, "it was asked to go, and may come back");
            assert_eq!(ending.check(start + 2 * SECOND, open(0, 4)), None, "one came and went");
            assert_eq!(ending.check(start + 3 * SECOND, open(0, 4)), None);
            assert_eq!(ending.check(start + 4 * SECOND, open(0, 4)), Some(Why::Drained));
            assert_eq!(ending.check(start + 6 * SECOND, open(1, 5)), Some(Why::Elapsed));
            assert_eq!(ending.on(Event::Terminate, start + 2 * SECOND), Action::Exit(Why::SecondSignal));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn somebody_at_a_terminal_does_not_wait_for_nothing() {
        let (mut ending, start) = (mk_ending(None), Instant::now());
        assert_eq!(ending.on(Event::Interrupt, start), Action::Drain);
        assert_eq!(ending.check(start, mk_open(1, 0)), None);
        assert_eq!(ending.check(start, mk_open(0, 0)), Some(Why::Idle));
        assert_eq!(ending.on(Event::Interrupt, start), Action::Nothing);
        assert_eq!(ending.on(Event::Interrupt, start + SECOND), Action::Exit(Why::SecondSignal));
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
