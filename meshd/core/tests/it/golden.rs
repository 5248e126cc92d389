//! `tests/cases/<case>/{input.yaml,proxy.yaml}` → `expected.yaml`. `UPDATE_GOLDEN=1` writes the expectation anew.

use std::collections::BTreeMap;
use std::fs;
use std::sync::Arc;

use mesh_api_xds::codec;
use mesh_api_xds::ir::Resource;
use mesh_api_xds::type_url::TypeUrl;
use meshd_core::snapshot::Snapshot;
use meshd_core::translate::{Translation, Translator, Wanted};
use serde_json::{Map, Value, json};

use crate::fixture::{Case, ProxySpec, read};

#[test]
fn every_case_gives_what_it_should() {
    let mut failures = Vec::new();
    for case in Case::all() {
        let found = serde_yaml_ng::to_string(&render(&case)).unwrap();
        let path = case.path.join("expected.yaml");
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            fs::write(&path, &found).unwrap();
        } else if !path.exists() || read(&path) != found {
            let expected = if path.exists() { read(&path) } else { String::new() };
            failures.push(format!("{}:\n{}", case.name(), difference(&expected, &found)));
        }
    }
    assert!(failures.is_empty(), "UPDATE_GOLDEN=1 writes what was found\n{}", failures.join("\n"));
}

/// What is served is what was meant: every resource survives the wire.
#[test]
fn every_resource_survives_the_wire() {
    for case in Case::all() {
        let snapshot = Snapshot::build(&case.world(), 1);
        let translator = Translator::<Resource>::default();
        for proxy in &case.proxies {
            let translation = translator.translate(&snapshot, &proxy.view(), Wanted::all());
            for resource in resources(&translation) {
                let place = format!("{}, {}: {}", case.name(), proxy.name, resource.name());
                let encoded = codec::encode(&resource).unwrap_or_else(|error| panic!("{place}: {error}"));
                let decoded = codec::decode(codec::type_of(&resource), &encoded.bytes);
                let decoded = decoded.unwrap_or_else(|error| panic!("{place}: {error}"));
                // A key is not printed, so that equality is all there is to compare.
                assert!(decoded == *resource, "{place}:\n{decoded:#?}\n{resource:#?}");
            }
        }
    }
}

pub(crate) fn resources(translation: &Translation<Resource>) -> Vec<Arc<Resource>> {
    translation.sets.iter().filter_map(|(_, set)| set.as_ref()).flat_map(|set| set.iter().cloned()).collect()
}

fn render(case: &Case) -> Value {
    let snapshot = Snapshot::build(&case.world(), 1);
    let translator = Translator::<Resource>::default();
    let mut out = Map::new();
    let findings: Vec<String> = snapshot.findings().iter().map(ToString::to_string).collect();
    if !findings.is_empty() {
        out.insert("findings".to_owned(), json!(findings));
    }
    for proxy in &case.proxies {
        let translation = translator.translate(&snapshot, &proxy.view(), Wanted::all());
        out.insert(proxy.name.clone(), render_proxy(proxy, &translation));
    }
    Value::Object(out)
}

fn render_proxy(proxy: &ProxySpec, translation: &Translation<Resource>) -> Value {
    let mut out = Map::new();
    let findings: Vec<String> = translation.findings.iter().map(ToString::to_string).collect();
    if !findings.is_empty() {
        out.insert("findings".to_owned(), json!(findings));
    }
    let mut names = Map::new();
    for (type_url, set) in translation.sets.iter() {
        let Some(set) = set.as_ref().filter(|set| !set.is_empty()) else { continue };
        let word = word(type_url);
        let all: BTreeMap<&str, &Resource> = set.iter().map(|r| (r.name().as_str(), &**r)).collect();
        assert_eq!(all.len(), set.len(), "{}: two {word} of one name", proxy.name);
        names.insert(word.to_owned(), json!(all.keys().collect::<Vec<_>>()));
        let shown = all.iter().filter(|(name, _)| proxy.show.iter().any(|show| shows(show, word, name)));
        let shown: Map<String, Value> = shown.map(|(name, resource)| ((*name).to_owned(), content(resource))).collect();
        if !shown.is_empty() {
            out.insert(word.to_owned(), Value::Object(shown));
        }
    }
    out.insert("names".to_owned(), Value::Object(names));
    Value::Object(out)
}

const fn word(type_url: TypeUrl) -> &'static str {
    match type_url {
        TypeUrl::Cluster => "clusters",
        TypeUrl::Endpoint => "endpoints",
        TypeUrl::Listener => "listeners",
        TypeUrl::RouteConfiguration => "routes",
        TypeUrl::VirtualHost => "hosts",
        TypeUrl::Secret => "secrets",
        TypeUrl::NameTable => "nameTables",
        TypeUrl::Generation => "marks",
    }
}

fn shows(show: &str, word: &str, name: &str) -> bool {
    let (kind, pattern) = show.split_once(' ').unwrap_or((show, "*"));
    let mut rest = name;
    let mut pieces = pattern.split('*').peekable();
    let first = pieces.next().unwrap_or_default();
    let Some(after) = rest.strip_prefix(first) else { return false };
    rest = after;
    while let Some(piece) = pieces.next() {
        if pieces.peek().is_none() {
            return kind == word && rest.ends_with(piece);
        }
        let Some(at) = rest.find(piece) else { return false };
        rest = &rest[at + piece.len()..];
    }
    kind == word && rest.is_empty()
}

/// A resource without the envelope of its type, its durations as text; what is false, zero or empty is left out.
fn content(resource: &Resource) -> Value {
    let value = serde_json::to_value(resource).unwrap();
    let Value::Object(map) = value else { panic!("a resource is an object") };
    tidy(map.into_iter().next().unwrap().1).unwrap_or_default()
}

fn tidy(value: Value) -> Option<Value> {
    match value {
        Value::Null | Value::Bool(false) => None,
        Value::Number(number) if number.as_u64() == Some(0) => None,
        Value::String(text) if text.is_empty() => None,
        Value::Object(map) if is_duration(&map) => {
            let (seconds, nanos) = (map["secs"].as_u64()?, map["nanos"].as_u64()?);
            (seconds + nanos > 0).then(|| json!(format!("{}s", seconds as f64 + nanos as f64 / 1e9)))
        }
        Value::Object(map) => {
            let kept: Map<_, _> = map.into_iter().filter_map(|(key, value)| Some((key, tidy(value)?))).collect();
            (!kept.is_empty()).then_some(Value::Object(kept))
        }
        // A list keeps its length.
        Value::Array(list) => {
            let kept: Vec<_> = list.into_iter().map(|value| tidy(value).unwrap_or_default()).collect();
            (!kept.is_empty()).then_some(Value::Array(kept))
        }
        other => Some(other),
    }
}

fn is_duration(map: &Map<String, Value>) -> bool {
    map.len() == 2 && map.contains_key("secs") && map.contains_key("nanos")
}

/// The lines that differ, with a few around them.
fn difference(expected: &str, found: &str) -> String {
    let (old, new): (Vec<_>, Vec<_>) = (expected.lines().collect(), found.lines().collect());
    let same = old.iter().zip(&new).take_while(|(a, b)| a == b).count();
    let from = same.saturating_sub(3);
    let show = |lines: &[&str], sign: &str| -> String {
        lines.iter().skip(from).take(30).map(|line| format!("  {sign} {line}\n")).collect()
    };
    format!("  first difference in line {}\n{}{}", same + 1, show(&old, "-"), show(&new, "+"))
}
