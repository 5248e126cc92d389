//! Collects findings while a spec is walked, and knows the path of the field at hand.

use std::{collections::BTreeSet, fmt::Display, net::IpAddr, time::Duration};

use super::regex;
use crate::{
    codes::Code,
    crd::common::StringMatch,
    duration::DurationText,
    finding::Finding,
    host::{Hostname, is_dns_label},
    labels::{Labels, Selector},
    text::Str,
};

/// Findings so far, and where the walk is.
#[derive(Debug, Default)]
pub(super) struct Check {
    path: String,
    findings: Vec<Finding>,
}

impl Check {
    pub(super) fn into_findings(self) -> Vec<Finding> {
        self.findings
    }

    /// Walks into a field; `path` may have several steps, e.g. `tcp.keepalive`.
    pub(super) fn field<T>(&mut self, path: &str, walk: impl FnOnce(&mut Self) -> T) -> T {
        let length = self.path.len();
        if !self.path.is_empty() && !path.is_empty() {
            self.path.push('.');
        }
        self.path.push_str(path);
        let result = walk(self);
        self.path.truncate(length);
        result
    }

    /// Walks into an optional field, if it is there.
    pub(super) fn some<T>(&mut self, path: &str, value: Option<&T>, walk: impl FnOnce(&mut Self, &T)) {
        if let Some(value) = value {
            self.field(path, |check| walk(check, value));
        }
    }

    /// Walks into every item of a list.
    pub(super) fn each<'v, T: 'v>(
        &mut self,
        path: &str,
        items: impl IntoIterator<Item = &'v T>,
        mut walk: impl FnMut(&mut Self, &'v T),
    ) {
        for (index, item) in items.into_iter().enumerate() {
            self.field(&format!("{path}[{index}]"), |check| walk(check, item));
        }
    }

    /// A finding about the field at hand.
    pub(super) fn here(&mut self, code: Code, message: impl Into<Str>) -> &mut Finding {
        self.findings.push_mut(Finding::new(code, self.path.as_str(), message))
    }

    /// A finding about a field below the one at hand.
    pub(super) fn at(&mut self, path: &str, code: Code, message: impl Into<Str>) {
        self.field(path, |check| {
            check.here(code, message);
        });
    }

    /// A finding with a hint about a field below the one at hand.
    pub(super) fn hinted(&mut self, path: &str, code: Code, message: impl Into<Str>, hint: impl Into<Str>) {
        self.field(path, |check| check.here(code, message).hint = hint.into());
    }

    pub(super) fn required(&mut self, path: &str, is_there: bool) {
        if !is_there {
            self.at(path, Code::Required, "is missing");
        }
    }

    /// Of several fields at most one may be set.
    pub(super) fn exclusive(&mut self, fields: &[(&str, bool)]) {
        let set: Vec<&str> = fields.iter().filter(|f| f.1).map(|f| f.0).collect();
        if let [first, rest @ ..] = set.as_slice()
            && !rest.is_empty()
        {
            self.at(first, Code::Conflict, format!("excludes {}", rest.join(" and ")));
        }
    }

    /// A value that must be in a range, ends included.
    pub(super) fn range<T: PartialOrd + Display>(&mut self, path: &str, value: T, low: T, high: T) {
        if value < low || value > high {
            self.at(path, Code::InvalidValue, format!("{value} is not between {low} and {high}"));
        }
    }

    pub(super) fn not_negative(&mut self, path: &str, value: i32) {
        if value < 0 {
            self.at(path, Code::InvalidValue, format!("{value} is negative"));
        }
    }

    pub(super) fn port(&mut self, path: &str, port: u32) {
        self.range(path, port, 1, 65535);
    }

    /// A duration of at least a millisecond: proxies do not know shorter ones.
    pub(super) fn duration(&mut self, path: &str, value: Option<DurationText>) {
        if let Some(value) = value
            && *value < Duration::from_millis(1)
        {
            self.at(path, Code::InvalidValue, format!("{value} is shorter than 1ms"));
        }
    }

    /// Like [`Self::duration`], where zero means "none".
    pub(super) fn duration_or_zero(&mut self, path: &str, value: Option<DurationText>) {
        self.duration(path, value.filter(|v| !v.is_zero()));
    }

    /// A host: a DNS name, a wildcard of one, or an address.
    pub(super) fn host(&mut self, path: &str, text: &str) -> Option<Hostname> {
        match Hostname::parse(text) {
            Ok(host) => Some(host),
            Err(error) => {
                self.at(path, Code::InvalidHost, format!("the host {text:?} {error}"));
                None
            }
        }
    }

    /// A host without wildcard.
    pub(super) fn plain_host(&mut self, path: &str, text: &str) {
        if text.is_empty() {
            self.required(path, false);
        } else if self.host(path, text).is_some_and(|host| host.is_wildcard()) {
            self.at(path, Code::InvalidHost, format!("the host {text:?} cannot be a wildcard here"));
        }
    }

    /// An address or an address range.
    pub(super) fn cidr(&mut self, path: &str, text: &str) {
        if !is_cidr(text) {
            self.at(path, Code::InvalidValue, format!("{text:?} is neither an address nor an address range"));
        }
    }

    pub(super) fn regex(&mut self, path: &str, text: &str) {
        if text.is_empty() {
            self.at(path, Code::InvalidRegex, "the expression is empty");
        } else if let Err(reason) = regex::compile(text) {
            self.at(path, Code::InvalidRegex, reason);
        }
    }

    /// A comparison with something that may be missing: `{}` and a lone `*` as regex mean that it is there.
    pub(super) fn optional_match(&mut self, path: &str, value: &StringMatch) {
        match value {
            StringMatch::Present => {}
            StringMatch::Regex(text) if *text == "*" => {}
            other => self.string_match(path, other),
        }
    }

    /// A comparison with something that is always there.
    pub(super) fn string_match(&mut self, path: &str, value: &StringMatch) {
        match value {
            StringMatch::Present => self.at(path, Code::Ineffective, "has none of exact, prefix and regex"),
            StringMatch::Exact(_) => {}
            StringMatch::Prefix(text) if text.is_empty() => {
                self.hinted(path, Code::InvalidValue, "the prefix is empty", "leave it out for any value");
            }
            StringMatch::Prefix(_) => {}
            StringMatch::Regex(text) => self.field(path, |check| check.regex("regex", text)),
        }
    }

    pub(super) fn dns_label(&mut self, path: &str, text: &str) {
        if !is_dns_label(text) {
            let message = format!("{text:?} is not a DNS label: lower-case letters, digits and inner '-', at most 63");
            self.at(path, Code::InvalidName, message);
        }
    }

    /// Values that must differ from each other.
    pub(super) fn unique<'t>(&mut self, path: &str, field: &str, values: impl IntoIterator<Item = &'t str>) {
        self.repeated(Code::Duplicate, path, field, values);
    }

