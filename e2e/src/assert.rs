//! Waiting and counting.

use std::fmt::Display;
use std::time::{Duration, Instant};

/// Long enough for anything on a busy machine; a test that waits so long has failed.
pub const PATIENCE: Duration = Duration::from_secs(30);
/// Pause between two looks.
const PAUSE: Duration = Duration::from_millis(10);

/// Looks until there is an answer, for at most [`PATIENCE`], and returns it.
///
/// # Panics
/// With the last reason when there is none in time.
#[track_caller]
pub fn eventually<T, E: Display>(what: &str, look: impl FnMut() -> Result<T, E>) -> T {
    within(PATIENCE, what, look)
}

/// Looks until there is an answer, for at most `limit`, and returns it.
///
/// # Panics
/// With the last reason when there is none in time.
#[track_caller]
pub fn within<T, E: Display>(limit: Duration, what: &str, mut look: impl FnMut() -> Result<T, E>) -> T {
    let started = now();
    loop {
        match look() {
            Ok(found) => return found,
            Err(reason) if started.elapsed() > limit => panic!("{what}: not within {limit:?}; last: {reason}"),
            Err(_) => pause(),
        }
    }
}

/// Looks until it is so.
///
/// # Panics
/// When it is not so in time.
#[track_caller]
pub fn wait_until(what: &str, mut look: impl FnMut() -> bool) {
    eventually(what, || if look() { Ok(()) } else { Err("not so") });
}

/// Fails unless `found` of `all` is a plausible draw of `share`: within five standard deviations, once in two million.
///
/// # Panics
/// With the figures.
#[track_caller]
#[expect(clippy::cast_precision_loss, reason = "counts of requests are far below 2^52")]
pub fn share(found: u64, all: u64, share: f64) {
    let (found, all) = (found as f64, all as f64);
    let spread = 5.0 * (share * (1.0 - share) * all).sqrt();
    assert!((found - share * all).abs() <= spread, "{found} of {all}, expected {share} (± {spread:.0})");
}

/// Lets time pass between two looks.
#[expect(clippy::disallowed_methods, reason = "what runs in other processes can only be looked at again")]
pub fn pause() {
    std::thread::sleep(PAUSE);
}

/// The wall clock of a harness that watches real processes.
#[expect(clippy::disallowed_methods, reason = "real processes live in real time")]
#[must_use]
pub fn now() -> Instant {
    Instant::now()
}
