//! A text of many documents: those with pods are written anew, all others stay as they are, byte for byte.

use std::sync::Arc;

use mesh_api::parse;
use mesh_api_gotmpl::yaml;
use meshd_core::inject::{Decision, Facts, PodFacts};
use serde_json::Value;

use super::{Run, owner, workload};

/// Deepest nesting of lists in lists.
const MAX_LIST_DEPTH: usize = 8;

/// What became of a text.
#[derive(Debug, Default)]
pub(super) struct Done {
    /// The new text.
    pub(super) text: String,
    /// What is to be said about it.
    pub(super) outcomes: Vec<Outcome>,
}

/// Something to be said about an object.
#[derive(Debug)]
pub(super) enum Outcome {
    /// Worth knowing: it was left alone, or something in it has no effect.
    Note(String),
    /// It cannot be injected.
    Refused(String),
}

/// Injects what has pods in `text`, which is called `name`.
pub(super) fn inject(run: &Run, name: &str, text: &str) -> Done {
    let mut done = Done::default();
    for (line, document) in split(text) {
        let value = match parse::parse_value(document, "document") {
            Ok(value) => value,
            Err(error) => {
                let at = line + error.line.saturating_sub(1);
                done.outcomes.push(Outcome::Refused(format!("{name}:{at}: {}", error.message)));
                continue;
            }
        };
        let mut changed = value;
        if inject_object(run, &mut changed, 0, &mut done.outcomes) {
            let head = head(document);
            done.text += head;
            if !head.is_empty() && !head.ends_with('\n') {
                done.text.push('\n');
            }
            done.text += &yaml::to_string(&changed);
        } else {
            done.text += document;
        }
    }
    done
}

/// Joins the texts of two files: documents are told apart.
pub(super) fn join(all: &mut String, more: &str) {
    if !all.is_empty() {
        if !all.ends_with('\n') {
            all.push('\n');
        }
        if !more.starts_with("---") {
            *all += "---\n";
        }
    }
    *all += more;
}

/// Injects an object, or the items of a list. Whether it is another now.
fn inject_object(run: &Run, object: &mut Value, depth: usize, outcomes: &mut Vec<Outcome>) -> bool {
    if is_list(object) && depth < MAX_LIST_DEPTH {
        let items = object.get_mut("items").and_then(Value::as_array_mut).into_iter().flatten();
        // Every item is looked at, changed ones before it or not.
        return items.fold(false, |changed, item| inject_object(run, item, depth + 1, outcomes) | changed);
    }
    let Some(template) = workload::template(object) else { return false };
    let kind = object.get("kind").and_then(Value::as_str).unwrap_or_default();
    let owner = owner(object, &run.namespace);
    let what = format!("{kind} {}/{}", owner.namespace, owner.name);
    let pod = template.pod(object);
    if let Decision::Skip(reason) = run.injector.decide(&PodFacts { pod: &pod, namespace: &owner.namespace }) {
        outcomes.push(Outcome::Note(format!("{what}: not injected: {reason}")));
        return false;
    }
    let facts = Facts {
        namespace: owner.namespace.clone(),
        // A pod by itself may name a controller.
        owner: (kind != "Pod").then_some(owner),
        native_sidecar: run.native_sidecar,
        proxy_configs: Arc::clone(&run.proxy_configs),
        ..Facts::default()
    };
    match run.injector.inject(&pod, &facts) {
        Ok(injected) => {
            let warnings = injected.warnings.into_iter();
            outcomes.extend(warnings.map(|warning| Outcome::Note(format!("{what}: warning: {warning}"))));
            template.put(object, injected.pod);
            true
        }
        Err(refusal) => {
            outcomes.push(Outcome::Refused(format!("{what}: {refusal}")));
            false
        }
    }
}

fn is_list(object: &Value) -> bool {
    let kind = object.get("kind").and_then(Value::as_str).unwrap_or_default();
    kind.ends_with("List") && object.get("items").is_some_and(Value::is_array)
}

/// The documents of a text with the line each begins at, from 1. Together they are the text: a marker belongs to the
/// document that it begins.
fn split(text: &str) -> Vec<(usize, &str)> {
    let (mut documents, mut start, mut line_of_start, mut offset) = (Vec::new(), 0, 1, 0);
    for (number, line) in (1..).zip(text.split_inclusive('\n')) {
        let marker =
            line.strip_prefix("---").is_some_and(|rest| rest.is_empty() || rest.starts_with(char::is_whitespace));
        if marker && offset > start {
            documents.push((line_of_start, text.get(start..offset).unwrap_or_default()));
            (start, line_of_start) = (offset, number);
        }
        offset += line.len();
    }
    if offset > start {
        documents.push((line_of_start, text.get(start..).unwrap_or_default()));
    }
    documents
}