    /// Values of which a second has no effect.
    pub(super) fn once<'t>(&mut self, path: &str, field: &str, values: impl IntoIterator<Item = &'t str>) {
        self.repeated(Code::Ineffective, path, field, values);
    }

    fn repeated<'t>(&mut self, code: Code, path: &str, field: &str, values: impl IntoIterator<Item = &'t str>) {
        let mut seen = BTreeSet::new();
        for (index, value) in values.into_iter().enumerate() {
            if !value.is_empty() && !seen.insert(value) {
                let dot = if field.is_empty() { "" } else { "." };
                self.at(&format!("{path}[{index}]{dot}{field}"), code, format!("{value:?} is there twice"));
            }
        }
    }

    /// Labels of an object or of a selector, by Kubernetes' syntax.
    pub(super) fn labels(&mut self, labels: &Labels) {
        for (key, value) in labels {
            let (prefix, name) = key.rsplit_once('/').map_or((None, &**key), |(prefix, name)| (Some(prefix), name));
            if !is_label_text(name) || name.is_empty() || prefix.is_some_and(|prefix| !is_dns_subdomain(prefix)) {
                self.at(key, Code::InvalidName, format!("{key:?} is not the key of a label"));
            }
            if !is_label_text(value) {
                let message =
                    format!("{value:?} is not the value of a label: letters, digits, inner '-', '_', '.'; at most 63");
                self.at(key, Code::InvalidName, message);
            }
        }
    }

    /// A selector of workloads; an empty one selects all, which Istio lets pass with a warning.
    pub(super) fn selector(&mut self, path: &str, selector: &Selector) {
        if selector.is_empty() {
            self.at(path, Code::Ineffective, "has no labels, so it selects every workload of the namespace");
        }
        self.field(path, |check| check.labels(&selector.0));
    }

    pub(super) fn percent(&mut self, path: &str, percent: f64) {
        self.range(path, percent, 0.0, 100.0);
        // Proxies count in millionths.
        if percent > 0.0 && percent < 0.0001 {
            self.at(path, Code::InvalidValue, format!("{percent} is smaller than 0.0001, the least share above 0"));
        }
    }

    /// Who sees an object. istio/istio: pkg/config/validation validateExportTo.
    /// `~` (nobody) is for services only.
    pub(super) fn export_to(&mut self, namespace: &str, values: &[Str], of_service: bool) {
        self.unique("exportTo", "", values.iter().map(|v| &**v));
        let alone = |value: &str| values.len() > 1 && values.iter().any(|v| *v == *value);
        if alone("*") || alone("~") {
            self.at("exportTo", Code::Conflict, "'*' and '~' cannot stand beside other namespaces");
        }
        if values.iter().any(|v| *v == ".") && values.iter().any(|v| *v == *namespace) {
            self.at("exportTo", Code::Duplicate, "'.' is the object's own namespace, which is there by name, too");
        }
        for (index, value) in values.iter().enumerate() {
            let path = format!("exportTo[{index}]");
            match &**value {
                "." | "*" => {}
                "~" if of_service => {}
                "~" => self.at(&path, Code::InvalidValue, "'~' is for services only"),
                name => self.dns_label(&path, name),
            }
        }
    }
}

/// An address, or an address with the length of its prefix.
pub(super) fn is_cidr(text: &str) -> bool {
    let (address, length) = text.split_once('/').map_or((text, None), |(address, length)| (address, Some(length)));
    let bits = match address.parse::<IpAddr>() {
        Ok(IpAddr::V4(_)) => 32,
        Ok(IpAddr::V6(_)) => 128,
        Err(_) => return false,
    };
    // No sign and no leading zero: what `u8::from_str` takes beyond digits is excluded here.
    length.is_none_or(|text| text.bytes().all(|b| b.is_ascii_digit()) && text.parse::<u8>().is_ok_and(|n| n <= bits))
}

/// Letters, digits and inner `-`, `_`, `.`; at most 63 characters; may be empty.
fn is_label_text(text: &str) -> bool {
    let outer = |b: u8| b.is_ascii_alphanumeric();
    text.len() <= 63
        && text.bytes().all(|b| outer(b) || matches!(b, b'-' | b'_' | b'.'))
        && text.bytes().next().is_none_or(outer)
        && text.bytes().last().is_none_or(outer)
}

/// DNS labels joined by dots, at most 253 characters (RFC 1123).
pub(super) fn is_dns_subdomain(text: &str) -> bool {
    text.len() <= 253 && text.split('.').all(is_dns_label)
}
