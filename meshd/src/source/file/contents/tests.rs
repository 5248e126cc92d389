use super::*;

fn mk_contents() -> Contents {
    Contents::new(ClusterId::from("c"), Str::from("default"))
}

fn service(name: &str, port: u16) -> String {
    format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: shop}}\nspec: {{ports: [{{port: {port}}}]}}\n"
    )
}

fn set(contents: &mut Contents, path: &str, text: &str) -> Taken {
    contents.set(&Str::from(path), text.as_bytes())
}

/// Changes as short words: `+Service/shop/a`, `-Service/shop/a`, `a.yaml: 2 findings`.
#[track_caller]
fn check(contents: &mut Contents, expect: &[&str]) {
    let words: Vec<String> = contents
        .changes()
        .iter()
        .map(|change| match change {
            Change::Upsert { object, .. } => format!("+{}", object.key()),
            Change::Delete(key) => format!("-{key}"),
            Change::Resync { kind, .. } => format!("={kind}"),
            Change::Findings { origin, findings } => format!("{origin}: {} findings", findings.len()),
        })
        .collect();
    assert_eq!(words, expect);
}

fn findings(contents: &mut Contents) -> Vec<String> {
    contents.changes();
    contents.told_findings.values().flatten().map(ToString::to_string).collect()
}

#[test]
fn only_what_differs_is_told() {
    let mut contents = mk_contents();
    set(&mut contents, "a.yaml", &format!("{}---\n{}", service("a", 80), service("b", 80)));
    check(&mut contents, &["+Service/shop/a", "+Service/shop/b"]);
    check(&mut contents, &[]);
    assert_eq!(set(&mut contents, "b.yaml", &service("c", 80)), Taken::Good);
    check(&mut contents, &["+Service/shop/c"]);
    assert_eq!(set(&mut contents, "b.yaml", &service("c", 80)), Taken::Same);
    set(&mut contents, "a.yaml", &service("b", 80));
    check(&mut contents, &["-Service/shop/a", "+Service/shop/b"]);
}

#[test]
fn a_deleted_file_takes_its_objects_along() {
    let mut contents = mk_contents();
    set(&mut contents, "a.yaml", &service("a", 80));
    set(&mut contents, "b.yaml", "broken: [");
    contents.changes();
    let gone = contents.retain(&|_| false, &BTreeSet::new());
    assert_eq!(gone, ["a.yaml", "b.yaml"]);
    check(&mut contents, &["-Service/shop/a", "b.yaml: 0 findings"]);
}

#[test]
fn a_broken_file_keeps_its_last_good_version_as_a_whole() {
    let mut contents = mk_contents();
    set(&mut contents, "a.yaml", &format!("{}---\n{}", service("a", 80), service("b", 80)));
    contents.changes();
    let broken = format!("{}---\nkind: [\n", service("a", 81));
    assert_eq!(set(&mut contents, "a.yaml", &broken), Taken::KeptLastGood);
    check(&mut contents, &["a.yaml: 2 findings"]);
    let said = findings(&mut contents);
    assert!(said[0].contains("its last good version stays in force"), "{said:?}");
    assert!(said[1].starts_with("error MESH1001 a.yaml:7") && said[1].contains("document 2: "), "{said:?}");
    assert_eq!(set(&mut contents, "a.yaml", &service("a", 82)), Taken::Good);
    check(&mut contents, &["-Service/shop/b", "+Service/shop/a", "a.yaml: 0 findings"]);
}

#[test]
fn a_file_that_never_was_good_gives_what_can_be_read() {
    let mut contents = mk_contents();
    assert_eq!(set(&mut contents, "a.yaml", &format!("{}---\nkind: [\n", service("a", 80))), Taken::Partly);
    check(&mut contents, &["+Service/shop/a", "a.yaml: 1 findings"]);
}

