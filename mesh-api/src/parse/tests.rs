use super::{Item, MAX_DOCUMENT_BYTES, ParseError, Parsed, parse};
use crate::{codes::Code, finding::Severity, object::AnyObject, validate::validate};
use proptest::prelude::*;

fn read(text: &str) -> Parsed {
    parse(text, "default")
}

#[track_caller]
fn one(text: &str) -> Item {
    let mut parsed = read(text);
    assert_eq!(parsed.objects.len(), 1, "{parsed:?}");
    parsed.objects.remove(0).unwrap()
}

#[track_caller]
fn one_error(text: &str) -> ParseError {
    let mut parsed = read(text);
    assert_eq!(parsed.objects.len(), 1, "{parsed:?}");
    parsed.objects.remove(0).unwrap_err()
}

const WEB: &str = "apiVersion: networking.istio.io/v1
kind: VirtualService
metadata:
  name: web
  namespace: shop
spec:
  hosts: [web]
  http:
  - timeout: 5s
    route:
    - destination: {host: web, port: {number: 80}}
";

#[test]
fn a_file_of_many_documents_keeps_order_and_lines() {
    let text = format!(
        "# the shop\n---\n{WEB}---\napiVersion: v1\nkind: Service\nmetadata: {{name: web}}\nspec:\n  ports: [{{port: 80, targetPort: http}}]\n"
    );
    let parsed = read(&text);
    let found: Vec<(String, usize, usize)> = parsed
        .objects
        .iter()
        .map(|o| o.as_ref().unwrap())
        .map(|item| (item.object.key().to_string(), item.document, item.line))
        .collect();
    assert_eq!(found, [("VirtualService/shop/web".to_owned(), 0, 2), ("Service/default/web".to_owned(), 1, 14)]);
    assert!(parsed.findings.is_empty());
}

#[test]
fn a_broken_document_leaves_its_neighbours_alone() {
    let text = format!("{WEB}---\na: [1\n---\n{}", WEB.replace("name: web", "name: other"));
    let parsed = read(&text);
    assert_eq!(parsed.objects.len(), 3);
    assert!(parsed.objects[0].is_ok() && parsed.objects[2].is_ok());
    let error = parsed.objects[1].as_ref().unwrap_err();
    assert_eq!((error.code, error.document), (Code::Syntax, 1));
    assert!((12..=15).contains(&error.line), "{error:?}");
}

#[test]
fn a_wrong_type_is_named_by_object_path_and_line() {
    let error = one_error(&WEB.replace("timeout: 5s", "timeout: 5 sec"));
    assert_eq!(error.code, Code::WrongType);
    assert_eq!(error.key.as_ref().unwrap().to_string(), "VirtualService/shop/web");
    assert_eq!((error.path.as_str(), error.line), ("spec.http[0].timeout", 9));
    assert!(error.message.contains("\"5 sec\" has no unit"), "{error:?}");

    let error = one_error(&WEB.replace("hosts: [web]", "hosts: [1]"));
    assert_eq!((error.path.as_str(), error.hint.as_str()), ("spec.hosts[0]", "put the value in quotes"));

    let error = one_error(&WEB.replace("hosts: [web]", "hosts: web"));
    assert_eq!(error.path, "spec.hosts");
}

#[test]
fn empty_fields_do_not_hide_the_line_of_an_error() {
    let text = WEB.replace("timeout: 5s", "timeout: 5 sec").replace("hosts: [web]", "hosts: [web]\n  tls:");
    let error = one_error(&text);
    assert_eq!((error.path.as_str(), error.line), ("spec.http[0].timeout", 10));
}

#[test]
fn unknown_fields_are_found_with_a_hint() {
    let text = WEB.replace("timeout: 5s", "timout: 5s\n    mtach: []\n    subset: v1\n    xyz: 1") + "stats: 1\n";
    let item = one(&text);
    let mut found: Vec<(&str, &str)> = item.findings.iter().map(|f| (&*f.path, &*f.hint)).collect();
    found.sort_unstable();
    assert_eq!(
        found,
        [
            ("spec.http[0].mtach", "did you mean match?"),
            ("spec.http[0].subset", "the field subset is at spec.http[].mirror.subset"),
            ("spec.http[0].timout", "did you mean timeout?"),
            ("spec.http[0].xyz", ""),
            ("stats", "did you mean status?"),
        ]
    );
    assert!(item.findings.iter().all(|f| f.is_error() && f.key.is_some()));
}

