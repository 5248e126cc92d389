//! When certificates are renewed and how a root is replaced. Pure: no clock, no store, no network.

use std::time::{Duration, SystemTime};

use rand_core::Rng;
use serde::{Deserialize, Serialize};

use crate::issue::Validity;

/// When a workload certificate is renewed.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct RenewalPolicy {
    /// Share of the lifetime that is left when it is renewed. Istio's `SECRET_GRACE_PERIOD_RATIO`: 0.5.
    pub grace_ratio: f64,
    /// The share is drawn from this far around the ratio. Istio's `SECRET_GRACE_PERIOD_RATIO_JITTER`: 0.01.
    pub jitter: f64,
}

impl Default for RenewalPolicy {
    fn default() -> Self {
        Self { grace_ratio: 0.5, jitter: 0.01 }
    }
}

/// When to renew a certificate that was received at `issued` and expires at `not_after`.
///
/// Counted from `issued`, not from the certificate's first second: that one is set back for late clocks, and a short
/// lifetime would be over before it began. Always between `issued` and `not_after`; with nothing left it is `issued`.
pub fn next_renewal(
    issued: SystemTime,
    not_after: SystemTime,
    policy: RenewalPolicy,
    rng: &mut impl Rng,
) -> SystemTime {
    let lifetime = not_after.duration_since(issued).unwrap_or_default();
    // Uniform in [-1, 1]: 32 bits of chance are plenty to keep proxies apart.
    let chance = f64::from(rng.next_u32()) / f64::from(u32::MAX) * 2.0 - 1.0;
    let left = share(policy.grace_ratio + policy.jitter * chance);
    issued.checked_add(lifetime.mul_f64(1.0 - left)).unwrap_or(not_after).min(not_after)
}

/// A number as a share; what is no number is one half.
fn share(number: f64) -> f64 {
    if number.is_nan() { 0.5 } else { number.clamp(0.0, 1.0) }
}

/// How far the replacement of a root has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// One root, which issues.
    Stable,
    /// A new root is among those to trust; the old one still issues.
    Introduced {
        /// When that began.
        since: SystemTime,
    },
    /// The new root issues; the old one is still trusted.
    Switched {
        /// When that began.
        since: SystemTime,
    },
}

/// How a root is replaced.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RollPolicy {
    /// A replacement begins when this share of the root's lifetime is left. Istio: 0.2.
    pub begin_at: f64,
    /// How long a new root is only trusted before it issues: the usual lifetime of workload certificates, since a proxy
    /// that stays away longer has to come back for a certificate, and with it for the roots, anyway.
    pub distribute_for: Duration,
    /// How long an old root stays trusted after the last certificate it issued: the longest lifetime of those.
    pub retire_after: Duration,
}

/// What is to be done now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing before this point in time (unless the word comes that all proxies trust the new root).
    Wait(SystemTime),
    /// Make a new root and trust it.
    Introduce,
    /// Let the new root issue.
    Switch,
    /// Trust the old root no longer.
    Retire,
}

/// The next step in the replacement of a root.
///
/// `root` is the validity of the root that issues in [`Phase::Stable`] and [`Phase::Introduced`], and of the old one in
/// [`Phase::Switched`]. `distributed` says that every connected proxy has confirmed the new root; without it the switch
/// waits, but never so long that the old root could no longer issue.
#[must_use]
pub fn next_step(phase: Phase, root: Validity, distributed: bool, policy: RollPolicy, now: SystemTime) -> Step {
    let due = |at: SystemTime, step: Step| if now >= at { step } else { Step::Wait(at) };
    match phase {
        Phase::Stable => {
            let lifetime = root.not_after.duration_since(root.not_before).unwrap_or_default();
            due(before(root.not_after, lifetime.mul_f64(share(policy.begin_at))), Step::Introduce)
        }
        Phase::Introduced { since } => {
            let ready = after(since, policy.distribute_for);
            let last_call = before(root.not_after, policy.distribute_for);
            if now >= last_call || (distributed && now >= ready) {
                Step::Switch
            } else if now < ready {
                Step::Wait(ready.min(last_call))
            } else {
                Step::Wait(last_call)
            }
        }
        Phase::Switched { since } => due(after(since, policy.retire_after).min(root.not_after), Step::Retire),
    }
}

fn before(at: SystemTime, distance: Duration) -> SystemTime {
    at.checked_sub(distance).unwrap_or(SystemTime::UNIX_EPOCH)
}

