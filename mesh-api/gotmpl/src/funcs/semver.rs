//! Versions, compared as Helm does (`Masterminds/semver`): `>=1.21-0`, `~1.2`, `^1.2 || 2.x`, `1.2 - 1.4`.

use std::cmp::Ordering;

use super::arguments::Args;
use super::call::Plain;
use crate::value::Value;

pub(super) fn find(name: &str) -> Option<Plain> {
    Some(match name {
        "semverCompare" => |a| {
            let args = Args::of(a, 2)?;
            let (constraint, text) = (args.text(0)?, args.text(1)?);
            let version = Version::parse(&text).ok_or_else(|| format!("{text:?} is no version"))?;
            let fits = fits(&constraint, &version).ok_or_else(|| format!("{constraint:?} is no constraint"))?;
            Ok(Value::Bool(fits))
        },
        "semver" => |a| {
            let text = Args::of(a, 1)?.text(0)?;
            let version = Version::parse(&text).ok_or_else(|| format!("{text:?} is no version"))?;
            let [major, minor, patch] = version.numbers.map(|n| Value::Int(i64::try_from(n).unwrap_or(i64::MAX)));
            let entries = [("Major", major), ("Minor", minor), ("Patch", patch)];
            let mut entries: std::collections::BTreeMap<_, _> =
                entries.into_iter().map(|(name, value)| (name.into(), value)).collect();
            entries.insert("Prerelease".into(), Value::str(&version.pre));
            entries.insert("Original".into(), Value::Str(text));
            Ok(Value::map(entries))
        },
        _ => return None,
    })
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Version {
    numbers: [u64; 3],
    pre: String,
    /// How many of the numbers were given.
    given: usize,
}

impl Version {
    /// Reads `v1.2.3-pre+build`, in which minor and patch may lack or be `x`.
    fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        let text = text.strip_prefix(['v', 'V']).unwrap_or(text);
        let text = text.split_once('+').map_or(text, |(version, _)| version);
        let (core, pre) = text.split_once('-').unwrap_or((text, ""));
        let mut numbers = [0; 3];
        let mut given = 0;
        let mut parts = core.split('.');
        for number in &mut numbers {
            let Some(part) = parts.next() else { break };
            if matches!(part, "x" | "X" | "*") {
                break;
            }
            *number = part.parse().ok().filter(|_| part.bytes().all(|b| b.is_ascii_digit()))?;
            given += 1;
        }
        let rest_is_wild = parts.all(|part| matches!(part, "x" | "X" | "*"));
        (rest_is_wild && !core.is_empty()).then(|| Self { numbers, pre: pre.to_owned(), given })
    }

    fn order(&self, other: &Self) -> Ordering {
        self.numbers.cmp(&other.numbers).then_with(|| match (self.pre.is_empty(), other.pre.is_empty()) {
            (true, true) => Ordering::Equal,
            (true, false) => Ordering::Greater,
            (false, true) => Ordering::Less,
            (false, false) => pre_order(&self.pre, &other.pre),
        })
    }

    /// The version at which the number at `place` is one more.
    fn next(&self, place: usize) -> Self {
        let mut numbers = [0; 3];
        for (at, number) in numbers.iter_mut().enumerate().take(place + 1) {
            let own = self.numbers.get(at).copied().unwrap_or_default();
            *number = if at == place { own.saturating_add(1) } else { own };
        }
        Self { numbers, pre: String::new(), given: 3 }
    }
}

fn pre_order(a: &str, b: &str) -> Ordering {
    let (mut a, mut b) = (a.split('.'), b.split('.'));
    loop {
        let order = match (a.next(), b.next()) {
            (None, None) => return Ordering::Equal,
            (None, Some(_)) => Ordering::Less,
            (Some(_), None) => Ordering::Greater,
            (Some(a), Some(b)) => match (a.parse::<u64>(), b.parse::<u64>()) {
                (Ok(a), Ok(b)) => a.cmp(&b),
                (Ok(_), Err(_)) => Ordering::Less,
                (Err(_), Ok(_)) => Ordering::Greater,
                (Err(_), Err(_)) => a.cmp(b),
            },
        };
        if order != Ordering::Equal {
            return order;
        }
    }
}

/// Whether the version fits; `None` when the constraint cannot be read.
fn fits(constraint: &str, version: &Version) -> Option<bool> {
    let mut any = false;
    for alternative in constraint.split("||") {
        any |= all_fit(alternative, version)?;
    }
    Some(any)
}

fn all_fit(text: &str, version: &Version) -> Option<bool> {
    if let Some((low, high)) = text.split_once(" - ") {
        return Some(one_fits(">=", low, version)? && one_fits("<=", high, version)?);
    }
    // A blank after an operator belongs to it; other blanks and commas part constraints.
    let mut all = true;
    let mut operator = String::new();
    for word in text.split([',', ' ']).filter(|word| !word.is_empty()) {
        let end = word.find(|c: char| !matches!(c, '<' | '>' | '=' | '!' | '~' | '^')).unwrap_or(word.len());
        let (sign, number) = word.split_at(end);
        operator.push_str(sign);
        if !number.is_empty() {
            all &= one_fits(&std::mem::take(&mut operator), number, version)?;
        }
    }
    operator.is_empty().then_some(all)
}

fn one_fits(operator: &str, text: &str, version: &Version) -> Option<bool> {
    let bound = Version::parse(text)?;
    // A version before a release fits only where the constraint names one, too.
    if !version.pre.is_empty() && bound.pre.is_empty() {
        return Some(operator == "!=" && bound.numbers != version.numbers);
    }
    let order = version.order(&bound);
    let below = |place: usize| version.order(&bound.next(place)) == Ordering::Less;
    let at_least = order != Ordering::Less;
    // The last number that was given: `1.2` stands for all of 1.2.
    let last = bound.given.checked_sub(1);
    let within = last.is_none_or(|last| {
        at_least && (bound.given == 3 && order == Ordering::Equal || bound.given < 3 && below(last))
    });
    Some(match operator {
        "" | "=" => within,
        "!=" => !within,
        ">" => at_least && !within,
        ">=" | "=>" => at_least,
        "<" => order == Ordering::Less,
        "<=" | "=<" => order == Ordering::Less || within,
        "~" | "~>" => last.is_none_or(|last| at_least && below(last.min(1))),
        "^" => {
            let place = bound.numbers.iter().position(|number| *number > 0);
            let last = bound.given.saturating_sub(1);
            let place = place.unwrap_or(last).min(last);
            bound.given == 0 || (at_least && below(place))
        }
        _ => return None,
    })
}
