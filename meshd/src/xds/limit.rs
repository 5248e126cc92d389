//! How many streams may begin in a second: after a restart all proxies come back at once, and each costs a translation.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use tokio::time::sleep_until;

/// Longest wait for a turn; who would wait longer is sent away to come back later.
const MAX_WAIT: Duration = Duration::from_secs(10);

/// Gives turns at even distances, after a burst of one second's worth.
#[derive(Debug)]
pub(crate) struct Pace {
    distance: Duration,
    burst: Duration,
    next: Mutex<Option<Instant>>,
}

/// Too many are waiting already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Overload;

impl Pace {
    /// `per_second` turns a second; 0 is no limit.
    pub(crate) fn new(per_second: u32) -> Self {
        let distance = Duration::from_secs(1).checked_div(per_second).unwrap_or_default();
        Self { distance, burst: Duration::from_secs(1), next: Mutex::default() }
    }

    /// Waits for a turn.
    ///
    /// # Errors
    /// [`Overload`] at once when the wait would be longer than ten seconds.
    pub(crate) async fn turn(&self) -> Result<(), Overload> {
        let at = self.book(tokio::time::Instant::now().into_std())?;
        sleep_until(at.into()).await;
        Ok(())
    }

    /// Books the next turn. Turns not used in the last second may be used at once.
    fn book(&self, now: Instant) -> Result<Instant, Overload> {
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        let earliest = now.checked_sub(self.burst).unwrap_or(now);
        let turn = next.map_or(earliest, |next| next.max(earliest));
        if turn.saturating_duration_since(now) > MAX_WAIT {
            return Err(Overload);
        }
        *next = Some(turn + self.distance);
        Ok(turn.max(now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_passes_and_the_rest_waits_its_turn() {
        let now = tokio::time::Instant::now().into_std();
        let pace = Pace::new(10);
        let waits: Vec<u128> = (0..14).map(|_| (pace.book(now).unwrap() - now).as_millis()).collect();
        assert_eq!(waits[..11], [0; 11]);
        assert_eq!(waits[11..], [100, 200, 300]);
        // Nobody came for a while: the burst is whole again, and no more than that.
        let later = now + Duration::from_secs(60);
        let waits: Vec<u128> = (0..12).map(|_| (pace.book(later).unwrap() - later).as_millis()).collect();
        assert_eq!(waits[10..], [0, 100]);
    }

    #[test]
    fn who_would_wait_too_long_is_sent_away() {
        let now = tokio::time::Instant::now().into_std();
        let pace = Pace::new(1);
        let booked = std::iter::from_fn(|| pace.book(now).ok()).count();
        assert_eq!(booked, 12);
        assert_eq!(pace.book(now), Err(Overload));
        assert!(pace.book(now + Duration::from_secs(1)).is_ok());
    }

    #[test]
    fn zero_is_no_limit() {
        let now = tokio::time::Instant::now().into_std();
        let pace = Pace::new(0);
        assert!((0..100_000).all(|_| pace.book(now) == Ok(now)));
    }
}
