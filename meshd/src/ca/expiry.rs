//! When the authority's certificates end, and the alarm before that.
//!
//! Nobody may do anything about it for a long time, so that each step is told once: a month before, a week before, and when it
//! is too late. A bundle of roots ends with the last of them: an old one beside its successor is how roots are replaced.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use mesh_ca::authority::{Authority as _, LocalAuthority};

/// From then on an operator should do something. Source: our judgement; a plugged-in authority needs people.
const SOON: Duration = Duration::from_secs(30 * 24 * 3600);
/// From then on an operator must.
const URGENT: Duration = Duration::from_secs(7 * 24 * 3600);

/// How near the end is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Nearness {
    /// More than 30 days away.
    Far,
    /// Within 30 days.
    Soon,
    /// Within seven days.
    Urgent,
    /// It is over.
    Expired,
}

/// What ends, and when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Expiry {
    /// `root` or `issuer`, as in labels of metrics.
    pub(crate) what: &'static str,
    /// The end.
    pub(crate) not_after: SystemTime,
}

/// The expiries of the moment, for who shows them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Expiries(Arc<ArcSwap<Vec<Expiry>>>);

/// Remembers what was told.
#[derive(Debug, Default)]
pub(crate) struct Alarm {
    told: BTreeMap<&'static str, Nearness>,
}

impl Nearness {
    /// The word on pages.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Far => "fine",
            Self::Soon => "soon",
            Self::Urgent => "urgent",
            Self::Expired => "expired",
        }
    }
}

impl Expiry {
    /// How near the end is.
    pub(crate) fn nearness(&self, now: SystemTime) -> Nearness {
        match self.not_after.duration_since(now) {
            Err(_) => Nearness::Expired,
            Ok(left) if left <= URGENT => Nearness::Urgent,
            Ok(left) if left <= SOON => Nearness::Soon,
            Ok(_) => Nearness::Far,
        }
    }
}

impl Expiries {
    /// Those of an authority.
    pub(crate) fn of(authority: &LocalAuthority) -> Vec<Expiry> {
        let root = authority.bundle().roots().iter().map(|root| root.not_after).max();
        let of = |what, not_after: Option<SystemTime>| not_after.map(|not_after| Expiry { what, not_after });
        of("root", root).into_iter().chain(of("issuer", authority.not_after())).collect()
    }

    /// Replaces them.
    pub(crate) fn set(&self, expiries: Vec<Expiry>) {
        self.0.store(Arc::new(expiries));
    }

    /// All of them.
    pub(crate) fn now(&self) -> Vec<Expiry> {
        Vec::clone(&self.0.load())
    }
}

impl Alarm {
    /// What came nearer to its end than was told before. What was replaced may be told anew one day.
    pub(crate) fn nearer(&mut self, expiries: &[Expiry], now: SystemTime) -> Vec<(Expiry, Nearness)> {
        let mut nearer = Vec::new();
        for expiry in expiries {
            let nearness = expiry.nearness(now);
            let before = self.told.insert(expiry.what, nearness).unwrap_or(Nearness::Far);
            if nearness > before {
                nearer.push((*expiry, nearness));
            }
        }
        nearer
    }
}

#[cfg(test)]
mod tests {
    use mesh_ca::time::from_unix;

    use super::*;

    const DAY: i64 = 24 * 3600;

    #[test]
    fn each_step_is_told_once_and_again_after_a_replacement() {
        let root = |day: i64| [Expiry { what: "root", not_after: from_unix(day * DAY) }];
        let mut alarm = Alarm::default();
        let mut told = |expiries: &[Expiry], day: i64| -> Vec<&'static str> {
            alarm.nearer(expiries, from_unix(day * DAY)).iter().map(|(_, nearness)| nearness.as_str()).collect()
        };
        assert_eq!(told(&root(100), 10), [""; 0]);
        assert_eq!(told(&root(100), 71), ["soon"]);
        assert_eq!(told(&root(100), 72), [""; 0]);
        assert_eq!(told(&root(100), 94), ["urgent"]);
        assert_eq!(told(&root(100), 101), ["expired"]);
        assert_eq!(told(&root(400), 102), [""; 0], "it was replaced");
        assert_eq!(told(&root(400), 380), ["soon"]);
    }
}
