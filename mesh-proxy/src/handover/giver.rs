//! The running process's side of a hand-over: decides, does nothing itself.
//!
//! It serves until the new process accepts, and goes on as if nothing had been when that one fails before. For a while after,
//! the new one is on probation: should it die, the old one accepts again.

use std::fmt;
use std::time::Duration;

use tokio::time::Instant;

use super::message::VERSION;

/// Time for the new process to get its certificate and its configuration.
pub const WARM_UP: Duration = Duration::from_secs(60);
/// Time for it to accept, once told to.
pub const GOING: Duration = Duration::from_secs(10);
/// How long the old process keeps the sockets and its configuration after the new one has begun to accept.
pub const PROBATION: Duration = Duration::from_secs(10);

/// How far it has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Nobody has asked.
    Serving,
    /// A new process has the sockets and gets ready.
    Warming {
        /// When it is given up.
        until: Instant,
    },
    /// It was told to accept.
    Going {
        /// When it is given up.
        until: Instant,
    },
    /// It accepts, this process does not; that can be taken back.
    Probation {
        /// When it no longer can.
        until: Instant,
    },
    /// It is over: this process serves what it holds, then ends.
    Gone,
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A process asks, and speaks these versions.
    Asked {
        /// Oldest.
        oldest: u32,
        /// Newest.
        newest: u32,
    },
    /// A process brings a program to be started.
    Brought,
    /// The new process can serve.
    Ready,
    /// It serves.
    Active,
    /// It said what makes no sense here.
    Nonsense,
    /// The connection to it ended.
    Lost,
    /// Time has passed.
    Tick,
    /// This process was told to end.
    Ending,
}

/// What to do about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Nothing.
    Nothing,
    /// Say no, close the connection.
    Refuse(Refusal),
    /// Give the sockets.
    Offer {
        /// In this version.
        version: u32,
    },
    /// Start the program that was brought.
    Start,
    /// Tell it to accept.
    Go,
    /// Tell it to end, close the connection; nothing else changes.
    Abort(Refusal),
    /// It is gone, nothing else changes.
    Forget,
    /// Stop accepting, ask connections to leave, keep the sockets.
    StopAccepting,
    /// Accept again.
    Resume,
    /// Close the sockets, leave the control plane.
    LetGo,
}

/// Why a process does not get the sockets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// No version in common.
    Version {
        /// Oldest that it speaks.
        oldest: u32,
        /// Newest that it speaks.
        newest: u32,
    },
    /// This process is ending.
    Ending,
    /// This process has no sockets any more.
    NotServing,
    /// It did not get ready in time.
    NotReady,
    /// It was told to accept and did not.
    NotActive,
    /// It said what makes no sense now.
    Confused,
    /// It would not live longer than this process.
    Dependent,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Version { oldest, newest } => write!(
                f,
                "the new process speaks versions {oldest} to {newest} of the hand-over, the running one only {VERSION}; it has to \
                 be started anew instead"
            ),
            Self::Ending => f.write_str("the running process was told to end"),
            Self::NotServing => f.write_str("the process that was asked has handed over already"),
            Self::NotReady => {
                write!(f, "the new process was not ready within {WARM_UP:?}; its log says what was missing")
            }
            Self::NotActive => write!(f, "the new process did not accept within {GOING:?}"),
            Self::Dependent => f.write_str(
                "the running process is the first of its process namespace, whose end ends the new process too; `mesh-proxy \
                 replace` lets it start a program as its child",
            ),
            Self::Confused => f.write_str("the new process said what makes no sense at this point"),
        }
    }
}

/// The running process's side.
#[derive(Clone, Copy, Debug)]
pub struct Giver {
    stage: Stage,
    ending: bool,
}

impl Default for Giver {
    fn default() -> Self {
        Self { stage: Stage::Serving, ending: false }
    }
}

impl Giver {
    /// How far it has come.
    #[must_use]
    pub const fn stage(&self) -> Stage {
        self.stage
    }

    /// Whether this process was told to end.
    #[must_use]
    pub const fn is_ending(&self) -> bool {
        self.ending
    }

