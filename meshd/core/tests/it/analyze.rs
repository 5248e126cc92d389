//! Analysis: golden cases in `tests/analyze/<case>.yaml` and what is told about it, `<case>.txt`. `UPDATE_GOLDEN=1` writes them anew.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use mesh_api::codes::Code as FindingCode;
use mesh_api::finding::Finding;
use mesh_api::kinds::Kind;
use mesh_api::object::AnyObject;
use mesh_api::validate::validate;
use serde::Deserialize as _;
use serde_json::Value;

use meshd_core::analyze::{Code, Input, Message, Subject, analyze, checks, message};

fn cases() -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "tests", "analyze"].iter().collect()
}

fn subjects(text: &str) -> Vec<Subject> {
    let mut subjects = Vec::new();
    for document in serde_yaml_ng::Deserializer::from_str(text) {
        let value = Value::deserialize(document).unwrap();
        let of = |field: &str| value.get(field).and_then(Value::as_str).unwrap_or_default().to_owned();
        let kind = Kind::from_api(&of("apiVersion"), &of("kind"));
        let object = kind.map(|kind| AnyObject::from_value(kind, &value).unwrap());
        let findings = object.map(|object| validate(&object)).unwrap_or_default();
        subjects.push(Subject::new(value, "default", findings));
    }
    subjects
}

/// How much of the mesh a text is.
#[derive(Clone, Copy)]
enum Knowledge {
    Everything,
    Files,
}

fn told(text: &str, knowledge: Knowledge) -> (Vec<Message>, String) {
    let all = subjects(text);
    let names: Vec<String> = all.iter().map(|subject| format!("{} {}", subject.kind, subject.full_name())).collect();
    let root_namespace = "istio-system".to_owned();
    let messages = analyze(match knowledge {
        Knowledge::Everything => Input { subjects: all, root_namespace, unknown: BTreeSet::new(), known: Vec::new() },
        Knowledge::Files => Input::of_files(all, root_namespace),
    });
    // What does not act yet changes with every release; it is told by a test of its own.
    let stable = messages.iter().filter(|message| message.code.family == "IST");
    let lines: Vec<String> = stable
        .map(|message| {
            let Message { code, subject, path, text } = message;
            format!("{} [{code}] ({} {path}) {text}\n", code.level, names[*subject])
        })
        .collect();
    (messages, lines.concat())
}

#[test]
fn cases_are_told_as_stored() {
    let mut seen: BTreeSet<String> = BTreeSet::new();
    let mut wrong = Vec::new();
    let mut files: Vec<PathBuf> = fs::read_dir(cases()).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|ending| ending == "yaml"));
    files.sort();
    for path in files {
        let text = fs::read_to_string(&path).unwrap();
        let (messages, lines) = told(&text, Knowledge::Everything);
        seen.extend(messages.iter().map(|message| message.code.to_string()));
        let stored = path.with_extension("txt");
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            fs::write(&stored, &lines).unwrap();
        }
        let expect = fs::read_to_string(&stored).unwrap_or_default();
        if expect != lines {
            wrong.push(format!("{}\nexpected:\n{expect}\ntold:\n{lines}", path.display()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let without: Vec<String> =
        message::CODES.iter().filter(|code| code.family == "IST").map(|code| code.to_string()).collect();
    let without: Vec<String> = without.into_iter().filter(|code| !seen.contains(code)).collect();
    assert!(without.is_empty(), "codes without a case: {without:?}");
}

#[test]
fn codes_and_checks_are_unique() {
    let codes: BTreeSet<String> = message::CODES.iter().map(|code: &&Code| code.to_string()).collect();
    assert_eq!(codes.len(), message::CODES.len());
    let names: BTreeSet<&str> = checks::ALL.iter().map(|check| check.name).collect();
    assert_eq!(names.len(), checks::ALL.len());
    assert!(checks::ALL.iter().all(|check| !check.doc.is_empty()));
}

#[test]
fn findings_of_an_object_are_told_in_istios_words() {
    #[track_caller]
    fn check(code: FindingCode, expect: &str) {
        let value = serde_json::json!({ "apiVersion": "networking.istio.io/v1", "kind": "ProxyConfig",
            "metadata": { "name": "a", "namespace": "shop" } });
        let subject = Subject::new(value, "", vec![Finding::new(code, "spec.a", "is wrong").hint("mend it")]);
        let input = Input::of_files(vec![subject], "istio-system".to_owned());
        let told: Vec<String> = analyze(input).iter().map(|told| format!("{} {}", told.code, told.text)).collect();
        assert_eq!(told, [expect]);
    }
    check(FindingCode::Required, "IST0106 Schema validation error: spec.a: is wrong (mend it)");
    check(FindingCode::Ineffective, "IST0133 Schema validation warning: spec.a: is wrong (mend it)");
    check(FindingCode::Deprecated, "IST0002 Deprecated: spec.a: is wrong (mend it)");
    check(FindingCode::NotActing, "MESH4001 spec.a: is wrong (mend it)");
    check(FindingCode::KindNotActing, "MESH4002 spec.a: is wrong (mend it)");
}

const ALONE: &str = "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: web, namespace: shop}\n\
    spec: {hosts: [web], http: [{route: [{destination: {host: web}}]}]}\n";

#[test]
fn files_alone_are_not_guessed_about() {
    assert_eq!(told(ALONE, Knowledge::Files).1, "");
    assert!(told(ALONE, Knowledge::Everything).1.contains("Referenced host not found: \"web\""));
}

#[test]
fn an_object_may_suppress_what_is_told_about_it() {
    let suppressed = ALONE.replace(
        "namespace: shop",
        "namespace: shop, annotations: {galley.istio.io/analyze-suppress: 'IST0102, IST0101'}",
    );
    assert_eq!(told(&suppressed, Knowledge::Everything).1, "");
    let other =
        ALONE.replace("namespace: shop", "namespace: shop, annotations: {galley.istio.io/analyze-suppress: IST0102}");
    assert_ne!(told(&other, Knowledge::Everything).1, "");
}
