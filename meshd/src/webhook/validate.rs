//! `/validate`: whether an object of the mesh may come in. Its errors refuse it, its warnings are told to its author.

use mesh_api::finding::Finding;
use mesh_api::parse::parse;
use serde_json::Value;

use super::review::{Answer, Question};

/// Most findings that one refusal quotes.
const MAX_LINES: usize = 20;

/// Answers a question. Pure.
pub(crate) fn answer(question: &Question) -> Answer {
    // An object that ends must be able to, whatever is in it.
    let ends = question.object["metadata"].get("deletionTimestamp").is_some_and(|at| !at.is_null());
    if ends || !matches!(question.operation.as_str(), "CREATE" | "UPDATE") || question.object.is_null() {
        return Answer::allowed();
    }
    let mut object = question.object.clone();
    complete(&mut object, question);
    let parsed = parse(&object.to_string(), &question.namespace);
    let mut findings = parsed.findings;
    for item in parsed.objects {
        match item {
            Ok(item) => {
                let rules = mesh_api::validate::validate(&item.object);
                findings.extend(item.findings.into_iter().chain(rules));
            }
            Err(error) => findings.push(error.to_finding()),
        }
    }
    let (errors, others): (Vec<&Finding>, Vec<&Finding>) = findings.iter().partition(|finding| finding.is_error());
    let warnings = others.into_iter().map(line);
    if errors.is_empty() {
        return Answer::allowed().warning(warnings);
    }
    let mut lines: Vec<String> = errors.iter().take(MAX_LINES).map(|finding| line(finding)).collect();
    if errors.len() > MAX_LINES {
        lines.push(format!("and {} more", errors.len() - MAX_LINES));
    }
    Answer::refused(lines.join("; ")).warning(warnings)
}

/// Fills in what an object in a request may leave out: the API server knows it besides.
fn complete(object: &mut Value, question: &Question) {
    let kind = &question.kind;
    let version = if kind.group.is_empty() { kind.version.clone() } else { format!("{}/{}", kind.group, kind.version) };
    object["apiVersion"] = Value::String(version);
    object["kind"] = Value::String(kind.kind.clone());
    if object["metadata"]["name"].as_str().is_none_or(str::is_empty) {
        // Its name is made later.
        let prefix = object["metadata"]["generateName"].as_str().unwrap_or("x").to_owned();
        let name = if question.name.is_empty() { format!("{prefix}x") } else { question.name.clone() };
        object["metadata"]["name"] = Value::String(name);
    }
    // Neither is the author's, and both may be large.
    if let Some(object) = object.as_object_mut() {
        object.remove("status");
    }
    if let Some(meta) = object["metadata"].as_object_mut() {
        meta.remove("managedFields");
    }
}

/// A finding without the object, which its author knows, and without a line of the JSON, which nobody wrote.
fn line(finding: &Finding) -> String {
    let mut finding = finding.clone();
    finding.key = None;
    finding.origin = Default::default();
    let line = finding.to_string();
    line.split_once(' ').map_or_else(|| line.clone(), |(_, rest)| rest.to_owned())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::review::GroupKind;
    use super::*;

    fn mk_question(kind: &str, object: Value) -> Question {
        let kind = GroupKind { group: "networking.istio.io".into(), version: "v1".into(), kind: kind.into() };
        Question {
            uid: "u".into(),
            kind,
            namespace: "shop".into(),
            operation: "CREATE".into(),
            object,
            ..Question::default()
        }
    }

    fn mk_route(weight: i32) -> Value {
        let to = json!({"destination": {"host": "reviews"}, "weight": weight});
        json!({"metadata": {"name": "web"}, "spec": {"hosts": ["reviews"], "http": [{"route": [to]}]}})
    }

    #[test]
    fn what_is_right_comes_in() {
        assert_eq!(answer(&mk_question("VirtualService", mk_route(100))), Answer::allowed());
        let unnamed = json!({"metadata": {"generateName": "web-"}, "spec": {"hosts": ["a"], "http": [{"route": [
            {"destination": {"host": "a"}}]}]}});
        assert_eq!(answer(&mk_question("VirtualService", unnamed)), Answer::allowed());
    }

    #[test]
    fn what_is_wrong_stays_out_and_is_named() {
        let refused = answer(&mk_question("VirtualService", mk_route(-1))).refused.unwrap();
        assert!(refused.contains("spec.http[0].route[0].weight") && refused.starts_with("MESH2"), "{refused}");
        let none = json!({"metadata": {"name": "web"}, "spec": {"selector": {"istio": "ingressgateway"}}});
        let refused = answer(&mk_question("Gateway", none)).refused.unwrap();
        assert!(refused.contains("spec.servers"), "{refused}");
        let typed = json!({"metadata": {"name": "web"}, "spec": {"hosts": 7}});
        assert!(answer(&mk_question("VirtualService", typed)).refused.is_some());
    }

    #[test]
    fn what_ends_or_is_unknown_comes_in() {
        let mut object = mk_route(-1);
        object["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        assert_eq!(answer(&mk_question("VirtualService", object)), Answer::allowed());
        let deleted = Question { operation: "DELETE".into(), ..mk_question("VirtualService", Value::Null) };
        assert_eq!(answer(&deleted), Answer::allowed());
        let unknown = answer(&mk_question("EnvoyFilter", json!({"metadata": {"name": "x"}, "spec": {}})));
        assert!(unknown.refused.is_none() && !unknown.warnings.is_empty(), "{unknown:?}");
    }

    #[test]
    fn warnings_are_told() {
        let dated = json!({"metadata": {"name": "web"}, "spec": {"hosts": ["a"], "http": [
            {"route": [{"destination": {"host": "a"}}]}, {"route": [{"destination": {"host": "a"}}]}]}});
        let answer = answer(&mk_question("VirtualService", dated));
        assert!(answer.refused.is_none());
        assert!(answer.warnings.iter().any(|warning| warning.starts_with("MESH2009")), "{answer:?}");
    }
}
