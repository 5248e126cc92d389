//! Each case is a spec and the findings it must give, as `code path`.

mod policies;
mod virtual_service;

use super::{rules, validate};
use crate::{finding::Finding, kinds::Kind, parse::parse};
use proptest::prelude::*;

fn findings_of(kind: Kind, spec: &str) -> Vec<Finding> {
    let indented: String = spec.trim_matches('\n').lines().map(|line| format!("  {line}\n")).collect();
    let api = kind.info().api_version();
    let text = format!("apiVersion: {api}\nkind: {kind}\nmetadata: {{name: x, namespace: shop}}\nspec:\n{indented}");
    let mut parsed = parse(&text, "default");
    assert_eq!(parsed.objects.len(), 1, "{text}");
    let item = parsed.objects.remove(0).unwrap_or_else(|error| panic!("{error:?}\n{text}"));
    assert!(item.findings.is_empty(), "{:?}\n{text}", item.findings);
    // Without the table of what does not act, so that its rows come and go without these tests.
    rules(&item.object)
}

#[track_caller]
fn check(kind: Kind, spec: &str, expect: &[&str]) {
    let findings = findings_of(kind, spec);
    let mut found: Vec<String> =
        findings.iter().map(|f| format!("{:?} {}", f.code, f.path.strip_prefix("spec.").unwrap_or(&f.path))).collect();
    found.sort_unstable();
    let mut expect: Vec<&str> = expect.to_vec();
    expect.sort_unstable();
    let all: Vec<String> = findings.iter().map(ToString::to_string).collect();
    assert_eq!(found, expect, "\n{spec}\n{}", all.join("\n"));
    assert!(findings.iter().all(|f| !f.message.is_empty() && !f.message.ends_with('.')));
}

#[test]
fn metadata() {
    let text = "apiVersion: networking.istio.io/v1
kind: Sidecar
metadata:
  name: Bad_Name
  namespace: a.b
  labels: {'a b': x, good: 'x y', example.com/fine: v-1}
  annotations: {internal.istio.io/parents: x}
spec: {egress: [{hosts: ['*/*']}]}
";
    let parsed = parse(text, "default");
    let findings = validate(&parsed.objects[0].as_ref().unwrap().object);
    let found: Vec<String> = findings.iter().map(|f| format!("{:?} {}", f.code, f.path)).collect();
    assert_eq!(
        found,
        [
            "InvalidName metadata.name",
            "InvalidName metadata.namespace",
            "InvalidName metadata.labels.a b",
            "InvalidName metadata.labels.good",
            "InternalAnnotation metadata.annotations.internal.istio.io/parents",
        ]
    );
}

#[test]
fn dry_run_is_named() {
    let text = "apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: x, annotations: {istio.io/dry-run: 'true'}}
spec: {action: DENY, rules: [{}]}
";
    let findings = validate(&parse(text, "default").objects[0].as_ref().unwrap().object);
    assert_eq!(findings.len(), 1);
    assert_eq!(findings[0].path, "metadata.annotations.istio.io/dry-run");
    assert_eq!(findings[0].key.as_ref().unwrap().to_string(), "AuthorizationPolicy/default/x");
}

#[test]
fn core_kinds() {
    let svc = Kind::Service;
    check(svc, "clusterIP: None\nports: [{port: 80}]", &[]);
    check(
        svc,
        "clusterIP: x\nports: [{port: 0, name: a}, {port: 1}, {port: 2, name: a}]\ntype: ExternalName",
        &[
            "InvalidValue clusterIP",
            "InvalidValue ports[0].port",
            "Required ports[1].name",
            "Duplicate ports[2].name",
            "Required externalName",
        ],
    );
}

proptest! {
    /// Whatever can be read can be validated.
    #[test]
    fn never_panics(
        kind in proptest::sample::select(Kind::ALL.iter().copied().filter(|k| k.is_mesh()).collect::<Vec<_>>()),
        words in proptest::collection::vec("[a*/.~{}\\[(:0-]{0,6}", 8),
        numbers in proptest::collection::vec(-3..70_000i64, 4),
    ) {
        let w = |i: usize| format!("{:?}", words[i]);
        let spec = format!(
            "{{hosts: [{a}, {b}], host: {a}, gateways: [{c}], exportTo: [{d}], address: {a}, addresses: [{e}],
              http: [{{match: [{{uri: {{regex: {f}}}, headers: {{{g}: {{prefix: {h}}}}}}}],
                       route: [{{destination: {{host: {a}}}, weight: {n}}}]}}],
              egress: [{{hosts: [{a}, {b}]}}], ingress: [{{bind: {c}, defaultEndpoint: {d}}}],
              servers: [{{hosts: [{e}], bind: {f}}}],
              rules: [{{from: [{{source: {{principals: [{a}], ipBlocks: [{b}]}}}}],
                        to: [{{operation: {{paths: [{c}], ports: [{d}]}}}}], when: [{{key: {e}, values: [{f}]}}]}}]}}",
            a = w(0), b = w(1), c = w(2), d = w(3), e = w(4), f = w(5), g = w(6), h = w(7), n = numbers[0],
        );
        let api = kind.info().api_version();
        let text = format!("{{apiVersion: {api}, kind: {kind}, metadata: {{name: {}}}, spec: {spec}}}", w(0));
        for item in parse(&text, "default").objects.iter().flatten() {
            let _ = validate(&item.object);
        }
    }
}