/// What comes before the content of a document: its marker, comments and empty lines.
fn head(document: &str) -> &str {
    let is_head = |line: &&str| {
        let line = line.trim();
        line.is_empty() || line.starts_with('#') || line == "---"
    };
    let length = document.split_inclusive('\n').take_while(is_head).map(str::len).sum();
    document.get(..length).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use mesh_api::mesh_config::MeshConfig;
    use meshd_core::inject::Injector;

    use super::*;

    fn run_of() -> Run {
        let injector = Injector::from_config("", "", &MeshConfig::default(), "").unwrap().on_demand();
        Run { injector, namespace: "default".to_owned(), native_sidecar: true, proxy_configs: Arc::default() }
    }

    const POD: &str = "# The shop.\napiVersion: v1\nkind: Pod # lost\nmetadata: {name: web}\nspec: {containers: [{name: app, image: a}]}\n";
    const SERVICE: &str =
        "--- # first\n# A comment.\napiVersion: v1\nkind: Service\nmetadata:\n    name:   'web' # odd\n...\n";

    #[test]
    fn documents_together_are_the_text() {
        for text in ["", "a: 1", "a: 1\n---\nb: 2\n", "---\n---\na: 1\n--- {b: 1}\n---\n", "a: |\n  ---\nb: ---\n"] {
            let joined: String = split(text).into_iter().map(|(_, document)| document).collect();
            assert_eq!(joined, text);
        }
        assert_eq!(split("a: 1\n---\nb: 2\n"), [(1, "a: 1\n"), (2, "---\nb: 2\n")]);
    }

    #[test]
    fn documents_without_pods_stay_byte_for_byte() {
        let text = format!("{SERVICE}---\n{POD}{SERVICE}---\n# nothing\n");
        let done = inject(&run_of(), "x", &text);
        assert!(done.outcomes.is_empty(), "{:?}", done.outcomes);
        assert!(
            done.text.starts_with(SERVICE) && done.text.ends_with(&format!("{SERVICE}---\n# nothing\n")),
            "{}",
            done.text
        );
        assert!(done.text.contains("---\n# The shop.\napiVersion: v1\n") && done.text.contains("istio-proxy"));
    }

    #[test]
    fn items_of_lists_are_injected() {
        let text = "kind: List\napiVersion: v1\nitems:\n- {kind: Service, metadata: {name: a}}\n\
            - {kind: Pod, metadata: {name: b}, spec: {containers: [{name: app}]}}\n";
        let value: Value = serde_yaml_ng::from_str(&inject(&run_of(), "x", text).text).unwrap();
        assert_eq!(
            value.pointer("/items/0").unwrap(),
            &serde_json::json!({"kind": "Service", "metadata": {"name": "a"}})
        );
        assert!(value.pointer("/items/1/metadata/annotations").is_some());
    }

    #[test]
    fn what_is_left_alone_or_refused_is_named() {
        let skipped = POD.replace("spec: {", "spec: {hostNetwork: true, ");
        let done = inject(&run_of(), "x", &skipped);
        assert_eq!(done.text, skipped);
        assert!(
            matches!(&done.outcomes[..], [Outcome::Note(note)] if note.contains("Pod default/web: not injected: "))
        );
        let refused = POD.replace("{name: web}", "{name: web, annotations: {sidecar.istio.io/interceptionMode: X}}");
        let done = inject(&run_of(), "x", &format!("{refused}---\na: [\n"));
        let all = format!("{:?}", done.outcomes);
        assert!(all.contains("interceptionMode") && all.contains("x:"), "{all}");
    }

    #[test]
    fn a_second_injection_changes_nothing() {
        let first = inject(&run_of(), "x", POD).text;
        assert_eq!(inject(&run_of(), "x", &first).text, first);
    }

    #[test]
    fn words_that_yaml_1_1_reads_otherwise_are_quoted() {
        for word in
            ["on", "y", "no", "0o17", "012", "1_000", "1e3", "~", "null", "1.0", "=", "0x1f", "1:30", ".5", "<<"]
        {
            let yaml = yaml::to_string(&serde_json::json!({ "a": word }));
            assert!(yaml.starts_with("a: '") || yaml.starts_with("a: \""), "{yaml}");
        }
    }
}
