//! The engine beside what real Go gave (`testdata/go.json`), its bounds, and its messages.

use serde_json::{Value as Json, json};

use super::*;

#[track_caller]
fn check(text: &str, data: &Json, expected: &str) {
    let mut templates = Templates::new();
    templates.add("t", text).unwrap();
    assert_eq!(templates.render("t", data).unwrap(), expected, "{text}");
}

fn failure(text: &str) -> Error {
    let mut templates = Templates::new();
    match templates.add("t", text) {
        Ok(()) => templates.render("t", &json!({ "a": { "b": 1 } })).unwrap_err(),
        Err(error) => error,
    }
}

#[test]
fn as_go_does() {
    let cases: Vec<Json> = serde_json::from_str(include_str!("../testdata/go.json")).unwrap();
    assert!(cases.len() >= 150, "{}", cases.len());
    let mut wrong = Vec::new();
    for case in &cases {
        let text = case["template"].as_str().unwrap();
        let mut templates = Templates::new();
        let got = templates.add("t", text).and_then(|()| templates.render("t", &case["data"]));
        let fits = match (&got, case["output"].as_str()) {
            (Ok(got), Some(expected)) => got == expected,
            (Err(_), None) => true,
            _ => false,
        };
        if !fits {
            wrong.push(format!("{text}\n  go:  {}{}\n  got: {got:?}", case["output"], case["error"]));
        }
    }
    assert!(wrong.is_empty(), "{} differ:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn errors_name_the_template_and_the_line() {
    let text = |error: Error| error.to_string();
    assert_eq!(text(failure("a\n\n{{ .a.b.c }}")), "template t, line 3: cannot take .c of a int64");
    assert_eq!(text(failure("{{ nope }}")), "template t, line 1: there is no function `nope`");
    assert_eq!(text(failure("\n{{ $x }}")), "template t, line 2: there is no variable $x");
    assert_eq!(text(failure("{{ if .a }}")), "template t, line 1: `if` has no `end`");
    assert_eq!(
        text(failure("{{ define \"u\" }}\n{{ add1 }}{{ end }}{{ template \"u\" }}")),
        "template t, line 2: add1: takes 1 arguments, has 0"
    );
    let asked = failure("{{ required \"set it\" .nothing }}");
    assert_eq!((asked.kind, asked.message.as_str()), (ErrorKind::Asked, "set it"));
}

#[test]
fn what_a_template_costs_is_bounded() {
    let kind = |text: &str| failure(text).kind;
    assert_eq!(kind("{{ define \"a\" }}{{ template \"a\" . }}{{ end }}{{ template \"a\" . }}"), ErrorKind::Limit);
    assert_eq!(kind("{{ define \"a\" }}{{ include \"a\" . }}{{ end }}{{ include \"a\" . }}"), ErrorKind::Limit);
    assert_eq!(kind("{{ repeat 1000000000 \"abcdefgh\" }}"), ErrorKind::Limit);
    assert_eq!(kind("{{ range until 1000000000 }}{{ end }}"), ErrorKind::Limit);
    assert_eq!(kind("{{ range 2000000000 }}{{ end }}"), ErrorKind::Limit);
    assert_eq!(kind("{{ range until 50000 }}{{ range until 50000 }}x{{ end }}{{ end }}"), ErrorKind::Limit);
    let doubling = "{{ $x := \"0123456789abcdef\" }}{{ range until 60 }}{{ $x = print $x $x }}{{ end }}";
    assert_eq!(kind(doubling), ErrorKind::Limit);
    let deep = "{{ $x := list }}{{ range until 5000 }}{{ $x = list $x }}{{ end }}";
    assert_eq!(kind(deep), ErrorKind::Limit);
    let chain =
        "{{ $x := dict }}{{ range until 5000 }}{{ $y := dict }}{{ $_ := set $x \"k\" $y }}{{ $x = $y }}{{ end }}";
    assert_eq!(kind(chain), ErrorKind::Limit);
    assert_eq!(failure("{{ $x := dict }}{{ set $x \"k\" (list $x) }}").message, "set: a dictionary would be in itself");
    assert_eq!(kind(&format!("{}1{}", "{{ if 1 }}".repeat(500), "{{ end }}".repeat(500))), ErrorKind::Syntax);
    assert_eq!(kind(&format!("{{{{ {}1{} }}}}", "(".repeat(500), ")".repeat(500))), ErrorKind::Syntax);
}

#[test]
fn a_deep_chain_of_dictionaries_is_dropped_in_peace() {
    let text = "{{ $a := dict }}{{ $x := $a }}{{ range until 900 }}{{ $y := dict }}{{ $_ := set $x \"k\" $y }}\
        {{ $x = $y }}{{ end }}done";
    check(text, &Json::Null, "done");
    assert_eq!(failure(&text.replace("done", "{{ toJson $a }}")).kind, ErrorKind::Run);
}

#[test]
fn functions_of_the_caller_win() {
    let mut templates = Templates::new()
        .function("annotation", |a| Ok(a[0]["annotations"][a[1].as_str().unwrap_or_default()].clone()))
        .function("upper", |_| Err("not today".to_owned()));
    templates.add("t", "{{ annotation .meta \"x\" | quote }}").unwrap();
    templates.add("u", "{{ upper \"a\" }}").unwrap();
    let data = json!({ "meta": { "annotations": { "x": "y" } } });
    assert_eq!(templates.render("t", &data).unwrap(), "\"y\"");
    assert_eq!(templates.render("u", &data).unwrap_err().to_string(), "template u, line 1: upper: not today");
}

#[test]
fn values_have_the_methods_that_the_caller_gives_them() {
    let mut templates = Templates::new()
        .method("Get", |a| Ok(json!(format!("{} of {}", a[1], a[0]))))
        .method("Size", |a| Ok(json!(a[0].as_array().map_or(0, Vec::len))));
    templates.add("t", "{{ .files.Get \"x\" }} {{ \"y\" | $.files.Get }} {{ .list.Size }} {{ .own.Size }}").unwrap();
    let data = json!({ "files": {}, "list": [1, 2], "own": { "Size": "own" } });
    assert_eq!(templates.render("t", &data).unwrap(), "\"x\" of {} \"y\" of {} 2 own");
}

#[test]
fn what_is_missing_is_shown_as_asked() {
    let mut templates = Templates::new();
    templates.add("t", "{{ .no }}").unwrap();
    assert_eq!(templates.render("t", &json!({})).unwrap(), "");
    templates.missing = Missing::NoValue;
    assert_eq!(templates.render("t", &json!({})).unwrap(), "<no value>");
    templates.missing = Missing::Refused;
    assert_eq!(templates.render("t", &json!({})).unwrap_err().message, "there is no such value");
}

#[test]
fn whole_numbers_stay_whole() {
    check(
        "{{ .n }} {{ .n | toString }} {{ printf \"%d %v\" .n .n }}",
        &json!({ "n": 15_012_000 }),
        "15012000 15012000 15012000 15012000",
    );
}

#[test]
fn yaml_reads_as_it_was() {
    let texts = [
        "",
        " ",
        "a",
        "on",
        "No",
        "~",
        "null",
        "1",
        "1_0",
        "0x1",
        "1e3",
        ".5",
        "1:30",
        "12:30:45",
        "a: b",
        "a:b",
        "a #b",
        "#a",
        "- a",
        "-a",
        "?",
        "*a",
        "&a",
        "!a",
        "%a",
        "@a",
        "`a",
        "a\nb",
        "a\nb\n",
        "a\n\n",
        "\na\nb",
        " a\nb",
        "a\n b",
        "a \nb",
        "tab\there",
        "{a}",
        "[a]",
        "é",
        "\u{85}",
        "\u{2028}x\ny",
        "\u{7f}",
        "a\\b",
        "\"a\"",
        "'a'",
        "a,b",
        "x(y)=z$w",
        "=",
        "<<",
        "a\r\nb",
        "2001-01-01",
        "+1",
        "a ",
        "a:",
        "---",
        "--- a\nb",
        "a\n---\nb",
        "\u{feff}a",
    ];
    for text in texts {
        for value in [json!(text), json!({ "k": text }), json!([text, { "k": [text] }]), json!({ text: [[text], []] })]
        {
            let written = yaml::to_string(&value);
            assert_eq!(yaml::from_str(&written).as_ref(), Ok(&value), "{written}");
            assert_eq!(
                yaml::documents(&format!("{written}---\n{written}")).map(|d| d.len()),
                Ok(if value.is_null() { 0 } else { 2 }),
                "{written}"
            );
        }
    }
    let value = json!({ "a": { "b": [], "c": {}, "d": null, "e": [1, 2.5, true, { "f": 1, "g": [{ "h": 1 }] }] } });
    assert_eq!(yaml::from_str(&yaml::to_string(&value)), Ok(value));
}
