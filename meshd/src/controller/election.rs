//! Who of several replicas acts: decided from what a Lease says and from when we saw it change. Pure: no clock, no client.
//!
//! Clocks of other machines are not believed: a Lease has expired when it did not change for its duration by **our** clock
//! (as in client-go). A leader that could not renew in time stops before anybody else may start.

use std::time::{Duration, Instant};

/// How an election runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Timing {
    /// How long a Lease holds without being renewed.
    pub(crate) lease: Duration,
    /// How long a leader goes on acting after it renewed last; shorter than that.
    pub(crate) deadline: Duration,
    /// Pause between two tries.
    pub(crate) retry: Duration,
}

impl Default for Timing {
    /// The times that Kubernetes' own components use (client-go): 15 s, 10 s, 2 s.
    fn default() -> Self {
        Self { lease: Duration::from_secs(15), deadline: Duration::from_secs(10), retry: Duration::from_secs(2) }
    }
}

/// What a Lease says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Record {
    /// Who holds it; empty when it was released.
    pub(crate) holder: String,
    /// For how long without a renewal.
    pub(crate) lease: Duration,
    /// How often it changed hands.
    pub(crate) transitions: i32,
    /// Changes with each renewal; only compared.
    pub(crate) renewed: String,
}

/// What to do about the Lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Make it, held by us.
    Create,
    /// Write it over what was found, held by us, with this number of transitions.
    Take {
        /// The number.
        transitions: i32,
    },
    /// Somebody else holds it.
    Wait,
}

/// One replica's part in an election.
#[derive(Clone, Debug)]
pub(crate) struct Election {
    me: String,
    timing: Timing,
    /// What was found last, and when it was first found so.
    seen: Option<(Record, Instant)>,
    /// When the last renewal that succeeded was begun.
    renewed: Option<Instant>,
}

impl Election {
    /// A replica of this name, which no other replica has.
    pub(crate) fn new(me: String, timing: Timing) -> Self {
        Self { me, timing, seen: None, renewed: None }
    }

    /// Its name.
    pub(crate) fn me(&self) -> &str {
        &self.me
    }

    /// Its times.
    pub(crate) const fn timing(&self) -> Timing {
        self.timing
    }

    /// What to do about the Lease as it was found at `now`; `None` is no Lease.
    pub(crate) fn step(&mut self, found: Option<Record>, now: Instant) -> Step {
        let Some(found) = found else {
            self.seen = None;
            return Step::Create;
        };
        let transitions = found.transitions;
        if found.holder == self.me {
            // Also after a restart under the same name.
            return Step::Take { transitions };
        }
        // Whatever we believed: somebody else has it.
        self.renewed = None;
        let since = match &self.seen {
            Some((record, since)) if *record == found => *since,
            _ => now,
        };
        let expires = since + found.lease.min(MAX_LEASE);
        let is_free = found.holder.is_empty() || now >= expires;
        self.seen = Some((found, since));
        if is_free { Step::Take { transitions: transitions.saturating_add(1) } } else { Step::Wait }
    }

    /// The write that a step asked for, begun at `begun`, succeeded.
    pub(crate) fn written(&mut self, begun: Instant) {
        self.renewed = Some(begun);
        self.seen = None;
    }

    /// Until when it leads, if nothing else happens; `None` when it does not.
    pub(crate) fn leads_until(&self) -> Option<Instant> {
        self.renewed.map(|renewed| renewed + self.timing.deadline)
    }

    /// Whether it leads.
    pub(crate) fn leads(&self, now: Instant) -> bool {
        self.leads_until().is_some_and(|until| now < until)
    }

    /// Leads no more; whether the Lease was ours and is to be released.
    pub(crate) fn resign(&mut self) -> bool {
        self.renewed.take().is_some()
    }
}

/// The longest duration of a Lease that is waited for, whatever it says.
const MAX_LEASE: Duration = Duration::from_secs(300);

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn start() -> Instant {
        tokio::time::Instant::now().into_std()
    }

    fn mk_election(me: &str) -> Election {
        Election::new(me.to_owned(), Timing::default())
    }

    fn mk_record(holder: &str, renewed: &str) -> Record {
        Record { holder: holder.to_owned(), lease: 15 * SECOND, transitions: 3, renewed: renewed.to_owned() }
    }

    #[test]
    fn the_first_makes_the_lease_and_keeps_it() {
        let (mut a, t) = (mk_election("a"), start());
        assert_eq!(a.step(None, t), Step::Create);
        assert!(!a.leads(t), "not before it is written");
        a.written(t);
        assert!(a.leads(t + 9 * SECOND));
        assert_eq!(a.step(Some(mk_record("a", "1")), t + 2 * SECOND), Step::Take { transitions: 3 });
        a.written(t + 2 * SECOND);
        assert!(a.leads(t + 11 * SECOND) && !a.leads(t + 12 * SECOND), "it stops before others may start");
    }

    #[test]
    fn a_lease_that_is_renewed_is_not_taken() {
        let (mut b, t) = (mk_election("b"), start());
        for second in 0..100 {
            let record = mk_record("a", &second.to_string());
            assert_eq!(b.step(Some(record), t + second * 2 * SECOND), Step::Wait);
        }
    }

    #[test]
    fn a_lease_that_stands_still_is_taken_after_its_time_by_our_clock() {
        let (mut b, t) = (mk_election("b"), start());
        // Its own time may say anything.
        let record = mk_record("a", "1970-01-01T00:00:00Z");
        assert_eq!(b.step(Some(record.clone()), t), Step::Wait);
        assert_eq!(b.step(Some(record.clone()), t + 14 * SECOND), Step::Wait);
        assert_eq!(b.step(Some(record), t + 15 * SECOND), Step::Take { transitions: 4 });
    }

    #[test]
    fn a_released_lease_is_taken_at_once() {
        let (mut b, t) = (mk_election("b"), start());
        assert_eq!(b.step(Some(mk_record("", "x")), t), Step::Take { transitions: 4 });
    }

    #[test]
    fn who_lost_the_lease_stops_at_once() {
        let (mut a, t) = (mk_election("a"), start());
        a.written(t);
        assert_eq!(a.step(Some(mk_record("b", "1")), t + SECOND), Step::Wait);
        assert!(!a.leads(t + SECOND) && !a.resign());
    }

    #[test]
    fn a_lease_for_ever_is_not_believed() {
        let (mut b, t) = (mk_election("b"), start());
        let record = Record { lease: Duration::from_secs(u64::MAX / 4), ..mk_record("a", "1") };
        assert_eq!(b.step(Some(record.clone()), t), Step::Wait);
        assert_eq!(b.step(Some(record), t + MAX_LEASE), Step::Take { transitions: 4 });
    }

    #[test]
    fn who_leads_releases() {
        let (mut a, t) = (mk_election("a"), start());
        assert!(!a.resign());
        a.written(t);
        assert!(a.resign() && !a.leads(t));
    }
}