#[test]
fn map_keys_are_not_fields() {
    let text =
        WEB.replace("timeout: 5s", "match: [{headers: {x-any: {exact: a, prefx: b}}, sourceLabels: {foo: bar}}]");
    let found = one(&text).findings;
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(found[0].path, "spec.http[0].match[0].headers.x-any.prefx");
}

#[test]
fn numbers_as_keys_are_looked_into() {
    let text = "{apiVersion: security.istio.io/v1, kind: PeerAuthentication, metadata: {name: a}, spec: {portLevelMtls: {80: {mod: STRICT}}}}";
    let found = one(text).findings;
    assert_eq!(found.iter().map(|f| &*f.path).collect::<Vec<_>>(), ["spec.portLevelMtls.80.mod"]);
}

#[test]
fn core_kinds_may_have_any_field() {
    let item = one(
        "apiVersion: v1\nkind: Pod\nmetadata: {name: p, ownerReferences: []}\nspec: {volumes: [{x: 1}], nodeName: null}\n",
    );
    assert!(item.findings.is_empty());
}

#[test]
fn an_empty_field_is_absent_but_an_empty_entry_is_an_error() {
    let item = one(&WEB.replace("timeout: 5s", "timeout:\n    match:"));
    let AnyObject::VirtualService(object) = item.object else { panic!() };
    assert_eq!(object.spec.http[0].timeout, None);
    let error = one_error(&WEB.replace("timeout: 5s", "match: [{headers: {x-a: }}]"));
    assert!(error.path.starts_with("spec.http[0].match[0].headers"), "{error:?}");
    one_error(&WEB.replace("timeout: 5s", "match: [null]"));
}

#[test]
fn unknown_kinds_are_findings() {
    #[track_caller]
    fn check(api: &str, kind: &str, code: Code, severity: Severity, hint: &str) {
        let parsed = read(&format!("apiVersion: {api}\nkind: {kind}\nmetadata: {{name: a, namespace: b}}\n"));
        assert!(parsed.objects.is_empty());
        let [finding] = parsed.findings.as_slice() else { panic!("{parsed:?}") };
        assert_eq!((finding.code, finding.severity, finding.hint.as_str()), (code, severity, hint));
        assert!(finding.message.contains(&format!("{kind}/b/a")), "{finding}");
    }
    let warning = Severity::Warning;
    check("networking.istio.io/v1", "VirtualServce", Code::UnknownKind, warning, "did you mean VirtualService?");
    check("networking.istio.io/v9", "Gateway", Code::UnknownKind, warning, "use networking.istio.io/v1");
    check("apps/v1", "Deployment", Code::UnknownKind, Severity::Info, "");
    check("v1", "ServiceAccount", Code::UnknownKind, Severity::Info, "");
    let text = "patches of Envoy's configuration are not applied";
    check("networking.istio.io/v1alpha3", "EnvoyFilter", Code::KindNotActing, warning, text);
}

#[test]
fn lists_are_taken_apart() {
    let text = "apiVersion: v1
kind: List
items:
- {apiVersion: v1, kind: Namespace, metadata: {name: a, namespace: ignored}}
- {apiVersion: v1, kind: Service, metadata: {name: b}, spec: {ports: [{port: many}]}}
- 5
";
    let parsed = read(text);
    let [first, second, third] = parsed.objects.as_slice() else { panic!("{parsed:?}") };
    assert_eq!(first.as_ref().unwrap().object.key().to_string(), "Namespace/a");
    assert_eq!(second.as_ref().unwrap_err().path, "spec.ports[0].port");
    assert_eq!(third.as_ref().unwrap_err().code, Code::NotAnObject);

    let typed = "{apiVersion: v1, kind: PodList, items: [{metadata: {name: p}}]}";
    assert_eq!(one(typed).object.key().to_string(), "Pod/default/p");
}

#[test]
fn what_is_no_object_says_why() {
    for text in [
        "[]",
        "5",
        "kind: Pod",
        "apiVersion: v1",
        "{apiVersion: v1, kind: Pod}",
        "{apiVersion: v1, kind: Pod, metadata: {name: ''}}",
    ] {
        assert_eq!(one_error(text).code, Code::NotAnObject, "{text}");
    }
    assert_eq!(one_error("a: 1\na: 2").code, Code::Syntax);
    assert_eq!(one_error("a: !custom 1").code, Code::Syntax);
    assert_eq!(one_error("a: .inf").code, Code::Syntax);
    assert_eq!(one_error("? [a]\n: b").code, Code::Syntax);
}

