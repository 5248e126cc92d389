//! Points in time as certificates know them: whole seconds.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// Seconds since 1970, negative before; what does not fit is cut to the range.
#[must_use]
pub fn to_unix(at: SystemTime) -> i64 {
    match at.duration_since(UNIX_EPOCH) {
        Ok(after) => i64::try_from(after.as_secs()).unwrap_or(i64::MAX),
        Err(before) => i64::try_from(before.duration().as_secs()).map_or(i64::MIN, |seconds| -seconds),
    }
}

/// The point that is so many seconds after 1970; 1970 itself when the system cannot express it.
#[must_use]
pub fn from_unix(seconds: i64) -> SystemTime {
    let distance = Duration::from_secs(seconds.unsigned_abs());
    let at = if seconds < 0 { UNIX_EPOCH.checked_sub(distance) } else { UNIX_EPOCH.checked_add(distance) };
    at.unwrap_or(UNIX_EPOCH)
}

/// As text in RFC 3339 with `Z`, for messages.
#[must_use]
pub fn display(at: SystemTime) -> String {
    let at = OffsetDateTime::from_unix_timestamp(to_unix(at)).ok();
    at.and_then(|at| at.format(&Rfc3339).ok()).unwrap_or_else(|| "beyond the calendar".to_owned())
}

/// For certificates, which cannot hold more than the year 9999.
pub(crate) fn to_calendar(at: SystemTime) -> OffsetDateTime {
    let latest = 253_402_300_799;
    OffsetDateTime::from_unix_timestamp(to_unix(at).clamp(0, latest)).unwrap_or(OffsetDateTime::UNIX_EPOCH)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_and_back() {
        for seconds in [0, 1, -1, 1_700_000_000, -2_000_000_000] {
            assert_eq!(to_unix(from_unix(seconds)), seconds);
        }
        assert_eq!(display(from_unix(1_700_000_000)), "2023-11-14T22:13:20Z");
        assert_eq!(display(from_unix(i64::MAX)), "beyond the calendar");
        assert_eq!(to_calendar(from_unix(i64::MAX)).year(), 9999);
    }
}