#[test]
fn a_last_good_version_survives_a_restart() {
    let mut contents = mk_contents();
    let path = Str::from("a.yaml");
    contents.restore(&path, service("a", 80).as_bytes());
    assert_eq!(set(&mut contents, "a.yaml", "kind: ["), Taken::KeptLastGood);
    check(&mut contents, &["+Service/shop/a", "a.yaml: 2 findings"]);
    // What no longer reads is not used.
    let mut contents = mk_contents();
    contents.restore(&path, b"kind: [");
    assert_eq!(set(&mut contents, "a.yaml", "kind: ["), Taken::Partly);
}

#[test]
fn the_first_file_by_path_wins_a_name_whatever_the_order_of_reading() {
    let mut contents = mk_contents();
    set(&mut contents, "b.yaml", &service("a", 81));
    check(&mut contents, &["+Service/shop/a"]);
    set(&mut contents, "a.yaml", &service("a", 80));
    check(&mut contents, &["+Service/shop/a", "b.yaml: 1 findings"]);
    let said = findings(&mut contents);
    assert!(said[0].contains("b.yaml:1 Service/shop/a") && said[0].contains("already defined at a.yaml:1"), "{said:?}");
    contents.retain(&|path| path != "a.yaml", &BTreeSet::new());
    check(&mut contents, &["+Service/shop/a", "b.yaml: 0 findings"]);
}

#[test]
fn what_cannot_be_read_stays_as_it_was() {
    let mut contents = mk_contents();
    set(&mut contents, "x/a.yaml", &service("a", 80));
    contents.changes();
    let folder = Str::from("x");
    contents.set_unreadable(&folder, "permission denied");
    assert!(contents.retain(&|_| false, &BTreeSet::from([folder])).is_empty());
    check(&mut contents, &["x: 1 findings"]);
    contents.retain(&|_| true, &BTreeSet::new());
    check(&mut contents, &["x: 0 findings"]);
}

#[test]
fn lines_of_findings_are_those_of_the_file() {
    let text = format!(
        "{}---\napiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: v, namespace: shop}}\nspec:\n  hosts: [a]\n  htp: []\n",
        service("a", 80)
    );
    let mut contents = mk_contents();
    assert_eq!(set(&mut contents, "a.yaml", &text), Taken::Partly);
    let said = findings(&mut contents);
    assert!(said.iter().any(|line| line.contains("MESH1004 a.yaml:11 VirtualService/shop/v spec.htp")), "{said:?}");
}

#[test]
fn a_policy_that_never_was_good_lets_nobody_in() {
    let mut contents = mk_contents();
    let policy = |name: &str, kind: &str, spec: &str| {
        format!("apiVersion: security.istio.io/v1\nkind: {kind}\nmetadata: {{name: {name}}}\nspec: {spec}\n")
    };
    let text = [
        service("a", 80),
        policy("deny", "AuthorizationPolicy", "{selector: {matchLabels: {app: web}}, action: MAYBE}"),
        policy("tls", "PeerAuthentication", "{mtls: {mode: SOMETIMES}}"),
    ]
    .join("---\n");
    assert_eq!(set(&mut contents, "a.yaml", &text), Taken::Partly);
    let specs: Vec<String> = contents
        .changes()
        .into_iter()
        .filter_map(|change| match change {
            Change::Upsert { object, .. } if object.kind().is_mesh() => {
                Some(serde_json::to_value(&object).unwrap()["spec"].to_string())
            }
            _ => None,
        })
        .collect();
    let expect =
        [r#"{"mtls":{"mode":"STRICT"}}"#, r#"{"action":"DENY","rules":[{}],"selector":{"matchLabels":{"app":"web"}}}"#];
    assert_eq!(specs, expect);
    let told = findings(&mut contents);
    assert!(told.iter().any(|finding| finding.contains("all requests to what it selects are refused")), "{told:?}");
    let repaired = text.replace("MAYBE", "ALLOW").replace("SOMETIMES", "PERMISSIVE");
    assert_eq!(set(&mut contents, "a.yaml", &repaired), Taken::Good);
    // From now on the file has a good version, which stays.
    assert_eq!(set(&mut contents, "a.yaml", &text), Taken::KeptLastGood);
}
