//! Durations on the command line: `250ms`, `2s`, `1.5s`, `3m`.

use std::time::Duration;

/// The longest that a flag may ask for.
const LONGEST: Duration = Duration::from_secs(24 * 3600);

/// Parses a number with a unit.
pub(crate) fn parse(text: &str) -> Result<Duration, String> {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let number: f64 = number.parse().map_err(|_| "not a duration such as 250ms, 2s or 3m".to_owned())?;
    let seconds = match unit {
        "ms" => number / 1000.0,
        "s" => number,
        "m" => number * 60.0,
        "h" => number * 3600.0,
        _ => return Err("the unit must be ms, s, m or h".to_owned()),
    };
    match Duration::try_from_secs_f64(seconds) {
        Ok(duration) if duration <= LONGEST => Ok(duration),
        _ => Err("longer than 24h".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, millis: Option<u64>) {
        assert_eq!(parse(text).ok(), millis.map(Duration::from_millis), "{text}");
    }

    #[test]
    fn numbers_with_units() {
        check("250ms", Some(250));
        check("1.5s", Some(1500));
        check("2m", Some(120_000));
        check("24h", Some(86_400_000));
        for bad in ["", "5", "s", "1d", "-1s", "25h", "1..5s"] {
            check(bad, None);
        }
    }
}
