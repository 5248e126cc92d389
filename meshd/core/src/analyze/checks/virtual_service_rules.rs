//! Rules of a VirtualService that no request reaches, for one before takes all that they would.

use std::collections::{BTreeMap, HashMap};

use serde_json::Value;

use super::Check;
use crate::analyze::message::{INEFFECTIVE_MATCH, Messages, UNREACHABLE_RULE};
use crate::analyze::objects::{Objects, Subject};
use crate::analyze::sorts::Sort;
use crate::analyze::view;

pub(super) const CHECK: Check =
    Check { name: "virtualservice.rules", doc: "Every rule of a VirtualService can be reached", needs: &[], run };

fn run(objects: &Objects, messages: &mut Messages) {
    for service in objects.of(Sort::VIRTUAL_SERVICE) {
        for list in ["http", "tls", "tcp"] {
            rules(service, list, messages);
        }
        overlaps(service, messages);
    }
}

fn rules(service: &Subject, list: &str, messages: &mut Messages) {
    let mut seen: HashMap<String, String> = HashMap::new();
    let mut takes_all = false;
    let unreachable = |rule: &str, why: &str, path: String, messages: &mut Messages| {
        messages.tell(&UNREACHABLE_RULE, service, path, format!("VirtualService rule {rule} not used ({why})."));
    };
    for (index, route) in service.list(&format!("spec.{list}")).iter().enumerate() {
        let (rule, path) = (name(route, index), format!("spec.{list}[{index}]"));
        let matches = view::list(route, "match");
        if matches.is_empty() {
            if takes_all {
                unreachable(&rule, "only the last rule can have no matches", path, messages);
            }
            takes_all = true;
            continue;
        }
        let mut duplicates = 0;
        for (number, one) in matches.iter().enumerate() {
            if takes_all {
                unreachable(&rule, "route without matches defined before", path.clone(), messages);
                continue;
            }
            match seen.get(&nameless(one)) {
                Some(before) => {
                    duplicates += 1;
                    ineffective(
                        service,
                        &rule,
                        &name(one, number),
                        before,
                        format!("{path}.match[{number}]"),
                        messages,
                    );
                }
                None => drop(seen.insert(nameless(one), rule.clone())),
            }
        }
        if duplicates == matches.len() {
            unreachable(&rule, "all matches used by prior rules", path, messages);
        }
    }
}

fn ineffective(service: &Subject, rule: &str, one: &str, before: &str, path: String, messages: &mut Messages) {
    let text =
        format!("VirtualService rule {rule} match {one} is not used (duplicate/overlapping match in rule {before}).");
    messages.tell(&INEFFECTIVE_MATCH, service, path, text);
}

/// Prefixes of which one covers a later one.
fn overlaps(service: &Subject, messages: &mut Messages) {
    let mut prefixes: Vec<Prefix<'_>> = Vec::new();
    let mut seen: Vec<String> = Vec::new();
    for (index, route) in service.list("spec.http").iter().enumerate() {
        let matches = view::list(route, "match");
        if matches.is_empty() {
            break;
        }
        for (number, one) in matches.iter().enumerate() {
            if seen.contains(&nameless(one)) {
                continue;
            }
            seen.push(nameless(one));
            let path = format!("spec.http[{index}].match[{number}]");
            prefixes.extend(Prefix::of(one, name(route, index), name(one, number), path));
        }
    }
    for (index, before) in prefixes.iter().enumerate() {
        for later in prefixes.iter().skip(index + 1) {
            if before.prefix != later.prefix && before.covers(later) {
                let one = format!("{} of prefix {}", later.name, later.prefix);
                let dup = format!("{} of prefix {} on {}", before.name, before.prefix, before.rule);
                ineffective(service, &later.rule, &one, &dup, later.path.clone(), messages);
            }
        }
    }
}

/// A match by the beginning of a path.
struct Prefix<'a> {
    rule: String,
    name: String,
    path: String,
    prefix: &'a str,
    port: u64,
    method: String,
    authority: String,
    maps: [BTreeMap<&'a str, String>; 3],
}

impl<'a> Prefix<'a> {
    fn of(one: &'a Value, rule: String, name: String, path: String) -> Option<Self> {
        let prefix = view::text(one, "uri.prefix");
        let map = |field: &str| {
            let fields = view::at(one, field).and_then(Value::as_object);
            fields.into_iter().flatten().map(|(key, value)| (key.as_str(), exact_or_prefix(value))).collect()
        };
        let of = |field: &str| view::at(one, field).map(exact_or_prefix).unwrap_or_default();
        let method = match of("method") {
            none if none.is_empty() => "exact GET".to_owned(),
            some => some,
        };
        (!prefix.is_empty()).then(|| Self {
            rule,
            name,
            path,
            prefix,
            port: view::number(one, "port").unwrap_or_default(),
            method,
            authority: of("authority"),
            maps: [map("headers"), map("queryParams"), map("withoutHeaders")],
        })
    }

    /// Whether every request that `later` takes is taken by this one.
    fn covers(&self, later: &Self) -> bool {
        let same_maps = self.maps.iter().zip(&later.maps).all(|(mine, theirs)| {
            let has = |(key, value): (&&str, &String)| {
                theirs.get(*key).is_some_and(|other| value.starts_with(other.as_str()))
            };
            mine.len() == theirs.len() && mine.iter().all(has)
        });
        later.prefix.starts_with(self.prefix)
            && self.port == later.port
            && self.method.starts_with(&later.method)
            && self.authority.starts_with(&later.authority)
            && same_maps
    }
}

fn exact_or_prefix(value: &Value) -> String {
    match (view::text(value, "exact"), view::text(value, "prefix")) {
        ("", "") => String::new(),
        ("", prefix) => format!("prefix {prefix}"),
        (exact, _) => format!("exact {exact}"),
    }
}

/// As Istio names rules and matches: by their name, or by their place.
fn name(value: &Value, index: usize) -> String {
    match view::text(value, "name") {
        "" => format!("#{index}"),
        name => format!("{name:?}"),
    }
}

/// What a match takes, whatever it is called.
fn nameless(one: &Value) -> String {
    let mut one = one.clone();
    if let Some(fields) = one.as_object_mut() {
        fields.remove("name");
    }
    one.to_string()
}
