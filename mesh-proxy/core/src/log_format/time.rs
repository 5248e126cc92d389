//! `%START_TIME(…)%`: moments in UTC by a `strftime` format.

use std::time::{SystemTime, UNIX_EPOCH};

/// A compiled time format.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TimeFormat(Box<[Part]>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Literal(Box<str>),
    Year,
    YearOfCentury,
    Month,
    MonthName,
    Day,
    DayPadded,
    WeekdayName,
    Hour,
    Minute,
    Second,
    /// So many digits of the fraction of a second.
    Fraction(u8),
    Unix,
}

const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
const WEEKDAYS: [&str; 7] = ["Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"];

/// A moment in the calendar.
struct Civil {
    year: i64,
    month: u64,
    day: u64,
    weekday: u64,
    second_of_day: u64,
    seconds: i64,
    nanos: u32,
}

impl TimeFormat {
    /// Envoy's default: `2026-01-02T03:04:05.678Z`.
    pub(crate) fn iso() -> Self {
        Self::compile("%Y-%m-%dT%H:%M:%E3SZ").unwrap_or_else(|| Self(Box::default()))
    }

    /// Compiles a format; `None` when it has a specifier that is not supported.
    pub(crate) fn compile(format: &str) -> Option<Self> {
        let (mut parts, mut literal, mut rest) = (Vec::new(), String::new(), format.chars());
        while let Some(character) = rest.next() {
            if character != '%' {
                literal.push(character);
                continue;
            }
            let found = match rest.next()? {
                '%' => {
                    literal.push('%');
                    continue;
                }
                'Z' => {
                    literal.push_str("UTC");
                    continue;
                }
                'z' => {
                    literal.push_str("+0000");
                    continue;
                }
                'Y' => vec![Part::Year],
                'y' => vec![Part::YearOfCentury],
                'm' => vec![Part::Month],
                'b' => vec![Part::MonthName],
                'd' => vec![Part::Day],
                'e' => vec![Part::DayPadded],
                'a' => vec![Part::WeekdayName],
                'H' => vec![Part::Hour],
                'M' => vec![Part::Minute],
                'S' => vec![Part::Second],
                's' => vec![Part::Unix],
                'f' => vec![Part::Fraction(9)],
                'F' => vec![Part::Year, Part::Literal("-".into()), Part::Month, Part::Literal("-".into()), Part::Day],
                'T' => {
                    vec![Part::Hour, Part::Literal(":".into()), Part::Minute, Part::Literal(":".into()), Part::Second]
                }
                // absl: seconds with so many digits of fraction.
                'E' => {
                    let digits = fraction_digits(rest.next()?)?;
                    if rest.next()? != 'S' {
                        return None;
                    }
                    vec![Part::Second, Part::Literal(".".into()), Part::Fraction(digits)]
                }
                // Envoy: so many digits of the fraction alone.
                digit @ '1'..='9' if rest.next()? == 'f' => vec![Part::Fraction(fraction_digits(digit)?)],
                _ => return None,
            };
            if !literal.is_empty() {
                parts.push(Part::Literal(std::mem::take(&mut literal).into()));
            }
            parts.extend(found);
        }
        if !literal.is_empty() {
            parts.push(Part::Literal(literal.into()));
        }
        Some(Self(parts.into()))
    }

    /// Appends `time`.
    pub(crate) fn write(&self, time: SystemTime, out: &mut Vec<u8>) {
        let civil = Civil::of(time);
        for part in &self.0 {
            match part {
                Part::Literal(text) => out.extend_from_slice(text.as_bytes()),
                Part::Year => signed(civil.year, 4, out),
                Part::YearOfCentury => padded(civil.year.rem_euclid(100).unsigned_abs(), 2, out),
                Part::Month => padded(civil.month, 2, out),
                Part::MonthName => name(&MONTHS, civil.month - 1, out),
                Part::Day => padded(civil.day, 2, out),
                Part::DayPadded => {
                    if civil.day < 10 {
                        out.push(b' ');
                    }
                    padded(civil.day, 1, out);
                }
                Part::WeekdayName => name(&WEEKDAYS, civil.weekday, out),
                Part::Hour => padded(civil.second_of_day / 3600, 2, out),
                Part::Minute => padded(civil.second_of_day / 60 % 60, 2, out),
                Part::Second => padded(civil.second_of_day % 60, 2, out),
                Part::Fraction(digits) => {
                    let scale = 10u32.pow(9 - u32::from((*digits).min(9)));
                    padded(u64::from(civil.nanos / scale), usize::from(*digits), out);
                }
                Part::Unix => signed(civil.seconds, 1, out),
            }
        }
    }
}