#[test]
fn merge_keys_work_as_in_kubectl() {
    let text = "apiVersion: v1
kind: ConfigMap
metadata: {name: c}
x-base: &base {a: '1', b: '1'}
data:
  <<: *base
  b: '2'
";
    let AnyObject::ConfigMap(object) = one(text).object else { panic!() };
    let data: Vec<(&str, &str)> = object.spec.data.iter().map(|(k, v)| (&**k, &**v)).collect();
    assert_eq!(data, [("a", "1"), ("b", "2")]);
}

#[test]
fn a_secret_is_never_quoted() {
    let error = one_error("{apiVersion: v1, kind: Secret, metadata: {name: s}, data: hunter2}");
    assert!(!format!("{error:?}").contains("hunter2"), "{error:?}");
}

#[test]
fn hostile_documents_end_soon_with_an_error() {
    #[track_caller]
    fn check(name: &str, text: &str, code: Code) {
        let error = one_error(text);
        assert_eq!(error.code, code, "{name}: {}", error.message);
    }
    let bomb = |width: usize| {
        let mut text = String::from("a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n");
        for i in 1..=width {
            let refs = vec![format!("*a{}", i - 1); 10].join(",");
            text += &format!("a{i}: &a{i} [{refs}]\n");
        }
        text
    };
    check("aliases", &bomb(9), Code::TooLarge);
    check(
        "aliases of a long text",
        &format!("a: &a {}\nb: [{}]", "x".repeat(100_000), vec!["*a"; 10_000].join(",")),
        Code::TooLarge,
    );
    check("a loop", "a: &a [*a]", Code::TooLarge);
    check("flow depth", &"[".repeat(1_000_000), Code::TooLarge);
    check("open flow depth", &"[a,\n".repeat(9_000), Code::TooLarge);
    check("closed flow depth", &format!("{}{}", "[".repeat(5_000), "]".repeat(5_000)), Code::TooLarge);
    check("block depth", &(0..3_000).map(|i| format!("{}a:\n", " ".repeat(i))).collect::<String>(), Code::TooLarge);
    check("size", &format!("a: {}", "x".repeat(MAX_DOCUMENT_BYTES)), Code::TooLarge);
    check("unknown alias", "a: *b", Code::Syntax);
    check("no text", "a: \u{0}", Code::Syntax);
}

#[test]
fn a_thousand_errors_stay_cheap() {
    let items = "- {apiVersion: v1, kind: Service, metadata: {name: a}, spec: {ports: 1}}\n".repeat(1000);
    let parsed = read(&format!("apiVersion: v1\nkind: List\nitems:\n{items}"));
    let lines: Vec<usize> = parsed.objects.iter().map(|o| o.as_ref().unwrap_err().line).collect();
    assert_eq!((lines.len(), lines[0], lines[19], lines[20]), (1000, 4, 23, 1));

    let fields: String = (0..1000).map(|i| format!("  field{i}x: 1\n")).collect();
    assert_eq!(one(&format!("{WEB}{fields}")).findings.len(), 100);
    let routes = "  - {}\n".repeat(1000);
    assert_eq!(validate(&one(&format!("{WEB}{routes}")).object).len(), 100);
    // A hundred warnings do not hide the error that follows them.
    let warnings = WEB.replace("timeout: 5s", &format!("match: [{}]", vec!["{}"; 200].join(",")));
    let findings = validate(&one(&format!("{warnings}  - {{}}\n")).object);
    assert!(findings.len() == 100 && findings[0].is_error(), "{findings:?}");
}

proptest! {
    #[test]
    fn never_panics(text in "[-{}\\[\\]&*!|>'\":,#?%@a-c \n\t]{0,80}") {
        let _ = read(&text);
    }

    #[test]
    fn never_panics_on_damaged_objects(at in 0..200usize, insert in "[-{}\\[\\]&*!|>'\":,#?%@a-c \n\t]{0,4}") {
        let mut text = WEB.to_owned();
        text.insert_str(at.min(text.len()), &insert);
        let _ = read(&text);
    }
}