    /// When [`Event::Tick`] is due.
    #[must_use]
    pub const fn deadline(&self) -> Option<Instant> {
        match self.stage {
            Stage::Warming { until } | Stage::Going { until } | Stage::Probation { until } => Some(until),
            Stage::Serving | Stage::Gone => None,
        }
    }

    /// Takes an event.
    #[must_use]
    pub fn on(&mut self, event: Event, now: Instant) -> Action {
        match (self.stage, event) {
            (stage, Event::Ending) => self.told_to_end(stage),
            (Stage::Gone, Event::Asked { .. } | Event::Brought) => Action::Refuse(Refusal::NotServing),
            (_, Event::Asked { .. } | Event::Brought) if self.ending => Action::Refuse(Refusal::Ending),
            (Stage::Serving, Event::Brought) => Action::Start,
            (Stage::Serving, Event::Asked { oldest, newest }) => self.asked(oldest, newest, now),
            (Stage::Warming { .. }, Event::Ready) => {
                self.stage = Stage::Going { until: now + GOING };
                Action::Go
            }
            (Stage::Going { .. }, Event::Active) => {
                self.stage = Stage::Probation { until: now + PROBATION };
                Action::StopAccepting
            }
            (Stage::Warming { .. } | Stage::Going { .. }, Event::Lost) => self.back(Action::Forget),
            (Stage::Probation { .. }, Event::Lost) => self.back(Action::Resume),
            (Stage::Warming { until }, Event::Tick) if until <= now => self.back(Action::Abort(Refusal::NotReady)),
            (Stage::Going { until }, Event::Tick) if until <= now => self.back(Action::Abort(Refusal::NotActive)),
            (Stage::Probation { until }, Event::Tick) if until <= now => {
                self.stage = Stage::Gone;
                Action::LetGo
            }
            (_, Event::Tick | Event::Lost) => Action::Nothing,
            (Stage::Warming { .. } | Stage::Going { .. }, _) => self.back(Action::Abort(Refusal::Confused)),
            // A new process that serves is not taken its sockets for a word too many.
            (Stage::Serving | Stage::Probation { .. } | Stage::Gone, _) => Action::Nothing,
        }
    }

    fn asked(&mut self, oldest: u32, newest: u32, now: Instant) -> Action {
        if !(oldest..=newest).contains(&VERSION) {
            return Action::Refuse(Refusal::Version { oldest, newest });
        }
        self.stage = Stage::Warming { until: now + WARM_UP };
        Action::Offer { version: VERSION }
    }

    /// Who has not been told to accept yet must not begin now; who has, goes on alone.
    fn told_to_end(&mut self, stage: Stage) -> Action {
        self.ending = true;
        if matches!(stage, Stage::Warming { .. }) { self.back(Action::Abort(Refusal::Ending)) } else { Action::Nothing }
    }

