//! Fault injection: a pause, an answer, or both for a share of requests.

use mesh_api_xds::ir::filter::{AbortStatus, Fault as Settings, FaultAbort};
use rand_core::Rng;

use super::{Call, Flow, Needs, Reply};
use crate::draw;
use crate::fault::{Fault, FaultKind};

/// What it looks at.
pub const NEEDS: Needs = Needs::REQUEST_HEAD;

/// What was drawn for one request. Both draws are made at once, so that a seed decides both whatever happens between.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drawn {
    /// The pause; it comes first.
    pub pause: Option<std::time::Duration>,
    /// The answer.
    pub abort: Option<AbortStatus>,
}

/// Draws for one request.
#[must_use]
pub fn draw(settings: &Settings, rng: &mut impl Rng) -> Drawn {
    let pause = settings.delay.filter(|delay| draw::chance(rng, delay.share)).map(|delay| delay.duration);
    let abort = settings.abort.filter(|FaultAbort { share, .. }| draw::chance(rng, *share)).map(|abort| abort.status);
    Drawn { pause, abort }
}

impl Drawn {
    /// The pause, if one was drawn; ask [`Drawn::after_pause`] next in any case.
    #[must_use]
    pub fn first(&self) -> Flow {
        self.pause.map_or(Flow::Continue, |pause| Flow::Await(Call::Pause(pause)))
    }

    /// The answer, if one was drawn.
    #[must_use]
    pub fn after_pause(&self) -> Flow {
        let fault = Fault::new(FaultKind::AbortInjected);
        let fault = match self.abort {
            None => return Flow::Continue,
            Some(AbortStatus::Http(status)) => fault.with_status(status),
            Some(AbortStatus::Grpc(status)) => fault.with_grpc_status(u8::try_from(status).unwrap_or(2)),
        };
        Flow::Reply(Box::new(Reply::Fault(fault)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::rng;
    use mesh_api_xds::ir::PerMillion;
    use mesh_api_xds::ir::filter::FaultDelay;
    use std::time::Duration;

    fn mk_settings(delay: u32, abort: u32) -> Settings {
        Settings {
            delay: Some(FaultDelay { share: PerMillion(delay), duration: Duration::from_secs(7) }),
            abort: Some(FaultAbort { share: PerMillion(abort), status: AbortStatus::Http(555) }),
        }
    }

    #[test]
    fn shares_are_drawn_apart() {
        let mut rng = rng(5);
        let drawn: Vec<_> = (0..20_000).map(|_| draw(&mk_settings(100_000, 500_000), &mut rng)).collect();
        let count = |wanted: fn(&Drawn) -> bool| drawn.iter().filter(|drawn| wanted(drawn)).count();
        assert!((1_850..2_150).contains(&count(|drawn| drawn.pause.is_some())));
        assert!((9_700..10_300).contains(&count(|drawn| drawn.abort.is_some())));
        assert!((900..1_100).contains(&count(|drawn| drawn.pause.is_some() && drawn.abort.is_some())));
    }

    #[test]
    fn a_pause_comes_before_the_answer() {
        let both = draw(&mk_settings(1_000_000, 1_000_000), &mut rng(1));
        assert_eq!(both.first(), Flow::Await(Call::Pause(Duration::from_secs(7))));
        let fault = Fault::new(FaultKind::AbortInjected).with_status(555);
        assert_eq!(both.after_pause(), Flow::Reply(Box::new(Reply::Fault(fault))));
        let none = draw(&mk_settings(0, 0), &mut rng(1));
        assert_eq!((none.first(), none.after_pause()), (Flow::Continue, Flow::Continue));
    }
}
