//! The new process's side of a hand-over: decides, does nothing itself.

/// How far it has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// It has the sockets, and gets its certificate and configuration.
    Warming,
    /// It has said that it can serve.
    Ready,
    /// It serves.
    Active,
    /// It is to end.
    Failed,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Everything needed to serve is there.
    Prepared,
    /// The running process says: serve.
    Go,
    /// It says: end.
    Abort {
        /// Why.
        reason: String,
    },
    /// The connection to it ended without a word.
    Lost,
    /// It said what makes no sense.
    Confused,
}

/// What to do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Nothing.
    Nothing,
    /// Tell the running process.
    SayReady,
    /// Accept, then tell the running process.
    Serve,
    /// Accept: there is nobody to tell.
    ServeAlone,
    /// End with this reason; the running process goes on.
    Fail(String),
}

/// The new process's side, from the moment it has the sockets.
#[derive(Clone, Copy, Debug)]
pub struct Taker {
    stage: Stage,
    /// The running process is gone: its sockets live on here only.
    alone: bool,
}

impl Default for Taker {
    fn default() -> Self {
        Self { stage: Stage::Warming, alone: false }
    }
}

impl Taker {
    /// How far it has come.
    #[must_use]
    pub const fn stage(&self) -> Stage {
        self.stage
    }

    /// Whether the running process is gone.
    #[must_use]
    pub const fn is_alone(&self) -> bool {
        self.alone
    }

    /// Takes an event.
    ///
    /// A running process that gives up says so. One that is gone without a word has died, and then these sockets are the only
    /// ones: connections wait in them, so the new process goes on.
    #[must_use]
    pub fn on(&mut self, event: Event) -> Action {
        match (self.stage, event) {
            (Stage::Warming, Event::Prepared) if self.alone => self.serve(Action::ServeAlone),
            (Stage::Warming, Event::Prepared) => {
                self.stage = Stage::Ready;
                Action::SayReady
            }
            (Stage::Ready, Event::Go) => self.serve(Action::Serve),
            (Stage::Warming, Event::Lost) => {
                self.alone = true;
                Action::Nothing
            }
            (Stage::Ready, Event::Lost) => {
                self.alone = true;
                self.serve(Action::ServeAlone)
            }
            (Stage::Warming | Stage::Ready, Event::Abort { reason }) => self.fail(reason),
            (Stage::Warming | Stage::Ready, Event::Confused | Event::Go) => {
                self.fail("the running process does not keep to the protocol of the hand-over".to_owned())
            }
            (Stage::Ready | Stage::Active | Stage::Failed, _) => Action::Nothing,
        }
    }

    fn serve(&mut self, action: Action) -> Action {
        self.stage = Stage::Active;
        action
    }

    fn fail(&mut self, reason: String) -> Action {
        self.stage = Stage::Failed;
        Action::Fail(reason)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(events: &[Event], expect: &Action) {
        let mut taker = Taker::default();
        let last = events.iter().map(|event| taker.on(event.clone())).last();
        assert_eq!(last.as_ref(), Some(expect), "{events:?}");
    }

    fn abort() -> Event {
        Event::Abort { reason: "late".to_owned() }
    }

    #[test]
    fn it_serves_only_when_told() {
        check(&[Event::Prepared], &Action::SayReady);
        check(&[Event::Prepared, Event::Go], &Action::Serve);
        check(&[Event::Prepared, Event::Prepared], &Action::Nothing);
    }

    #[test]
    fn it_ends_when_the_running_process_gives_it_up() {
        check(&[abort()], &Action::Fail("late".to_owned()));
        check(&[Event::Prepared, abort()], &Action::Fail("late".to_owned()));
        check(&[Event::Prepared, Event::Go, abort()], &Action::Nothing);
        check(&[abort(), Event::Prepared], &Action::Nothing);
    }

    #[test]
    fn it_goes_on_alone_when_the_running_process_is_gone() {
        check(&[Event::Prepared, Event::Lost], &Action::ServeAlone);
        check(&[Event::Lost], &Action::Nothing);
        check(&[Event::Lost, Event::Prepared], &Action::ServeAlone);
        check(&[Event::Prepared, Event::Go, Event::Lost], &Action::Nothing);
    }

    #[test]
    fn words_out_of_place_end_it() {
        for events in [&[Event::Go][..], &[Event::Confused], &[Event::Prepared, Event::Confused]] {
            let mut taker = Taker::default();
            let last = events.iter().map(|event| taker.on(event.clone())).last();
            assert!(matches!(last, Some(Action::Fail(_))), "{events:?}");
            assert_eq!(taker.stage(), Stage::Failed);
        }
    }
}