    fn back(&mut self, action: Action) -> Action {
        self.stage = Stage::Serving;
        action
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ASKED: Event = Event::Asked { oldest: 1, newest: 1 };

    fn mk_giver(events: &[Event]) -> (Giver, Instant) {
        let (mut giver, now) = (Giver::default(), Instant::now());
        for event in events {
            let _ = giver.on(*event, now);
        }
        (giver, now)
    }

    #[tokio::test(start_paused = true)]
    async fn the_old_process_accepts_until_the_new_one_does() {
        let (mut giver, now) = mk_giver(&[]);
        assert_eq!(giver.on(ASKED, now), Action::Offer { version: 1 });
        assert_eq!(giver.on(Event::Ready, now), Action::Go);
        assert_eq!(giver.on(Event::Active, now), Action::StopAccepting);
        assert_eq!(giver.on(Event::Tick, now + PROBATION / 2), Action::Nothing);
        assert_eq!(giver.on(Event::Tick, now + PROBATION), Action::LetGo);
        assert_eq!((giver.stage(), giver.deadline()), (Stage::Gone, None));
        assert_eq!(giver.on(ASKED, now), Action::Refuse(Refusal::NotServing));
    }

    #[tokio::test(start_paused = true)]
    async fn a_death_before_it_accepts_changes_nothing_and_the_next_may_ask() {
        for events in [&[ASKED][..], &[ASKED, Event::Ready]] {
            let (mut giver, now) = mk_giver(events);
            assert_eq!(giver.on(Event::Lost, now), Action::Forget);
            assert_eq!(giver.on(ASKED, now), Action::Offer { version: 1 });
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_death_on_probation_is_made_good() {
        let (mut giver, now) = mk_giver(&[ASKED, Event::Ready, Event::Active]);
        assert_eq!(giver.on(Event::Lost, now + PROBATION / 2), Action::Resume);
        assert_eq!(giver.stage(), Stage::Serving);
        let (mut giver, now) = mk_giver(&[ASKED, Event::Ready, Event::Active]);
        assert_eq!(giver.on(Event::Tick, now + PROBATION), Action::LetGo);
        assert_eq!(giver.on(Event::Lost, now + PROBATION), Action::Nothing);
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_late_is_given_up() {
        let (mut giver, now) = mk_giver(&[ASKED]);
        assert_eq!(giver.on(Event::Tick, now + WARM_UP), Action::Abort(Refusal::NotReady));
        assert_eq!(giver.stage(), Stage::Serving);
        let (mut giver, now) = mk_giver(&[ASKED, Event::Ready]);
        assert_eq!(giver.on(Event::Tick, now + GOING), Action::Abort(Refusal::NotActive));
    }

    #[tokio::test(start_paused = true)]
    async fn another_version_is_refused_by_name() {
        for (oldest, newest) in [(2, 3), (0, 0), (3, 1)] {
            let (mut giver, now) = mk_giver(&[]);
            let action = giver.on(Event::Asked { oldest, newest }, now);
            assert_eq!(action, Action::Refuse(Refusal::Version { oldest, newest }));
            assert_eq!(giver.stage(), Stage::Serving);
        }
        let (mut giver, now) = mk_giver(&[]);
        assert_eq!(giver.on(Event::Asked { oldest: 1, newest: 7 }, now), Action::Offer { version: 1 });
    }

    #[tokio::test(start_paused = true)]
    async fn a_process_that_ends_hands_over_only_what_it_has_promised() {
        let (mut giver, now) = mk_giver(&[ASKED]);
        assert_eq!(giver.on(Event::Ending, now), Action::Abort(Refusal::Ending));
        assert_eq!(giver.on(ASKED, now), Action::Refuse(Refusal::Ending));
        assert_eq!(giver.on(Event::Brought, now), Action::Refuse(Refusal::Ending));
        let (mut giver, now) = mk_giver(&[ASKED, Event::Ready]);
        assert_eq!(giver.on(Event::Ending, now), Action::Nothing);
        assert_eq!(giver.on(Event::Active, now), Action::StopAccepting);
    }

    #[tokio::test(start_paused = true)]
    async fn a_program_is_started_by_who_serves() {
        let (mut giver, now) = mk_giver(&[]);
        assert_eq!(giver.on(Event::Brought, now), Action::Start);
        assert_eq!(giver.on(ASKED, now), Action::Offer { version: 1 });
        assert_eq!(giver.on(Event::Brought, now), Action::Abort(Refusal::Confused));
        let (mut giver, now) = mk_giver(&[ASKED, Event::Ready, Event::Active]);
        assert_eq!(giver.on(Event::Tick, now + PROBATION), Action::LetGo);
        assert_eq!(giver.on(Event::Brought, now), Action::Refuse(Refusal::NotServing));
    }

    #[tokio::test(start_paused = true)]
    async fn words_out_of_place_end_the_attempt() {
        for events in [
            &[ASKED, Event::Active][..],
            &[ASKED, ASKED],
            &[ASKED, Event::Nonsense],
            &[ASKED, Event::Ready, Event::Ready],
        ] {
            let (mut giver, now) = mk_giver(&events[..events.len() - 1]);
            assert_eq!(giver.on(events[events.len() - 1], now), Action::Abort(Refusal::Confused), "{events:?}");
            assert_eq!(giver.stage(), Stage::Serving);
        }
    }
}