fn after(at: SystemTime, distance: Duration) -> SystemTime {
    // What is beyond the calendar never comes.
    at.checked_add(distance).unwrap_or_else(|| crate::time::from_unix(i64::MAX / 2))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rand::SeedableRng as _;
    use rand::rngs::StdRng;

    use super::*;
    use crate::time::from_unix;

    const DAY: Duration = Duration::from_secs(86_400);
    const POLICY: RollPolicy =
        RollPolicy { begin_at: 0.2, distribute_for: DAY, retire_after: Duration::from_secs(90 * 86_400) };

    fn days(number: i64) -> SystemTime {
        from_unix(number * 86_400)
    }

    #[test]
    fn a_day_is_renewed_about_half_way() {
        let mut rng = StdRng::seed_from_u64(1);
        let draws: Vec<SystemTime> =
            (0..100).map(|_| next_renewal(days(0), days(1), RenewalPolicy::default(), &mut rng)).collect();
        let (first, last) = (draws.iter().min().unwrap(), draws.iter().max().unwrap());
        assert!(*first >= days(0) + DAY.mul_f64(0.49) && *last <= days(0) + DAY.mul_f64(0.51));
        assert!(last.duration_since(*first).unwrap() > Duration::from_secs(600), "jitter spreads renewals");
    }

    proptest! {
        #[test]
        fn renewal_is_within_the_lifetime_whatever_the_policy(
            issued in -10_000_000_000_i64..10_000_000_000, lifetime in -1000_i64..100_000_000,
            grace_ratio in any::<f64>(), jitter in any::<f64>(), seed in any::<u64>(),
        ) {
            let (issued, not_after) = (from_unix(issued), from_unix(issued + lifetime));
            let mut rng = StdRng::seed_from_u64(seed);
            let at = next_renewal(issued, not_after, RenewalPolicy { grace_ratio, jitter }, &mut rng);
            prop_assert!(at <= not_after);
            prop_assert!(at >= issued.min(not_after));
        }
    }

    #[track_caller]
    fn check(phase: Phase, distributed: bool, day: i64, expect: Step) {
        let root = Validity { not_before: days(0), not_after: days(1000) };
        assert_eq!(next_step(phase, root, distributed, POLICY, days(day)), expect);
    }

    #[test]
    fn a_root_is_replaced_in_three_steps() {
        check(Phase::Stable, true, 799, Step::Wait(days(800)));
        check(Phase::Stable, false, 800, Step::Introduce);
        let introduced = Phase::Introduced { since: days(800) };
        check(introduced, true, 800, Step::Wait(days(801)));
        check(introduced, true, 801, Step::Switch);
        let switched = Phase::Switched { since: days(801) };
        check(switched, true, 890, Step::Wait(days(891)));
        check(switched, true, 891, Step::Retire);
    }

    #[test]
    fn a_proxy_that_never_confirms_delays_the_switch_but_not_beyond_the_roots_end() {
        let introduced = Phase::Introduced { since: days(800) };
        check(introduced, false, 801, Step::Wait(days(999)));
        check(introduced, false, 998, Step::Wait(days(999)));
        check(introduced, false, 999, Step::Switch);
    }

    #[test]
    fn an_expired_root_is_replaced_at_once() {
        check(Phase::Stable, false, 5000, Step::Introduce);
        check(Phase::Introduced { since: days(5000) }, false, 5000, Step::Switch);
        check(Phase::Switched { since: days(5000) }, false, 5000, Step::Retire);
    }

    proptest! {
        /// Whoever wakes when told sees all steps, in order, with the new root trusted for the whole time before it issues
        /// and the old one for the whole time after.
        #[test]
        fn steps_come_in_order_with_overlap(lifetime in 400_i64..5000, begin_at in 0.3_f64..0.9, confirm in 0_i64..3000) {
            let policy = RollPolicy { begin_at, ..POLICY };
            let root = Validity { not_before: days(0), not_after: days(lifetime) };
            let (mut now, mut phase, mut seen) = (days(0), Phase::Stable, Vec::new());
            for _ in 0..20 {
                match next_step(phase, root, now >= days(confirm), policy, now) {
                    Step::Wait(at) => {
                        prop_assert!(at > now);
                        now = at;
                    }
                    Step::Introduce => { seen.push(now); phase = Phase::Introduced { since: now }; }
                    Step::Switch => { seen.push(now); phase = Phase::Switched { since: now }; }
                    Step::Retire => { seen.push(now); break; }
                }
            }
            prop_assert_eq!(seen.len(), 3);
            prop_assert!(seen[1].duration_since(seen[0]).unwrap() >= policy.distribute_for);
            prop_assert!(seen[2] >= root.not_after || seen[2].duration_since(seen[1]).unwrap() >= policy.retire_after);
            prop_assert!(seen[1] + policy.distribute_for <= root.not_after);
        }
    }
}