impl Civil {
    /// Calendar of a moment by the days-from-civil rule of the proleptic Gregorian calendar, computed in eras of 400 years
    /// that begin on 1 March.
    fn of(time: SystemTime) -> Self {
        let (seconds, nanos) = match time.duration_since(UNIX_EPOCH) {
            Ok(since) => (i64::try_from(since.as_secs()).unwrap_or(i64::MAX / 2), since.subsec_nanos()),
            Err(before) => {
                let before = before.duration();
                let whole = -i64::try_from(before.as_secs()).unwrap_or(i64::MAX / 2);
                match before.subsec_nanos() {
                    0 => (whole, 0),
                    nanos => (whole - 1, 1_000_000_000 - nanos),
                }
            }
        };
        let days = seconds.div_euclid(86_400);
        let shifted = days + 719_468;
        let era = shifted.div_euclid(146_097);
        let day_of_era = shifted.rem_euclid(146_097).unsigned_abs();
        let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let shifted_month = (5 * day_of_year + 2) / 153;
        let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
        let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
        let year = i64::try_from(year_of_era).unwrap_or_default() + era * 400 + i64::from(month <= 2);
        Self {
            year,
            month,
            day,
            weekday: (days + 4).rem_euclid(7).unsigned_abs(),
            second_of_day: seconds.rem_euclid(86_400).unsigned_abs(),
            seconds,
            nanos,
        }
    }
}

fn fraction_digits(character: char) -> Option<u8> {
    character.to_digit(10).filter(|digits| (1..=9).contains(digits)).and_then(|digits| u8::try_from(digits).ok())
}

fn name(names: &[&str], place: u64, out: &mut Vec<u8>) {
    let name = usize::try_from(place).ok().and_then(|place| names.get(place));
    out.extend_from_slice(name.copied().unwrap_or_default().as_bytes());
}

fn signed(value: i64, width: usize, out: &mut Vec<u8>) {
    if value < 0 {
        out.push(b'-');
    }
    padded(value.unsigned_abs(), width, out);
}

/// Appends `value` with leading zeros up to `width`.
fn padded(value: u64, width: usize, out: &mut Vec<u8>) {
    let digits = value.checked_ilog10().map_or(1, |log| log as usize + 1);
    out.extend(std::iter::repeat_n(b'0', width.saturating_sub(digits)));
    crate::h1::encode::decimal(value, out);
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[track_caller]
    fn check(format: &str, time: SystemTime, expect: &str) {
        let mut out = Vec::new();
        TimeFormat::compile(format).unwrap().write(time, &mut out);
        assert_eq!(String::from_utf8(out).unwrap(), expect);
    }

    #[test]
    fn moments_are_in_the_calendar() {
        let at = |seconds: u64, nanos| UNIX_EPOCH + Duration::new(seconds, nanos);
        let iso = "%Y-%m-%dT%H:%M:%E3SZ";
        check(iso, at(0, 0), "1970-01-01T00:00:00.000Z");
        check(iso, at(951_782_400, 5_000_000), "2000-02-29T00:00:00.005Z");
        check(iso, at(4_107_542_399, 999_999_999), "2100-02-28T23:59:59.999Z");
        check(iso, at(4_107_542_400, 0), "2100-03-01T00:00:00.000Z");
        check(iso, at(1_798_761_599, 0), "2026-12-31T23:59:59.000Z");
        check(iso, UNIX_EPOCH - Duration::from_millis(1), "1969-12-31T23:59:59.999Z");
        check("%F %T.%3f %s %% %z%Z", at(1_767_323_045, 678_900_000), "2026-01-02 03:04:05.678 1767323045 % +0000UTC");
        check("%a %e %b %y %f", at(1_767_323_045, 678_900_000), "Fri  2 Jan 26 678900000");
    }

    #[test]
    fn unknown_specifiers_are_refused() {
        for format in ["%Q", "%", "%E", "%E3", "%E3M", "%E0S", "%3", "%3s", "%0f"] {
            assert_eq!(TimeFormat::compile(format), None, "{format}");
        }
    }
}
