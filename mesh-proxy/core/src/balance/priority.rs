//! Which priority takes a request: Envoy's health arithmetic.
//!
//! envoyproxy/envoy: `source/extensions/load_balancing_policies/common/load_balancer_impl.cc`
//! (`recalculatePerPriorityState`, `recalculatePerPriorityPanic`, `recalculateLoadInTotalPanic`). All numbers are percents
//! in integers, as there.

/// Healthy endpoints count this many percent of themselves, so that a priority spills over only when fewer than 72 % are
/// healthy (`overprovisioning_factor`).
const OVERPROVISIONING: u64 = 140;

/// Endpoints of one priority.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Count {
    /// Usable now.
    pub(crate) healthy: usize,
    /// All that would be used in panic.
    pub(crate) total: usize,
}

/// The chosen priority.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Choice {
    /// Index into the priorities.
    pub(crate) level: usize,
    /// Health is ignored in it.
    pub(crate) panic: bool,
}

/// Chooses by `draw`, a number in 0..100; `None` when nothing may be used.
///
/// `counts` is walked up to three times instead of being stored, so that choosing allocates nothing.
pub(crate) fn choose(counts: &(impl Iterator<Item = Count> + Clone), panic_percent: u32, draw: u64) -> Option<Choice> {
    let available: u64 = counts.clone().map(availability).sum::<u64>().min(100);
    let in_panic = |count: Count| {
        // A set that together is fully available never panics, however ill one priority is.
        available < 100 && health(count) < u64::from(panic_percent.min(100))
    };
    if panic_percent > 0 && counts.clone().all(in_panic) {
        return choose_by_size(counts, draw);
    }
    if available == 0 {
        // Too few to be one percent of any priority, but better than nothing.
        let level = counts.clone().position(|count| count.healthy > 0)?;
        return Some(Choice { level, panic: false });
    }
    let (mut left, mut first, mut passed) = (100, None, 0);
    let mut chosen = None;
    for (level, count) in counts.clone().enumerate() {
        let share = (availability(count) * 100 / available).min(left);
        left -= share;
        if share == 0 {
            continue;
        }
        let choice = Choice { level, panic: in_panic(count) };
        first.get_or_insert(choice);
        passed += share;
        if chosen.is_none() && draw < passed {
            chosen = Some(choice);
        }
    }
    // What integer division left over goes to the first priority that has anything.
    chosen.or(first)
}

/// When every priority panics, each gets its share by size.
fn choose_by_size(counts: &(impl Iterator<Item = Count> + Clone), draw: u64) -> Option<Choice> {
    let all: u64 = counts.clone().map(|count| wide(count.total)).sum();
    if all == 0 {
        return None;
    }
    let (mut passed, mut first) = (0, None);
    for (level, count) in counts.clone().enumerate() {
        if count.total == 0 {
            continue;
        }
        let choice = Choice { level, panic: true };
        first.get_or_insert(choice);
        passed += wide(count.total) * 100 / all;
        if draw < passed {
            return Some(choice);
        }
    }
    first
}

fn availability(count: Count) -> u64 {
    if count.total == 0 { 0 } else { (OVERPROVISIONING * wide(count.healthy) / wide(count.total)).min(100) }
}

fn health(count: Count) -> u64 {
    if count.total == 0 { 0 } else { 100 * wide(count.healthy) / wide(count.total) }
}

fn wide(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Percent of requests for each priority, and the mode of each priority that gets any.
    #[track_caller]
    fn check(counts: &[(usize, usize)], panic_percent: u32, expect: &[(u64, bool)]) {
        let counts: Vec<_> = counts.iter().map(|&(healthy, total)| Count { healthy, total }).collect();
        let mut shares = vec![(0, false); counts.len()];
        for draw in 0..100 {
            if let Some(choice) = choose(&counts.iter().copied(), panic_percent, draw) {
                shares[choice.level].0 += 1;
                shares[choice.level].1 = choice.panic;
            }
        }
        assert_eq!(shares, expect);
    }

    /// The table of Envoy's documentation, "Priority levels" (arch_overview/upstream/load_balancing/priority).
    #[test]
    fn spill_over_follows_envoys_table() {
        let healthy = |p0, p1| [(p0, 100), (p1, 100)];
        check(&healthy(100, 100), 0, &[(100, false), (0, false)]);
        check(&healthy(72, 100), 0, &[(100, false), (0, false)]);
        check(&healthy(71, 100), 0, &[(99, false), (1, false)]);
        check(&healthy(50, 100), 0, &[(70, false), (30, false)]);
        check(&healthy(25, 100), 0, &[(35, false), (65, false)]);
        check(&healthy(0, 100), 0, &[(0, false), (100, false)]);
        check(&healthy(25, 25), 0, &[(50, false), (50, false)]);
        check(&healthy(0, 0), 0, &[(0, false), (0, false)]);
        check(&[(5, 100), (1, 100), (0, 100)], 0, &[(88, false), (12, false), (0, false)]);
        check(&[(0, 0), (4, 4)], 0, &[(0, false), (100, false)]);
        check(&[], 0, &[]);
    }

    /// The table of Envoy's documentation, "Panic threshold", with the default of 50 %.
    #[test]
    fn panic_follows_envoys_table() {
        let healthy = |p0, p1| [(p0, 100), (p1, 100)];
        check(&healthy(72, 72), 50, &[(100, false), (0, false)]);
        check(&healthy(71, 71), 50, &[(99, false), (1, false)]);
        check(&healthy(50, 60), 50, &[(70, false), (30, false)]);
        check(&healthy(25, 100), 50, &[(35, false), (65, false)]);
        check(&healthy(25, 25), 50, &[(50, true), (50, true)]);
        // The page rounds to 7 and 93; the code gives what division leaves over to the first.
        check(&healthy(5, 65), 50, &[(8, true), (92, false)]);
        check(&healthy(0, 0), 50, &[(50, true), (50, true)]);
        check(&[(0, 30), (0, 10)], 50, &[(75, true), (25, true)]);
        check(&[(0, 0)], 50, &[(0, false)]);
    }

    #[test]
    fn no_threshold_no_panic() {
        check(&[(0, 10)], 0, &[(0, false)]);
        check(&[(1, 10)], 0, &[(100, false)]);
        check(&[(0, 10), (1, 1_000)], 0, &[(0, false), (100, false)]);
    }
}
